//! Many nodes in one process, joined by a network of which every misfortune is drawn from a seed.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use proto::connector::Target;
use proto::native::Keys;
use proto::node::{
    ConnSecret, Content, DeliveryKind, LinkAction, LinkInfo, LinkOutput, Node, NodeConfig, Output,
};
use proto::routes::Routes;
use proto::sleeve::link::Path;
use proto::sleeve::{LinkId, Special};
use proto::types::{ConnId, PeerName, PeerUid, Time};

use super::store::Store;
use super::tcp::Pipe;

pub(crate) const PORT: u16 = 6783;
/// Channels that carry a [`Store`]; the second is known to every other host only.
pub(crate) const CHANNELS: [&str; 2] = ["IPallocation", "half-known"];

/// The network between hosts.
#[derive(Clone, Debug)]
pub(crate) struct Network {
    pub(crate) latency_us: std::ops::Range<u64>,
    /// Of 1000 UDP packets, how many are lost, and how many arrive twice.
    pub(crate) loss: u32,
    pub(crate) doubling: u32,
    /// The largest IP packet, and whether senders are told.
    pub(crate) path_mtu: usize,
    pub(crate) path_mtu_told: bool,
}

impl Default for Network {
    fn default() -> Network {
        Network {
            latency_us: 100..2000,
            loss: 0,
            doubling: 0,
            path_mtu: 1500,
            path_mtu_told: true,
        }
    }
}

pub(crate) struct Host {
    pub(crate) name: PeerName,
    pub(crate) ip: Ipv4Addr,
    /// Behind a NAT: the address and port under which others see it. Nobody can dial it.
    pub(crate) nat: Option<SocketAddrV4>,
    pub(crate) node: Option<Node>,
    pub(crate) config: NodeConfig,
    pub(crate) targets: Vec<Target>,
    pub(crate) starts: u32,
    pub(crate) conns: BTreeMap<ConnId, (usize, usize)>,
    pub(crate) links: BTreeMap<LinkId, (LinkInfo, Path)>,
    /// The keys of native links.
    pub(crate) keys: BTreeMap<LinkId, Keys>,
    pub(crate) order: BTreeMap<PeerName, Vec<LinkId>>,
    pub(crate) routes: Option<Arc<Routes>>,
    pub(crate) stores: [Store; 2],
    pub(crate) unicasts: Vec<(PeerName, Vec<u8>)>,
    pub(crate) events: Vec<String>,
    /// What is given out at the end of a connection is not read.
    pub(crate) deaf: bool,
    armed: Option<Time>,
}

pub(crate) enum What {
    Timer(usize),
    Dialled {
        host: usize,
        start: u32,
        conn: ConnId,
        to: SocketAddr,
    },
    DialTimeout {
        host: usize,
        start: u32,
        conn: ConnId,
    },
    Bytes {
        pipe: usize,
        to: usize,
    },
    Reset {
        pipe: usize,
        to: usize,
    },
    Special {
        from: SocketAddrV4,
        info: Box<LinkInfo>,
        to: SocketAddrV4,
        special: Special,
    },
    Datagram {
        from: SocketAddrV4,
        to: SocketAddrV4,
        bytes: Vec<u8>,
    },
}

struct Scheduled {
    at: Time,
    order: u64,
    what: What,
}

impl PartialEq for Scheduled {
    fn eq(&self, other: &Scheduled) -> bool {
        self.order == other.order
    }
}
impl Eq for Scheduled {}
impl PartialOrd for Scheduled {
    fn partial_cmp(&self, other: &Scheduled) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}
impl Ord for Scheduled {
    fn cmp(&self, other: &Scheduled) -> std::cmp::Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

pub(crate) struct World {
    pub(crate) now: Time,
    pub(crate) hosts: Vec<Host>,
    pub(crate) network: Network,
    pub(crate) rng: fastrand::Rng,
    /// Pairs of hosts, lower first, between which nothing passes.
    pub(crate) blocked: BTreeSet<(usize, usize)>,
    /// What happened, if anybody wants to know.
    pub(crate) trace: Option<Vec<String>>,
    /// Whether to print it as it happens.
    pub(crate) printing: bool,
    /// A digest of all outputs so far, and when they came.
    pub(crate) digest: u64,
    /// Hosts that must never lose the way to each other once they have it.
    pub(crate) core: BTreeSet<usize>,
    pub(crate) lost_routes: Vec<String>,
    pub(crate) tcp_bytes: u64,
    pub(crate) udp_packets: u64,
    /// Special frames of sleeve that were sent.
    pub(crate) specials: u64,
    /// Whether native datagrams get lost.
    pub(crate) native_blocked: bool,
    queue: BinaryHeap<Reverse<Scheduled>>,
    order: u64,
    pub(crate) pipes: BTreeMap<usize, Pipe>,
    pub(crate) pipes_made: usize,
}

pub(crate) fn name(host: usize) -> PeerName {
    // Scattered, so that the order of names is not that of hosts.
    let scattered = (host as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
    PeerName::from_u64(scattered).unwrap()
}

impl World {
    pub(crate) fn new(seed: u64) -> World {
        World {
            now: Time::from_micros(1_000_000),
            hosts: Vec::new(),
            network: Network::default(),
            rng: fastrand::Rng::with_seed(seed),
            blocked: BTreeSet::new(),
            trace: None,
            printing: false,
            digest: super::trace::EMPTY,
            core: BTreeSet::new(),
            lost_routes: Vec::new(),
            tcp_bytes: 0,
            udp_packets: 0,
            specials: 0,
            native_blocked: false,
            queue: BinaryHeap::new(),
            order: 0,
            pipes: BTreeMap::new(),
            pipes_made: 0,
        }
    }

    /// Adds a host that is down. `adjust` changes its configuration.
    pub(crate) fn add_host(&mut self, adjust: impl FnOnce(&mut NodeConfig)) -> usize {
        let host = self.hosts.len();
        let ip = Ipv4Addr::from(0x0a00_0001 + host as u32);
        let mut config = NodeConfig::new(name(host), &format!("h{host}"), PeerUid(1), 0);
        config.channels = vec![CHANNELS[0].to_owned()];
        if host.is_multiple_of(2) {
            config.channels.push(CHANNELS[1].to_owned());
        }
        adjust(&mut config);
        self.hosts.push(Host {
            name: config.name,
            ip,
            nat: None,
            node: None,
            config,
            targets: Vec::new(),
            starts: 0,
            conns: BTreeMap::new(),
            links: BTreeMap::new(),
            keys: BTreeMap::new(),
            order: BTreeMap::new(),
            routes: None,
            stores: Default::default(),
            unicasts: Vec::new(),
            events: Vec::new(),
            deaf: false,
            armed: None,
        });
        host
    }

    pub(crate) fn target(&self, host: usize) -> Target {
        let ip = self.hosts[host].ip;
        Target {
            text: ip.to_string(),
            ip: ip.into(),
            port: None,
        }
    }

    /// Starts a host's node with its targets; a new start has a new UID.
    pub(crate) fn start(&mut self, host: usize) {
        let seed = self.rng.u64(..);
        let uid = PeerUid(self.rng.u64(1..));
        let now = self.now;
        let h = &mut self.hosts[host];
        h.starts += 1;
        h.armed = None;
        let config = NodeConfig {
            seed,
            uid,
            ..h.config.clone()
        };
        h.node = Some(Node::new(config, now));
        let targets = h.targets.clone();
        self.with(host, |node, now| node.connect(now, targets, true).unwrap());
    }

    /// Ends a host's node. `silent` as when the power fails, else as when the process is killed.
    pub(crate) fn stop(&mut self, host: usize, silent: bool) {
        let h = &mut self.hosts[host];
        h.node = None;
        h.links.clear();
        h.keys.clear();
        h.order.clear();
        h.routes = None;
        h.stores = Default::default();
        for (pipe, side) in std::mem::take(&mut h.conns).into_values() {
            self.close_end(pipe, side, silent);
        }
    }

    pub(crate) fn is_up(&self, host: usize) -> bool {
        self.hosts[host].node.is_some()
    }

    pub(crate) fn node(&self, host: usize) -> &Node {
        self.hosts[host].node.as_ref().unwrap()
    }

    pub(crate) fn up(&self) -> Vec<usize> {
        (0..self.hosts.len())
            .filter(|host| self.is_up(*host))
            .collect()
    }

    /// Stops or lets through everything between two hosts.
    pub(crate) fn set_blocked(&mut self, a: usize, b: usize, blocked: bool) {
        let pair = (a.min(b), a.max(b));
        if blocked {
            self.blocked.insert(pair);
        } else {
            self.blocked.remove(&pair);
        }
    }

    pub(crate) fn is_blocked(&self, a: usize, b: usize) -> bool {
        self.blocked.contains(&(a.min(b), a.max(b)))
    }

    /// Lets time pass until `until`, or until `done` says that it is enough (asked every
    /// 20 ms at first, then less and less often).
    /// Returns whether it did.
    pub(crate) fn run_until(&mut self, until: Time, mut done: impl FnMut(&World) -> bool) -> bool {
        let (mut ask, mut step) = (self.now, Duration::from_millis(20));
        loop {
            if self.now >= ask {
                if done(self) {
                    return true;
                }
                ask = self.now + step;
                step = (step + step / 8).min(Duration::from_millis(500));
            }
            let first = self.queue.peek().map(|Reverse(first)| first.at);
            let next = first.map_or(ask, |first| first.min(ask));
            if next > until {
                self.now = until;
                return done(self);
            }
            self.now = self.now.max(next);
            while self
                .queue
                .peek()
                .is_some_and(|Reverse(first)| first.at <= self.now)
            {
                if let Some(Reverse(event)) = self.queue.pop() {
                    self.happen(event.what);
                }
            }
        }
    }

    pub(crate) fn run(&mut self, time: Duration) {
        self.run_until(self.now + time, |_| false);
    }

    /// Calls a node, then does what it wants.
    pub(crate) fn with<T>(
        &mut self,
        host: usize,
        act: impl FnOnce(&mut Node, Time) -> T,
    ) -> Option<T> {
        let now = self.now;
        let out = self.hosts[host].node.as_mut().map(|node| act(node, now));
        while let Some(output) = self.hosts[host].node.as_mut().and_then(Node::poll_output) {
            let line = format!("{host} {}", super::trace::describe(&output));
            self.digest = super::trace::extend(self.digest, &now.as_micros().to_be_bytes());
            self.digest = super::trace::extend(self.digest, line.as_bytes());
            self.note(|| line);
            self.execute(host, output);
        }
        self.arm(host);
        out
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let now = self.now;
        if let Some(trace) = &mut self.trace {
            let line = format!("{:>12} {}", now.as_micros(), what());
            if self.printing {
                println!("{line}");
            }
            trace.push(line);
        }
    }

    pub(crate) fn schedule(&mut self, at: Time, what: What) {
        self.order += 1;
        let order = self.order;
        self.queue.push(Reverse(Scheduled { at, order, what }));
    }

    fn arm(&mut self, host: usize) {
        let h = &mut self.hosts[host];
        let Some(at) = h.node.as_ref().and_then(Node::poll_timeout) else {
            return;
        };
        if h.armed.is_none_or(|armed| at < armed) {
            h.armed = Some(at);
            self.schedule(at.max(self.now), What::Timer(host));
        }
    }

    pub(crate) fn latency(&mut self) -> Duration {
        Duration::from_micros(self.rng.u64(self.network.latency_us.clone()))
    }

    pub(crate) fn secret(&mut self) -> ConnSecret {
        let (mut key, mut native) = ([0; 32], [0; 32]);
        self.rng.fill(&mut key);
        self.rng.fill(&mut native);
        ConnSecret {
            key: key.into(),
            native: native.into(),
            conn_id: self.rng.u64(..),
        }
    }

    fn execute(&mut self, host: usize, output: Output) {
        match output {
            Output::Dial { conn, to } => self.dial(host, conn, to),
            Output::Send { conn, bytes } => self.send(host, conn, bytes),
            Output::Close { conn } => {
                if let Some((pipe, side)) = self.hosts[host].conns.remove(&conn) {
                    self.close_end(pipe, side, false);
                }
            }
            Output::NeedState { channel, conn, .. } => {
                let index = CHANNELS.iter().position(|c| **c == *channel).unwrap();
                let state = self.hosts[host].stores[index].encode();
                let now = self.now;
                if let Some(node) = &mut self.hosts[host].node {
                    node.handle_state(now, &channel, conn, Some(&state));
                }
            }
            Output::Deliver {
                channel,
                neighbour,
                kind,
                payload,
                ..
            } => {
                self.deliver(host, &channel, neighbour, kind, payload);
            }
            Output::LinkAdded(info) => {
                let path = info.path;
                self.hosts[host].links.insert(info.link, (*info, path));
            }
            Output::Link(LinkOutput { link, what }) => self.execute_link(host, link, what),
            Output::LinkRemoved { link } => {
                self.hosts[host].links.remove(&link).unwrap();
                self.hosts[host].keys.remove(&link);
            }
            Output::LinkOrder { peer, links } => {
                let h = &mut self.hosts[host];
                assert!(links.iter().all(|link| h.links.contains_key(link)));
                h.order.insert(peer, links);
                h.order.retain(|_, links| !links.is_empty());
            }
            Output::Routes(routes) => self.take_routes(host, routes),
            Output::Event(event) => self.hosts[host].events.push(event.to_string()),
            Output::PeersGone(_) | Output::TargetsChanged(_) | Output::PeersMet(_) => {}
        }
    }

    fn execute_link(&mut self, host: usize, link: LinkId, what: LinkAction) {
        let h = &mut self.hosts[host];
        match what {
            LinkAction::Path(path) => h.links.get_mut(&link).unwrap().1 = path,
            LinkAction::Keys(keys) => {
                assert!(h.links.contains_key(&link));
                h.keys.insert(link, keys);
            }
            LinkAction::NeedSecret => {
                let mut secret = [0; 32];
                self.rng.fill(&mut secret);
                let now = self.now;
                if let Some(node) = &mut self.hosts[host].node {
                    node.handle_secret(now, link, secret.into());
                }
            }
            LinkAction::Special(special) => self.send_special(host, link, special),
            LinkAction::Report(report, bytes) => self.send_report(host, link, report, bytes),
        }
    }

    fn deliver(
        &mut self,
        host: usize,
        channel: &str,
        neighbour: PeerName,
        kind: DeliveryKind,
        payload: Vec<u8>,
    ) {
        let index = CHANNELS.iter().position(|c| *c == channel).unwrap();
        let h = &mut self.hosts[host];
        if let DeliveryKind::Unicast { source } = kind {
            h.unicasts.push((source, payload));
            return;
        }
        let news = h.stores[index].merge(&payload);
        let Some(node) = &mut h.node else { return };
        match kind {
            DeliveryKind::Broadcast { source } => {
                node.relay_broadcast(self.now, channel, source, Content::Payload(payload));
            }
            _ if !news.is_empty() => {
                node.relay_gossip(self.now, channel, neighbour, Content::Payload(news));
            }
            _ => {}
        }
    }

    fn take_routes(&mut self, host: usize, routes: Arc<Routes>) {
        if self.core.contains(&host) {
            let old = self.hosts[host].routes.as_ref();
            for other in self.core.iter().filter(|other| **other != host) {
                let name = self.hosts[*other].name;
                let had = old.is_some_and(|old| old.unicast(name).is_some());
                if had && routes.unicast(name).is_none() {
                    self.lost_routes
                        .push(format!("{:?} {host} lost {other}", self.now));
                }
            }
        }
        self.hosts[host].routes = Some(routes);
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Timer(host) => {
                let h = &mut self.hosts[host];
                if h.armed.is_some_and(|armed| armed <= self.now) {
                    h.armed = None;
                    self.with(host, Node::handle_timeout_at);
                    let next = self.hosts[host].node.as_ref().and_then(Node::poll_timeout);
                    assert!(
                        next.is_none_or(|next| next > self.now),
                        "something stays due"
                    );
                }
            }
            What::Dialled {
                host,
                start,
                conn,
                to,
            } => self.dialled(host, start, conn, to),
            What::DialTimeout { host, start, conn } => {
                if self.hosts[host].starts == start {
                    self.with(host, |node, now| {
                        node.handle_dial_failed(now, conn, "connection timed out");
                    });
                }
            }
            What::Bytes { pipe, to } => self.bytes(pipe, to),
            What::Reset { pipe, to } => self.reset(pipe, to),
            What::Special {
                from,
                info,
                to,
                special,
            } => {
                self.special_arrives(from, &info, to, special);
            }
            What::Datagram { from, to, bytes } => self.datagram_arrives(from, to, bytes),
        }
    }
}

/// `Node::handle_timeout` with the arguments in the order that [`World::with`] gives them.
trait Timeout {
    fn handle_timeout_at(&mut self, now: Time);
}

impl Timeout for Node {
    fn handle_timeout_at(&mut self, now: Time) {
        self.handle_timeout(now);
    }
}
