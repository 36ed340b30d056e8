//! Status of the allocator, collected from all parts.

use super::api::{ElectionStatus, EntryStatus, Health, Init, Status, TakeoverStatus, Waiting};
use super::cx::Cx;
use super::operations::Operation;
use super::queue::Queue;
use super::ring::election::Election;
use crate::leases::LeaseState;
use crate::range::Cidr;

/// Returns the current status, including what is not saved yet.
pub(super) fn status(cx: &Cx, queue: &Queue, election: &Election) -> Status {
    let space = cx.durable.space();
    let universe = cx.durable.ring().universe();
    let holdings = cx.durable.holdings();
    let used = holdings.range(universe.start..universe.end).count();
    let live = || cx.durable.leases().iter().filter(|(_, l)| l.is_live());
    let unused = live().filter(|(_, l)| l.state == LeaseState::Unused);
    let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Status {
        health: health(cx, queue, election),
        universe: cx.durable.meta().universe,
        default_subnet: cx.default_subnet(),
        active: space.our_ranges().len(),
        used: count(used),
        free: space.free_ranges().len(),
        held_back: space.held_ranges().len(),
        entries: entry_status(cx),
        election: election_status(cx, election),
        pending_claims: pending_claims(queue),
        pending_allocates: pending_allocates(queue),
        leases: count(live().count()),
        leases_unused: count(unused.count()),
        takeovers: takeover_status(cx),
        alarms: cx.notices.alarms().cloned().collect(),
        store_error: cx.notices.store_error.clone(),
    }
}

fn health(cx: &Cx, queue: &Queue, election: &Election) -> Health {
    let ring = cx.durable.ring();
    if ring.is_empty() {
        return match (election.is_under_way(), &cx.config.init) {
            (false, _) => Health::Idle,
            (true, Init::Observer) => Health::Priming,
            (true, _) => Health::Election,
        };
    }
    let us = cx.durable.us();
    let in_reach = |peer| peer == us || cx.members.is_reachable(peer);
    if queue.len() == 0 {
        Health::Ready
    } else if !ring.entries.iter().any(|entry| in_reach(entry.peer)) {
        Health::AllUnreachable
    } else {
        Health::WaitingForSpace
    }
}

fn entry_status(cx: &Cx) -> Vec<EntryStatus> {
    let intervals = cx.durable.ring().intervals();
    intervals
        .map(|(range, entry)| EntryStatus {
            token: range.start,
            size: range.size(),
            peer: entry.peer,
            nickname: cx
                .members
                .nickname(entry.peer)
                .unwrap_or_default()
                .to_owned(),
            known: cx.members.is_known(entry.peer),
            version: entry.version,
        })
        .collect()
}

fn election_status(cx: &Cx, election: &Election) -> Option<ElectionStatus> {
    if !election.is_under_way() {
        return None;
    }
    Some(match &cx.elector {
        Some(elector) => ElectionStatus {
            elector: true,
            known: elector.nodes().len(),
            quorum: elector.quorum(),
        },
        None => ElectionStatus {
            elector: false,
            known: 0,
            quorum: 0,
        },
    })
}

fn pending_claims(queue: &Queue) -> Vec<(String, Cidr, Waiting)> {
    let claims = queue.ops().filter_map(|(op, waiting)| match op {
        Operation::Claim(claim) => Some((claim.id.clone(), claim.cidr, waiting.clone())),
        _ => None,
    });
    claims.collect()
}

fn pending_allocates(queue: &Queue) -> Vec<(String, Cidr, Waiting)> {
    let allocates = queue.ops().filter_map(|(op, waiting)| match op {
        Operation::Allocate(op) => Some((op.title().to_owned(), op.subnet(), waiting.clone())),
        _ => None,
    });
    allocates.collect()
}

/// Returns the unfinished takeovers in memory, saved or not, for tests and diagnosis.
pub(super) fn takeover_status(cx: &Cx) -> Vec<TakeoverStatus> {
    let takeovers = cx.durable.takeovers().iter();
    takeovers
        .filter(|(_, takeover)| takeover.is_active())
        .map(|(peer, takeover)| TakeoverStatus {
            peer: *peer,
            nickname: cx.members.nickname(*peer).unwrap_or_default().to_owned(),
            addresses: cx.durable.ring().owned(*peer).len(),
            waiting: takeover.waiting.iter().copied().collect(),
        })
        .collect()
}
