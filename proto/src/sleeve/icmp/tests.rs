use etherparse::{Icmpv4Type, Icmpv6Type, NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::*;
use crate::ethernet::testing::{Spec, noise, spec};

fn answer(frame: &[u8], mtu: usize) -> Option<Vec<u8>> {
    let mut out = [0xee; ANSWER_BYTES_MAX];
    let len = too_big(frame, mtu, &mut out)?;
    Some(out[..len].to_vec())
}

proptest! {
    /// Every answer is a valid packet to the source of the frame, and names it.
    #[test]
    fn answers_are_valid(spec in spec(2000), mtu in 552usize..65536) {
        let frame = spec.build();
        let bytes = answer(&frame, mtu).unwrap();
        let l2 = 14 + 4 * spec.tags.len();
        prop_assert_eq!(&bytes[..6], &frame[6..12]);
        prop_assert_eq!(&bytes[6..12], &frame[..6]);
        prop_assert_eq!(&bytes[12..l2], &frame[12..l2]);

        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();
        match (packet.net, packet.transport) {
            (Some(NetSlice::Ipv4(ip)), Some(TransportSlice::Icmpv4(icmp))) => {
                let header = ip.header().to_header();
                prop_assert_eq!(header.header_checksum, header.calc_header_checksum());
                prop_assert_eq!(&frame[l2 + 12..l2 + 16], header.destination);
                prop_assert_eq!(&frame[l2 + 16..l2 + 20], header.source);
                prop_assert_eq!(&[frame[l2 + 1]], &bytes[l2 + 1..l2 + 2]);
                let expected = Icmpv4Type::DestinationUnreachable(
                    etherparse::icmpv4::DestUnreachableHeader::FragmentationNeeded {
                        next_hop_mtu: mtu as u16,
                    },
                );
                prop_assert_eq!(icmp.header().icmp_type, expected);
                prop_assert_eq!(checksum::checksum(icmp.slice()), 0);
                let quoted = 20 + 4 * spec.options + 8;
                prop_assert_eq!(icmp.payload(), &frame[l2..l2 + quoted]);
            }
            (Some(NetSlice::Ipv6(ip)), Some(TransportSlice::Icmpv6(icmp))) => {
                let header = ip.header().to_header();
                prop_assert_eq!(&frame[l2 + 8..l2 + 24], header.destination);
                prop_assert_eq!(&frame[l2 + 24..l2 + 40], header.source);
                let expected = Icmpv6Type::PacketTooBig { mtu: mtu as u32 };
                prop_assert_eq!(icmp.header().icmp_type, expected);
                prop_assert!(icmp.is_checksum_valid(header.source, header.destination));
                let quoted = (frame.len() - l2).min(1232);
                prop_assert_eq!(icmp.payload(), &frame[l2..l2 + quoted]);
                prop_assert!(bytes.len() <= l2 + IPV6_MTU_MIN);
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn any_room_is_enough_or_refused(spec in spec(100), room in 0usize..300) {
        let frame = spec.build();
        let mut out = vec![0xee; room];
        let whole = answer(&frame, 1414).unwrap();
        let written = too_big(&frame, 1414, &mut out);
        if room >= whole.len() {
            prop_assert_eq!(written, Some(whole.len()));
            prop_assert_eq!(&out[..whole.len()], &whole);
        } else {
            prop_assert_eq!(written, None);
        }
    }
}

#[test]
fn errors_and_groups_are_not_answered_in_ipv6() {
    let mut spec = Spec::udp(noise(1, 1500));
    spec.v6 = true;
    let frame = spec.build();
    assert!(answer(&frame, 1300).is_some());

    let mut group = frame.clone();
    group[38] = 0xff;
    assert_eq!(answer(&group, 1300), None);

    let mut nobody = frame.clone();
    nobody[22..38].fill(0);
    assert_eq!(answer(&nobody, 1300), None);

    for (kind, answered) in [(1, false), (127, false), (128, true), (135, true)] {
        let mut icmp = frame.clone();
        icmp[20] = PROTOCOL_ICMPV6;
        icmp[54] = kind;
        assert_eq!(answer(&icmp, 1300).is_some(), answered, "{kind}");
    }
}

#[test]
fn what_is_not_ip_has_no_answer() {
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    assert_eq!(answer(&arp, 1300), None);
    assert_eq!(answer(&[0; 13], 1300), None);
    let frame = Spec::tcp(1, noise(1, 100)).build();
    for len in 0..34 {
        assert_eq!(answer(&frame[..len], 1300), None);
    }
    // A packet that is cut off behind its header is answered with what is there.
    assert_eq!(answer(&frame[..36], 1300).unwrap().len(), 14 + 28 + 22);
}
