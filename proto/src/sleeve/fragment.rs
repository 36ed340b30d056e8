//! Fragmenting IPv4 packets to fit a link, as a router on the path would.

use crate::ethernet::{ETHERTYPE_IPV4, Frame, IPV4_HEADER_BYTES};
use crate::offload::checksum;

/// Minimum length of a frame; shorter ones are padded with zeros, as in Weave Net.
pub const FRAME_BYTES_MIN: usize = 60;

/// Maximum size of an IPv4 packet, which fragments must not exceed.
const PACKET_BYTES_MAX: usize = 65535;
const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1fff;

/// Why a frame cannot be fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// The frame does not carry an IPv4 packet.
    #[error("frame carries no IPv4 packet")]
    NotIpv4,
    /// The packet's total length exceeds the frame.
    #[error("IPv4 packet announces {announced} bytes, frame has {got}")]
    Truncated {
        /// The total length in the header.
        announced: usize,
        /// The number of bytes left.
        got: usize,
    },
    /// The MTU leaves no room for 8 bytes behind the header.
    #[error("MTU {0} leaves no room behind the IPv4 header")]
    MtuTooSmall(usize),
    /// The packet is a fragment that ends beyond the maximum packet size.
    #[error("fragment ends beyond the largest IPv4 packet")]
    BeyondEnd,
}

/// The fragments of one packet. They are written one by one into space that the caller has
/// reserved.
#[derive(Clone, Debug)]
pub struct Fragments<'a> {
    /// Ethernet and IP header.
    headers: &'a [u8],
    network: usize,
    payload: &'a [u8],
    /// Payload bytes of each fragment but the last: a multiple of 8.
    segment: usize,
    count: usize,
}

impl<'a> Fragments<'a> {
    /// Prepares fragments for a link whose frames have at most `mtu` bytes after the Ethernet
    /// header. A packet that fits becomes one fragment, unless rounding to 8 bytes makes two.
    ///
    /// Rule: `docs/protocol/sleeve.md#7-2-fragments`.
    pub fn new(frame: &'a [u8], mtu: usize) -> Result<Fragments<'a>, FragmentError> {
        let view = Frame::parse(frame).map_err(|_| FragmentError::NotIpv4)?;
        if view.ethertype() != ETHERTYPE_IPV4 {
            return Err(FragmentError::NotIpv4);
        }
        let ip = view.ipv4().ok_or(FragmentError::NotIpv4)?;
        if ip.is_truncated() {
            return Err(FragmentError::Truncated {
                announced: ip.total_len(),
                got: view.network().len(),
            });
        }
        let network = view.network_offset();
        let payload = ip.payload();
        let segment = mtu.saturating_sub(ip.header_len()) & !7;
        if segment == 0 {
            return Err(FragmentError::MtuTooSmall(mtu));
        }
        let offset = usize::from(ip.flags_and_offset() & OFFSET_MASK) * 8;
        if offset + payload.len() > PACKET_BYTES_MAX {
            return Err(FragmentError::BeyondEnd);
        }
        Ok(Fragments {
            headers: frame
                .get(..network + ip.header_len())
                .ok_or(FragmentError::NotIpv4)?,
            network,
            payload,
            segment,
            count: payload.len().div_ceil(segment).max(1),
        })
    }

    /// Returns the number of fragments; at least 1.
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns the length of the frame of fragment `index` in bytes, or 0 if there is no such
    /// fragment.
    pub fn frame_len(&self, index: usize) -> usize {
        if index >= self.count {
            return 0;
        }
        (self.headers.len() + self.part(index).len()).max(FRAME_BYTES_MIN)
    }

    /// Writes the frame of fragment `index` to the start of `out` and returns its length in bytes.
    /// Returns 0 and writes nothing if there is no such fragment or no room.
    ///
    /// Format: `docs/protocol/sleeve.md#7-2-fragments`.
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.frame_len(index);
        let Some((headers, rest)) = out
            .get_mut(..len)
            .and_then(|out| out.split_at_mut_checked(self.headers.len()))
        else {
            return 0;
        };
        let part = self.part(index);
        let Some((payload, padding)) = rest.split_at_mut_checked(part.len()) else {
            return 0;
        };
        headers.copy_from_slice(self.headers);
        payload.copy_from_slice(part);
        padding.fill(0);

        let Some(ip) = headers.get_mut(self.network..) else {
            return 0;
        };
        if ip.len() < IPV4_HEADER_BYTES {
            return 0;
        }
        let total_len = (ip.len() + part.len()) as u16;
        // The position is a multiple of 8, and the sum below 2^13, as the packet ends in bounds.
        let mut flags = u16::from_be_bytes([ip[6], ip[7]]) + (index * self.segment / 8) as u16;
        if index + 1 != self.count {
            flags |= MORE_FRAGMENTS;
        }
        ip[2..4].copy_from_slice(&total_len.to_be_bytes());
        ip[6..8].copy_from_slice(&flags.to_be_bytes());
        checksum::fill_ipv4(ip);
        len
    }

    fn part(&self, index: usize) -> &'a [u8] {
        let start = index.saturating_mul(self.segment);
        let rest = self.payload.get(start..).unwrap_or_default();
        rest.get(..self.segment).unwrap_or(rest)
    }
}

#[cfg(test)]
mod tests;
