//! What it costs to decide where a frame goes, learning included.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use proto::routes::Routes;
use proto::switch::{Forwarding, MacTable, PeerSlots};
use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{Mac, PeerName, PeerUid, Time};

fn name(number: usize) -> PeerName {
    PeerName::from_u64(number as u64 + 1).unwrap_or_default()
}

fn mac(number: usize) -> Mac {
    let [_, _, _, _, a, b, c, d] = (number as u64).to_be_bytes();
    Mac::from_bytes([2, 0, a, b, c, d])
}

/// Peer 0 of a line of peers, and a table in which each of them has ten addresses.
fn line(peers: usize) -> (Forwarding, MacTable) {
    let connection = |number: usize| Connection {
        remote: name(number),
        address: Address::from_text(b"10.0.0.1:6783"),
        outbound: true,
        established: true,
    };
    let others: Vec<Peer> = (1..peers)
        .map(|number| Peer {
            name: name(number),
            nickname: Box::default(),
            uid: PeerUid(number as u64 + 1),
            version: 1,
            short_id: None,
            connections: [number - 1, number + 1]
                .into_iter()
                .filter(|&neighbour| neighbour < peers)
                .map(connection)
                .collect(),
        })
        .collect();
    let rng = fastrand::Rng::with_seed(1);
    let mut topology = Topology::new(name(0), "", PeerUid(1), None, rng);
    // What cannot be merged leaves a mesh of one peer, which the figures would show.
    let _ = topology.merge(&encode_update(&others));
    topology.add_connection(name(1), SocketAddr::from(([10, 0, 0, 1], 6783)), true);
    topology.establish_connection(name(1));
    let routes = Arc::new(Routes::calculate(&topology));
    let mut slots = PeerSlots::new(name(0));
    slots.update(Time::ZERO, routes.peers());
    let macs = MacTable::new(7);
    for number in 0..10 * peers {
        if let Some(slot) = slots.get(name(number % peers)) {
            macs.learn(Time::ZERO, mac(number), slot);
        }
    }
    (Forwarding::new(routes, &slots, &[name(1)]), macs)
}

fn decisions(c: &mut Criterion) {
    let now = Time::from_micros(1);
    for peers in [3, 100, 1000] {
        let (forwarding, macs) = line(peers);
        let (here, last) = (mac(0), mac(peers - 1));
        let ours = (name(1), name(peers - 1), name(0));
        c.bench_function(&format!("switch/captured/known/{peers}"), |b| {
            b.iter(|| {
                forwarding
                    .captured(now, &macs, black_box(last), black_box(here))
                    .1
            });
        });
        c.bench_function(&format!("switch/captured/flood/{peers}"), |b| {
            b.iter(|| {
                let dst = black_box(Mac::BROADCAST);
                forwarding.captured(now, &macs, dst, black_box(here)).1
            });
        });
        c.bench_function(&format!("switch/received/ours/{peers}"), |b| {
            b.iter(|| {
                let macs_of_frame = black_box((here, last));
                forwarding
                    .received(now, &macs, black_box(ours), macs_of_frame)
                    .1
            });
        });
    }
}

criterion_group!(benches, decisions);
criterion_main!(benches);
