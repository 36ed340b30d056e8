//! How a frame is sent over a link.

use super::tunnel::Tunnel;
use super::wire::{Channel, FRAME_HEADER_BYTES, PACKET_BYTES_MAX};
use crate::ethernet::{self, Frame, Ipv4};

/// What to do with a frame that is to be sent over a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it as it is on this channel.
    Send(Channel),
    /// Cut the IPv4 packet to the link's MTU (`Fragments`) and send the pieces on the DF channel.
    Fragment,
    /// Do not send it; report the link's MTU to its source (`icmp::too_big`). The answer enters our
    /// own switch as if it came from the frame's destination peer.
    TooBig,
    /// Do not send it.
    Drop(DropReason),
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The neighbour's address is not known yet.
    NoAddress,
    /// It does not fit and must not be fragmented. Its source is not told, because it is a
    /// broadcast.
    TooBigBroadcast,
    /// It is larger than any packet.
    TooBig,
}

impl DropReason {
    /// Returns a short name for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::NoAddress => "no_address",
            DropReason::TooBigBroadcast => "too_big_broadcast",
            DropReason::TooBig => "too_big",
        }
    }
}

/// Chooses how to send `frame` over a link. `broadcast` is true if the frame goes to all peers.
///
/// Frames with VLAN tags count as not IP, as in Weave Net.
///
/// Rule: `docs/protocol/sleeve.md#3-3-choice`.
#[inline]
pub fn choose(tunnel: &Tunnel, frame: &[u8], broadcast: bool) -> Choice {
    if tunnel.remote().is_none() {
        return Choice::Drop(DropReason::NoAddress);
    }
    let mtu = tunnel.mtu();
    let fits = frame.len() <= mtu + ethernet::HEADER_BYTES;
    let Some(ip) = untagged_ipv4(frame) else {
        return choose_other(tunnel, frame, fits || broadcast);
    };
    if ip.dont_fragment() {
        return match (fits, broadcast) {
            (true, _) => Choice::Send(Channel::Df),
            (false, true) => Choice::Drop(DropReason::TooBigBroadcast),
            (false, false) => Choice::TooBig,
        };
    }
    if tunnel.fragments_proven() {
        return send_non_df(tunnel, frame);
    }
    if fits {
        Choice::Send(Channel::Df)
    } else {
        Choice::Fragment
    }
}

/// Chooses how to send a frame that is not IPv4: on the non-DF channel, where the kernel fragments
/// it. If fragments were not seen to arrive, the source of an IPv6 frame that needs them is told to
/// send smaller packets, unless the MTU is below the minimum of IPv6.
///
/// Rule: `docs/protocol/sleeve.md#7-1-icmp`.
fn choose_other(tunnel: &Tunnel, frame: &[u8], sendable: bool) -> Choice {
    if !sendable && !tunnel.fragments_proven() && tunnel.mtu() >= super::icmp::IPV6_MTU_MIN {
        let ipv6 = Frame::parse(frame).ok().filter(|view| !view.is_tagged());
        if ipv6.and_then(|view| view.ipv6()).is_some() {
            return Choice::TooBig;
        }
    }
    send_non_df(tunnel, frame)
}

fn send_non_df(tunnel: &Tunnel, frame: &[u8]) -> Choice {
    if tunnel.header_len() + FRAME_HEADER_BYTES + frame.len() > PACKET_BYTES_MAX {
        return Choice::Drop(DropReason::TooBig);
    }
    Choice::Send(Channel::NonDf)
}

fn untagged_ipv4(frame: &[u8]) -> Option<Ipv4<'_>> {
    let view = Frame::parse(frame).ok()?;
    if view.is_tagged() {
        return None;
    }
    view.ipv4()
}

#[cfg(test)]
mod tests;
