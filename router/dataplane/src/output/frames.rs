//! Frames that are to leave, and where to.

use proto::ethernet::{Frame, Ip, Protocol};
use proto::offload::checksum;
use proto::offload::split::Split;
use proto::offload::vnet::{GSO_TCPV4, GSO_TCPV6, OpenFrame, VnetHeader};
use proto::switch::LinkIndex;
use proto::types::PeerName;

/// A frame that is to leave.
#[derive(Clone, Copy, Debug)]
pub(crate) enum OutFrames<'a> {
    /// One frame.
    Whole(&'a [u8]),
    /// One frame whose checksum is still to be completed.
    Open(OpenFrame<'a>),
    /// A super-frame, which leaves as its segments.
    Super(&'a Split<'a>),
}

impl<'a> OutFrames<'a> {
    /// Returns how many frames these are on the wire.
    pub(crate) const fn count(&self) -> usize {
        match self {
            OutFrames::Whole(_) | OutFrames::Open(_) => 1,
            OutFrames::Super(split) => split.segments(),
        }
    }

    /// Frame `index` with its checksums, in `scratch` unless it has them.
    pub(super) fn complete<'b>(&self, index: usize, scratch: &'b mut [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        let len = match self {
            OutFrames::Whole(frame) => return frame,
            OutFrames::Open(frame) => {
                let len = frame.bytes().len();
                match scratch.get_mut(..len) {
                    Some(out) => frame.write_complete(out),
                    None => return &[],
                }
                len
            }
            OutFrames::Super(split) => split.write_segment(index, scratch),
        };
        scratch.get(..len).unwrap_or_default()
    }

    /// Returns the first frame, as far as its headers and its length go.
    pub(crate) fn first(&self) -> &'a [u8] {
        match self {
            OutFrames::Whole(frame) => frame,
            OutFrames::Open(frame) => frame.bytes(),
            OutFrames::Super(split) => {
                let frame = split.frame();
                frame.get(..split.segment_len(0)).unwrap_or(frame)
            }
        }
    }

    /// Returns a TCP segment as a super-frame of one segment, or a super-frame as it is, to be cut
    /// in other ways. None if it is neither, or its checksum is wrong: those of pieces are made
    /// anew, so they must not be repaired.
    pub(super) fn as_super(&self) -> Option<Split<'a>> {
        let frame = match self {
            OutFrames::Whole(frame) => frame,
            OutFrames::Open(open) => open.bytes(),
            OutFrames::Super(split) => return Some((*split).clone()),
        };
        let layout = Frame::parse(frame).ok()?.layout()?;
        if layout.protocol != Protocol::Tcp {
            return None;
        }
        if matches!(self, OutFrames::Whole(_)) && !checksum::verify(frame, &layout) {
            return None;
        }
        let header = VnetHeader {
            gso_type: match layout.ip {
                Ip::V4 => GSO_TCPV4,
                Ip::V6 => GSO_TCPV6,
            },
            gso_size: u16::try_from(layout.end - layout.payload).ok()?,
            ..VnetHeader::PLAIN
        };
        Split::new(header, frame).ok()
    }
}

/// The destinations of frames.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heading {
    /// The link by which they leave.
    pub(crate) link: LinkIndex,
    /// The peer where they were captured.
    pub(crate) source: PeerName,
    /// The peer they are for.
    pub(crate) dest: PeerName,
    /// Whether they go to all peers.
    pub(crate) broadcast: bool,
}

/// A frame that does not fit the link and whose sender is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(crate) enum Outcome {
    /// The frames are on their way, or dropped and counted.
    Done,
    /// The frames do not fit a link with this MTU. They are counted as dropped; the sender is to
    /// be told.
    TooBig(usize),
}
