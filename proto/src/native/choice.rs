//! How a frame is sent over a native link.

use super::tunnel::{mtu, records_room};
use super::wire::{HEADER_BYTES, NAMES_BYTES, RECORD_BYTES, TAG_BYTES};
use crate::ethernet::{self, Frame, Protocol};
use crate::sleeve::icmp::IPV6_MTU_MIN;

/// Maximum size of a frame that fits any datagram, in bytes.
const FRAME_BYTES_MAX: usize =
    super::wire::DATAGRAM_BYTES_MAX - HEADER_BYTES - NAMES_BYTES - RECORD_BYTES - TAG_BYTES;

/// What to do with a frame that is to be sent over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The frame fits a datagram.
    Fits,
    /// A TCP segment: send it in chunks.
    Chunks,
    /// Cut the IPv4 packet to the link's MTU and send the pieces.
    Fragment,
    /// Do not send it; report the link's MTU to its source.
    TooBig,
    /// Send it in a datagram of its own that the kernel may fragment.
    Oversize,
    /// Do not send it. It is a broadcast, so its source is not told.
    DropBroadcast,
    /// Do not send it: it is larger than any datagram.
    Drop,
}

/// Chooses how to send `frame` over a link with datagrams of at most `max_payload` bytes.
/// `broadcast` is true if the frame goes to all peers.
///
/// Rule: `docs/native.md#link-quality-and-path-mtu`.
#[inline]
pub fn choose(max_payload: usize, frame: &[u8], broadcast: bool) -> Choice {
    if RECORD_BYTES + frame.len() <= records_room(max_payload) {
        return Choice::Fits;
    }
    choose_too_large(max_payload, frame, broadcast)
}

#[cold]
fn choose_too_large(max_payload: usize, frame: &[u8], broadcast: bool) -> Choice {
    let oversize = match frame.len() <= FRAME_BYTES_MAX {
        true => Choice::Oversize,
        false => Choice::Drop,
    };
    let Ok(view) = Frame::parse(frame) else {
        return oversize;
    };
    let is_tcp =
        |layout: ethernet::Layout| layout.protocol == Protocol::Tcp && layout.end > layout.payload;
    if view.layout().is_some_and(is_tcp) {
        return Choice::Chunks;
    }
    // Frames with VLAN tags count as not IP, as on sleeve.
    if view.is_tagged() {
        return oversize;
    }
    let too_big = match broadcast {
        true => Choice::DropBroadcast,
        false => Choice::TooBig,
    };
    if let Some(ip) = view.ipv4() {
        return match ip.dont_fragment() {
            true => too_big,
            false => Choice::Fragment,
        };
    }
    // IPv6 sources can be told any MTU down to the minimum of IPv6, and none below.
    if view.ipv6().is_some() && !broadcast && mtu(max_payload) >= IPV6_MTU_MIN {
        return too_big;
    }
    oversize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ethernet::testing::{Spec, noise};

    const PAYLOAD: usize = 1472;

    fn with_dont_fragment(mut frame: Vec<u8>, set: bool) -> Vec<u8> {
        frame[20] = if set { 0x40 } else { 0 };
        frame
    }

    #[test]
    fn the_largest_frame_that_fits_has_the_mtu() {
        assert_eq!(mtu(PAYLOAD), 1410);
        assert_eq!(choose(PAYLOAD, &[0; 1410 + 14], false), Choice::Fits);
        assert_eq!(choose(PAYLOAD, &[0; 1411 + 14], false), Choice::Oversize);
        assert_eq!(choose(0, &[0; 60], false), Choice::Oversize);
        assert_eq!(choose(PAYLOAD, &[0; 65459], false), Choice::Oversize);
        assert_eq!(choose(PAYLOAD, &[0; 65460], false), Choice::Drop);
    }

    #[test]
    fn what_is_too_large_goes_as_its_kind_allows() {
        let tcp = Spec::tcp(1, noise(1, 1500)).build();
        let udp = Spec::udp(noise(1, 1500)).build();
        for broadcast in [false, true] {
            assert_eq!(choose(PAYLOAD, &tcp, broadcast), Choice::Chunks);
            let frame = with_dont_fragment(udp.clone(), false);
            assert_eq!(choose(PAYLOAD, &frame, broadcast), Choice::Fragment);
            let frame = with_dont_fragment(udp.clone(), true);
            let expected = match broadcast {
                true => Choice::DropBroadcast,
                false => Choice::TooBig,
            };
            assert_eq!(choose(PAYLOAD, &frame, broadcast), expected);
        }
        let mut tagged = udp[..12].to_vec();
        tagged.extend([0x81, 0, 0, 5]);
        tagged.extend(&udp[12..]);
        assert_eq!(choose(PAYLOAD, &tagged, false), Choice::Oversize);
    }

    #[test]
    fn ipv6_is_answered_down_to_its_smallest_mtu() {
        let mut frame = vec![0; 2000];
        frame[12..14].copy_from_slice(&[0x86, 0xdd]);
        frame[14] = 0x60;
        frame[18..20].copy_from_slice(&(2000_u16 - 54).to_be_bytes());
        frame[20] = 58;
        assert_eq!(choose(PAYLOAD, &frame, false), Choice::TooBig);
        assert_eq!(choose(PAYLOAD, &frame, true), Choice::Oversize);
        assert_eq!(choose(1300, &frame, false), Choice::Oversize);
    }
}
