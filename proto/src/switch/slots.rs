//! Small numbers for peers, so that one stands beside a MAC address in one word.

use std::collections::{BTreeMap, VecDeque};

use super::macs::{MAC_AGE_MAX, PeerSlot};
use crate::types::{PeerName, Time};

/// Most peers that have a slot. Addresses at further peers are not learned.
pub const PEERS_MAX: usize = u16::MAX as usize - 1;

/// Which peer has which slot. A number that became free rests for [`MAC_AGE_MAX`] before another
/// peer gets it, so that no address entry outlives its meaning.
pub struct PeerSlots {
    taken: BTreeMap<PeerName, PeerSlot>,
    resting: VecDeque<(Time, PeerSlot)>,
    /// The lowest number that was never given out.
    next: u16,
}

impl PeerSlots {
    /// Slots of which only ours is taken.
    pub fn new(us: PeerName) -> PeerSlots {
        PeerSlots {
            taken: BTreeMap::from([(us, PeerSlot::US)]),
            resting: VecDeque::new(),
            next: 1,
        }
    }

    /// The slot of a peer.
    pub fn get(&self, name: PeerName) -> Option<PeerSlot> {
        self.taken.get(&name).copied()
    }

    /// Gives each of `peers` a slot and takes those of all others away (never ours). Returns the
    /// slots that became free: what was learned of them is to be forgotten.
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

    /// One more than the highest slot ever given out.
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
