use proptest::prelude::*;

use super::*;
use crate::ethernet::Frame;
use crate::ethernet::testing::{Spec, noise, spec};
use crate::native::join::{ChunkJoiner, Origin};
use crate::native::wire::{Names, Record, Records};
use crate::offload::checksum;
use crate::offload::join::TCP_SEGMENTS_MAX;
use crate::offload::vnet::{FLAG_NEEDS_CSUM, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader};
use crate::types::PeerName;

const NAMES: Names = Names {
    source: PeerName::from_bytes([1; 6]),
    destination: PeerName::from_bytes([2; 6]),
};

/// Returns the vnet header of a frame as a super-frame of such segments.
fn super_header(frame: &[u8], gso_size: u16) -> VnetHeader {
    let layout = Frame::parse(frame).unwrap().layout().unwrap();
    VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type: match (layout.protocol, layout.ip) {
            (Protocol::Udp, _) => GSO_UDP_L4,
            (Protocol::Tcp, Ip::V4) => GSO_TCPV4,
            (Protocol::Tcp, Ip::V6) => GSO_TCPV6,
        },
        header_len: 0,
        gso_size,
        csum_start: layout.transport as u16,
        csum_offset: layout.protocol.checksum_offset() as u16,
    }
}

/// Returns the datagrams of a super-frame, not sealed.
fn datagrams(chunks: &Chunks<'_>) -> Vec<Vec<u8>> {
    (0..chunks.count())
        .map(|index| {
            let mut datagram = vec![0xee; chunks.datagram_len(index)];
            assert!(chunks.write(index, &NAMES.encode(), &mut datagram));
            assert!(!chunks.write(index, &NAMES.encode(), &mut datagram[1..]));
            datagram
        })
        .collect()
}

/// Joins those of the datagrams that arrive, in the order given, and returns the frames that the
/// device gets, with their vnet headers.
fn joined(datagrams: &[Vec<u8>], arrive: &[usize]) -> Vec<(VnetHeader, Vec<u8>)> {
    let mut slab: Vec<u8> = datagrams.concat();
    let starts: Vec<usize> = datagrams
        .iter()
        .scan(0, |at, datagram| {
            *at += datagram.len();
            Some(*at - datagram.len())
        })
        .collect();
    let mut joiner = ChunkJoiner::new();
    let mut out = Vec::new();
    let mut flush = |joiner: &mut ChunkJoiner, slab: &mut Vec<u8>| {
        if let Some(joined) = joiner.take(slab) {
            let mut frame = vec![0; joined.frame_len()];
            assert!(joined.copy_to(&mut frame).is_some());
            out.push((joined.header, frame));
        }
    };
    for &index in arrive {
        let body = starts[index] + HEADER_BYTES..starts[index] + datagrams[index].len() - TAG_BYTES;
        assert_eq!(Names::parse(&slab[body.clone()]), Some(NAMES));
        let mut records = Records::new(body.start + NAMES_BYTES..body.end);
        let Some(Ok(Record::Chunk(chunk))) = records.next(&slab) else {
            panic!();
        };
        assert_eq!(records.next(&slab), None);
        let origin = Origin {
            session: 5,
            stream: 1,
            counter: 1000 + index as u32,
            neighbour: NAMES.source,
            names: NAMES,
        };
        match joiner.append(&slab, &origin, &chunk) {
            Some(true) => flush(&mut joiner, &mut slab),
            Some(false) => {}
            None => {
                flush(&mut joiner, &mut slab);
                joiner.start(&slab, &origin, &chunk).unwrap();
                assert_eq!(joiner.names(), Some(NAMES));
                if chunk.last {
                    flush(&mut joiner, &mut slab);
                }
            }
        }
    }
    flush(&mut joiner, &mut slab);
    assert!(joiner.is_empty());
    out
}

/// Returns the segments that a kernel makes of what the device gets: complete frames.
fn segments(frames: &[(VnetHeader, Vec<u8>)]) -> Vec<Vec<u8>> {
    let mut out = Vec::new();
    for (header, frame) in frames {
        if header.is_super() {
            let split = Split::new(*header, frame).unwrap();
            for index in 0..split.segments() {
                let mut segment = vec![0; split.segment_len(index)];
                split.write_segment(index, &mut segment);
                out.push(segment);
            }
        } else {
            assert!(header.needs_csum());
            let mut frame = frame.clone();
            let (start, offset) = (header.csum_start, header.csum_offset);
            checksum::complete(&mut frame, start.into(), offset.into()).unwrap();
            out.push(frame);
        }
    }
    out
}

/// Returns the payload that segments carry, by where it belongs in the stream.
fn stream(segments: &[Vec<u8>], base: u32, len: usize) -> Vec<Option<u8>> {
    let mut stream = vec![None; len];
    for segment in segments {
        let layout = Frame::parse(segment).unwrap().layout().unwrap();
        assert!(checksum::verify(segment, &layout));
        let header = &segment[layout.transport..];
        let sequence = u32::from_be_bytes(header[4..8].try_into().unwrap());
        let start = sequence.wrapping_sub(base) as usize;
        for (place, byte) in stream[start..]
            .iter_mut()
            .zip(&segment[layout.payload..layout.end])
        {
            assert_eq!(place.replace(*byte), None, "a byte twice");
        }
    }
    stream
}

#[test]
fn chunks_fill_the_path_and_are_equal_but_for_the_last() {
    let frame = Spec::tcp(7, noise(1, 60_000)).build();
    let split = Split::new(super_header(&frame, 1324), &frame).unwrap();
    let chunks = Chunks::new(&split, 1472).unwrap();
    let lens: Vec<usize> = (0..chunks.count())
        .map(|n| chunks.datagram_len(n))
        .collect();
    assert!(lens[..lens.len() - 1].iter().all(|len| *len == 1472));
    assert!(lens[lens.len() - 1] <= 1472);
    assert_eq!(chunks.datagram_len(chunks.count()), 0);
    let total: usize = (0..chunks.count()).map(|n| chunks.segments(n)).sum();
    assert_eq!(total, split.segments());
}

#[test]
fn segments_that_do_not_fit_the_path_are_carried_all_the_same() {
    let frame = Spec::tcp(7, noise(1, 8960 * 7)).build();
    let split = Split::new(super_header(&frame, 8960), &frame).unwrap();
    let chunks = Chunks::new(&split, 1472).unwrap();
    let datagrams = datagrams(&chunks);
    let all: Vec<usize> = (0..datagrams.len()).collect();
    let joined = joined(&datagrams, &all);
    assert_eq!(joined.len(), 1);
    assert_eq!(joined[0].0.gso_size, 8960);
    assert_eq!(segments(&joined).len(), 7);
}

#[test]
fn what_cannot_be_cut_is_refused() {
    let frame = Spec::udp(noise(1, 6000)).build();
    let split = Split::new(super_header(&frame, 1500), &frame).unwrap();
    assert!(Chunks::new(&split, 1472).is_none(), "datagrams too large");
    assert!(Chunks::new(&split, 3200).is_some_and(|chunks| chunks.count() == 2));
    let frame = Spec::tcp(7, noise(1, 60_000)).build();
    let split = Split::new(super_header(&frame, 1324), &frame).unwrap();
    for max_payload in [0, 50, 110, 140] {
        assert!(Chunks::new(&split, max_payload).is_none());
    }
    assert!(Chunks::new(&split, 300).is_none(), "too many");
    let frame = Spec::tcp(7, Vec::new()).build();
    let split = Split::new(super_header(&frame, 1324), &frame).unwrap();
    assert!(Chunks::new(&split, 1472).is_none(), "no payload");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever arrives, in whatever order, comes out as valid frames with just its bytes.
    #[test]
    fn what_arrives_comes_out_once_and_nothing_else(
        spec in spec(20_000),
        gso_size in 1_u16..3000,
        max_payload in 200_usize..9000,
        loss in 0_u32..4,
        swaps in 0_u32..4,
        seed in any::<u64>(),
    ) {
        let frame = spec.build();
        let layout = Frame::parse(&frame).unwrap().layout().unwrap();
        let payload = frame[layout.payload..layout.end].to_vec();
        prop_assume!(payload.len().div_ceil(gso_size.into()) <= 64);
        let split = Split::new(super_header(&frame, gso_size), &frame).unwrap();
        let Some(chunks) = Chunks::new(&split, max_payload) else {
            return Ok(());
        };
        let datagrams = datagrams(&chunks);
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut arrive: Vec<usize> = (0..datagrams.len()).filter(|_| rng.u32(..10) >= loss).collect();
        for _ in 0..swaps {
            if arrive.len() > 1 {
                let at = rng.usize(..arrive.len() - 1);
                arrive.swap(at, at + 1);
            }
        }
        let frames = joined(&datagrams, &arrive);
        let out = segments(&frames);
        if loss == 0 && swaps == 0 {
            prop_assert_eq!(frames.len(), chunks.count().div_ceil(TCP_SEGMENTS_MAX));
        }
        if loss == 0 && swaps == 0 && frames.len() == 1 {
            // As if it had never been cut.
            let mut expected = Vec::new();
            for index in 0..split.segments() {
                let mut segment = vec![0; split.segment_len(index)];
                split.write_segment(index, &mut segment);
                expected.push(segment);
            }
            prop_assert_eq!(&out, &expected);
        }
        let bytes: usize = out.iter().map(|segment| {
            let layout = Frame::parse(segment).unwrap().layout().unwrap();
            assert!(checksum::verify(segment, &layout));
            layout.end - layout.payload
        }).sum();
        let arrived: usize = arrive.iter().map(|&index| {
            datagrams[index].len() - START_BYTES - layout.payload - TAG_BYTES
        }).sum();
        prop_assert_eq!(bytes, arrived);
        if let Some(tcp) = &spec.tcp {
            let stream = stream(&out, tcp.sequence, payload.len());
            for (got, sent) in stream.iter().zip(&payload) {
                prop_assert!(got.is_none_or(|got| got == *sent));
            }
        }
    }
}
