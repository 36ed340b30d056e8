//! Addresses: what a durable one costs, and messages with big rings.

#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use std::hint::black_box;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use boundary::records::Change;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use ipam::allocator::{
    Allocator, Channel, Clock, Config, Delivery, Incoming, Init, Origin, Output, Request, RequestId,
};
use ipam::messages::{GossipState, decode_state};
use ipam::persist::{BatchId, Stored};
use ipam::range::Cidr;
use ipam::ring::{Entry, Ring, WeaveRules};
use proto::types::{PeerName, Time};
use store::store::Store;

const ENTRIES: u32 = 1 << 16;
const CLOCK: Clock = Clock {
    now: Time::ZERO,
    wall: 1_700_000_000,
};

fn peer(number: u64) -> PeerName {
    PeerName::from_u64(number).unwrap()
}

fn universe() -> Cidr {
    "10.7.0.0/16".parse().unwrap()
}

/// Returns an allocator that owns what the seeds give it.
fn allocator(seeds: &[PeerName]) -> Allocator {
    let config = Config {
        name: peer(1),
        nickname: "bench".to_owned(),
        universe: universe(),
        universe_defaulted: false,
        default_subnet: None,
        init: Init::Seed(seeds.to_vec()),
        uid: 1,
        lease_retention: 3600,
        await_found: false,
        rng_seed: 1,
    };
    Allocator::new(CLOCK, config, Stored::default(), Origin::Store).unwrap()
}

/// Where batches go.
trait Disk {
    fn save(&mut self, batch: &ipam::persist::Batch);
    /// Returns the last batch that is saved, after waiting for one.
    fn wait(&mut self) -> BatchId;
}

#[derive(Default)]
struct Memory {
    last: BatchId,
}

impl Disk for Memory {
    fn save(&mut self, batch: &ipam::persist::Batch) {
        self.last = batch.id;
    }

    fn wait(&mut self) -> BatchId {
        self.last
    }
}

struct File {
    store: Store,
    saved: (mpsc::Sender<BatchId>, mpsc::Receiver<BatchId>),
    _folder: tempfile::TempDir,
}

impl File {
    fn new() -> File {
        // Not in a file system that is memory.
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let store = Store::open(&folder.path().join("db")).unwrap().store;
        File {
            store,
            saved: mpsc::channel(),
            _folder: folder,
        }
    }
}

impl Disk for File {
    fn save(&mut self, batch: &ipam::persist::Batch) {
        let changes = batch.iter().map(|(key, value)| Change {
            key: key.to_vec(),
            value: value.map(<[u8]>::to_vec),
        });
        let (id, saved) = (batch.id, self.saved.0.clone());
        self.store.save(changes.collect(), move |result| {
            result.unwrap();
            let _ = saved.send(id);
        });
    }

    fn wait(&mut self) -> BatchId {
        let first = self.saved.1.recv().unwrap();
        self.saved.1.try_iter().last().unwrap_or(first)
    }
}

/// Makes so many requests at once and waits until all are answered.
fn answer_all(allocator: &mut Allocator, disk: &mut impl Disk, requests: Vec<Request>) {
    let mut open = requests.len();
    for (number, request) in requests.into_iter().enumerate() {
        allocator.handle_request(CLOCK, RequestId(number as u64), None, request);
    }
    loop {
        let mut saving = false;
        while let Some(output) = allocator.poll_output() {
            match output {
                Output::Persist(batch) => {
                    disk.save(&batch);
                    saving = true;
                }
                Output::Reply { result, .. } => {
                    result.unwrap();
                    open -= 1;
                }
                _ => {}
            }
        }
        if open == 0 {
            return;
        }
        let _ = saving;
        let last = disk.wait();
        allocator.handle_persisted(CLOCK, last, Ok(()));
    }
}

fn allocations(c: &mut Criterion, name: &str, mut disk: impl Disk) {
    let mut group = c.benchmark_group(format!("allocate/{name}"));
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    let mut allocator = allocator(&[peer(1)]);
    // What the start has to save.
    answer_all(&mut allocator, &mut disk, vec![request("first".to_owned())]);
    for count in [1_usize, 16, 256] {
        group.throughput(Throughput::Elements(count as u64));
        group.bench_function(format!("{count} at once"), |b| {
            b.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    let ids: Vec<String> = (0..count).map(|i| format!("container-{i}")).collect();
                    let wishes = ids.iter().map(|id| request(id.clone())).collect();
                    let start = Instant::now();
                    answer_all(&mut allocator, &mut disk, wishes);
                    time += start.elapsed();
                    let releases = ids.into_iter().map(|id| Request::Delete { id });
                    answer_all(&mut allocator, &mut disk, releases.collect());
                }
                time
            });
        });
    }
    group.finish();
}

fn request(id: String) -> Request {
    Request::Allocate {
        id,
        subnet: None,
        identity: None,
        container: true,
    }
}

fn in_memory(c: &mut Criterion) {
    allocations(c, "in memory", Memory::default());
}

fn durable(c: &mut Criterion) {
    allocations(c, "durable", File::new());
}

/// Returns a ring with an entry for each address, of a hundred peers.
fn big_ring() -> Ring {
    let range = universe().range();
    let mut ring = Ring::new(range);
    ring.entries = (0..ENTRIES)
        .map(|i| Entry {
            token: range.start.plus(i),
            peer: peer(u64::from(2 + i % 100)),
            version: i % 7,
            free: i % 2,
        })
        .collect();
    ring.seeds = (2..102).map(peer).collect();
    ring
}

fn message(ring: Ring) -> Vec<u8> {
    GossipState {
        now: 1_700_000_000,
        nicknames: (2..102).map(|i| (peer(i), format!("host-{i}"))).collect(),
        election: None,
        ring: Some((peer(2), ring)),
    }
    .encode()
}

fn gossip(payload: &[u8]) -> Incoming<'_> {
    Incoming {
        channel: Channel::Ring,
        kind: Delivery::Gossip,
        via: peer(2),
        payload,
    }
}

fn observer() -> Allocator {
    let config = Config {
        name: peer(1),
        nickname: "bench".to_owned(),
        universe: universe(),
        universe_defaulted: false,
        default_subnet: None,
        init: Init::Observer,
        uid: 1,
        lease_retention: 3600,
        await_found: false,
        rng_seed: 1,
    };
    Allocator::new(CLOCK, config, Stored::default(), Origin::Store).unwrap()
}

fn save_all(allocator: &mut Allocator) {
    let mut last = None;
    while let Some(output) = allocator.poll_output() {
        if let Output::Persist(batch) = output {
            last = Some(batch.id);
        }
    }
    if let Some(last) = last {
        allocator.handle_persisted(CLOCK, last, Ok(()));
    }
    while allocator.poll_output().is_some() {}
}

fn messages(c: &mut Criterion) {
    let ring = big_ring();
    let payload = message(ring.clone());
    println!("{} entries are {} bytes", ring.entries.len(), payload.len());
    let mut group = c.benchmark_group(format!("ring message of {ENTRIES} entries"));
    group
        .sample_size(20)
        .measurement_time(Duration::from_secs(3));
    group.throughput(Throughput::Elements(u64::from(ENTRIES)));
    group.bench_function("decode", |b| {
        b.iter(|| decode_state(black_box(&payload), |_| false).unwrap());
    });
    let mut other = ring.clone();
    for entry in other.entries.iter_mut().step_by(3) {
        entry.version += 1;
    }
    let newer = message(other);
    group.bench_function("decode and merge, a third of it newer", |b| {
        b.iter(|| {
            let received = decode_state(black_box(&newer), |_| false).unwrap();
            let (_, theirs) = received.state.ring.unwrap();
            ring.merge(peer(1), &theirs, &mut WeaveRules(|_| true))
                .unwrap()
        });
    });
    group.bench_function("the first one, taken whole and made a batch", |b| {
        b.iter_batched_ref(
            observer,
            |allocator| {
                allocator.handle_message(CLOCK, gossip(&payload));
                assert!(!allocator.ring().is_empty());
            },
            BatchSize::PerIteration,
        );
    });
    group.bench_function("a third of it newer, taken and made a batch", |b| {
        b.iter_batched_ref(
            || {
                let mut allocator = observer();
                allocator.handle_message(CLOCK, gossip(&payload));
                save_all(&mut allocator);
                allocator
            },
            |allocator| allocator.handle_message(CLOCK, gossip(&newer)),
            BatchSize::PerIteration,
        );
    });
    let mut allocator = observer();
    for _ in 0..2 {
        allocator.handle_message(CLOCK, gossip(&payload));
        save_all(&mut allocator);
    }
    group.bench_function("unchanged", |b| {
        b.iter(|| allocator.handle_message(CLOCK, gossip(black_box(&payload))));
    });
    group.finish();
}

criterion_group!(benches, in_memory, durable, messages);
criterion_main!(benches);
