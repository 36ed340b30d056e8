//! What a sleeve packet costs: sealing and opening, encrypted and plain.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::crypto::SessionKey;
use proto::sleeve::codec::open;
use proto::sleeve::{Channel, LinkId, PacketBuilder, Replay, Tunnel, TunnelConfig};
use proto::types::PeerName;

const US: PeerName = PeerName::from_bytes([2, 0, 0, 0, 0, 1]);
const PEER: PeerName = PeerName::from_bytes([2, 0, 0, 0, 0, 2]);

fn tunnel(us: PeerName, peer: PeerName, dialled: bool, encrypted: bool) -> Tunnel {
    Tunnel::new(TunnelConfig {
        id: LinkId(1),
        us,
        peer,
        key: encrypted.then(|| SessionKey::from_bytes([7; 32])),
        dialled,
        remote: None,
    })
}

/// Puts one frame of `len` bytes into a packet in `buffer`.
fn seal(tunnel: &Tunnel, frame: &[u8], buffer: &mut [u8]) -> usize {
    let mut builder = PacketBuilder::new(tunnel, Channel::Df);
    if let Some(space) = builder.append(buffer, US, PEER, frame.len()) {
        space.copy_from_slice(frame);
    }
    builder.finish(tunnel, buffer)
}

fn packets(c: &mut Criterion) {
    for (kind, encrypted) in [("encrypted", true), ("plain", false)] {
        let (sender, receiver) = (
            tunnel(US, PEER, true, encrypted),
            tunnel(PEER, US, false, encrypted),
        );
        for len in [64, 576, 1400] {
            let frame = vec![0x5a; len];
            let mut buffer = vec![0; 2048];

            let mut group = c.benchmark_group(format!("sleeve_seal_{kind}"));
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::from_parameter(len), |b| {
                b.iter(|| seal(&sender, black_box(&frame), &mut buffer));
            });
            group.finish();

            // Each packet opens once only, so every round takes the next of many.
            let mut replay = Replay::new();
            let mut group = c.benchmark_group(format!("sleeve_open_{kind}"));
            group.throughput(Throughput::Bytes(len as u64));
            group.bench_function(BenchmarkId::from_parameter(len), |b| {
                b.iter_batched_ref(
                    || {
                        let mut packet = vec![0; 2048];
                        let len = seal(&sender, &frame, &mut packet);
                        packet.truncate(len);
                        packet
                    },
                    |packet| {
                        let mut opened = open(&receiver, &mut replay, packet)
                            .unwrap_or_else(|error| unreachable!("{error}"));
                        opened.next(packet)
                    },
                    BatchSize::SmallInput,
                );
            });
            group.finish();
        }
    }
}

/// The cipher alone, to see what the packet adds to it.
fn cipher(c: &mut Criterion) {
    let key = SessionKey::from_bytes([7; 32]);
    let nonce = proto::crypto::Nonce::sleeve(true, 1);
    let mut group = c.benchmark_group("secretbox_seal");
    for len in [78, 590, 1414] {
        let mut data = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_function(BenchmarkId::from_parameter(len), |b| {
            b.iter(|| key.seal_in_place(black_box(&nonce), &mut data));
        });
    }
    group.finish();
}

criterion_group!(benches, packets, cipher);
criterion_main!(benches);
