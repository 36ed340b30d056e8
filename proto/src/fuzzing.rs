//! Entry points for hostile bytes, one for each parser of what comes from the network.

use crate::crypto::Nonce;
use crate::crypto::PrivateKey;
use crate::crypto::SessionKey;
use crate::ethernet::Frame;
use crate::ethernet::is_special;
use crate::features::Features;
use crate::gob::Decoder;
use crate::gob::Value;
use crate::message::Message;
use crate::message::OverlayMode;
use crate::offload::checksum;
use crate::offload::join::Checksums;
use crate::offload::join::JoinKinds;
use crate::offload::join::Joined;
use crate::offload::join::Joiner;
use crate::offload::split::SPLIT_SEGMENTS_MAX;
use crate::offload::split::Split;
use crate::offload::vnet::Captured;
use crate::offload::vnet::VnetHeader;
use crate::sleeve::DecodeError;
use crate::sleeve::LinkId;
use crate::sleeve::Replay;
use crate::sleeve::Special;
use crate::sleeve::Tunnel;
use crate::sleeve::TunnelConfig;
use crate::sleeve::choose;
use crate::sleeve::codec::open;
use crate::sleeve::fragment::Fragments;
use crate::sleeve::icmp;
use crate::sleeve::wire::FRAME_HEADER_BYTES;
use crate::sleeve::wire::sender;
use crate::topology;
use crate::topology::Topology;
use crate::types::PeerName;
use crate::types::PeerUid;
use crate::wire::Phase;
use crate::wire::Wire;
use crate::wire::WireConfig;
use crate::wire::WireEvent;
use std::net::Ipv4Addr;
use std::net::SocketAddrV4;
use std::sync::Arc;

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

/// Merges `data` into a small topology, twice, and sends the result on.
pub fn fuzz_topology(data: &[u8]) {
    let name = PeerName::from_bytes([0, 0, 0, 0, 0, 1]);
    let rng = fastrand::Rng::with_seed(1);
    let mut topology = Topology::new(name, "h1", PeerUid(1), None, rng);
    let before = topology.encode(topology.names());
    let Ok(merged) = topology.merge(data) else {
        assert_eq!(
            topology.encode(topology.names()),
            before,
            "an error changes nothing"
        );
        return;
    };
    assert!(merged.improved.is_subset(&merged.named));
    let version = topology.peer(name).map(|peer| peer.version);
    let again = topology.merge(data);
    assert!(again.is_ok_and(|again| again.improved.is_empty()));
    assert_eq!(topology.peer(name).map(|peer| peer.version), version);
    let peers = topology::decode_update(&topology.encode(topology.names()));
    assert!(peers.is_ok_and(|peers| peers.iter().eq(topology.peers())));
    let _ = crate::routes::Routes::calculate(&topology).broadcast(name);
    topology.collect_garbage();
    assert!(topology.peer(name).is_some());
}

/// A gob stream, all of whose values are skipped.
pub fn fuzz_gob(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    while let Ok(Some(value)) = decoder.next_value() {
        if Value::skip(value).is_err() {
            break;
        }
    }
}

/// A stream of features.
pub fn fuzz_features(data: &[u8]) {
    if let Ok(features) = Features::decode(data) {
        assert_eq!(Features::decode(&features.encode()), Ok(features));
    }
}

/// A protocol message, on links of both kinds.
pub fn fuzz_message(data: &[u8]) {
    for mode in [OverlayMode::Legacy, OverlayMode::Switched { common: 2 }] {
        if let Ok(message) = Message::decode(data, mode) {
            assert_eq!(Message::decode(&message.encode(), mode), Ok(message));
        }
    }
}

/// All that comes over a connection. The first byte chooses version, password and the sizes in
/// which the rest arrives.
pub fn fuzz_wire(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let mut wire = end(1, choice);
    feed(&mut wire, data, choice);
}

/// What comes over a connection whose ends are introduced; the first byte as for [`fuzz_wire`].
/// If the connection is encrypted, it is one message from the other end; else it is anything.
pub fn fuzz_wire_introduced(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let (mut wire, mut other) = (end(1, choice), end(2, choice));
    introduce(&mut wire, &mut other);
    assert_eq!(wire.phase(), Phase::Introduced);
    if choice & ENCRYPTED == 0 {
        feed(&mut wire, data, choice);
    } else if other.send(data).is_ok() {
        while let Some(bytes) = other.poll_transmit() {
            feed(&mut wire, &bytes, choice);
        }
        assert_eq!(wire.phase(), Phase::Introduced);
    }
}

/// Bits of the choice; the bits above them are the size of the pieces.
const VERSION_1: u8 = 1;
const ENCRYPTED: u8 = 2;
const PIECE_SHIFT: u32 = 2;

/// The end with this number of a connection; end 1 dialled.
fn end(number: u8, choice: u8) -> Wire {
    let features = Features {
        name: PeerName::from_bytes([number; 6]),
        uid: PeerUid(u64::from(number)),
        ..Features::default()
    };
    let password: Option<Arc<[u8]>> = (choice & ENCRYPTED != 0).then(|| b"secret"[..].into());
    let mut config = WireConfig::new(features, password);
    if choice & VERSION_1 != 0 {
        config.max_version = 1;
    }
    Wire::new(config, number == 1, PrivateKey::from_bytes([number; 32]))
}

/// Exchanges all that both ends have to send.
fn introduce(a: &mut Wire, b: &mut Wire) {
    loop {
        let (to_b, to_a) = (a.poll_transmit(), b.poll_transmit());
        if to_b.is_none() && to_a.is_none() {
            return;
        }
        let to_b = b.handle_bytes(&to_b.unwrap_or_default());
        let to_a = a.handle_bytes(&to_a.unwrap_or_default());
        assert_eq!((to_a, to_b), (Ok(()), Ok(())));
    }
}

fn feed(wire: &mut Wire, data: &[u8], choice: u8) {
    let piece = usize::from(choice >> PIECE_SHIFT) + 1;
    for piece in data.chunks(piece) {
        if wire.handle_bytes(piece).is_err() {
            assert_eq!(wire.phase(), Phase::Failed);
        }
        while let Some(event) = wire.poll_event() {
            if let WireEvent::Message(message) = event {
                fuzz_message(&message);
            }
        }
        assert!(wire.buffered() <= data.len());
    }
}
