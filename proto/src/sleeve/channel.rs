//! Which way a frame takes into a link.

use super::tunnel::Tunnel;
use super::wire::{Channel, FRAME_HEADER_BYTES, PACKET_BYTES_MAX};
use crate::ethernet::{self, Frame, Ipv4};

/// What to do with a frame that is to leave through a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Send it as it is on this channel.
    Send(Channel),
    /// Cut the IPv4 packet to the link's MTU (`Fragments`) and send the pieces on the DF channel.
    Fragment,
    /// Do not send it; tell its source the link's MTU (`icmp::too_big`). The answer enters our own
    /// switch as if it came from the peer that the frame was for.
    TooBig,
    /// Do not send it.
    Drop(DropReason),
}

/// Why a frame was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DropReason {
    /// The neighbour's address is not known yet.
    NoAddress,
    /// It must not be fragmented, does not fit, and nobody is told, since it is for many.
    TooBigBroadcast,
    /// It is larger than any packet.
    TooBig,
}

impl DropReason {
    /// A short name for counters.
    pub const fn as_str(self) -> &'static str {
        match self {
            DropReason::NoAddress => "no_address",
            DropReason::TooBigBroadcast => "too_big_broadcast",
            DropReason::TooBig => "too_big",
        }
    }
}

/// Chooses the way of `frame` into the link. `broadcast` tells that the frame goes to all peers.
///
/// Frames with VLAN tags count as not IP, as the original router sees them.
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

/// What is not IPv4 goes on the non-DF channel, where the kernel fragments it. Where fragments
/// were not seen to arrive, an IPv6 frame that needs them is answered, as the source can send
/// smaller packets down to the smallest MTU of IPv6; below that, fragments are the only hope.
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
