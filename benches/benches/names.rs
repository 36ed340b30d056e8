//! Names: answers, gossip of a full table, and what one change costs.

#![allow(clippy::unwrap_used, missing_docs)]

use std::hint::black_box;
use std::net::Ipv4Addr;

use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use fastrand::Rng;
use proto::names::answer::{Reply, Responder, Transport, Zone};
use proto::names::{Index, Names, NamesConfig, Output, UnixSecs, gossip};
use proto::types::{PeerName, Time};

const WALL: UnixSecs = UnixSecs(1_700_000_000);
const NAMES: u32 = 10_000;

fn query(name: &str, qtype: u8) -> Vec<u8> {
    let mut out = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, qtype, 0, 1]);
    out
}

fn hostname(i: u32) -> String {
    format!("service-{i}.weave.local.")
}

fn answers(c: &mut Criterion) {
    let hosts: Vec<String> = (0..NAMES).map(hostname).collect();
    let each = hosts.iter().zip(0..);
    let one = each.map(|(name, i)| (name.as_str(), Ipv4Addr::from(0x0a20_0000 + i)));
    let three = (0..3).map(|i| ("three.weave.local.", Ipv4Addr::new(10, 64, 0, i)));
    let sixty = (0..60).map(|i| ("sixty.weave.local.", Ipv4Addr::new(10, 64, 1, i)));
    let index = Index::of(one.chain(three).chain(sixty));
    let zone = Zone {
        domain: "weave.local.".parse().unwrap(),
        ttl_secs: 1,
        private: Vec::new(),
    };
    let mut responder = Responder::new(zone, Rng::with_seed(1));
    let mut out = Vec::new();
    let mut group = c.benchmark_group("answer");
    group.throughput(Throughput::Elements(1));
    for (what, packet) in [
        ("one address", query("service-4711.weave.local", 1)),
        ("unqualified", query("service-4711", 1)),
        ("three addresses", query("three.weave.local", 1)),
        ("sixty addresses, truncated", query("sixty.weave.local", 1)),
        ("AAAA", query("service-4711.weave.local", 28)),
        ("no such name", query("nothing.weave.local", 1)),
        ("PTR", query("103.18.32.10.in-addr.arpa", 12)),
        ("forward", query("www.example.com", 1)),
    ] {
        group.bench_function(what, |b| {
            b.iter(|| {
                let packet = black_box(&packet);
                let reply = responder.respond(&index, packet, Transport::Udp, &mut out);
                assert!(!matches!(reply, Reply::Ignored));
                black_box(&out);
            });
        });
    }
    group.finish();
}

/// Returns a table of [`NAMES`] names of a hundred peers.
fn full() -> Names {
    let peers: Vec<PeerName> = (2..=101).map(|i| PeerName::from_u64(i).unwrap()).collect();
    let domain: proto::names::Domain = "weave.local.".parse().unwrap();
    let config = |us| NamesConfig {
        us,
        domain: domain.clone(),
    };
    let us = PeerName::from_u64(1).unwrap();
    let mut all = Names::new(config(us), Time::ZERO);
    all.handle_peers(Time::ZERO, WALL, &peers);
    for (i, &us) in (0..).zip(&peers) {
        let mut one = Names::new(config(us), Time::ZERO);
        for j in 0..NAMES / 100 {
            let host = i * NAMES / 100 + j;
            let addr = Ipv4Addr::from(0x0a20_0000 + host);
            let container = format!("{host:064x}");
            one.add(Time::ZERO, WALL, &container, &hostname(host), addr)
                .unwrap();
        }
        let state = one.state(WALL);
        all.handle_broadcast(Time::ZERO, WALL, us, &state).unwrap();
    }
    while all.poll_output().is_some() {}
    all
}

fn gossip_of_all(c: &mut Criterion) {
    let mut names = full();
    assert_eq!(names.table().alive(), NAMES as usize);
    let state = names.state(WALL);
    let sender = PeerName::from_u64(2).unwrap();
    let mut group = c.benchmark_group("10,000 names");
    group.sample_size(20);
    group.throughput(Throughput::Elements(u64::from(NAMES)));
    group.bench_function("encode state", |b| b.iter(|| names.state(WALL)));
    group.bench_function("decode", |b| b.iter(|| gossip::decode(&state).unwrap()));
    group.bench_function("take in what is known", |b| {
        b.iter(|| {
            names
                .handle_gossip(Time::ZERO, WALL, sender, &state)
                .unwrap()
        });
    });
    group.finish();

    let addr = Ipv4Addr::new(10, 99, 0, 1);
    c.bench_function("add, index, delete, index among 10,000 names", |b| {
        b.iter_batched(
            || (),
            |()| {
                names
                    .add(Time::ZERO, WALL, "c", "fresh.weave.local", addr)
                    .unwrap();
                drain(&mut names);
                names.delete_container(Time::ZERO, WALL, "c");
                drain(&mut names);
            },
            BatchSize::SmallInput,
        );
    });
}

fn drain(names: &mut Names) {
    while let Some(output) = names.poll_output() {
        if let Output::Index(index) = output {
            black_box(index);
        }
    }
}

criterion_group!(benches, answers, gossip_of_all);
criterion_main!(benches);
