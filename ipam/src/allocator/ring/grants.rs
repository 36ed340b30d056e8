//! Giving space to peers that ask for it, and making room for that.

use proto::types::PeerName;

use super::super::{Allocator, Channel, Event, Output};
use crate::messages::Unicast;
use crate::range::{Address, Range};

impl Allocator {
    /// Answers a wish for space: with a grant if there is something to give, and always with our
    /// ring, from which the asker sees what it got or whom else to ask.
    pub(in crate::allocator) fn on_space_request(&mut self, from: PeerName, wanted: Range) {
        if self.durable.ring().is_empty()
            || self.members.is_silent(from)
            || from == self.durable.us()
        {
            return;
        }
        let gift = if self.hosted.found && !wanted.is_empty() {
            self.gift(from, wanted)
        } else {
            None
        };
        match gift {
            Some(range) => {
                self.durable.grant(range, from);
                self.event(Event::Granted { range, to: from });
            }
            None => {
                let payload = Unicast::SpaceDenied(wanted).encode();
                self.unicast(Channel::Ring, from, payload);
            }
        }
        self.send_ring(from);
        if gift.is_some() {
            self.emit(Output::BroadcastState);
        }
    }

    /// What is to be given to a peer that wants space in a range.
    fn gift(&mut self, to: PeerName, wanted: Range) -> Option<Range> {
        let gift = self.durable.gift(wanted);
        if gift.is_some() {
            return gift;
        }
        if wanted.size() == 1 {
            return self.is_for_lease_of(to, wanted.start).then_some(wanted);
        }
        // Leases that nobody uses come last, after what everyone else has to give.
        if self.others_have_space(to, wanted) {
            return None;
        }
        self.make_room(wanted)?;
        self.durable.gift(wanted)
    }

    /// Whether the peer holds the lease that keeps this address, which is ours and not in use.
    fn is_for_lease_of(&self, peer: PeerName, address: Address) -> bool {
        let mut leases = self.durable.leases().at(address);
        self.durable.owns(address)
            && !self.durable.is_held_back(address)
            && self.durable.holding(address).is_none()
            && leases.any(|(_, lease)| lease.holder == peer)
    }
}
