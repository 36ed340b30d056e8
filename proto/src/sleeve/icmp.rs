//! ICMP answers to packets that do not fit a link and must not be fragmented.
//!
//! ```text
//! Ethernet   the frame's, addresses swapped, tags kept
//! IPv4       TOS of the packet, id 0, no flags, TTL 64, addresses swapped
//!  0 type 3, code 4   2 checksum   4 zero (2)   6 MTU (2)
//!  8 the packet's IP header with options and 8 bytes behind it
//!
//! IPv6       traffic class 0, hop limit 64, addresses swapped
//!  0 type 2, code 0   2 checksum   4 MTU (4)
//!  8 the packet, as much of it as leaves the answer within 1280 bytes
//! ```

use crate::ethernet::{
    ETHERTYPE_IPV4, ETHERTYPE_IPV6, Frame, HEADER_BYTES, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Ip,
    Ipv4, Ipv6, PROTOCOL_ICMP, PROTOCOL_ICMPV6, TAG_BYTES, TAGS_MAX,
};
use crate::offload::checksum::{self, Sum};

/// The largest answer that [`too_big`] makes.
pub const ANSWER_BYTES_MAX: usize = HEADER_BYTES + TAGS_MAX * TAG_BYTES + IPV6_MTU_MIN;
/// The smallest MTU that a link may have under IPv6; sources ignore smaller ones.
pub const IPV6_MTU_MIN: usize = 1280;

const ICMP_BYTES: usize = 8;
const TTL: u8 = 64;

/// Writes the answer to `frame`, which does not fit a link with this `mtu`, to the start of `out`:
/// "fragmentation needed" for IPv4, "packet too big" for IPv6. Returns its length in bytes, or
/// `None` if such a frame is not answered or there is no room ([`ANSWER_BYTES_MAX`] bytes always
/// suffice).
///
/// Format: `docs/protocol/sleeve.md#7-1-icmp`.
pub fn too_big(frame: &[u8], mtu: usize, out: &mut [u8]) -> Option<usize> {
    let view = Frame::parse(frame).ok()?;
    let headers = frame.get(..view.network_offset())?;
    let (link, network) = out.split_at_mut_checked(headers.len())?;
    let written = match view.ethertype() {
        ETHERTYPE_IPV4 => fragmentation_needed(&view.ipv4()?, mtu, network)?,
        ETHERTYPE_IPV6 => packet_too_big(&view.ipv6()?, view.network(), mtu, network)?,
        _ => return None,
    };
    link.copy_from_slice(headers);
    link[..6].copy_from_slice(view.source().as_bytes());
    link[6..12].copy_from_slice(view.destination().as_bytes());
    Some(headers.len() + written)
}

fn fragmentation_needed(ip: &Ipv4<'_>, mtu: usize, out: &mut [u8]) -> Option<usize> {
    let header = ip.header();
    let payload = ip.payload();
    let payload = payload.get(..8).unwrap_or(payload);
    let total_len = IPV4_HEADER_BYTES + ICMP_BYTES + header.len() + payload.len();
    let (answer, icmp) = out
        .get_mut(..total_len)?
        .split_at_mut_checked(IPV4_HEADER_BYTES)?;

    answer.fill(0);
    answer[0] = 0x45;
    answer[1] = ip.tos();
    answer[2..4].copy_from_slice(&(total_len as u16).to_be_bytes());
    answer[8] = TTL;
    answer[9] = PROTOCOL_ICMP;
    answer[12..16].copy_from_slice(&ip.destination());
    answer[16..20].copy_from_slice(&ip.source());
    checksum::fill_ipv4(answer);

    let mtu = u16::try_from(mtu).unwrap_or(u16::MAX);
    icmp[..6].copy_from_slice(&[3, 4, 0, 0, 0, 0]);
    icmp[6..8].copy_from_slice(&mtu.to_be_bytes());
    let (quoted, behind) = icmp[ICMP_BYTES..].split_at_mut_checked(header.len())?;
    quoted.copy_from_slice(header);
    behind.copy_from_slice(payload);
    let checksum = checksum::checksum(icmp);
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(total_len)
}

fn packet_too_big(ip: &Ipv6<'_>, packet: &[u8], mtu: usize, out: &mut [u8]) -> Option<usize> {
    let (source, destination) = (ip.source(), ip.destination());
    // The answer must have a unicast source and destination (RFC 4443, 2.2 and 2.4), and
    // errors are not answered.
    let is_unicast = |address: &[u8; 16]| address[0] != 0xff && *address != [0; 16];
    let is_error =
        ip.protocol() == PROTOCOL_ICMPV6 && ip.payload().first().is_none_or(|kind| *kind < 128);
    if !is_unicast(&source) || !is_unicast(&destination) || is_error {
        return None;
    }
    let packet = packet.get(..ip.total_len()).unwrap_or(packet);
    let room = IPV6_MTU_MIN - IPV6_HEADER_BYTES - ICMP_BYTES;
    let quoted = packet.get(..room).unwrap_or(packet);
    let icmp_len = ICMP_BYTES + quoted.len();
    let total_len = IPV6_HEADER_BYTES + icmp_len;
    let (answer, icmp) = out
        .get_mut(..total_len)?
        .split_at_mut_checked(IPV6_HEADER_BYTES)?;

    answer[..4].copy_from_slice(&[0x60, 0, 0, 0]);
    answer[4..6].copy_from_slice(&(icmp_len as u16).to_be_bytes());
    answer[6] = PROTOCOL_ICMPV6;
    answer[7] = TTL;
    answer[8..24].copy_from_slice(&destination);
    answer[24..40].copy_from_slice(&source);

    icmp[..4].copy_from_slice(&[2, 0, 0, 0]);
    icmp[4..8].copy_from_slice(&u32::try_from(mtu).unwrap_or(u32::MAX).to_be_bytes());
    icmp[ICMP_BYTES..].copy_from_slice(quoted);
    let checksum = checksum::pseudo_header(Ip::V6, answer, PROTOCOL_ICMPV6, icmp_len)
        .plus(Sum::of(icmp))
        .finish();
    icmp[2..4].copy_from_slice(&checksum.to_be_bytes());
    Some(total_len)
}

#[cfg(test)]
mod tests;
