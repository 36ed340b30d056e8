//! Routes against those that the real implementation computed.

use std::collections::BTreeMap;

use proto::gob::Encoder;
use proto::routes::Routes;
use proto::topology::{Connection, Topology, decode_update, encode_update_with};
use proto::types::{PeerName, PeerUid};
use serde_json::Value;

use crate::support::*;

/// Returns the state that `us` has when all gossip has come.
fn view(case: &Value, us: PeerName) -> Topology {
    let peer = list(case, "peers")
        .iter()
        .find(|peer| name(&peer["name"]) == us)
        .unwrap();
    let mut topology = Topology::new(
        us,
        text(peer, "nick"),
        PeerUid(number(&peer["uid"])),
        Some(short_id(&peer["short_id"])),
        fastrand::Rng::with_seed(3),
    );
    topology.merge(&bytes(case, "gossip_payload")).unwrap();
    let own: Vec<Connection> = list(case, "connections")
        .iter()
        .filter(|c| name(&c["from"]) == us)
        .map(|c| connection(name(&c["to"]), c, ["addr", "outbound", "established"]))
        .collect();
    add_connections(&mut topology, &own);
    topology
}

/// Returns a map of names to what `read` makes of their values.
fn table<T>(value: &Value, read: impl Fn(&Value) -> T) -> BTreeMap<PeerName, T> {
    let entries = value.as_object().unwrap().iter();
    entries
        .map(|(key, value)| (key.parse().unwrap(), read(value)))
        .collect()
}

fn check_view(case: &Value, expected: &Value) {
    let us = name(&expected["ourself"]);
    let mut topology = view(case, us);
    let routes = Routes::calculate(&topology);
    assert_eq!(routes.us(), us);
    assert!(routes.peers().iter().copied().eq(topology.names()));
    let unicast = table(&expected["unicast"], name);
    assert!(routes.unicast_table().eq(unicast.clone()));
    let unicast_all = table(&expected["unicast_all"], name);
    for peer in topology.names() {
        let hop = |table: &BTreeMap<PeerName, PeerName>| table.get(&peer).copied();
        let known = |via: &PeerName| *via != PeerName::UNKNOWN;
        assert_eq!(routes.unicast(peer), hop(&unicast).filter(known));
        assert_eq!(routes.unicast_all(peer), hop(&unicast_all).filter(known));
        assert_eq!(routes.is_reachable(peer), unicast_all.contains_key(&peer));
    }
    let broadcast = table(&expected["broadcast"], names);
    let broadcast_all = table(&expected["broadcast_all"], names);
    assert!(broadcast.keys().copied().eq(topology.names()));
    assert!(routes.broadcast_table().map(|(source, _)| source).eq([us]));
    for (source, hops) in &broadcast {
        assert_eq!(routes.broadcast(*source), hops, "from {source}");
    }
    for (source, hops) in &broadcast_all {
        assert_eq!(routes.broadcast_all(*source), hops, "all, from {source}");
    }
    let seen = routes
        .broadcast_table()
        .map(|(source, hops)| (source, hops.to_vec()));
    assert!(seen.eq(broadcast));
    let weights = table(&expected["random_neighbours"]["weights"], |v| {
        number(v) as usize
    });
    let chosen = number(&expected["random_neighbours"]["chosen"]) as usize;
    assert_eq!(routes.neighbour_weights(None), weights);
    assert_eq!(routes.fan_out(weights.len()), chosen);
    let drawn = routes.random_neighbours(None, &mut fastrand::Rng::with_seed(5));
    assert_eq!(drawn.len(), chosen);
    assert!(drawn.iter().all(|name| weights.contains_key(name)));
    topology.collect_garbage();
    assert!(topology.names().eq(names(&expected["gc_reachable"])));
}

#[test]
fn all_views_of_all_topologies_agree() {
    let (mut topologies, mut views) = (0, 0);
    for case in vectors("routes.json") {
        topologies += 1;
        let payload = bytes(&case, "gossip_payload");
        let peers = decode_update(&payload).unwrap();
        // Recorded in one process, so the ids are those of its first topology payload.
        let encoder = Encoder::with_ids([66, 68, 67]);
        assert_eq!(encode_update_with(encoder, &peers), payload);
        assert_eq!(peers.len(), list(&case, "peers").len());
        for expected in list(&case, "views") {
            views += 1;
            check_view(&case, expected);
        }
    }
    assert_eq!((topologies, views), (22, 163));
}

/// Where all see the mesh alike, the broadcasts of each source come to each peer from its parent
/// and from nobody else.
#[test]
fn broadcasts_come_from_the_parent_alone() {
    let mut checked = 0;
    for case in vectors("routes.json") {
        let views = list(&case, "views").iter();
        let all: Vec<Routes> = views
            .map(|expected| Routes::calculate(&view(&case, name(&expected["ourself"]))))
            .collect();
        for here in &all {
            for source in here.peers().iter().filter(|source| **source != here.us()) {
                let senders: Vec<PeerName> = all
                    .iter()
                    .filter(|there| there.broadcast(*source).contains(&here.us()))
                    .map(Routes::us)
                    .collect();
                let parent = here.parent(*source);
                assert!(senders.len() <= 1, "{senders:?}");
                if let Some(sender) = senders.first() {
                    assert_eq!(parent, Some(*sender));
                    checked += 1;
                }
            }
            assert_eq!(here.parent(here.us()), None);
        }
    }
    assert!(checked > 500, "{checked}");
}

#[test]
fn neighbours_are_drawn_by_weight_and_never_twice() {
    // We are in the middle: 20 peers behind one neighbour, and four neighbours with nobody behind.
    let name = |value: u64| PeerName::from_u64(value).unwrap();
    let link = |remote: u64| Connection {
        remote: name(remote),
        address: proto::topology::Address::from_text(b"10.0.0.1:6783"),
        outbound: true,
        established: true,
    };
    let peer = |value: u64, remotes: Vec<u64>| proto::topology::Peer {
        name: name(value),
        nickname: Box::default(),
        uid: PeerUid(value),
        version: 1,
        short_id: None,
        connections: remotes.into_iter().map(link).collect(),
    };
    let us = peer(100, vec![1, 2, 3, 4, 5]);
    let mut others: Vec<_> = (10..30).map(|value| peer(value, vec![1])).collect();
    others.push(peer(1, (10..30).chain([100]).collect()));
    others.extend((2..6).map(|value| peer(value, vec![100])));
    let routes = Routes::calculate(&topology_of(&us, &others));
    let weights = routes.neighbour_weights(None);
    assert_eq!(weights.get(&name(1)), Some(&21));
    assert_eq!(weights.values().sum::<usize>(), 25);
    assert_eq!(routes.fan_out(100), 9, "26 peers: 2 * log2 is 9.4");
    let mut rng = fastrand::Rng::with_seed(1);
    let mut first = BTreeMap::<PeerName, usize>::new();
    for _ in 0..2500 {
        let drawn = routes.random_neighbours(Some(name(5)), &mut rng);
        let mut sorted = drawn.clone();
        sorted.sort();
        assert_eq!(sorted, [1, 2, 3, 4].map(name));
        *first.entry(drawn[0]).or_default() += 1;
    }
    // 21 of 24 are expected to begin with the heavy one: 2187; three deviations are 50.
    let heavy = first[&name(1)];
    assert!((2137..=2237).contains(&heavy), "{heavy}");
    assert_eq!(first.len(), 4);
}
