//! UDP to TAP, and relaying.

use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::Arc;

use arc_swap::Cache;
use proto::ethernet::{self, Frame};
use proto::native;
use proto::native::join::ChunkJoiner;
use proto::native::tunnel::stream_of_relayed;
use proto::offload::join::{Checksums, Joined, Joiner, TCP_SEGMENTS_MAX};
use proto::offload::split::Split;
use proto::offload::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, OpenFrame, VnetHeader};
use proto::sleeve::wire;
use proto::sleeve::{self, Enclosed, LinkId, Replay, Special, Tunnel, icmp};
use proto::switch::{Learned, LinkIndex, PeerSlot, Received};
use proto::types::{Mac, PeerName};

use super::output::{Frames, Heading, Outcome, Output};
use crate::context::{Context, FRAME_BYTES_MAX, Shared};
use crate::tap::TapQueue;
use crate::udp::feature::FeatureState;
use crate::udp::sockets::{Incoming, ReceiveBatch};
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;

mod native_link;

/// How many messages one call receives where the kernel puts datagrams together.
const MESSAGES_JOINED: usize = 16;
/// How many messages one call receives where each is one datagram.
const MESSAGES_SINGLE: usize = 64;
/// Bytes of each receive buffer: the largest message.
const MESSAGE_BYTES: usize = 1 << 16;

/// The thread that takes packets from a socket.
pub(super) struct Receive {
    shared: Arc<Shared>,
    tap: Arc<TapQueue>,
    queue: usize,
    batch: ReceiveBatch,
    /// What was seen on each tunnel of the snapshot, in the same order.
    seen: Vec<Seen>,
    joiner: Joiner,
    chunks: ChunkJoiner,
    output: Output,
    scratch: Box<[u8]>,
}

/// What was seen on one tunnel.
struct Seen {
    link: LinkId,
    replay: Replay,
}

impl Receive {
    pub(super) fn new(shared: Arc<Shared>, tap: Arc<TapQueue>, queue: usize) -> Receive {
        let messages = match shared.sockets.gro.state() {
            FeatureState::On => MESSAGES_JOINED,
            _ => MESSAGES_SINGLE,
        };
        let joiner = Joiner::new(shared.join_kinds());
        Receive {
            shared,
            tap,
            queue,
            batch: ReceiveBatch::new(messages, MESSAGE_BYTES),
            seen: Vec::new(),
            joiner,
            chunks: ChunkJoiner::new(),
            output: Output::new(stream_of_relayed(queue)),
            scratch: vec![0; 2 * FRAME_BYTES_MAX].into(),
        }
    }

    /// Carries packets until the threads are to stop.
    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let socket = shared.sockets.df(self.queue);
        let mut snapshots = Cache::new(&shared.snapshot);
        let mut current = None;
        while !shared.is_stopping() {
            let due = self.output.due();
            match self.batch.receive(socket) {
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => continue,
                Err(_) if due.is_some_and(|due| due <= shared.now()) => {}
                Err(_) => {
                    shared.wait(socket, due);
                    continue;
                }
            }
            let latest = snapshots.load();
            let cx = Context {
                shared: &shared,
                snapshot: latest,
                counters: &shared.counters[2 * self.queue + 1],
                queue: self.queue,
                now: shared.now(),
            };
            if !current.as_ref().is_some_and(|c| Arc::ptr_eq(c, latest)) {
                self.reset(&cx);
                current = Some(Arc::clone(latest));
            }
            if due.is_some() {
                self.output.release(&cx);
            }
            self.carry(&cx);
        }
    }

    /// Takes over another snapshot: what was seen on tunnels that stay is kept.
    fn reset(&mut self, cx: &Context<'_>) {
        self.output.reset(cx);
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

    /// Carries the messages of one batch.
    fn carry(&mut self, cx: &Context<'_>) {
        cx.counters.add(Count::ReceiveBatches, 1);
        self.joiner.set_kinds(cx.shared.join_kinds());
        let mut index = 0;
        while let Some(message) = self.batch.message(index) {
            index += 1;
            if message.truncated {
                cx.counters.drop(DropReason::Truncated, 1);
                continue;
            }
            if message.len == 0 {
                cx.counters.drop(DropReason::Malformed, 1);
            }
            let end = message.start + message.len;
            for start in (message.start..end).step_by(message.stride) {
                self.packet(cx, &message, start..end.min(start + message.stride));
            }
            if self.output.is_filled() {
                self.output.flush(cx);
            }
        }
        self.flush_chunks(cx);
        self.flush_joined(cx);
        self.output.flush(cx);
    }

    /// Opens one packet and carries its frames.
    fn packet(&mut self, cx: &Context<'_>, message: &Incoming, range: Range<usize>) {
        let slab = self.batch.slab_mut();
        let Some(packet) = slab.get_mut(range.clone()) else {
            return;
        };
        if native::wire::is_native(packet) {
            return self.native(cx, message.from, range);
        }
        // Frames go to the device in the order in which they came.
        if !self.chunks.is_empty() {
            self.flush_chunks(cx);
        }
        let slab = self.batch.slab_mut();
        let Some(packet) = slab.get_mut(range.clone()) else {
            return;
        };
        let Some(sender) = wire::sender(packet) else {
            return cx.counters.drop(DropReason::Malformed, 1);
        };
        let mut result = Err(DropReason::UnknownSender);
        for index in cx.snapshot.tunnels_of(sender) {
            let tunnels = cx.snapshot.tunnels();
            let (Some(tunnel), Some(seen)) = (tunnels.get(index), self.seen.get_mut(index)) else {
                break;
            };
            result = sleeve::codec::open(tunnel, &mut seen.replay, packet)
                .map(|opened| (tunnel, opened))
                .map_err(DropReason::from);
            // What does not open with one key is as it was and may open with another.
            if !matches!(result, Err(DropReason::Forged)) {
                break;
            }
        }
        let (tunnel, mut opened) = match result {
            Ok(opened) => opened,
            Err(reason) => return cx.counters.drop(reason, 1),
        };
        cx.counters.add(Count::PacketsReceived, 1);
        cx.counters.add(Count::ReceivedBytes, range.len());
        loop {
            let slab = self.batch.slab_mut();
            match opened.next(slab.get(range.clone()).unwrap_or_default()) {
                None => break,
                Some(Err(_)) => {
                    cx.counters.drop(DropReason::Malformed, 1);
                    break;
                }
                Some(Ok(frame)) => {
                    cx.counters.add(Count::Received, 1);
                    self.frame(cx, tunnel, message.from, range.start, frame);
                }
            }
        }
    }

    /// Carries one frame of the sleeve packet that starts at `packet`.
    #[inline]
    fn frame(
        &mut self,
        cx: &Context<'_>,
        tunnel: &Tunnel,
        from: SocketAddrV4,
        packet: usize,
        frame: Enclosed,
    ) {
        let range = packet + frame.range.start..packet + frame.range.end;
        let bytes = self.batch.slab_mut().get(range.clone()).unwrap_or_default();
        if ethernet::is_special(bytes) {
            return special(cx, tunnel, from, &frame, bytes);
        }
        if !tunnel.takes(from) {
            return cx.counters.drop(DropReason::Spoofed, 1);
        }
        let names = (tunnel.peer(), frame.source, frame.destination);
        self.deliver(cx, names, range, Checksums::Present);
    }

    /// Decides on one frame that lies at `range` of the slab and carries it. If its checksums are
    /// absent, it is a whole TCP segment or UDP datagram.
    #[inline]
    fn deliver(
        &mut self,
        cx: &Context<'_>,
        (neighbour, source, dest): (PeerName, PeerName, PeerName),
        range: Range<usize>,
        checksums: Checksums,
    ) {
        let slab = self.batch.slab_mut();
        let bytes = slab.get(range.clone()).unwrap_or_default();
        let Ok(view) = Frame::parse(bytes) else {
            return cx.counters.drop(DropReason::Short, 1);
        };
        let frames = match checksums {
            Checksums::Present => Frames::Whole(bytes),
            Checksums::Absent => match OpenFrame::new(bytes) {
                Some(open) => Frames::Open(open),
                None => return cx.counters.drop(DropReason::BadOffload, 1),
            },
        };
        let macs = (view.destination(), view.source());
        match decide(cx, (neighbour, source, dest), macs) {
            Received::Drop(reason) => return cx.counters.drop(reason.into(), 1),
            Received::Relay(link) => {
                return relay(cx, &mut self.output, link, (source, dest), frames);
            }
            Received::Inject => {}
            Received::InjectAndFlood(flood) => {
                cx.counters.add(Count::Made, flood.len());
                self.output.flood(cx, source, flood, frames);
            }
        }
        let sink = &mut Sink {
            cx,
            tap: &self.tap,
            scratch: &mut self.scratch,
        };
        self.joiner
            .push(slab, range, checksums, &mut |frame| sink.inject(frame));
    }

    /// Writes what was kept back to the device.
    fn flush_joined(&mut self, cx: &Context<'_>) {
        let sink = &mut Sink {
            cx,
            tap: &self.tap,
            scratch: &mut self.scratch,
        };
        self.joiner
            .flush(self.batch.slab_mut(), &mut |frame| sink.inject(frame));
    }
}

/// What becomes of a frame with these addresses that `neighbour` sent, `source` captured, and that
/// is meant for `dest`.
/// Learns where its source address is.
#[inline]
fn decide<'a>(
    cx: &Context<'a>,
    (neighbour, source, dest): (PeerName, PeerName, PeerName),
    (dst, src): (Mac, Mac),
) -> Received<'a> {
    let forwarding = cx.snapshot.forwarding();
    if source == forwarding.us() {
        cx.counters.add(Count::OwnSource, 1);
    }
    let macs = &cx.shared.macs;
    let (decision, learned) =
        forwarding.received(cx.now, macs, (neighbour, source, dest), (dst, src));
    if learned != Learned::Known {
        let at = macs.lookup(src).unwrap_or(PeerSlot::US);
        cx.note(learned, src, at);
    }
    decision
}

/// Passes frames on to the next hop.
fn relay(
    cx: &Context<'_>,
    output: &mut Output,
    link: LinkIndex,
    (source, dest): (PeerName, PeerName),
    frames: Frames<'_>,
) {
    let heading = Heading {
        link,
        source,
        dest,
        broadcast: false,
    };
    if let Outcome::TooBig(mtu) = output.send(cx, heading, frames) {
        answer(cx, output, (source, dest), frames.first(), mtu);
    }
}

/// Hands a frame between routers to control, if it is from the neighbour to us.
fn special(cx: &Context<'_>, tunnel: &Tunnel, from: SocketAddrV4, frame: &Enclosed, bytes: &[u8]) {
    let ours = frame.source == tunnel.peer() && frame.destination == tunnel.us();
    let Some(special) = Special::classify(bytes).filter(|_| ours) else {
        return cx.counters.drop(DropReason::Special, 1);
    };
    cx.counters.add(Count::Specials, 1);
    let link = tunnel.id();
    cx.tell(DataEvent::Special {
        link,
        from,
        special,
    });
}

/// Tells the peer where a relayed frame was captured that it does not fit the next link, as if the
/// peer that it is for had.
fn answer(
    cx: &Context<'_>,
    output: &mut Output,
    (source, dest): (PeerName, PeerName),
    frame: &[u8],
    mtu: usize,
) {
    let mut buffer = [0; icmp::ANSWER_BYTES_MAX];
    let Some(len) = icmp::too_big(frame, mtu, &mut buffer) else {
        return;
    };
    let answer = &buffer[..len];
    let Some(link) = cx.snapshot.forwarding().next_hop(source) else {
        return;
    };
    let heading = Heading {
        link,
        source: dest,
        dest: source,
        broadcast: false,
    };
    cx.counters.add(Count::Made, 1);
    if let Outcome::TooBig(_) = output.send(cx, heading, Frames::Whole(answer)) {
        // An answer gets no answer.
    }
}

/// Where frames for the local bridge go.
struct Sink<'a> {
    cx: &'a Context<'a>,
    tap: &'a TapQueue,
    scratch: &'a mut [u8],
}

impl Sink<'_> {
    /// Writes one frame or super-frame to the device.
    fn inject(&mut self, frame: &Joined<'_>) {
        let header = frame.header.encode();
        let written = if frame.parts_len() == 1 && !frame.header.is_super() {
            let mut parts = frame.parts();
            let only = parts.next().unwrap_or_default();
            self.tap.write(&[IoSlice::new(&header), IoSlice::new(only)])
        } else if frame.header.is_super() && !self.takes(&frame.header) {
            return self.inject_segments(frame);
        } else {
            let mut pieces = [IoSlice::new(&[]); TCP_SEGMENTS_MAX + 1];
            pieces[0] = IoSlice::new(&header);
            for (piece, part) in pieces[1..].iter_mut().zip(frame.parts()) {
                *piece = IoSlice::new(part);
            }
            self.tap.write(&pieces[..=frame.parts_len()])
        };
        match written {
            Ok(()) => count(self.cx, frame.segments(), frame.frame_len()),
            Err(error) if frame.header.is_super() && is_refusal(&error) => {
                self.cx.shared.join.give_up(&error);
                self.inject_segments(frame);
            }
            Err(_) => fail(self.cx, frame.segments()),
        }
    }

    /// Whether the device takes such super-frames.
    fn takes(&self, header: &VnetHeader) -> bool {
        let kinds = self.cx.shared.join_kinds();
        match header.gso_type & !GSO_ECN {
            GSO_TCPV4 => kinds.tcp4,
            GSO_TCPV6 => kinds.tcp6,
            GSO_UDP_L4 => kinds.udp,
            _ => true,
        }
    }

    /// Writes the segments of a super-frame that the device does not take one by one.
    fn inject_segments(&mut self, frame: &Joined<'_>) {
        let (whole, segment) = self.scratch.split_at_mut(FRAME_BYTES_MAX);
        let copy = frame.copy_to(whole);
        let Some(Ok(split)) = copy.map(|copy| Split::new(frame.header, copy)) else {
            return fail(self.cx, frame.segments());
        };
        let header = proto::offload::vnet::VnetHeader::PLAIN.encode();
        for index in 0..split.segments() {
            let len = split.write_segment(index, segment);
            let pieces = [IoSlice::new(&header), IoSlice::new(&segment[..len])];
            match self.tap.write(&pieces) {
                Ok(()) => count(self.cx, 1, len),
                Err(_) => fail(self.cx, 1),
            }
        }
    }
}

fn count(cx: &Context<'_>, frames: usize, bytes: usize) {
    cx.counters.add(Count::TapWrites, 1);
    cx.counters.add(Count::Injected, frames);
    cx.counters.add(Count::InjectedBytes, bytes);
}

fn fail(cx: &Context<'_>, frames: usize) {
    cx.counters.drop(DropReason::TapFailed, frames);
}

/// Whether the device says that it takes no such super-frames, rather than that it is down or full.
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}
