//! The order of outputs, and what happens to them if the store fails.
//!
//! Each step creates at most one batch of records. All outputs of that step and of later ones may
//! depend on it, so they wait until the batch is stored. Batches do not wait for each other: the
//! driver can store many at once.
//!
//! If a batch cannot be stored, it and all later ones are undone: the state is rolled back, outputs
//! that waited for them are dropped, and the requests that they would have answered fail.

use std::collections::VecDeque;

use super::api::{Output, RequestError};
use super::durable::Undo;
use crate::persist::{Batch, BatchId};

#[derive(Debug, Default)]
pub(super) struct Outbox {
    last: u64,
    stored: u64,
    batches: VecDeque<Batch>,
    undos: VecDeque<(u64, Undo)>,
    /// Outputs, each with the batch that must be stored first.
    held: VecDeque<(u64, Output)>,
}

impl Outbox {
    /// Ends a step: queues its batch, if it changed anything, and then its outputs.
    pub(super) fn finish(&mut self, batch: Option<(Batch, Undo)>, outputs: Vec<Output>) {
        if let Some((mut batch, undo)) = batch {
            self.last += 1;
            batch.id = BatchId(self.last);
            self.batches.push_back(batch);
            self.undos.push_back((self.last, undo));
        }
        let after = self.last;
        self.held
            .extend(outputs.into_iter().map(|output| (after, output)));
    }

    /// Returns the next thing to do.
    pub(super) fn poll(&mut self) -> Option<Output> {
        if let Some(batch) = self.batches.pop_front() {
            return Some(Output::Persist(batch));
        }
        let (after, _) = self.held.front()?;
        if *after > self.stored {
            return None;
        }
        self.held.pop_front().map(|(_, output)| output)
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

    /// Reports that the first unstored batch and all later ones will never be stored. Returns what
    /// they changed, the last one first, or `None` if there are none.
    pub(super) fn failed(&mut self, error: &str) -> Option<Vec<Undo>> {
        if self.is_settled() {
            return None;
        }
        self.batches.clear();
        let held = std::mem::take(&mut self.held);
        for (after, output) in held {
            if after <= self.stored {
                self.held.push_back((after, output));
                continue;
            }
            match output {
                Output::Reply { request, .. } => {
                    let result = Err(RequestError::Store(error.to_owned()));
                    self.held
                        .push_back((self.stored, Output::Reply { request, result }));
                }
                // A request for state must be answered, and "nothing" is always correct.
                Output::State { token, .. } => {
                    let output = Output::State {
                        token,
                        payload: None,
                    };
                    self.held.push_back((self.stored, output));
                }
                Output::Alarm(_) => self.held.push_back((self.stored, output)),
                _ => {}
            }
        }
        // Numbers are never reused, and all up to here are done.
        self.stored = self.last;
        Some(self.undos.drain(..).rev().map(|(_, undo)| undo).collect())
    }
}
