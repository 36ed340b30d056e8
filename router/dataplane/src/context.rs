//! State shared by all threads, and what one thread needs while it processes a batch.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::{DataEvent, EVENTS_MAX, EventSender};
use boundary::snapshot::Snapshot;
use proto::ethernet::Frame;
use proto::offload::join::JoinKinds;
use proto::switch::{Learned, MacTable, PeerSlot};
use proto::types::{Mac, PeerName, Time};
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::counters::Counters;
use crate::guard::{self, GuardRules};
use crate::udp::feature::Feature;

/// Size in bytes of the largest frame: of IP, with an Ethernet header and tags.
pub(crate) const FRAME_BYTES_MAX: usize = (1 << 16) + 32;

/// State shared by all threads.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) epoch: Instant,
    pub(crate) snapshot: ArcSwap<Snapshot>,
    pub(crate) macs: MacTable,
    /// Those of the tx threads at even places, those of the rx threads at odd ones.
    pub(crate) counters: Box<[Counters]>,
    pub(crate) events: EventSender,
    /// Joining of received segments. Given up when the device refuses a super-frame.
    pub(crate) join: Feature,
    /// Whether the device takes super-frames of UDP.
    pub(crate) join_udp: bool,
    /// Bytes of the largest frame that containers of other hosts are sure to take.
    pub(crate) frame_bytes_max: usize,
    pub(crate) guard: GuardRules,
    pub(crate) stop: OwnedFd,
    pub(crate) stopping: AtomicBool,
}

impl Shared {
    pub(crate) fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    pub(crate) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns how long it is until `due`; a moment if it has passed, so that what fell due is
    /// seen.
    pub(crate) fn left(&self, due: Option<Time>) -> Option<Duration> {
        due.map(|due| due.since(self.now()).max(Duration::from_nanos(1)))
    }

    /// Waits for a while, or until the threads are to stop.
    pub(crate) fn pause(&self, duration: Duration) {
        let stop = self.stop.as_fd();
        let mut fds = [PollFd::new(&stop, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(duration).ok().as_ref());
    }

    pub(crate) fn join_kinds(&self) -> JoinKinds {
        if !self.join.is_on() {
            return JoinKinds::NONE;
        }
        JoinKinds {
            udp: self.join_udp,
            ..JoinKinds::ALL
        }
    }
}

/// One thread's state while it processes one batch.
pub(crate) struct Context<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) snapshot: &'a Snapshot,
    pub(crate) counters: &'a Counters,
    pub(crate) queue: usize,
    pub(crate) now: Time,
}

impl Context<'_> {
    /// Tells control, if it has room. Returns whether it had.
    pub(crate) fn tell(&self, event: DataEvent) -> bool {
        let is_told = self.shared.events.try_send(event).is_ok();
        if !is_told {
            self.counters.add(Count::EventsLost, 1);
        }
        is_told
    }

    /// Tells control what is nice to know. Half of the room is left for what links live by: any
    /// two containers can make an address move with every frame.
    pub(crate) fn mention(&self, event: DataEvent) {
        if self.shared.events.capacity() > EVENTS_MAX / 2 {
            self.tell(event);
        } else {
            self.counters.add(Count::EventsLost, 1);
        }
    }

    /// Checks what a frame that was captured at a peer claims to be.
    #[inline]
    pub(crate) fn check(&self, at: PeerName, frame: &Frame<'_>) -> Result<(), DropReason> {
        guard::check(self.shared.guard, self.snapshot, at, frame)
    }

    /// Returns true if frames from this address of a peer are carried although the address could
    /// not be learned: it is known to be the peer's.
    #[cold]
    pub(crate) fn is_owned(&self, mac: Mac, at: PeerName) -> bool {
        self.snapshot.owners().of_mac(mac) == Some(at) || mac == at.to_mac()
    }

    /// Counts what the MAC table made of a source address, and tells control of a move.
    #[inline]
    pub(crate) fn note(&self, learned: Learned, mac: Mac, at: PeerSlot) {
        match learned {
            Learned::Known | Learned::New | Learned::Invalid => {}
            Learned::Full => self.counters.add(Count::NotLearned, 1),
            Learned::Moved(from) => {
                self.counters.add(Count::Moves, 1);
                let forwarding = self.snapshot.forwarding();
                if let Some(to) = forwarding.name_of(at) {
                    let from = forwarding.name_of(from);
                    self.mention(DataEvent::Moved { mac, from, to });
                }
            }
        }
    }
}
