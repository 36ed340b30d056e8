//! A node among remote ends that are played by hand, so that they can say anything.

mod gossip;
mod hostile;
mod introductions;
mod lies;
mod links;
mod timers;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::crypto::PrivateKey;
use crate::features::Features;
use crate::message::{Message, OverlayMode};
use crate::topology;
use crate::types::{ConnUid, PeerUid, ShortId};
use crate::wire::{Introduced, Wire, WireConfig, WireEvent};

const US: u64 = 100;

fn name(n: u64) -> PeerName {
    PeerName::from_u64(n).unwrap()
}

fn config() -> NodeConfig {
    NodeConfig {
        channels: vec!["IPallocation".to_owned()],
        ..NodeConfig::new(name(US), "us", PeerUid(7), 1)
    }
}

fn address(n: u64) -> SocketAddr {
    format!("10.0.0.{}:{}", n % 256, 40_000 + n)
        .parse()
        .unwrap()
}

/// The other end of a connection.
struct Remote {
    wire: Wire,
    introduced: Option<Introduced>,
    /// Whether it offers overlays.
    offers: bool,
    /// Messages of the node that were not looked at yet.
    inbox: Vec<Vec<u8>>,
    closed: bool,
    /// Bytes that the node wants sent and that are not reported as sent.
    unsent: usize,
}

/// How a remote end introduces itself.
#[derive(Clone)]
struct Guise {
    features: Features,
    password: Option<&'static str>,
    max_version: u8,
}

impl Guise {
    fn new(n: u64) -> Guise {
        Guise {
            features: Features {
                name: name(n),
                nickname: format!("n{n}"),
                uid: PeerUid(n),
                conn_id: n,
                overlays: Some(vec!["fastdp".to_owned(), "sleeve".to_owned()]),
                ..Features::default()
            },
            password: None,
            max_version: 2,
        }
    }
}

struct Rig {
    node: Node,
    now: Time,
    remotes: BTreeMap<ConnId, Remote>,
    dials: Vec<(ConnId, SocketAddr)>,
    outputs: Vec<Output>,
    /// Whether bytes are reported as sent at once.
    sending: bool,
    secrets: u64,
}

impl Rig {
    fn new(config: NodeConfig) -> Rig {
        let mut rig = Rig {
            node: Node::new(config, Time::ZERO),
            now: Time::ZERO,
            remotes: BTreeMap::new(),
            dials: Vec::new(),
            outputs: Vec::new(),
            sending: true,
            secrets: 1000,
        };
        rig.work();
        rig
    }

    fn secret(&mut self) -> ConnSecret {
        self.secrets += 1;
        ConnSecret {
            key: [self.secrets as u8; 32].into(),
            native: [self.secrets as u8; 32].into(),
            conn_id: self.secrets << 32,
        }
    }

    fn remote(guise: &Guise, dialled: bool) -> Remote {
        let password = guise
            .password
            .map(|password| Arc::from(password.as_bytes()));
        let config = WireConfig {
            max_version: guise.max_version,
            ..WireConfig::new(guise.features.clone(), password)
        };
        Remote {
            wire: Wire::new(config, dialled, PrivateKey::from_bytes([9; 32])),
            introduced: None,
            offers: guise.features.overlays.is_some(),
            inbox: Vec::new(),
            closed: false,
            unsent: 0,
        }
    }

    /// Returns a remote end connects to the node.
    fn accept(&mut self, guise: &Guise) -> ConnId {
        let from = address(guise.features.name.as_u64());
        self.accept_from(guise, from)
    }

    fn accept_from(&mut self, guise: &Guise, from: SocketAddr) -> ConnId {
        let secret = self.secret();
        let conn = self.node.handle_accepted(self.now, from, secret);
        self.remotes.insert(conn, Rig::remote(guise, true));
        self.work();
        conn
    }

    /// Returns a remote end answers the node's first dial.
    fn answer_dial(&mut self, guise: &Guise) -> ConnId {
        let (conn, to) = self.dials.remove(0);
        let secret = self.secret();
        self.remotes.insert(conn, Rig::remote(guise, false));
        self.node.handle_dialled(self.now, conn, to, secret);
        self.work();
        conn
    }

    fn member(&mut self, n: u64) -> ConnId {
        let conn = self.accept(&Guise::new(n));
        assert!(self.is_member(conn), "{n} is let in: {:?}", self.events());
        conn
    }

    /// Moves bytes between the node and all remote ends until nobody has any.
    fn work(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.node.poll_output() {
                idle = false;
                self.execute(output);
            }
            for (conn, remote) in &mut self.remotes {
                while let Some(bytes) = remote.wire.poll_transmit() {
                    if !remote.closed {
                        idle = false;
                        self.node.handle_bytes(self.now, *conn, &bytes);
                    }
                }
                while let Some(event) = remote.wire.poll_event() {
                    match event {
                        WireEvent::Introduced(introduced) => remote.introduced = Some(*introduced),
                        WireEvent::Message(message) => remote.receive(message),
                    }
                }
            }
            if idle {
                return;
            }
        }
    }

    fn execute(&mut self, output: Output) {
        match &output {
            Output::Send { conn, bytes } => {
                let remote = self.remotes.get_mut(conn).unwrap();
                assert!(!remote.closed, "bytes for a closed connection");
                remote.unsent += bytes.len();
                let _ = remote.wire.handle_bytes(bytes);
                if self.sending {
                    remote.unsent = 0;
                    self.node.handle_sent(self.now, *conn, bytes.len());
                }
                return;
            }
            Output::Close { conn } => {
                if let Some(remote) = self.remotes.get_mut(conn) {
                    assert!(!std::mem::replace(&mut remote.closed, true));
                }
            }
            Output::Dial { conn, to } => self.dials.push((*conn, *to)),
            Output::NeedState { channel, conn, .. } => {
                self.node
                    .handle_state(self.now, channel, *conn, Some(b"state"));
            }
            _ => {}
        }
        self.outputs.push(output);
    }

    fn advance(&mut self, time: Duration) {
        let until = self.now + time;
        while let Some(at) = self.node.poll_timeout().filter(|at| *at <= until) {
            assert!(
                at >= self.now || self.now == Time::ZERO,
                "a timer in the past"
            );
            self.now = self.now.max(at);
            self.node.handle_timeout(self.now);
            let next = self.node.poll_timeout();
            assert!(
                next.is_none_or(|next| next > self.now),
                "something stays due"
            );
            self.work();
        }
        self.now = until;
    }

    fn send(&mut self, conn: ConnId, message: &Message<'_>) {
        self.send_raw(conn, &message.encode());
    }

    fn send_raw(&mut self, conn: ConnId, message: &[u8]) {
        let remote = self.remotes.get_mut(&conn).unwrap();
        remote.wire.send(message).unwrap();
        self.work();
    }

    fn is_open(&self, conn: ConnId) -> bool {
        !self.remotes[&conn].closed
    }

    fn is_member(&self, conn: ConnId) -> bool {
        self.node.connections().any(|view| view.conn == conn)
    }

    /// Returns what happened since this was last asked, as logs would tell it.
    fn events(&mut self) -> Vec<String> {
        let (events, rest) = std::mem::take(&mut self.outputs)
            .into_iter()
            .partition(|output| matches!(output, Output::Event(_)));
        self.outputs = rest;
        let events: Vec<Output> = events;
        events
            .into_iter()
            .map(|output| match output {
                Output::Event(event) => event.to_string(),
                other => format!("{other:?}"),
            })
            .collect()
    }

    /// Gossip that a remote end received since this was last asked, heartbeats aside.
    fn received(&mut self, conn: ConnId) -> Vec<Vec<u8>> {
        let inbox = std::mem::take(&mut self.remotes.get_mut(&conn).unwrap().inbox);
        inbox
            .into_iter()
            .filter(|message| message[0] != 0)
            .collect()
    }

    /// Topology gossip that a remote end received since this was last asked: names in each.
    fn topology_received(&mut self, conn: ConnId) -> Vec<Vec<PeerName>> {
        let names = |message: &Vec<u8>| match decode(message) {
            Message::Gossip {
                channel: "topology",
                payload,
                sender,
            } => {
                assert_eq!(sender, name(US), "each hop names itself");
                let peers = topology::decode_update(payload).unwrap();
                Some(peers.into_iter().map(|peer| peer.name).collect())
            }
            _ => None,
        };
        self.received(conn).iter().filter_map(names).collect()
    }
}

impl Remote {
    /// The node must never send what crashes Weave Net.
    fn receive(&mut self, message: Vec<u8>) {
        assert!(!message.is_empty());
        if word::Word::is_tag(&message) {
            self.inbox.push(message);
            return;
        }
        let mode = match (self.introduced.as_ref().unwrap().version, self.offers) {
            (2, true) => OverlayMode::Switched { common: 1 },
            _ => OverlayMode::Legacy,
        };
        let decoded = Message::decode(&message, mode).unwrap();
        assert!(!matches!(decoded, Message::Unknown(_)), "{decoded:?}");
        self.inbox.push(message);
    }
}

fn decode(message: &[u8]) -> Message<'_> {
    Message::decode(message, OverlayMode::Switched { common: 1 }).unwrap()
}

/// Returns an update with these entries: name, UID, version and connected names.
fn update(peers: &[(u64, u64, u64, &[u64])]) -> Vec<u8> {
    let peers: Vec<topology::Peer> = peers
        .iter()
        .map(|(n, uid, version, connections)| topology::Peer {
            name: name(*n),
            nickname: b"x".as_slice().into(),
            uid: PeerUid(*uid),
            version: *version,
            short_id: ShortId::new(*n as u16),
            connections: connections
                .iter()
                .map(|remote| topology::Connection {
                    remote: name(*remote),
                    address: address(*remote).into(),
                    outbound: true,
                    established: true,
                })
                .collect(),
        })
        .collect();
    topology::encode_update(&peers)
}

/// Gossip about topology from a neighbour.
fn topology_gossip(from: u64, payload: &[u8]) -> Vec<u8> {
    let message = Message::Gossip {
        channel: "topology",
        sender: name(from),
        payload,
    };
    message.encode()
}
