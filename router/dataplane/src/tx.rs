//! TAP to UDP.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Cache;
use proto::ethernet::Frame;
use proto::native::tunnel::stream_of_captured;
use proto::offload::vnet::{self, VNET_BYTES, VnetHeader};
use proto::sleeve::icmp;
use proto::switch::{Captured, Learned, PeerSlot};
use proto::types::Mac;

use crate::context::{Context, FRAME_BYTES_MAX, Shared};
use crate::output::{Heading, OutFrames, Outcome, Output};
use crate::ports::{Datagrams, Frames};
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use boundary::snapshot::Snapshot;

/// Maximum number of reads in a batch.
const READS_MAX: usize = 64;
/// Size in bytes of the largest frame that the device hands over, virtio-net header included.
const READ_BYTES: usize = VNET_BYTES + FRAME_BYTES_MAX;
/// Time for which a thread pauses after a failure of a device.
const RETRY_INTERVAL: Duration = Duration::from_millis(100);

/// The thread that takes frames from a TAP queue.
pub(crate) struct Transmit<F, D> {
    shared: Arc<Shared>,
    tap: Arc<F>,
    queue: usize,
    buffer: Box<[u8]>,
    output: Output<D>,
    /// The snapshot that the output was made for.
    current: Option<Arc<Snapshot>>,
    is_failing: bool,
}

impl<F: Frames, D: Datagrams> Transmit<F, D> {
    /// Carries frames from `tap` to `datagrams`, as the thread of pair `queue`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        (tap, datagrams): (Arc<F>, Arc<D>),
        queue: usize,
    ) -> Transmit<F, D> {
        Transmit {
            shared,
            tap,
            queue,
            buffer: vec![0; READ_BYTES].into(),
            output: Output::new(datagrams, stream_of_captured(queue)),
            current: None,
            is_failing: false,
        }
    }

    /// Carries frames until the threads are to stop.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshots = Cache::new(&shared.snapshot);
        while !shared.is_stopping() {
            match self.turn(&shared, snapshots.load()) {
                Ok(true) => {}
                Ok(false) => {
                    let left = shared.left(self.output.due());
                    self.tap.wait(shared.stop.as_fd(), left);
                }
                Err(_) => shared.pause(RETRY_INTERVAL),
            }
        }
    }

    /// Carries what waits, up to a batch. Returns true if more may be waiting, and the error of a
    /// device that fails, which control is told once.
    pub(crate) fn turn(&mut self, shared: &Shared, snapshot: &Arc<Snapshot>) -> io::Result<bool> {
        let cx = Context {
            shared,
            snapshot,
            counters: &shared.counters[2 * self.queue],
            queue: self.queue,
            now: shared.now(),
        };
        if !self
            .current
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, snapshot))
        {
            self.output.reset(&cx);
            self.current = Some(Arc::clone(snapshot));
        }
        if self.output.due().is_some() {
            self.output.release(&cx);
        }
        let result = self.batch(&cx);
        let was_failing = std::mem::replace(&mut self.is_failing, result.is_err());
        if let Err(error) = &result
            && !was_failing
        {
            cx.tell(DataEvent::TapFailed {
                queue: self.queue,
                code: error.raw_os_error().unwrap_or_default(),
            });
        }
        result
    }

    /// Carries what waits at the device, up to a batch. Returns whether more may be waiting.
    fn batch(&mut self, cx: &Context<'_>) -> io::Result<bool> {
        let mut result = Ok(true);
        for _ in 0..READS_MAX {
            match self.tap.read(&mut self.buffer) {
                Ok(len) => self.carry(cx, len),
                Err(error) => {
                    result = match error.kind() {
                        io::ErrorKind::WouldBlock => Ok(false),
                        io::ErrorKind::Interrupted => Ok(true),
                        _ => Err(error),
                    };
                    break;
                }
            }
            if self.output.is_filled() {
                self.output.flush(cx);
            }
        }
        self.output.flush(cx);
        result
    }

    /// Decides on one frame and stages it.
    fn carry(&mut self, cx: &Context<'_>, len: usize) {
        cx.counters.add(Count::TapReads, 1);
        let read = self.buffer.get_mut(..len).unwrap_or_default();
        let Some((header, frame)) = read.split_first_chunk_mut::<VNET_BYTES>() else {
            return;
        };
        let bytes = frame.len();
        let Ok(view) = Frame::parse(frame) else {
            cx.counters.add(Count::Captured, 1);
            cx.counters.drop(DropReason::Short, 1);
            return;
        };
        let (dst, src) = (view.destination(), view.source());
        let guarded = cx.check(cx.snapshot.forwarding().us(), &view);
        let captured = match vnet::Captured::new_open(VnetHeader::decode(header), frame) {
            Ok(captured) => captured,
            Err(_) => {
                cx.counters.add(Count::Captured, 1);
                cx.counters.drop(DropReason::BadOffload, 1);
                return;
            }
        };
        let frames = match &captured {
            vnet::Captured::Whole(frame) => OutFrames::Whole(frame),
            vnet::Captured::Open(frame) => OutFrames::Open(*frame),
            vnet::Captured::Super(split) => OutFrames::Super(split),
        };
        cx.counters.add(Count::Captured, frames.count());
        cx.counters.add(Count::CapturedBytes, bytes);
        let forwarding = cx.snapshot.forwarding();
        // The bridge has the address that our name is made of.
        if dst.is_multicast() && dst != Mac::BROADCAST && src == forwarding.us().to_mac() {
            return cx.counters.drop(DropReason::OwnMulticast, frames.count());
        }
        if let Err(reason) = guarded {
            return cx.counters.drop(reason, frames.count());
        }
        let (decision, learned) = forwarding.captured(cx.now, &cx.shared.macs, dst, src);
        cx.note(learned, src, PeerSlot::US);
        if learned == Learned::Full && !cx.is_owned(src, forwarding.us()) {
            return cx.counters.drop(DropReason::TooManyMacs, frames.count());
        }
        let source = forwarding.us();
        match decision {
            Captured::Local => cx.counters.drop(DropReason::Local, frames.count()),
            Captured::Drop(reason) => cx.counters.drop(reason.into(), frames.count()),
            Captured::Peer { link, dest } => {
                let heading = Heading {
                    link,
                    source,
                    dest,
                    broadcast: false,
                };
                if let Outcome::TooBig(mtu) = self.output.send(cx, heading, frames) {
                    answer(cx, &*self.tap, frames.first(), mtu);
                }
            }
            Captured::Flood(flood) if flood.is_empty() => {
                cx.counters.drop(DropReason::NoPeers, frames.count());
            }
            Captured::Flood(flood) => {
                cx.counters
                    .add(Count::Made, (flood.len() - 1) * frames.count());
                self.output.flood(cx, source, flood, frames);
            }
        }
    }
}

/// Tells the local sender of a frame that it does not fit.
fn answer<F: Frames>(cx: &Context<'_>, tap: &F, frame: &[u8], mtu: usize) {
    let mut buffer = [0; icmp::ANSWER_BYTES_MAX];
    let Some(len) = icmp::too_big(frame, mtu, &mut buffer) else {
        return;
    };
    let answer = &buffer[..len];
    cx.counters.add(Count::Made, 1);
    let header = VnetHeader::PLAIN.encode();
    match tap.write(&[IoSlice::new(&header), IoSlice::new(answer)]) {
        Ok(()) => {
            cx.counters.add(Count::Injected, 1);
            cx.counters.add(Count::InjectedBytes, len);
        }
        Err(_) => cx.counters.drop(DropReason::TapFailed, 1),
    }
}
