//! The order of outputs, and what happens to them when the store fails.
//!
//! Each step makes at most one batch of records. Everything that comes out of that step or a
//! later one may depend on it, so it waits until the batch is stored. Batches themselves do not
//! wait for each other: the driver can store many at once.
//!
//! If a batch cannot be stored, it and all later ones are as if they never were: the state goes
//! back, what waited for them is dropped, and requests that they would have answered are told
//! why not.

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
    /// Outputs, each with the batch that must be stored before.
    held: VecDeque<(u64, Output)>,
}

impl Outbox {
    /// Ends a step: its batch, if it changed anything, and then its outputs.
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

    /// The next thing to do.
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

    /// The batch of the last step that had one.
    pub(super) fn last(&self) -> BatchId {
        BatchId(self.last)
    }

    /// Whether a batch would be lost if the store failed now.
    pub(super) fn is_lost(&self, id: BatchId) -> bool {
        id.0 > self.stored
    }

    /// Whether nothing waits to be stored.
    pub(super) fn is_settled(&self) -> bool {
        self.stored == self.last
    }

    /// All batches up to this one are stored.
    pub(super) fn stored(&mut self, id: BatchId) {
        self.stored = self.stored.max(id.0.min(self.last));
        while self.undos.front().is_some_and(|(id, _)| *id <= self.stored) {
            self.undos.pop_front();
        }
    }

    /// The first batch that is not stored, and all after it, never will be. Returns what they
    /// changed, the last one first, or `None` if there are no such batches.
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
                // Whoever asked must get an answer, and "nothing" is always true.
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
        // A number is never given twice, and all up to here are dealt with.
        self.stored = self.last;
        Some(self.undos.drain(..).rev().map(|(_, undo)| undo).collect())
    }
}
