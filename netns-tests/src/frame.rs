//! Frames that tests send and recognise.

use proto::types::Mac;

/// The ethertype that IEEE 802 reserves for experiments.
pub const EXPERIMENT: u16 = 0x88b5;
/// The destination of broadcasts.
pub const BROADCAST: Mac = Mac::from_bytes([0xff; 6]);
/// What every frame of a test carries.
const MARK: &[u8] = b"a frame of a test, number ";

/// Returns a frame of a test: addresses, any number of tags, the mark and a number, filled up to a
/// size.
pub fn build(to: Mac, from: Mac, tags: &[u16], number: u32, frame_bytes: usize) -> Vec<u8> {
    let mut frame = Vec::new();
    frame.extend_from_slice(to.as_bytes());
    frame.extend_from_slice(from.as_bytes());
    for tag in tags {
        frame.extend_from_slice(&[0x81, 0]);
        frame.extend_from_slice(&tag.to_be_bytes());
    }
    frame.extend_from_slice(&EXPERIMENT.to_be_bytes());
    frame.extend_from_slice(MARK);
    frame.extend_from_slice(&number.to_be_bytes());
    frame.resize(frame_bytes.max(frame.len()), 0xa5);
    frame
}

/// Returns the number of a frame that [`build`] made, from the end of its header.
pub fn number(frame: &[u8]) -> Option<u32> {
    let at = position(frame, MARK)? + MARK.len();
    Some(u32::from_be_bytes(*frame.get(at..)?.first_chunk()?))
}

/// Returns true if this is a frame that came from this interface.
pub fn is_from(frame: &[u8], mac: Mac) -> bool {
    frame.get(6..12) == Some(mac.as_bytes())
}

/// Returns where some bytes stand in others.
pub fn position(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|at| at == wanted)
}

/// Ports of a packet of this IP protocol, source and destination, if a frame holds one.
pub fn ports(frame: &[u8], protocol: u8) -> Option<[u16; 2]> {
    if frame.get(12..14)? != [8, 0] || *frame.get(23)? != protocol {
        return None;
    }
    let header = usize::from(frame.get(14)? & 15) * 4;
    let ports = frame.get(14 + header..18 + header)?;
    Some([
        u16::from_be_bytes([ports[0], ports[1]]),
        u16::from_be_bytes([ports[2], ports[3]]),
    ])
}

/// Returns the datagram between two routers that a frame holds, if it holds the beginning of one.
pub fn datagram(frame: &[u8]) -> Option<&[u8]> {
    if !ports(frame, UDP)?.contains(&6783) {
        return None;
    }
    let header = usize::from(frame.get(14)? & 15) * 4;
    frame.get(14 + header + UDP_HEADER_BYTES..)
}

/// Returns true if a frame is a packet of a sleeve link, which begins with its sender's name.
pub fn is_sleeve(frame: &[u8]) -> bool {
    datagram(frame).is_some_and(|datagram| !is_native_datagram(datagram))
}

/// Returns true if a frame is a datagram of a native link, which begins with the name of nobody.
pub fn is_native(frame: &[u8]) -> bool {
    datagram(frame).is_some_and(is_native_datagram)
}

fn is_native_datagram(datagram: &[u8]) -> bool {
    datagram.starts_with(&[0; 6])
}

const UDP_HEADER_BYTES: usize = 8;

/// The number of TCP.
pub const TCP: u8 = 6;
/// The number of UDP.
pub const UDP: u8 = 17;
