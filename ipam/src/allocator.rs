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
mod cx;
mod departure;
mod durable;
mod effects;
mod holder;
mod hosted;
mod ids;
mod leasing;
mod lost;
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
mod supply;
mod universe;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use proto::types::{PeerName, Time};

pub use api::{
    Alarm, Channel, Clock, Config, Delivery, ElectionStatus, EntryStatus, Event, Found, Health,
    Incoming, Init, LeaseInfo, Origin, Output, Peer, Request, RequestError, RequestId, Response,
    StartError, Status, TakeoverStatus, Waiting,
};

use crate::leases::LeaseTable;
use crate::messages::RingDigest;
use crate::persist::{BatchId, Known, Meta, Stored};
use crate::range::{Address, Cidr};
use crate::ring::Ring;
use crate::space::Space;
use cx::Cx;
use durable::{Durable, Moved};
use effects::Effect;
use outbox::Outbox;
use queue::Pending;

/// How often things are tried again that depend on messages which may have been lost.
const TICK: Duration = Duration::from_secs(5);
/// How long our state is held back on a new link while the neighbour's has not come.
const LINK_HOLD: Duration = Duration::from_secs(1);
/// A weft router shows that it is one within this time after it came into reach.
const WEFT_SILENT_MAX: Duration = Duration::from_secs(200);
/// How often leases are looked at that may have outlived their retention.
const EXPIRY_TICK: Duration = Duration::from_secs(60);
/// How many received rings that brought nothing new are remembered by their digest.
const DIGESTS_MAX: usize = 16;

/// The allocator of one router. See the [module](self).
#[derive(Debug)]
pub struct Allocator {
    cx: Cx,
    outbox: Outbox,
    /// When to propose again, while a ring is wanted and there is none.
    propose_at: Option<Time>,
    /// How many peers we were told to connect to.
    targets: usize,
    pending: Pending,
    /// Rings that brought nothing new.
    digests: VecDeque<RingDigest>,
    /// States that wait for the neighbour's on a new link.
    links: BTreeMap<u64, HeldLink>,
    /// The batch that holds the addresses that were found in use on this host.
    found_by: BatchId,
    tick_at: Time,
    /// When a takeover can go on.
    takeover_at: Option<Time>,
    expiry_at: Time,
    leases: replication::Replication,
    /// Addresses in use against the ring that are known as such.
    strays: BTreeSet<Address>,
    store_error: Option<String>,
}

impl std::ops::Deref for Allocator {
    type Target = Cx;
    fn deref(&self) -> &Cx {
        &self.cx
    }
}

impl std::ops::DerefMut for Allocator {
    fn deref_mut(&mut self) -> &mut Cx {
        &mut self.cx
    }
}

#[derive(Debug)]
struct HeldLink {
    neighbour: PeerName,
    until: Time,
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
        let mut state = Durable::load(stored, meta);
        state.check().map_err(StartError::Broken)?;
        if origin == Origin::Import || before.is_none() {
            state.touch_all();
        } else if before != Some(meta) {
            state.touch_meta();
        }
        let mut allocator = Allocator {
            cx: Cx::new(clock, config, state),
            propose_at: None,
            targets: 0,
            pending: Pending::default(),
            digests: VecDeque::new(),
            links: BTreeMap::new(),
            found_by: BatchId(0),
            tick_at: clock.now + TICK,
            takeover_at: None,
            expiry_at: clock.now + EXPIRY_TICK,
            leases: replication::Replication::new(clock.now),
            strays: BTreeSet::new(),
            store_error: None,
            outbox: Outbox::default(),
        };
        allocator.cx.questions.unknown_until = Some(clock.now + replication::UNKNOWN_FOR);
        allocator.step(clock, Allocator::start);
        Ok(allocator)
    }

    fn start(&mut self) {
        let known = self.cx.durable.known().iter();
        for (peer, _) in known.filter(|(_, known)| known.weft) {
            self.cx.members.was_weft(*peer);
        }
        self.watch_strays();
        if !self.cx.durable.ring().is_empty() {
            return;
        }
        match self.config.init.clone() {
            Init::Seed(mut peers) => {
                peers.sort_unstable();
                peers.dedup();
                self.make_ring(&peers);
            }
            Init::Consensus(_) => self.join_election(),
            Init::Observer => {}
        }
    }

    /// Takes a message of another router.
    pub fn handle_message(&mut self, clock: Clock, message: Incoming<'_>) {
        self.step(clock, |this| match message.channel {
            Channel::Ring => this.on_ring_message(&message),
            Channel::Leases => this.on_lease_message(&message),
        });
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
        self.step(clock, |this| this.on_request(id, deadline, request));
    }

    /// Takes that the caller of a request has gone; it is answered as cancelled.
    pub fn handle_cancel(&mut self, clock: Clock, id: RequestId) {
        self.step(clock, |this| this.cancel(id));
    }

    /// Takes that a container with this id was started.
    pub fn handle_container_started(&mut self, clock: Clock, id: &str) {
        self.step(clock, |this| {
            this.hosted.not_dead(id);
        });
    }

    /// Takes that a container has ended; its addresses are released some time later.
    pub fn handle_container_died(&mut self, clock: Clock, id: &str) {
        self.step(clock, |this| this.container_died(id));
    }

    /// Takes that a container was removed; its addresses are released.
    pub fn handle_container_destroyed(&mut self, clock: Clock, id: &str) {
        self.step(clock, |this| this.container_destroyed(id));
    }

    /// Takes the complete list of the peers of the mesh, whenever it changes.
    pub fn handle_peers(&mut self, clock: Clock, peers: Vec<Peer>) {
        self.step(clock, |this| this.on_peers(peers));
    }

    /// Takes how many peers we were told to connect to and have not given up.
    pub fn handle_targets(&mut self, clock: Clock, count: usize) {
        self.step(clock, |this| this.targets = count);
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
        self.step(clock, |this| {
            this.on_state_wanted(channel, token, neighbour, new_link);
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
                if self.store_error.is_some() {
                    self.step(clock, |this| {
                        this.store_error = None;
                        this.event(Event::StoreRecovered);
                    });
                }
            }
            Err(error) => self.store_failed(clock, &error),
        }
    }

    fn store_failed(&mut self, clock: Clock, error: &str) {
        if self.outbox.is_lost(self.found_by) {
            self.hosted.found = false;
            self.found_by = BatchId(0);
        }
        let Some(undos) = self.outbox.failed(error) else {
            return;
        };
        self.cx.durable.roll_back(undos.into_iter());
        self.digests.clear();
        let first = self.store_error.is_none();
        self.store_error = Some(error.to_owned());
        self.resume_election();
        if first {
            let event = Event::StoreFailed(error.to_owned());
            self.step(clock, |this| this.event(event));
        }
    }

    /// Takes that the time came which [`Allocator::poll_timeout`] named. Harmless at any other.
    pub fn handle_timeout(&mut self, clock: Clock) {
        self.step(clock, Allocator::on_timeout);
    }

    /// The next thing to do; `None` if there is none at this moment. Any `handle_*` call may
    /// change that.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outbox.poll()
    }

    /// When [`Allocator::handle_timeout`] is to be called. Any `handle_*` call may change that.
    pub fn poll_timeout(&self) -> Time {
        let links = self.links.values().map(|link| link.until);
        links
            .chain(self.propose_at)
            .chain(self.takeover_at)
            .chain(self.pending.next_wake())
            .chain(self.leases.next_wake())
            .chain([self.tick_at, self.expiry_at])
            .min()
            .unwrap_or(self.tick_at)
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
    fn step(&mut self, clock: Clock, act: impl FnOnce(&mut Allocator)) {
        self.cx.clock = clock;
        act(self);
        self.drain();
        while self.cx.take_retry() {
            self.try_pending();
            self.drain();
        }
        self.takeover_at = self.takeover_wake();
        let outputs = self.cx.take_outputs();
        let found_before = self.found_by != BatchId(0);
        self.outbox.finish(self.cx.durable.commit(), outputs);
        if self.hosted.found && !found_before {
            self.found_by = self.outbox.last();
        }
    }

    /// Hands on what followed from what was done, until nothing follows.
    fn drain(&mut self) {
        while let Some(effect) = self.cx.next_effect() {
            match effect {
                Effect::LeaseChanged(key) => self.leases.changed(&key, self.cx.clock.now),
                Effect::HoldingsChanged => self.watch_strays(),
                Effect::UniverseChanged => self.digests.clear(),
            }
        }
    }

    fn on_timeout(&mut self) {
        let now = self.cx.clock.now;
        self.release_links(|link| link.until <= now);
        if self.tick_at <= now {
            self.tick_at = now + TICK;
            self.cx.members.forget_weft(WEFT_SILENT_MAX, now);
            self.cx.questions.forget_old(now);
            self.release_dead();
            self.progress_takeovers();
            self.claim_strays();
        } else if self.takeover_at.take_if(|at| *at <= now).is_some() {
            self.progress_takeovers();
        }
        if self.expiry_at <= now {
            self.expiry_at = now + EXPIRY_TICK;
            self.expire_leases();
            self.forget_known();
            self.forget_takeovers();
        }
        if self.propose_at.is_some_and(|at| at <= now) {
            self.propose();
        }
        self.drain();
        self.replicate_leases();
        self.try_due();
    }

    fn on_peers(&mut self, peers: Vec<Peer>) {
        let change = self.cx.members.update(self.cx.clock.now, peers);
        let ring = self.cx.durable.ring();
        let known = self.cx.durable.known();
        self.cx.members.prune(|peer| {
            let met = known.get(&peer).is_some_and(|known| !known.gone);
            met || ring.has_owner(peer)
        });
        self.note_known();
        for peer in &change.came {
            self.removed_peer_back(*peer);
        }
        if !change.came.is_empty() {
            self.leases.peers_came(self.cx.clock.now);
            self.cx.questions.unknown_until = Some(self.cx.clock.now + replication::UNKNOWN_FOR);
            self.try_again();
        }
        for peer in &change.went {
            self.cx.questions.forget(*peer);
            if self.cx.members.leaving.remove(peer) {
                self.peer_gone(*peer);
            }
        }
        if !change.went.is_empty() {
            self.try_again();
        }
    }

    /// Notes whom we have met, with the day, so that a takeover can wait for them.
    fn note_known(&mut self) {
        let day = 24 * 60 * 60;
        let wall = self.cx.clock.wall;
        let known = self.cx.durable.known();
        let stale = |peer: &PeerName| {
            let known = known.get(peer);
            known.is_none_or(|known| {
                let weft = self.cx.members.is_weft(*peer);
                known.gone || known.weft != weft || wall.abs_diff(known.seen) > day
            })
        };
        let fresh: Vec<PeerName> = self
            .members
            .known()
            .filter(|peer| !self.cx.members.leaving.contains(peer) && stale(peer))
            .collect();
        for peer in fresh {
            let known = Known {
                seen: wall,
                weft: self.cx.members.is_weft(peer),
                ..Known::default()
            };
            self.cx.durable.set_known(peer, Some(known));
        }
    }

    /// Notes that a peer is a weft router, so that this is known when it is away.
    fn note_weft(&mut self, peer: PeerName) {
        let known = self.cx.durable.known().get(&peer).copied();
        if let Some(known) = known.filter(|known| !known.weft && !known.gone) {
            let known = Known {
                weft: true,
                ..known
            };
            self.cx.durable.set_known(peer, Some(known));
        }
    }

    /// What follows from a changed ring.
    fn ring_updated(&mut self, moved: &Moved) {
        if !self.cx.durable.ring().is_empty() {
            self.elector = None;
            self.propose_at = None;
            self.cx.durable.set_election(None);
        }
        self.digests.clear();
        let gained: u32 = moved.gained.iter().map(|range| range.size()).sum();
        if gained > 0 {
            self.event(Event::Gained(gained));
        }
        self.take_over_again();
        self.watch_strays();
        self.try_again();
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
