use etherparse::{NetSlice, SlicedPacket};
use proptest::prelude::*;

use super::*;
use crate::ethernet::testing::{Spec, noise, spec};

fn fragments(frame: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    let fragments = Fragments::new(frame, mtu).unwrap();
    (0..fragments.count())
        .map(|index| {
            let mut out = vec![0xee; fragments.frame_len(index)];
            assert_eq!(fragments.write(index, &mut out), out.len());
            out
        })
        .collect()
}

/// Puts fragments together again, in order: the payload of the packet.
fn reassemble(fragments: &[Vec<u8>], header_len: usize, mtu: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    for (index, fragment) in fragments.iter().enumerate() {
        let ip = match SlicedPacket::from_ethernet(fragment).unwrap().net {
            Some(NetSlice::Ipv4(ip)) => ip,
            other => panic!("{other:?}"),
        };
        let header = ip.header().to_header();
        assert_eq!(header.header_checksum, header.calc_header_checksum());
        assert_eq!(header.header_len(), header_len);
        assert!(usize::from(header.total_len) <= mtu);
        assert_eq!(
            usize::from(header.fragment_offset.value()) * 8,
            payload.len()
        );
        assert_eq!(header.more_fragments, index + 1 != fragments.len());
        assert!(fragment.len() >= FRAME_BYTES_MIN);
        payload.extend(ip.payload().payload);
    }
    payload
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn fragments_make_the_packet(mut spec in spec(5000), mtu in 68usize..2000, padding in 0usize..9) {
        spec.v6 = false;
        spec.dont_fragment = false;
        let mut frame = spec.build();
        let payload = frame[14 + 4 * spec.tags.len() + 20 + 4 * spec.options..].to_vec();
        frame.resize(frame.len() + padding, 0xaa);
        let fragments = fragments(&frame, mtu);
        prop_assert_eq!(reassemble(&fragments, 20 + 4 * spec.options, mtu), payload);
        for fragment in &fragments {
            let l2 = 14 + 4 * spec.tags.len();
            prop_assert_eq!(&fragment[..l2], &frame[..l2]);
            prop_assert_eq!(&fragment[l2 + 4..l2 + 6], &spec.id.to_be_bytes());
        }
    }

    /// Fragments of fragments are fragments of the packet.
    #[test]
    fn fragments_are_fragmented(len in 3000usize..9000, mtu in 100usize..700) {
        let mut spec = Spec::udp(noise(1, len));
        spec.dont_fragment = false;
        let frame = spec.build();
        let mut small = Vec::new();
        for fragment in fragments(&frame, 1400) {
            small.extend(fragments(&fragment, mtu));
        }
        prop_assert_eq!(reassemble(&small, 20, mtu), &frame[34..]);
    }

    #[test]
    fn hostile_packets_are_harmless(spec in spec(300), mtu in any::<u16>(), changes in any::<[(u8, u8); 4]>(), cut in 0usize..400) {
        let mut frame = spec.build();
        frame.truncate(cut);
        for (at, value) in changes {
            if let Some(byte) = frame.get_mut(usize::from(at % 40)) {
                *byte = value;
            }
        }
        let mut data = mtu.to_be_bytes().to_vec();
        data.extend(&frame);
        crate::fuzzing::fuzz_fragment(&data);
    }
}

#[test]
fn what_cannot_be_fragmented_is_refused() {
    let refused = |frame: &[u8], mtu| Fragments::new(frame, mtu).err();
    let mut spec = Spec::udp(noise(1, 100));
    spec.dont_fragment = false;
    let frame = spec.build();
    assert_eq!(refused(&frame, 28), None);
    for mtu in [0, 20, 27] {
        assert_eq!(refused(&frame, mtu), Some(FragmentError::MtuTooSmall(mtu)));
    }
    let error = FragmentError::Truncated {
        announced: 128,
        got: 127,
    };
    assert_eq!(refused(&frame[..frame.len() - 1], 1000), Some(error));
    for len in 0..34 {
        assert_eq!(refused(&frame[..len], 1000), Some(FragmentError::NotIpv4));
    }
    spec.v6 = true;
    assert_eq!(refused(&spec.build(), 1000), Some(FragmentError::NotIpv4));

    // A total length below that of the header, which crashes Weave Net.
    let mut short = frame.clone();
    short[16..18].copy_from_slice(&19u16.to_be_bytes());
    assert_eq!(refused(&short, 1000), Some(FragmentError::NotIpv4));
    let mut zero = frame.clone();
    zero[16..18].fill(0);
    assert_eq!(refused(&zero, 1000), Some(FragmentError::NotIpv4));

    // 8191 * 8 + 108 bytes exceed any packet.
    let mut late = frame;
    late[20..22].copy_from_slice(&[0x1f, 0xff]);
    assert_eq!(refused(&late, 1000), Some(FragmentError::BeyondEnd));
}

#[test]
fn the_last_fragment_of_a_fragment_keeps_more_fragments() {
    let mut spec = Spec::udp(noise(1, 1000));
    spec.dont_fragment = false;
    let mut frame = spec.build();
    let offset = 100u16;
    frame[20..22].copy_from_slice(&(0x2000 | offset).to_be_bytes());
    let fragments = fragments(&frame, 600);
    let flags: Vec<_> = fragments
        .iter()
        .map(|fragment| u16::from_be_bytes([fragment[20], fragment[21]]))
        .collect();
    assert_eq!(flags, [0x2000 | 100, 0x2000 | (100 + 72)]);
}
