//! Datagrams of native links, from the socket to the device or the next hop.
//!
//! The checks come in this order: is there such a session, does the datagram open, is it new; only
//! then is anything in it believed.

use std::net::SocketAddrV4;
use std::ops::Range;

use proto::ethernet::{self, Frame};
use proto::native::Report;
use proto::native::join::Origin;
use proto::native::wire::{Chunk, Header, Kind, NAMES_BYTES, Names, Record, Records};
use proto::offload::join::{Checksums, Joined};
use proto::offload::split::Split;
use proto::offload::vnet::OpenFrame;
use proto::switch::{LinkIndex, Received};
use proto::types::PeerName;

use super::{Receive, Sink, decide, relay};
use crate::context::Context;
use crate::output::{Frames, Output};
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use boundary::snapshot::Session;

impl Receive {
    /// Opens the datagram at `range` of the slab and carries what is in it.
    pub(super) fn native(&mut self, cx: &Context<'_>, from: SocketAddrV4, range: Range<usize>) {
        let slab = self.batch.slab_mut();
        let Some(datagram) = slab.get_mut(range.clone()) else {
            return;
        };
        let Some(header) = Header::parse(datagram) else {
            return cx.counters.drop(DropReason::Malformed, 1);
        };
        let Some(session) = cx.snapshot.session(header.session) else {
            return cx.counters.drop(DropReason::UnknownSession, 1);
        };
        let opened = match session.key.open(&header, datagram) {
            Ok(opened) => opened,
            Err(error) => return cx.counters.drop(error.into(), 1),
        };
        cx.counters.add(Count::PacketsReceived, 1);
        cx.counters.add(Count::ReceivedBytes, range.len());
        session.key.note_datagrams(1);
        if opened.is_newest && session.tunnel.is_news(from) {
            let link = session.key.link();
            if !cx.tell(DataEvent::LinkMoved { link, from }) {
                session.tunnel.forget_news();
            }
        }
        let body = range.start + opened.body.start..range.start + opened.body.end;
        match header.kind {
            Kind::Frames => self.records(cx, &header, session.key.peer(), body),
            Kind::Report => {
                let body = slab.get(body).unwrap_or_default();
                take_report(cx, session, body, range.len());
            }
        }
    }

    /// Carries the records of a body.
    fn records(
        &mut self,
        cx: &Context<'_>,
        header: &Header,
        neighbour: PeerName,
        body: Range<usize>,
    ) {
        let slab = self.batch.slab_mut();
        let Some(names) = slab.get(body.clone()).and_then(Names::parse) else {
            return cx.counters.drop(DropReason::Malformed, 1);
        };
        let mut records = Records::new(body.start + NAMES_BYTES..body.end);
        while let Some(record) = records.next(self.batch.slab_mut()) {
            match record {
                Err(_) => cx.counters.drop(DropReason::Malformed, 1),
                Ok(Record::Frame {
                    range,
                    open_checksum,
                }) => {
                    self.flush_chunks(cx);
                    self.native_frame(cx, (neighbour, names), range, open_checksum);
                }
                Ok(Record::Chunk(chunk)) => {
                    let origin = Origin {
                        session: header.session,
                        stream: header.stream,
                        counter: header.counter,
                        neighbour,
                        names,
                    };
                    self.chunk(cx, &origin, &chunk);
                }
            }
        }
    }

    fn native_frame(
        &mut self,
        cx: &Context<'_>,
        (neighbour, names): (PeerName, Names),
        range: Range<usize>,
        open_checksum: bool,
    ) {
        cx.counters.add(Count::Received, 1);
        let bytes = self.batch.slab_mut().get(range.clone());
        if ethernet::is_special(bytes.unwrap_or_default()) {
            return cx.counters.drop(DropReason::Special, 1);
        }
        let checksums = match open_checksum {
            true => Checksums::Absent,
            false => Checksums::Present,
        };
        let names = (neighbour, names.source, names.destination);
        self.deliver(cx, names, range, checksums);
    }

    /// Adds a chunk to the super-frame that is being put together, or begins another one.
    #[inline]
    fn chunk(&mut self, cx: &Context<'_>, origin: &Origin, chunk: &Chunk) {
        let slab = self.batch.slab_mut();
        let mut last = chunk.last;
        match self.chunks.append(slab, origin, chunk) {
            Some(is_last) => last = is_last,
            None => {
                self.flush_chunks(cx);
                if self
                    .chunks
                    .start(self.batch.slab_mut(), origin, chunk)
                    .is_err()
                {
                    return cx.counters.drop(DropReason::Malformed, 1);
                }
            }
        }
        if last {
            self.flush_chunks(cx);
        }
    }

    /// Carries the super-frame that was put together, if there is one.
    pub(super) fn flush_chunks(&mut self, cx: &Context<'_>) {
        let (Some(names), Some(neighbour)) = (self.chunks.names(), self.chunks.neighbour()) else {
            return;
        };
        // Frames go to the device in the order in which they came.
        if !self.joiner.is_empty() {
            self.flush_joined(cx);
        }
        let slab = self.batch.slab_mut();
        let Some(joined) = self.chunks.take(slab) else {
            return;
        };
        let segments = joined.segments();
        cx.counters.add(Count::Received, segments);
        let (source, dest) = (names.source, names.destination);
        let first = joined.parts().next().unwrap_or_default();
        let Ok(view) = Frame::parse(first) else {
            return cx.counters.drop(DropReason::Short, segments);
        };
        let (output, scratch) = (&mut self.output, &mut self.scratch);
        let macs = (view.destination(), view.source());
        match decide(cx, (neighbour, source, dest), macs) {
            Received::Drop(reason) => return cx.counters.drop(reason.into(), segments),
            Received::Relay(link) => {
                return relay_joined(cx, output, link, (source, dest), &joined, scratch);
            }
            Received::Inject => {}
            Received::InjectAndFlood(flood) => {
                cx.counters.add(Count::Made, flood.len() * segments);
                whole(&joined, scratch, |frames| match frames {
                    Some(frames) => output.flood(cx, source, flood, frames),
                    None => {
                        let copies = flood.len() * segments;
                        cx.counters.drop(DropReason::BadOffload, copies);
                    }
                });
            }
        }
        let mut sink = Sink {
            cx,
            tap: &self.tap,
            scratch,
        };
        sink.inject(&joined);
    }
}

fn take_report(cx: &Context<'_>, session: &Session, body: &[u8], bytes: usize) {
    let Some(report) = Report::parse(body) else {
        return cx.counters.drop(DropReason::Malformed, 1);
    };
    cx.counters.add(Count::Reports, 1);
    cx.tell(DataEvent::Report {
        link: session.key.link(),
        epoch: session.key.epoch(),
        report,
        bytes,
        at: cx.now,
    });
}

/// Passes a super-frame on to the next hop, which cuts it in its own way.
fn relay_joined(
    cx: &Context<'_>,
    output: &mut Output,
    link: LinkIndex,
    names: (PeerName, PeerName),
    joined: &Joined<'_>,
    scratch: &mut [u8],
) {
    whole(joined, scratch, |frames| match frames {
        Some(frames) => relay(cx, output, link, names, frames),
        None => cx.counters.drop(DropReason::BadOffload, joined.segments()),
    });
}

/// Makes one piece of a joined super-frame and hands it to `then`; None if it is no frame that a
/// device could have handed over.
fn whole(joined: &Joined<'_>, scratch: &mut [u8], then: impl FnOnce(Option<Frames<'_>>)) {
    let Some(frame) = joined.copy_to(scratch) else {
        return then(None);
    };
    if !joined.header.is_super() {
        return then(OpenFrame::new(frame).map(Frames::Open));
    }
    match Split::new(joined.header, frame) {
        Ok(split) => then(Some(Frames::Super(&split))),
        Err(_) => then(None),
    }
}
