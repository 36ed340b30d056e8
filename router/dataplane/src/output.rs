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

use proto::offload::split::Split;
use proto::offload::vnet::OpenFrame;
use proto::sleeve::fragment::Fragments;
use proto::sleeve::{self, Channel, Choice, LinkId, PacketBuilder, Tunnel};
use proto::switch::{Flood, LinkIndex};
use proto::types::{PeerName, Time};

use super::pacing::Pace;
use crate::context::{Context, FRAME_BYTES_MAX};
use crate::udp::sender::{DATAGRAM_BYTES_MAX, Failure, Sender};
use crate::udp::sockets::Way;
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use boundary::snapshot::{Encap, Link};
use native::OpenNative;

mod native;

/// Bytes of the buffer. A packet for which there is no room makes everything before it leave.
const ARENA_BYTES: usize = 256 << 10;
/// How many sealed packets wait to be sent. One more makes those before it leave.
const PACKETS_MAX: usize = 512;
/// How far small frames fill a packet on a path that would take more. Larger packets save little
/// and delay the first frame in them.
const PACKED_BYTES_MAX: usize = 9000;
/// How many bytes are collected before they are sent although more input waits: about one
/// super-frame, so that the buffer stays in the processor's cache and the receiver is kept busy.
const FLUSH_BYTES: usize = 64 << 10;

const _: () = assert!(ARENA_BYTES >= 2 * DATAGRAM_BYTES_MAX);

/// A frame that is to leave.
#[derive(Clone, Copy, Debug)]
pub(super) enum Frames<'a> {
    /// One frame.
    Whole(&'a [u8]),
    /// One frame whose checksum is still to be completed.
    Open(OpenFrame<'a>),
    /// A super-frame, which leaves as its segments.
    Super(&'a Split<'a>),
}

impl<'a> Frames<'a> {
    /// How many frames these are on the wire.
    pub(super) const fn count(&self) -> usize {
        match self {
            Frames::Whole(_) | Frames::Open(_) => 1,
            Frames::Super(split) => split.segments(),
        }
    }

    /// Frame `index` with its checksums, in `scratch` unless it has them.
    fn complete<'b>(&self, index: usize, scratch: &'b mut [u8]) -> &'b [u8]
    where
        'a: 'b,
    {
        let len = match self {
            Frames::Whole(frame) => return frame,
            Frames::Open(frame) => {
                let len = frame.bytes().len();
                match scratch.get_mut(..len) {
                    Some(out) => frame.write_complete(out),
                    None => return &[],
                }
                len
            }
            Frames::Super(split) => split.write_segment(index, scratch),
        };
        scratch.get(..len).unwrap_or_default()
    }

    /// The first frame, as far as its headers and its length go.
    pub(super) fn first(&self) -> &'a [u8] {
        match self {
            Frames::Whole(frame) => frame,
            Frames::Open(frame) => frame.bytes(),
            Frames::Super(split) => {
                let frame = split.frame();
                frame.get(..split.segment_len(0)).unwrap_or(frame)
            }
        }
    }
}

/// Where frames are to go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Heading {
    /// The link by which they leave.
    pub(super) link: LinkIndex,
    /// The peer where they were captured.
    pub(super) source: PeerName,
    /// The peer they are for.
    pub(super) dest: PeerName,
    /// Whether they go to all peers.
    pub(super) broadcast: bool,
}

/// A frame that does not fit the link and whose sender is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub(super) enum Outcome {
    /// The frames are on their way, or dropped and counted.
    Done,
    /// The frames do not fit a link with this MTU. They are counted as dropped; the sender is to
    /// be told.
    TooBig(usize),
}

/// The packets of one thread; see the module.
pub(super) struct Output {
    arena: Box<[u8]>,
    top: usize,
    lanes: Vec<Lane>,
    /// The lanes that may have a packet that is being filled.
    busy: Vec<LinkIndex>,
    sender: Sender,
    sent: Vec<Sent>,
    scratch: Box<[u8]>,
    /// The stream of this thread on native links.
    stream: u8,
}

/// The packets of one link that are being filled: of a sleeve link by channel, or the one of a
/// native link.
#[derive(Default)]
struct Lane {
    link: Option<LinkId>,
    open: [Option<Open>; 2],
    native: Option<OpenNative>,
    is_busy: bool,
    /// Holds packets back, for neighbours that need it.
    pace: Option<Box<Pace>>,
}

/// A packet that is being filled.
struct Open {
    builder: PacketBuilder,
    start: usize,
    room: usize,
}

/// A packet that is sealed.
#[derive(Clone, Copy)]
struct Packet {
    link: LinkIndex,
    start: usize,
    len: usize,
    frames: usize,
    /// Whether it may share a send with others.
    segmentable: bool,
}

/// What is remembered of a sealed packet until it has left.
#[derive(Clone, Copy)]
struct Sent {
    start: usize,
    link: LinkIndex,
    frames: usize,
}

impl Output {
    pub(super) fn new(stream: u8) -> Output {
        Output {
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

    /// When something that waits may leave.
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

    /// Whether enough is staged to be sent although more input waits.
    pub(super) fn is_filled(&self) -> bool {
        self.top >= FLUSH_BYTES
    }

    /// Stages frames for a link.
    #[inline]
    pub(super) fn send(&mut self, cx: &Context<'_>, to: Heading, frames: Frames<'_>) -> Outcome {
        let Some(link) = cx.snapshot.link(to.link) else {
            cx.counters.drop(DropReason::NoLink, frames.count());
            return Outcome::Done;
        };
        match &link.encap {
            Encap::Sleeve(tunnel) => self.send_sleeve(cx, to, tunnel, frames),
            Encap::Native(native) => self.send_native(cx, to, native, frames),
        }
    }

    /// Stages a copy of frames for each neighbour of a flood.
    pub(super) fn flood(
        &mut self,
        cx: &Context<'_>,
        source: PeerName,
        flood: Flood<'_>,
        frames: Frames<'_>,
    ) {
        for (dest, link) in flood.targets() {
            let Some(link) = link else {
                cx.counters.drop(DropReason::NoLink, frames.count());
                continue;
            };
            let heading = Heading {
                link,
                source,
                dest,
                broadcast: true,
            };
            if let Outcome::TooBig(_) = self.send(cx, heading, frames) {
                // Nobody is told of what goes to all.
            }
        }
    }

    fn send_sleeve(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        tunnel: &Tunnel,
        frames: Frames<'_>,
    ) -> Outcome {
        // Segments differ in length only, and none is longer than the first.
        match sleeve::choose(tunnel, frames.first(), to.broadcast) {
            Choice::Send(channel) => match frames {
                Frames::Whole(frame) => {
                    if let Some(space) = self.space(cx, to, tunnel, channel, frame.len()) {
                        space.copy_from_slice(frame);
                    }
                }
                Frames::Open(frame) => {
                    let len = frame.bytes().len();
                    if let Some(space) = self.space(cx, to, tunnel, channel, len) {
                        frame.write_complete(space);
                    }
                }
                Frames::Super(split) => {
                    for index in 0..split.segments() {
                        let len = split.segment_len(index);
                        if let Some(space) = self.space(cx, to, tunnel, channel, len) {
                            split.write_segment(index, space);
                        }
                    }
                }
            },
            Choice::Fragment => self.fragment(cx, to, tunnel, frames),
            Choice::TooBig => {
                cx.counters.drop(DropReason::TooBig, frames.count());
                return Outcome::TooBig(tunnel.mtu());
            }
            Choice::Drop(reason) => cx.counters.drop(reason.into(), frames.count()),
        }
        Outcome::Done
    }

    /// Stages the IPv4 fragments of each frame.
    fn fragment(&mut self, cx: &Context<'_>, to: Heading, tunnel: &Tunnel, frames: Frames<'_>) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..frames.count() {
            let frame = frames.complete(index, &mut scratch);
            match Fragments::new(frame, tunnel.mtu()) {
                Err(_) => cx.counters.drop(DropReason::Oversized, 1),
                Ok(fragments) => {
                    cx.counters.add(Count::Made, fragments.count() - 1);
                    for part in 0..fragments.count() {
                        let len = fragments.frame_len(part);
                        if let Some(space) = self.space(cx, to, tunnel, Channel::Df, len) {
                            fragments.write(part, space);
                        }
                    }
                }
            }
        }
        self.scratch = scratch;
    }

    /// The place of a frame of `len` bytes in a packet of the link. None if there is no packet that
    /// it fits; the frame is then counted as dropped.
    #[inline]
    fn space(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        tunnel: &Tunnel,
        channel: Channel,
        len: usize,
    ) -> Option<&mut [u8]> {
        let fits = |open: &Open| {
            open.builder.fits(len)
                && open.builder.len() + sleeve::wire::FRAME_HEADER_BYTES + len <= open.room
        };
        let lane = self.lanes.get(to.link.get())?;
        if !lane.open[channel.index()].as_ref().is_some_and(fits) {
            self.close(cx, to.link, tunnel, channel);
            self.open(cx, to.link, tunnel, channel, len);
        }
        let lane = self.lanes.get_mut(to.link.get())?;
        let open = lane.open[channel.index()].as_mut()?;
        let buffer = &mut self.arena[open.start..open.start + open.room];
        let space = open.builder.append(buffer, to.source, to.dest, len);
        if space.is_none() {
            cx.counters.drop(DropReason::Oversized, 1);
        }
        space
    }

    /// Starts a packet that takes at least a frame of `len` bytes.
    fn open(
        &mut self,
        cx: &Context<'_>,
        link: LinkIndex,
        tunnel: &Tunnel,
        channel: Channel,
        len: usize,
    ) {
        let builder = PacketBuilder::new(tunnel, channel);
        let needed = builder.len() + sleeve::wire::FRAME_HEADER_BYTES + len;
        let room = needed.max(tunnel.max_payload().min(PACKED_BYTES_MAX));
        let start = self.reserve(cx, room);
        if let Some(lane) = self.busy_lane(link) {
            lane.open[channel.index()] = Some(Open {
                builder,
                start,
                room,
            });
        }
    }

    /// Sets space aside for `len` bytes, if need be after everything before was sent.
    fn reserve(&mut self, cx: &Context<'_>, len: usize) -> usize {
        if self.top + len > self.arena.len() {
            self.flush(cx);
        }
        let start = self.top;
        self.top += len;
        start
    }

    /// Space that was set aside.
    #[inline]
    fn reserved(&mut self, start: usize, len: usize) -> &mut [u8] {
        self.arena.get_mut(start..start + len).unwrap_or_default()
    }

    /// Gives back what of the space set aside last is not needed: the next packet follows without
    /// a gap, so that both can share a run.
    fn give_back(&mut self, reserved_end: usize, used_end: usize) {
        if self.top == reserved_end {
            self.top = used_end;
        }
    }

    /// The lane of a link.
    #[inline]
    fn lane(&mut self, link: LinkIndex) -> Option<&mut Lane> {
        self.lanes.get_mut(link.get())
    }

    /// The lane of a link, which the flush is to look after.
    fn busy_lane(&mut self, link: LinkIndex) -> Option<&mut Lane> {
        let lane = self.lanes.get_mut(link.get())?;
        if !std::mem::replace(&mut lane.is_busy, true) {
            self.busy.push(link);
        }
        Some(lane)
    }

    /// Hands a sealed packet to the sender.
    #[inline]
    fn stage(&mut self, cx: &Context<'_>, way: Way, to: SocketAddrV4, packet: Packet) {
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
        let segmentable = segmentable && cx.shared.sockets.gso.is_on();
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
    fn close(&mut self, cx: &Context<'_>, link: LinkIndex, tunnel: &Tunnel, channel: Channel) {
        let lane = self.lanes.get_mut(link.get());
        let Some(open) = lane.and_then(|lane| lane.open[channel.index()].take()) else {
            return;
        };
        let Open {
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

    /// Hands a packet of a sleeve link to the sender.
    fn commit(&mut self, cx: &Context<'_>, tunnel: &Tunnel, channel: Channel, packet: Packet) {
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
        self.sender
            .flush(&cx.shared.sockets, cx.queue, arena, |failure| {
                let Some(packet) = sent.iter().find(|sent| sent.start == failure.start) else {
                    return;
                };
                let Some(link) = cx.snapshot.link(packet.link) else {
                    return;
                };
                handle_failure(cx, link, packet.frames, &failure, arena, &mut told);
            });
        self.sent.clear();
    }
}

/// Deals with a packet that the kernel did not take. One that exceeds the path MTU is sent once
/// more on the socket whose packets may be fragmented: until control has set a smaller MTU, nothing
/// is lost.
fn handle_failure(
    cx: &Context<'_>,
    link: &Link,
    frames: usize,
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
            && let Ok(path_mtu) = cx.shared.sockets.path_mtu(failure.to)
        {
            *told = Some(failure.to);
            cx.tell(DataEvent::TooBig {
                link: link.id(),
                path_mtu,
            });
        }
        let bytes = arena.get(failure.start..failure.start + failure.len);
        let again = bytes.map(|bytes| {
            let sockets = &cx.shared.sockets;
            sockets.send_one(Way::NonDf, failure.to, bytes)
        });
        if let Some(Ok(())) = again {
            cx.counters.add(Count::PacketsFragmented, 1);
            return;
        }
    }
    cx.counters.take_back(Count::Sent, frames);
    cx.counters.drop(reason, frames);
}
