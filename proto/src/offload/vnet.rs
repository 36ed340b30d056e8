//! What a frame from a TAP device with vnet headers is, and what is left to do for it.

use super::checksum;
pub use super::header::{
    FLAG_DATA_VALID, FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4,
    VNET_BYTES, VNET_MERGED_BYTES, VnetHeader,
};
use super::split::{Split, SplitError};
use crate::ethernet::Frame;

/// A frame from the device, after its vnet header was checked.
#[derive(Debug)]
pub enum Captured<'a> {
    /// A complete frame.
    Whole(&'a [u8]),
    /// A frame that is complete except for the checksum of its TCP segment or UDP datagram.
    Open(OpenFrame<'a>),
    /// Many segments in one frame.
    Super(Split<'a>),
}

/// A frame that is complete except for the checksum of its TCP segment or UDP datagram, whose field
/// contains the sum of the pseudo header.
#[derive(Clone, Copy, Debug)]
pub struct OpenFrame<'a> {
    frame: &'a [u8],
    start: usize,
    offset: usize,
}

impl<'a> OpenFrame<'a> {
    /// Creates a frame with an open checksum. Returns `None` if it has no complete TCP segment or
    /// UDP datagram.
    #[inline]
    pub fn new(frame: &'a [u8]) -> Option<OpenFrame<'a>> {
        let layout = Frame::parse(frame).ok()?.layout()?;
        Some(OpenFrame {
            frame,
            start: layout.transport,
            offset: layout.protocol.checksum_offset(),
        })
    }

    /// Returns the bytes of the frame, its checksum open.
    pub const fn bytes(&self) -> &'a [u8] {
        self.frame
    }

    /// Copies the frame to `out`, which has its length, and completes the copy.
    #[inline]
    pub fn write_complete(&self, out: &mut [u8]) {
        out.copy_from_slice(self.frame);
        // The checksum lies inside, as the layout said.
        let _ = checksum::complete(out, self.start, self.offset);
    }
}

/// The vnet header of a frame does not fit it. Such frames are dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum VnetError {
    /// The checksum would lie outside of the frame.
    #[error("checksum at {start}+{offset} lies outside of the frame of {len} bytes")]
    Checksum {
        /// Where the checksummed part would start.
        start: u16,
        /// Where the checksum would lie behind it.
        offset: u16,
        /// Returns the length of the frame in bytes.
        len: usize,
    },
    /// The frame is not a super-frame of the announced type.
    #[error(transparent)]
    Split(#[from] SplitError),
}

impl<'a> Captured<'a> {
    /// Prepares a frame from the device for sending: completes a partial checksum in place, and
    /// checks a super-frame, which may consist of a single segment.
    #[inline]
    pub fn new(header: VnetHeader, frame: &'a mut [u8]) -> Result<Captured<'a>, VnetError> {
        Captured::with(header, frame, false)
    }

    /// The same, but leaves the checksum of a TCP segment or UDP datagram open.
    #[inline]
    pub fn new_open(header: VnetHeader, frame: &'a mut [u8]) -> Result<Captured<'a>, VnetError> {
        Captured::with(header, frame, true)
    }

    #[inline]
    fn with(
        header: VnetHeader,
        frame: &'a mut [u8],
        open: bool,
    ) -> Result<Captured<'a>, VnetError> {
        if header.is_super() {
            return Ok(Captured::Super(Split::new(header, frame)?));
        }
        if header.needs_csum() {
            let place = (header.csum_start.into(), header.csum_offset.into());
            let is_usual = |open: &OpenFrame<'_>| (open.start, open.offset) == place;
            if open && OpenFrame::new(frame).is_some_and(|open| is_usual(&open)) {
                let (start, offset) = place;
                return Ok(Captured::Open(OpenFrame {
                    frame,
                    start,
                    offset,
                }));
            }
            let (start, offset) = (header.csum_start, header.csum_offset);
            checksum::complete(frame, start.into(), offset.into()).ok_or(VnetError::Checksum {
                start,
                offset,
                len: frame.len(),
            })?;
        }
        Ok(Captured::Whole(frame))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::testing::{Spec, assert_valid, noise};

    #[test]
    fn header_has_the_layout_of_the_kernel() {
        let header = VnetHeader {
            flags: FLAG_NEEDS_CSUM,
            gso_type: GSO_TCPV6 | GSO_ECN,
            header_len: 86,
            gso_size: 1304,
            csum_start: 54,
            csum_offset: 16,
        };
        let mut expected = vec![1, 0x84];
        for number in [86u16, 1304, 54, 16] {
            expected.extend(number.to_ne_bytes());
        }
        assert_eq!(header.encode()[..], expected);
        assert_eq!(VnetHeader::decode(&header.encode()), header);
        assert_eq!(VnetHeader::PLAIN.encode(), [0; VNET_BYTES]);
        assert!(header.needs_csum() && header.is_super());
        assert!(!VnetHeader::PLAIN.needs_csum() && !VnetHeader::PLAIN.is_super());
    }

    #[test]
    fn a_complete_frame_stays_as_it_is() {
        let frame = noise(1, 100);
        let mut copy = frame.clone();
        let mut header = VnetHeader::PLAIN;
        header.flags = FLAG_DATA_VALID;
        match Captured::new(header, &mut copy) {
            Ok(Captured::Whole(whole)) => assert_eq!(whole, frame),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_partial_checksum_is_completed() {
        for spec in [Spec::tcp(1, noise(2, 77)), Spec::udp(noise(3, 78))] {
            let whole = spec.build();
            let csum_offset = if spec.tcp.is_some() { 16 } else { 6 };
            let mut frame = whole.clone();
            // Linux leaves the sum of addresses, protocol and length in the field.
            let len = (frame.len() - 34) as u32;
            let mut sum = u32::from(frame[23]) + len;
            for pair in frame[26..34].chunks(2) {
                sum += u32::from(u16::from_be_bytes([pair[0], pair[1]]));
            }
            let folded = ((sum >> 16) + (sum & 0xffff)) as u16;
            frame[34 + csum_offset..36 + csum_offset].copy_from_slice(&folded.to_be_bytes());
            let mut header = VnetHeader {
                flags: FLAG_NEEDS_CSUM,
                csum_start: 34,
                csum_offset: csum_offset as u16,
                ..VnetHeader::PLAIN
            };
            match Captured::new(header, &mut frame) {
                Ok(Captured::Whole(completed)) => {
                    assert_valid(completed);
                    assert_eq!(completed, whole);
                }
                other => panic!("{other:?}"),
            }
            frame[34 + csum_offset..36 + csum_offset].copy_from_slice(&folded.to_be_bytes());
            let mut out = vec![0; frame.len()];
            match Captured::new_open(header, &mut frame.clone()) {
                Ok(Captured::Open(open)) => {
                    assert_eq!(open.bytes(), frame);
                    open.write_complete(&mut out);
                }
                other => panic!("{other:?}"),
            }
            assert_eq!(out, whole);
            // Where no TCP or UDP has its checksum, nothing stays open.
            header.csum_offset += 2;
            let captured = Captured::new_open(header, &mut frame);
            assert!(matches!(captured, Ok(Captured::Whole(_))));
        }
    }

    #[test]
    fn a_checksum_outside_of_the_frame_is_an_error() {
        let header = VnetHeader {
            flags: FLAG_NEEDS_CSUM,
            csum_start: 34,
            csum_offset: 16,
            ..VnetHeader::PLAIN
        };
        for len in 0..52 {
            let error = Captured::new(header, &mut vec![0; len]).err();
            let expected = VnetError::Checksum {
                start: 34,
                offset: 16,
                len,
            };
            assert_eq!(error, Some(expected));
        }
    }
}
