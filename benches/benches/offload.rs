//! What a frame costs between device and packet: checksums, splitting, joining.

use std::hint::black_box;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use proto::offload::checksum::Sum;
use proto::offload::join::{Checksums, JoinKinds, Joined, Joiner};
use proto::offload::split::Split;
use proto::offload::vnet::{FLAG_NEEDS_CSUM, GSO_TCPV4, VnetHeader};

/// Payload of one segment: what a container MTU of 1376 leaves with timestamps.
const GSO_SIZE: usize = 1324;
/// Ethernet, IPv4 and TCP headers, the latter with timestamps.
const HEADERS: usize = 14 + 20 + 32;

/// Returns a super-frame of `segments` full TCP segments over IPv4, and its vnet header.
fn super_frame(segments: usize) -> (VnetHeader, Vec<u8>) {
    let payload = segments * GSO_SIZE;
    let mut frame = vec![0; HEADERS + payload];
    for (index, byte) in frame.iter_mut().enumerate().skip(HEADERS) {
        *byte = (index * 7) as u8;
    }
    frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
    frame[14..34].copy_from_slice(&[
        0x45, 0, 0, 0, 0, 1, 0x40, 0, 64, 6, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2,
    ]);
    frame[16..18].copy_from_slice(&((20 + 32 + payload) as u16).to_be_bytes());
    frame[34..38].copy_from_slice(&[0xc0, 0, 0x14, 0x51]);
    frame[46] = 0x80;
    frame[47] = 0x10;
    frame[48] = 0xff;
    frame[54..58].copy_from_slice(&[1, 1, 8, 10]);
    let header = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type: GSO_TCPV4,
        header_len: HEADERS as u16,
        gso_size: GSO_SIZE as u16,
        csum_start: 34,
        csum_offset: 16,
    };
    (header, frame)
}

fn checksum(c: &mut Criterion) {
    let mut group = c.benchmark_group("checksum");
    for len in [64, 576, 1400, 9000] {
        let data = vec![0xa5; len];
        group.throughput(Throughput::Bytes(len as u64));
        group.bench_with_input(BenchmarkId::from_parameter(len), &data, |b, data| {
            b.iter(|| Sum::of(black_box(data)).finish());
        });
    }
    group.finish();
}

/// Cuts the whole super-frame; returns the bytes that were written.
fn cut(
    header: VnetHeader,
    frame: &[u8],
    out: &mut [u8],
    write: impl Fn(&Split<'_>, usize, &mut [u8]) -> usize,
) -> usize {
    let mut at = 0;
    if let Ok(split) = Split::new(black_box(header), black_box(frame)) {
        for index in 0..split.segments() {
            at += write(&split, index, &mut out[at..]);
        }
    }
    at
}

fn split(c: &mut Criterion) {
    let (header, frame) = super_frame(48);
    let mut out = vec![0; 1 << 17];
    let mut group = c.benchmark_group("split_64k");
    group.throughput(Throughput::Bytes(frame.len() as u64));
    group.bench_function("segments", |b| {
        b.iter(|| {
            cut(header, &frame, &mut out, |split, i, out| {
                split.write_segment(i, out)
            })
        });
    });
    group.bench_function("chunks_without_checksum", |b| {
        b.iter(|| {
            cut(header, &frame, &mut out, |split, i, out| {
                split.write_chunk(i, out)
            })
        });
    });
    group.bench_function("headers_only", |b| {
        b.iter(|| {
            cut(header, &frame, &mut out, |split, i, out| {
                split.write_headers(i, out)
            })
        });
    });
    group.bench_function("copy_alone", |b| {
        b.iter(|| out[..frame.len()].copy_from_slice(black_box(&frame)));
    });
    group.finish();
}

fn join(c: &mut Criterion) {
    let (header, frame) = super_frame(44);
    let Ok(split) = Split::new(header, &frame) else {
        return;
    };
    let len = split.segment_len(0);
    let mut slab = vec![0; split.segments() * len];
    for (index, segment) in slab.chunks_exact_mut(len).enumerate() {
        split.write_segment(index, segment);
    }
    let mut group = c.benchmark_group("join_44");
    group.throughput(Throughput::Bytes(slab.len() as u64));
    for (name, checksums) in [
        ("verified", Checksums::Present),
        ("without_checksum", Checksums::Absent),
    ] {
        let mut joiner = Joiner::new(JoinKinds::ALL);
        // Joining changes the headers of the first segment, which are put back each time.
        let first = slab[..HEADERS].to_vec();
        group.bench_function(name, |b| {
            b.iter_batched(
                || (),
                |()| {
                    slab[..HEADERS].copy_from_slice(&first);
                    let mut segments = 0;
                    let mut sink = |joined: &Joined<'_>| segments += joined.segments();
                    for index in 0..44 {
                        let range = index * len..(index + 1) * len;
                        joiner.push(&mut slab, range, checksums, &mut sink);
                    }
                    joiner.flush(&mut slab, &mut sink);
                    assert_eq!(segments, 44);
                },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(benches, checksum, split, join);
criterion_main!(benches);
