//! The containers on this host.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::types::Time;

/// Time for which the addresses of a dead container are kept, in case it is started again.
///
/// Rule: `docs/protocol/ipam.md#7-3-containers`.
const DEAD_CONTAINER_KEPT: Duration = Duration::from_secs(30);

/// Containers of this host that have ended, and whether the addresses in use here are known.
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

    /// Records that a container has ended.
    pub(super) fn died(&mut self, id: &str, now: Time) {
        self.dead.insert(id.to_owned(), now);
    }

    /// Records that a container runs, or does not matter any more.
    pub(super) fn not_dead(&mut self, id: &str) {
        self.dead.remove(id);
    }

    pub(super) fn is_dead(&self, id: &str) -> bool {
        self.dead.contains_key(id)
    }

    /// Returns the containers that have been dead long enough to lose their addresses.
    pub(super) fn dead_for_long(&self, now: Time) -> Vec<String> {
        let dead = self.dead.iter();
        dead.filter(|(_, died)| **died + DEAD_CONTAINER_KEPT <= now)
            .map(|(id, _)| id.clone())
            .collect()
    }
}
