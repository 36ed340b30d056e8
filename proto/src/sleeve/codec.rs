//! Packing frames into packets, sealing and opening packets, in the caller's buffers.
//!
//! A packet is built where it will be sent from: [`PacketBuilder::append`] reserves the space of
//! a frame and hands it out to be filled, [`PacketBuilder::finish`] writes the header and
//! encrypts in place. The one copy of a frame on its way out is the caller's into that space. On
//! the way in, [`open`] decrypts in place and the frames are used where they lie.

use std::ops::Range;

use super::replay::{Replay, channel_of};
use super::tunnel::Tunnel;
use super::wire::{
    Channel, FRAME_DESTINATION, FRAME_HEADER_BYTES, FRAME_LENGTH, FRAME_SOURCE,
    FRAMES_PER_PACKET_MAX, PACKET_BYTES_MAX, PACKET_COUNTER, PACKET_NAME, PACKET_TAG,
    PLAIN_HEADER_BYTES, SEALED_HEADER_BYTES, sender,
};
use crate::types::PeerName;

/// A packet that is being filled. The builder does not hold the buffer, so that many can be open
/// at once; every call gets the same one, whose first byte is the packet's first.
///
/// A clone taken before [`PacketBuilder::append`] is how an append is taken back.
#[derive(Clone, Debug)]
pub struct PacketBuilder {
    channel: Channel,
    frames: usize,
    len: usize,
    first_max: usize,
    max: usize,
}

impl PacketBuilder {
    /// An empty packet on `channel`, with the limits that the link has at this moment.
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

    /// An empty packet for one special frame, which may be larger than the link is known to
    /// carry: that is what it tests.
    pub fn for_special(tunnel: &Tunnel, channel: Channel) -> PacketBuilder {
        PacketBuilder {
            first_max: PACKET_BYTES_MAX,
            ..PacketBuilder::new(tunnel, channel)
        }
    }

    /// The channel that the packet is for.
    pub const fn channel(&self) -> Channel {
        self.channel
    }

    /// Whether it holds no frame yet.
    pub const fn is_empty(&self) -> bool {
        self.frames == 0
    }

    /// How many frames it holds.
    pub const fn frames(&self) -> usize {
        self.frames
    }

    /// Bytes of the packet so far, header included.
    pub const fn len(&self) -> usize {
        self.len
    }

    /// Whether a frame of `frame_len` bytes can be appended. One that does not fit into an empty
    /// packet fits into none on this channel and is to be dropped.
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

    /// Appends a frame of `frame_len` bytes, captured at `source` and on its way to
    /// `destination`, and returns the space where it is to be written. The space holds whatever
    /// was in the buffer. None if it does not fit the packet or the buffer.
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

    /// Writes the header, encrypts if the link does, and returns the bytes of the packet, which
    /// is ready to be sent. 0 if `buffer` is not the one that frames were appended to.
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

/// Why a packet was dropped whole. None of these is worth more than a counter: anyone can send
/// such packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It ends before its header does.
    #[error("packet is shorter than its header")]
    TooShort,
    /// It does not come from the neighbour of this link.
    #[error("packet is from another peer")]
    OtherSender,
    /// It was not sealed with the key of this link, or was changed since.
    #[error("packet does not open")]
    Forged,
    /// It was seen before, or is too old to tell.
    #[error("packet was seen before")]
    Replayed,
}

/// What is wrong with the frames of an authentic packet. The frames before it are good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// Bytes are left that are no whole frame header.
    #[error("{0} octets of trailing garbage")]
    Trailing(usize),
    /// A frame is shorter than it says.
    #[error("too short; expected frame of length {expected}, got {got}")]
    FrameTooShort {
        /// The length in its header.
        expected: usize,
        /// The bytes that are there.
        got: usize,
    },
}

/// Opens a packet in place: decrypts it, then checks that it is new. On success its frames lie
/// in `packet`, where [`Opened::next`] finds them.
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
    /// Where it lies in the packet. Empty frames exist.
    pub range: Range<usize>,
}

/// Walks over the frames of an opened packet. Does not hold the packet, so that frames can be
/// changed, joined or passed on meanwhile.
#[derive(Clone, Debug)]
pub struct Opened {
    channel: Option<Channel>,
    next: usize,
    len: usize,
}

impl Opened {
    /// The channel that the packet was sent on; unknown for a plain one.
    pub const fn channel(&self) -> Option<Channel> {
        self.channel
    }

    /// The next frame of `packet`, which is the one that was opened. After an error there are no
    /// more.
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
