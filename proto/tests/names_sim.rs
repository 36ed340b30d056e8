//! Many peers gossip their names over a model of the mesh: gossip to random neighbours, broadcasts
//! along routes, complete state every 30 s.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::rc::Rc;
use std::time::Duration;

use fastrand::Rng;
use proto::names::{Filter, Names, NamesConfig, Output, UnixSecs};
use proto::types::{PeerName, Time};

const WALL: i64 = 1_700_000_000;
/// How long a message takes over one connection.
const HOP: Duration = Duration::from_millis(10);
const GOSSIP_INTERVAL: Duration = Duration::from_secs(30);

/// A message on its way.
struct Message {
    from: usize,
    to: usize,
    /// Who broadcast it; gossip has none.
    source: Option<PeerName>,
    payload: Rc<[u8]>,
}

struct Mesh {
    rng: Rng,
    now: Time,
    next_gossip: Time,
    peers: Vec<Names>,
    /// Neighbours of each peer, sorted.
    links: Vec<Vec<usize>>,
    /// Per peer: how many peers are reached through each neighbour.
    weights: Vec<BTreeMap<usize, usize>>,
    /// Per source, per peer: where the peer passes broadcasts of the source on to.
    routes: Vec<Vec<Vec<usize>>>,
    on_their_way: Vec<Message>,
    /// How many of the peers, from the first, send their complete state.
    gossiping: usize,
    loss: f64,
    bytes: u64,
    messages: u64,
}

fn name(index: usize) -> PeerName {
    PeerName::from_u64(index as u64 + 1).unwrap()
}

impl Mesh {
    /// Creates a ring of `count` peers with as many random chords.
    fn new(count: usize, seed: u64) -> Mesh {
        let mut rng = Rng::with_seed(seed);
        let mut links = vec![BTreeSet::new(); count];
        for a in 0..count {
            for b in [(a + 1) % count, rng.usize(0..count)] {
                if a != b {
                    links[a].insert(b);
                    links[b].insert(a);
                }
            }
        }
        let links: Vec<Vec<usize>> = links.into_iter().map(|l| l.into_iter().collect()).collect();
        let domain: proto::names::Domain = "weave.local.".parse().unwrap();
        let all: Vec<PeerName> = (0..count).map(name).collect();
        let peer = |index| {
            let config = NamesConfig {
                us: name(index),
                domain: domain.clone(),
            };
            let mut names = Names::new(config, Time::ZERO);
            names.handle_peers(Time::ZERO, UnixSecs(WALL), &all);
            names
        };
        let hops: Vec<Vec<usize>> = (0..count).map(|start| first_hops(&links, start)).collect();
        let weigh = |hops: &Vec<usize>| {
            let mut weights = BTreeMap::new();
            for hop in hops.iter().filter(|hop| **hop != usize::MAX) {
                *weights.entry(*hop).or_insert(0) += 1;
            }
            weights
        };
        Mesh {
            rng,
            now: Time::ZERO,
            next_gossip: Time::ZERO + GOSSIP_INTERVAL,
            peers: (0..count).map(peer).collect(),
            weights: hops.iter().map(weigh).collect(),
            routes: (0..count).map(|source| broadcast(&links, source)).collect(),
            links,
            on_their_way: Vec::new(),
            gossiping: count,
            loss: 0.0,
            bytes: 0,
            messages: 0,
        }
    }

    fn wall(&self) -> UnixSecs {
        UnixSecs(WALL + (self.now.as_micros() / 1_000_000) as i64)
    }

    /// Moves what a peer wants to send to its connections.
    fn collect(&mut self, index: usize) {
        while let Some(output) = self.peers[index].poll_output() {
            match output {
                Output::Gossip { except, payload } => self.gossip(index, except, &payload),
                Output::Broadcast { payload } => self.relay(index, name(index), &payload),
                Output::Relay { source, payload } => self.relay(index, source, &payload),
                Output::Index(_) => {}
                Output::Event(event) => panic!("{event}"),
            }
        }
    }

    fn relay(&mut self, index: usize, source: PeerName, payload: &[u8]) {
        let payload: Rc<[u8]> = payload.into();
        for &to in &self.routes[source.as_u64() as usize - 1][index] {
            self.on_their_way.push(Message {
                from: index,
                to,
                source: Some(source),
                payload: payload.clone(),
            });
        }
    }

    fn gossip(&mut self, index: usize, except: Option<PeerName>, payload: &[u8]) {
        let mut weights = self.weights[index].clone();
        weights.retain(|neighbour, _| Some(name(*neighbour)) != except);
        let reach: usize = weights.values().sum::<usize>() + 1;
        let payload: Rc<[u8]> = payload.into();
        let wanted = ((2.0 * (reach as f64).log2()) as usize).min(weights.len());
        for _ in 0..wanted {
            let mut draw = self.rng.usize(0..weights.values().sum());
            let picked = weights.iter().find(|(_, weight)| {
                let hit = draw < **weight;
                draw = draw.saturating_sub(**weight);
                hit
            });
            let next = *picked.unwrap().0;
            weights.remove(&next);
            self.on_their_way.push(Message {
                from: index,
                to: next,
                source: None,
                payload: payload.clone(),
            });
        }
    }

    /// One hop of time: everything that waits is sent and received.
    fn step(&mut self) {
        for index in 0..self.peers.len() {
            self.collect(index);
        }
        if self.now >= self.next_gossip {
            self.next_gossip = self.now + GOSSIP_INTERVAL;
            for index in 0..self.gossiping {
                let wall = self.wall();
                let state = self.peers[index].state(wall);
                self.gossip(index, None, &state);
            }
        }
        self.now += HOP;
        let wall = self.wall();
        for message in std::mem::take(&mut self.on_their_way) {
            self.bytes += message.payload.len() as u64;
            self.messages += 1;
            if self.rng.f64() < self.loss {
                continue;
            }
            let (peer, payload) = (&mut self.peers[message.to], &message.payload);
            match message.source {
                Some(source) => peer.handle_broadcast(self.now, wall, source, payload),
                None => peer.handle_gossip(self.now, wall, name(message.from), payload),
            }
            .unwrap();
            self.collect(message.to);
        }
        for peer in &mut self.peers {
            peer.handle_timeout(self.now);
        }
    }

    /// Steps until nothing waits. Returns how many steps it took.
    fn settle(&mut self) -> usize {
        for steps in 0.. {
            self.step();
            for index in 0..self.peers.len() {
                self.collect(index);
            }
            if self.on_their_way.is_empty() {
                return steps;
            }
        }
        0
    }

    /// Lets the time of the next complete gossip come, and what follows from it.
    fn gossip_round(&mut self) -> usize {
        self.now = self.next_gossip;
        self.settle()
    }

    fn add(&mut self, index: usize, host: usize) {
        let addr = Ipv4Addr::from(0x0a20_0000 + host as u32);
        let hostname = format!("service-{}.weave.local", host / 3);
        let container = format!("{host:064x}");
        let (now, wall) = (self.now, self.wall());
        let names = &mut self.peers[index];
        names.add(now, wall, &container, &hostname, addr).unwrap();
    }

    fn remove(&mut self, index: usize, host: usize) {
        let addr = Some(Ipv4Addr::from(0x0a20_0000 + host as u32));
        let filter = Filter {
            addr,
            ..Filter::default()
        };
        let (now, wall) = (self.now, self.wall());
        assert_eq!(self.peers[index].delete(now, wall, &filter).len(), 1);
    }

    /// Returns how many peers differ from the first.
    fn differing(&self) -> usize {
        let first: Vec<_> = self.peers[0].entries().collect();
        let differs = |peer: &&Names| !peer.entries().eq(first.iter().copied());
        self.peers.iter().filter(differs).count()
    }

    fn take_traffic(&mut self) -> (u64, u64) {
        (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.messages),
        )
    }
}

/// Returns for each peer the neighbour of `start` through which it is reached.
fn first_hops(links: &[Vec<usize>], start: usize) -> Vec<usize> {
    let mut hops = vec![usize::MAX; links.len()];
    let mut seen = BTreeSet::from([start]);
    let mut level = vec![start];
    while !level.is_empty() {
        let mut next = Vec::new();
        for &peer in &level {
            for &other in &links[peer] {
                if seen.insert(other) {
                    hops[other] = if peer == start { other } else { hops[peer] };
                    next.push(other);
                }
            }
        }
        next.sort_unstable();
        level = next;
    }
    hops
}

/// Returns for each peer the neighbours that it passes broadcasts of `source` on to: each peer has
/// the one parent that reaches it first.
fn broadcast(links: &[Vec<usize>], source: usize) -> Vec<Vec<usize>> {
    let mut children = vec![Vec::new(); links.len()];
    let mut seen = BTreeSet::from([source]);
    let mut level = vec![source];
    while !level.is_empty() {
        let mut next = Vec::new();
        for &peer in &level {
            for &other in &links[peer] {
                if seen.insert(other) {
                    children[peer].push(other);
                    next.push(other);
                }
            }
        }
        next.sort_unstable();
        level = next;
    }
    children
}

/// Registers `each` names at every peer and checks that they are everywhere without waiting for
/// complete gossip.
fn populate(mesh: &mut Mesh, each: usize) -> usize {
    let count = mesh.peers.len();
    for index in 0..count {
        for i in 0..each {
            mesh.add(index, index * each + i);
        }
    }
    let hops = mesh.settle();
    assert_eq!(mesh.peers[0].table().alive(), count * each);
    assert_eq!(mesh.differing(), 0);
    hops
}

#[test]
fn ten_thousand_names_on_a_hundred_peers() {
    let (peers, each) = (100, 100);
    let mut mesh = Mesh::new(peers, 1);
    let hops = populate(&mut mesh, each);
    let (bytes, messages) = mesh.take_traffic();
    let entry_bytes = mesh.peers[0].state(UnixSecs(WALL)).len() as u64 / (peers * each) as u64;
    // Every entry goes to every peer once, with some overhead per message.
    let ideal = (peers * each * (peers - 1)) as u64 * entry_bytes;
    println!(
        "adding: {hops} hops, {messages} messages, {bytes} bytes, {:.2} of the ideal",
        bytes as f64 / ideal as f64
    );
    assert!(hops <= 12, "{hops} hops");
    assert!(bytes < ideal * 13 / 10, "{bytes} bytes, ideally {ideal}");

    // Complete gossip of what everybody knows goes one hop and causes no more. A tenth of the
    // peers is enough to see it.
    mesh.gossiping = peers / 10;
    let hops = mesh.gossip_round();
    let (bytes, messages) = mesh.take_traffic();
    let neighbours: usize = mesh.links[..mesh.gossiping].iter().map(Vec::len).sum();
    println!(
        "quiet: {messages} messages, {bytes} bytes by {} peers in 30 s",
        mesh.gossiping
    );
    assert_eq!(hops, 0);
    assert!(messages <= neighbours as u64);
    assert_eq!(mesh.differing(), 0);

    // A container that moves costs two small messages per peer.
    mesh.remove(3, 300);
    mesh.add(4, 300);
    let hops = mesh.settle();
    let (bytes, messages) = mesh.take_traffic();
    println!("a move: {hops} hops, {messages} messages, {bytes} bytes");
    assert_eq!(messages, 2 * (peers as u64 - 1));
    assert!(bytes < 2 * 99 * 400);
    assert_eq!(mesh.differing(), 0);
}

#[test]
fn losses_are_made_good_by_complete_gossip() {
    for seed in 0..3 {
        let mut mesh = Mesh::new(30, seed);
        populate(&mut mesh, 10);
        mesh.loss = 0.3;
        for host in 0..100 {
            mesh.remove(host / 10, host);
            mesh.add(host / 5, host + 1000);
        }
        mesh.settle();
        assert_ne!(mesh.differing(), 0, "nothing was lost");
        mesh.take_traffic();
        let mut rounds = 0;
        while mesh.differing() > 0 {
            mesh.gossip_round();
            rounds += 1;
        }
        let (bytes, messages) = mesh.take_traffic();
        println!("seed {seed}: {rounds} rounds, {messages} messages, {bytes} bytes");
        assert!(rounds <= 3, "{rounds} rounds");
        assert_eq!(mesh.peers[0].table().alive(), 300);
    }
}

#[test]
fn a_vanished_peer_takes_its_names_along() {
    let mut mesh = Mesh::new(20, 5);
    populate(&mut mesh, 10);
    let left: Vec<PeerName> = (0..19).map(name).collect();
    // Half of the peers hear of it first; the others still gossip the old names.
    let (now, wall) = (mesh.now, mesh.wall());
    for index in 0..10 {
        mesh.peers[index].peers_gone(&[name(19)]);
        mesh.peers[index].handle_peers(now, wall, &left);
    }
    mesh.gossip_round();
    assert_eq!(mesh.peers[0].table().alive(), 190);
    for index in 10..19 {
        mesh.peers[index].handle_peers(now, wall, &left);
    }
    mesh.gossip_round();
    for peer in &mesh.peers[..19] {
        assert_eq!(peer.table().len(), 190);
    }
}

#[test]
fn forgotten_deaths_stay_forgotten() {
    let mut mesh = Mesh::new(20, 6);
    populate(&mut mesh, 5);
    for host in 0..50 {
        mesh.remove(host / 5, host);
    }
    mesh.settle();
    assert_eq!(mesh.peers[7].table().len(), 100);
    // The peers look through their tables at different times.
    for _ in 0..2 * 60 + 2 {
        mesh.gossip_round();
    }
    for peer in &mesh.peers {
        assert_eq!((peer.table().len(), peer.table().alive()), (50, 50));
    }
}
