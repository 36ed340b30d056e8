//! Entry points for fuzzing and for the replay of its finds: each takes any bytes, and panics
//! only if something is wrong.

use std::sync::Arc;

pub use self::frames::{fuzz_ethernet, fuzz_fragment, fuzz_join, fuzz_sleeve, fuzz_split};
pub use self::names::{fuzz_dns_message, fuzz_names_gossip};

use crate::crypto::PrivateKey;
use crate::features::Features;
use crate::gob::{Decoder, Value};
use crate::message::{Message, OverlayMode};
use crate::topology::{self, Topology};
use crate::types::{PeerName, PeerUid};
use crate::wire::{Phase, Wire, WireConfig, WireEvent};

mod frames;
mod names;

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

/// The end with this number of a connection; end 1 dialled.
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
