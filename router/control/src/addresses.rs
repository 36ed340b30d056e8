//! The allocator, and who waits for it.

use std::collections::BTreeMap;

use ipam::allocator::{Allocator, Channel, RequestId, Response};
use ipam::persist::BatchId;
use proto::types::ConnId;
use tokio::sync::mpsc;

use super::errors::RequestError;
use super::request::Reply;
use boundary::records::{Change, Records, StoreError};

/// Prefix of the keys of the allocator's records in the store.
pub const RECORD_PREFIX: &[u8] = b"ipam/";

/// Result of a batch.
pub type Saved = (BatchId, Result<(), StoreError>);

/// The answer to a request.
pub(super) type Answer = Result<Response, RequestError>;

/// The allocator, and who waits for it.
pub struct Addresses {
    /// The allocator itself.
    pub allocator: Allocator,
    pub(super) waiting: BTreeMap<RequestId, Reply<Answer>>,
    pub(super) last_request: u64,
    pub(super) saved: mpsc::UnboundedSender<Saved>,
    /// The last batch handed to the store.
    pub(super) handed: BatchId,
    /// Batches up to this one failed together; the failure was dealt with.
    pub(super) failed: BatchId,
    /// States that the node waits for, by the numbers under which the allocator was asked.
    pub(super) states: BTreeMap<u64, (Channel, ConnId)>,
    pub(super) last_state: u64,
}

impl Addresses {
    /// Creates the allocator with nobody waiting. `saved` is where the store's answers are sent.
    pub fn new(allocator: Allocator, saved: mpsc::UnboundedSender<Saved>) -> Addresses {
        Addresses {
            allocator,
            waiting: BTreeMap::new(),
            last_request: 0,
            saved,
            handed: BatchId(0),
            failed: BatchId(0),
            states: BTreeMap::new(),
            last_state: 0,
        }
    }

    pub(super) fn save(&mut self, records: &dyn Records, batch: &ipam::persist::Batch) {
        let prefixed = |key: &[u8]| [RECORD_PREFIX, key].concat();
        let changes = batch.iter().map(|(key, value)| Change {
            key: prefixed(key),
            value: value.map(<[u8]>::to_vec),
        });
        let (id, saved) = (batch.id, self.saved.clone());
        self.handed = id;
        let done = move |result| {
            // A loop that has ended needs no answer.
            let _ = saved.send((id, result));
        };
        records.save(changes.collect(), Box::new(done));
    }
}
