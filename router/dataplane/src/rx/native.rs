//! Datagrams of native links, from the socket to the device or the next hop.
//!
//! The checks come in this order: is there such a session, does the datagram open, is it new; only
//! then is anything in it believed.

use std::net::SocketAddrV4;
use std::ops::Range;

use proto::native::Report;
use proto::native::join::{ChunkJoiner, Origin};
use proto::native::wire::{Chunk, Header, Kind, NAMES_BYTES, Names, Record, Records};
use proto::offload::join::Checksums;
use proto::types::PeerName;

use crate::context::Context;
use crate::deliver::Delivery;
use crate::opened::{Journey, OpenedFrame};
use crate::ports::{Datagrams, Frames};
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use boundary::snapshot::Session;

/// One thread's state on datagrams received over native links.
pub(super) struct NativeDatagrams {
    chunks: ChunkJoiner,
    /// The peers that the super-frame which is being put together concerns.
    journey: Journey,
}

impl NativeDatagrams {
    /// Nothing has come yet.
    pub(super) fn new() -> NativeDatagrams {
        NativeDatagrams {
            chunks: ChunkJoiner::new(),
            journey: journey(NOBODY, PeerName::UNKNOWN),
        }
    }

    /// Opens the datagram at `range` of the slab and carries what is in it.
    pub(super) fn carry<F: Frames, D: Datagrams>(
        &mut self,
        cx: &Context<'_>,
        (slab, range): (&mut [u8], Range<usize>),
        from: SocketAddrV4,
        delivery: &mut Delivery<F, D>,
    ) {
        let datagram = slab.get_mut(range.clone()).unwrap_or_default();
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
            Kind::Frames => self.records(cx, (slab, body), (&header, session), delivery),
            Kind::Report => {
                let body = slab.get(body).unwrap_or_default();
                take_report(cx, session, body, range.len());
            }
        }
    }

    /// Carries the records of a body.
    fn records<F: Frames, D: Datagrams>(
        &mut self,
        cx: &Context<'_>,
        (slab, body): (&mut [u8], Range<usize>),
        (header, session): (&Header, &Session),
        delivery: &mut Delivery<F, D>,
    ) {
        let Some(names) = slab.get(body.clone()).and_then(Names::parse) else {
            return cx.counters.drop(DropReason::Malformed, 1);
        };
        let mut records = Records::new(body.start + NAMES_BYTES..body.end);
        while let Some(record) = records.next(slab) {
            match record {
                Err(_) => cx.counters.drop(DropReason::Malformed, 1),
                Ok(Record::Frame {
                    range,
                    open_checksum,
                }) => {
                    self.flush(cx, slab, delivery);
                    let checksums = match open_checksum {
                        true => Checksums::Absent,
                        false => Checksums::Present,
                    };
                    cx.counters.add(Count::Received, 1);
                    let journey = journey(names, session.key.peer());
                    match OpenedFrame::check(slab, range, journey, checksums) {
                        Ok(opened) => delivery.frame(cx, slab, opened),
                        Err(reason) => cx.counters.drop(reason, 1),
                    }
                }
                Ok(Record::Chunk(chunk)) => {
                    let origin = Origin {
                        session: header.session,
                        stream: header.stream,
                        counter: header.counter,
                        neighbour: session.key.peer(),
                        names,
                    };
                    let journey = journey(names, session.key.peer());
                    self.chunk(cx, slab, (&origin, &chunk, journey), delivery);
                }
            }
        }
    }

    /// Adds a chunk to the super-frame that is being put together, or begins another one.
    #[inline]
    fn chunk<F: Frames, D: Datagrams>(
        &mut self,
        cx: &Context<'_>,
        slab: &mut [u8],
        (origin, chunk, journey): (&Origin, &Chunk, Journey),
        delivery: &mut Delivery<F, D>,
    ) {
        let mut last = chunk.last;
        match self.chunks.append(slab, origin, chunk) {
            Some(is_last) => last = is_last,
            None => {
                self.flush(cx, slab, delivery);
                if self.chunks.start(slab, origin, chunk).is_err() {
                    return cx.counters.drop(DropReason::Malformed, 1);
                }
                self.journey = journey;
            }
        }
        if last {
            self.flush(cx, slab, delivery);
        }
    }

    /// Carries the super-frame that was put together, if there is one.
    pub(super) fn flush<F: Frames, D: Datagrams>(
        &mut self,
        cx: &Context<'_>,
        slab: &mut [u8],
        delivery: &mut Delivery<F, D>,
    ) {
        if self.chunks.is_empty() {
            return;
        }
        // Frames go to the device in the order in which they came.
        delivery.flush_joiner(cx, slab);
        let Some(joined) = self.chunks.take(slab) else {
            return;
        };
        cx.counters.add(Count::Received, joined.segments());
        delivery.joined(cx, self.journey, &joined);
    }
}

const NOBODY: Names = Names {
    source: PeerName::UNKNOWN,
    destination: PeerName::UNKNOWN,
};

const fn journey(names: Names, via: PeerName) -> Journey {
    Journey {
        source: names.source,
        dest: names.destination,
        via,
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
