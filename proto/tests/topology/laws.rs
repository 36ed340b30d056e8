//! What must hold for every mesh: laws of merging, of garbage collection and of routes, and that
//! no bytes do harm.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use proptest::sample::{Index, select};
use proto::fuzzing::fuzz_topology;
use proto::routes::Routes;
use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{PeerName, PeerUid, ShortId};

use crate::support::*;

/// Members of generated meshes are named 1 to this.
const PEERS: u64 = 8;

fn peer_name(value: u64) -> PeerName {
    PeerName::from_u64(value).unwrap()
}

fn connection(remote: u64, established: bool) -> Connection {
    Connection {
        remote: peer_name(remote),
        address: Address::from_text(format!("10.0.0.{remote}:6783").as_bytes()),
        outbound: remote.is_multiple_of(2),
        established,
    }
}

/// Returns what a peer said of itself under one version: a well-behaved peer says one thing only.
fn entry(name: u64) -> impl Strategy<Value = Peer> {
    let version = (0..4u64, 1..3u64);
    let connections = proptest::collection::btree_map(1..=PEERS, any::<bool>(), 0..4);
    (version, connections, any::<u8>(), any::<bool>()).prop_map(
        move |((version, uid), connections, short_id, has_short_id)| Peer {
            name: peer_name(name),
            nickname: format!("h{name}").into_bytes().into(),
            uid: PeerUid(uid),
            version,
            // Few, so that they collide.
            short_id: ShortId::new(u16::from(short_id % 4)).filter(|_| has_short_id),
            connections: connections
                .into_iter()
                .map(|(to, up)| connection(to, up))
                .collect(),
        },
    )
}

/// Everything that some peers ever said, without contradictions.
fn history() -> impl Strategy<Value = Vec<Peer>> {
    let entries = proptest::collection::vec((1..=PEERS).prop_flat_map(entry), 0..24);
    entries.prop_map(|entries| {
        let said: BTreeMap<_, Peer> = entries
            .into_iter()
            .map(|peer| ((peer.name, peer.version, peer.uid), peer))
            .collect();
        said.into_values().collect()
    })
}

/// Somebody who listens and has no connections.
fn observer() -> Topology {
    topology_of(
        &Peer {
            name: peer_name(1 << 40),
            nickname: Box::default(),
            uid: PeerUid(9),
            version: 0,
            short_id: ShortId::new(4000),
            connections: Vec::new(),
        },
        &[],
    )
}

fn merged(updates: &[Vec<Peer>]) -> Topology {
    let mut topology = observer();
    for update in updates {
        topology.merge(&encode_update(update)).unwrap();
    }
    topology
}

/// Returns what the peers said of themselves, with the owners of short ids. Placeholders that
/// nothing leads to any more depend on the order; they go with the next garbage collection.
fn content(topology: &Topology) -> (Vec<Peer>, Vec<Option<PeerName>>) {
    let peers: Vec<Peer> = topology
        .peers()
        .filter(|p| !p.is_placeholder())
        .cloned()
        .collect();
    for peer in &peers {
        for connection in &peer.connections {
            assert!(
                topology.peer(connection.remote).is_some(),
                "remotes have entries"
            );
        }
    }
    let owners = (0..4)
        .filter_map(ShortId::new)
        .map(|id| topology.short_id_owner(id));
    (peers, owners.collect())
}

proptest! {
    #[test]
    fn any_order_and_grouping_ends_in_the_same_state(
        history in history(),
        order in proptest::collection::vec((any::<u32>(), 0..5usize), 24),
    ) {
        let one_by_one: Vec<Vec<Peer>> = history.iter().cloned().map(|peer| vec![peer]).collect();
        let expected = content(&merged(&one_by_one));
        let mut shuffled: Vec<_> = history.iter().cloned().zip(&order).collect();
        shuffled.sort_by_key(|(_, (key, _))| *key);
        let mut groups = vec![Vec::new(); 5];
        for (peer, (_, group)) in shuffled {
            groups[*group].push(peer);
        }
        let topology = merged(&groups);
        prop_assert_eq!(content(&topology), expected.clone());
        groups.reverse();
        let mut reversed = merged(&groups);
        prop_assert_eq!(content(&reversed), expected.clone());
        for update in groups {
            let again = reversed.merge(&encode_update(&update)).unwrap();
            prop_assert!(again.improved.is_empty(), "merging again changes nothing");
        }
        prop_assert_eq!(content(&reversed), expected);
    }

    #[test]
    fn states_merge_like_sets(
        parts in proptest::collection::vec(
            (history(), proptest::collection::vec(0..3usize, 24)), 1
        ),
    ) {
        let (history, which) = &parts[0];
        let part = |index| {
            let of_part = history.iter().zip(which).filter(|(_, w)| **w == index);
            merged(&[of_part.map(|(peer, _)| peer.clone()).collect()])
        };
        let join = |mut left: Topology, right: &Topology| {
            left.merge(&right.encode(right.names())).unwrap();
            left
        };
        let [a, b, c] = [part(0), part(1), part(2)];
        let left = join(join(a.clone(), &b), &c);
        let right = join(a.clone(), &join(b.clone(), &c));
        prop_assert_eq!(content(&left), content(&right), "associative");
        prop_assert_eq!(content(&join(a.clone(), &b)), content(&join(b, &a)), "commutative");
        prop_assert_eq!(content(&join(a.clone(), &a)), content(&a), "idempotent");
    }

    #[test]
    fn garbage_collection_keeps_what_can_be_reached(
        history in history(),
        own in proptest::collection::btree_set(1..=PEERS, 0..3),
        held in proptest::collection::btree_set(1..=PEERS + 2, 0..2),
    ) {
        let mut topology = merged(&[history]);
        for remote in &own {
            topology.add_connection(peer_name(*remote), ([10, 0, 0, 1], 6783).into(), true);
        }
        for name in &held {
            let introduced = proto::topology::Introduced {
                name: peer_name(*name),
                nickname: "held",
                uid: PeerUid(1),
                short_id: None,
            };
            topology.admit(introduced, true).unwrap();
        }
        let before: BTreeMap<_, _> = topology.peers().map(|p| (p.name, p.clone())).collect();
        let mut reached = BTreeSet::from([topology.us()]);
        for _ in 0..PEERS + 3 {
            let ends = reached.iter().flat_map(|name| before.get(name));
            let next: Vec<_> = ends.flat_map(|p| &p.connections).map(|c| c.remote).collect();
            reached.extend(next.into_iter().filter(|name| before.contains_key(name)));
        }
        reached.extend(held.iter().map(|name| peer_name(*name)));
        let gone: BTreeSet<_> = topology.collect_garbage().into_iter().collect();
        let kept: BTreeSet<_> = topology.names().collect();
        prop_assert_eq!(&kept, &reached);
        prop_assert_eq!(gone.len() + kept.len(), before.len());
        prop_assert!(gone.is_disjoint(&kept));
        for id in (0..4).filter_map(ShortId::new) {
            let claimants = topology.peers().filter(|peer| peer.short_id == Some(id));
            let lowest = claimants.map(|peer| peer.name).min();
            prop_assert_eq!(topology.short_id_owner(id), lowest);
        }
        prop_assert!(topology.collect_garbage().is_empty());
    }
}

/// Returns a mesh in which all peers have heard everything: entries that may contradict each other,
/// with the routes of each peer.
fn agreeing_mesh() -> impl Strategy<Value = BTreeMap<PeerName, Routes>> {
    let names = proptest::collection::btree_set(1..200u64, 1..12);
    let edges = proptest::collection::vec((any::<Index>(), any::<Index>(), 0..8u8), 0..40);
    (names, edges).prop_map(|(names, edges)| {
        let names: Vec<u64> = names.into_iter().collect();
        let mut lists = BTreeMap::<u64, BTreeMap<u64, bool>>::new();
        for (from, to, kind) in edges {
            let (from, to) = (*from.get(&names), *to.get(&names));
            // Mostly established at both ends; else pending at one, or known to one end only.
            lists.entry(from).or_default().insert(to, kind != 0);
            if kind > 1 {
                lists.entry(to).or_default().insert(from, kind != 2);
            }
        }
        let peers: Vec<Peer> = names
            .iter()
            .map(|name| Peer {
                name: peer_name(*name),
                nickname: Box::default(),
                uid: PeerUid(1),
                version: 1,
                short_id: None,
                connections: lists
                    .remove(name)
                    .unwrap_or_default()
                    .into_iter()
                    .filter(|(to, _)| to != name)
                    .map(|(to, up)| connection(to, up))
                    .collect(),
            })
            .collect();
        peers
            .iter()
            .map(|us| (us.name, Routes::calculate(&topology_of(us, &peers))))
            .collect()
    })
}

/// Returns how often each peer gets a broadcast of `source`.
fn flood(
    mesh: &BTreeMap<PeerName, Routes>,
    source: PeerName,
    next: impl Fn(&Routes, PeerName) -> Vec<PeerName>,
) -> BTreeMap<PeerName, usize> {
    let mut received = BTreeMap::new();
    let mut waiting = next(&mesh[&source], source);
    while let Some(name) = waiting.pop() {
        *received.entry(name).or_default() += 1;
        if received[&name] > mesh.len() {
            return received;
        }
        waiting.extend(next(&mesh[&name], source));
    }
    received
}

proptest! {
    #[test]
    fn broadcasts_reach_every_peer_once(mesh in agreeing_mesh()) {
        for (source, routes) in &mesh {
            let others = || mesh.keys().copied().filter(|name| name != source);
            let frames = flood(&mesh, *source, |routes, from| routes.broadcast(from).to_vec());
            let reachable = others().filter(|name| routes.unicast(*name).is_some());
            prop_assert!(frames.into_iter().eq(reachable.map(|name| (name, 1))));
            let gossip = flood(&mesh, *source, |routes, from| routes.broadcast_all(from).to_vec());
            let reachable = others().filter(|name| routes.is_reachable(*name));
            prop_assert!(gossip.into_iter().eq(reachable.map(|name| (name, 1))));
        }
    }

    #[test]
    fn next_hops_lead_to_the_destination(mesh in agreeing_mesh()) {
        for (source, routes) in &mesh {
            for dest in mesh.keys() {
                for all in [false, true] {
                    let hop = |routes: &Routes| match all {
                        false => routes.unicast(*dest),
                        true => routes.unicast_all(*dest),
                    };
                    let Some(mut at) = hop(routes) else { continue };
                    let mut hops = 1;
                    while at != *dest {
                        prop_assert!(hops < mesh.len(), "{source} to {dest} goes in circles");
                        at = hop(&mesh[&at]).unwrap();
                        hops += 1;
                    }
                }
            }
        }
    }

    #[test]
    fn random_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        fuzz_topology(&bytes);
    }

    #[test]
    fn damaged_updates_do_no_harm(
        payload in select(payloads()),
        cut in any::<Index>(),
        flips in proptest::collection::vec((any::<Index>(), any::<u8>()), 0..6),
        joint in any::<Index>(),
    ) {
        let mut bytes = payload;
        let tail = bytes[joint.index(bytes.len())..].to_vec();
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        fuzz_topology(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        fuzz_topology(&bytes);
        bytes.extend(tail);
        fuzz_topology(&bytes);
    }
}

/// Real payloads.
fn payloads() -> Vec<Vec<u8>> {
    let merges = vectors("topology_merge.json");
    let routes = vectors("routes.json");
    let routes = routes.iter().map(|case| bytes(case, "gossip_payload"));
    merges
        .iter()
        .map(|case| bytes(case, "update"))
        .chain(routes)
        .collect()
}

#[test]
fn an_update_cut_anywhere_changes_nothing() {
    for payload in payloads() {
        for end in 0..payload.len() {
            fuzz_topology(&payload[..end]);
        }
    }
}
