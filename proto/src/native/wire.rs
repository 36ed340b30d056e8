//! The layout of native datagrams, of the records in them and of control messages.
//!
//! ```text
//! datagram
//!  0  zeros (6)             a sleeve packet starts with its sender's name, which is never zero
//!  6  type (1)              10: frames, 11: report
//!  7  stream (1)            of the sender's threads, which of them counts
//!  8  session (4)           the receiver's number for the key
//! 12  counter (4)           of this stream under this key
//! 16  body, encrypted; bytes 0..16 are authenticated with it
//!     tag (16)
//!
//! body of frames
//!  0  peer where the frames were captured (6)
//!  6  peer that they are for (6)
//! 12  records
//!
//! record
//!  0  low half: kind (0: padding up to the end, 1: frame, 2: chunk); 10: open checksum, 20: last
//!  1  index of a chunk in its super-frame; else zero
//!  2  length of what follows this header (2)
//!  4  frame: the Ethernet frame
//!  4  chunk: bytes of headers (1), zero (1), segment size (2), headers, payload
//! ```
//!
//! The body of a report is that of [`Report`](super::report::Report). Numbers are big-endian.

use std::ops::Range;

use crate::ethernet;
use crate::sleeve::wire::UDP_IP_BYTES;
use crate::types::PeerName;

/// Size of the header of a datagram, in bytes.
pub const HEADER_BYTES: usize = 16;
/// Size in bytes of the tag after the body of a datagram,.
pub const TAG_BYTES: usize = 16;
/// Size in bytes of the peer names before the records of a body,.
pub const NAMES_BYTES: usize = 12;
/// Size of the header of a record with a frame, in bytes.
pub const RECORD_BYTES: usize = 4;
/// Size of the header of a record with a chunk, in bytes.
pub const CHUNK_BYTES: usize = RECORD_BYTES + 4;
/// The largest UDP payload over IPv4.
pub const DATAGRAM_BYTES_MAX: usize = 65507;
/// Maximum number of chunks of one super-frame.
pub const CHUNKS_MAX: usize = 256;

/// Bytes by which a datagram with one frame exceeds what follows the frame's Ethernet header, IP
/// and UDP included: path MTU minus this is the MTU of the link.
pub const OVERHEAD_BYTES: usize =
    UDP_IP_BYTES + HEADER_BYTES + NAMES_BYTES + RECORD_BYTES + ethernet::HEADER_BYTES + TAG_BYTES;

/// Kind of a datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// It carries frames.
    Frames,
    /// A message between the two ends of the link.
    Report,
}

impl Kind {
    const fn code(self) -> u8 {
        match self {
            Kind::Frames => 0x10,
            Kind::Report => 0x11,
        }
    }
}

/// The unencrypted header of a datagram. It must not be trusted before the datagram was opened.
///
/// Format: `docs/native.md#datagrams`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The kind of the datagram.
    pub kind: Kind,
    /// The stream that counted it.
    pub stream: u8,
    /// The receiver's number for the key.
    pub session: u32,
    /// The counter of the datagram in its stream under this key.
    pub counter: u32,
}

impl Header {
    /// Decodes the header of a datagram. Returns `None` if it is malformed or too short for a body.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn parse(datagram: &[u8]) -> Option<Header> {
        if datagram.len() < HEADER_BYTES + TAG_BYTES {
            return None;
        }
        let &[
            z0,
            z1,
            z2,
            z3,
            z4,
            z5,
            kind,
            stream,
            s0,
            s1,
            s2,
            s3,
            c0,
            c1,
            c2,
            c3,
        ] = datagram.first_chunk::<HEADER_BYTES>()?;
        if [z0, z1, z2, z3, z4, z5] != *PeerName::UNKNOWN.as_bytes() {
            return None;
        }
        let kind = match kind {
            0x10 => Kind::Frames,
            0x11 => Kind::Report,
            _ => return None,
        };
        Some(Header {
            kind,
            stream,
            session: u32::from_be_bytes([s0, s1, s2, s3]),
            counter: u32::from_be_bytes([c0, c1, c2, c3]),
        })
    }

    /// Encodes the header.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub const fn encode(&self) -> [u8; HEADER_BYTES] {
        let [s0, s1, s2, s3] = self.session.to_be_bytes();
        let [c0, c1, c2, c3] = self.counter.to_be_bytes();
        let (kind, stream) = (self.kind.code(), self.stream);
        [
            0, 0, 0, 0, 0, 0, kind, stream, s0, s1, s2, s3, c0, c1, c2, c3,
        ]
    }
}

/// Returns true if this is not a sleeve packet.
///
/// Format: `docs/native.md#datagrams`.
#[inline]
pub fn is_native(datagram: &[u8]) -> bool {
    datagram.first_chunk::<6>() == Some(PeerName::UNKNOWN.as_bytes())
}

/// The peers that the records of a body concern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Names {
    /// The peer where the frames were captured.
    pub source: PeerName,
    /// The peer that they are for.
    pub destination: PeerName,
}

impl Names {
    /// Decodes the names at the start of a body of frames.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn parse(body: &[u8]) -> Option<Names> {
        let &[a, b, c, d, e, f, g, h, i, j, k, l] = body.first_chunk::<NAMES_BYTES>()?;
        Some(Names {
            source: PeerName::from_bytes([a, b, c, d, e, f]),
            destination: PeerName::from_bytes([g, h, i, j, k, l]),
        })
    }

    /// Encodes the names.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub const fn encode(&self) -> [u8; NAMES_BYTES] {
        let [a, b, c, d, e, f] = *self.source.as_bytes();
        let [g, h, i, j, k, l] = *self.destination.as_bytes();
        [a, b, c, d, e, f, g, h, i, j, k, l]
    }
}

/// A record of a decrypted body. Ranges refer to the bytes for which [`Records`] was created.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A frame.
    Frame {
        /// Where it lies.
        range: Range<usize>,
        /// Whether its TCP or UDP checksum is still to be filled in.
        open_checksum: bool,
    },
    /// A piece of a super-frame.
    Chunk(Chunk),
}

/// A piece of a super-frame: all its headers, and a part of its payload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Which piece it is.
    pub index: u8,
    /// Whether it is the last one.
    pub last: bool,
    /// Bytes of headers; less than the range has.
    pub headers: u8,
    /// Payload bytes of each segment of the super-frame; not zero.
    pub segment: u16,
    /// Where headers and payload lie.
    pub range: Range<usize>,
}

/// A malformed record. Later records are valid, unless its end is unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A record ends beyond the body, or its header is incomplete.
    #[error("record ends beyond its datagram")]
    TooShort,
    /// The kind of the record is unknown.
    #[error("unknown kind of record {0}")]
    Kind(u8),
    /// A chunk without payload, or with no segment size.
    #[error("chunk without payload or segment size")]
    Chunk,
}

/// Iterates over the records of a body of frames. Does not hold the body, so that frames can be
/// changed or passed on meanwhile.
#[derive(Clone, Debug)]
pub struct Records {
    next: usize,
    end: usize,
}

impl Records {
    /// Creates an iterator over the records at `range`: a body without its names.
    pub const fn new(range: Range<usize>) -> Records {
        Records {
            next: range.start,
            end: range.end,
        }
    }

    /// Returns the next record of the bytes for which this was created.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn next(&mut self, bytes: &[u8]) -> Option<Result<Record, RecordError>> {
        let rest = bytes.get(self.next..self.end)?;
        let (&first, _) = rest.split_first()?;
        if first & KIND_MASK == KIND_PADDING {
            self.next = self.end;
            return None;
        }
        let Some(&[_, index, high, low]) = rest.first_chunk::<RECORD_BYTES>() else {
            return Some(Err(self.give_up()));
        };
        let start = self.next + RECORD_BYTES;
        let end = start + usize::from(u16::from_be_bytes([high, low]));
        if end > self.end {
            return Some(Err(self.give_up()));
        }
        self.next = end;
        Some(match first & KIND_MASK {
            KIND_FRAME => Ok(Record::Frame {
                range: start..end,
                open_checksum: first & FLAG_OPEN_CHECKSUM != 0,
            }),
            KIND_CHUNK => {
                let last = first & FLAG_LAST != 0;
                parse_chunk(bytes, start..end, index, last).ok_or(RecordError::Chunk)
            }
            kind => Err(RecordError::Kind(kind)),
        })
    }

    fn give_up(&mut self) -> RecordError {
        self.next = self.end;
        RecordError::TooShort
    }
}

#[inline]
fn parse_chunk(bytes: &[u8], range: Range<usize>, index: u8, last: bool) -> Option<Record> {
    let &[headers, _, high, low] = bytes.get(range.clone())?.first_chunk::<4>()?;
    let range = range.start + 4..range.end;
    let segment = u16::from_be_bytes([high, low]);
    let makes_sense = segment != 0 && usize::from(headers) < range.len();
    makes_sense.then_some(Record::Chunk(Chunk {
        index,
        last,
        headers,
        segment,
        range,
    }))
}

/// Writes the header of a record with a frame of `len` bytes.
///
/// Format: `docs/native.md#datagrams`.
#[inline]
pub const fn encode_frame(len: u16, open_checksum: bool) -> [u8; RECORD_BYTES] {
    let flags = if open_checksum { FLAG_OPEN_CHECKSUM } else { 0 };
    let [high, low] = len.to_be_bytes();
    [KIND_FRAME | flags, 0, high, low]
}

/// Writes the header of a record with a chunk whose headers and payload have `len` bytes.
///
/// Format: `docs/native.md#datagrams`.
#[inline]
pub const fn encode_chunk(
    index: u8,
    last: bool,
    len: u16,
    headers: u8,
    segment: u16,
) -> [u8; CHUNK_BYTES] {
    let flags = if last { FLAG_LAST } else { 0 };
    let [high, low] = (len + (CHUNK_BYTES - RECORD_BYTES) as u16).to_be_bytes();
    let [s0, s1] = segment.to_be_bytes();
    [KIND_CHUNK | flags, index, high, low, headers, 0, s0, s1]
}

const KIND_MASK: u8 = 0x0f;
const KIND_PADDING: u8 = 0;
const KIND_FRAME: u8 = 1;
const KIND_CHUNK: u8 = 2;
const FLAG_OPEN_CHECKSUM: u8 = 0x10;
const FLAG_LAST: u8 = 0x20;
