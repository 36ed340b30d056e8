//! A peer of the mesh: everything of this crate's control side as one state machine.
//!
//! ```text
//!              handle_accepted, handle_dialled        handle_special, handle_too_big
//!                          |                                      |
//!   bytes --> Wire --> introduction --> member --> OverlaySwitch (links)
//!                          |               |
//!                     Topology <--- gossip channels ---> Deliver, NeedState (the driver's)
//!                          |
//!                  Routes, Connector --> Dial
//! ```
//!
//! A connection is *introduced* when both ends' features are known, and becomes a *member* of our
//! peer if it is not refused; only then are messages taken from it. It is *established* when one
//! of its overlays carries frames.
//!
//! The driver calls the `handle_` functions, then takes outputs until there are none, and acts on
//! them in order. Unknown connections and links are ignored, so it need not keep track of what
//! was closed in between.

mod channels;
mod config;
mod connection;
mod event;
mod introduction;
mod members;
mod pace;
#[cfg(test)]
mod tests;
mod view;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

pub use channels::Content;
pub use config::{
    ConnSecret, GARBAGE_DELAY, GOSSIP_INTERVAL, HEARTBEAT_INTERVAL, INTRODUCTION_TIME_MAX,
    INTRODUCTIONS_MAX, NodeConfig, READ_TIME_MAX, WRITE_TIME_MAX,
};
pub use event::{CloseReason, Event, Level, PeerLabel};
pub use view::{ConnectionView, Counters};

use crate::connector::{Connector, ConnectorConfig, Dial, Ended, Target, TooManyTargets};
use crate::crypto::SessionKey;
use crate::gossip::{News, Relays, Route};
use crate::native::link::SessionNumbers;
use crate::native::{Keys, Report};
use crate::overlay::Overlay;
use crate::routes::Routes;
use crate::sleeve::link::Path;
use crate::sleeve::{LinkId, Special};
use crate::topology::Topology;
use crate::types::{ConnId, ConnUid, PeerName, Time};
use channels::{Channels, TOPOLOGY_ID};
use connection::Connection;
use pace::Pace;

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect to an address. To be answered by [`Node::handle_dialled`] or
    /// [`Node::handle_dial_failed`].
    Dial {
        /// The name of the connection.
        conn: ConnId,
        /// The address.
        to: SocketAddr,
    },
    /// Send bytes down a connection. To be answered by [`Node::handle_sent`] when they left.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection; nothing more comes for it.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Gossip on a channel that the driver registered.
    Deliver {
        /// The channel.
        channel: Arc<str>,
        /// The connection over which it came, to be closed if it must not be tolerated.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Whom it is for, and from whom.
        kind: DeliveryKind,
        /// The channel's data.
        payload: Vec<u8>,
    },
    /// The complete state of a channel is to be sent down a connection: answer by
    /// [`Node::handle_state`], at once or later.
    NeedState {
        /// The channel.
        channel: Arc<str>,
        /// The connection.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Whether the channel's state was never asked for this connection before.
        first: bool,
    },
    /// There is a new link to a neighbour. Packets from it may come at once.
    LinkAdded(Box<LinkInfo>),
    /// Packets of a link travel in another way.
    LinkUpdated {
        /// The link.
        link: LinkId,
        /// The way.
        path: Path,
    },
    /// A native link has other keys. Datagrams that need them may come at once, and what follows
    /// may be sent with them.
    LinkKeys {
        /// The link.
        link: LinkId,
        /// The keys.
        keys: Keys,
    },
    /// A link is over.
    LinkRemoved {
        /// The link.
        link: LinkId,
    },
    /// The links to a neighbour, in the order in which they are to be tried for a frame; none if
    /// it is a neighbour no longer.
    LinkOrder {
        /// The neighbour.
        peer: PeerName,
        /// The links.
        links: Vec<LinkId>,
    },
    /// Send a special frame over a link.
    Special {
        /// The link.
        link: LinkId,
        /// The frame, which says on which channel it goes.
        special: Special,
    },
    /// Seal a report with the key of a native link and send it at once.
    Report {
        /// The link.
        link: LinkId,
        /// The report.
        report: Report,
        /// Bytes of the datagram.
        bytes: usize,
    },
    /// New routes; to be used from here on.
    Routes(Arc<Routes>),
    /// Peers were removed: forget what belongs to them.
    PeersGone(Vec<PeerName>),
    /// What is to be dialled after a restart, as the user wrote it.
    TargetsChanged(Vec<String>),
    /// Something for the log.
    Event(Event),
}

/// From whom gossip comes, and for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// From one peer for us alone.
    Unicast {
        /// The peer.
        source: PeerName,
    },
    /// From one peer for everybody. The handler decides what goes on
    /// ([`Node::relay_broadcast`]).
    Broadcast {
        /// The peer.
        source: PeerName,
    },
    /// From the neighbour for us. The handler decides what goes on ([`Node::relay_gossip`]).
    Gossip,
}

/// What the threads that carry frames must know of a new link.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// The link.
    pub link: LinkId,
    /// The connection it belongs to.
    pub conn: ConnId,
    /// The neighbour.
    pub peer: PeerName,
    /// Its kind.
    pub overlay: Overlay,
    /// The overlays that the neighbour offers, in its order; none if it is an old router.
    pub remote_overlays: Arc<[String]>,
    /// The number of the connection, which is in heartbeats.
    pub uid: ConnUid,
    /// The key of sleeve packets; none for packets in the clear.
    pub key: Option<SessionKey>,
    /// Whether we dialled, which tells the nonces of both directions apart.
    pub dialled: bool,
    /// How packets travel at first.
    pub path: Path,
}

impl LinkInfo {
    /// Whether the router at the other end is one of ours.
    pub fn is_weft(&self) -> bool {
        offers_weft(&self.remote_overlays)
    }
}

/// Whether a router that offers these overlays is one of ours.
fn offers_weft(overlays: &[String]) -> bool {
    overlays.iter().any(|name| name == Overlay::Weft.name())
}

/// Our peer.
#[derive(Debug)]
pub struct Node {
    config: NodeConfig,
    us: PeerName,
    rng: fastrand::Rng,
    topology: Topology,
    routes: Arc<Routes>,
    connector: Connector,
    dialling: BTreeMap<ConnId, Dial>,
    conns: BTreeMap<ConnId, Connection>,
    /// Accepted connections without introduction.
    strangers: BTreeSet<ConnId>,
    /// The connection to each neighbour.
    members: BTreeMap<PeerName, ConnId>,
    /// The connection of each link.
    links: BTreeMap<LinkId, ConnId>,
    channels: Channels,
    relays: Relays,
    /// Peers to be announced with us.
    announce: BTreeSet<PeerName>,
    /// When entries of peers were last seen to change; forgotten after [`config::RECENT_TIME`].
    changed: BTreeMap<PeerName, Time>,
    pace: Paces,
    garbage_at: Option<Time>,
    gossip_at: Time,
    /// Connections for which something may have to be sent.
    touched: BTreeSet<ConnId>,
    counters: Counters,
    last_conn: u64,
    last_link: u64,
    numbers: SessionNumbers,
    outputs: VecDeque<Output>,
}

#[derive(Debug)]
struct Paces {
    routes: Pace,
    announce: Pace,
}

impl Node {
    /// A peer without connections.
    pub fn new(config: NodeConfig, now: Time) -> Node {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let topology = Topology::new(
            config.name,
            &config.nickname,
            config.uid,
            config.short_id,
            rng.fork(),
        );
        let connector = ConnectorConfig {
            port: config.port,
            discovery: config.discovery,
            connection_limit: config.connection_limit,
        };
        let routes = Arc::new(Routes::calculate(&topology));
        // Peers that start together do not gossip together.
        let first_gossip = GOSSIP_INTERVAL.mul_f64(0.5 + rng.f64() / 2.0);
        let numbers = SessionNumbers::new(rng.u64(..));
        let mut node = Node {
            us: config.name,
            numbers,
            topology,
            connector: Connector::new(connector, rng.fork()),
            rng,
            routes: routes.clone(),
            dialling: BTreeMap::new(),
            conns: BTreeMap::new(),
            strangers: BTreeSet::new(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            channels: Channels::new(&config.channels),
            relays: Relays::default(),
            announce: BTreeSet::new(),
            changed: BTreeMap::new(),
            pace: Paces {
                routes: Pace::new(ROUTES_DELAY, ROUTES_INTERVAL, ROUTES_BURST),
                announce: Pace::new(ANNOUNCE_DELAY, ANNOUNCE_INTERVAL, ANNOUNCE_BURST),
            },
            garbage_at: None,
            gossip_at: now + first_gossip,
            touched: BTreeSet::new(),
            counters: Counters::default(),
            last_conn: 0,
            last_link: 0,
            outputs: VecDeque::from([Output::Routes(routes)]),
            config,
        };
        let _ = node.topology.take_changes();
        node
    }

    /// What to do next, in order, until `None`. Any other call may add to it.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Node::handle_timeout`] is due. Any other call may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let connections = self.conns.values().flat_map(|connection| {
            let overlay = connection.member.as_ref().map(|m| m.overlay.poll_timeout());
            [Some(connection.poll_timeout()), overlay.flatten()]
        });
        [
            self.garbage_at,
            Some(self.gossip_at),
            self.pace.routes.poll_timeout(),
            self.pace.announce.poll_timeout(),
            self.connector.poll_timeout(),
        ]
        .into_iter()
        .chain(connections)
        .flatten()
        .min()
    }

    /// Time passed.
    pub fn handle_timeout(&mut self, now: Time) {
        for conn in self.conns.keys().copied().collect::<Vec<_>>() {
            self.handle_connection_timeout(now, conn);
        }
        self.connector.handle_timeout(now);
        if self.garbage_at.is_some_and(|at| at <= now) {
            self.collect_garbage(now, None);
        }
        if self.gossip_at <= now {
            self.gossip_at = now + GOSSIP_INTERVAL;
            self.changed.retain(|_, at| *at + config::RECENT_TIME > now);
            self.gossip_all_state();
        }
        if self.pace.announce.is_due(now) {
            let mut names = std::mem::take(&mut self.announce);
            names.insert(self.us);
            let route = Route::Neighbours { except: None };
            self.relay(TOPOLOGY_ID, route, News::Peers(names));
        }
        if self.pace.routes.poll_timeout().is_some_and(|at| at <= now) {
            self.recalculate(now);
        }
        self.settle(now);
    }

    /// Bytes that were given out in [`Output::Send`] left the driver.
    pub fn handle_sent(&mut self, now: Time, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.handle_sent(now, bytes);
            self.touched.insert(conn);
            self.settle(now);
        }
    }

    /// A connection ended: the other end closed it (no error), or it broke.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId, error: Option<&str>) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let reason = match (error, connection.wire.handle_end()) {
            (Some(error), _) => CloseReason::Ended(error.to_owned()),
            (None, Err(error)) => error.into(),
            (None, Ok(())) => CloseReason::Ended("remote closed the connection".to_owned()),
        };
        self.close_connection(now, conn, reason);
        self.settle(now);
    }

    /// Closes a connection, since a channel's handler cannot go on with the peer at its other end.
    pub fn close(&mut self, now: Time, conn: ConnId, reason: &str) {
        self.close_connection(now, conn, CloseReason::Handler(reason.to_owned()));
        self.settle(now);
    }

    /// Names targets to be connected to; with `replace`, in place of all named before. Those that
    /// wait are tried at once.
    pub fn connect(
        &mut self,
        now: Time,
        targets: impl IntoIterator<Item = Target>,
        replace: bool,
    ) -> Result<(), TooManyTargets> {
        self.connector.connect(now, targets, replace)?;
        self.targets_changed();
        self.settle(now);
        Ok(())
    }

    /// Forgets targets by the texts under which they were named. Connections to them stay.
    pub fn forget<'t>(&mut self, now: Time, texts: impl IntoIterator<Item = &'t str>) {
        self.connector.forget(now, texts);
        self.targets_changed();
        self.settle(now);
    }

    fn targets_changed(&mut self) {
        let texts = self.connector.direct().map(|target| target.text.clone());
        let texts = texts.collect();
        self.outputs.push_back(Output::TargetsChanged(texts));
    }

    /// Brings everything up to date that follows from what was just handled.
    fn settle(&mut self, now: Time) {
        self.note_topology(now);
        self.pass_on();
        while let Some(conn) = self.touched.pop_first() {
            self.flush(now, conn);
            self.pump(now, conn);
        }
        while let Some(dial) = self.connector.poll_output() {
            let conn = self.next_conn();
            self.dialling.insert(conn, dial);
            self.outputs.push_back(Output::Dial { conn, to: dial.to });
        }
    }

    /// Sees what changes of the topology ask for.
    fn note_topology(&mut self, now: Time) {
        let changes = self.topology.take_changes();
        if changes.announce {
            self.pace.announce.request(now);
        }
        if changes.routes {
            self.pace.routes.request(now);
        }
    }

    fn recalculate(&mut self, now: Time) {
        self.note_topology(now);
        self.pace.routes.done(now);
        self.routes = Arc::new(Routes::calculate(&self.topology));
        self.counters.route_calculations += 1;
        self.outputs.push_back(Output::Routes(self.routes.clone()));
        self.connector.handle_topology(now, &self.topology);
    }

    /// Removes peers that are out of reach. That a peer which was just `refused` goes is not
    /// worth a word.
    fn collect_garbage(&mut self, now: Time, refused: Option<PeerName>) {
        self.garbage_at = None;
        let mut gone = self.topology.collect_garbage();
        self.note_topology(now);
        for name in &gone {
            self.changed.remove(name);
        }
        if !gone.is_empty() {
            self.outputs.push_back(Output::PeersGone(gone.clone()));
        }
        gone.retain(|name| Some(*name) != refused);
        if !gone.is_empty() {
            self.event(Event::PeersGone(gone));
        }
    }

    /// Closes a connection of ours, introduced or not, and tells everybody concerned.
    fn close_connection(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        let Some(connection) = self.conns.remove(&conn) else {
            return;
        };
        self.strangers.remove(&conn);
        self.counters.terminations += 1;
        let peer = connection.member.map(|member| {
            self.remove_member(now, conn, &member);
            member.label
        });
        if connection.dial.is_some() || peer.is_some() {
            let ended = Ended {
                dialled: connection.dial.map(|dial| dial.to),
                peer: peer.as_ref().map(|peer| peer.name),
                error: &reason.to_string(),
                never_again: reason.is_final(),
            };
            self.connector.handle_ended(now, conn, ended);
        }
        self.outputs.push_back(Output::Close { conn });
        self.event(Event::Closed {
            conn,
            peer,
            address: connection.remote,
            outbound: connection.dial.is_some(),
            reason,
        });
    }

    /// Queues a message; closes the connection if it cannot carry another one.
    fn send(&mut self, now: Time, conn: ConnId, message: &[u8]) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        match connection.wire.send(message) {
            Ok(()) => {}
            Err(crate::wire::WireError::Exhausted) => {
                self.close_connection(now, conn, crate::wire::WireError::Exhausted.into());
            }
            // A message that is too long: the others can go on.
            Err(_) => self.counters.gossip_dropped += 1,
        }
    }

    /// Hands the driver what a connection has to send.
    fn flush(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        while let Some(bytes) = connection.poll_transmit(now) {
            self.outputs.push_back(Output::Send { conn, bytes });
        }
    }

    fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    fn next_conn(&mut self) -> ConnId {
        self.last_conn += 1;
        ConnId(self.last_conn)
    }
}

/// The first route calculations after a change; in a storm of changes one follows another only
/// after [`ROUTES_INTERVAL`].
const ROUTES_DELAY: Duration = Duration::from_millis(5);
const ROUTES_INTERVAL: Duration = Duration::from_millis(100);
const ROUTES_BURST: u32 = 4;

/// The same for announcements of our own entry.
const ANNOUNCE_DELAY: Duration = Duration::from_millis(50);
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(1);
const ANNOUNCE_BURST: u32 = 3;
