use etherparse::{NetSlice, SlicedPacket, TransportSlice};
use proptest::prelude::*;

use super::testing::spec;
use super::*;

proptest! {
    /// What is found in a frame is what another implementation finds.
    #[test]
    fn views_agree_with_etherparse(spec in spec(200), padding in 0usize..20) {
        let mut bytes = spec.build();
        let end = bytes.len();
        bytes.resize(end + padding, 0);
        let frame = Frame::parse(&bytes).unwrap();
        let packet = SlicedPacket::from_ethernet(&bytes).unwrap();

        prop_assert_eq!(frame.source(), Mac::from_bytes(spec.macs[0]));
        prop_assert_eq!(frame.destination(), Mac::from_bytes(spec.macs[1]));
        prop_assert_eq!(frame.is_tagged(), !spec.tags.is_empty());
        prop_assert_eq!(frame.network_offset(), 14 + 4 * spec.tags.len());
        prop_assert_eq!(frame.bytes(), &bytes[..]);

        match packet.net {
            Some(NetSlice::Ipv4(theirs)) => {
                let ours = frame.ipv4().unwrap();
                let header = theirs.header();
                prop_assert!(frame.ipv6().is_none());
                prop_assert_eq!(frame.ethertype(), ETHERTYPE_IPV4);
                prop_assert_eq!(ours.header(), header.slice());
                prop_assert_eq!(ours.tos(), spec.tos);
                prop_assert_eq!(ours.id(), header.identification());
                prop_assert_eq!(ours.dont_fragment(), header.dont_fragment());
                prop_assert_eq!(ours.protocol(), header.protocol().0);
                prop_assert_eq!(ours.source(), header.source());
                prop_assert_eq!(ours.destination(), header.destination());
                prop_assert_eq!(ours.payload(), theirs.payload().payload);
                prop_assert!(!ours.is_fragment() && !ours.is_truncated());
            }
            Some(NetSlice::Ipv6(theirs)) => {
                let ours = frame.ipv6().unwrap();
                prop_assert!(frame.ipv4().is_none());
                prop_assert_eq!(ours.traffic_class(), spec.tos);
                prop_assert_eq!(ours.protocol(), theirs.payload().ip_number.0);
                prop_assert_eq!(ours.source(), theirs.header().source());
                prop_assert_eq!(ours.destination(), theirs.header().destination());
                prop_assert_eq!(ours.payload(), theirs.payload().payload);
                prop_assert!(!ours.is_fragment() && !ours.is_truncated());
            }
            other => panic!("{other:?}"),
        }

        let layout = frame.layout().unwrap();
        prop_assert_eq!(layout.end, end);
        let (protocol, header, payload) = match packet.transport {
            Some(TransportSlice::Tcp(tcp)) => (Protocol::Tcp, tcp.header_slice(), tcp.payload()),
            Some(TransportSlice::Udp(udp)) => (Protocol::Udp, udp.header_slice(), udp.payload()),
            other => panic!("{other:?}"),
        };
        prop_assert_eq!(layout.protocol, protocol);
        prop_assert_eq!(&bytes[layout.transport..layout.payload], header);
        prop_assert_eq!(&bytes[layout.payload..layout.end], payload);
    }

    /// Cut and changed frames are looked at without harm, and what is found lies inside.
    #[test]
    fn any_bytes_are_looked_at(spec in spec(60), cut in 0usize..200, changes in any::<[(u8, u8); 6]>()) {
        let mut bytes = spec.build();
        bytes.truncate(cut);
        for (at, value) in changes {
            if let Some(byte) = bytes.get_mut(usize::from(at)) {
                *byte = value;
            }
        }
        crate::fuzzing::fuzz_ethernet(&bytes);
    }

    /// A packet that ends early is never taken for a whole one.
    #[test]
    fn truncated_packets_have_no_layout(spec in spec(60)) {
        let bytes = spec.build();
        for len in 0..bytes.len() {
            let layout = Frame::parse(&bytes[..len]).ok().and_then(|frame| frame.layout());
            prop_assert_eq!(layout, None);
        }
    }
}

#[test]
fn short_frames_are_refused() {
    assert_eq!(Frame::parse(&[0; 13]).err(), Some(TooShort(13)));
    assert_eq!(Frame::parse(&[0; 14]).unwrap().network(), b"");
}

#[test]
fn tags_are_looked_through_up_to_two() {
    let mut bytes = vec![0; 12];
    bytes.extend([0x88, 0xa8, 0, 1, 0x81, 0, 0, 2, 0x81, 0, 0, 3, 8, 0]);
    let frame = Frame::parse(&bytes).unwrap();
    assert_eq!(
        (frame.ethertype(), frame.network_offset()),
        (ETHERTYPE_VLAN, 22)
    );
    // A tag that is cut off is none.
    let frame = Frame::parse(&bytes[..16]).unwrap();
    assert_eq!(
        (frame.ethertype(), frame.network_offset()),
        (ETHERTYPE_QINQ, 14)
    );
    assert!(!frame.is_tagged());
}

#[test]
fn ipv6_extensions_are_walked() {
    // Hop-by-hop (8), routing (16), authentication (12), destination (8), then UDP.
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[6] = 0;
    packet.extend([43, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([51, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([60, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([17, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    let len = packet.len() - 40;
    packet[5] = len as u8;
    let ip = Ipv6::parse(&packet).unwrap();
    assert_eq!((ip.protocol(), ip.transport_offset()), (17, 84));
    assert!(!ip.is_fragment());
    for cut in 0..84 {
        assert!(Ipv6::parse(&packet[..cut]).is_none(), "{cut}");
    }
}

#[test]
fn ipv6_fragments_are_known_as_such() {
    let mut packet = vec![0; 40];
    packet[0] = 0x60;
    packet[5] = 16;
    packet[6] = 44;
    packet.extend([17, 0, 0, 1, 0, 0, 0, 9]);
    packet.extend([0, 1, 0, 2, 0, 8, 0, 0]);
    let first = Ipv6::parse(&packet).unwrap();
    assert!(first.is_fragment());
    assert_eq!((first.protocol(), first.transport_offset()), (17, 48));
    packet[43] = 0x09;
    let later = Ipv6::parse(&packet).unwrap();
    assert!(later.is_fragment());
    assert_eq!(later.protocol(), 44);
}

#[test]
fn endless_extensions_end() {
    let mut packet = vec![0; 40 + 8 * 40];
    packet[0] = 0x60;
    assert!(Ipv6::parse(&packet).is_none());
}

#[test]
fn datagrams_whose_lengths_differ_have_no_layout() {
    let frame = testing::Spec::udp(vec![0; 20]).build();
    let layout = |frame: &[u8]| Frame::parse(frame).ok().and_then(|frame| frame.layout());
    assert!(layout(&frame).is_some());
    for len in [0u8, 7, 8, 27, 29] {
        let mut other = frame.clone();
        other[39] = len;
        assert_eq!(layout(&other), None, "{len}");
    }
}

#[test]
fn fragments_have_no_layout() {
    let mut spec = testing::Spec::udp(vec![0; 20]);
    let mut frame = spec.build();
    for flags in [0x20, 0x00, 0x1f] {
        frame[20] = flags;
        frame[21] = u8::from(flags == 0);
        assert_eq!(Frame::parse(&frame).unwrap().layout(), None, "{flags}");
    }
    // The first fragment of an IPv6 packet: a header of 8 bytes before that of UDP.
    spec.v6 = true;
    let mut frame = spec.build();
    frame[20] = 44;
    frame[19] += 8;
    frame.splice(54..54, [17, 0, 0, 1, 0, 0, 0, 9]);
    assert!(Frame::parse(&frame).unwrap().ipv6().unwrap().is_fragment());
    assert_eq!(Frame::parse(&frame).unwrap().layout(), None);
}
