//! Small numbers for peers, so that one shares a word with a MAC address.

use std::collections::{BTreeMap, VecDeque};

use super::macs::{MAC_AGE_MAX, PeerSlot};
use crate::types::{PeerName, Time};

/// Maximum number of peers with a slot. Addresses at further peers are not learned.
pub const PEERS_MAX: usize = u16::MAX as usize - 1;

/// Assignment of slots to peers. A freed number is not reused for [`MAC_AGE_MAX`], so that no entry
/// of the MAC table outlives its meaning.
pub struct PeerSlots {
    taken: BTreeMap<PeerName, PeerSlot>,
    resting: VecDeque<(Time, PeerSlot)>,
    /// The lowest number that was never given out.
    next: u16,
}

impl PeerSlots {
    /// Creates an assignment in which only our own slot is taken.
    pub fn new(us: PeerName) -> PeerSlots {
        PeerSlots {
            taken: BTreeMap::from([(us, PeerSlot::US)]),
            resting: VecDeque::new(),
            next: 1,
        }
    }

    /// Returns the slot of a peer.
    pub fn get(&self, name: PeerName) -> Option<PeerSlot> {
        self.taken.get(&name).copied()
    }

    /// Gives each of `peers` a slot and frees those of all others, except ours. Returns the freed
    /// slots, whose learned addresses must be forgotten.
    pub fn update(&mut self, now: Time, peers: &[PeerName]) -> Vec<PeerSlot> {
        debug_assert!(peers.is_sorted());
        let mut freed = Vec::new();
        self.taken.retain(|name, &mut slot| {
            let stays = slot == PeerSlot::US || peers.binary_search(name).is_ok();
            if !stays {
                freed.push(slot);
            }
            stays
        });
        self.resting.extend(freed.iter().map(|&slot| (now, slot)));
        for &name in peers {
            if !self.taken.contains_key(&name)
                && let Some(slot) = self.take(now)
            {
                self.taken.insert(name, slot);
            }
        }
        freed
    }

    /// Returns one more than the highest slot ever assigned.
    pub(super) fn end(&self) -> usize {
        usize::from(self.next)
    }

    fn take(&mut self, now: Time) -> Option<PeerSlot> {
        if let Some(&(since, slot)) = self.resting.front()
            && now.since(since) >= MAC_AGE_MAX
        {
            self.resting.pop_front();
            return Some(slot);
        }
        if usize::from(self.next) > PEERS_MAX {
            return None;
        }
        let slot = PeerSlot(self.next);
        self.next += 1;
        Some(slot)
    }
}
