//! The allocator: requests of users and messages of routers in, decisions out.
//!
//! One [`Allocator`] owns the ring, the space and the leases of its router. Its `handle_*`
//! methods take what happened, each as one *step*; [`Allocator::poll_output`] hands out what is
//! to be done and [`Allocator::poll_timeout`] says when to call [`Allocator::handle_timeout`].
//!
//! # Saved before said
//!
//! A step that changes the durable state makes one [`Batch`](crate::persist::Batch), handed out
//! at once as [`Output::Persist`]. Every output of that step, and of all later ones, is kept
//! until the driver says that the batch is stored ([`Allocator::handle_persisted`]): nothing is
//! answered, sent or gossiped that a crash could undo. Batches do not wait for each other, so
//! any number of them can go to the disk in one sync. Questions about the state are answered in
//! the same order, so they wait as well.
//!
//! If a batch cannot be stored, the state goes back to what is stored, and the requests that it
//! would have answered fail with the store's error.

mod announce;
mod api;
mod containers;
mod cx;
mod departure;
mod durable;
mod effects;
mod holder;
mod hosted;
mod housekeeping;
mod ids;
mod leasing;
mod lost;
mod machines;
mod members;
mod notices;
mod operations;
mod outbox;
mod progress;
mod questions;
mod queue;
mod reclaim;
mod replication;
mod requests;
mod ring;
mod status;
mod strays;
mod supply;
mod universe;

use proto::types::{PeerName, Time};

pub use api::{
    Alarm, Channel, Clock, Config, Delivery, ElectionStatus, EntryStatus, Event, Found, Health,
    Incoming, Init, LeaseInfo, Origin, Output, Peer, Request, RequestError, RequestId, Response,
    StartError, Status, TakeoverStatus, Waiting,
};

use crate::leases::LeaseTable;
use crate::persist::{BatchId, Meta, Stored};
use crate::range::Cidr;
use crate::ring::Ring;
use crate::space::Space;
use cx::Cx;
use durable::Durable;
use machines::Machines;
use outbox::Outbox;

/// The allocator of one router. See the [module](self).
#[derive(Debug)]
pub struct Allocator {
    cx: Cx,
    machines: Machines,
    outbox: Outbox,
    /// The batch that holds the addresses that were found in use on this host.
    found_by: BatchId,
}

impl Allocator {
    /// An allocator that goes on from what was stored.
    pub fn new(
        clock: Clock,
        config: Config,
        stored: Stored,
        origin: Origin,
    ) -> Result<Allocator, StartError> {
        let meta = start_meta(&config, &stored)?;
        let before = stored.meta;
        let mut durable = Durable::load(stored, meta);
        durable.check().map_err(StartError::Broken)?;
        if origin == Origin::Import || before.is_none() {
            durable.touch_all();
        } else if before != Some(meta) {
            durable.touch_meta();
        }
        let mut allocator = Allocator {
            cx: Cx::new(clock, config, durable),
            machines: Machines::new(clock.now),
            found_by: BatchId(0),
            outbox: Outbox::default(),
        };
        allocator.step(clock, |machines, cx| machines.start(cx));
        Ok(allocator)
    }

    /// Takes a message of another router.
    pub fn handle_message(&mut self, clock: Clock, message: Incoming<'_>) {
        self.step(clock, |machines, cx| machines.message(cx, &message));
    }

    /// Takes a user's wish. The answer comes as an [`Output::Reply`] with the same number, at
    /// `deadline` at the latest, if there is one and the store works.
    pub fn handle_request(
        &mut self,
        clock: Clock,
        id: RequestId,
        deadline: Option<Time>,
        request: Request,
    ) {
        self.step(clock, |machines, cx| {
            machines.request(cx, id, deadline, request);
        });
    }

    /// Takes that the caller of a request has gone; it is answered as cancelled.
    pub fn handle_cancel(&mut self, clock: Clock, id: RequestId) {
        self.step(clock, |machines, cx| machines.cancel(cx, id));
    }

    /// Takes that a container with this id was started.
    pub fn handle_container_started(&mut self, clock: Clock, id: &str) {
        self.step(clock, |_, cx| cx.hosted.not_dead(id));
    }

    /// Takes that a container has ended; its addresses are released some time later.
    pub fn handle_container_died(&mut self, clock: Clock, id: &str) {
        self.step(clock, |machines, cx| machines.container_died(cx, id));
    }

    /// Takes that a container was removed; its addresses are released.
    pub fn handle_container_destroyed(&mut self, clock: Clock, id: &str) {
        self.step(clock, |machines, cx| machines.container_destroyed(cx, id));
    }

    /// Takes the complete list of the peers of the mesh, whenever it changes.
    pub fn handle_peers(&mut self, clock: Clock, peers: Vec<Peer>) {
        self.step(clock, |machines, cx| machines.peers(cx, peers));
    }

    /// Takes how many peers we were told to connect to and have not given up.
    pub fn handle_targets(&mut self, clock: Clock, count: usize) {
        self.step(clock, |machines, _| machines.election.set_targets(count));
    }

    /// Takes the question for our state of a channel, to be sent to `neighbour` (`None`: to
    /// several, of which the driver leaves out those that [`Allocator::is_silent`]). The answer
    /// is an [`Output::State`] with the same token. `new_link`: nothing was sent to this
    /// neighbour since the link came up, so ours may wait a moment for theirs.
    pub fn handle_state_wanted(
        &mut self,
        clock: Clock,
        channel: Channel,
        token: u64,
        neighbour: Option<PeerName>,
        new_link: bool,
    ) {
        self.step(clock, |machines, cx| {
            machines.state_wanted(cx, channel, token, neighbour, new_link);
        });
    }

    /// Takes what became of [`Output::Persist`]: all batches up to and including `id` are
    /// stored; or the first that is not stored yet, and all that were handed out after it, are
    /// not stored and never will be.
    ///
    /// A store that cannot tell which of the two is true must be opened again, or the process
    /// ended.
    pub fn handle_persisted(&mut self, clock: Clock, id: BatchId, result: Result<(), String>) {
        match result {
            Ok(()) => {
                self.outbox.stored(id);
                if self.cx.notices.store_error.is_some() {
                    self.step(clock, |_, cx| {
                        cx.notices.store_error = None;
                        cx.event(Event::StoreRecovered);
                    });
                }
            }
            Err(error) => self.store_failed(clock, &error),
        }
    }

    fn store_failed(&mut self, clock: Clock, error: &str) {
        if self.outbox.is_lost(self.found_by) {
            self.cx.hosted.found = false;
            self.found_by = BatchId(0);
        }
        let Some(undos) = self.outbox.failed(error) else {
            return;
        };
        self.cx.durable.roll_back(undos.into_iter());
        let first = self.cx.notices.store_error.replace(error.to_owned());
        self.machines.rolled_back(&mut self.cx);
        if first.is_none() {
            let event = Event::StoreFailed(error.to_owned());
            self.step(clock, |_, cx| cx.event(event));
        }
    }

    /// Takes that the time came which [`Allocator::poll_timeout`] named. Harmless at any other.
    pub fn handle_timeout(&mut self, clock: Clock) {
        self.step(clock, |machines, cx| machines.timeout(cx));
    }

    /// The next thing to do; `None` if there is none at this moment. Any `handle_*` call may
    /// change that.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    /// When [`Allocator::handle_timeout`] is to be called. Any `handle_*` call may change that.
    pub fn poll_timeout(&self) -> Time {
        self.machines.next_wake()
    }

    /// All addresses that are allocated from.
    pub fn universe(&self) -> Cidr {
        self.cx.universe()
    }

    /// The subnet of requests that name none.
    pub fn default_subnet(&self) -> Cidr {
        self.cx.default_subnet()
    }

    /// Whether nothing about addresses is to be sent to this neighbour.
    pub fn is_silent(&self, neighbour: PeerName) -> bool {
        self.cx.members.is_silent(neighbour)
    }

    /// How everything is at this moment, what is not saved yet included.
    pub fn status(&self) -> Status {
        status::status(&self.cx, &self.machines.queue, &self.machines.election)
    }

    /// The takeovers that are not over, be that saved or not: for tests and diagnosis.
    pub fn takeover_status(&self) -> Vec<TakeoverStatus> {
        status::takeover_status(&self.cx)
    }

    /// The ring as it is in memory, be it saved or not: for tests and diagnosis.
    pub fn ring(&self) -> &Ring {
        self.cx.durable.ring()
    }

    /// Our addresses as they are in memory, be it saved or not: for tests and diagnosis.
    pub fn space(&self) -> &Space {
        self.cx.durable.space()
    }

    /// The leases as they are in memory, be it saved or not: for tests and diagnosis.
    pub fn lease_table(&self) -> &LeaseTable {
        self.cx.durable.leases()
    }

    /// Whether everything fits together; else what does not. Slow: for tests and diagnosis.
    pub fn check(&self) -> Result<(), String> {
        self.cx.durable.check()
    }

    /// One step: what `act` decides, what follows from it, and the batch and outputs of both.
    fn step(&mut self, clock: Clock, act: impl FnOnce(&mut Machines, &mut Cx)) {
        self.cx.clock = clock;
        act(&mut self.machines, &mut self.cx);
        self.machines.finish(&mut self.cx);
        let outputs = self.cx.take_outputs();
        let found_before = self.found_by != BatchId(0);
        self.outbox.finish(self.cx.durable.commit(), outputs);
        if self.cx.hosted.found && !found_before {
            self.found_by = self.outbox.last();
        }
    }
}

/// What the state belongs to, if it is the state of the router that the configuration describes.
fn start_meta(config: &Config, stored: &Stored) -> Result<Meta, StartError> {
    let mut meta = Meta {
        name: config.name,
        universe: config.universe,
        defaulted: config.universe_defaulted,
        left: false,
    };
    if let Some(before) = &stored.meta {
        if before.name != config.name {
            return Err(StartError::Name {
                stored: before.name,
                name: config.name,
            });
        }
        if before.left {
            return Err(StartError::Left);
        }
        let used = stored.has_ring() || stored.has_addresses();
        if before.universe != config.universe {
            // A default gives way to what the mesh, or an earlier start, decided.
            if config.universe_defaulted {
                meta.universe = before.universe;
            } else if used {
                return Err(StartError::Universe {
                    stored: before.universe,
                    given: config.universe,
                });
            }
        }
    }
    let subnet = config.default_subnet.unwrap_or(meta.universe);
    if !subnet.range().overlaps(&meta.universe.range()) {
        return Err(StartError::Subnet {
            subnet,
            universe: meta.universe,
        });
    }
    Ok(meta)
}
