use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::ethernet::testing::{Spec, Tcp, assert_valid, noise, spec};
use crate::offload::vnet::FLAG_NEEDS_CSUM;

/// Returns the vnet header that the kernel puts before a super-frame made of `spec`.
pub(crate) fn vnet(spec: &Spec, gso_size: u16) -> VnetHeader {
    let transport = 14 + 4 * spec.tags.len() + spec.headers_len()
        - spec.tcp.as_ref().map_or(8, |tcp| 20 + 4 * tcp.options);
    let ecn = |tcp: &Tcp| if tcp.flags & 0x80 != 0 { GSO_ECN } else { 0 };
    let (gso_type, csum_offset) = match (&spec.tcp, spec.v6) {
        (Some(tcp), false) => (GSO_TCPV4 | ecn(tcp), 16),
        (Some(tcp), true) => (GSO_TCPV6 | ecn(tcp), 16),
        (None, _) => (GSO_UDP_L4, 6),
    };
    VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type,
        // On forwarded frames anything stands here.
        header_len: 3,
        gso_size,
        csum_start: transport as u16,
        csum_offset,
    }
}

/// Returns all segments of a super-frame, each in a buffer of its own.
pub(crate) fn segments(split: &Split<'_>) -> Vec<Vec<u8>> {
    (0..split.segments())
        .map(|index| {
            let mut out = vec![0xee; split.segment_len(index)];
            assert_eq!(split.write_segment(index, &mut out), out.len());
            out
        })
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Each segment is a valid frame, and together they say what the super-frame says.
    #[test]
    fn segments_are_valid_and_complete(spec in spec(20000), gso_size in 40u16..3000) {
        let frame = spec.build();
        let split = Split::new(vnet(&spec, gso_size), &frame).unwrap();
        let segments = segments(&split);
        let count = spec.payload.len().div_ceil(gso_size.into()).max(1);
        prop_assert_eq!(segments.len(), count);

        let mut payload: Vec<u8> = Vec::new();
        for (index, segment) in segments.iter().enumerate() {
            assert_valid(segment);
            let packet = SlicedPacket::from_ethernet(segment).unwrap();
            let l2 = 14 + 4 * spec.tags.len();
            prop_assert_eq!(&segment[..l2], &frame[..l2]);
            match packet.net {
                Some(NetSlice::Ipv4(ip)) => {
                    let header = ip.header();
                    prop_assert_eq!(header.identification(), spec.id.wrapping_add(index as u16));
                    prop_assert_eq!(header.dont_fragment(), spec.dont_fragment);
                    prop_assert_eq!(header.ttl(), spec.ttl);
                    prop_assert_eq!(header.options().len(), 4 * spec.options);
                }
                Some(NetSlice::Ipv6(ip)) => {
                    prop_assert_eq!(ip.header().traffic_class(), spec.tos);
                    prop_assert_eq!(ip.header().flow_label().value(), 0x12345);
                }
                other => panic!("{other:?}"),
            }
            match (packet.transport, &spec.tcp) {
                (Some(TransportSlice::Tcp(tcp)), Some(expected)) => {
                    let last = index + 1 == count;
                    let at = payload.len() as u32;
                    prop_assert_eq!(tcp.sequence_number(), expected.sequence.wrapping_add(at));
                    prop_assert_eq!(tcp.acknowledgment_number(), expected.acknowledgement);
                    prop_assert_eq!(tcp.window_size(), expected.window);
                    prop_assert_eq!(tcp.options().len(), 4 * expected.options);
                    prop_assert_eq!(tcp.psh(), last && expected.flags & 0x08 != 0);
                    prop_assert_eq!(tcp.fin(), last && expected.flags & 0x01 != 0);
                    prop_assert_eq!(tcp.cwr(), index == 0 && expected.flags & 0x80 != 0);
                    prop_assert_eq!(tcp.ece(), expected.flags & 0x40 != 0);
                    payload.extend(tcp.payload());
                }
                (Some(TransportSlice::Udp(udp)), None) => {
                    prop_assert_eq!(usize::from(udp.length()), 8 + udp.payload().len());
                    payload.extend(udp.payload());
                }
                other => panic!("{other:?}"),
            }
            prop_assert!(index + 1 == count || segment.len() == segments[0].len());
        }
        prop_assert_eq!(payload, spec.payload);
    }

    /// The other ways of writing give the same bytes, apart from the checksums that chunks lack.
    #[test]
    fn headers_and_chunks_agree_with_segments(spec in spec(3000), gso_size in 40u16..900) {
        let frame = spec.build();
        let split = Split::new(vnet(&spec, gso_size), &frame).unwrap();
        for (index, mut segment) in segments(&split).into_iter().enumerate() {
            let mut headers = vec![0; split.headers_len()];
            prop_assert_eq!(split.write_headers(index, &mut headers), headers.len());
            headers.extend(split.payload(index));
            prop_assert_eq!(&headers, &segment);

            let mut chunk = vec![0; split.segment_len(index)];
            prop_assert_eq!(split.write_chunk(index, &mut chunk), chunk.len());
            let layout = split.layout();
            for bytes in [&mut segment, &mut chunk] {
                let field = layout.transport + layout.protocol.checksum_offset();
                bytes[field..field + 2].fill(0);
                if layout.ip == Ip::V4 {
                    bytes[layout.network + 10..layout.network + 12].fill(0);
                }
            }
            prop_assert_eq!(chunk, segment);
        }
    }

    /// Whatever a vnet header claims of whatever frame, cutting stays inside.
    #[test]
    fn hostile_headers_are_harmless(
        spec in spec(400),
        header in any::<[u8; 10]>(),
        kind in prop_oneof![Just(1u8), Just(4), Just(5), Just(0x81), any::<u8>()],
        keep in any::<bool>(),
        changes in any::<[(u8, u8); 3]>(),
    ) {
        let mut frame = spec.build();
        if !keep {
            for (at, value) in changes {
                if let Some(byte) = frame.get_mut(usize::from(at)) {
                    *byte = value;
                }
            }
        }
        let mut data = header.to_vec();
        data[1] = kind;
        data.extend(&frame);
        crate::fuzzing::fuzz_split(&data);
    }
}

#[test]
fn an_exact_multiple_has_no_empty_last_segment() {
    let spec = Spec::tcp(u32::MAX - 100, noise(1, 4000));
    let frame = spec.build();
    let split = Split::new(vnet(&spec, 1000), &frame).unwrap();
    assert_eq!(
        (split.segments(), split.segment_len(3)),
        (4, split.segment_len(0))
    );
    assert_eq!((split.segment_len(4), split.payload(4)), (0, &[][..]));
    assert_eq!(split.write_segment(4, &mut [0; 2000]), 0);
    assert_eq!(split.write_chunk(4, &mut [0; 2000]), 0);
    assert_eq!(split.write_headers(4, &mut [0; 2000]), 0);
}

#[test]
fn a_short_slice_gets_nothing() {
    let spec = Spec::tcp(1, noise(1, 4000));
    let frame = spec.build();
    let split = Split::new(vnet(&spec, 1000), &frame).unwrap();
    let mut out = vec![0xee; split.segment_len(0) - 1];
    assert_eq!(split.write_segment(0, &mut out), 0);
    assert_eq!(split.write_chunk(0, &mut out), 0);
    assert_eq!(
        split.write_headers(0, &mut out[..split.headers_len() - 1]),
        0
    );
    assert!(out.iter().all(|byte| *byte == 0xee));
}

#[test]
fn what_is_no_super_frame_is_refused() {
    let spec = Spec::tcp(1, noise(1, 4000));
    let frame = spec.build();
    let good = vnet(&spec, 1000);
    let refused = |header: VnetHeader, frame: &[u8]| Split::new(header, frame).err();

    let header = VnetHeader {
        gso_type: 3,
        ..good
    };
    assert_eq!(refused(header, &frame), Some(SplitError::UnknownType(3)));
    for gso_type in [GSO_TCPV6, GSO_UDP_L4] {
        let header = VnetHeader { gso_type, ..good };
        assert_eq!(
            refused(header, &frame),
            Some(SplitError::OtherPacket(gso_type))
        );
    }
    let header = VnetHeader {
        csum_start: 35,
        ..good
    };
    let error = SplitError::ChecksumStart {
        announced: 35,
        found: 34,
    };
    assert_eq!(refused(header, &frame), Some(error));
    for gso_size in [0, 1] {
        let header = VnetHeader { gso_size, ..good };
        let error = SplitError::SegmentSize {
            payload: 4000,
            gso_size,
        };
        assert_eq!(refused(header, &frame), Some(error));
    }
    // 4000 bytes by two are within the limit.
    assert_eq!(
        refused(
            VnetHeader {
                gso_size: 2,
                ..good
            },
            &frame
        ),
        None
    );
    for len in 0..frame.len() {
        assert!(refused(good, &frame[..len]).is_some(), "{len}");
    }
    let mut fragment = frame;
    fragment[20] |= 0x20;
    assert_eq!(
        refused(good, &fragment),
        Some(SplitError::OtherPacket(GSO_TCPV4))
    );
}

#[test]
fn an_empty_payload_is_one_segment() {
    let spec = Spec::tcp(1, Vec::new());
    let frame = spec.build();
    let split = Split::new(vnet(&spec, 1000), &frame).unwrap();
    assert_eq!(split.segments(), 1);
    assert_eq!(segments(&split), std::slice::from_ref(&frame));
}

#[test]
fn padding_is_left_behind() {
    let spec = Spec::udp(noise(1, 10));
    let frame = spec.build();
    let mut padded = frame.clone();
    padded.resize(60, 0);
    let split = Split::new(vnet(&spec, 1000), &padded).unwrap();
    assert_eq!(segments(&split), std::slice::from_ref(&frame));
}

#[test]
fn udp_checksums_are_never_zero() {
    // The word that makes the sum all ones is the checksum without it.
    let mut spec = Spec::udp(vec![0; 2]);
    let checksum = spec.build()[40..42].to_vec();
    spec.payload = checksum;
    let mut frame = spec.build();
    frame[40..42].fill(0);
    let split = Split::new(vnet(&spec, 1000), &frame).unwrap();
    assert_eq!(segments(&split)[0][40..42], [0xff, 0xff]);
}
