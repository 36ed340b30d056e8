//! The allocator: handles requests of users and messages of routers, and decides.
//!
//! One [`Allocator`] owns the ring, the space and the leases of its router. Its `handle_*` methods
//! report events, each as one *step*. [`Allocator::poll_output`] returns what the driver must do,
//! and [`Allocator::poll_timeout`] returns when to call [`Allocator::handle_timeout`].
//!
//! # Saved before said
//!
//! A step that changes the durable state creates one [`Batch`](crate::persist::Batch), returned at
//! once as [`Output::Persist`]. Every output of that step, and of all later ones, is kept until the
//! driver reports that the batch is stored ([`Allocator::handle_persisted`]): nothing is answered,
//! sent or gossiped that a crash could undo. Batches do not wait for each other, so any number of
//! them can be written to disk in one sync. Queries of the state are answered in the same order, so
//! they wait as well.
//!
//! If a batch cannot be stored, the state is rolled back to what is stored, and the requests that
//! it would have answered fail with the store's error.

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
mod rations;
mod reclaim;
mod replication;
mod requests;
mod ring;
mod status;
mod strays;
mod supply;
mod universe;

use std::collections::BTreeMap;

use proto::types::{PeerName, Time};

pub use api::{
    Alarm, Channel, Clock, Config, Delivery, ElectionStatus, EntryStatus, Event, Found, Health,
    Incoming, Init, LeaseInfo, Origin, Output, Peer, Proof, Request, RequestError, RequestId,
    Response, StartError, Status, TakeoverStatus, Waiting,
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
    /// The batch with the addresses that were found in use on this host.
    found_by: BatchId,
    /// Requests that are not answered, to be taken again should the store fail for others.
    requests: BTreeMap<RequestId, (Option<Time>, Request)>,
}

impl Allocator {
    /// Creates an allocator that continues from the stored state.
    pub fn new(
        clock: Clock,
        config: Config,
        stored: Stored,
        origin: Origin,
    ) -> Result<Allocator, StartError> {
        let meta = start_meta(&config, &stored)?;
        let before = stored.meta;
        let mut durable = Durable::load(stored, meta, clock);
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
            requests: BTreeMap::new(),
            outbox: Outbox::default(),
        };
        allocator.step(clock, |machines, cx| machines.start(cx));
        Ok(allocator)
    }

    /// Handles a message of another router.
    pub fn handle_message(&mut self, clock: Clock, message: Incoming<'_>) {
        self.step(clock, |machines, cx| machines.message(cx, &message));
    }

    /// Handles a request of a user. The answer is an [`Output::Reply`] with the same number, at
    /// `deadline` at the latest, if there is one and the store works.
    pub fn handle_request(
        &mut self,
        clock: Clock,
        id: RequestId,
        deadline: Option<Time>,
        request: Request,
    ) {
        self.requests.insert(id, (deadline, request.clone()));
        self.step(clock, |machines, cx| {
            machines.request(cx, id, deadline, request);
        });
    }

    /// Reports that the caller of a request has gone. The request is answered as cancelled.
    pub fn handle_cancel(&mut self, clock: Clock, id: RequestId) {
        self.requests.remove(&id);
        self.step(clock, |machines, cx| machines.cancel(cx, id));
    }

    /// Reports that a container with this id was started.
    pub fn handle_container_started(&mut self, clock: Clock, id: &str) {
        self.step(clock, |_, cx| cx.hosted.not_dead(id));
    }

    /// Reports that a container has ended. Its addresses are released some time later.
    pub fn handle_container_died(&mut self, clock: Clock, id: &str) {
        self.step(clock, |machines, cx| machines.container_died(cx, id));
    }

    /// Reports that a container was removed. Its addresses are released.
    pub fn handle_container_destroyed(&mut self, clock: Clock, id: &str) {
        self.step(clock, |machines, cx| machines.container_destroyed(cx, id));
    }

    /// Reports the complete list of peers of the mesh. Call this whenever it changes.
    pub fn handle_peers(&mut self, clock: Clock, peers: Vec<Peer>) {
        self.step(clock, |machines, cx| machines.peers(cx, peers));
    }

    /// Reports the number of direct targets that are not given up.
    pub fn handle_targets(&mut self, clock: Clock, count: usize) {
        self.step(clock, |machines, _| machines.election.set_targets(count));
    }

    /// Requests our state of a channel, to be sent to `neighbour` (`None`: to several, of which the
    /// driver leaves out those for which [`Allocator::is_silent`] is true). The answer is an
    /// [`Output::State`] with the same token. `new_link` is true if nothing was sent to this
    /// neighbour since the link came up; then our state may wait a moment for theirs.
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

    /// Reports the result of [`Output::Persist`]: all batches up to and including `id` are stored;
    /// or the first one that is not stored yet, and all later ones, failed and will never be
    /// stored.
    ///
    /// If the driver cannot tell which of the two is true, it must reopen the store or end the
    /// process.
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
        let Some(failure) = self.outbox.failed(error) else {
            return;
        };
        self.cx.durable.roll_back(failure.undos.into_iter());
        let before = self.cx.notices.store_error.replace(error.to_owned());
        self.machines.rolled_back(&mut self.cx);
        if before.is_none() {
            let event = Event::StoreFailed(error.to_owned());
            self.step(clock, |_, cx| cx.event(event));
        }
        for (id, result) in failure.unanswered {
            // Each is taken again once, so that a store that takes nothing is not asked for ever.
            match self.requests.remove(&id) {
                Some((deadline, request)) => self.step(clock, |machines, cx| {
                    machines.request(cx, id, deadline, request);
                }),
                None => {
                    let result = result.and(Err(RequestError::Store(error.to_owned())));
                    let reply = Output::Reply {
                        request: id,
                        result,
                    };
                    self.step(clock, |_, cx| cx.emit(reply));
                }
            }
        }
    }

    /// Does what is due. Call this at or after [`Allocator::poll_timeout`]. Spurious calls change
    /// nothing.
    pub fn handle_timeout(&mut self, clock: Clock) {
        self.step(clock, |machines, cx| machines.timeout(cx));
    }

    /// Returns the next thing to do, or `None` if there is nothing at the moment. Any `handle_*`
    /// call may add outputs.
    pub fn poll_output(&mut self) -> Option<Output> {
        let output = self.outbox.poll();
        if let Some(Output::Reply { request, .. }) = &output {
            self.requests.remove(request);
        }
        output
    }

    /// Returns the time at which [`Allocator::handle_timeout`] is due. Any `handle_*` call may
    /// change it.
    pub fn poll_timeout(&self) -> Time {
        self.machines.next_wake()
    }

    /// Returns the universe.
    pub fn universe(&self) -> Cidr {
        self.cx.universe()
    }

    /// Returns the subnet of requests that name none.
    pub fn default_subnet(&self) -> Cidr {
        self.cx.default_subnet()
    }

    /// Returns true if nothing about addresses must be sent to this neighbour.
    pub fn is_silent(&self, neighbour: PeerName) -> bool {
        self.cx.members.is_silent(neighbour)
    }

    /// Returns the current status, including what is not saved yet.
    pub fn status(&self) -> Status {
        status::status(&self.cx, &self.machines.queue, &self.machines.election)
    }

    /// Returns the unfinished takeovers in memory, saved or not, for tests and diagnosis.
    pub fn takeover_status(&self) -> Vec<TakeoverStatus> {
        status::takeover_status(&self.cx)
    }

    /// Returns the ring in memory, saved or not, for tests and diagnosis.
    pub fn ring(&self) -> &Ring {
        self.cx.durable.ring()
    }

    /// Returns our addresses in memory, saved or not, for tests and diagnosis.
    pub fn space(&self) -> &Space {
        self.cx.durable.space()
    }

    /// Returns the leases in memory, saved or not, for tests and diagnosis.
    pub fn lease_table(&self) -> &LeaseTable {
        self.cx.durable.leases()
    }

    /// Checks all invariants. The error describes the first violation. Slow: for tests and
    /// diagnosis.
    pub fn check(&self) -> Result<(), String> {
        self.cx.durable.check()
    }

    /// Executes one step: `act`, its consequences, and the batch and outputs of both.
    fn step(&mut self, clock: Clock, act: impl FnOnce(&mut Machines, &mut Cx)) {
        self.cx.clock = clock;
        self.cx.durable.set_clock(clock);
        self.cx.settled = self.outbox.is_settled();
        if self.cx.settled {
            self.cx.hosted.stored();
        }
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

/// Returns the router and universe of the state, if they match the configuration.
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
            // A default universe yields to what the mesh, or an earlier start, decided.
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
