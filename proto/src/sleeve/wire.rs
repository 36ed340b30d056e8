//! Layout of sleeve packets, and of the special frames between routers.
//!
//! ```text
//! plain packet                          encrypted packet
//!  0  sender's peer name (6)             0  sender's peer name (6)
//!  6  frames ...                         6  counter (8), bit 63: sent on the DF channel
//!                                       14  tag (16)
//! frame                                 30  frames, encrypted ...
//!  0  peer where it was captured (6)
//!  6  peer that it is for (6)           special frame
//! 12  length (2)                         0  zeros (14), where addresses and ethertype would be
//! 14  Ethernet frame                    14  content
//! ```

use crate::ethernet;
use crate::types::{ConnUid, PeerName};

/// The two channels of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Channel {
    /// DF set: packets are never fragmented, and the kernel reports those that are too large.
    Df,
    /// DF clear: kernels and routers may fragment packets.
    NonDf,
}

impl Channel {
    /// Returns 0 or 1, to index a pair.
    pub const fn index(self) -> usize {
        match self {
            Channel::Df => 0,
            Channel::NonDf => 1,
        }
    }
}

/// A frame between routers, which never enters a switch.
///
/// Format: `docs/protocol/sleeve.md#4-special-frames`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Special {
    /// Announces that the sender is alive and at which address; carries the UID of the connection.
    Heartbeat(ConnUid),
    /// Deliberately too large for one packet: it arrives only if packets are fragmented on the way.
    FragmentationTest,
    /// A frame with `mtu` bytes after its Ethernet header, to test whether such frames arrive. The
    /// receiver answers with `mtu`.
    MtuTest {
        /// Length of the frame without its Ethernet header, in bytes.
        mtu: u16,
    },
}

impl Special {
    /// A test of the maximum size, sent to make the kernel report its path MTU.
    pub const PROBE: Special = Special::MtuTest {
        mtu: (PROBE_FRAME_BYTES - ethernet::HEADER_BYTES) as u16,
    };

    /// Returns the length of the frame in bytes.
    ///
    /// Format: `docs/protocol/sleeve.md#4-special-frames`.
    pub const fn frame_len(self) -> usize {
        match self {
            Special::Heartbeat(_) => HEARTBEAT_FRAME_BYTES,
            Special::FragmentationTest => FRAGMENTATION_TEST_FRAME_BYTES,
            Special::MtuTest { mtu } => mtu as usize + ethernet::HEADER_BYTES,
        }
    }

    /// Returns the channel on which it is sent.
    ///
    /// Format: `docs/protocol/sleeve.md#4-special-frames`.
    pub const fn channel(self) -> Channel {
        match self {
            Special::Heartbeat(_) | Special::MtuTest { .. } => Channel::Df,
            Special::FragmentationTest => Channel::NonDf,
        }
    }

    /// Writes the frame to `out`, which should have [`Special::frame_len`] bytes: a longer one is
    /// padded with zeros, a shorter one truncates the frame.
    ///
    /// Format: `docs/protocol/sleeve.md#4-special-frames`.
    pub fn write(self, out: &mut [u8]) {
        out.fill(0);
        if let (Special::Heartbeat(uid), Some(field)) = (self, out.get_mut(HEARTBEAT_UID)) {
            field.copy_from_slice(&uid.0.to_be_bytes());
        }
    }

    /// Classifies a special frame. Returns `None` if it is not a special frame
    /// ([`ethernet::is_special`]), is longer than any, or is a fragmentation test whose content is
    /// not zero.
    ///
    /// Format: `docs/protocol/sleeve.md#4-special-frames`.
    pub fn classify(frame: &[u8]) -> Option<Special> {
        if !ethernet::is_special(frame) {
            return None;
        }
        match frame.len() {
            HEARTBEAT_FRAME_BYTES => {
                let uid = frame.get(HEARTBEAT_UID)?.try_into().ok()?;
                Some(Special::Heartbeat(ConnUid(u64::from_be_bytes(uid))))
            }
            FRAGMENTATION_TEST_FRAME_BYTES => frame
                .iter()
                .all(|byte| *byte == 0)
                .then_some(Special::FragmentationTest),
            len => {
                let mtu = u16::try_from(len - ethernet::HEADER_BYTES).ok()?;
                Some(Special::MtuTest { mtu })
            }
        }
    }
}

/// Returns the name of the peer from which a packet claims to come, or `None` if it is too short.
///
/// Format: `docs/protocol/sleeve.md#2-1-layout`.
#[inline]
pub fn sender(packet: &[u8]) -> Option<PeerName> {
    packet
        .first_chunk::<{ PACKET_NAME.end }>()
        .map(|name| PeerName::from_bytes(*name))
}

/// Size in bytes of IPv4 and UDP headers before a packet.
pub const UDP_IP_BYTES: usize = 28;
/// Size in bytes of a plain packet before its frames.
pub const PLAIN_HEADER_BYTES: usize = 6;
/// Size in bytes of an encrypted packet before its frames.
pub const SEALED_HEADER_BYTES: usize = 30;
/// Size in bytes of a frame in a packet before its Ethernet header.
pub const FRAME_HEADER_BYTES: usize = 14;
/// Maximum UDP payload over IPv4, in bytes.
pub const PACKET_BYTES_MAX: usize = 65507;
/// Maximum number of frames put into one packet. A received packet may have more.
pub const FRAMES_PER_PACKET_MAX: usize = 100;
/// The MTU of a link whose path is unknown.
pub const MTU_UNKNOWN: usize = 65535;

/// Size of the frame of a heartbeat in bytes.
pub const HEARTBEAT_FRAME_BYTES: usize = 22;
/// Size of the frame of a fragmentation test in bytes.
pub const FRAGMENTATION_TEST_FRAME_BYTES: usize = 60001;
/// Size of the probe for the kernel's path MTU, in bytes.
pub const PROBE_FRAME_BYTES: usize = 60000;

/// Bit of the counter that marks the DF channel.
pub const COUNTER_DF: u64 = 1 << 63;

use std::ops::Range;

pub(super) const PACKET_NAME: Range<usize> = 0..6;
pub(super) const PACKET_COUNTER: Range<usize> = 6..14;
pub(super) const PACKET_TAG: Range<usize> = 14..30;

pub(super) const FRAME_SOURCE: Range<usize> = 0..6;
pub(super) const FRAME_DESTINATION: Range<usize> = 6..12;
pub(super) const FRAME_LENGTH: Range<usize> = 12..14;

const HEARTBEAT_UID: Range<usize> = 14..22;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn special_frames_are_told_apart_by_length() {
        for special in [
            Special::Heartbeat(ConnUid(0x1234_5678_9abc_def0)),
            Special::FragmentationTest,
            Special::PROBE,
            Special::MtuTest { mtu: 0 },
            Special::MtuTest { mtu: 1414 },
        ] {
            let mut frame = vec![0xaa; special.frame_len()];
            special.write(&mut frame);
            assert_eq!(Special::classify(&frame), Some(special));
        }
        assert_eq!(Special::PROBE.frame_len(), PROBE_FRAME_BYTES);
    }

    #[test]
    fn frames_that_are_not_special_are_not_classified() {
        assert_eq!(Special::classify(&[0; 13]), None);
        let mut frame = [0; 22];
        frame[13] = 1;
        assert_eq!(Special::classify(&frame), None);
        let mut test = vec![0; FRAGMENTATION_TEST_FRAME_BYTES];
        test[60000] = 1;
        assert_eq!(Special::classify(&test), None);
        assert_eq!(Special::classify(&vec![0; 1 << 17]), None);
    }

    #[test]
    fn writing_into_a_short_slice_cuts_the_frame() {
        for len in 0..40 {
            let mut out = vec![1; len];
            Special::Heartbeat(ConnUid(u64::MAX)).write(&mut out);
            assert!(out.iter().take(14).all(|byte| *byte == 0));
        }
    }
}
