use std::net::SocketAddr;

use super::*;
use crate::gob::{Encoder, Error, SliceType, StructType, Type};
use crate::types::{PeerName, PeerUid, ShortId};

const US: u64 = 50;

fn name(value: u64) -> PeerName {
    PeerName::from_u64(value).unwrap()
}

fn id(value: u16) -> ShortId {
    ShortId::new(value).unwrap()
}

fn address(value: u64) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, value as u8], 6783))
}

fn topology() -> Topology {
    let rng = fastrand::Rng::with_seed(1);
    Topology::new(name(US), "us", PeerUid(5), Some(id(7)), rng)
}

fn link(remote: u64) -> Connection {
    Connection {
        remote: name(remote),
        address: address(remote).into(),
        outbound: true,
        established: true,
    }
}

fn peer(value: u64, version: u64, remotes: impl IntoIterator<Item = u64>) -> Peer {
    Peer {
        name: name(value),
        nickname: format!("h{value}").into_bytes().into(),
        uid: PeerUid(value),
        version,
        short_id: None,
        connections: remotes.into_iter().map(link).collect(),
    }
}

fn introduced(value: u64) -> Introduced<'static> {
    Introduced {
        name: name(value),
        nickname: "hi",
        uid: PeerUid(value),
        short_id: None,
    }
}

/// Returns the changes that are waiting, as letters.
fn changes(topology: &mut Topology) -> String {
    let changes = topology.take_changes();
    let letter = |flag, letter| if flag { letter } else { "" };
    letter(changes.announce, "a").to_owned()
        + letter(changes.routes, "r")
        + letter(changes.short_ids, "s")
}

fn version(topology: &Topology) -> u64 {
    topology.peer(name(US)).unwrap().version
}

fn add(topology: &mut Topology, remote: u64) {
    topology.add_connection(name(remote), address(remote), true);
}

#[test]
fn records_are_small() {
    assert_eq!(size_of::<Connection>(), 24);
}

#[test]
fn own_connections_count_up_our_version() {
    let mut topology = topology();
    assert_eq!(version(&topology), 0);
    add(&mut topology, 3);
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (1, "ar".into())
    );
    topology.establish_connection(name(3));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (2, "ar".into())
    );
    let connection = topology.peer(name(US)).unwrap().connection(name(3));
    assert_eq!(connection, Some(&link(3)));
    topology.establish_connection(name(3));
    topology.establish_connection(name(4));
    topology.delete_connection(name(4));
    assert_eq!((version(&topology), changes(&mut topology)), (2, "".into()));
    // A connection that takes the place of another begins as not established.
    topology.add_connection(name(3), address(9), false);
    let connection = topology
        .peer(name(US))
        .unwrap()
        .connection(name(3))
        .unwrap();
    assert!(!connection.established && !connection.outbound);
    topology.delete_connection(name(3));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (4, "ar".into())
    );
    assert!(topology.peer(name(US)).unwrap().connections.is_empty());
}

#[test]
fn who_answers_is_checked() {
    let mut topology = topology();
    let us = |uid| Introduced {
        uid: PeerUid(uid),
        ..introduced(US)
    };
    assert_eq!(topology.admit(us(5), true), Err(Refused::Ourself));
    assert_eq!(
        topology.admit(us(6), true),
        Err(Refused::NameCollision(name(US)))
    );
    assert_eq!(
        topology.admit(introduced(3), false),
        Err(Refused::UnknownPeer(name(3)))
    );
    assert!(Refused::Ourself.is_final() && !Refused::UnknownPeer(name(3)).is_final());
    assert!(topology.admit(introduced(0), true).is_err());
    assert_eq!(changes(&mut topology), "");
    assert_eq!(
        topology.admit(introduced(3), true),
        Ok(Admitted { restarted: false })
    );
    assert_eq!(
        topology.peer(name(3)).unwrap().to_string(),
        "00:00:00:00:00:03(hi)"
    );
    assert_eq!(
        topology.admit(introduced(3), false),
        Ok(Admitted { restarted: false })
    );
    let again = Introduced {
        uid: PeerUid(99),
        ..introduced(3)
    };
    assert_eq!(
        topology.admit(again, false),
        Ok(Admitted { restarted: true })
    );
    // The entry waits for the peer's own gossip.
    assert_eq!(topology.peer(name(3)).unwrap().uid, PeerUid(3));
    assert_eq!(changes(&mut topology), "r");
}

#[test]
fn held_peers_survive_garbage_collection() {
    let mut topology = topology();
    topology.admit(introduced(3), true).unwrap();
    topology.admit(introduced(3), true).unwrap();
    assert_eq!(topology.collect_garbage(), []);
    topology.release(name(3));
    assert_eq!(topology.collect_garbage(), []);
    topology.release(name(3));
    let _ = topology.take_changes();
    assert_eq!(topology.collect_garbage(), [name(3)]);
    assert_eq!(changes(&mut topology), "r");
    topology.release(name(3));
    assert_eq!(topology.collect_garbage(), []);
    assert_eq!(changes(&mut topology), "");
}

#[test]
fn a_newer_entry_replaces_all_of_the_older() {
    let mut topology = topology();
    add(&mut topology, 3);
    let first = Peer {
        short_id: Some(id(1)),
        ..peer(3, 4, [US, 4])
    };
    topology.merge(&encode_update([&first])).unwrap();
    assert!(topology.peer(name(4)).unwrap().is_placeholder());
    assert_eq!(topology.short_id_owner(id(1)), Some(name(3)));
    let second = peer(3, 5, [US]);
    topology.merge(&encode_update([&second, &first])).unwrap();
    assert_eq!(topology.peer(name(3)), Some(&second));
    assert_eq!(topology.short_id_owner(id(1)), None);
    // A placeholder is older than anything that the peer says itself.
    let merged = topology.merge(&encode_update([&peer(4, 0, [])])).unwrap();
    assert!(merged.improved.contains(&name(4)));
}

#[test]
fn a_short_id_is_learned_without_a_new_version() {
    let mut topology = topology();
    let (without, with) = (
        peer(3, 4, []),
        Peer {
            short_id: Some(id(1)),
            ..peer(3, 4, [])
        },
    );
    for (update, improved, expected) in [
        (&without, 1, &without),
        (&without, 0, &without),
        (&with, 1, &with),
        (&without, 0, &with),
    ] {
        let merged = topology.merge(&encode_update([update])).unwrap();
        assert_eq!(merged.improved.len(), improved);
        assert_eq!(topology.peer(name(3)), Some(expected));
    }
}

#[test]
fn of_two_connections_to_one_peer_the_last_stays() {
    let mut topology = topology();
    let mut twice = peer(3, 1, [9, 4, 4, 4]);
    twice.connections[2].established = false;
    twice.connections[3].outbound = false;
    topology.merge(&encode_update([&twice])).unwrap();
    let expected = [twice.connections[3].clone(), link(9)];
    assert_eq!(topology.peer(name(3)).unwrap().connections, expected);
}

#[test]
fn an_earlier_start_of_ourselves_is_outdone() {
    let mut topology = topology();
    let earlier = |version| Peer {
        uid: PeerUid(4),
        ..peer(US, version, [3])
    };
    let update = encode_update([&earlier(8), &earlier(6)]);
    let merged = topology.merge(&update).unwrap();
    assert!(merged.improved.is_empty() && merged.named.contains(&name(US)));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (9, "a".into())
    );
    topology.merge(&update).unwrap();
    assert_eq!((version(&topology), changes(&mut topology)), (9, "".into()));
}

#[test]
fn what_is_said_of_us_and_is_not_ours_is_outdone() {
    let mut topology = topology();
    add(&mut topology, 3);
    let own = topology.peer(name(US)).unwrap().clone();
    assert_eq!(own.version, 1);
    let _ = changes(&mut topology);
    let merged = topology.merge(&encode_update([&own])).unwrap();
    assert_eq!((merged.foreign, changes(&mut topology)), (None, "".into()));

    let mut forged = own.clone();
    forged.connections.clear();
    for expected in [2, 3] {
        let merged = topology.merge(&encode_update([&forged])).unwrap();
        let foreign = Foreign {
            uid: own.uid,
            version: forged.version,
        };
        assert_eq!(merged.foreign, Some(foreign));
        assert!(merged.improved.is_empty());
        assert_eq!(
            (version(&topology), changes(&mut topology)),
            (expected, "a".into())
        );
        forged.version = expected;
    }
    let ours = &topology.peer(name(US)).unwrap().connections;
    assert_eq!(*ours, own.connections);
}

/// A version that others do not follow at once is come to in steps that they do follow, and the
/// end of the numbers is never reached.
#[test]
fn a_version_far_away_is_outdone_in_steps() {
    let (mut us, mut other) = (topology(), topology_of_another());
    other.merge(&us.encode([name(US)])).unwrap();
    let far = VERSION_STEP_MAX * 2;
    let forged = encode_update([&peer(US, far, [])]);
    for _ in 0..4 {
        us.merge(&forged).unwrap();
        let merged = other.merge(&us.encode([name(US)])).unwrap();
        assert_eq!(merged.ignored, 0);
        assert_eq!(other.peer(name(US)).unwrap().version, version(&us));
    }
    us.merge(&forged).unwrap();
    assert_eq!(version(&us), far + 1);
    us.merge(&encode_update([&peer(US, u64::MAX, [])])).unwrap();
    assert_eq!(version(&us), far + 1);
}

#[test]
fn a_version_that_nobody_counts_to_is_ignored() {
    let mut topology = topology();
    let honest = peer(3, 5, [9]);
    topology.merge(&encode_update([&honest])).unwrap();
    for version in [u64::MAX, VERSION_END, VERSION_STEP_MAX + 6] {
        for named in [3, 4] {
            let forged = peer(named, version.max(VERSION_STEP_MAX + 1), []);
            let merged = topology.merge(&encode_update([&forged])).unwrap();
            assert_eq!((merged.ignored, merged.improved.len()), (1, 0));
        }
    }
    assert_eq!(topology.peer(name(3)), Some(&honest));
    let next = peer(3, 6, [8, 9]);
    topology.merge(&encode_update([&next])).unwrap();
    assert_eq!(topology.peer(name(3)), Some(&next));
}

/// Somebody else's table.
fn topology_of_another() -> Topology {
    let rng = fastrand::Rng::with_seed(3);
    Topology::new(name(77), "other", PeerUid(77), Some(id(77)), rng)
}

#[test]
fn our_short_id_is_given_up_to_lower_names_only() {
    let mut topology = topology();
    let claim = |value, version, short_id| Peer {
        short_id: Some(id(short_id)),
        ..peer(value, version, [])
    };
    topology.merge(&encode_update([&claim(60, 1, 7)])).unwrap();
    assert_eq!(topology.peer(name(US)).unwrap().short_id, Some(id(7)));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (0, "r".into())
    );
    // A handshake claims as gossip does.
    let lower = Introduced {
        short_id: Some(id(7)),
        ..introduced(40)
    };
    topology.admit(lower, true).unwrap();
    let ours = topology.peer(name(US)).unwrap().short_id.unwrap();
    assert_ne!(ours, id(7));
    assert_eq!(topology.short_id_owner(ours), Some(name(US)));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (1, "ars".into())
    );
    assert_eq!(topology.short_id_owner(id(7)), Some(name(40)));
    // When the owner moves on, the next claimant follows; we stay where we are.
    topology.merge(&encode_update([&claim(40, 2, 8)])).unwrap();
    assert_eq!(topology.short_id_owner(id(7)), Some(name(60)));
    assert_eq!(topology.peer(name(US)).unwrap().short_id, Some(ours));
    assert_eq!(
        (version(&topology), changes(&mut topology)),
        (1, "rs".into())
    );
}

#[test]
fn without_a_free_short_id_ours_stays_until_peers_go() {
    let mut topology = topology();
    // Names above ours take all other ids, then one below ours takes ours.
    let others = (0..ShortId::COUNT).filter(|value| *value != 7);
    let claims: Vec<Peer> = others
        .map(|value| Peer {
            short_id: Some(id(value)),
            ..peer(1000 + u64::from(value), 1, [])
        })
        .collect();
    topology.merge(&encode_update(&claims)).unwrap();
    let lower = Introduced {
        short_id: Some(id(7)),
        ..introduced(40)
    };
    topology.admit(lower, true).unwrap();
    assert_eq!(topology.peer(name(US)).unwrap().short_id, Some(id(7)));
    assert_eq!(version(&topology), 0);
    topology.collect_garbage();
    let ours = topology.peer(name(US)).unwrap().short_id.unwrap();
    assert_ne!(ours, id(7));
    assert_eq!(topology.short_id_owner(ours), Some(name(US)));
    assert_eq!(version(&topology), 1);
}

#[test]
fn parts_of_a_state_make_up_the_state() {
    let mut ours = topology();
    let peers: Vec<Peer> = (100..200).map(|value| peer(value, 1, 100..200)).collect();
    ours.merge(&encode_update(&peers)).unwrap();
    let whole = ours.encode(ours.names());
    let parts = ours.encode_parts(ours.names(), 50_000);
    assert!(parts.len() > 4 && parts.iter().all(|part| part.len() < 60_000));
    let mut theirs = topology();
    for part in parts.iter().rev() {
        theirs.merge(part).unwrap();
    }
    assert!(ours.peers().eq(theirs.peers()));
    assert_eq!(theirs.encode(theirs.names()), whole);
    assert_eq!(ours.encode_parts(ours.names(), usize::MAX), [whole]);
    assert!(ours.encode_parts([name(1)], 1).is_empty());
    assert!(ours.encode([name(1)]).is_empty());
}

#[test]
fn entries_beyond_a_limit_are_left_out_alone() {
    let fine = peer(3, 1, []);
    let long_nickname = Peer {
        nickname: vec![b'x'; NICKNAME_BYTES_MAX + 1].into(),
        ..peer(4, 1, [])
    };
    let many = 1..CONNECTIONS_PER_PEER_MAX as u64 + 2;
    let long_list = peer(5, 1, many.clone());
    let mut long_address = peer(6, 1, [3]);
    long_address.connections[0].address = Address::Text(vec![b'x'; ADDRESS_BYTES_MAX + 1].into());
    let at_limit = Peer {
        nickname: vec![b'x'; NICKNAME_BYTES_MAX].into(),
        ..peer(7, 1, many.skip(1))
    };
    let mut topology = topology();
    let update = [fine, long_nickname, long_list, long_address, at_limit];
    let merged = topology.merge(&encode_update(&update)).unwrap();
    assert_eq!(merged.ignored, 3);
    assert!(merged.improved.into_iter().eq([3, 7].map(name)));
    assert_eq!(topology.peer(name(7)), Some(&update[4]));
    // The others are known as far ends of peer 7's connections.
    assert!(
        [4, 5, 6]
            .iter()
            .all(|value| topology.peer(name(*value)).unwrap().is_placeholder())
    );
}

#[test]
fn the_number_of_peers_is_limited_but_neighbours_get_in() {
    let mut topology = topology();
    let crowd: Vec<Peer> = (100..100 + PEERS_MAX as u64)
        .map(|v| peer(v, 1, []))
        .collect();
    let merged = topology.merge(&encode_update(&crowd)).unwrap();
    assert_eq!((merged.improved.len(), merged.ignored), (PEERS_MAX - 1, 1));
    assert_eq!(topology.peers().len(), PEERS_MAX);
    assert_eq!(merged.named, merged.improved.into_iter().collect());
    // Known ones can still change, and mention others, which get no placeholder.
    let merged = topology
        .merge(&encode_update([&peer(100, 2, [1, 2])]))
        .unwrap();
    assert_eq!((merged.improved.len(), merged.ignored), (1, 0));
    assert_eq!(topology.peers().len(), PEERS_MAX);
    assert_eq!(topology.peer(name(100)).unwrap().connections.len(), 2);
    topology.admit(introduced(3), true).unwrap();
    let merged = topology.merge(&encode_update([&peer(3, 1, [])])).unwrap();
    assert_eq!((merged.improved.len(), merged.ignored), (1, 0));
    assert_eq!(topology.collect_garbage().len(), PEERS_MAX - 1);
    assert_eq!(topology.peers().len(), 2);
}

#[test]
fn the_memory_for_entries_is_limited_but_neighbours_get_in() {
    let mut topology = topology();
    let text = || Address::Text(vec![b'x'; ADDRESS_BYTES_MAX].into());
    let fat = |value, version| {
        let mut peer = peer(value, version, 1..CONNECTIONS_PER_PEER_MAX as u64);
        peer.connections.iter_mut().for_each(|c| c.address = text());
        peer
    };
    let size = fat(100, 1).extra_bytes();
    let count = (ENTRIES_BYTES_MAX / size) as u64;
    let mut kept = 0;
    for value in 10_000..10_001 + count {
        let merged = topology.merge(&encode_update([&fat(value, 1)])).unwrap();
        kept += merged.improved.len() as u64;
    }
    assert_eq!(kept, count);
    assert!(topology.extra_bytes <= ENTRIES_BYTES_MAX);
    topology.admit(introduced(30_000), true).unwrap();
    let merged = topology.merge(&encode_update([&fat(30_000, 1)])).unwrap();
    assert_eq!(merged.improved.len(), 1);
    // An entry of the same size still takes the place of an older one.
    let merged = topology.merge(&encode_update([&fat(10_000, 2)])).unwrap();
    assert_eq!(merged.improved.len(), 1);
    topology.release(name(30_000));
    topology.collect_garbage();
    assert_eq!(
        topology.extra_bytes,
        topology.peer(name(US)).unwrap().extra_bytes()
    );
}

#[test]
fn long_nicknames_of_neighbours_are_cut() {
    let mut topology = topology();
    let nickname = "é".repeat(NICKNAME_BYTES_MAX);
    let long = Introduced {
        nickname: &nickname,
        ..introduced(3)
    };
    topology.admit(long, true).unwrap();
    let kept = &topology.peer(name(3)).unwrap().nickname;
    assert_eq!(kept.len(), NICKNAME_BYTES_MAX);
    assert!(std::str::from_utf8(kept).is_ok());
}

static RAW_PEER: StructType = StructType {
    name: "peerSummary",
    fields: &[
        ("NameByte", Type::Bytes),
        ("UID", Type::Uint),
        ("ShortID", Type::Uint),
        ("HasShortID", Type::Bool),
        ("Surprise", Type::Int),
    ],
};
static RAW_CONNECTION: StructType = StructType {
    name: "connectionSummary",
    fields: &[("Outbound", Type::Bool), ("NameByte", Type::Bytes)],
};
static RAW_CONNECTIONS: SliceType = SliceType {
    name: "",
    elem: Type::Struct(&RAW_CONNECTION),
};

/// A name, the number of a short id, and names of remotes.
type RawEntry<'t> = (&'t [u8], u64, &'t [&'t [u8]]);

/// Returns an update as another kind of sender would write it.
fn raw_update(entries: &[RawEntry<'_>]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    for (name, short_id, remotes) in entries {
        encoder.value(Type::Struct(&RAW_PEER), |w| {
            w.structure(|s| {
                s.bytes(0, name);
                s.uint(1, 1);
                s.uint(2, *short_id);
                s.bool(3, true);
                s.int(4, -1);
            });
        });
        encoder.value(Type::Slice(&RAW_CONNECTIONS), |w| {
            w.slice(remotes.iter(), |w, remote| {
                w.structure(|s| s.bytes(1, remote))
            });
        });
    }
    encoder.finish()
}

#[test]
fn names_of_a_wrong_length_make_an_error() {
    let good: &[u8] = &[0, 0, 0, 0, 0, 3];
    for bad in [&[1, 2, 3][..], &[0; 7], &[1; 8], &[0; 5]] {
        let error = Error::Invalid("length of a peer name");
        for update in [
            raw_update(&[(good, 1, &[]), (bad, 1, &[])]),
            raw_update(&[(good, 1, &[good, bad])]),
        ] {
            let mut topology = topology();
            assert_eq!(topology.merge(&update), Err(error.clone()), "{bad:?}");
            assert_eq!(topology.peers().len(), 1);
        }
    }
}

#[test]
fn the_zero_name_is_passed_over() {
    // Real routers send it on when a bad member has told them of such a peer.
    let (zero, three, four) = ([0; 6], [0, 0, 0, 0, 0, 3], [0, 0, 0, 0, 0, 4]);
    let update = raw_update(&[
        (&zero, 1, &[&three]),
        (&[], 1, &[&four]),
        (&three, 1, &[&zero, &four, &[]]),
    ]);
    let mut topology = topology();
    let merged = topology.merge(&update).unwrap();
    assert!(merged.named.into_iter().eq([name(3)]));
    assert!(topology.names().eq([3, 4, US].map(name)));
    let remotes = topology.peer(name(3)).unwrap().connections.iter();
    assert!(remotes.map(|c| c.remote).eq([name(4)]));
}

#[test]
fn numbers_that_are_no_short_id_count_as_none() {
    let three: &[u8] = &[0, 0, 0, 0, 0, 3];
    let mut topology = topology();
    topology.merge(&raw_update(&[(three, 4096, &[])])).unwrap();
    assert_eq!(topology.peer(name(3)).unwrap().short_id, None);
    // Real routers refuse what does not fit 16 bits.
    assert_eq!(
        topology.merge(&raw_update(&[(three, 65536, &[])])),
        Err(Error::Range)
    );
}

#[test]
fn a_list_that_is_missing_makes_an_error() {
    let whole = encode_update([&peer(3, 1, [])]);
    let mut encoder = Encoder::new();
    update::write_peer(&mut encoder, &peer(3, 1, []));
    assert_eq!(encoder.finish(), whole);
    // The header's definition and value, without what follows.
    let mut end = 0;
    for _ in 0..2 {
        let (_, length) = crate::gob::split_message(&whole[end..], 1000)
            .unwrap()
            .unwrap();
        end += length;
    }
    assert_eq!(topology().merge(&whole[..end]), Err(Error::Missing));
}

#[test]
fn resolving_finds_what_is_there() {
    let mut rng = fastrand::Rng::with_seed(1);
    for _ in 0..500 {
        let mut pick = |count| {
            let values = (0..rng.usize(..count)).map(|_| rng.u64(1..60));
            values.collect::<std::collections::BTreeSet<u64>>()
        };
        let (names, remotes) = (pick(60), pick(30));
        let list: Vec<PeerName> = names.iter().map(|value| name(*value)).collect();
        let connections: Vec<Connection> = remotes.iter().map(|value| link(*value)).collect();
        let mut found = Vec::new();
        resolve(&list, &connections, |index, connection| {
            found.push((index.map(|index| list[index]), connection.remote));
        });
        let expected = remotes
            .iter()
            .map(|value| (names.contains(value).then(|| name(*value)), name(*value)));
        assert!(found.into_iter().eq(expected));
    }
}
