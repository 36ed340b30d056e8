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
    /// How many addresses it was given since then ...
    given: u32,
    /// ... and in how many grants of one address.
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
        let usage = Usage::of(cx, from, wanted);
        if usage.free == 0 || usage.used > asker.used || asker.given == 0 {
            return false;
        }
        let left = cx.durable.space().free_ranges().len();
        let few = wanted.size() == 1 && asker.singles < SINGLES_UNREPORTED_MAX;
        // What it has elsewhere may be of no use to it, but half of all is enough to begin with.
        usage.free_near > 0
            || (asker.given >= left && !few)
            || asker.singles >= SINGLES_UNREPORTED_MAX
    }

    /// Asks the peer for its ring, and looks at its wish when that came.
    ///
    /// Rule: `docs/protocol/ipam.md#11-2-reports`.
    fn hold(&mut self, cx: &mut Cx, from: PeerName, wanted: Range) {
        let Some(asker) = self.askers.get_mut(&from) else {
            return deny(cx, from, wanted);
        };
        let first = asker.held.is_empty();
        let again = asker.held.contains(&wanted);
        if again || asker.held.len() < HELD_MAX {
            asker.held.insert(wanted);
        }
        if first || again {
            // A wish for an address that nobody has is answered with the ring.
            let payload = Unicast::SpaceRequest(cx.nowhere()).encode();
            cx.unicast(Channel::Ring, from, payload);
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
        let used = Usage::of(cx, to, given).used;
        let asker = self.askers.entry(to).or_default();
        if used > asker.used {
            asker.given = 0;
            asker.singles = 0;
        }
        asker.used = used;
        asker.given = asker.given.saturating_add(given.size());
        asker.singles += u32::from(given.size() == 1);
    }
}

/// Rule: `docs/protocol/ipam.md#6-2-denied`.
fn deny(cx: &mut Cx, from: PeerName, wanted: Range) {
    let payload = Unicast::SpaceDenied(wanted).encode();
    cx.unicast(Channel::Ring, from, payload);
}

/// What a peer does with its addresses by its own word.
struct Usage {
    used: u32,
    /// Those not counted that no host can have.
    free: u32,
    /// How many are free in the intervals that touch a certain range.
    free_near: u32,
}

impl Usage {
    fn of(cx: &Cx, peer: PeerName, near: Range) -> Usage {
        let (mut used, mut free, mut free_near) = (0, 0, 0);
        for (range, entry) in cx.durable.ring().intervals() {
            if entry.peer != peer {
                continue;
            }
            let idle = cx.idle_ends(entry.token);
            let usable = entry.free.saturating_sub(idle);
            // An interval that wraps comes as two ranges, and its free addresses with both.
            used += range.size().saturating_sub(entry.free);
            free += usable.min(range.size());
            if range.overlaps(&near) {
                free_near += usable.min(range.size());
            }
        }
        Usage {
            used,
            free,
            free_near,
        }
    }
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
