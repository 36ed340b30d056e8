//! Ownership of short ids.
//!
//! Any peer may claim any of the 4096 ids. Of several claimants the one with the lowest name owns
//! the id, so all peers agree without communicating.

use std::collections::{BTreeMap, BTreeSet};

use crate::types::{PeerName, ShortId};

/// Number of random draws before a free id is searched for.
const DRAWS: u8 = 10;

/// The claims on short ids.
#[derive(Clone, Debug, Default)]
pub(super) struct ShortIds {
    /// Empty sets are kept, because a later use of such an id is a change and not a first use.
    claims: BTreeMap<ShortId, BTreeSet<PeerName>>,
}

impl ShortIds {
    /// Returns the peer that owns `id`.
    ///
    /// Rule: `docs/protocol/mesh.md#6-5-short-ids`.
    pub(super) fn owner(&self, id: ShortId) -> Option<PeerName> {
        self.claims.get(&id)?.first().copied()
    }

    /// Adds a claim. Returns true if the id changed its owner.
    pub(super) fn claim(&mut self, id: ShortId, name: PeerName) -> bool {
        let Some(claimants) = self.claims.get_mut(&id) else {
            self.claims.insert(id, BTreeSet::from([name]));
            return false;
        };
        claimants.insert(name) && claimants.first() == Some(&name)
    }

    /// Removes a claim. Returns true if the id changed its owner.
    pub(super) fn release(&mut self, id: ShortId, name: PeerName) -> bool {
        let Some(claimants) = self.claims.get_mut(&id) else {
            return false;
        };
        let owned = claimants.first() == Some(&name);
        claimants.remove(&name);
        owned && !claimants.is_empty()
    }

    /// Returns a random unclaimed id, or `None` if there is none.
    ///
    /// Rule: `docs/protocol/mesh.md#6-5-short-ids`.
    pub(super) fn draw(&self, rng: &mut fastrand::Rng) -> Option<ShortId> {
        for _ in 0..DRAWS {
            let id = ShortId::new(rng.u16(..ShortId::COUNT))?;
            if self.owner(id).is_none() {
                return Some(id);
            }
        }
        let free: Vec<ShortId> = (0..ShortId::COUNT)
            .filter_map(ShortId::new)
            .filter(|id| self.owner(*id).is_none())
            .collect();
        rng.choice(free)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(value: u64) -> PeerName {
        PeerName::from_u64(value).unwrap()
    }

    fn id(value: u16) -> ShortId {
        ShortId::new(value).unwrap()
    }

    #[test]
    fn the_lowest_name_owns() {
        let mut ids = ShortIds::default();
        assert!(!ids.claim(id(7), name(20)), "a first use");
        assert!(
            !ids.claim(id(7), name(30)),
            "a second claim changes nothing"
        );
        assert!(ids.claim(id(7), name(10)), "a lower name takes over");
        assert!(!ids.claim(id(7), name(10)), "once");
        assert_eq!(ids.owner(id(7)), Some(name(10)));
        assert!(!ids.release(id(7), name(20)), "it did not own");
        assert!(ids.release(id(7), name(10)), "the next one takes over");
        assert_eq!(ids.owner(id(7)), Some(name(30)));
        assert!(!ids.release(id(7), name(30)), "nobody takes over");
        assert_eq!(ids.owner(id(7)), None);
        assert!(ids.claim(id(7), name(40)), "a new owner after another");
        assert!(!ids.release(id(8), name(1)));
    }

    #[test]
    fn the_last_free_id_is_found() {
        let mut ids = ShortIds::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for value in (0..ShortId::COUNT).filter(|value| *value != 1234) {
            ids.claim(id(value), name(1));
        }
        assert_eq!(ids.draw(&mut rng), Some(id(1234)));
        ids.claim(id(1234), name(1));
        assert_eq!(ids.draw(&mut rng), None);
        ids.release(id(99), name(1));
        assert_eq!(ids.draw(&mut rng), Some(id(99)));
    }
}
