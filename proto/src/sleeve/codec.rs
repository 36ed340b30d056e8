//! Packing frames into packets, and encrypting and decrypting packets, in the caller's buffers.
//!
//! A packet is built where it will be sent from: [`PacketBuilder::append`] reserves the space of a
//! frame and returns it to be filled, and [`PacketBuilder::finish`] writes the header and encrypts
//! in place. The only copy of an outgoing frame is the caller's into that space. For incoming
//! packets, [`open`] decrypts in place, and frames are used where they lie.

use std::ops::Range;

use super::replay::{Replay, channel_of};
use super::tunnel::Tunnel;
use super::wire::{
    Channel, FRAME_DESTINATION, FRAME_HEADER_BYTES, FRAME_LENGTH, FRAME_SOURCE,
    FRAMES_PER_PACKET_MAX, PACKET_BYTES_MAX, PACKET_COUNTER, PACKET_NAME, PACKET_TAG,
    PLAIN_HEADER_BYTES, SEALED_HEADER_BYTES, sender,
};
use crate::types::PeerName;

/// A packet under construction. The builder does not hold the buffer, so that many can be open at
/// once; every call must pass the same buffer, in which the packet starts at the first byte.
///
/// To undo an append, use a clone taken before [`PacketBuilder::append`].
///
/// Format: `docs/protocol/sleeve.md#2-1-layout`.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    channel: Channel,
    frames: usize,
    len: usize,
    first_max: usize,
    max: usize,
}

impl PacketBuilder {
    /// Creates an empty packet on `channel`, with the current limits of the link.
    #[inline]
    pub fn new(tunnel: &Tunnel, channel: Channel) -> PacketBuilder {
        let max = tunnel.max_payload();
        PacketBuilder {
            channel,
            frames: 0,
            len: tunnel.header_len(),
            first_max: match channel {
                Channel::Df => max,
                // The kernel fragments what is larger than the path carries.
                Channel::NonDf => PACKET_BYTES_MAX,
            },
            max,
        }
    }

    /// Creates an empty packet for one special frame, which may be larger than the link is known to
    /// carry.
    pub fn for_special(tunnel: &Tunnel, channel: Channel) -> PacketBuilder {
        PacketBuilder {
            first_max: PACKET_BYTES_MAX,
            ..PacketBuilder::new(tunnel, channel)
        }
    }

    /// Returns the channel of the packet.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Returns true if the packet has no frames.
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// Returns the number of frames in the packet.
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Returns the current length of the packet in bytes, header included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Returns true if a frame of `frame_len` bytes can be appended. A frame that does not fit into
    /// an empty packet fits into none on this channel and must be dropped.
    ///
    /// Rule: `docs/protocol/sleeve.md#3-2-aggregation`.
    #[inline]
    pub const fn fits(&self, frame_len: usize) -> bool {
        if frame_len > u16::MAX as usize || self.frames >= FRAMES_PER_PACKET_MAX {
            return false;
        }
        let max = if self.frames == 0 {
            self.first_max
        } else {
            self.max
        };
        self.len + FRAME_HEADER_BYTES + frame_len <= max
    }

    /// Appends a frame of `frame_len` bytes, captured at `source` and meant for `destination`, and
    /// returns the space into which to write it. The space contains whatever was in the buffer.
    /// Returns `None` if the frame does not fit into the packet or the buffer.
    ///
    /// Format: `docs/protocol/sleeve.md#2-2-frames`.
    #[inline]
    pub fn append<'b>(
        &mut self,
        buffer: &'b mut [u8],
        source: PeerName,
        destination: PeerName,
        frame_len: usize,
    ) -> Option<&'b mut [u8]> {
        if !self.fits(frame_len) {
            return None;
        }
        let end = self.len + FRAME_HEADER_BYTES + frame_len;
        let (header, frame) = buffer
            .get_mut(self.len..end)?
            .split_at_mut_checked(FRAME_HEADER_BYTES)?;
        header[FRAME_SOURCE].copy_from_slice(source.as_bytes());
        header[FRAME_DESTINATION].copy_from_slice(destination.as_bytes());
        header[FRAME_LENGTH].copy_from_slice(&(frame_len as u16).to_be_bytes());
        self.len = end;
        self.frames += 1;
        Some(frame)
    }

    /// Writes the header, encrypts if the link is encrypted, and returns the length of the packet
    /// in bytes, which is then ready to be sent. Returns 0 if `buffer` is not the one to which
    /// frames were appended.
    ///
    /// Format: `docs/protocol/sleeve.md#2-1-layout`.
    #[inline]
    pub fn finish(self, tunnel: &Tunnel, buffer: &mut [u8]) -> usize {
        let Some(packet) = buffer.get_mut(..self.len) else {
            return 0;
        };
        let Some((header, frames)) = packet.split_at_mut_checked(tunnel.header_len()) else {
            return 0;
        };
        header[PACKET_NAME].copy_from_slice(tunnel.us().as_bytes());
        if let Some(key) = tunnel.key() {
            let counter = tunnel.next_counter(self.channel);
            let tag = key.seal_in_place(&tunnel.send_nonce(counter), frames);
            header[PACKET_COUNTER].copy_from_slice(&counter.to_be_bytes());
            header[PACKET_TAG].copy_from_slice(&tag);
        }
        self.len
    }
}

/// Why a packet was dropped completely. These are only counted, because anyone can send such
/// packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The packet is shorter than its header.
    #[error("packet is shorter than its header")]
    TooShort,
    /// The packet is not from the neighbour of this link.
    #[error("packet is from another peer")]
    OtherSender,
    /// The packet was not encrypted with the key of this link, or was changed since.
    #[error("packet does not open")]
    Forged,
    /// The packet was seen before, or is too old to tell.
    #[error("packet was seen before")]
    Replayed,
}

/// An error in the frames of an authentic packet. The frames before it are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The remaining bytes are shorter than a frame header.
    #[error("{0} octets of trailing garbage")]
    Trailing(usize),
    /// A frame is shorter than its announced length.
    #[error("too short; expected frame of length {expected}, got {got}")]
    FrameTooShort {
        /// The announced length.
        expected: usize,
        /// The number of bytes left.
        got: usize,
    },
}

/// Opens a packet in place: decrypts it, then checks that it is new. On success, [`Opened::next`]
/// returns its frames, which lie in `packet`.
///
/// Format: `docs/protocol/sleeve.md#2-4-receiving`.
#[inline]
pub fn open(tunnel: &Tunnel, replay: &mut Replay, packet: &mut [u8]) -> Result<Opened, OpenError> {
    if sender(packet).ok_or(OpenError::TooShort)? != tunnel.peer() {
        return Err(OpenError::OtherSender);
    }
    let (channel, next) = match tunnel.key() {
        None => (None, PLAIN_HEADER_BYTES),
        Some(key) => {
            let (header, frames) = packet
                .split_first_chunk_mut::<SEALED_HEADER_BYTES>()
                .ok_or(OpenError::TooShort)?;
            let counter = u64::from_be_bytes(field(header, PACKET_COUNTER));
            let tag = field(header, PACKET_TAG);
            key.open_in_place(&tunnel.receive_nonce(counter), &tag, frames)
                .map_err(|_| OpenError::Forged)?;
            if !replay.accept(counter) {
                return Err(OpenError::Replayed);
            }
            (Some(channel_of(counter)), SEALED_HEADER_BYTES)
        }
    };
    Ok(Opened {
        channel,
        next,
        len: packet.len(),
    })
}

/// A frame in an opened packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enclosed {
    /// The peer where it was captured.
    pub source: PeerName,
    /// The peer that it is for.
    pub destination: PeerName,
    /// Its range in the packet, which may be empty.
    pub range: Range<usize>,
}

/// Iterates over the frames of an opened packet. Does not hold the packet, so that frames can be
/// changed, joined or passed on meanwhile.
#[derive(Clone, Debug)]
pub struct Opened {
    channel: Option<Channel>,
    next: usize,
    len: usize,
}

impl Opened {
    /// Returns the channel on which the packet was sent, or `None` for a plain packet.
    pub const fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// Returns the next frame of `packet`, which must be the packet that was opened. After an error
    /// there are no more frames.
    ///
    /// Format: `docs/protocol/sleeve.md#2-2-frames`.
    #[inline]
    pub fn next(&mut self, packet: &[u8]) -> Option<Result<Enclosed, DecodeError>> {
        let rest = packet.get(self.next..self.len)?;
        if rest.is_empty() {
            return None;
        }
        let Some((header, frame)) = rest.split_first_chunk::<FRAME_HEADER_BYTES>() else {
            self.next = self.len;
            return Some(Err(DecodeError::Trailing(rest.len())));
        };
        let &[a, b, c, d, e, f, g, h, i, j, k, l, high, low] = header;
        let expected = usize::from(u16::from_be_bytes([high, low]));
        if frame.len() < expected {
            self.next = self.len;
            return Some(Err(DecodeError::FrameTooShort {
                expected,
                got: frame.len(),
            }));
        }
        let start = self.next + FRAME_HEADER_BYTES;
        self.next = start + expected;
        Some(Ok(Enclosed {
            source: PeerName::from_bytes([a, b, c, d, e, f]),
            destination: PeerName::from_bytes([g, h, i, j, k, l]),
            range: start..self.next,
        }))
    }
}

fn field<const N: usize>(header: &[u8; SEALED_HEADER_BYTES], range: Range<usize>) -> [u8; N] {
    let mut field = [0; N];
    field.copy_from_slice(&header[range]);
    field
}

#[cfg(test)]
mod tests;
