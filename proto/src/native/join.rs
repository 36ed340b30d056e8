//! Joining the chunks of a super-frame, for a device that accepts super-frames.
//!
//! ```text
//! slab   ..| record | headers | payload 0 |..| record | headers | payload 1 |..
//! joined            [ headers   payload 0 ]                    [ payload 1 ]      parts, in place
//! ```
//!
//! Chunks stay where they were received, in one buffer that the caller owns (the slab). The next
//! chunk has the next index and the next counter of the same stream; anything else begins another
//! super-frame. So losses only make more super-frames.
//!
//! Nothing may be kept while the caller waits for more input.

use std::ops::Range;

use super::wire::{Chunk, Names};
use crate::ethernet::{Frame, Layout, Protocol};
use crate::offload::join::{
    Joined, Part, SUPER_BYTES_MAX, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX, write_super_headers,
};
use crate::offload::split::{SPLIT_SEGMENTS_MAX, TCP_FIN, TCP_PSH};
use crate::offload::vnet::VnetHeader;
use crate::types::PeerName;

/// The datagram that a chunk came in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The session that it opened with.
    pub session: u32,
    /// Its stream.
    pub stream: u8,
    /// Its counter.
    pub counter: u32,
    /// The peer that sent the datagram.
    pub neighbour: PeerName,
    /// The peers that it concerns.
    pub names: Names,
}

/// The headers of a chunk do not match its record, or are not those of a TCP segment or UDP
/// datagram. The chunk is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("chunk is no TCP segment or UDP datagram")]
pub struct BadChunk;

/// A super-frame being joined; see the module.
#[derive(Debug)]
pub struct ChunkJoiner {
    /// The datagram that the next chunk comes in, if there was one.
    next: Option<Origin>,
    index: u8,
    headers: usize,
    segment: usize,
    layout: Layout,
    /// The headers of the first chunk.
    first: usize,
    payload: usize,
    /// PSH and FIN of the last chunk.
    closing: u8,
    parts: Box<[Part; TCP_SEGMENTS_MAX]>,
    count: usize,
}

impl Default for ChunkJoiner {
    fn default() -> ChunkJoiner {
        ChunkJoiner::new()
    }
}

impl ChunkJoiner {
    /// Creates an empty joiner.
    pub fn new() -> ChunkJoiner {
        ChunkJoiner {
            next: None,
            index: 0,
            headers: 0,
            segment: 0,
            layout: Layout::EMPTY,
            first: 0,
            payload: 0,
            closing: 0,
            parts: Box::new([Part::default(); TCP_SEGMENTS_MAX]),
            count: 0,
        }
    }

    /// Returns true if nothing is kept.
    pub const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Returns the peer that sent the super-frame which is put together.
    pub fn neighbour(&self) -> Option<PeerName> {
        let next = self.next.filter(|_| self.count > 0);
        next.map(|next| next.neighbour)
    }

    /// Returns the peers that the super-frame concerns.
    pub fn names(&self) -> Option<Names> {
        self.next.map(|next| next.names).filter(|_| self.count > 0)
    }

    /// Adds a chunk. Returns false if it does not continue the super-frame, and true in `.1` if it
    /// completes it.
    ///
    /// Rule: `docs/native.md#datagrams`.
    #[inline]
    pub fn append(&mut self, slab: &[u8], origin: &Origin, chunk: &Chunk) -> Option<bool> {
        let range = &chunk.range;
        let payload = range.len().checked_sub(self.headers)?;
        let segments_max = segments_max(self.layout.protocol);
        let total = self.payload + payload;
        if self.count == 0
            || self.next != Some(*origin)
            || chunk.index != self.index
            || usize::from(chunk.headers) != self.headers
            || usize::from(chunk.segment) != self.segment
            || self.headers - self.layout.network + total > SUPER_BYTES_MAX
            || self.count >= self.parts.len()
            || total.div_ceil(self.segment) > segments_max
            // A datagram boundary inside the payload must be one of the super-frame.
            || (self.layout.protocol == Protocol::Udp && !self.payload.is_multiple_of(self.segment))
        {
            return None;
        }
        let part = range.start + self.headers..range.end;
        *self.parts.get_mut(self.count)? = Part::new(&part)?;
        self.count += 1;
        self.payload = total;
        if chunk.last && self.layout.protocol == Protocol::Tcp {
            let flags = slab.get(range.start + self.layout.transport + 13).copied();
            self.closing |= flags.unwrap_or_default() & (TCP_PSH | TCP_FIN);
        }
        self.expect(origin, chunk.index);
        Some(chunk.last)
    }

    /// Begins a super-frame with a chunk. Nothing must be kept.
    ///
    /// Rule: `docs/native.md#datagrams`.
    #[inline]
    pub fn start(&mut self, slab: &[u8], origin: &Origin, chunk: &Chunk) -> Result<(), BadChunk> {
        debug_assert!(self.count == 0);
        self.count = 0;
        let range = &chunk.range;
        let frame = slab.get(range.clone()).ok_or(BadChunk)?;
        let view = Frame::parse(frame).map_err(|_| BadChunk)?;
        let layout = view.layout().ok_or(BadChunk)?;
        if layout.payload != usize::from(chunk.headers) || layout.end != frame.len() {
            return Err(BadChunk);
        }
        let segment = usize::from(chunk.segment);
        let payload = layout.end - layout.payload;
        if segment == 0 || payload.div_ceil(segment) > segments_max(layout.protocol) {
            return Err(BadChunk);
        }
        self.headers = layout.payload;
        self.segment = segment;
        self.first = range.start;
        self.payload = payload;
        self.closing = 0;
        self.layout = layout;
        self.parts[0] = Part::new(range).ok_or(BadChunk)?;
        self.count = 1;
        self.expect(origin, chunk.index);
        Ok(())
    }

    /// Removes and returns the super-frame, whose headers are completed in the slab, or `None` if
    /// there is none.
    #[inline]
    pub fn take<'a>(&'a mut self, slab: &'a mut [u8]) -> Option<Joined<'a>> {
        let count = std::mem::take(&mut self.count);
        let headers = slab.get_mut(self.first..self.first + self.headers)?;
        if count == 0 {
            return None;
        }
        if self.layout.protocol == Protocol::Tcp {
            *headers.get_mut(self.layout.transport + 13)? |= self.closing;
        }
        let segments = self.payload.div_ceil(self.segment);
        let gso_size = if segments > 1 { self.segment } else { 0 };
        let header: VnetHeader = write_super_headers(headers, &self.layout, self.payload, gso_size);
        Some(Joined::new(
            header,
            slab,
            self.parts.get(..count)?,
            segments,
        ))
    }

    /// Returns the headers of the first chunk, to decide about forwarding.
    pub fn headers(&self) -> Range<usize> {
        self.first..self.first + self.headers
    }

    #[inline]
    fn expect(&mut self, origin: &Origin, index: u8) {
        // A stream runs out of counters before they overflow.
        let next = origin.counter.checked_add(1).zip(index.checked_add(1));
        match next {
            Some((counter, index)) => {
                self.next = Some(Origin { counter, ..*origin });
                self.index = index;
            }
            None => self.next = None,
        }
    }
}

/// Most segments of a super-frame: the kernel cuts as many as it is told.
const fn segments_max(protocol: Protocol) -> usize {
    match protocol {
        Protocol::Tcp => SPLIT_SEGMENTS_MAX,
        Protocol::Udp => UDP_SEGMENTS_MAX,
    }
}

#[cfg(test)]
mod tests;
