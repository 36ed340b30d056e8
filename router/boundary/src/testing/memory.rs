//! A store in memory that fails and delays when it is told to.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::records::{Change, Done, Records, StoreError};

/// Records that all clones share.
#[derive(Clone, Default)]
pub struct Memory(Arc<Mutex<MemoryState>>);

#[derive(Default)]
struct MemoryState {
    records: BTreeMap<Vec<u8>, Vec<u8>>,
    waiting: Vec<Batch>,
    held: bool,
    /// Whether every batch fails.
    broken: bool,
    /// Whether batches fail because one before them did.
    failed: bool,
}

struct Batch {
    changes: Vec<Change>,
    /// Whether it builds on those before it that say so, too.
    in_order: bool,
    done: Done,
}

impl Memory {
    /// Answers nothing until [`Memory::release`].
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Answers all batches that waited, and further ones at once.
    pub fn release(&self) {
        let waiting = {
            let mut state = self.state();
            state.held = false;
            std::mem::take(&mut state.waiting)
        };
        for batch in waiting {
            self.answer(batch);
        }
    }

    /// Fails every batch from now on, or works again.
    pub fn set_broken(&self, broken: bool) {
        self.state().broken = broken;
    }

    /// Returns what is kept under a key.
    pub fn get(&self, key: &[u8]) -> Option<Vec<u8>> {
        self.state().records.get(key).cloned()
    }

    /// Returns all records, in the order of their keys.
    pub fn all(&self) -> Vec<(Vec<u8>, Vec<u8>)> {
        let state = self.state();
        let records = state.records.iter();
        records.map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    fn hand_in(&self, batch: Batch) {
        {
            let mut state = self.state();
            if state.held {
                state.waiting.push(batch);
                return;
            }
        }
        self.answer(batch);
    }

    fn answer(&self, batch: Batch) {
        let Batch {
            changes,
            in_order,
            done,
        } = batch;
        let result = {
            let mut state = self.state();
            state.failed |= state.broken && in_order;
            if state.broken || (state.failed && in_order) {
                Err(StoreError::Save {
                    path: "memory".to_owned(),
                    error: "it is full".to_owned(),
                })
            } else {
                for Change { key, value } in changes {
                    match value {
                        Some(value) => drop(state.records.insert(key, value)),
                        None => drop(state.records.remove(&key)),
                    }
                }
                Ok(())
            }
        };
        done(result);
    }

    fn state(&self) -> MutexGuard<'_, MemoryState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Records for Memory {
    fn save(&self, changes: Vec<Change>, done: Done) {
        self.hand_in(Batch {
            changes,
            in_order: true,
            done,
        });
    }

    fn save_alone(&self, changes: Vec<Change>, done: Done) {
        self.hand_in(Batch {
            changes,
            in_order: false,
            done,
        });
    }

    fn resume(&self) {
        self.state().failed = false;
    }
}
