//! Giving space to peers that ask for it, and making room for that.

use proto::types::PeerName;

use super::super::api::{Channel, Event, Output};
use super::super::cx::Cx;
use crate::messages::Unicast;
use crate::range::{Address, Range};

/// Answers a wish for space: with a grant if there is something to give, and always with our
/// ring, from which the asker sees what it got or whom else to ask.
pub(crate) fn asked(cx: &mut Cx, from: PeerName, wanted: Range) {
    if cx.durable.ring().is_empty() || cx.members.is_silent(from) || from == cx.durable.us() {
        return;
    }
    let gift = if cx.hosted.found && !wanted.is_empty() {
        gift(cx, from, wanted)
    } else {
        None
    };
    match gift {
        Some(range) => {
            cx.durable.grant(range, from);
            cx.event(Event::Granted { range, to: from });
        }
        None => {
            let payload = Unicast::SpaceDenied(wanted).encode();
            cx.unicast(Channel::Ring, from, payload);
        }
    }
    cx.send_ring(from);
    if gift.is_some() {
        cx.emit(Output::BroadcastState);
    }
}

/// What is to be given to a peer that wants space in a range.
fn gift(cx: &mut Cx, to: PeerName, wanted: Range) -> Option<Range> {
    let gift = cx.durable.gift(wanted);
    if gift.is_some() {
        return gift;
    }
    if wanted.size() == 1 {
        return is_for_lease_of(cx, to, wanted.start).then_some(wanted);
    }
    // Leases that nobody uses come last, after what everyone else has to give.
    if cx.others_have_space(to, wanted) {
        return None;
    }
    cx.make_room(wanted)?;
    cx.durable.gift(wanted)
}

/// Whether the peer holds the lease that keeps cx address, which is ours and not in use.
fn is_for_lease_of(cx: &Cx, peer: PeerName, address: Address) -> bool {
    let mut leases = cx.durable.leases().at(address);
    cx.durable.owns(address)
        && !cx.durable.is_held_back(address)
        && cx.durable.holding(address).is_none()
        && leases.any(|(_, lease)| lease.holder == peer)
}
