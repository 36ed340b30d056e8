//! The internet checksum (RFC 1071): the complement of the ones' complement sum of 16-bit words.
//!
//! Sums are kept unfolded in 64 bits and in the byte order of the machine: the sum of swapped
//! words is the swapped sum, so only the result is put into network order.

use crate::ethernet::{IPV4_HEADER_BYTES, Ip, Layout, Protocol};

/// A ones' complement sum.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// Returns the sum of `data`. An odd last byte counts as the high half of a word, so only the
    /// last piece of a message may be odd.
    #[inline]
    pub fn of(data: &[u8]) -> Sum {
        Sum(sum(data))
    }

    /// Returns both sums together.
    #[inline]
    pub const fn plus(self, other: Sum) -> Sum {
        // Folding to 34 bits keeps room for 2^30 additions.
        Sum(self.0 + (other.0 >> 32) + (other.0 & 0xffff_ffff))
    }

    /// This sum and one more 16-bit word.
    #[inline]
    pub const fn plus_u16(self, word: u16) -> Sum {
        Sum(self.0 + word.to_be() as u64)
    }

    /// This sum and two more 16-bit words.
    #[inline]
    pub const fn plus_u32(self, words: u32) -> Sum {
        Sum(self.0 + words.to_be() as u64)
    }

    /// Returns the sum in 16 bits, in network order as a number: what a partial checksum field
    /// holds.
    #[inline]
    pub const fn fold(self) -> u16 {
        let mut sum = self.0;
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 32) + (sum & 0xffff_ffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        sum = (sum >> 16) + (sum & 0xffff);
        u16::from_be(sum as u16)
    }

    /// Returns the checksum: the complement of the sum.
    #[inline]
    pub const fn finish(self) -> u16 {
        !self.fold()
    }

    /// Returns the checksum as UDP sends it: never zero, which would mean "none".
    #[inline]
    pub const fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            checksum => checksum,
        }
    }
}

/// Returns the checksum of `data`.
#[inline]
pub fn checksum(data: &[u8]) -> u16 {
    Sum::of(data).finish()
}

/// Returns the sum of the pseudo header: addresses, protocol and length of the transport part.
/// `network` starts with the IP header.
#[inline]
pub fn pseudo_header(ip: Ip, network: &[u8], protocol: u8, len: usize) -> Sum {
    let addresses = match ip {
        Ip::V4 => network.get(12..20),
        Ip::V6 => network.get(8..40),
    };
    Sum::of(addresses.unwrap_or_default())
        .plus_u32(len as u32)
        .plus_u16(protocol.into())
}

/// Completes a partial checksum: sums `frame` from `start`, including the partial sum in the field
/// at `start + offset`, and stores the complement there. Returns `None` and changes nothing if the
/// field lies outside of the frame.
#[inline]
pub fn complete(frame: &mut [u8], start: usize, offset: usize) -> Option<()> {
    let part = frame.get_mut(start..)?;
    // Zero is sent as all ones: the same number, and for UDP the only way to say it.
    let checksum = Sum::of(part).finish_udp();
    let field = part.get_mut(offset..)?.first_chunk_mut::<2>()?;
    *field = checksum.to_be_bytes();
    Some(())
}

/// Returns true if the checksums of a TCP segment or UDP datagram are right, for IPv4 including
/// that of the IP header. Returns false for a UDP datagram without a checksum.
#[inline]
pub fn verify(frame: &[u8], layout: &Layout) -> bool {
    let (Some(network), Some(segment)) = (
        frame.get(layout.network..layout.transport),
        frame.get(layout.transport..layout.end),
    ) else {
        return false;
    };
    if layout.ip == Ip::V4 && Sum::of(network).fold() != 0xffff {
        return false;
    }
    if layout.protocol == Protocol::Udp && segment.get(6..8) == Some(&[0, 0]) {
        return false;
    }
    let protocol = layout.protocol.number();
    let pseudo = pseudo_header(layout.ip, network, protocol, segment.len());
    pseudo.plus(Sum::of(segment)).fold() == 0xffff
}

/// Returns the checksum after one 16-bit word under it changed from `old` to `new` (RFC 1624).
#[inline]
pub const fn update(checksum: u16, old: u16, new: u16) -> u16 {
    let sum = !checksum as u32 + !old as u32 + new as u32;
    let sum = (sum >> 16) + (sum & 0xffff);
    !((sum >> 16) + (sum & 0xffff)) as u16
}

/// Fills in the checksum of the IPv4 header at the start of `header`, options included.
#[inline]
pub fn fill_ipv4(header: &mut [u8]) {
    if header.len() < IPV4_HEADER_BYTES {
        return;
    }
    header[10..12].fill(0);
    let checksum = checksum(header);
    header[10..12].copy_from_slice(&checksum.to_be_bytes());
}

/// Adds up 32-bit words in independent lanes, which the compiler turns into vector additions.
#[inline]
fn sum(data: &[u8]) -> u64 {
    const LANES: usize = 16;
    let (blocks, rest) = data.as_chunks::<{ 4 * LANES }>();
    let mut lanes = [0u64; LANES];
    for block in blocks {
        let (words, _) = block.as_chunks::<4>();
        for (lane, word) in lanes.iter_mut().zip(words) {
            *lane += u64::from(u32::from_ne_bytes(*word));
        }
    }
    let mut total = lanes.iter().sum::<u64>();
    let (words, tail) = rest.as_chunks::<4>();
    for word in words {
        total += u64::from(u32::from_ne_bytes(*word));
    }
    let mut last = [0; 4];
    last[..tail.len()].copy_from_slice(tail);
    total + u64::from(u32::from_ne_bytes(last))
}

#[cfg(test)]
mod tests;
