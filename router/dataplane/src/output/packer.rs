//! Packets on their way out of one thread: packed, sealed and sent from one buffer.
//!
//! ```text
//! arena  | packet | packet | packet |      packet being filled     |      free      |
//!          lane 3   lane 3   lane 3   lane 5, room for a full packet ^ top
//! ```
//!
//! Each link has a lane with at most one packet per channel that is still being filled. Frames are
//! written straight to their place in a packet; that is the one copy on the way out. A packet that
//! takes no more is sealed where it lies and waits for the flush, which sends everything with as few
//! system calls as it can: packets of equal size that lie side by side leave as one run.
//!
//! Nothing stays behind a flush, and there is one at the end of every batch of input.

use std::net::SocketAddrV4;
use std::sync::Arc;

use proto::native::wire::{HEADER_BYTES, Kind, NAMES_BYTES, TAG_BYTES};
use proto::sleeve::{Channel, LinkId, PacketBuilder, Tunnel};
use proto::switch::LinkIndex;
use proto::types::Time;

use crate::context::{Context, FRAME_BYTES_MAX};
use crate::pacing::Pace;
use crate::ports::Datagrams;
use crate::udp::sender::{DATAGRAM_BYTES_MAX, Failure, Sender};
use crate::udp::way::Way;
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use boundary::snapshot::{Encap, Link, NativeLink};

/// Size in bytes of the buffer. A packet for which there is no room makes everything before it
/// leave.
const ARENA_BYTES: usize = 256 << 10;
/// Maximum number of sealed packets that wait to be sent. One more makes those before it leave.
const PACKETS_MAX: usize = 512;
/// Number of bytes that are collected before they are sent although more input waits: about one
/// super-frame, so that the buffer stays in the processor's cache and the receiver is kept busy.
const FLUSH_BYTES: usize = 64 << 10;

const _: () = assert!(ARENA_BYTES >= 2 * DATAGRAM_BYTES_MAX);

/// The packets of one thread; see the module.
///
/// Larger than the habit: the ways into sleeve and native links (`sleeve.rs`, `native.rs`) are written
/// as methods, since both fill the one buffer and either may have to empty it for the other.
pub(super) struct Packer<D> {
    datagrams: Arc<D>,
    arena: Box<[u8]>,
    top: usize,
    lanes: Vec<Lane>,
    /// The lanes that may have a packet that is being filled.
    busy: Vec<LinkIndex>,
    sender: Sender,
    sent: Vec<Sent>,
    pub(super) scratch: Box<[u8]>,
    /// The stream of this thread on native links.
    pub(super) stream: u8,
}

/// The packets of one link that are being filled: of a sleeve link by channel, or the one of a
/// native link.
#[derive(Default)]
pub(super) struct Lane {
    link: Option<LinkId>,
    pub(super) open: [Option<OpenSleeve>; 2],
    pub(super) native: Option<OpenNative>,
    is_busy: bool,
    /// Holds packets back, for neighbours that need it.
    pace: Option<Box<Pace>>,
}

/// A sleeve packet that is being filled.
pub(super) struct OpenSleeve {
    pub(super) builder: PacketBuilder,
    pub(super) start: usize,
    pub(super) room: usize,
}

/// A datagram that is being filled with frames.
pub(super) struct OpenNative {
    pub(super) names: [u8; NAMES_BYTES],
    pub(super) start: usize,
    pub(super) room: usize,
    pub(super) len: usize,
    pub(super) frames: usize,
}

/// A packet that is sealed.
#[derive(Clone, Copy)]
pub(super) struct Packet {
    pub(super) link: LinkIndex,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) frames: usize,
    /// Whether it may share a send with others.
    pub(super) segmentable: bool,
}

/// Record of a sealed packet until it has left.
#[derive(Clone, Copy)]
struct Sent {
    start: usize,
    link: LinkIndex,
    frames: usize,
}

impl<D: Datagrams> Packer<D> {
    pub(super) fn new(datagrams: Arc<D>, stream: u8) -> Packer<D> {
        Packer {
            datagrams,
            arena: vec![0; ARENA_BYTES].into(),
            top: 0,
            lanes: Vec::new(),
            busy: Vec::new(),
            sender: Sender::new(),
            sent: Vec::with_capacity(PACKETS_MAX),
            scratch: vec![0; FRAME_BYTES_MAX].into(),
            stream,
        }
    }

    /// Makes lanes for the links of another snapshot. Nothing may be staged. What waits for links
    /// that stay goes on waiting.
    pub(super) fn reset(&mut self, cx: &Context<'_>) {
        debug_assert!(self.top == 0 && self.sender.is_empty());
        let mut old = std::mem::take(&mut self.lanes);
        let lane = |link: &Link| {
            let kept = old.iter_mut().find(|lane| lane.link == Some(link.id()));
            let kept = kept.and_then(|lane| lane.pace.take());
            let new = || Box::new(Pace::new(link.burst_packets));
            Lane {
                link: Some(link.id()),
                pace: (link.burst_packets > 0).then(|| kept.unwrap_or_else(new)),
                ..Lane::default()
            }
        };
        let links = cx.snapshot.links();
        self.lanes = links.iter().map(lane).collect();
        for pace in old.iter().filter_map(|lane| lane.pace.as_ref()) {
            cx.counters.drop(DropReason::NoLink, pace.frames());
        }
        self.busy.clear();
        self.busy.reserve(links.len());
    }

    /// Returns when something that waits may leave.
    pub(super) fn due(&self) -> Option<Time> {
        let paces = self.lanes.iter().filter_map(|lane| lane.pace.as_ref());
        let waiting = paces.filter(|pace| pace.is_waiting());
        waiting.map(|pace| pace.due()).min()
    }

    /// Sends what has waited long enough.
    pub(super) fn release(&mut self, cx: &Context<'_>) {
        for (index, link) in (0..).map(LinkIndex).zip(cx.snapshot.links()) {
            while let Some(lane) = self.lanes.get_mut(index.get())
                && let Some(pace) = &mut lane.pace
                && let Some((waiting, bytes)) = pace.release(cx.now, self.arena.len() - self.top)
            {
                let Encap::Sleeve(tunnel) = &link.encap else {
                    break;
                };
                let packet = Packet {
                    link: index,
                    start: self.top,
                    len: bytes.len(),
                    frames: waiting.frames,
                    segmentable: bytes.len() <= tunnel.max_payload(),
                };
                self.arena[packet.start..packet.start + packet.len].copy_from_slice(bytes);
                self.top += packet.len;
                self.commit(cx, tunnel, waiting.channel, packet);
            }
        }
        self.flush(cx);
    }

    /// Returns true if enough is staged to be sent although more input waits.
    pub(super) fn is_filled(&self) -> bool {
        self.top >= FLUSH_BYTES
    }

    /// Sets space aside for `len` bytes, if need be after everything before was sent.
    pub(super) fn reserve(&mut self, cx: &Context<'_>, len: usize) -> usize {
        if self.top + len > self.arena.len() {
            self.flush(cx);
        }
        let start = self.top;
        self.top += len;
        start
    }

    /// Space that was set aside.
    #[inline]
    pub(super) fn reserved(&mut self, start: usize, len: usize) -> &mut [u8] {
        self.arena.get_mut(start..start + len).unwrap_or_default()
    }

    /// Gives back what of the space set aside last is not needed: the next packet follows without
    /// a gap, so that both can share a run.
    pub(super) fn give_back(&mut self, reserved_end: usize, used_end: usize) {
        if self.top == reserved_end {
            self.top = used_end;
        }
    }

    /// Returns the lane of a link.
    #[inline]
    pub(super) fn lane(&mut self, link: LinkIndex) -> Option<&mut Lane> {
        self.lanes.get_mut(link.get())
    }

    /// Returns the lane of a link, and the buffer that its packets lie in.
    #[inline]
    pub(super) fn lane_and_arena(&mut self, link: LinkIndex) -> Option<(&mut Lane, &mut [u8])> {
        Some((self.lanes.get_mut(link.get())?, &mut self.arena))
    }

    /// Returns the lane of a link, which the flush is to look after.
    pub(super) fn busy_lane(&mut self, link: LinkIndex) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(link.get())?;
        if !std::mem::replace(&mut lane.is_busy, true) {
            self.busy.push(link);
        }
        Some(lane)
    }

    /// Hands a sealed packet to the sender.
    #[inline]
    pub(super) fn stage(&mut self, cx: &Context<'_>, way: Way, to: SocketAddrV4, packet: Packet) {
        let Packet {
            link,
            start,
            len,
            frames,
            segmentable,
        } = packet;
        if self.sent.len() == PACKETS_MAX || self.sender.is_full() {
            self.send_closed(cx);
        }
        let segmentable = segmentable && self.datagrams.cuts();
        self.sender.push(way, to, (start, len), segmentable);
        self.sent.push(Sent {
            start,
            link,
            frames,
        });
        cx.counters.add(Count::PacketsSent, 1);
        cx.counters.add(Count::Sent, frames);
        cx.counters.add(Count::SentBytes, len);
    }

    /// Seals the packet that is being filled, if there is one, and hands it to the sender.
    pub(super) fn close(
        &mut self,
        cx: &Context<'_>,
        link: LinkIndex,
        tunnel: &Tunnel,
        channel: Channel,
    ) {
        let lane = self.lanes.get_mut(link.get());
        let Some(open) = lane.and_then(|lane| lane.open[channel.index()].take()) else {
            return;
        };
        let OpenSleeve {
            builder,
            start,
            room,
        } = open;
        let frames = builder.frames();
        let len = builder.finish(tunnel, &mut self.arena[start..start + room]);
        self.give_back(start + room, start + len);
        let pace = self.lanes.get_mut(link.get());
        if let Some(pace) = pace.and_then(|lane| lane.pace.as_mut())
            && !pace.admit(cx.now)
        {
            let bytes = &self.arena[start..start + len];
            if pace.defer(bytes, frames, channel).is_err() {
                cx.counters.drop(DropReason::Congested, frames);
            }
            return;
        }
        let packet = Packet {
            link,
            start,
            len,
            frames,
            segmentable: len <= tunnel.max_payload(),
        };
        self.commit(cx, tunnel, channel, packet);
    }

    /// Seals the datagram that is being filled, if there is one, and hands it to the sender.
    pub(super) fn close_native(&mut self, cx: &Context<'_>, index: LinkIndex, link: &NativeLink) {
        let open = self.lane(index).and_then(|lane| lane.native.take());
        let Some(open) = open else {
            return;
        };
        let OpenNative {
            names,
            start,
            room,
            len,
            frames,
        } = open;
        let len = len + TAG_BYTES;
        self.give_back(start + room, start + len);
        let Some(to) = link.tunnel.remote() else {
            return cx.counters.drop(DropReason::NoAddress, frames);
        };
        let stream = self.stream;
        let Some(counter) = link.key.draw(stream, 1) else {
            return cx.counters.drop(DropReason::KeyWorn, frames);
        };
        let datagram = self.reserved(start, len);
        if let Some(space) = datagram.get_mut(HEADER_BYTES..HEADER_BYTES + NAMES_BYTES) {
            space.copy_from_slice(&names);
        }
        if !link.key.seal(Kind::Frames, stream, counter, datagram) {
            return cx.counters.drop(DropReason::Oversized, frames);
        }
        let packet = Packet {
            link: index,
            start,
            len,
            frames,
            segmentable: true,
        };
        self.stage(cx, Way::Native, to, packet);
    }

    /// Hands a packet of a sleeve link to the sender.
    pub(super) fn commit(
        &mut self,
        cx: &Context<'_>,
        tunnel: &Tunnel,
        channel: Channel,
        packet: Packet,
    ) {
        match tunnel.remote() {
            Some(to) => self.stage(cx, channel.into(), to, packet),
            None => cx.counters.drop(DropReason::NoAddress, packet.frames),
        }
    }

    /// Sends everything that is staged.
    pub(super) fn flush(&mut self, cx: &Context<'_>) {
        if self.top == 0 {
            return;
        }
        while let Some(index) = self.busy.pop() {
            if let Some(lane) = self.lanes.get_mut(index.get()) {
                lane.is_busy = false;
            }
            let Some(link) = cx.snapshot.link(index) else {
                continue;
            };
            match &link.encap {
                Encap::Sleeve(tunnel) => {
                    for channel in [Channel::Df, Channel::NonDf] {
                        self.close(cx, index, tunnel, channel);
                    }
                }
                Encap::Native(native) => self.close_native(cx, index, native),
            }
        }
        self.send_closed(cx);
        self.top = 0;
    }

    /// Sends the packets that are sealed.
    fn send_closed(&mut self, cx: &Context<'_>) {
        if self.sender.is_empty() {
            return;
        }
        cx.counters.add(Count::SendBatches, 1);
        let (sent, arena) = (&self.sent, &self.arena);
        let mut told = None;
        let datagrams = &*self.datagrams;
        self.sender.flush(datagrams, cx.queue, arena, |failure| {
            let Some(packet) = sent.iter().find(|sent| sent.start == failure.start) else {
                return;
            };
            let Some(link) = cx.snapshot.link(packet.link) else {
                return;
            };
            handle_failure(
                cx,
                datagrams,
                (link, packet.frames),
                &failure,
                arena,
                &mut told,
            );
        });
        self.sent.clear();
    }
}

/// Deals with a packet that the kernel did not take. One that exceeds the path MTU is sent once
/// more on the socket whose packets may be fragmented: until control has set a smaller MTU, nothing
/// is lost.
fn handle_failure<D: Datagrams>(
    cx: &Context<'_>,
    datagrams: &D,
    (link, frames): (&Link, usize),
    failure: &Failure,
    arena: &[u8],
    told: &mut Option<SocketAddrV4>,
) {
    let too_big = failure.error.raw_os_error() == Some(libc::EMSGSIZE);
    let reason = if too_big {
        DropReason::PathMtu
    } else {
        DropReason::SendFailed
    };
    if too_big && failure.way != Way::NonDf {
        if *told != Some(failure.to)
            && let Ok(path_mtu) = datagrams.path_mtu(failure.to)
        {
            *told = Some(failure.to);
            cx.tell(DataEvent::TooBig {
                link: link.id(),
                path_mtu,
            });
        }
        let bytes = arena.get(failure.start..failure.start + failure.len);
        let again = bytes.map(|bytes| datagrams.send_one(Way::NonDf, failure.to, bytes));
        if let Some(Ok(())) = again {
            cx.counters.add(Count::PacketsFragmented, 1);
            return;
        }
    }
    cx.counters.take_back(Count::Sent, frames);
    cx.counters.drop(reason, frames);
}
