//! The members of the mesh and the routes to them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use super::config::{GARBAGE_DELAY, NodeConfig, RECENT_MAX, RECENT_TIME, TOPOLOGY_MESSAGE_BYTES};
use super::event::Event;
use super::output::Output;
use super::pace::Pace;
use super::sink::Sink;
use crate::features::Features;
use crate::gob;
use crate::routes::Routes;
use crate::topology::{self, Admitted, Merged, Refused, Topology};
use crate::types::{PeerName, PeerUid, Time};

/// Delay of the first route calculations after changes; with many changes they follow at
/// [`ROUTES_INTERVAL`].
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
const ROUTES_DELAY: Duration = Duration::from_millis(5);
const ROUTES_INTERVAL: Duration = Duration::from_millis(100);
const ROUTES_BURST: u32 = 4;

/// The same for announcements of our own entry.
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(50);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
const ANNOUNCE_BURST: u32 = 3;

/// Maximum number of peers of which is remembered that they are routers of ours.
const WEFT_MAX: usize = 8192;
/// Number of times that an entry of another start of our peer must be outdone until that start
/// counts as alive. An earlier start of ours, which has ended, says nothing new.
const TWIN_AFTER: u32 = 4;

/// All peers, the routes to them, and changes of both that are still to be announced.
#[derive(Debug)]
pub(super) struct Membership {
    us: PeerName,
    topology: Topology,
    routes: Arc<Routes>,
    /// Peers to be announced with us.
    announce: BTreeSet<PeerName>,
    /// When entries of peers were last seen to change; forgotten after [`RECENT_TIME`].
    changed: BTreeMap<PeerName, Time>,
    routes_pace: Pace,
    announce_pace: Pace,
    garbage_at: Option<Time>,
    /// Addresses at which peers see each other, as of the last calculation of routes, if they were
    /// queried since.
    addresses: Option<BTreeSet<IpAddr>>,
    /// Peers that introduced themselves as weft routers, under a password.
    weft: BTreeSet<PeerName>,
    /// The start of another router with our name that was outdone last, and how often.
    twin: (PeerUid, u32),
}

impl Membership {
    /// Creates a mesh of one peer.
    pub(super) fn new(config: &NodeConfig, rng: fastrand::Rng) -> Membership {
        let mut topology = Topology::new(
            config.name,
            &config.nickname,
            config.uid,
            config.short_id,
            rng,
        );
        let _ = topology.take_changes();
        Membership {
            us: config.name,
            routes: Arc::new(Routes::calculate(&topology)),
            topology,
            announce: BTreeSet::new(),
            changed: BTreeMap::new(),
            routes_pace: Pace::new(ROUTES_DELAY, ROUTES_INTERVAL, ROUTES_BURST),
            announce_pace: Pace::new(ANNOUNCE_DELAY, ANNOUNCE_INTERVAL, ANNOUNCE_BURST),
            garbage_at: None,
            addresses: None,
            weft: BTreeSet::new(),
            twin: (PeerUid(0), 0),
        }
    }

    pub(super) fn us(&self) -> PeerName {
        self.us
    }

    pub(super) fn topology(&self) -> &Topology {
        &self.topology
    }

    pub(super) fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Returns when garbage is to be collected, routes to be calculated or our entry to be
    /// announced.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let paces = [&self.routes_pace, &self.announce_pace];
        let paces = paces.into_iter().filter_map(Pace::poll_timeout);
        self.garbage_at.into_iter().chain(paces).min()
    }

    /// Returns true if peers that are out of reach are to be removed now.
    pub(super) fn is_garbage_due(&self, now: Time) -> bool {
        self.garbage_at.is_some_and(|at| at <= now)
    }

    /// Returns true if routes are to be calculated now.
    pub(super) fn are_routes_due(&self, now: Time) -> bool {
        self.routes_pace.poll_timeout().is_some_and(|at| at <= now)
    }

    /// Returns true if routes are to be calculated, now or later.
    pub(super) fn are_routes_stale(&self) -> bool {
        self.routes_pace.is_requested()
    }

    /// Returns the peers to be announced now, ourselves among them.
    pub(super) fn take_announcement(&mut self, now: Time) -> Option<BTreeSet<PeerName>> {
        if !self.announce_pace.is_due(now) {
            return None;
        }
        let mut names = std::mem::take(&mut self.announce);
        names.insert(self.us);
        Some(names)
    }

    /// Schedules what changes of the topology require.
    pub(super) fn note_changes(&mut self, now: Time) {
        let changes = self.topology.take_changes();
        if changes.announce {
            self.announce_pace.request(now);
        }
        if changes.routes {
            self.routes_pace.request(now);
        }
    }

    pub(super) fn recalculate(&mut self, now: Time, sink: &mut Sink) {
        self.note_changes(now);
        self.routes_pace.done(now);
        self.routes = Arc::new(Routes::calculate(&self.topology));
        self.addresses = None;
        sink.counters.route_calculations += 1;
        sink.push(Output::Routes(self.routes.clone()));
    }

    /// Removes unreachable peers. The removal of a peer that was just `refused` is not reported.
    ///
    /// Rule: `docs/protocol/mesh.md#6-4-garbage`.
    pub(super) fn collect_garbage(
        &mut self,
        now: Time,
        refused: Option<PeerName>,
        sink: &mut Sink,
    ) {
        self.garbage_at = None;
        let mut gone = self.topology.collect_garbage();
        self.note_changes(now);
        for name in &gone {
            self.changed.remove(name);
        }
        if !gone.is_empty() {
            sink.push(Output::PeersGone(gone.clone()));
        }
        gone.retain(|name| Some(*name) != refused);
        if !gone.is_empty() {
            sink.event(Event::PeersGone(gone));
        }
    }

    /// Checks the introduced peer, and holds its entry until [`Membership::release`].
    pub(super) fn admit(
        &mut self,
        remote: &Features,
        accept_new: bool,
    ) -> Result<Admitted, Refused> {
        let peer = topology::Introduced {
            name: remote.name,
            nickname: &remote.nickname,
            uid: remote.uid,
            short_id: remote.short_id,
        };
        self.topology.admit(peer, accept_new)
    }

    /// Ends the hold of a peer that was let in and is no neighbour after all.
    pub(super) fn release(&mut self, now: Time, peer: PeerName, sink: &mut Sink) {
        self.topology.release(peer);
        self.collect_garbage(now, Some(peer), sink);
    }

    /// Puts a connection into our entry.
    pub(super) fn add_connection(
        &mut self,
        peer: PeerName,
        address: std::net::SocketAddr,
        outbound: bool,
    ) {
        self.topology.add_connection(peer, address, outbound);
        self.announce.insert(peer);
    }

    pub(super) fn establish_connection(&mut self, peer: PeerName) {
        self.topology.establish_connection(peer);
    }

    /// Removes a connection from our entry, and the peers that only it led to.
    pub(super) fn delete_connection(&mut self, now: Time, peer: PeerName, sink: &mut Sink) {
        self.topology.delete_connection(peer);
        self.topology.release(peer);
        // This must happen before anything is announced: entries of peers to which our own entry
        // does not lead any more would circulate.
        self.collect_garbage(now, None, sink);
    }

    /// Takes in an update of a neighbour.
    ///
    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    pub(super) fn merge(&mut self, now: Time, update: &[u8]) -> Result<Merged, gob::Error> {
        let merged = self.topology.merge(update)?;
        if !merged.improved.is_empty() {
            self.garbage_at.get_or_insert(now + GARBAGE_DELAY);
            let changed = merged.improved.iter().map(|name| (*name, now));
            self.changed.extend(changed);
        }
        self.note_changes(now);
        Ok(merged)
    }

    /// Returns the addresses at which peers of the mesh see each other.
    pub(super) fn addresses(&mut self) -> &BTreeSet<IpAddr> {
        let topology = &self.topology;
        self.addresses.get_or_insert_with(|| {
            let listed = topology.peers().flat_map(|peer| &peer.connections);
            let listed = listed.filter_map(|connection| connection.address.socket_addr());
            listed.map(|address| address.ip()).collect()
        })
    }

    /// Records whether a peer is a weft router.
    pub(super) fn note_weft(&mut self, peer: PeerName, is_weft: bool) {
        if !is_weft {
            self.weft.remove(&peer);
        } else if self.weft.len() < WEFT_MAX {
            self.weft.insert(peer);
        }
    }

    /// Returns true if a peer introduced itself as a router of ours before.
    pub(super) fn is_weft(&self, peer: PeerName) -> bool {
        self.weft.contains(&peer)
    }

    /// Another start of our peer was outdone. Returns true if that happened so often that it
    /// must be alive; once for each start.
    pub(super) fn note_twin(&mut self, uid: PeerUid) -> bool {
        if self.twin.0 != uid {
            self.twin = (uid, 0);
        }
        self.twin.1 = self.twin.1.saturating_add(1);
        self.twin.1 == TWIN_AFTER
    }

    /// Forgets which entries changed long ago.
    pub(super) fn forget_changes(&mut self, now: Time) {
        self.changed.retain(|_, at| *at + RECENT_TIME > now);
    }

    /// Returns names of all peers, to be told to somebody who knows nothing.
    pub(super) fn all(&self) -> BTreeSet<PeerName> {
        self.topology.names().collect()
    }

    /// Returns what a new neighbour that we could reach before may not have heard of: the way to it
    /// may lead over a connection that is dead, though nobody noticed yet. While peers see the mesh
    /// differently, broadcasts may go round in circles.
    ///
    /// Rule: `docs/protocol/mesh.md#10-weft`.
    pub(super) fn recent_changes(&self, now: Time) -> BTreeSet<PeerName> {
        let since = |at: Time| at + RECENT_TIME > now;
        let mut recent: Vec<(Time, PeerName)> = self
            .changed
            .iter()
            .filter(|(_, at)| since(**at))
            .map(|(name, at)| (*at, *name))
            .collect();
        recent.sort_by(|a, b| b.cmp(a));
        let latest = recent.into_iter().take(RECENT_MAX);
        latest.map(|(_, name)| name).collect()
    }

    /// Returns the entries of these peers, as updates that each fit a message.
    pub(super) fn encode(&self, names: BTreeSet<PeerName>) -> Vec<Vec<u8>> {
        self.topology.encode_parts(names, TOPOLOGY_MESSAGE_BYTES)
    }
}
