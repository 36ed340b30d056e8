//! Frames that came from other peers: learning where their senders are, deciding, and carrying them
//! into the device or on to the next hop.

use std::sync::Arc;

use proto::ethernet::Frame;
use proto::offload::join::{Joined, Joiner};
use proto::offload::split::Split;
use proto::offload::vnet;
use proto::sleeve::icmp;
use proto::switch::{Learned, LinkIndex, PeerSlot, Received};

use crate::context::{Context, FRAME_BYTES_MAX};
use crate::inject::Sink;
use crate::opened::{Journey, OpenedFrame};
use crate::output::{Heading, OutFrames, Outcome, Output};
use crate::ports::{Datagrams, Frames};
use boundary::counters::{Count, DropReason};

/// The outputs of one receiving thread.
pub(crate) struct Delivery<F, D> {
    tap: Arc<F>,
    joiner: Joiner,
    /// The way to next hops.
    pub(crate) output: Output<D>,
    scratch: Box<[u8]>,
}

impl<F: Frames, D: Datagrams> Delivery<F, D> {
    /// Into `tap`, and on by `output`.
    pub(crate) fn new(joiner: Joiner, tap: Arc<F>, output: Output<D>) -> Delivery<F, D> {
        Delivery {
            tap,
            joiner,
            output,
            scratch: vec![0; 2 * FRAME_BYTES_MAX].into(),
        }
    }

    /// Joins frames of the kinds that the device takes from now on.
    pub(crate) fn set_kinds(&mut self, cx: &Context<'_>) {
        self.joiner.set_kinds(cx.shared.join_kinds());
    }

    /// Carries one frame, which lies in `slab`.
    #[inline]
    pub(crate) fn frame(&mut self, cx: &Context<'_>, slab: &mut [u8], frame: OpenedFrame) {
        let journey = frame.journey;
        let bytes = slab.get(frame.range.clone()).unwrap_or_default();
        let Ok(view) = Frame::parse(bytes) else {
            return cx.counters.drop(DropReason::Short, 1);
        };
        let decision = match decide(cx, journey, &view) {
            Ok(decision) => decision,
            Err(reason) => return cx.counters.drop(reason, 1),
        };
        match decision {
            Received::Drop(reason) => return cx.counters.drop(reason.into(), 1),
            Received::Relay(link) => {
                return relay(cx, &mut self.output, link, journey, frame.outgoing(slab));
            }
            Received::Inject => {}
            Received::InjectAndFlood(flood) => {
                cx.counters.add(Count::Made, flood.len());
                let outgoing = frame.outgoing(slab);
                self.output.flood(cx, journey.source, flood, outgoing);
            }
        }
        let sink = &mut Sink {
            cx,
            tap: &*self.tap,
            scratch: &mut self.scratch,
        };
        self.joiner
            .push(slab, frame.range, frame.checksums, &mut |frame| {
                sink.inject(frame);
            });
    }

    /// Carries a super-frame that came in pieces.
    pub(crate) fn joined(&mut self, cx: &Context<'_>, journey: Journey, joined: &Joined<'_>) {
        let segments = joined.segments();
        let first = joined.parts().next().unwrap_or_default();
        let Ok(view) = Frame::parse(first) else {
            return cx.counters.drop(DropReason::Short, segments);
        };
        let (output, scratch) = (&mut self.output, &mut self.scratch);
        let decision = match decide(cx, journey, &view) {
            Ok(decision) => decision,
            Err(reason) => return cx.counters.drop(reason, segments),
        };
        match decision {
            Received::Drop(reason) => return cx.counters.drop(reason.into(), segments),
            Received::Relay(link) => {
                return whole(joined, scratch, |frames| match frames {
                    Some(frames) => relay(cx, output, link, journey, frames),
                    None => cx.counters.drop(DropReason::BadOffload, segments),
                });
            }
            Received::Inject => {}
            Received::InjectAndFlood(flood) => {
                cx.counters.add(Count::Made, flood.len() * segments);
                whole(joined, scratch, |frames| match frames {
                    Some(frames) => output.flood(cx, journey.source, flood, frames),
                    None => {
                        let copies = flood.len() * segments;
                        cx.counters.drop(DropReason::BadOffload, copies);
                    }
                });
            }
        }
        let mut sink = Sink {
            cx,
            tap: &*self.tap,
            scratch,
        };
        sink.inject(joined);
    }

    /// Writes what was kept back for joining to the device.
    pub(crate) fn flush_joiner(&mut self, cx: &Context<'_>, slab: &mut [u8]) {
        if self.joiner.is_empty() {
            return;
        }
        let sink = &mut Sink {
            cx,
            tap: &*self.tap,
            scratch: &mut self.scratch,
        };
        self.joiner.flush(slab, &mut |frame| sink.inject(frame));
    }
}

/// Returns what becomes of a frame. Learns where its source address is.
#[inline]
fn decide<'a>(
    cx: &Context<'a>,
    journey: Journey,
    frame: &Frame<'_>,
) -> Result<Received<'a>, DropReason> {
    let forwarding = cx.snapshot.forwarding();
    let Journey { source, dest, via } = journey;
    if dest == forwarding.us() {
        cx.check(source, frame)?;
    }
    let (dst, src) = (frame.destination(), frame.source());
    let macs = &cx.shared.macs;
    let (decision, learned) = forwarding.received(cx.now, macs, (via, source, dest), (dst, src));
    if learned != Learned::Known {
        let at = macs.lookup(src).unwrap_or(PeerSlot::US);
        cx.note(learned, src, at);
        if learned == Learned::Full && !cx.is_owned(src, source) {
            return Err(DropReason::TooManyMacs);
        }
    }
    match decision {
        Received::Drop(reason) => Err(reason.into()),
        decision => Ok(decision),
    }
}

/// Passes frames on to the next hop.
fn relay<D: Datagrams>(
    cx: &Context<'_>,
    output: &mut Output<D>,
    link: LinkIndex,
    journey: Journey,
    frames: OutFrames<'_>,
) {
    let Journey { source, dest, .. } = journey;
    let heading = Heading {
        link,
        source,
        dest,
        broadcast: false,
    };
    if let Outcome::TooBig(mtu) = output.send(cx, heading, frames) {
        answer(cx, output, journey, frames.first(), mtu);
    }
}

/// Tells the peer where a relayed frame was captured that it does not fit the next link, as if the
/// peer that it is for had.
fn answer<D: Datagrams>(
    cx: &Context<'_>,
    output: &mut Output<D>,
    journey: Journey,
    frame: &[u8],
    mtu: usize,
) {
    let mut buffer = [0; icmp::ANSWER_BYTES_MAX];
    let Some(len) = icmp::too_big(frame, mtu, &mut buffer) else {
        return;
    };
    let answer = &buffer[..len];
    let Journey { source, dest, .. } = journey;
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
    if let Outcome::TooBig(_) = output.send(cx, heading, OutFrames::Whole(answer)) {
        // An answer gets no answer.
    }
}

/// Makes one piece of a joined super-frame and hands it to `then`; None if it is no frame that a
/// device could have handed over.
fn whole(joined: &Joined<'_>, scratch: &mut [u8], then: impl FnOnce(Option<OutFrames<'_>>)) {
    let Some(frame) = joined.copy_to(scratch) else {
        return then(None);
    };
    if !joined.header.is_super() {
        return then(vnet::OpenFrame::new(frame).map(OutFrames::Open));
    }
    match Split::new(joined.header, frame) {
        Ok(split) => then(Some(OutFrames::Super(&split))),
        Err(_) => then(None),
    }
}
