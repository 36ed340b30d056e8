//! Leaving the mesh: giving everything to an heir.

use proto::types::PeerName;

use super::api::{Event, Output, Proof};
use super::cx::Cx;
use crate::leases::{Lease, LeaseState};
use crate::persist::Meta;
use crate::range::Address;

/// Returns the peer that gets what we own. Prefers reachable peers, then weft routers to Weave Net
/// routers, then owners of ranges in the order of the ring.
///
/// Rule: `docs/protocol/ipam.md#8-1-leaving`.
pub(super) fn choose_heir(cx: &Cx) -> Option<PeerName> {
    let us = cx.durable.us();
    let ring = cx.durable.ring();
    let owners = ring.entries.iter().map(|entry| entry.peer);
    let nicknamed = cx.members.nicknames().keys().copied();
    let mut all: Vec<PeerName> = owners.clone().chain(nicknamed).collect();
    all.retain(|peer| *peer != us && *peer != PeerName::UNKNOWN);
    let reachable = |peer: &&PeerName| cx.members.is_reachable(**peer);
    let weft = |peer: &&PeerName| cx.members.is_weft(**peer);
    let mut candidates = all.iter();
    candidates
        .clone()
        .find(|peer| reachable(peer) && weft(peer))
        .or_else(|| candidates.clone().find(reachable))
        .or_else(|| candidates.next())
        .copied()
}

/// Transfers the leases that we hold to our heir, or to another weft router if the heir is not one.
pub(super) fn leave_leases(cx: &mut Cx, heir: PeerName) {
    let weft = cx.members.weft_in_reach().next();
    let Some(holder) = weft.map(|first| {
        if cx.members.is_weft(heir) {
            heir
        } else {
            first
        }
    }) else {
        return;
    };
    let us = cx.durable.us();
    let leases = cx.durable.leases().iter();
    let held = leases.filter(|(_, lease)| lease.holder == us && lease.is_live());
    let held: Vec<_> = held.map(|(key, l)| (key.clone(), l.clone())).collect();
    for (key, lease) in held {
        let left = Lease {
            version: lease.version.saturating_add(1),
            holder,
            state: LeaseState::Unused,
            since: cx.clock.wall,
            ..lease
        };
        cx.write_lease(&key, left);
    }
}

/// Gives our addresses to our heir, and says so to everyone.
pub(super) fn hand_over(cx: &mut Cx, heir: PeerName) {
    let us = cx.us();
    let held: Vec<Address> = cx.durable.holdings().keys().copied().collect();
    for address in held {
        cx.release(address, Proof::HostRemoved);
    }
    let moved = cx.durable.change_ring(|ring| ring.transfer(us, heir));
    cx.ring_changed(&moved);
    cx.event(Event::HandedOver(heir));
    cx.send_ring(heir);
    cx.emit(Output::BroadcastState);
    cx.announce_gone(us);
}

/// Records that we have left for good.
///
/// Rule: `docs/protocol/ipam.md#8-1-leaving`.
pub(super) fn leave(cx: &mut Cx) {
    let left = Meta {
        left: true,
        ..*cx.durable.meta()
    };
    cx.durable.set_meta(left);
}
