//! The order of outputs, and what happens to them if the store fails.
//!
//! Each step creates at most one batch of records. All outputs of that step and of later ones may
//! depend on it, so they wait until the batch is stored. Batches do not wait for each other: the
//! driver can store many at once.
//!
//! If a batch cannot be stored, it and all later ones are undone: the state is rolled back, outputs
//! that waited for them are dropped, and the requests that they would have answered fail.

use std::collections::VecDeque;

use super::api::{Output, RequestError, RequestId, Response};
use super::durable::Undo;
use crate::persist::{Batch, BatchId};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    last: u64,
    stored: u64,
    batches: VecDeque<Batch>,
    undos: VecDeque<(u64, Undo)>,
    /// Outputs, each with the batch that must be stored before.
    held: VecDeque<Held>,
}

#[derive(Debug)]
struct Held {
    after: u64,
    /// Whether it came of the step that made that batch, as opposed to a later one.
    own: bool,
    output: Output,
}

/// What is left to do about steps that were not stored.
#[derive(Debug, Default)]
pub(super) struct Failure {
    /// What they changed, the last one first.
    pub(super) undos: Vec<Undo>,
    /// What was about to be answered, to requests that had no part in what was not stored.
    pub(super) unanswered: Vec<(RequestId, Result<Response, RequestError>)>,
}

impl Outbox {
    /// Ends a step: queues its batch, if it changed anything, and then its outputs.
    pub(super) fn finish(&mut self, batch: Option<(Batch, Undo)>, outputs: Vec<Output>) {
        let own = batch.is_some();
        if let Some((mut batch, undo)) = batch {
            self.last += 1;
            batch.id = BatchId(self.last);
            self.batches.push_back(batch);
            self.undos.push_back((self.last, undo));
        }
        let after = self.last;
        let held = outputs
            .into_iter()
            .map(|output| Held { after, own, output });
        self.held.extend(held);
    }

    /// Returns the next thing to do.
    pub(super) fn poll(&mut self) -> Option<Output> {
        if let Some(batch) = self.batches.pop_front() {
            return Some(Output::Persist(batch));
        }
        if self.held.front()?.after > self.stored {
            return None;
        }
        self.held.pop_front().map(|held| held.output)
    }

    /// Returns the batch of the last step that had one.
    pub(super) fn last(&self) -> BatchId {
        BatchId(self.last)
    }

    /// Returns true if a batch would be lost if the store failed now.
    pub(super) fn is_lost(&self, id: BatchId) -> bool {
        id.0 > self.stored
    }

    /// Returns true if no batch waits to be stored.
    pub(super) fn is_settled(&self) -> bool {
        self.stored == self.last
    }

    /// Reports that all batches up to this one are stored.
    pub(super) fn stored(&mut self, id: BatchId) {
        self.stored = self.stored.max(id.0.min(self.last));
        while self.undos.front().is_some_and(|(id, _)| *id <= self.stored) {
            self.undos.pop_front();
        }
    }

    /// The first batch that is not stored, and all after it, never will be. `None` if there are
    /// no such batches.
    ///
    /// Who asked for the first of them is told that it failed. Other requests have only been
    /// answered after it; it is for the caller to take them again.
    pub(super) fn failed(&mut self, error: &str) -> Option<Failure> {
        if self.is_settled() {
            return None;
        }
        self.batches.clear();
        let mut failure = Failure::default();
        let first = self.stored + 1;
        for mut held in std::mem::take(&mut self.held) {
            if held.after <= self.stored {
                self.held.push_back(held);
                continue;
            }
            match &mut held.output {
                Output::Reply { result, .. } if held.own && held.after == first => {
                    *result = Err(RequestError::Store(error.to_owned()));
                }
                Output::Reply { request, result } => {
                    failure.unanswered.push((*request, result.clone()));
                    continue;
                }
                // Whoever asked must get an answer, and "nothing" is always true.
                Output::State { payload, .. } => *payload = None,
                Output::Alarm(_) => {}
                _ => continue,
            }
            held.after = self.stored;
            self.held.push_back(held);
        }
        // Numbers are never reused, and all up to here are done.
        self.stored = self.last;
        failure.undos = self.undos.drain(..).rev().map(|(_, undo)| undo).collect();
        Some(failure)
    }
}
