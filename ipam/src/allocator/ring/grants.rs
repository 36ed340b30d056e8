//! Grants of space to peers that ask for it.

use std::collections::{BTreeMap, BTreeSet};

use proto::types::PeerName;

use super::super::api::{Channel, Event, Output};
use super::super::cx::Cx;
use crate::messages::Unicast;
use crate::range::{Address, Range};

/// Number of single addresses that a peer gets before it must have said that it uses what it has. A
/// peer that claims addresses for containers that run already claims many at once.
///
/// Rule: `docs/protocol/ipam.md#11-2-reports`.
const SINGLES_UNREPORTED_MAX: u32 = 64;
/// Maximum number of requests of one peer that wait for its report; further ones are ignored.
const HELD_MAX: usize = 64;
/// Maximum number of peers for which grants are recorded.
const ASKERS_MAX: usize = 4096;

/// The grants to one peer since it last said that it uses more than before.
#[derive(Debug, Default)]
struct Asker {
    /// Number of its addresses in use, by its own statement, when it was given the last ones.
    used: u32,
    ranges: u32,
    singles: u32,
    /// Its requests, to be decided on when it has told what it uses.
    held: BTreeSet<Range>,
}

/// Giving space to those that ask for it.
///
/// A peer that asks for space has used up what it has, and its own entries in the ring say so,
/// though they may not have arrived yet. So a peer that says that it has free addresses, and has
/// said so since it was given some, is asked for its ring before it is given more. Otherwise a peer
/// that does nothing but ask would own everything in a moment.
#[derive(Debug, Default)]
pub(crate) struct Grants {
    askers: BTreeMap<PeerName, Asker>,
}

impl Grants {
    /// Answers a space request: with a grant if possible, and always with our ring, which shows the
    /// asker what it got or whom else to ask.
    ///
    /// Rule: `docs/protocol/ipam.md#6-1-space-request`.
    pub(crate) fn asked(&mut self, cx: &mut Cx, from: PeerName, wanted: Range) {
        if cx.durable.ring().is_empty() || cx.members.is_silent(from) || from == cx.us() {
            return;
        }
        if !cx.rations.allows(from, cx.clock.now) {
            // It gets our ring once, whatever else it asked for.
            return cx.rations.owe(from);
        }
        if self.must_report(cx, from, wanted) {
            return self.hold(cx, from, wanted);
        }
        self.answer(cx, from, wanted);
    }

    /// Handles a ring that a peer sent: decides on what the peer asked for.
    pub(crate) fn reported(&mut self, cx: &mut Cx, from: PeerName) {
        let Some(asker) = self.askers.get_mut(&from) else {
            return;
        };
        for wanted in std::mem::take(&mut asker.held) {
            if self.must_report(cx, from, wanted) {
                deny(cx, from, wanted);
                cx.send_ring(from);
            } else {
                self.answer(cx, from, wanted);
            }
        }
    }

    /// Forgets a peer that went.
    pub(crate) fn forget(&mut self, peer: PeerName) {
        if let Some(asker) = self.askers.get_mut(&peer) {
            asker.held.clear();
        }
    }

    /// Returns true if the peer must say first that it uses what it was given.
    ///
    /// Rule: `docs/protocol/ipam.md#11-2-reports`.
    fn must_report(&mut self, cx: &Cx, from: PeerName, wanted: Range) -> bool {
        let Some(asker) = self.askers.get_mut(&from) else {
            return self.askers.len() >= ASKERS_MAX;
        };
        let (used, free) = usage(cx, from, wanted);
        if free == 0 || used > asker.used {
            return false;
        }
        if wanted.size() == 1 {
            return asker.singles >= SINGLES_UNREPORTED_MAX;
        }
        asker.ranges > 0
    }

    /// Asks the peer for its ring, and looks at its wish when that came.
    ///
    /// Rule: `docs/protocol/ipam.md#11-2-reports`.
    fn hold(&mut self, cx: &mut Cx, from: PeerName, wanted: Range) {
        let Some(asker) = self.askers.get_mut(&from) else {
            return deny(cx, from, wanted);
        };
        if asker.held.is_empty() {
            // A space request for an address that nobody has is answered with the ring.
            let payload = Unicast::SpaceRequest(cx.nowhere()).encode();
            cx.unicast(Channel::Ring, from, payload);
        }
        if asker.held.len() < HELD_MAX {
            asker.held.insert(wanted);
        }
    }

    fn answer(&mut self, cx: &mut Cx, from: PeerName, wanted: Range) {
        let gift = if cx.hosted.found && !wanted.is_empty() {
            gift(cx, from, wanted)
        } else {
            None
        };
        match gift {
            Some(range) => {
                cx.durable.grant(range, from);
                cx.event(Event::Granted { range, to: from });
                self.note(cx, from, range);
            }
            None => deny(cx, from, wanted),
        }
        cx.send_ring(from);
        if gift.is_some() {
            cx.emit(Output::BroadcastState);
        }
    }

    fn note(&mut self, cx: &Cx, to: PeerName, given: Range) {
        let (used, _) = usage(cx, to, given);
        let asker = self.askers.entry(to).or_default();
        if used > asker.used {
            asker.ranges = 0;
            asker.singles = 0;
        }
        asker.used = used;
        if given.size() == 1 {
            asker.singles += 1;
        } else {
            asker.ranges += 1;
        }
    }
}

/// Rule: `docs/protocol/ipam.md#6-2-denied`.
fn deny(cx: &mut Cx, from: PeerName, wanted: Range) {
    let payload = Unicast::SpaceDenied(wanted).encode();
    cx.unicast(Channel::Ring, from, payload);
}

/// Returns how many of its addresses a peer uses by its own word, and how many are free in the
/// intervals that touch a range, those not counted that no host can have.
fn usage(cx: &Cx, peer: PeerName, near: Range) -> (u32, u32) {
    let mut seen = None;
    let (mut size, mut free, mut free_near) = (0u32, 0u32, 0u32);
    for (range, entry) in cx.durable.ring().intervals() {
        if entry.peer != peer {
            continue;
        }
        size = size.saturating_add(range.size());
        let first = seen.replace(entry.token) != Some(entry.token);
        if first {
            free = free.saturating_add(entry.free);
        }
        if range.overlaps(&near) {
            let usable = entry.free.saturating_sub(cx.idle_ends(entry.token));
            free_near = free_near.saturating_add(usable);
        }
    }
    (size.saturating_sub(free), free_near)
}

/// Returns what to give to a peer that requests space in a range.
///
/// Rule: `docs/protocol/ipam.md#4-2-donation`.
fn gift(cx: &mut Cx, to: PeerName, wanted: Range) -> Option<Range> {
    let gift = cx.durable.gift(wanted);
    if gift.is_some() {
        return gift;
    }
    if wanted.size() == 1 {
        return is_for_lease_of(cx, to, wanted.start).then_some(wanted);
    }
    // Unused leases come last, after everything that others have to give.
    if cx.others_have_space(to, wanted) {
        return None;
    }
    cx.make_room(wanted)?;
    cx.durable.gift(wanted)
}

/// Returns true if the peer holds the lease of this address, which is ours and not in use.
fn is_for_lease_of(cx: &Cx, peer: PeerName, address: Address) -> bool {
    let mut leases = cx.durable.leases().at(address);
    cx.durable.owns(address)
        && !cx.durable.is_held_back(address)
        && cx.durable.holding(address).is_none()
        && leases.any(|(_, lease)| lease.holder == peer)
}
