//! UDP to TAP, and relaying.

mod native;
mod sleeve;

use std::io;
use std::ops::Range;
use std::os::fd::AsFd;
use std::sync::Arc;

use arc_swap::Cache;
use kernel::sys::batch::{Incoming, ReceiveBatch};
use proto::native::tunnel::stream_of_relayed;
use proto::native::wire::is_native;
use proto::offload::join::Joiner;

use crate::context::{Context, Shared};
use crate::deliver::Delivery;
use crate::output::Output;
use crate::ports::{Datagrams, Frames};
use boundary::counters::{Count, DropReason};
use boundary::snapshot::Snapshot;
use native::NativeDatagrams;
use sleeve::SleevePackets;

/// Number of messages that one call receives if the kernel joins datagrams.
const MESSAGES_JOINED: usize = 16;
/// Number of messages that one call receives if each is one datagram.
const MESSAGES_SINGLE: usize = 64;
/// Size in bytes of each receive buffer: the largest message.
const MESSAGE_BYTES: usize = 1 << 16;

/// The thread that takes packets from a socket.
pub(crate) struct Receive<F, D> {
    shared: Arc<Shared>,
    datagrams: Arc<D>,
    queue: usize,
    batch: ReceiveBatch,
    sleeve: SleevePackets,
    native: NativeDatagrams,
    delivery: Delivery<F, D>,
    /// The snapshot that output and tunnels were made for.
    current: Option<Arc<Snapshot>>,
}

impl<F: Frames, D: Datagrams> Receive<F, D> {
    /// Carries frames from `datagrams` to `tap` or to further peers, as the thread of pair `queue`.
    pub(crate) fn new(
        shared: Arc<Shared>,
        (tap, datagrams): (Arc<F>, Arc<D>),
        queue: usize,
    ) -> Receive<F, D> {
        let messages = match datagrams.joins() {
            true => MESSAGES_JOINED,
            false => MESSAGES_SINGLE,
        };
        let joiner = Joiner::new(shared.join_kinds());
        let output = Output::new(Arc::clone(&datagrams), stream_of_relayed(queue));
        Receive {
            shared,
            datagrams,
            queue,
            batch: ReceiveBatch::new(messages, MESSAGE_BYTES),
            sleeve: SleevePackets::new(),
            native: NativeDatagrams::new(),
            delivery: Delivery::new(joiner, tap, output),
            current: None,
        }
    }

    /// Carries packets until the threads are to stop.
    pub(crate) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let mut snapshots = Cache::new(&shared.snapshot);
        while !shared.is_stopping() {
            let due = self.delivery.output.due();
            match self.datagrams.receive(self.queue, &mut self.batch) {
                Ok(_) => {}
                Err(error) if error.kind() != io::ErrorKind::WouldBlock => continue,
                Err(_) if due.is_some_and(|due| due <= shared.now()) => {}
                Err(_) => {
                    let left = shared.left(due);
                    self.datagrams.wait(self.queue, shared.stop.as_fd(), left);
                    continue;
                }
            }
            self.turn(&shared, snapshots.load());
        }
    }

    /// Carries the messages that were received, and what waited long enough.
    fn turn(&mut self, shared: &Shared, snapshot: &Arc<Snapshot>) {
        let cx = Context {
            shared,
            snapshot,
            counters: &shared.counters[2 * self.queue + 1],
            queue: self.queue,
            now: shared.now(),
        };
        if !self
            .current
            .as_ref()
            .is_some_and(|c| Arc::ptr_eq(c, snapshot))
        {
            self.delivery.output.reset(&cx);
            self.sleeve.reset(&cx);
            self.current = Some(Arc::clone(snapshot));
        }
        if self.delivery.output.due().is_some() {
            self.delivery.output.release(&cx);
        }
        self.carry(&cx);
    }

    /// Receives and carries what waits at the sockets in memory.
    #[cfg(test)]
    pub(crate) fn receive_all(&mut self, snapshot: &Arc<Snapshot>) {
        let shared = Arc::clone(&self.shared);
        while self.datagrams.receive(self.queue, &mut self.batch).is_ok() {
            self.turn(&shared, snapshot);
        }
    }

    /// Carries the messages of one batch.
    fn carry(&mut self, cx: &Context<'_>) {
        cx.counters.add(Count::ReceiveBatches, 1);
        self.delivery.set_kinds(cx);
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
            if self.delivery.output.is_filled() {
                self.delivery.output.flush(cx);
            }
        }
        let slab = self.batch.slab_mut();
        self.native.flush(cx, slab, &mut self.delivery);
        self.delivery.flush_joiner(cx, slab);
        self.delivery.output.flush(cx);
    }

    /// Opens one packet and carries its frames.
    fn packet(&mut self, cx: &Context<'_>, message: &Incoming, range: Range<usize>) {
        let slab = self.batch.slab_mut();
        let delivery = &mut self.delivery;
        let packet = slab.get(range.clone()).unwrap_or_default();
        if is_native(packet) {
            return self.native.carry(cx, (slab, range), message.from, delivery);
        }
        // Frames go to the device in the order in which they came.
        self.native.flush(cx, slab, delivery);
        self.sleeve.carry(cx, (slab, range), message.from, delivery);
    }
}
