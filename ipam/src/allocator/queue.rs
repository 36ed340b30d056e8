//! The waiting requests.

use std::collections::{BTreeMap, BTreeSet};

use proto::types::Time;

use super::api::{RequestError, RequestId, Waiting};
use super::operations::Operation;

/// Maximum number of waiting requests. A further one is refused.
const PENDING_MAX: usize = 16384;

#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) request: RequestId,
    pub(super) deadline: Option<Time>,
    /// Set by the queue.
    pub(super) wake: Time,
    pub(super) waiting: Waiting,
    pub(super) op: Operation,
}

pub(super) type Seq = (u8, u64);

/// The waiting requests.
#[derive(Debug, Default)]
pub(super) struct Queue {
    last: u64,
    entries: BTreeMap<Seq, Waiter>,
    by_request: BTreeMap<RequestId, Seq>,
    wakes: BTreeSet<(Time, Seq)>,
}

impl Queue {
    pub(super) fn next_wake(&self) -> Option<Time> {
        self.wakes.first().map(|(at, _)| *at)
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn ops(&self) -> impl Iterator<Item = (&Operation, &Waiting)> {
        self.entries
            .values()
            .map(|entry| (&entry.op, &entry.waiting))
    }

    pub(super) fn take(&mut self, seq: Seq) -> Option<Waiter> {
        let entry = self.entries.remove(&seq)?;
        self.by_request.remove(&entry.request);
        self.wakes.remove(&(entry.wake, seq));
        Some(entry)
    }

    pub(super) fn put(&mut self, seq: Seq, mut entry: Waiter, wake: Time) {
        entry.wake = entry.deadline.map_or(wake, |deadline| deadline.min(wake));
        self.wakes.insert((entry.wake, seq));
        self.by_request.insert(entry.request, seq);
        self.entries.insert(seq, entry);
    }

    /// Adds an operation that has begun to wait. Fails if there are too many.
    pub(super) fn add(&mut self, waiter: Waiter, wake: Time) -> Result<(), RequestError> {
        if self.entries.len() >= PENDING_MAX {
            return Err(RequestError::TooMany("waiting requests"));
        }
        self.last += 1;
        self.put((waiter.op.class(), self.last), waiter, wake);
        Ok(())
    }

    /// Returns all that wait, in the order in which they are tried.
    pub(super) fn all(&self) -> Vec<Seq> {
        self.entries.keys().copied().collect()
    }

    /// Returns those that wanted to be tried again by now.
    pub(super) fn due(&self, now: Time) -> Vec<Seq> {
        let due = self.wakes.iter().take_while(|(at, _)| *at <= now);
        let mut due: Vec<Seq> = due.map(|(_, seq)| *seq).collect();
        due.sort_unstable();
        due
    }

    pub(super) fn operations_mut(&mut self) -> impl Iterator<Item = &mut Operation> {
        self.entries.values_mut().map(|entry| &mut entry.op)
    }

    pub(super) fn find(&self, request: RequestId) -> Option<Seq> {
        self.by_request.get(&request).copied()
    }

    /// Returns those whose operation `which` names.
    pub(super) fn of(&self, which: impl Fn(&Operation) -> bool) -> Vec<Seq> {
        let found = self.entries.iter().filter(|(_, entry)| which(&entry.op));
        found.map(|(seq, _)| *seq).collect()
    }
}
