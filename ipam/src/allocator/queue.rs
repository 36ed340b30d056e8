//! Requests that wait, and what was asked of other routers on their behalf.

use std::collections::{BTreeMap, BTreeSet};

use proto::types::{PeerName, Time};

use super::api::{RequestError, RequestId, Response, Waiting};
use super::holder::LeaseChange;
use super::operations::allocate::Allocate;
use super::operations::claim::Claim;
use super::progress::{ASK_AGAIN, Progress};
use super::reclaim::Removal;
use super::{Allocator, Output};
use crate::range::Range;

/// Most requests that may wait; a further one is refused.
pub(super) const PENDING_MAX: usize = 16384;

/// What a request is about. Retried in this order.
#[derive(Debug)]
pub(super) enum Op {
    Prime,
    Claim(Claim),
    Allocate(Allocate),
    Lease(LeaseChange),
    Remove(Removal),
}

impl Op {
    fn class(&self) -> u8 {
        match self {
            Op::Prime => 0,
            Op::Claim(_) => 1,
            Op::Allocate(_) => 2,
            Op::Lease(_) => 3,
            Op::Remove(_) => 4,
        }
    }

    /// What it is called, and for whom it is, when it is cancelled.
    fn title(&self) -> (&'static str, &str) {
        match self {
            Op::Prime => ("Prime", "the ring"),
            Op::Claim(claim) => ("Claim", &claim.id),
            Op::Allocate(allocate) => ("Allocate", allocate.title()),
            Op::Lease(change) => ("Lease", &change.key.name),
            Op::Remove(_) => ("Remove", "a peer"),
        }
    }
}

#[derive(Debug)]
struct Entry {
    request: RequestId,
    deadline: Option<Time>,
    wake: Time,
    waiting: Waiting,
    op: Op,
}

type Seq = (u8, u64);

/// The requests that wait.
#[derive(Debug, Default)]
pub(super) struct Pending {
    last: u64,
    entries: BTreeMap<Seq, Entry>,
    by_request: BTreeMap<RequestId, Seq>,
    wakes: BTreeSet<(Time, Seq)>,
}

impl Pending {
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = (&Op, &Waiting)> {
        self.entries
            .values()
            .map(|entry| (&entry.op, &entry.waiting))
    }

    fn take(&mut self, seq: Seq) -> Option<Entry> {
        let entry = self.entries.remove(&seq)?;
        self.by_request.remove(&entry.request);
        self.wakes.remove(&(entry.wake, seq));
        Some(entry)
    }

    fn put(&mut self, seq: Seq, mut entry: Entry, wake: Time) {
        entry.wake = entry.deadline.map_or(wake, |deadline| deadline.min(wake));
        self.wakes.insert((entry.wake, seq));
        self.by_request.insert(entry.request, seq);
        self.entries.insert(seq, entry);
    }
}

impl Allocator {
    /// Tries an operation for the first time; it waits if it cannot end at once.
    pub(super) fn begin(&mut self, request: RequestId, deadline: Option<Time>, mut op: Op) {
        if self.durable.meta().left {
            let result = Err(cancelled(&op));
            return self.emit(Output::Reply { request, result });
        }
        let progress = self.try_op(&mut op);
        self.drain();
        match progress {
            Progress::Done(result) => self.emit(Output::Reply { request, result }),
            Progress::Wait(waiting, wake) => {
                let late = deadline.is_some_and(|deadline| deadline <= self.clock.now);
                if late || self.pending.len() >= PENDING_MAX {
                    let error = if late {
                        RequestError::Deadline(waiting)
                    } else {
                        RequestError::TooMany("waiting requests")
                    };
                    let result = Err(error);
                    return self.emit(Output::Reply { request, result });
                }
                self.pending.last += 1;
                let seq = (op.class(), self.pending.last);
                let entry = Entry {
                    request,
                    deadline,
                    wake,
                    waiting,
                    op,
                };
                self.pending.put(seq, entry, wake);
            }
        }
    }

    fn try_op(&mut self, op: &mut Op) -> Progress {
        match op {
            Op::Prime => {
                self.establish();
                if self.durable.ring().is_empty() {
                    let wake = self.clock.now + ASK_AGAIN;
                    return Progress::Wait(self.waiting_for_ring(), wake);
                }
                Progress::Done(Ok(Response::Done))
            }
            Op::Claim(claim) => self.try_claim(claim),
            Op::Allocate(allocate) => self.try_allocate(allocate),
            Op::Lease(change) => self.try_lease_change(change),
            Op::Remove(removal) => self.try_removal(removal),
        }
    }

    fn try_entry(&mut self, seq: Seq) {
        let Some(mut entry) = self.pending.take(seq) else {
            return;
        };
        let request = entry.request;
        let progress = self.try_op(&mut entry.op);
        self.drain();
        match progress {
            Progress::Done(result) => self.emit(Output::Reply { request, result }),
            Progress::Wait(waiting, wake) => {
                if entry.deadline.is_some_and(|at| at <= self.clock.now) {
                    let result = Err(RequestError::Deadline(waiting));
                    return self.emit(Output::Reply { request, result });
                }
                entry.waiting = waiting;
                self.pending.put(seq, entry, wake);
            }
        }
    }

    /// Tries everything that waits.
    pub(super) fn try_pending(&mut self) {
        let all: Vec<Seq> = self.pending.entries.keys().copied().collect();
        for seq in all {
            self.try_entry(seq);
        }
    }

    /// Tries what wanted to be tried again by now.
    pub(super) fn try_due(&mut self) {
        let now = self.clock.now;
        let due = self.pending.wakes.iter().take_while(|(at, _)| *at <= now);
        let mut due: Vec<Seq> = due.map(|(_, seq)| *seq).collect();
        due.sort_unstable();
        for seq in due {
            self.try_entry(seq);
        }
    }

    /// Ends a request whose caller has gone.
    pub(super) fn cancel(&mut self, request: RequestId) {
        let seq = self.pending.by_request.get(&request).copied();
        if let Some(entry) = seq.and_then(|seq| self.pending.take(seq)) {
            let result = Err(cancelled(&entry.op));
            self.emit(Output::Reply { request, result });
        }
    }

    /// Ends the waiting requests that `which` names, or all.
    pub(super) fn cancel_where(&mut self, which: impl Fn(&Op) -> bool) {
        let found = self.pending.entries.values().filter(|e| which(&e.op));
        let requests: Vec<RequestId> = found.map(|entry| entry.request).collect();
        for request in requests {
            self.cancel(request);
        }
    }

    /// Ends the waiting requests of a container.
    pub(super) fn cancel_for(&mut self, container: &str) {
        self.cancel_where(|op| match op {
            Op::Claim(claim) => claim.id == container,
            Op::Allocate(allocate) => allocate.is_for(container),
            Op::Prime | Op::Lease(_) | Op::Remove(_) => false,
        });
    }

    pub(super) fn on_space_denied(&mut self, from: PeerName, range: Range) {
        let now = self.clock.now;
        self.questions.space.denied(from, range, now);
        self.try_again();
    }
}

fn cancelled(op: &Op) -> RequestError {
    let (kind, id) = op.title();
    RequestError::Cancelled {
        kind,
        id: id.to_owned(),
    }
}
