//! Frames for tests.

use proto::ethernet::Frame;
use proto::offload::checksum;
use proto::offload::vnet::{FLAG_NEEDS_CSUM, GSO_TCPV4, VnetHeader};
use proto::types::Mac;

/// Where the network header starts.
pub(super) const NETWORK: usize = 14;
const TRANSPORT: usize = NETWORK + 20;

/// Returns the address of a container on a router.
pub(super) fn mac(number: usize) -> Mac {
    Mac::from_bytes([2, 0, 0, 0, 1, number as u8])
}

pub(super) fn ethernet(src: Mac, dst: Mac, rest: &[u8]) -> Vec<u8> {
    [dst.as_bytes(), src.as_bytes(), &[0x88, 0xb5][..], rest].concat()
}

/// Returns an IPv4 packet in a frame.
pub(super) fn ipv4(src: Mac, dst: Mac, (protocol, flags): (u8, u8), segment: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + segment.len() as u16).to_be_bytes();
    let mut header = [
        0x45, 0, high, low, 0, 1, flags, 0, 64, protocol, 0, 0, 10, 7, 0, 1, 10, 7, 0, 2,
    ];
    checksum::fill_ipv4(&mut header);
    let head = [dst.as_bytes(), src.as_bytes(), &[0x08, 0x00][..]].concat();
    [&head[..], &header, segment].concat()
}

/// Returns a UDP datagram; without `df` it may be fragmented.
pub(super) fn udp(src: Mac, dst: Mac, payload: &[u8], df: bool) -> Vec<u8> {
    let [high, low] = (8 + payload.len() as u16).to_be_bytes();
    let header = [0x10, 0, 0x20, 0, high, low, 0, 0];
    let flags = if df { 0x40 } else { 0 };
    let mut frame = ipv4(src, dst, (17, flags), &[&header[..], payload].concat());
    close(&mut frame);
    frame
}

/// Returns a TCP segment with DF; its flags are those that Linux sets on data.
pub(super) fn tcp(src: Mac, dst: Mac, payload: &[u8]) -> Vec<u8> {
    let mut header = [0; 20];
    header[..4].copy_from_slice(&[0x10, 0, 0x20, 0]);
    header[7] = 1;
    header[12..14].copy_from_slice(&[0x50, 0x18]);
    let mut frame = ipv4(src, dst, (6, 0x40), &[&header[..], payload].concat());
    close(&mut frame);
    frame
}

/// Returns a TCP super-frame with its payload.
pub(super) fn super_frame(
    src: Mac,
    dst: Mac,
    bytes: usize,
    gso_size: u16,
) -> (VnetHeader, Vec<u8>, Vec<u8>) {
    let payload: Vec<u8> = (0..bytes).map(|n| (n * 7 / 3) as u8).collect();
    let (open, frame) = with_open_checksum(&tcp(src, dst, &payload));
    let header = VnetHeader {
        gso_type: GSO_TCPV4,
        header_len: (TRANSPORT + 20) as u16,
        gso_size,
        ..open
    };
    (header, frame, payload)
}

/// Returns the payload of a TCP segment whose IP header is right.
pub(super) fn tcp_payload(frame: &[u8]) -> &[u8] {
    let layout = Frame::parse(frame).unwrap().layout().unwrap();
    &frame[layout.payload..layout.end]
}

/// Fills in the checksum of a TCP segment or UDP datagram.
fn close(frame: &mut [u8]) {
    let (header, open) = with_open_checksum(frame);
    frame.copy_from_slice(&completed(&header, &open));
}

/// Creates the frame with the sum of its pseudo header in place of its checksum, as devices leave
/// it.
pub(super) fn with_open_checksum(frame: &[u8]) -> (VnetHeader, Vec<u8>) {
    let mut frame = frame.to_vec();
    let layout = Frame::parse(&frame).unwrap().layout().unwrap();
    let offset = layout.protocol.checksum_offset();
    let mut sum = u32::from(layout.protocol.number()) + (layout.end - layout.transport) as u32;
    for pair in frame[NETWORK + 12..NETWORK + 20].chunks(2) {
        sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
    }
    let folded = ((sum >> 16) + (sum & 0xffff)) as u16;
    let at = layout.transport + offset;
    frame[at..at + 2].copy_from_slice(&folded.to_be_bytes());
    let header = VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        csum_start: layout.transport as u16,
        csum_offset: offset as u16,
        ..VnetHeader::PLAIN
    };
    (header, frame)
}

/// Returns the frame with its checksum as the receiver of a device's frame would complete it.
pub(super) fn completed(header: &VnetHeader, frame: &[u8]) -> Vec<u8> {
    let mut frame = frame.to_vec();
    if header.needs_csum() {
        let place = (header.csum_start.into(), header.csum_offset.into());
        checksum::complete(&mut frame, place.0, place.1).unwrap();
    }
    frame
}
