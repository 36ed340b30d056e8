//! A frame that came in a packet that opened.

use std::ops::Range;

use proto::ethernet::{self, Frame};
use proto::offload::join::Checksums;
use proto::offload::vnet;
use proto::types::PeerName;

use crate::output::OutFrames;
use boundary::counters::DropReason;

/// The peers that a frame concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Journey {
    /// Peer that captured it.
    pub(crate) source: PeerName,
    /// Which peer it is for.
    pub(crate) dest: PeerName,
    /// The neighbour that it came from.
    pub(crate) via: PeerName,
}

/// A frame that lies in the receive buffer. Its Ethernet header is there whole; if its checksums
/// are absent, it is a whole TCP segment or UDP datagram.
pub(crate) struct OpenedFrame {
    pub(crate) journey: Journey,
    /// Its place in the buffer.
    pub(crate) range: Range<usize>,
    pub(crate) checksums: Checksums,
}

impl OpenedFrame {
    /// Checks the frame that lies at `range` of `slab`.
    #[inline]
    pub(crate) fn check(
        slab: &[u8],
        range: Range<usize>,
        journey: Journey,
        checksums: Checksums,
    ) -> Result<OpenedFrame, DropReason> {
        let bytes = slab.get(range.clone()).unwrap_or_default();
        if ethernet::is_special(bytes) {
            return Err(DropReason::Special);
        }
        let view = Frame::parse(bytes).map_err(|_| DropReason::Short)?;
        if checksums == Checksums::Absent && view.layout().is_none() {
            return Err(DropReason::BadOffload);
        }
        Ok(OpenedFrame {
            journey,
            range,
            checksums,
        })
    }

    /// Returns the frame as it is to leave again.
    pub(crate) fn outgoing<'a>(&self, slab: &'a [u8]) -> OutFrames<'a> {
        let bytes = slab.get(self.range.clone()).unwrap_or_default();
        match self.checksums {
            Checksums::Present => OutFrames::Whole(bytes),
            Checksums::Absent => {
                vnet::OpenFrame::new(bytes).map_or(OutFrames::Whole(bytes), OutFrames::Open)
            }
        }
    }
}
