//! Seeds for frames, super-frames and sleeve packets.

use proto::offload::split::Split;
use proto::offload::vnet::{FLAG_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4, VnetHeader};

use super::{bytes, list, load};

/// Size of an Ethernet header and an IPv4 header without options in bytes.
const HEADERS_BYTES: usize = 34;
/// Size in bytes of the sender name in a packet.
const NAME_BYTES: usize = 6;

/// Recorded frames: of each kind that is told apart, and those that are fragmented.
pub(crate) fn ethernet() -> Vec<Vec<u8>> {
    let vectors = load("sleeve.json");
    let kinds = list(&vectors, "frame_classification").iter();
    let large = list(&vectors, "ip_fragmentation").iter();
    kinds
        .chain(large)
        .map(|case| bytes(case, "frame"))
        .collect()
}

/// Frames behind the MTU that they are too large for.
pub(crate) fn fragment() -> Vec<Vec<u8>> {
    let vectors = load("sleeve.json");
    let cases = list(&vectors, "ip_fragmentation").iter();
    let cases = cases.chain(list(&vectors, "icmp_frag_needed"));
    cases
        .map(|case| {
            let mtu = u16::try_from(case["mtu"].as_u64().unwrap()).unwrap();
            [&mtu.to_be_bytes(), &bytes(case, "frame")[..]].concat()
        })
        .collect()
}

/// Packets, and their frames alone as in a packet that is sealed.
pub(crate) fn sleeve() -> Vec<Vec<u8>> {
    let vectors = load("sleeve.json");
    let mut found = Vec::new();
    for packet in list(&vectors, "packets") {
        if packet["udp_payload"]["hex"].is_string() {
            let payload = bytes(&packet["udp_payload"], "hex");
            if packet["encrypted"] == false {
                found.push(payload[NAME_BYTES..].to_vec());
            }
            found.push(payload);
        }
    }
    for packet in list(&vectors, "plain_decode") {
        found.push(bytes(packet, "after_name"));
    }
    found
}

/// Super-frames of TCP and of UDP with the headers of recorded frames, behind the header that says
/// how they are cut.
pub(crate) fn super_frames() -> Vec<(VnetHeader, Vec<u8>)> {
    let header = |gso_type, gso_size, csum_offset| VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type,
        header_len: 0,
        gso_size,
        csum_start: 34,
        csum_offset,
    };
    // Ports, number, acknowledgement, 20 bytes long, acknowledged and pushed, window.
    let tcp = [
        &[31, 144, 0, 80, 0, 0, 16, 0, 0, 0, 0, 1, 0x50, 0x18, 1, 0][..],
        &[0; 4],
    ]
    .concat();
    let payload: Vec<u8> = (0..1000_u16).map(|n| n.to_le_bytes()[0]).collect();
    let udp_len = u16::try_from(8 + payload.len()).unwrap().to_be_bytes();
    let udp = [&[31, 144, 0, 53][..], &udp_len, &[0; 2]].concat();
    let recorded = ethernet();
    let recorded = recorded.iter().find(|frame| frame.len() > 1000).unwrap();
    let build = |protocol: u8, transport: &[u8]| {
        let mut frame = [&recorded[..HEADERS_BYTES], transport, &payload].concat();
        let ip_len = u16::try_from(frame.len() - 14).unwrap();
        frame[16..18].copy_from_slice(&ip_len.to_be_bytes());
        // Neither an identity nor a fragment.
        frame[18..22].fill(0);
        frame[23] = protocol;
        frame
    };
    vec![
        (header(GSO_TCPV4, 400, 16), build(6, &tcp)),
        (header(GSO_TCPV4, 100, 16), build(6, &tcp)),
        (header(GSO_UDP_L4, 300, 6), build(17, &udp)),
    ]
}

pub(crate) fn split() -> Vec<Vec<u8>> {
    let supers = super_frames().into_iter();
    let mut found: Vec<Vec<u8>> = supers
        .map(|(header, frame)| [&header.encode(), &frame[..]].concat())
        .collect();
    // One that is not cut, but whose checksum is open.
    let (_, frame) = &super_frames()[2];
    let open = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: 34,
        csum_offset: 6,
        ..VnetHeader::PLAIN
    };
    found.push([&open.encode(), &frame[..]].concat());
    found
}

/// Returns what the super-frames are cut into, each segment behind its length, and recorded frames
/// that do not belong together.
pub(crate) fn join() -> Vec<Vec<u8>> {
    let behind_len = |frame: &[u8]| {
        let len = u16::try_from(frame.len()).unwrap();
        [&len.to_be_bytes(), frame].concat()
    };
    let mut found = Vec::new();
    for (header, frame) in super_frames() {
        let split = Split::new(header, &frame).unwrap();
        let mut segments = Vec::new();
        for index in 0..split.segments() {
            let mut segment = vec![0; split.segment_len(index)];
            split.write_segment(index, &mut segment);
            segments.push(behind_len(&segment));
        }
        assert!(segments.len() > 2, "{} segments", segments.len());
        found.push(segments.concat());
        segments.swap(0, 1);
        found.push(segments.concat());
    }
    let recorded = ethernet();
    let small: Vec<Vec<u8>> = recorded
        .iter()
        .filter(|f| f.len() < 200)
        .map(|f| behind_len(f))
        .collect();
    found.push(small.concat());
    found
}
