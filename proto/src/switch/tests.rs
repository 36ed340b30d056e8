use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;

fn mac(n: u64) -> Mac {
    let [_, _, a, b, c, d, e, f] = n.to_be_bytes();
    Mac::from_bytes([a, b, c, d, e, f])
}

fn at(seconds: u64) -> Time {
    Time::ZERO + Duration::from_secs(seconds)
}

#[test]
fn addresses_are_learned_moved_and_forgotten() {
    let macs = MacTable::new(7);
    let m = mac(0x0200_0000_0001);
    assert_eq!(macs.lookup(m), None);
    assert_eq!(macs.learn(at(0), m, PeerSlot(3)), Learned::New);
    assert_eq!(macs.learn(at(1), m, PeerSlot(3)), Learned::Known);
    assert_eq!(macs.lookup(m), Some(PeerSlot(3)));
    assert_eq!(
        macs.learn(at(2), m, PeerSlot::US),
        Learned::Moved(PeerSlot(3))
    );
    assert_eq!(macs.lookup(m), Some(PeerSlot::US));
    assert_eq!(macs.forget_peer(PeerSlot(3)), 0);
    assert_eq!(macs.forget_peer(PeerSlot::US), 1);
    assert_eq!(macs.lookup(m), None);
}

#[test]
fn group_and_zero_addresses_are_never_learned() {
    let macs = MacTable::new(7);
    for m in [Mac::BROADCAST, Mac::ZERO, mac(0x0100_5e00_0001)] {
        assert_eq!(macs.learn(at(0), m, PeerSlot(1)), Learned::Invalid);
        assert_eq!(macs.lookup(m), None);
    }
    assert_eq!(macs.entries().count(), 0);
}

#[test]
fn an_address_expires_ten_minutes_after_it_was_last_seen() {
    let macs = MacTable::new(7);
    let (quiet, busy) = (mac(2), mac(4));
    macs.learn(at(0), quiet, PeerSlot(1));
    macs.learn(at(0), busy, PeerSlot(1));
    // Below the refresh interval the time of last sight stays as it is.
    macs.learn(at(59), busy, PeerSlot(1));
    assert!(macs.entries().all(|entry| entry.last_seen == at(0)));
    macs.learn(at(60), busy, PeerSlot(1));
    assert_eq!(macs.expire(at(599)), 0);
    assert_eq!(macs.expire(at(600)), 1);
    assert_eq!(macs.lookup(quiet), None);
    assert_eq!(macs.lookup(busy), Some(PeerSlot(1)));
    assert_eq!(macs.expire(at(660)), 1);
}

#[test]
fn a_full_bucket_gives_way_only_to_what_is_heard_while_others_are_silent() {
    let macs = MacTable::new(7);
    let all: Vec<Mac> = (0..4 * MACS_MAX as u64)
        .map(|n| mac(n << 1 | 2 << 40))
        .collect();
    for (&m, slot) in all.iter().zip((1..=8).cycle()) {
        macs.learn(at(0), m, PeerSlot(slot));
    }
    let known = all.iter().filter(|&&m| macs.lookup(m).is_some()).count();
    assert!(known <= MACS_MAX && known > MACS_MAX / 2, "{known} known");
    let late = *all.iter().find(|&&m| macs.lookup(m).is_none()).unwrap();
    assert_eq!(macs.learn(at(59), late, PeerSlot(1)), Learned::Full);
    assert_eq!(macs.learn(at(60), late, PeerSlot(1)), Learned::New);
    assert_eq!(macs.lookup(late), Some(PeerSlot(1)));
    assert_eq!(macs.entries().count(), known);
}

#[test]
fn one_peer_cannot_fill_the_table() {
    let macs = MacTable::new(7);
    let fresh = |n: u64| mac(n << 1 | 2 << 40);
    for n in 0..4 * MACS_MAX as u64 {
        macs.learn(at(0), fresh(n), PeerSlot(1));
    }
    assert_eq!(macs.entries().count(), MACS_PER_PEER_MAX);
    let others = (1 << 30)..(1 << 30) + 2000;
    for n in others.clone() {
        assert_eq!(macs.learn(at(1), fresh(n), PeerSlot(2)), Learned::New);
    }
    // The addresses of others stay where they are, however long it goes on.
    for n in 0..4 * MACS_MAX as u64 {
        macs.learn(at(100), fresh(n | 1 << 35), PeerSlot(1));
    }
    for n in others {
        assert_eq!(macs.lookup(fresh(n)), Some(PeerSlot(2)));
    }
    let of_one = macs.entries().filter(|entry| entry.at == PeerSlot(1));
    assert!(of_one.count() <= MACS_PER_PEER_MAX);
    // Those that leave make room.
    macs.forget_peer(PeerSlot(1));
    assert_eq!(macs.learn(at(101), fresh(1), PeerSlot(1)), Learned::New);
}

#[test]
fn threads_that_learn_the_same_addresses_leave_one_entry_of_each() {
    let macs = MacTable::new(99);
    std::thread::scope(|scope| {
        for slot in 1..=4 {
            let macs = &macs;
            scope.spawn(move || {
                for n in 1..2000 {
                    macs.learn(at(0), mac(n << 1), PeerSlot(slot));
                }
            });
        }
    });
    let mut seen = BTreeMap::new();
    for entry in macs.entries() {
        assert_eq!(
            seen.insert(entry.mac, entry.at),
            None,
            "{} twice",
            entry.mac
        );
    }
    // A thread that loses a place leaves the address for its next frame.
    for n in 1..2000 {
        macs.learn(at(0), mac(n << 1), PeerSlot(1));
        assert!(macs.lookup(mac(n << 1)).is_some());
    }
}

/// The recorded steps of Weave Net's table. Where Weave Net refuses a captured address that is
/// known elsewhere, ours follows it, and says from where.
#[test]
fn mac_cache_vector() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/sleeve.json");
    let file: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    let macs = MacTable::new(1);
    let m = mac(0x0200_0000_0001);
    let slot = |name: &Value| match name.as_str().unwrap() {
        "" => None,
        name => Some(PeerSlot(
            name.parse::<PeerName>().unwrap().as_u64() as u16 - 1,
        )),
    };
    let steps = file["mac_cache"].as_array().unwrap();
    assert_eq!(steps.len(), 5);
    for step in steps {
        let at_peer = slot(&step["peer"]).unwrap();
        let learned = macs.learn(Time::ZERO, m, at_peer);
        assert_eq!(learned == Learned::New, step["new"], "{step}");
        let from = match learned {
            Learned::Moved(from) => Some(from),
            _ => None,
        };
        assert_eq!(from, slot(&step["conflict"]), "{step}");
        assert_eq!(macs.lookup(m), Some(at_peer));
    }
}

#[test]
fn a_slot_rests_before_another_peer_gets_it() {
    let name = |n: u64| PeerName::from_u64(n).unwrap();
    let mut slots = PeerSlots::new(name(1));
    assert!(slots.update(at(0), &[name(1), name(2), name(3)]).is_empty());
    assert_eq!(slots.get(name(1)), Some(PeerSlot::US));
    let second = slots.get(name(2)).unwrap();
    assert_eq!(slots.update(at(1), &[name(3)]), vec![second]);
    assert_eq!(slots.get(name(1)), Some(PeerSlot::US));
    slots.update(at(600), &[name(3), name(4)]);
    assert_ne!(slots.get(name(4)), Some(second));
    slots.update(at(601), &[name(3), name(4), name(5)]);
    assert_eq!(slots.get(name(5)), Some(second));
}

proptest! {
    /// Against a plain map: what was learned is found, at the peer where it was seen last.
    #[test]
    fn behaves_like_a_map(steps in prop::collection::vec((0u64..64, 1u16..5, 0u8..20), 1..300)) {
        let macs = MacTable::new(3);
        let mut model: BTreeMap<Mac, PeerSlot> = BTreeMap::new();
        for (n, peer, action) in steps {
            let (m, peer) = (mac((n + 1) << 1), PeerSlot(peer));
            if action == 0 {
                prop_assert_eq!(macs.forget_peer(peer), {
                    let before = model.len();
                    model.retain(|_, at| *at != peer);
                    before - model.len()
                });
            } else {
                let expected = match model.insert(m, peer) {
                    None => Learned::New,
                    Some(old) if old == peer => Learned::Known,
                    Some(old) => Learned::Moved(old),
                };
                prop_assert_eq!(macs.learn(Time::ZERO, m, peer), expected);
            }
            prop_assert_eq!(macs.lookup(m), model.get(&m).copied());
        }
        let mut entries: Vec<_> = macs.entries().map(|e| (e.mac, e.at)).collect();
        entries.sort();
        prop_assert_eq!(entries, model.into_iter().collect::<Vec<_>>());
    }
}

mod decisions {
    use std::collections::BTreeSet;
    use std::sync::Arc;

    use proptest::prelude::*;
    use serde_json::Value;

    use super::{at, mac};
    use crate::routes::Routes;
    use crate::switch::*;
    use crate::topology::{Address, Connection, Peer, Topology, encode_update};
    use crate::types::{PeerName, PeerUid};

    fn name(n: u64) -> PeerName {
        PeerName::from_u64(n).unwrap()
    }

    fn connections(of: u64, edges: &[(u64, u64)]) -> Vec<Connection> {
        let ends = edges.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
        let to: BTreeSet<u64> = ends.filter(|&(a, _)| a == of).map(|(_, b)| b).collect();
        let connection = |n: &u64| Connection {
            remote: name(*n),
            address: Address::from_text(b"10.0.0.1:6783"),
            outbound: of < *n,
            established: true,
        };
        to.iter().map(connection).collect()
    }

    /// One peer of a mesh of peers 1 to `count` with these connections.
    struct Switch {
        forwarding: Forwarding,
        macs: MacTable,
    }

    impl Switch {
        fn new(us: u64, count: u64, edges: &[(u64, u64)]) -> Switch {
            let rng = fastrand::Rng::with_seed(us);
            let mut topology = Topology::new(name(us), "", PeerUid(us), None, rng);
            let others: Vec<Peer> = (1..=count)
                .filter(|&n| n != us)
                .map(|n| Peer {
                    name: name(n),
                    nickname: Box::default(),
                    uid: PeerUid(n),
                    version: 1,
                    short_id: None,
                    connections: connections(n, edges),
                })
                .collect();
            topology.merge(&encode_update(&others)).unwrap();
            let own = connections(us, edges);
            for connection in &own {
                let address = "10.0.0.1:6783".parse().unwrap();
                topology.add_connection(connection.remote, address, true);
                topology.establish_connection(connection.remote);
            }
            let neighbours: Vec<PeerName> = own.iter().map(|c| c.remote).collect();
            let routes = Arc::new(Routes::calculate(&topology));
            let mut slots = PeerSlots::new(name(us));
            slots.update(Time::ZERO, routes.peers());
            Switch {
                forwarding: Forwarding::new(routes, &slots, &neighbours),
                macs: MacTable::new(us),
            }
        }

        fn captured(&self, dst: Mac, src: Mac) -> Captured<'_> {
            self.forwarding.captured(at(1), &self.macs, dst, src).0
        }

        /// Returns what becomes of a frame: the neighbour that sent it, its source, and for whom it
        /// is.
        fn received(&self, peers: (u64, u64, u64), dst: Mac, src: Mac) -> Received<'_> {
            let peers = (name(peers.0), name(peers.1), name(peers.2));
            self.forwarding
                .received(at(1), &self.macs, peers, (dst, src))
                .0
        }

        fn link(&self, to: u64) -> LinkIndex {
            self.forwarding.link_to(name(to)).unwrap()
        }
    }

    const LINE: [(u64, u64); 3] = [(1, 2), (2, 3), (3, 4)];
    const HERE: u64 = 0x0200_0000_0001;
    const THERE: u64 = 0x0200_0000_0002;

    fn flooded_to(flood: Flood<'_>) -> Vec<PeerName> {
        let targets = flood.targets().map(|(peer, link)| {
            assert!(link.is_some());
            peer
        });
        targets.collect()
    }

    #[test]
    fn captured_frames_go_where_their_destination_was_seen() {
        let switch = Switch::new(2, 4, &LINE);
        let (here, there) = (mac(HERE), mac(THERE));
        assert!(matches!(switch.captured(there, here),
            Captured::Flood(flood) if flooded_to(flood) == [name(1), name(3)]));
        assert!(matches!(
            switch.received((3, 4, 2), here, there),
            Received::Inject
        ));
        assert!(matches!(switch.captured(there, here),
            Captured::Peer { link, dest } if link == switch.link(3) && dest == name(4)));
        // What the bridge delivers itself.
        assert!(matches!(switch.captured(here, mac(6)), Captured::Local));
    }

    #[test]
    fn spanning_tree_and_special_frames_stay() {
        let switch = Switch::new(2, 4, &LINE);
        assert!(matches!(
            switch.captured(mac(0x0180_c200_0000), mac(HERE)),
            Captured::Drop(SwitchDrop::SpanningTree)
        ));
        assert!(matches!(
            switch.captured(mac(0x0180_c200_000e), mac(HERE)),
            Captured::Flood(_)
        ));
        assert!(matches!(
            switch.captured(Mac::ZERO, Mac::ZERO),
            Captured::Drop(SwitchDrop::Special)
        ));
        assert!(matches!(
            switch.received((1, 1, 2), Mac::ZERO, Mac::ZERO),
            Received::Drop(SwitchDrop::Special)
        ));
    }

    #[test]
    fn frames_for_other_peers_are_relayed_and_nothing_is_learned() {
        let switch = Switch::new(2, 4, &LINE);
        let (here, there) = (mac(HERE), mac(THERE));
        assert!(matches!(switch.received((1, 1, 4), there, here),
            Received::Relay(link) if link == switch.link(3)));
        assert_eq!(switch.macs.lookup(here), None);
        assert!(matches!(
            switch.received((1, 1, 9), there, here),
            Received::Drop(SwitchDrop::UnknownPeer)
        ));
        assert!(matches!(
            switch.received((1, 9, 2), there, here),
            Received::Drop(SwitchDrop::UnknownPeer)
        ));
    }

    #[test]
    fn received_frames_go_on_unless_their_destination_is_here() {
        let switch = Switch::new(2, 4, &LINE);
        let (here, there) = (mac(HERE), mac(THERE));
        assert!(matches!(switch.received((1, 1, 2), here, there),
            Received::InjectAndFlood(flood) if flooded_to(flood) == [name(3)]));
        switch.captured(Mac::BROADCAST, here);
        assert!(matches!(
            switch.received((1, 1, 2), here, there),
            Received::Inject
        ));
        assert!(matches!(switch.received((3, 4, 2), Mac::BROADCAST, there),
            Received::InjectAndFlood(flood) if flooded_to(flood) == [name(1)]));
        // A peer at the end of the line passes nothing on.
        let end = Switch::new(1, 4, &LINE);
        assert!(matches!(
            end.received((2, 4, 1), Mac::BROADCAST, there),
            Received::Inject
        ));
    }

    #[test]
    fn frames_do_not_go_back_and_ours_do_not_come_back() {
        let switch = Switch::new(2, 4, &LINE);
        let (here, there) = (mac(HERE), mac(THERE));
        assert!(matches!(
            switch.received((3, 1, 4), there, here),
            Received::Drop(SwitchDrop::Returned)
        ));
        for dest in [2, 4] {
            assert!(matches!(
                switch.received((3, 2, dest), Mac::BROADCAST, here),
                Received::Drop(SwitchDrop::OwnSource)
            ));
        }
        assert_eq!(switch.macs.lookup(here), None, "nothing is learned of it");
    }

    #[test]
    fn a_broadcast_is_taken_from_one_neighbour_only() {
        let ring = [(1, 2), (2, 3), (3, 4), (4, 1)];
        let switch = Switch::new(3, 4, &ring);
        let (here, there) = (mac(HERE), mac(THERE));
        let others = [2, 4].map(|from| switch.received((from, 1, 3), Mac::BROADCAST, here));
        let dropped = others
            .iter()
            .filter(|received| matches!(received, Received::Drop(SwitchDrop::NotParent)));
        assert_eq!(dropped.count(), 1, "{others:?}");
        // A frame for one is not lost for it, but is not multiplied either.
        let stray = [2, 4].map(|from| switch.received((from, 1, 3), there, here));
        assert!(
            stray
                .iter()
                .any(|received| matches!(received, Received::Inject))
        );
        // The source itself may always send: the link may be newer than what we know of it.
        assert!(matches!(
            switch.received((1, 1, 3), Mac::BROADCAST, here),
            Received::Inject | Received::InjectAndFlood(_)
        ));
    }

    /// A member that tells everybody something else makes routers see different meshes.
    #[test]
    fn broadcasts_do_not_multiply_while_peers_see_different_meshes() {
        let mut rng = fastrand::Rng::with_seed(7);
        let count = 8;
        let mut worst = 0;
        for _ in 0..200 {
            let switches: Vec<Switch> = (1..=count)
                .map(|n| {
                    let edges: Vec<(u64, u64)> = (1..=count)
                        .flat_map(|a| (1..a).map(move |b| (b, a)))
                        .filter(|_| rng.u32(..3) == 0)
                        .collect();
                    Switch::new(n, count, &edges)
                })
                .collect();
            let mut copies: Vec<(u64, u64)> = match switches[0].captured(Mac::BROADCAST, mac(HERE))
            {
                Captured::Flood(flood) => {
                    let targets = flood.targets();
                    targets.map(|(peer, _)| (1, peer.as_u64())).collect()
                }
                _ => Vec::new(),
            };
            for _ in 0..20 {
                worst = worst.max(copies.len());
                let mut next = Vec::new();
                for (from, at) in copies {
                    let switch = &switches[at as usize - 1];
                    let received = switch.received((from, 1, at), Mac::BROADCAST, mac(HERE));
                    if let Received::InjectAndFlood(flood) = received {
                        let targets = flood.targets();
                        next.extend(targets.map(|(peer, _)| (at, peer.as_u64())));
                    }
                }
                copies = next;
            }
        }
        assert!(worst <= 2 * count as usize, "{worst} copies at once");
    }

    #[test]
    fn an_address_follows_its_owner_in_both_directions() {
        let switch = Switch::new(2, 4, &LINE);
        let m = mac(HERE);
        switch.received((1, 1, 2), Mac::BROADCAST, m);
        assert!(matches!(
            switch.captured(m, mac(THERE)),
            Captured::Peer { .. }
        ));
        let (_, learned) = switch
            .forwarding
            .captured(at(2), &switch.macs, Mac::BROADCAST, m);
        let Learned::Moved(from) = learned else {
            panic!("{learned:?}");
        };
        assert_eq!(switch.forwarding.name_of(from), Some(name(1)));
        assert!(matches!(switch.captured(m, mac(THERE)), Captured::Local));
        switch.received((3, 4, 2), Mac::BROADCAST, m);
        assert!(matches!(switch.captured(m, mac(THERE)),
            Captured::Peer { dest, .. } if dest == name(4)));
    }

    #[test]
    fn peers_out_of_reach_get_nothing() {
        let switch = Switch::new(2, 4, &[(1, 2), (3, 4)]);
        switch
            .macs
            .learn(at(0), mac(THERE), Switch::slot_of(&switch, name(4)));
        assert!(matches!(
            switch.captured(mac(THERE), mac(HERE)),
            Captured::Drop(SwitchDrop::NoRoute)
        ));
        let alone = Switch::new(1, 1, &[]);
        assert!(matches!(alone.captured(Mac::BROADCAST, mac(HERE)),
            Captured::Flood(flood) if flood.is_empty()));
    }

    impl Switch {
        fn slot_of(&self, peer: PeerName) -> PeerSlot {
            self.forwarding.peer(peer).unwrap().slot
        }
    }

    /// Follows a frame through all switches; returns how often each peer injected it.
    fn deliver(switches: &[Switch], source: usize, dst: Mac, src: Mac) -> Vec<usize> {
        let mut injected = vec![0; switches.len()];
        let mut on_the_way: Vec<(usize, usize, usize, usize)> = Vec::new();
        let index = |peer: PeerName| peer.as_u64() as usize - 1;
        match switches[source].captured(dst, src) {
            Captured::Flood(flood) => {
                for (peer, _) in flood.targets() {
                    on_the_way.push((source, index(peer), source, index(peer)));
                }
            }
            Captured::Peer { link, dest } => {
                let hop = switches[source].forwarding.neighbours()[link.get()];
                on_the_way.push((source, index(hop), source, index(dest)));
            }
            Captured::Local | Captured::Drop(_) => {}
        }
        while let Some((from, at, source, dest)) = on_the_way.pop() {
            let peers = (from as u64 + 1, source as u64 + 1, dest as u64 + 1);
            match switches[at].received(peers, dst, src) {
                Received::Relay(link) => {
                    let hop = switches[at].forwarding.neighbours()[link.get()];
                    on_the_way.push((at, index(hop), source, dest));
                }
                Received::Inject => injected[at] += 1,
                Received::InjectAndFlood(flood) => {
                    injected[at] += 1;
                    for (peer, _) in flood.targets() {
                        on_the_way.push((at, index(peer), source, index(peer)));
                    }
                }
                Received::Drop(reason) => panic!("dropped at {at}: {reason:?}"),
            }
            assert!(injected.iter().all(|&times| times <= 1), "{injected:?}");
        }
        injected
    }

    fn mesh() -> impl Strategy<Value = (u64, Vec<(u64, u64)>)> {
        (2u64..9).prop_flat_map(|count| {
            // A tree keeps it in one piece; further edges make loops.
            let tree = (2..=count).map(|n| (1..n).prop_map(move |to| (to, n)).boxed());
            let more = prop::collection::vec((1..=count, 1..=count), 0..8);
            (Just(count), tree.collect::<Vec<_>>(), more).prop_map(|(count, mut tree, more)| {
                tree.extend(more.into_iter().filter(|(a, b)| a != b));
                (count, tree)
            })
        })
    }

    proptest! {
        /// A broadcast reaches every other peer exactly once, whatever the mesh looks like, and
        /// what was learned from it leads answers to its source and to nobody else.
        #[test]
        fn no_copy_is_lost_or_doubled((count, edges) in mesh(), source in 0usize..8, answer in 0usize..8) {
            let switches: Vec<Switch> = (1..=count).map(|n| Switch::new(n, count, &edges)).collect();
            let (source, answer) = (source % switches.len(), answer % switches.len());
            let (here, there) = (mac(HERE), mac(THERE));
            let mut everywhere = vec![1; switches.len()];
            everywhere[source] = 0;
            prop_assert_eq!(deliver(&switches, source, Mac::BROADCAST, here), everywhere);
            if answer != source {
                let mut only = vec![0; switches.len()];
                only[source] = 1;
                prop_assert_eq!(deliver(&switches, answer, here, there), only);
            }
        }
    }

    /// Every recorded view of every recorded mesh: floods and unicasts go where the real router
    /// sends them.
    #[test]
    fn routes_vector() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/routes.json");
        let cases: Vec<Value> =
            serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let mut views = 0;
        for case in &cases {
            for expected in case["views"].as_array().unwrap() {
                check_view(case, expected);
                views += 1;
            }
        }
        assert_eq!((cases.len(), views), (22, 163));
    }

    fn check_view(case: &Value, expected: &Value) {
        let parse = |value: &Value| value.as_str().unwrap().parse::<PeerName>().unwrap();
        let us = parse(&expected["ourself"]);
        let mut topology = Topology::new(us, "", PeerUid(1), None, fastrand::Rng::with_seed(3));
        let payload = case["gossip_payload"].as_str().unwrap();
        let digits = (0..payload.len()).step_by(2).map(|i| &payload[i..i + 2]);
        let payload: Vec<u8> = digits.map(|d| u8::from_str_radix(d, 16).unwrap()).collect();
        topology.merge(&payload).unwrap();
        for c in case["connections"].as_array().unwrap() {
            if parse(&c["from"]) == us {
                let address = "10.0.0.1:6783".parse().unwrap();
                topology.add_connection(parse(&c["to"]), address, true);
                if c["established"].as_bool().unwrap() {
                    topology.establish_connection(parse(&c["to"]));
                }
            }
        }
        let routes = Arc::new(Routes::calculate(&topology));
        let mut slots = PeerSlots::new(us);
        slots.update(Time::ZERO, routes.peers());
        let neighbours = routes.peers().to_vec();
        let forwarding = Forwarding::new(routes, &slots, &neighbours);
        let macs = MacTable::new(5);
        for (source, hops) in expected["broadcast"].as_object().unwrap() {
            let source: PeerName = source.parse().unwrap();
            let hops: Vec<PeerName> = hops.as_array().unwrap().iter().map(parse).collect();
            let (dst, src) = (Mac::BROADCAST, mac(HERE));
            if source == us {
                let (decision, _) = forwarding.captured(at(0), &macs, dst, src);
                assert!(matches!(decision, Captured::Flood(f) if flooded_to(f) == hops));
                continue;
            }
            let parent = forwarding.routes.parent(source).unwrap_or(source);
            match forwarding
                .received(at(0), &macs, (parent, source, us), (dst, src))
                .0
            {
                Received::Inject => assert!(hops.is_empty()),
                Received::InjectAndFlood(f) => assert_eq!(flooded_to(f), hops),
                other => panic!("{other:?}"),
            }
        }
        for &dest in &neighbours {
            let hop = expected["unicast"].get(dest.to_string()).map(parse);
            let hop = hop.filter(|&hop| hop != PeerName::UNKNOWN);
            macs.learn(at(0), mac(THERE), slots.get(dest).unwrap());
            match forwarding.captured(at(0), &macs, mac(THERE), mac(HERE)).0 {
                Captured::Local => assert_eq!(dest, us),
                Captured::Drop(reason) => {
                    assert_eq!((reason, hop), (SwitchDrop::NoRoute, None));
                }
                Captured::Peer { link, dest: to } => {
                    assert_eq!((to, forwarding.link_to(hop.unwrap())), (dest, Some(link)));
                }
                Captured::Flood(_) => panic!("{dest} is known"),
            }
        }
    }
}
