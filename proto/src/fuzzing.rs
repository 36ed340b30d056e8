//! Entry points for fuzzing and for replaying its corpus. Each accepts any bytes, and panics only
//! if something is wrong.

use std::sync::Arc;

pub use self::frames::{fuzz_ethernet, fuzz_fragment, fuzz_join, fuzz_sleeve, fuzz_split};
pub use self::names::{fuzz_dns_message, fuzz_names_gossip};
pub use self::native::{
    fuzz_native_datagram, fuzz_native_hello, fuzz_native_link, fuzz_native_report,
};

use crate::crypto::PrivateKey;
use crate::features::Features;
use crate::gob::{Decoder, Value};
use crate::message::{Message, OverlayMode};
use crate::node::{ConnSecret, Content, Node, NodeConfig, Output};
use crate::sleeve::{LinkId, Special};
use crate::topology::{self, Topology};
use crate::types::{ConnId, ConnUid, PeerName, PeerUid, Time};
use crate::wire::{Phase, Wire, WireConfig, WireEvent};

mod frames;
mod names;
mod native;

/// A gob stream, all of whose values are skipped.
pub fn fuzz_gob(data: &[u8]) {
    let mut decoder = Decoder::new(data);
    while let Ok(Some(value)) = decoder.next_value() {
        if Value::skip(value).is_err() {
            break;
        }
    }
}

/// A stream of features.
pub fn fuzz_features(data: &[u8]) {
    if let Ok(features) = Features::decode(data) {
        assert_eq!(Features::decode(&features.encode()), Ok(features));
    }
}

/// A protocol message, on links of both kinds.
pub fn fuzz_message(data: &[u8]) {
    for mode in [OverlayMode::Legacy, OverlayMode::Switched { common: 2 }] {
        if let Ok(message) = Message::decode(data, mode) {
            assert_eq!(Message::decode(&message.encode(), mode), Ok(message));
        }
    }
}

/// All that comes over a connection. The first byte chooses version, password and the sizes in
/// which the rest arrives.
pub fn fuzz_wire(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let mut wire = end(1, choice);
    feed(&mut wire, data, choice);
}

/// What comes over a connection whose ends are introduced; the first byte as for [`fuzz_wire`].
/// If the connection is encrypted, it is one message from the other end; else it is anything.
pub fn fuzz_wire_introduced(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else {
        return;
    };
    let (mut wire, mut other) = (end(1, choice), end(2, choice));
    introduce(&mut wire, &mut other);
    assert_eq!(wire.phase(), Phase::Introduced);
    if choice & ENCRYPTED == 0 {
        feed(&mut wire, data, choice);
    } else if other.send(data).is_ok() {
        while let Some(bytes) = other.poll_transmit() {
            feed(&mut wire, &bytes, choice);
        }
        assert_eq!(wire.phase(), Phase::Introduced);
    }
}

/// Bits of the choice; the bits above them are the size of the pieces.
const VERSION_1: u8 = 1;
const ENCRYPTED: u8 = 2;
const PIECE_SHIFT: u32 = 2;

/// Returns the end with this number of a connection; end 1 dialled.
fn end(number: u8, choice: u8) -> Wire {
    let features = Features {
        name: PeerName::from_bytes([number; 6]),
        uid: PeerUid(u64::from(number)),
        ..Features::default()
    };
    let password: Option<Arc<[u8]>> = (choice & ENCRYPTED != 0).then(|| b"secret"[..].into());
    let mut config = WireConfig::new(features, password);
    if choice & VERSION_1 != 0 {
        config.max_version = 1;
    }
    Wire::new(config, number == 1, PrivateKey::from_bytes([number; 32]))
}

/// Exchanges all that both ends have to send.
fn introduce(a: &mut Wire, b: &mut Wire) {
    loop {
        let (to_b, to_a) = (a.poll_transmit(), b.poll_transmit());
        if to_b.is_none() && to_a.is_none() {
            return;
        }
        let to_b = b.handle_bytes(&to_b.unwrap_or_default());
        let to_a = a.handle_bytes(&to_a.unwrap_or_default());
        assert_eq!((to_a, to_b), (Ok(()), Ok(())));
    }
}

fn feed(wire: &mut Wire, data: &[u8], choice: u8) {
    let piece = usize::from(choice >> PIECE_SHIFT) + 1;
    for piece in data.chunks(piece) {
        if wire.handle_bytes(piece).is_err() {
            assert_eq!(wire.phase(), Phase::Failed);
        }
        while let Some(event) = wire.poll_event() {
            if let WireEvent::Message(message) = event {
                fuzz_message(&message);
            }
        }
        assert!(wire.buffered() <= data.len());
    }
}

/// Merges `data` into a small topology, twice, and sends the result on.
pub fn fuzz_topology(data: &[u8]) {
    let name = PeerName::from_bytes([0, 0, 0, 0, 0, 1]);
    let rng = fastrand::Rng::with_seed(1);
    let mut topology = Topology::new(name, "h1", PeerUid(1), None, rng);
    let before = topology.encode(topology.names());
    let Ok(merged) = topology.merge(data) else {
        assert_eq!(
            topology.encode(topology.names()),
            before,
            "an error changes nothing"
        );
        return;
    };
    assert!(merged.improved.is_subset(&merged.named));
    let version = topology.peer(name).map(|peer| peer.version);
    let again = topology.merge(data);
    // What a limit kept out may get in once the rest is known.
    assert!(again.is_ok_and(|again| again.improved.is_empty() || merged.ignored > 0));
    assert_eq!(topology.peer(name).map(|peer| peer.version), version);
    let peers = topology::decode_update(&topology.encode(topology.names()));
    assert!(peers.is_ok_and(|peers| peers.iter().eq(topology.peers())));
    let _ = crate::routes::Routes::calculate(&topology).broadcast(name);
    topology.collect_garbage();
    assert!(topology.peer(name).is_some());
}

/// A node with two neighbours, of which one does as `data` says: a choice as for [`fuzz_wire`]
/// (never encrypted), then steps of one byte each with what belongs to them.
pub fn fuzz_node(data: &[u8]) {
    let Some((&choice, mut data)) = data.split_first() else {
        return;
    };
    let config = NodeConfig {
        channels: vec!["IPallocation".to_owned()],
        ..NodeConfig::new(PeerName::from_bytes([9; 6]), "us", PeerUid(9), 1)
    };
    let mut rig = NodeRig {
        node: Node::new(config, Time::ZERO),
        now: Time::ZERO,
        remotes: Vec::new(),
        links: Vec::new(),
    };
    rig.accept(1, choice & !ENCRYPTED);
    rig.accept(2, 0);
    while let Some((step, rest)) = data.split_first() {
        let len = match step % 8 {
            0..4 => rest.first().map_or(0, |len| 1 + usize::from(*len)),
            _ => 2,
        };
        let (body, rest) = rest.split_at(len.min(rest.len()));
        rig.step(step % 8, body);
        data = rest;
    }
}

struct NodeRig {
    node: Node,
    now: Time,
    remotes: Vec<(ConnId, Wire)>,
    links: Vec<LinkId>,
}

impl NodeRig {
    fn accept(&mut self, number: u8, choice: u8) {
        let remote = std::net::SocketAddr::from(([10, 0, 0, number], 40_000));
        let secret = ConnSecret {
            key: [number; 32].into(),
            native: [number; 32].into(),
            conn_id: u64::from(number),
        };
        let conn = self.node.handle_accepted(self.now, remote, secret);
        self.remotes.push((conn, end(number, choice)));
        self.work();
    }

    /// Moves bytes between the node and its neighbours until nobody has any.
    fn work(&mut self) {
        loop {
            let mut idle = true;
            while let Some(output) = self.node.poll_output() {
                idle = false;
                self.execute(output);
            }
            for (conn, wire) in &mut self.remotes {
                while let Some(bytes) = wire.poll_transmit() {
                    idle = false;
                    self.node.handle_bytes(self.now, *conn, &bytes);
                }
            }
            if idle {
                return;
            }
        }
    }

    fn execute(&mut self, output: Output) {
        match output {
            Output::Send { conn, bytes } => {
                let remote = self.remotes.iter_mut().find(|(other, _)| *other == conn);
                if let Some((_, wire)) = remote {
                    let _ = wire.handle_bytes(&bytes);
                    while let Some(event) = wire.poll_event() {
                        if let WireEvent::Message(message) = event {
                            // What crashes Weave Net.
                            assert!(message.first() != Some(&7) || message.len() >= 3);
                        }
                    }
                }
                self.node.handle_sent(self.now, conn, bytes.len());
            }
            Output::NeedState { channel, conn, .. } => {
                self.node
                    .handle_state(self.now, &channel, conn, Some(b"state"));
            }
            Output::Deliver {
                channel,
                neighbour,
                payload,
                ..
            } => {
                let content = Content::Payload(payload);
                self.node
                    .relay_gossip(self.now, &channel, neighbour, content);
            }
            Output::LinkAdded(info) => self.links.push(info.link),
            _ => {}
        }
    }

    fn step(&mut self, step: u8, body: &[u8]) {
        let number = body.iter().fold(0, |n, byte| n << 8 | u16::from(*byte));
        let link = self.links.first().copied().unwrap_or(LinkId(0));
        let from = std::net::SocketAddrV4::new([10, 0, 0, 1].into(), number);
        let (conn, wire) = &mut self.remotes[0];
        match step {
            0..3 => drop(wire.send(body.get(1..).unwrap_or_default())),
            3 => self.node.handle_bytes(self.now, *conn, body),
            4 => {
                let special = Special::MtuTest { mtu: number };
                self.node.handle_special(self.now, link, from, special);
            }
            5 => {
                let special = Special::Heartbeat(ConnUid(u64::from(number)));
                self.node.handle_special(self.now, link, from, special);
            }
            6 => self
                .node
                .handle_too_big(self.now, link, usize::from(number)),
            _ => {
                self.now += std::time::Duration::from_millis(u64::from(number));
                self.node.handle_timeout(self.now);
                assert!(self.node.poll_timeout().is_none_or(|at| at > self.now));
            }
        }
        self.work();
    }
}
