//! Cutting a super-frame into chunks. Each chunk is one datagram with all headers and a part of the
//! payload.
//!
//! ```text
//! super-frame   | headers | payload .......................................... |
//! chunk 0       | headers | payload |            as much as a datagram holds
//! chunk 1       | headers'          | payload |
//! last          | headers'                                    | payload | PSH, FIN
//! ```
//!
//! The headers are those of a frame with this part as its payload, so that a chunk whose neighbours
//! were lost is still a frame; checksums are left as they are in the super-frame. A part of a TCP
//! stream may end anywhere, so chunks fill the path whatever the size of segments, and even carry
//! segments that would not fit. UDP datagrams stay whole.

use super::tunnel::records_room;
use super::wire::{CHUNK_BYTES, CHUNKS_MAX, HEADER_BYTES, NAMES_BYTES, TAG_BYTES, encode_chunk};
use crate::ethernet::{IPV6_HEADER_BYTES, Ip, Layout, Protocol};
use crate::offload::split::{Split, TCP_CWR, TCP_FIN, TCP_PSH};

/// Size in bytes of a datagram before the headers of a chunk.
const START_BYTES: usize = HEADER_BYTES + NAMES_BYTES + CHUNK_BYTES;
/// Minimum room for payload in a datagram, in bytes. Super-frames are not cut for paths with less.
const PART_BYTES_MIN: usize = 64;

/// A super-frame to be cut.
#[derive(Clone, Copy, Debug)]
pub struct Chunks<'a> {
    split: &'a Split<'a>,
    headers: u8,
    segment: u16,
    /// Payload bytes of each chunk but the last.
    part: usize,
    payload: usize,
    count: usize,
}

impl<'a> Chunks<'a> {
    /// Prepares chunks for datagrams of at most `max_payload` bytes. Returns `None` if its headers
    /// are too long, its UDP datagrams too large, or there would be too many chunks.
    #[inline]
    pub fn new(split: &'a Split<'a>, max_payload: usize) -> Option<Chunks<'a>> {
        let headers = u8::try_from(split.headers_len()).ok()?;
        let segment = u16::try_from(split.gso_size()).ok()?;
        let used = CHUNK_BYTES + usize::from(headers);
        let room = records_room(max_payload).saturating_sub(used);
        let part = match split.layout().protocol {
            Protocol::Tcp => room,
            Protocol::Udp => room - room % split.gso_size().max(1),
        };
        let Layout { payload, end, .. } = *split.layout();
        let payload = end - payload;
        if part < PART_BYTES_MIN.min(split.gso_size()) || payload == 0 {
            return None;
        }
        let count = payload.div_ceil(part);
        (count <= CHUNKS_MAX).then_some(Chunks {
            split,
            headers,
            segment,
            part,
            payload,
            count,
        })
    }

    /// Returns how many chunks there are: at least 1, at most [`CHUNKS_MAX`].
    pub const fn count(&self) -> usize {
        self.count
    }

    /// Returns the size of the datagram of chunk `index` in bytes, or 0 if there is no such chunk.
    /// Only the last one is smaller than the others.
    #[inline]
    pub fn datagram_len(&self, index: usize) -> usize {
        match self.part(index) {
            (_, 0) => 0,
            (_, len) => START_BYTES + usize::from(self.headers) + len + TAG_BYTES,
        }
    }

    /// Returns the number of segments that begin in chunk `index`.
    pub fn segments(&self, index: usize) -> usize {
        let (start, len) = self.part(index);
        let before = |bytes: usize| bytes.div_ceil(usize::from(self.segment));
        before(start + len) - before(start)
    }

    /// Writes chunk `index` into `datagram`, except what encryption writes. Returns false if
    /// `datagram` does not have [`Chunks::datagram_len`] bytes.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn write(&self, index: usize, names: &[u8; NAMES_BYTES], datagram: &mut [u8]) -> bool {
        let (start, len) = self.part(index);
        let headers_len = usize::from(self.headers);
        if len == 0 || datagram.len() != START_BYTES + headers_len + len + TAG_BYTES {
            return false;
        }
        let last = index + 1 == self.count;
        let (Ok(number), Ok(record_len)) = (u8::try_from(index), u16::try_from(headers_len + len))
        else {
            return false;
        };
        let record = encode_chunk(number, last, record_len, self.headers, self.segment);
        let Some((before, rest)) = datagram.split_at_mut_checked(START_BYTES) else {
            return false;
        };
        before[HEADER_BYTES..HEADER_BYTES + NAMES_BYTES].copy_from_slice(names);
        before[HEADER_BYTES + NAMES_BYTES..].copy_from_slice(&record);
        let Some((headers, rest)) = rest.split_at_mut_checked(headers_len) else {
            return false;
        };
        let from = self.split.layout().payload + start;
        let frame = self.split.frame();
        let (Some(ours), Some(payload), Some(to)) = (
            frame.get(..headers_len),
            frame.get(from..from + len),
            rest.get_mut(..len),
        ) else {
            return false;
        };
        headers.copy_from_slice(ours);
        to.copy_from_slice(payload);
        self.fill(headers, start, len, last);
        true
    }

    /// Returns the offset of chunk `index` in the payload, and its length.
    #[inline]
    const fn part(&self, index: usize) -> (usize, usize) {
        let start = index.saturating_mul(self.part);
        let left = self.payload.saturating_sub(start);
        if left < self.part {
            (start, left)
        } else {
            (start, self.part)
        }
    }

    /// Changes the headers of the super-frame to those of a part of it.
    #[inline]
    fn fill(&self, headers: &mut [u8], start: usize, len: usize, last: bool) {
        let Layout {
            ip,
            protocol,
            network,
            transport,
            payload,
            ..
        } = *self.split.layout();
        let segment_len = payload - transport + len;
        let Some((ip_header, header)) = headers
            .get_mut(network..)
            .and_then(|rest| rest.split_at_mut_checked(transport - network))
        else {
            return;
        };
        match ip {
            Ip::V4 => {
                let total = (ip_header.len() + segment_len) as u16;
                let before = (start / usize::from(self.segment)) as u16;
                let id = u16::from_be_bytes([ip_header[4], ip_header[5]]).wrapping_add(before);
                ip_header[2..4].copy_from_slice(&total.to_be_bytes());
                ip_header[4..6].copy_from_slice(&id.to_be_bytes());
            }
            Ip::V6 => {
                let total = (ip_header.len() - IPV6_HEADER_BYTES + segment_len) as u16;
                ip_header[4..6].copy_from_slice(&total.to_be_bytes());
            }
        }
        match protocol {
            Protocol::Tcp => {
                let sequence = [header[4], header[5], header[6], header[7]];
                let sequence = u32::from_be_bytes(sequence).wrapping_add(start as u32);
                header[4..8].copy_from_slice(&sequence.to_be_bytes());
                if !last {
                    header[13] &= !(TCP_FIN | TCP_PSH);
                }
                if start != 0 {
                    header[13] &= !TCP_CWR;
                }
            }
            Protocol::Udp => header[4..6].copy_from_slice(&(segment_len as u16).to_be_bytes()),
        }
    }
}

#[cfg(test)]
mod tests;
