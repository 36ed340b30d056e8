//! Frames, super-frames and sleeve packets.

use std::net::{Ipv4Addr, SocketAddrV4};

use crate::crypto::{Nonce, SessionKey};
use crate::ethernet::{Frame, is_special};
use crate::offload::checksum;
use crate::offload::join::{Checksums, JoinKinds, Joined, Joiner};
use crate::offload::split::{SPLIT_SEGMENTS_MAX, Split};
use crate::offload::vnet::{Captured, VnetHeader};
use crate::sleeve::codec::open;
use crate::sleeve::fragment::Fragments;
use crate::sleeve::wire::{FRAME_HEADER_BYTES, sender};
use crate::sleeve::{DecodeError, LinkId, Replay, Special, Tunnel, TunnelConfig, choose, icmp};
use crate::types::PeerName;

/// Looks at the bytes as a frame, and checks that what is found lies inside of it.
pub fn fuzz_ethernet(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        assert!(data.len() < 14);
        return;
    };
    assert!(!is_special(data) || (frame.ethertype() == 0 && !frame.is_tagged()));
    if let Some(ip) = frame.ipv4() {
        assert!(ip.header().len() == ip.header_len() && ip.total_len() >= ip.header_len());
        assert!(ip.header_len() + ip.payload().len() <= frame.network().len());
    }
    if let Some(ip) = frame.ipv6() {
        assert!(ip.transport_offset() + ip.payload().len() <= frame.network().len());
    }
    if let Some(layout) = frame.layout() {
        assert!(layout.network < layout.transport && layout.transport < layout.payload);
        assert!(layout.payload <= layout.end && layout.end <= data.len());
    }
}

/// Takes ten bytes as a vnet header and the rest as its frame, and writes all that comes of it.
pub fn fuzz_split(data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk() else {
        return;
    };
    let mut frame = frame.to_vec();
    let Ok(Captured::Super(split)) = Captured::new(VnetHeader::decode(header), &mut frame) else {
        return;
    };
    assert!(split.segments() <= SPLIT_SEGMENTS_MAX);
    let mut out = vec![0; split.segment_len(0)];
    let mut payload = 0;
    for index in 0..split.segments() {
        let len = split.segment_len(index);
        assert!(len <= out.len());
        assert_eq!(split.write_segment(index, &mut out), len);
        let layout = Frame::parse(&out[..len])
            .ok()
            .and_then(|frame| frame.layout());
        assert!(layout.is_some_and(|layout| checksum::verify(&out, &layout)));
        assert_eq!(split.write_chunk(index, &mut out), len);
        assert_eq!(split.write_headers(index, &mut out), split.headers_len());
        payload += split.payload(index).len();
    }
    assert_eq!(payload, split.layout().end - split.layout().payload);
}

/// Opens the bytes as a packet of a plain link and of an encrypted one; then seals them as the
/// frames of an authentic packet, which is what a member of the mesh can send.
pub fn fuzz_sleeve(data: &[u8]) {
    let peer = sender(data).unwrap_or(PeerName::UNKNOWN);
    let key = SessionKey::from_bytes([7; 32]);
    let tunnel = |key: Option<SessionKey>| {
        Tunnel::new(TunnelConfig {
            id: LinkId(0),
            us: PeerName::UNKNOWN,
            peer,
            key,
            dialled: false,
            remote: Some(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6783)),
        })
    };
    take_frames(&tunnel(None), &mut data.to_vec());
    let encrypted = tunnel(Some(key.clone()));
    let opened = take_frames(&encrypted, &mut data.to_vec());
    assert_eq!(opened, None);

    let mut sealed = data.to_vec();
    let tag = key.seal_in_place(&Nonce::sleeve(true, 0), &mut sealed);
    let packet = [peer.as_bytes(), &[0; 8][..], &tag, &sealed].concat();
    assert_eq!(
        take_frames(&encrypted, &mut packet.clone()),
        Some(data.len())
    );
}

/// Opens a packet and does with its frames what a router does; returns how many bytes of frames
/// there were, or None if it does not open.
fn take_frames(tunnel: &Tunnel, packet: &mut [u8]) -> Option<usize> {
    let mut opened = open(tunnel, &mut Replay::new(), packet).ok()?;
    let mut used = 0;
    while let Some(next) = opened.next(packet) {
        used += match next {
            Ok(frame) => {
                let bytes = &packet[frame.range];
                let _ = Special::classify(bytes);
                let _ = choose(tunnel, bytes, false);
                fuzz_ethernet(bytes);
                FRAME_HEADER_BYTES + bytes.len()
            }
            Err(DecodeError::Trailing(left)) => left,
            Err(DecodeError::FrameTooShort { got, .. }) => FRAME_HEADER_BYTES + got,
        };
    }
    Some(used)
}

/// Takes two bytes as an MTU and the rest as a frame, and writes all fragments of it, and the
/// answer that says it is too big.
pub fn fuzz_fragment(data: &[u8]) {
    let Some((mtu, frame)) = data.split_first_chunk() else {
        return;
    };
    let mtu = usize::from(u16::from_be_bytes(*mtu));
    let mut out = [0; icmp::ANSWER_BYTES_MAX];
    if let Some(len) = icmp::too_big(frame, mtu, &mut out) {
        assert!(len <= out.len());
    }
    let Ok(fragments) = Fragments::new(frame, mtu) else {
        return;
    };
    for index in 0..fragments.count() {
        let len = fragments.frame_len(index);
        let mut out = vec![0; len];
        assert_eq!(fragments.write(index, &mut out), len);
        let ip = Frame::parse(&out).ok().and_then(|frame| frame.ipv4());
        assert!(ip.is_some_and(|ip| ip.total_len() <= mtu && !ip.is_truncated()));
    }
}

/// Takes the bytes as frames, each after its length in two bytes, and joins them twice: as they
/// are, and as frames whose checksums are absent.
pub fn fuzz_join(data: &[u8]) {
    let mut ranges = Vec::new();
    let mut at = 0;
    while let Some(&[high, low]) = data.get(at..at + 2) {
        let start = at + 2;
        at = (start + usize::from(u16::from_be_bytes([high, low]))).min(data.len());
        ranges.push(start..at);
    }
    for checksums in [Checksums::Present, Checksums::Absent] {
        let mut joiner = Joiner::new(JoinKinds::ALL);
        let mut slab = data.to_vec();
        let mut segments = 0;
        let mut sink = |joined: &Joined<'_>| {
            segments += joined.segments();
            assert!(joined.frame_len() <= data.len());
            if joined.header.is_super() {
                let mut frame = vec![0; joined.frame_len()];
                let frame = joined.copy_to(&mut frame).unwrap_or_default();
                let split = Split::new(joined.header, frame);
                assert!(split.is_ok_and(|split| split.segments() == joined.segments()));
            }
        };
        for range in &ranges {
            joiner.push(&mut slab, range.clone(), checksums, &mut sink);
        }
        joiner.flush(&mut slab, &mut sink);
        assert_eq!(segments, ranges.len());
    }
}
