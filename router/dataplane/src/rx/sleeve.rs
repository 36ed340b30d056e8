//! Sleeve packets, from the socket to the device or the next hop.

use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::Arc;

use proto::ethernet;
use proto::offload::join::Checksums;
use proto::sleeve::{self, Enclosed, LinkId, Replay, Special, Tunnel, wire};

use crate::context::Context;
use crate::deliver::Delivery;
use crate::opened::{Journey, OpenedFrame};
use crate::ports::{Datagrams, Frames};
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;

/// One thread's state on packets received over sleeve links.
pub(super) struct SleevePackets {
    /// Events seen on each tunnel of the snapshot, in the same order.
    seen: Vec<Seen>,
}

/// Events seen on one tunnel.
struct Seen {
    link: LinkId,
    replay: Replay,
}

impl SleevePackets {
    /// Nothing was seen yet.
    pub(super) const fn new() -> SleevePackets {
        SleevePackets { seen: Vec::new() }
    }

    /// Takes over another snapshot: what was seen on tunnels that stay is kept.
    pub(super) fn reset(&mut self, cx: &Context<'_>) {
        let mut old = std::mem::take(&mut self.seen);
        let keep = |tunnel: &Arc<Tunnel>| {
            let known = old.iter().position(|seen| seen.link == tunnel.id());
            known.map_or_else(
                || Seen {
                    link: tunnel.id(),
                    replay: Replay::new(),
                },
                |index| old.swap_remove(index),
            )
        };
        self.seen = cx.snapshot.tunnels().iter().map(keep).collect();
    }

    /// Opens the packet at `range` of the slab and carries its frames.
    pub(super) fn carry<F: Frames, D: Datagrams>(
        &mut self,
        cx: &Context<'_>,
        (slab, range): (&mut [u8], Range<usize>),
        from: SocketAddrV4,
        delivery: &mut Delivery<F, D>,
    ) {
        let packet = slab.get_mut(range.clone()).unwrap_or_default();
        let (tunnel, mut opened) = match self.open(cx, packet) {
            Ok(opened) => opened,
            Err(reason) => return cx.counters.drop(reason, 1),
        };
        cx.counters.add(Count::PacketsReceived, 1);
        cx.counters.add(Count::ReceivedBytes, range.len());
        loop {
            match opened.next(slab.get(range.clone()).unwrap_or_default()) {
                None => break,
                Some(Err(_)) => {
                    cx.counters.drop(DropReason::Malformed, 1);
                    break;
                }
                Some(Ok(frame)) => {
                    cx.counters.add(Count::Received, 1);
                    carry_frame(cx, (slab, range.start), (tunnel, from), &frame, delivery);
                }
            }
        }
    }

    /// Finds the tunnel that a packet came by and opens it in place.
    fn open<'a>(
        &mut self,
        cx: &Context<'a>,
        packet: &mut [u8],
    ) -> Result<(&'a Tunnel, sleeve::Opened), DropReason> {
        let sender = wire::sender(packet).ok_or(DropReason::Malformed)?;
        let mut result = Err(DropReason::UnknownSender);
        for index in cx.snapshot.tunnels_of(sender) {
            let tunnels = cx.snapshot.tunnels();
            let (Some(tunnel), Some(seen)) = (tunnels.get(index), self.seen.get_mut(index)) else {
                break;
            };
            result = sleeve::codec::open(tunnel, &mut seen.replay, packet)
                .map(|opened| (&**tunnel, opened))
                .map_err(DropReason::from);
            // What does not open with one key is as it was and may open with another.
            if !matches!(result, Err(DropReason::Forged)) {
                break;
            }
        }
        result
    }
}

/// Carries one frame of the packet that starts at `start` of the slab.
#[inline]
fn carry_frame<F: Frames, D: Datagrams>(
    cx: &Context<'_>,
    (slab, start): (&mut [u8], usize),
    (tunnel, from): (&Tunnel, SocketAddrV4),
    frame: &Enclosed,
    delivery: &mut Delivery<F, D>,
) {
    let range = start + frame.range.start..start + frame.range.end;
    let bytes = slab.get(range.clone()).unwrap_or_default();
    if ethernet::is_special(bytes) {
        return special(cx, tunnel, from, frame, bytes);
    }
    if !tunnel.is_encrypted() {
        // Anybody can make such a packet, so it must at least come from where the neighbour is.
        if tunnel.remote() != Some(from) {
            return cx.counters.drop(DropReason::OtherAddress, 1);
        }
        if cx.snapshot.is_idle(tunnel.id()) || !tunnel.takes(from) {
            return cx.counters.drop(DropReason::IdleLink, 1);
        }
    }
    let journey = Journey {
        source: frame.source,
        dest: frame.destination,
        via: tunnel.peer(),
    };
    match OpenedFrame::check(slab, range, journey, Checksums::Present) {
        Ok(opened) => delivery.frame(cx, slab, opened),
        Err(reason) => cx.counters.drop(reason, 1),
    }
}

/// Hands a frame between routers to control, if it is from the neighbour to us.
fn special(cx: &Context<'_>, tunnel: &Tunnel, from: SocketAddrV4, frame: &Enclosed, bytes: &[u8]) {
    let ours = frame.source == tunnel.peer() && frame.destination == tunnel.us();
    let Some(special) = Special::classify(bytes).filter(|_| ours) else {
        return cx.counters.drop(DropReason::Special, 1);
    };
    // A neighbour that moved says so with the number that only the two ends know.
    let moved = !tunnel.is_encrypted() && tunnel.remote() != Some(from);
    if moved && !matches!(special, Special::Heartbeat(_)) {
        return cx.counters.drop(DropReason::OtherAddress, 1);
    }
    cx.counters.add(Count::Specials, 1);
    let link = tunnel.id();
    cx.tell(DataEvent::Special {
        link,
        from,
        special,
    });
}
