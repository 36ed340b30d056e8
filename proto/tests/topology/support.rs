//! Reading vectors and building topologies.

use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{PeerName, PeerUid, ShortId};
use serde_json::Value;

/// Returns the content of a vector file.
pub(crate) fn vectors(file: &str) -> Vec<Value> {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(path).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key]
        .as_array()
        .unwrap_or_else(|| panic!("no list {key} in {value}"))
}

pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key]
        .as_str()
        .unwrap_or_else(|| panic!("no text {key} in {value}"))
}

pub(crate) fn flag(value: &Value, key: &str) -> bool {
    value[key]
        .as_bool()
        .unwrap_or_else(|| panic!("no flag {key} in {value}"))
}

/// Decimal numbers come as numbers or, if they may be large, as texts.
pub(crate) fn number(value: &Value) -> u64 {
    let text = || value.as_str().and_then(|text| text.parse().ok());
    value.as_u64().or_else(text).unwrap()
}

pub(crate) fn bytes(value: &Value, key: &str) -> Vec<u8> {
    let text = text(value, key);
    let digits = (0..text.len()).step_by(2).map(|at| &text[at..at + 2]);
    digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect()
}

pub(crate) fn name(value: &Value) -> PeerName {
    value.as_str().unwrap().parse().unwrap()
}

pub(crate) fn names(value: &Value) -> Vec<PeerName> {
    value.as_array().unwrap().iter().map(name).collect()
}

/// Returns a peer of six bytes in hex.
pub(crate) fn raw_name(value: &Value, key: &str) -> PeerName {
    PeerName::from_bytes(bytes(value, key).try_into().unwrap())
}

pub(crate) fn connection(remote: PeerName, value: &Value, keys: [&str; 3]) -> Connection {
    Connection {
        remote,
        address: Address::from_text(text(value, keys[0]).as_bytes()),
        outbound: flag(value, keys[1]),
        established: flag(value, keys[2]),
    }
}

/// Returns a topology seen by the first of `peers`: our entry as given, the others merged in.
pub(crate) fn topology_of(us: &Peer, others: &[Peer]) -> Topology {
    let mut topology = Topology::new(
        us.name,
        &us.nickname(),
        us.uid,
        us.short_id,
        fastrand::Rng::with_seed(7),
    );
    topology.merge(&encode_update(others)).unwrap();
    add_connections(&mut topology, &us.connections);
    topology
}

/// Adds connections of ours as they are in a given entry.
pub(crate) fn add_connections(topology: &mut Topology, connections: &[Connection]) {
    for connection in connections {
        let address = connection.address.socket_addr().unwrap();
        topology.add_connection(connection.remote, address, connection.outbound);
        if connection.established {
            topology.establish_connection(connection.remote);
        }
    }
}

/// Our entry under another version: as if an earlier start of ours were still known.
pub(crate) fn raise_version(topology: &mut Topology, version: u64) {
    let mut us = topology.peer(topology.us()).unwrap().clone();
    us.uid = PeerUid(us.uid.0 ^ 1);
    us.version = version - 1;
    topology.merge(&encode_update([&us])).unwrap();
    assert_eq!(topology.peer(topology.us()).unwrap().version, version);
}

pub(crate) fn short_id(value: &Value) -> ShortId {
    ShortId::new(number(value).try_into().unwrap()).unwrap()
}
