//! What is known of the containers on this host.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::types::Time;

/// How long the addresses of a dead container are kept, in case it is started again.
const DEAD_CONTAINER_KEPT: Duration = Duration::from_secs(30);

/// Which containers of this host have ended, and whether the addresses in use here are known.
#[derive(Debug)]
pub(super) struct Hosted {
    /// Dead containers, and when they died.
    dead: BTreeMap<String, Time>,
    /// Whether the addresses in use on this host are known.
    pub(super) found: bool,
}

impl Hosted {
    pub(super) fn new(found: bool) -> Hosted {
        Hosted {
            dead: BTreeMap::new(),
            found,
        }
    }

    /// Notes that the container has ended.
    pub(super) fn died(&mut self, id: &str, now: Time) {
        self.dead.insert(id.to_owned(), now);
    }

    /// Notes that the container runs, or is of no more interest.
    pub(super) fn not_dead(&mut self, id: &str) {
        self.dead.remove(id);
    }

    pub(super) fn is_dead(&self, id: &str) -> bool {
        self.dead.contains_key(id)
    }

    /// The containers that have been dead for long enough to lose their addresses.
    pub(super) fn dead_for_long(&self, now: Time) -> Vec<String> {
        let dead = self.dead.iter();
        dead.filter(|(_, died)| **died + DEAD_CONTAINER_KEPT <= now)
            .map(|(id, _)| id.clone())
            .collect()
    }
}
