//! Topology gossip and the routes computed from it, in meshes of 10, 100 and 1000 peers.
//!
//! The smaller meshes are complete; in the one of 1000 peers each has ten connections or so. A
//! complete mesh of 1000, with a million descriptions of connections, is there as the worst case.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, criterion_group, criterion_main};
use proto::routes::Routes;
use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{PeerName, PeerUid, ShortId};

/// A mesh, as updates tell of it.
struct Mesh {
    title: &'static str,
    peers: Vec<Peer>,
}

fn meshes() -> Vec<Mesh> {
    vec![
        mesh("10 complete", 10, None),
        mesh("100 complete", 100, None),
        mesh("1000 sparse", 1000, Some(10)),
        mesh("1000 complete", 1000, None),
    ]
}

fn name(index: usize) -> PeerName {
    // Spread over all names, as hashes of system ids are.
    let value = (index as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a) & 0xffff_ffff_ffff;
    PeerName::from_u64(value).unwrap_or_default()
}

/// `degree` connections for each peer on average, or to all others.
fn mesh(title: &'static str, count: usize, degree: Option<usize>) -> Mesh {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut lists = vec![Vec::new(); count];
    let mut link = |from: usize, to: usize| {
        if from == to {
            return;
        }
        for (near, far, outbound) in [(from, to, true), (to, from, false)] {
            let port = if outbound { 6783 } else { 40_000 };
            let text = format!("10.0.{}.{}:{port}", far / 250, far % 250);
            lists[near].push(Connection {
                remote: name(far),
                address: Address::from_text(text.as_bytes()),
                outbound,
                established: true,
            });
        }
    };
    match degree {
        None => {
            for from in 0..count {
                for to in 0..from {
                    link(from, to);
                }
            }
        }
        Some(degree) => {
            for from in 1..count {
                link(from, rng.usize(..from));
                for _ in 1..degree / 2 {
                    link(from, rng.usize(..count - 1));
                }
            }
        }
    }
    let peers = lists
        .into_iter()
        .enumerate()
        .map(|(index, mut connections)| {
            // Real routers send connections in the random order of Go's maps.
            rng.shuffle(&mut connections);
            Peer {
                name: name(index),
                nickname: format!("host-{index}").into_bytes().into(),
                uid: PeerUid(rng.u64(1..)),
                version: 7,
                short_id: ShortId::new(index as u16),
                connections,
            }
        });
    Mesh {
        title,
        peers: peers.collect(),
    }
}

/// Creates the first peer, which has heard nothing yet.
fn newcomer(mesh: &Mesh) -> Topology {
    let us = &mesh.peers[0];
    let rng = fastrand::Rng::with_seed(1);
    let mut topology = Topology::new(us.name, &us.nickname(), us.uid, us.short_id, rng);
    for connection in &us.connections {
        if let Some(address) = connection.address.socket_addr() {
            topology.add_connection(connection.remote, address, connection.outbound);
            topology.establish_connection(connection.remote);
        }
    }
    topology
}

fn member(mesh: &Mesh) -> Topology {
    let mut topology = newcomer(mesh);
    if let Err(error) = topology.merge(&encode_update(&mesh.peers)) {
        unreachable!("our own update is refused: {error}");
    }
    topology
}

fn gossip(c: &mut Criterion) {
    for mesh in meshes() {
        let update = encode_update(&mesh.peers);
        let topology = newcomer(&mesh);
        c.bench_function(&format!("merge/all new/{}", mesh.title), |b| {
            b.iter_batched_ref(
                || topology.clone(),
                |topology| {
                    topology
                        .merge(black_box(&update))
                        .map(|merged| merged.improved.len())
                },
                BatchSize::LargeInput,
            );
        });
        let mut topology = member(&mesh);
        c.bench_function(&format!("merge/nothing new/{}", mesh.title), |b| {
            b.iter(|| {
                topology
                    .merge(black_box(&update))
                    .map(|merged| merged.improved.len())
            });
        });
        c.bench_function(&format!("encode/{}", mesh.title), |b| {
            b.iter(|| topology.encode(topology.names()).len());
        });
        c.bench_function(&format!("collect garbage/{}", mesh.title), |b| {
            b.iter(|| topology.collect_garbage().len());
        });
    }
}

fn routes(c: &mut Criterion) {
    let mut group = c.benchmark_group("routes");
    for mesh in meshes() {
        let topology = member(&mesh);
        group.bench_with_input(
            BenchmarkId::new("calculate", mesh.title),
            &topology,
            |b, t| {
                b.iter(|| Routes::calculate(black_box(t)));
            },
        );
        let source = mesh.peers[mesh.peers.len() / 2].name;
        group.bench_with_input(
            BenchmarkId::new("first broadcast", mesh.title),
            &topology,
            |b, t| {
                b.iter_batched_ref(
                    || Routes::calculate(t),
                    |routes| routes.broadcast(black_box(source)).len(),
                    BatchSize::LargeInput,
                );
            },
        );
        let routes = Routes::calculate(&topology);
        group.bench_function(BenchmarkId::new("unicast", mesh.title), |b| {
            b.iter(|| routes.unicast(black_box(source)));
        });
    }
}

criterion_group!(benches, gossip, routes);
criterion_main!(benches);
