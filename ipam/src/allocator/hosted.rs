//! The containers on this host.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::types::Time;

use super::api::Proof;

/// How long the addresses of a dead container are kept, in case it is started again.
const DEAD_CONTAINER_KEPT: Duration = Duration::from_secs(30);

/// The end of a container.
#[derive(Clone, Copy, Debug)]
struct End {
    proof: Proof,
    /// When its addresses are released.
    due: Time,
}

/// Which containers of this host have ended, and whether the addresses in use here are known.
///
/// An end is remembered until the release of the container's addresses is stored, so that a
/// release which could not be is tried again.
#[derive(Debug)]
pub(super) struct Hosted {
    ended: BTreeMap<String, End>,
    /// Those that were taken for alive again, until that is stored.
    revived: BTreeMap<String, End>,
    /// Whether the addresses in use on this host are known.
    pub(super) found: bool,
}

impl Hosted {
    pub(super) fn new(found: bool) -> Hosted {
        Hosted {
            ended: BTreeMap::new(),
            revived: BTreeMap::new(),
            found,
        }
    }

    /// Records that a container has ended.
    pub(super) fn died(&mut self, id: &str, now: Time) {
        let end = End {
            proof: Proof::NamespaceEnded,
            due: now + DEAD_CONTAINER_KEPT,
        };
        self.ended.insert(id.to_owned(), end);
    }

    /// Notes that the container has ended for good.
    pub(super) fn ended(&mut self, id: &str, proof: Proof, now: Time) {
        self.ended.insert(id.to_owned(), End { proof, due: now });
    }

    /// Records that a container runs, or does not matter any more.
    pub(super) fn not_dead(&mut self, id: &str) {
        if let Some(end) = self.ended.remove(id) {
            self.revived.insert(id.to_owned(), end);
        }
    }

    /// How we know that the container has ended, if we do.
    pub(super) fn end_of(&self, id: &str) -> Option<Proof> {
        self.ended.get(id).map(|end| end.proof)
    }

    /// The containers whose addresses are to be released by now.
    pub(super) fn due(&self, now: Time) -> Vec<(String, Proof)> {
        let ended = self.ended.iter().filter(|(_, end)| end.due <= now);
        ended.map(|(id, end)| (id.clone(), end.proof)).collect()
    }

    /// Forgets a container that has no address any more.
    pub(super) fn forget(&mut self, id: &str) {
        self.ended.remove(id);
    }

    /// All that was decided is stored.
    pub(super) fn stored(&mut self) {
        self.revived.clear();
    }

    /// Some of what was decided of late was not stored: containers that were taken for alive may
    /// be dead.
    pub(super) fn rolled_back(&mut self) {
        for (id, end) in std::mem::take(&mut self.revived) {
            self.ended.entry(id).or_insert(end);
        }
    }
}
