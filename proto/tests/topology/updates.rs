//! Updates as the real implementation writes them, and what it makes of them.

use proto::gob::{self, Encoder};
use proto::topology::{Peer, Topology, decode_update, encode_update, encode_update_with};
use proto::types::{PeerName, PeerUid};
use serde_json::Value;

use crate::support::*;

/// Returns the ids of the types that a stream defines, in its order.
fn type_ids(mut stream: &[u8]) -> Vec<i64> {
    let mut ids = Vec::new();
    while let Some((start, end)) = gob::split_message(stream, stream.len()).unwrap() {
        // A definition starts with the negated id, here always one of two or three bytes.
        match stream[start..end] {
            [0xff, id, ..] if id % 2 == 1 => ids.push(i64::from(id / 2) + 1),
            [0xfe, high, low, ..] if low % 2 == 1 => {
                ids.push(i64::from(u16::from_be_bytes([high, low]) / 2) + 1);
            }
            _ => {}
        }
        stream = &stream[end..];
    }
    ids
}

/// Returns an entry as vectors give it: the summary, and its connections.
fn decoded_peer(summary: &Value, connections: &Value, keys: [&str; 4]) -> Peer {
    let connections = connections.as_array().map_or(&[][..], Vec::as_slice);
    let remote = |c: &Value| match keys[0] {
        "to" => name(&c["to"]),
        key => raw_name(c, key),
    };
    Peer {
        name: raw_name(summary, "NameByte"),
        nickname: text(summary, "NickName").as_bytes().into(),
        uid: PeerUid(number(&summary["UID"])),
        version: number(&summary["Version"]),
        short_id: flag(summary, "HasShortID").then(|| short_id(&summary["ShortID"])),
        connections: connections
            .iter()
            .map(|c| connection(remote(c), c, [keys[1], keys[2], keys[3]]))
            .collect(),
    }
}

fn decoded_update(value: &Value) -> Vec<Peer> {
    let keys = ["NameByte", "RemoteTCPAddr", "Outbound", "Established"];
    let peers = value.as_array().unwrap().iter();
    peers
        .map(|entry| decoded_peer(&entry["peer"], &entry["connections"], keys))
        .collect()
}

fn state(value: &Value) -> Vec<Peer> {
    let keys = ["to", "addr", "outbound", "established"];
    let peers = value.as_array().unwrap().iter();
    peers
        .map(|entry| {
            let mut peer = decoded_peer(entry, &entry["connections"], keys);
            peer.connections.sort_by_key(|c| c.remote);
            peer
        })
        .collect()
}

#[track_caller]
fn round_trip(payload: &[u8], expected: &[Peer]) {
    let peers = decode_update(payload).unwrap();
    assert_eq!(peers, expected);
    let encoder = Encoder::with_ids(type_ids(payload));
    assert_eq!(encode_update_with(encoder, &peers), payload);
}

#[test]
fn payloads_are_decoded_and_encoded_to_the_same_bytes() {
    let mut seen = 0;
    for case in vectors("gossip.json") {
        if case["kind"] == "control" {
            continue;
        }
        assert_eq!(case["channel"], "topology");
        let payload = bytes(&case, "payload");
        round_trip(&payload, &decoded_update(&case["payload_decoded"]));
        let topology = &case["topology"];
        assert_eq!(
            list(topology, "peers").len(),
            number(&case["mesh_size"]) as usize
        );
        for peer in decode_update(&payload).unwrap() {
            let is_it = |entry: &&Value| name(&entry["name"]) == peer.name;
            let entry = list(topology, "peers").iter().find(is_it).unwrap();
            assert_eq!(peer.nickname(), text(entry, "nick"));
            assert_eq!(peer.uid.0, number(&entry["uid"]));
            assert_eq!(peer.version, number(&entry["version"]));
            assert_eq!(peer.short_id, Some(short_id(&entry["short_id"])));
        }
        seen += 1;
    }
    assert_eq!(seen, 9);
}

#[test]
fn payloads_of_running_routers_come_back_byte_for_byte() {
    let mut seen = 0;
    for session in vectors("live_capture.json") {
        for message in list(&session, "messages") {
            if message["channel"] == "topology" {
                let payload = bytes(message, "payload");
                let peers = decode_update(&payload).unwrap();
                round_trip(&payload, &peers);
                seen += 1;
            }
        }
    }
    assert!(seen >= 16, "only {seen} payloads");
}

fn us_and_others(state: &[Peer], us: PeerName) -> Topology {
    let ourself = state.iter().find(|peer| peer.name == us).unwrap();
    let others: Vec<Peer> = state.iter().filter(|p| p.name != us).cloned().collect();
    let mut topology = topology_of(ourself, &others);
    raise_version(&mut topology, ourself.version);
    let _ = topology.take_changes();
    assert!(topology.peers().eq(state), "state before");
    topology
}

#[test]
fn merging_does_what_the_original_does() {
    let mut seen = 0;
    for case in vectors("topology_merge.json") {
        if case["state_before"].is_null() {
            continue;
        }
        let title = text(&case, "name");
        let mut topology = us_and_others(&state(&case["state_before"]), name(&case["ourself"]));
        let update = bytes(&case, "update");
        let version = topology.peer(topology.us()).unwrap().version;
        let result = topology.merge(&update);
        let changes = topology.take_changes();
        seen += 1;
        if case["error"] == "unexpected EOF" {
            assert!(result.is_err(), "{title}");
            assert!(
                topology.peers().eq(&state(&case["state_before"])),
                "{title}"
            );
            assert_eq!(changes, proto::topology::Changes::default());
            continue;
        }
        round_trip(&update, &decoded_update(&case["update_decoded"]));
        let merged = result.unwrap();
        let improved: Vec<PeerName> = merged.improved.into_iter().collect();
        let named: Vec<PeerName> = merged.named.into_iter().collect();
        assert_eq!(improved, names(&case["improved"]), "{title}");
        assert_eq!(named, names(&case["names_in_update"]), "{title}");
        assert_eq!(merged.ignored, 0, "{title}");
        let after: Vec<Peer> = topology.peers().cloned().collect();
        // Weave Net lets an entry of its own stand that it did not make; we go beyond it.
        let ours = topology.us();
        let lifted = |mut peers: Vec<Peer>| {
            if let Some(foreign) = merged.foreign {
                let own = peers.iter_mut().find(|peer| peer.name == ours).unwrap();
                own.version = own.version.max(foreign.version + 1);
            }
            peers
        };
        assert_eq!(after, lifted(state(&case["state_after"])), "{title}");
        assert!(!flag(&case, "our_short_id_reassigned"), "{title}");
        let ourself = topology.peer(topology.us()).unwrap();
        assert_eq!(changes.announce, ourself.version != version, "{title}");
        assert_eq!(changes.routes, !improved.is_empty(), "{title}");
        let gone = topology.collect_garbage();
        let kept: Vec<Peer> = topology.peers().cloned().collect();
        assert_eq!(kept, lifted(state(&case["state_after_gc"])), "{title}");
        assert_eq!(gone.len(), after.len() - kept.len(), "{title}");
    }
    assert_eq!(seen, 15);
}

#[test]
fn a_lower_name_takes_our_short_id() {
    let cases = vectors("topology_merge.json");
    let case = cases
        .iter()
        .find(|c| c["name"] == "shortid-collision-lower-name")
        .unwrap();
    let update = decode_update(&bytes(case, "update")).unwrap();
    let id = short_id(&Value::from(101));
    let us = Peer {
        name: "00:00:00:00:00:64".parse().unwrap(),
        nickname: Box::from(*b"h100"),
        uid: PeerUid(100),
        version: 0,
        short_id: Some(id),
        connections: Vec::new(),
    };
    let mut topology = topology_of(&us, &[]);
    raise_version(&mut topology, number(&case["our_version_before"]));
    assert_eq!(topology.short_id_owner(id), Some(us.name));
    let merged = topology.merge(&encode_update(&update)).unwrap();
    assert!(merged.improved.into_iter().eq(names(&case["improved"])));
    let ourself = topology.peer(us.name).unwrap();
    assert_eq!(ourself.version, number(&case["our_version_after"]));
    let fresh = ourself.short_id.unwrap();
    assert_eq!(fresh != id, flag(case, "our_short_id_reassigned"));
    assert_eq!(topology.short_id_owner(fresh), Some(us.name));
    assert_eq!(topology.short_id_owner(id), Some(update[0].name));
    let changes = topology.take_changes();
    assert!(changes.announce && changes.short_ids);
}
