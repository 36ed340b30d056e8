//! Splitting a super-frame into the segments that it represents.
//!
//! ```text
//! super-frame  | Ethernet, tags | IP, options | TCP, options or UDP | payload ............... |
//! segment 0    | the same       | length, id  | sequence, flags     | gso_size bytes |
//! segment 1    | the same       | length, id+1| sequence + gso_size | gso_size bytes |
//! last         |                |             | PSH and FIN         | what is left   |
//! ```
//!
//! The caller asks for the number of segments and the length of each, reserves exactly that space
//! where the segment will be sent from, and has it written there: one copy of the payload
//! ([`Split::write_segment`]), with its checksum computed while the copy is in the cache.
//! [`Split::write_chunk`] writes the same bytes without checksums, for a carrier that authenticates
//! them otherwise and whose receiver fills them in. [`Split::write_headers`] and [`Split::payload`]
//! serve a carrier with gathering writes.

use super::checksum::{self, Sum};
use super::header::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader};
use crate::ethernet::{Frame, Ip, Layout, Protocol};

/// Maximum number of segments of one super-frame. 64 KiB at the smallest segment size that Linux
/// accepts (48 bytes) are 1366; a frame that claims more is refused.
pub const SPLIT_SEGMENTS_MAX: usize = 2048;

/// TCP flags of segments that stay whole: a connection's start or end by force, urgent data.
const TCP_SYN_RST_URG: u8 = 0x02 | 0x04 | 0x20;
/// Payload of the smallest segments that a TCP super-frame is cut into for a smaller link.
const CUT_PAYLOAD_MIN: usize = 64;
/// TCP flag: no more data follows.
pub(crate) const TCP_FIN: u8 = 0x01;
/// TCP flag: hand over what has arrived.
pub(crate) const TCP_PSH: u8 = 0x08;
/// TCP flag: congestion window reduced.
pub(crate) const TCP_CWR: u8 = 0x80;

/// Why a frame does not match the super-frame that its vnet header announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SplitError {
    /// The segmentation type was not agreed on with the device.
    #[error("unknown segmentation type {0:#04x}")]
    UnknownType(u8),
    /// The frame is no whole TCP or UDP packet, or not of the announced kind.
    #[error("frame is no packet of segmentation type {0:#04x}")]
    OtherPacket(u8),
    /// The checksummed part does not start at the TCP or UDP header.
    #[error("checksum starts at {announced}, transport header at {found}")]
    ChecksumStart {
        /// What the vnet header says.
        announced: u16,
        /// Where the header is.
        found: usize,
    },
    /// The segment size is zero, or there would be more than [`SPLIT_SEGMENTS_MAX`] segments.
    #[error("payload of {payload} bytes cannot be cut into segments of {gso_size}")]
    SegmentSize {
        /// Bytes of payload in the frame.
        payload: usize,
        /// The announced segment size.
        gso_size: u16,
    },
}

/// A super-frame that was checked and can be split.
#[derive(Clone, Debug)]
pub struct Split<'a> {
    frame: &'a [u8],
    layout: Layout,
    gso_size: usize,
    segments: usize,
    /// Sum of the IPv4 header without total length, id and checksum.
    network_sum: Sum,
    /// Sum of pseudo header and transport header without lengths, sequence number, flags and
    /// checksum.
    transport_sum: Sum,
}

impl<'a> Split<'a> {
    /// Checks a super-frame against its vnet header.
    pub fn new(header: VnetHeader, frame: &'a [u8]) -> Result<Split<'a>, SplitError> {
        let gso_type = header.gso_type;
        let other = SplitError::OtherPacket(gso_type);
        let layout = Frame::parse(frame)
            .ok()
            .and_then(|frame| frame.layout())
            .ok_or(other)?;
        let fits = match gso_type & !GSO_ECN {
            GSO_TCPV4 => (layout.ip, layout.protocol) == (Ip::V4, Protocol::Tcp),
            GSO_TCPV6 => (layout.ip, layout.protocol) == (Ip::V6, Protocol::Tcp),
            GSO_UDP_L4 => layout.protocol == Protocol::Udp,
            _ => return Err(SplitError::UnknownType(gso_type)),
        };
        if !fits {
            return Err(other);
        }
        if header.needs_csum() && usize::from(header.csum_start) != layout.transport {
            return Err(SplitError::ChecksumStart {
                announced: header.csum_start,
                found: layout.transport,
            });
        }
        let payload = layout.end - layout.payload;
        let gso_size = usize::from(header.gso_size);
        // Even an empty payload is one segment.
        let segments = payload.div_ceil(gso_size.max(1)).max(1);
        if gso_size == 0 || segments > SPLIT_SEGMENTS_MAX {
            return Err(SplitError::SegmentSize {
                payload,
                gso_size: header.gso_size,
            });
        }
        let mut split = Split {
            frame,
            layout,
            gso_size,
            segments,
            network_sum: Sum::ZERO,
            transport_sum: Sum::ZERO,
        };
        split.prepare_sums();
        Ok(split)
    }

    /// Returns the whole super-frame.
    pub const fn frame(&self) -> &'a [u8] {
        self.frame
    }

    /// Returns the offsets of its parts; the headers of each segment have the same offsets.
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Number of payload bytes of each segment except the last.
    pub const fn gso_size(&self) -> usize {
        self.gso_size
    }

    /// The same TCP super-frame in smaller segments, none of which has more than `frame_len` bytes
    /// with its headers. None if its segments are not larger, or cannot be cut.
    ///
    /// TCP carries a stream, so its receiver takes the bytes however they are cut.
    pub fn cut_to(&self, frame_len: usize) -> Option<Split<'a>> {
        let flags = self.frame.get(self.layout.transport + 13)?;
        if self.layout.protocol != Protocol::Tcp || flags & TCP_SYN_RST_URG != 0 {
            return None;
        }
        let gso_size = frame_len.checked_sub(self.headers_len())?;
        let payload = self.layout.end - self.layout.payload;
        let segments = payload.div_ceil(gso_size.max(1));
        let is_smaller = gso_size < self.gso_size && payload > gso_size;
        if gso_size < CUT_PAYLOAD_MIN || !is_smaller || segments > SPLIT_SEGMENTS_MAX {
            return None;
        }
        Some(Split {
            gso_size,
            segments,
            ..self.clone()
        })
    }

    /// Returns how many segments there are: at least 1, at most [`SPLIT_SEGMENTS_MAX`].
    pub const fn segments(&self) -> usize {
        self.segments
    }

    /// Returns the length of the headers of each segment, in bytes.
    pub const fn headers_len(&self) -> usize {
        self.layout.payload
    }

    /// Returns the length of segment `index` with its headers in bytes, or 0 if there is no such
    /// segment. Only the last one is shorter than the others.
    #[inline]
    pub fn segment_len(&self, index: usize) -> usize {
        if index >= self.segments {
            return 0;
        }
        self.headers_len() + self.payload(index).len()
    }

    /// Returns the payload of segment `index`; empty if there is no such segment.
    #[inline]
    pub fn payload(&self, index: usize) -> &'a [u8] {
        let whole = self
            .frame
            .get(self.layout.payload..self.layout.end)
            .unwrap_or_default();
        let start = index.saturating_mul(self.gso_size);
        let rest = whole.get(start..).unwrap_or_default();
        rest.get(..self.gso_size).unwrap_or(rest)
    }

    /// Writes segment `index` to the start of `out` as a complete frame with all checksums, and
    /// returns its length in bytes. Returns 0 and writes nothing if there is no such segment or no
    /// room.
    #[inline]
    pub fn write_segment(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.segment_len(index);
        let Some(out) = out.get_mut(..len) else {
            return 0;
        };
        let Some((headers, payload)) = out.split_at_mut_checked(self.headers_len()) else {
            return 0;
        };
        payload.copy_from_slice(self.payload(index));
        let sum = Sum::of(payload);
        self.fill_headers(index, headers, Some(sum));
        len
    }

    /// Writes segment `index` like [`Split::write_segment`], but leaves the checksums of the IPv4
    /// and of the transport header as they are in the super-frame.
    #[inline]
    pub fn write_chunk(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.segment_len(index);
        let Some(out) = out.get_mut(..len) else {
            return 0;
        };
        let Some((headers, payload)) = out.split_at_mut_checked(self.headers_len()) else {
            return 0;
        };
        payload.copy_from_slice(self.payload(index));
        self.fill_headers(index, headers, None);
        len
    }

    /// Writes only the headers of segment `index`, with checksums over the payload, which stays
    /// where it is. Returns [`Split::headers_len`], or 0 and writes nothing if there is no such
    /// segment or no room.
    #[inline]
    pub fn write_headers(&self, index: usize, out: &mut [u8]) -> usize {
        let len = self.headers_len();
        let (true, Some(headers)) = (index < self.segments, out.get_mut(..len)) else {
            return 0;
        };
        self.fill_headers(index, headers, Some(Sum::of(self.payload(index))));
        len
    }

    fn prepare_sums(&mut self) {
        let Layout {
            ip,
            protocol,
            network,
            transport,
            payload,
            ..
        } = self.layout;
        let (Some(ip_header), Some(header)) = (
            self.frame.get(network..transport),
            self.frame.get(transport..payload),
        ) else {
            return;
        };
        let without = |bytes: &[u8], holes: &[std::ops::Range<usize>]| {
            let mut at = 0;
            let mut sum = Sum::ZERO;
            for hole in holes {
                sum = sum.plus(Sum::of(bytes.get(at..hole.start).unwrap_or_default()));
                at = hole.end;
            }
            sum.plus(Sum::of(bytes.get(at..).unwrap_or_default()))
        };
        if ip == Ip::V4 {
            // Total length and id, checksum.
            self.network_sum = without(ip_header, &[2..6, 10..12]);
        }
        let holes: &[_] = match protocol {
            // Sequence number; data offset and flags; checksum.
            Protocol::Tcp => &[4..8, 12..14, 16..18],
            // Length and checksum.
            Protocol::Udp => std::slice::from_ref(&(4..8)),
        };
        self.transport_sum = without(header, holes).plus(checksum::pseudo_header(
            ip,
            ip_header,
            protocol.number(),
            0,
        ));
    }

    /// Writes the headers of segment `index`; `sum` is that of its payload, or None to leave the
    /// checksums alone. `out` has room for exactly the headers.
    #[inline]
    fn fill_headers(&self, index: usize, out: &mut [u8], sum: Option<Sum>) {
        let Layout {
            ip,
            protocol,
            network,
            transport,
            payload,
            ..
        } = self.layout;
        let Some(headers) = self.frame.get(..payload) else {
            return;
        };
        out.copy_from_slice(headers);
        let payload_len = self.payload(index).len();
        let segment_len = payload - transport + payload_len;
        let Some((ip_header, header)) = out
            .get_mut(network..)
            .and_then(|rest| rest.split_at_mut_checked(transport - network))
        else {
            return;
        };
        match ip {
            Ip::V4 => self.fill_ipv4(index, segment_len, ip_header, sum.is_some()),
            Ip::V6 => {
                // Extension headers count as payload of the IPv6 header.
                let len =
                    (ip_header.len() + segment_len - crate::ethernet::IPV6_HEADER_BYTES) as u16;
                ip_header[4..6].copy_from_slice(&len.to_be_bytes());
            }
        }
        match protocol {
            Protocol::Tcp => self.fill_tcp(index, segment_len, header, sum),
            Protocol::Udp => self.fill_udp(segment_len, header, sum),
        }
    }

    #[inline]
    fn fill_ipv4(&self, index: usize, segment_len: usize, header: &mut [u8], sum: bool) {
        let len = (header.len() + segment_len) as u16;
        let id = u16::from_be_bytes([header[4], header[5]]).wrapping_add(index as u16);
        header[2..4].copy_from_slice(&len.to_be_bytes());
        header[4..6].copy_from_slice(&id.to_be_bytes());
        if sum {
            let checksum = self.network_sum.plus_u16(len).plus_u16(id).finish();
            header[10..12].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[inline]
    fn fill_tcp(&self, index: usize, segment_len: usize, header: &mut [u8], sum: Option<Sum>) {
        let sequence = u32::from_be_bytes([header[4], header[5], header[6], header[7]])
            .wrapping_add((index * self.gso_size) as u32);
        let mut flags = header[13];
        if index + 1 != self.segments {
            flags &= !(TCP_FIN | TCP_PSH);
        }
        if index != 0 {
            flags &= !TCP_CWR;
        }
        header[4..8].copy_from_slice(&sequence.to_be_bytes());
        header[13] = flags;
        if let Some(sum) = sum {
            let checksum = self
                .transport_sum
                .plus_u32(segment_len as u32)
                .plus_u32(sequence)
                .plus_u16(u16::from_be_bytes([header[12], flags]))
                .plus(sum)
                .finish();
            header[16..18].copy_from_slice(&checksum.to_be_bytes());
        }
    }

    #[inline]
    fn fill_udp(&self, segment_len: usize, header: &mut [u8], sum: Option<Sum>) {
        let len = segment_len as u16;
        header[4..6].copy_from_slice(&len.to_be_bytes());
        if let Some(sum) = sum {
            // The length counts twice: in the pseudo header and in the UDP header.
            let checksum = self
                .transport_sum
                .plus_u16(len)
                .plus_u16(len)
                .plus(sum)
                .finish_udp();
            header[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
