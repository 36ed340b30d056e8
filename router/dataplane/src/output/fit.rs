//! Packets larger than the MTU that containers of other hosts are sure to accept.

use proto::ethernet::{Frame, Protocol};
use proto::sleeve::icmp::IPV6_MTU_MIN;

use super::frames::OutFrames;

/// The decision on such a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fit {
    /// It goes as the link takes it: TCP agrees on the size of its segments with the receiver, and
    /// what is not IP can be neither cut nor answered.
    AsItIs,
    /// It is cut into fragments.
    Fragment,
    /// Its sender is told.
    TooBig,
}

/// Chooses what becomes of `frames`, whose packets have more than `mtu` bytes. `broadcast` tells
/// that they go to all peers.
#[cold]
pub(super) fn choose(frames: &OutFrames<'_>, mtu: usize, broadcast: bool) -> Fit {
    let Ok(view) = Frame::parse(frames.first()) else {
        return Fit::AsItIs;
    };
    let layout = match frames {
        OutFrames::Super(split) => Some(*split.layout()),
        OutFrames::Whole(_) | OutFrames::Open(_) => view.layout(),
    };
    // Frames with VLAN tags count as not IP, as on sleeve.
    if view.is_tagged() || layout.is_some_and(|layout| layout.protocol == Protocol::Tcp) {
        return Fit::AsItIs;
    }
    if let Some(ip) = view.ipv4() {
        return match (ip.dont_fragment(), broadcast) {
            (false, _) => Fit::Fragment,
            (true, false) => Fit::TooBig,
            (true, true) => Fit::AsItIs,
        };
    }
    if view.ipv6().is_some() && !broadcast && mtu >= IPV6_MTU_MIN {
        return Fit::TooBig;
    }
    Fit::AsItIs
}
