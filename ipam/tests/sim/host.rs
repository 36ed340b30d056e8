//! One host with a weft router: its store, which loses what was not synced, and what was asked
//! of it.

use std::collections::{BTreeMap, VecDeque};

use ipam::allocator::{Allocator, Config, Request, RequestId};
use ipam::persist::{Batch, BatchId, Stored};
use ipam::range::Range;

/// A disk. Batches become durable in order, when they are synced.
#[derive(Default)]
pub(crate) struct Disk {
    pub(crate) durable: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) queued: VecDeque<Batch>,
    pub(crate) full_until: u64,
    pub(crate) sync_due: bool,
}

impl Disk {
    fn apply(&mut self, batch: &Batch) {
        for (key, value) in batch.iter() {
            match value {
                Some(value) => self.durable.insert(key.to_vec(), value.to_vec()),
                None => self.durable.remove(key),
            };
        }
    }

    /// Makes everything durable; returns the last batch.
    pub(crate) fn sync(&mut self) -> Option<BatchId> {
        let mut last = None;
        while let Some(batch) = self.queued.pop_front() {
            self.apply(&batch);
            last = Some(batch.id);
        }
        last
    }

    /// The process dies: some of what was not synced is durable nevertheless, the rest is lost.
    pub(crate) fn crash(&mut self, rng: &mut fastrand::Rng) {
        let kept = rng.usize(0..=self.queued.len());
        for _ in 0..kept {
            if let Some(batch) = self.queued.pop_front() {
                self.apply(&batch);
            }
        }
        self.queued.clear();
        self.sync_due = false;
    }

    pub(crate) fn load(&self) -> Stored {
        let records = self.durable.iter();
        Stored::load(records.map(|(key, value)| (key.as_slice(), value.as_slice()))).unwrap()
    }
}

/// What a state that was asked for is to be used for.
#[derive(Clone, Debug)]
pub(crate) enum Sending {
    /// Gossip to these hosts.
    Gossip(Vec<usize>),
    /// A broadcast to these.
    Broadcast(Vec<usize>),
}

/// What a request is about.
#[derive(Clone, Debug)]
pub(crate) enum Asked {
    /// An address for this container.
    Start(String),
    /// The release of this container's addresses.
    Stop(String),
    /// The removal of this host.
    Remove(usize),
    /// Everything was to be handed over.
    Reset,
    /// Something that must be done, however often it fails.
    Must(Request),
    /// A step of a scene, which looks at the answer itself.
    Scene,
    /// Anything whose answer is not looked at closely.
    Other,
}

pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) allocator: Option<Allocator>,
    pub(crate) disk: Disk,
    pub(crate) next_token: u64,
    pub(crate) sending: BTreeMap<u64, (bool, Sending)>,
    pub(crate) requests: BTreeMap<RequestId, Asked>,
    pub(crate) next_request: u64,
    /// Wakes of an earlier time are ignored.
    pub(crate) wake: u64,
    /// How far the wall clock is off, in seconds.
    pub(crate) skew: i64,
    /// What may be used according to the ring, as it was last looked at.
    pub(crate) usable: Vec<Range>,
    pub(crate) reset: bool,
    /// Whom it was last told that it can reach.
    pub(crate) neighbours: Vec<usize>,
    pub(crate) broadcast_due: bool,
}

impl Host {
    pub(crate) fn new(config: Config) -> Host {
        Host {
            config,
            allocator: None,
            disk: Disk::default(),
            next_token: 0,
            sending: BTreeMap::new(),
            requests: BTreeMap::new(),
            next_request: 0,
            wake: 0,
            skew: 0,
            usable: Vec::new(),
            reset: false,
            neighbours: Vec::new(),
            broadcast_due: false,
        }
    }
}
