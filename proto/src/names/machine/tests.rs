use std::collections::BTreeMap;
use std::slice;
use std::time::Duration;

use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::names::table::{SKEW_SECS_MAX, TOMBSTONE_KEPT};
use crate::names::{Index, domain, held};

const WALL: UnixSecs = UnixSecs(1_700_000_000);

fn vectors(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn unhex(text: &str) -> Vec<u8> {
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn peer(number: u64) -> PeerName {
    PeerName::from_u64(number).unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn entries(value: &Value) -> Vec<Entry> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let entry = |e: &Value| Entry {
        key: Arc::new(
            Key::new(
                &text(&e["Hostname"]),
                text(&e["Origin"]).parse().unwrap(),
                &text(&e["ContainerID"]),
                text(&e["Addr"]).parse().unwrap(),
            )
            .unwrap(),
        ),
        state: State {
            version: u32::try_from(e["Version"].as_u64().unwrap()).unwrap(),
            tombstone: UnixSecs(e["Tombstone"].as_i64().unwrap()),
        },
    };
    list(value).iter().map(entry).collect()
}

fn entry(container: &str, origin: u64, last: u8, hostname: &str, state: (u32, i64)) -> Entry {
    let addr = Ipv4Addr::new(10, 32, 0, last);
    Entry {
        key: Arc::new(Key::new(hostname, peer(origin), container, addr).unwrap()),
        state: State {
            version: state.0,
            tombstone: UnixSecs(state.1),
        },
    }
}

/// Returns the names of peer 1, which knows peers 1 to `count`.
fn names(count: u64) -> Names {
    let domain = "weave.local.".parse().unwrap();
    let config = NamesConfig {
        us: peer(1),
        domain,
    };
    let mut names = Names::new(config, Time::ZERO);
    let peers: Vec<PeerName> = (1..=count).map(peer).collect();
    names.handle_peers(Time::ZERO, WALL, &peers);
    names
}

fn payload(entries: &[Entry]) -> Vec<u8> {
    gossip::encode_one(WALL, entries.to_vec())
}

fn outputs(names: &mut Names) -> Vec<Output> {
    std::iter::from_fn(|| names.poll_output()).collect()
}

fn all(names: &Names) -> Vec<Entry> {
    let table = names.table().iter();
    table
        .map(|(key, state)| Entry {
            key: key.clone(),
            state,
        })
        .collect()
}

#[derive(Debug, Default, PartialEq)]
struct Sent {
    gossip: Vec<Entry>,
    broadcast: Vec<Entry>,
    relay: Vec<Entry>,
    events: Vec<Event>,
}

/// Returns what `names` wants to send, decoded.
fn sent(names: &mut Names) -> Sent {
    let mut sent = Sent::default();
    for output in outputs(names) {
        let (list, payload) = match output {
            Output::Gossip { payload, .. } => (&mut sent.gossip, payload),
            Output::Broadcast { payload } => (&mut sent.broadcast, payload),
            Output::Relay { payload, .. } => (&mut sent.relay, payload),
            Output::Index(_) => continue,
            Output::Event(event) => {
                sent.events.push(event);
                continue;
            }
        };
        let data = gossip::decode(&payload).unwrap();
        assert_eq!((data.timestamp, data.bad), (WALL, 0));
        list.extend(data.entries);
    }
    sent
}

#[test]
fn recorded_gossip_decodes_and_encodes() {
    // The ids that Go gave GossipData, Entries and Entry in these recordings.
    let ids = [82, 84, 83];
    for case in list(&vectors("nameserver.json")["gossip"]) {
        let bytes = unhex(case["hex"].as_str().unwrap());
        let data = gossip::decode(&bytes).unwrap();
        assert_eq!(data.timestamp.0, case["timestamp"].as_i64().unwrap());
        assert_eq!(data.entries, entries(&case["entries_after_decode_order"]));
        assert_eq!((data.bad, data.first_bad), (0, None));
        assert_eq!(
            gossip::encode_with_ids(ids, data.timestamp, data.entries),
            bytes
        );
    }
}

#[test]
fn recorded_receptions_come_out_the_same() {
    for case in list(&vectors("nameserver.json")["receive"]) {
        for broadcast in [false, true] {
            receive_case(case, broadcast);
        }
    }
}

fn receive_case(case: &Value, broadcast: bool) {
    let name = case["name"].as_str().unwrap();
    let us = case["ourself"].as_str().unwrap().parse().unwrap();
    let domain = "weave.local.".parse().unwrap();
    let mut names = Names::new(NamesConfig { us, domain }, Time::ZERO);
    let peers: Vec<PeerName> = list(&case["known_peers"])
        .iter()
        .map(|peer| peer.as_str().unwrap().parse().unwrap())
        .collect();
    let wall = UnixSecs(case["now"].as_i64().unwrap());
    names.handle_peers(Time::ZERO, wall, &peers);
    for entry in entries(&case["mine"]) {
        names.table.set(Time::ZERO, &entry);
    }

    let timestamp = UnixSecs(case["incoming_timestamp"].as_i64().unwrap());
    let incoming = gossip::encode_one(timestamp, entries(&case["incoming"]));
    let from = peer(2);
    if broadcast {
        names
            .handle_broadcast(Time::ZERO, wall, from, &incoming)
            .unwrap();
    } else {
        names
            .handle_gossip(Time::ZERO, wall, from, &incoming)
            .unwrap();
    }
    let sent = sent(&mut names);

    // A clock that is off closes the connection there and is an event here.
    if case.get("error").is_some() {
        assert_eq!(all(&names), entries(&case["incoming"]), "{name}");
        assert_eq!(sent.events.len(), usize::from(!broadcast), "{name}");
        return;
    }
    assert_eq!(all(&names), entries(&case["after"]), "{name}");
    assert_eq!(
        sent.broadcast,
        entries(&case["broadcast_of_overrides"]),
        "{name}"
    );
    assert_eq!(sent.events, [], "{name}");
    if broadcast {
        assert_eq!(
            sent.relay,
            entries(&case["relayed_for_broadcast"]),
            "{name}"
        );
    } else {
        assert_eq!(sent.gossip, entries(&case["new"]), "{name}");
    }
    for (hostname, addresses) in case["lookup"].as_object().unwrap() {
        let expected: Vec<Ipv4Addr> = list(addresses)
            .iter()
            .map(|addr| addr.as_str().unwrap().parse().unwrap())
            .collect();
        let mut found = names.table.index().lookup(hostname).to_vec();
        found.sort_by_key(|addr| expected.iter().position(|e| e == addr));
        assert_eq!(found, expected, "{name}: {hostname}");
    }
}

#[test]
fn a_name_is_added_deleted_and_revived() {
    let mut names = names(2);
    let addr = Ipv4Addr::new(10, 32, 0, 1);
    names
        .add(Time::ZERO, WALL, "c1", "Web.weave.local", addr)
        .unwrap();
    let alive = entry("c1", 1, 1, "Web.weave.local.", (0, 0));
    let outputs = outputs(&mut names);
    let [Output::Broadcast { payload }, Output::Index(index)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    assert_eq!(
        gossip::decode(payload).unwrap().entries,
        slice::from_ref(&alive)
    );
    assert_eq!(index.lookup("wEB.weave.local."), [addr]);

    // Another spelling is the same name.
    names
        .add(Time::ZERO, WALL, "c1", "web.weave.local.", addr)
        .unwrap();
    assert_eq!(sent(&mut names).broadcast, [alive]);
    let filter = Filter {
        hostname: Some("WEB.weave.local"),
        ..Filter::default()
    };
    assert_eq!(names.delete(Time::ZERO, WALL, &filter).len(), 1);
    assert_eq!(names.delete(Time::ZERO, WALL, &filter).len(), 0);
    let dead = entry("c1", 1, 1, "Web.weave.local.", (1, WALL.0));
    assert_eq!(sent(&mut names).broadcast, [dead]);
    assert_eq!(names.own_alive().count(), 0);

    names
        .add(Time::ZERO, WALL, "c1", "web.weave.local", addr)
        .unwrap();
    let revived = entry("c1", 1, 1, "Web.weave.local.", (2, 0));
    assert_eq!(sent(&mut names).broadcast, slice::from_ref(&revived));
    assert_eq!(all(&names), [revived]);
}

#[test]
fn bad_names_are_refused_at_the_door() {
    let mut names = names(2);
    let mut add = |container, hostname| {
        let addr = Ipv4Addr::new(10, 32, 0, 1);
        names.add(Time::ZERO, WALL, container, hostname, addr)
    };
    assert_eq!(add("c", "a.example.com"), Err(AddError::OutsideDomain));
    assert_eq!(add("c", "a..weave.local"), Err(BadEntry::Hostname.into()));
    assert_eq!(add("c\n", "a.weave.local"), Err(BadEntry::Container.into()));
    let long = "x".repeat(256);
    assert_eq!(add(&long, "a.weave.local"), Err(BadEntry::Container.into()));
    assert_eq!(outputs(&mut names), []);
}

#[test]
fn deletion_matches_what_is_given_and_only_ours() {
    let mut names = names(2);
    let theirs = entry("c1", 2, 9, "a.weave.local.", (0, 0));
    names.table.set(Time::ZERO, &theirs);
    for (container, hostname, last) in [
        ("c1", "a.weave.local.", 1),
        ("c1", "b.weave.local.", 2),
        ("c2", "a.weave.local.", 3),
        ("c2", "b.weave.local.", 1),
    ] {
        let addr = Ipv4Addr::new(10, 32, 0, last);
        names
            .add(Time::ZERO, WALL, container, hostname, addr)
            .unwrap();
    }
    let alive = |names: &Names| -> Vec<String> {
        let own = names.entries().filter(|(key, _)| key.origin == peer(1));
        own.filter(|(_, state)| state.is_alive())
            .map(|(key, _)| format!("{} {} {}", key.container, key.hostname, key.addr))
            .collect()
    };
    let filter = Filter {
        addr: Some(Ipv4Addr::new(10, 32, 0, 1)),
        container: Some("c2"),
        hostname: None,
    };
    assert_eq!(names.delete(Time::ZERO, WALL, &filter).len(), 1);
    assert_eq!(
        alive(&names),
        [
            "c1 a.weave.local. 10.32.0.1",
            "c2 a.weave.local. 10.32.0.3",
            "c1 b.weave.local. 10.32.0.2"
        ]
    );
    assert_eq!(names.delete_container(Time::ZERO, WALL, "c1").len(), 2);
    assert_eq!(alive(&names), ["c2 a.weave.local. 10.32.0.3"]);
    assert_eq!(names.delete(Time::ZERO, WALL, &Filter::default()).len(), 1);
    assert_eq!(names.table().get(&theirs.key), Some(theirs.state));
}

#[test]
fn leases_are_found_by_their_identity() {
    let mut names = names(1);
    let addr = Ipv4Addr::new(10, 32, 0, 1);
    names
        .add_lease(Time::ZERO, WALL, "Acme/db.0", addr)
        .unwrap();
    let index = names.table.index();
    assert_eq!(index.lookup("acme-db.0.lease.weave.local."), [addr]);
    assert_eq!(names.delete_lease(Time::ZERO, WALL, "Acme/db.0"), 1);
    assert!(names.table.index().is_empty());
    let error = names.add_lease(Time::ZERO, WALL, "", addr);
    assert_eq!(error, Err(BadEntry::Hostname.into()));
}

#[test]
fn names_of_peers_known_later_are_not_lost() {
    let mut names = names(2);
    let early = [
        entry("c", 3, 1, "a.weave.local.", (0, 0)),
        entry("c", 4, 2, "b.weave.local.", (0, 0)),
    ];
    let message = payload(&early);
    names
        .handle_broadcast(Time::ZERO, WALL, peer(2), &message)
        .unwrap();
    assert_eq!((sent(&mut names), names.held()), (Sent::default(), 2));

    let newer = entry("c", 3, 1, "a.weave.local.", (2, 0));
    let message = payload(slice::from_ref(&newer));
    names
        .handle_gossip(Time::ZERO, WALL, peer(2), &message)
        .unwrap();
    names.handle_peers(Time::ZERO, WALL, &[1, 2, 3].map(peer));
    assert_eq!(sent(&mut names).gossip, slice::from_ref(&newer));
    assert_eq!((all(&names), names.held()), (vec![newer], 1));

    // What nobody comes for is dropped in time.
    let due = names.poll_timeout().unwrap();
    assert_eq!(due, Time::ZERO + held::HELD_FOR);
    names.handle_timeout(due);
    assert_eq!(names.held(), 0);
}

#[test]
fn names_of_vanished_peers_vanish() {
    let mut names = names(3);
    let message = payload(&[
        entry("c", 2, 1, "a.weave.local.", (0, 0)),
        entry("c", 3, 2, "a.weave.local.", (0, 0)),
    ]);
    names
        .handle_gossip(Time::ZERO, WALL, peer(2), &message)
        .unwrap();
    names
        .add(
            Time::ZERO,
            WALL,
            "c",
            "a.weave.local",
            [10, 32, 0, 3].into(),
        )
        .unwrap();
    let lookup = |names: &mut Names| names.table.index().lookup("a.weave.local.").len();
    assert_eq!(lookup(&mut names), 3);
    names.peers_gone(&[peer(2)]);
    assert_eq!(lookup(&mut names), 2);
    names.handle_peers(Time::ZERO, WALL, &[peer(1)]);
    assert_eq!(lookup(&mut names), 1);
    names.handle_peers(Time::ZERO, WALL, &[]);
    assert_eq!(lookup(&mut names), 1, "we never vanish ourselves");
    assert_eq!(names.table().len(), 1);
}

#[test]
fn dead_entries_are_forgotten_in_time_and_not_taken_back() {
    let mut names = names(2);
    let dead = entry("c", 2, 1, "a.weave.local.", (1, WALL.0 - 60));
    let message = payload(slice::from_ref(&dead));
    let minute = Duration::from_secs(60);
    names
        .handle_gossip(Time::ZERO + minute, WALL, peer(2), &message)
        .unwrap();
    assert_eq!(all(&names), [dead]);

    names.handle_timeout(Time::ZERO + TOMBSTONE_KEPT);
    assert_eq!(names.table().len(), 1, "known for 29 minutes");
    names.handle_timeout(Time::ZERO + TOMBSTONE_KEPT + TOMBSTONE_KEPT);
    assert_eq!(names.table().len(), 0);

    let later = Time::ZERO + TOMBSTONE_KEPT * 2;
    let wall = UnixSecs(WALL.0 + 3600);
    names.handle_gossip(later, wall, peer(2), &message).unwrap();
    assert_eq!((names.table().len(), names.counters().stale), (0, 1));
    let far = payload(&[entry(
        "c",
        2,
        1,
        "a.weave.local.",
        (1, wall.0 + SKEW_SECS_MAX + 1),
    )]);
    names.handle_gossip(later, wall, peer(2), &far).unwrap();
    assert_eq!((names.table().len(), names.counters().stale), (0, 2));
}

#[test]
fn a_death_by_any_clock_ends_a_life() {
    for tombstone in [1, WALL.0 - 1_000_000, WALL.0 + 1_000_000, i64::MAX] {
        let mut names = names(2);
        let alive = payload(&[entry("c", 2, 1, "a.weave.local.", (0, 0))]);
        let dead = entry("c", 2, 1, "a.weave.local.", (1, tombstone));
        let message = payload(slice::from_ref(&dead));
        names
            .handle_gossip(Time::ZERO, WALL, peer(2), &alive)
            .unwrap();
        names
            .handle_gossip(Time::ZERO, WALL, peer(2), &message)
            .unwrap();
        assert_eq!(all(&names), slice::from_ref(&dead));
        assert!(names.table.index().is_empty());
        names.handle_timeout(Time::ZERO + TOMBSTONE_KEPT);
        names.handle_timeout(Time::ZERO + TOMBSTONE_KEPT * 2);
        assert_eq!(all(&names), []);
    }
}

#[test]
fn stale_deaths_are_not_part_of_the_state() {
    let mut names = names(2);
    let alive = entry("c", 2, 1, "a.weave.local.", (0, 0));
    names.table.set(Time::ZERO, &alive);
    names.table.set(
        Time::ZERO,
        &entry("c", 2, 2, "b.weave.local.", (1, WALL.0 - 1801)),
    );
    names.table.set(
        Time::ZERO,
        &entry("c", 2, 3, "c.weave.local.", (1, WALL.0 - 1800)),
    );
    let state = gossip::decode(&names.state(WALL)).unwrap();
    let fresh = entry("c", 2, 3, "c.weave.local.", (1, WALL.0 - 1800));
    assert_eq!(state.entries, [alive, fresh]);
}

#[test]
fn two_spellings_are_never_sent_together() {
    let mut names = names(2);
    let (upper, lower) = ("A.weave.local.", "a.weave.local.");
    let dead = entry("c", 2, 1, upper, (3, WALL.0));
    let alive = entry("c", 2, 1, lower, (0, 0));
    let mut both = BTreeMap::new();
    for (entry, broadcast) in [
        (&dead, false),
        (&alive, true),
        (&dead, true),
        (&alive, false),
    ] {
        let message = payload(slice::from_ref(entry));
        if broadcast {
            names
                .handle_broadcast(Time::ZERO, WALL, peer(2), &message)
                .unwrap();
        } else {
            names
                .handle_gossip(Time::ZERO, WALL, peer(2), &message)
                .unwrap();
        }
        *both.entry(names.table().len()).or_insert(0) += 1;
    }
    assert_eq!(
        both,
        BTreeMap::from([(1, 1), (2, 3)]),
        "hearing them again adds nothing"
    );
    assert_eq!(
        names.table.index().lookup(upper),
        [Ipv4Addr::new(10, 32, 0, 1)]
    );
    let state = gossip::decode(&names.state(WALL)).unwrap();
    assert_eq!(state.entries, [alive]);
}

#[test]
fn repetitions_in_a_message_count_once() {
    // The same message twice over, made by hand: `encode` never repeats itself.
    let one = entry("c", 2, 1, "a.weave.local.", (0, 0));
    let two = entry("c", 2, 1, "b.weave.local.", (4, 0));
    let mut bytes = payload(&[one.clone(), two.clone()]);
    let at = bytes.len() - 4 - "b.weave.local.".len();
    let at = at + bytes[at..].iter().position(|b| *b == b'b').unwrap();
    bytes[at] = b'a';
    let data = gossip::decode(&bytes).unwrap();
    let newest = entry("c", 2, 1, "a.weave.local.", (4, 0));
    assert_eq!(data.entries, [newest]);
}

#[test]
fn a_bad_entry_costs_itself() {
    use crate::gob::{Encoder, SliceType, StructType, Type};
    static DATA: StructType = StructType {
        name: "",
        fields: &[("Extra", Type::String), ("Entries", Type::Slice(&LIST))],
    };
    static LIST: SliceType = SliceType {
        name: "",
        elem: Type::Struct(&ENTRY),
    };
    static ENTRY: StructType = StructType {
        name: "",
        fields: &[
            ("Tombstone", Type::Int),
            ("Hostname", Type::String),
            ("Addr", Type::Uint),
            ("Origin", Type::Uint),
            ("Version", Type::Int),
            ("ContainerID", Type::String),
        ],
    };
    let good = (0i64, &b"a."[..], 1u64, 2u64, 0i64, &b"c"[..]);
    let rows = [
        good,
        (-1, good.1, 1, 2, 0, good.5),
        (0, &b"a"[..], 1, 2, 0, good.5),
        (0, &b"\xff."[..], 1, 2, 0, good.5),
        (0, good.1, 1 << 32, 2, 0, good.5),
        (0, good.1, 1, 0, 0, good.5),
        (0, good.1, 1, 1 << 48, 0, good.5),
        (0, good.1, 1, 2, -1, good.5),
        (0, good.1, 1, 2, 1 << 31, good.5),
        (0, good.1, 1, 2, 0, &b"\xff"[..]),
        (0, good.1, 1, 2, 0, &[b'x'; 300][..]),
    ];
    let mut encoder = Encoder::new();
    encoder.value(Type::Struct(&DATA), |w| {
        w.structure(|data| {
            data.string(0, b"skipped");
            data.slice(1, rows.iter(), |w, row| {
                w.structure(|entry| {
                    entry.int(0, row.0);
                    entry.string(1, row.1);
                    entry.uint(2, row.2);
                    entry.uint(3, row.3);
                    entry.int(4, row.4);
                    entry.string(5, row.5);
                });
            });
        });
    });
    let mut names = names(2);
    let message = encoder.finish();
    for _ in 0..2 {
        names
            .handle_gossip(Time::ZERO, WALL, peer(2), &message)
            .unwrap();
    }
    assert_eq!(names.table().len(), 1);
    assert_eq!(names.counters().bad, 20);
    let events: Vec<Output> = outputs(&mut names)
        .into_iter()
        .filter(|output| matches!(output, Output::Event(Event::BadEntries { .. })))
        .collect();
    let told = Event::BadEntries {
        from: peer(2),
        count: 10,
        reason: BadEntry::Tombstone,
    };
    assert_eq!(events, [Output::Event(told)], "told once");
}

#[test]
fn nobody_can_fill_the_table() {
    let mut names = names(5);
    names.table = Table::new(peer(1)).with_limits(100, 40);
    let mut take = |origin: u64, count: u8| {
        let entry = |i| entry("c", origin, i, &format!("n{i}.weave.local."), (0, 0));
        let message = payload(&(0..count).map(entry).collect::<Vec<_>>());
        names
            .handle_gossip(Time::ZERO, WALL, peer(2), &message)
            .unwrap();
        let held = |origin| names.table().of(peer(origin)).count();
        ([2, 3, 4, 5].map(held), sent(&mut names).events)
    };
    let full = |origin| {
        let origin = peer(origin);
        vec![Event::Full { origin }]
    };
    assert_eq!(take(2, 40), ([40, 0, 0, 0], vec![]));
    assert_eq!(
        take(2, 50),
        ([40, 0, 0, 0], full(2)),
        "as many as one peer may have"
    );
    assert_eq!(take(2, 50), ([40, 0, 0, 0], vec![]), "told once");
    assert_eq!(take(3, 40), ([40, 40, 0, 0], vec![]));
    // With the table full, small peers displace large ones until all have the same.
    assert_eq!(take(4, 30), ([35, 35, 30, 0], vec![]));
    assert_eq!(take(5, 10), ([30, 30, 30, 10], vec![]));
    let (held, _) = take(5, 40);
    assert_eq!(held.iter().sum::<usize>(), 100);
    assert!(held.iter().all(|held| (24..=26).contains(held)), "{held:?}");

    let addr = Ipv4Addr::new(10, 32, 0, 1);
    for i in 0..40 {
        names
            .add(Time::ZERO, WALL, "c", &format!("{i}.weave.local"), addr)
            .unwrap();
    }
    assert_eq!(names.table().len(), 140, "our own names always find room");
    let result = names.add(Time::ZERO, WALL, "c", "more.weave.local", addr);
    assert_eq!(result, Err(AddError::Full));
}

#[test]
fn a_long_state_goes_out_in_parts() {
    let mut names = names(2);
    let container = "x".repeat(200);
    let mut expected = Vec::new();
    for i in 0..40_000u32 {
        let hostname = format!("{i:08}.weave.local.");
        let origin = peer(u64::from(2 + i % 2));
        let key = Key::new(&hostname, origin, &container, Ipv4Addr::from(i)).unwrap();
        let entry = Entry {
            key: Arc::new(key),
            state: State::default(),
        };
        names.table.set(Time::ZERO, &entry);
        expected.push(entry);
    }
    let (first, second) = (names.state(WALL), names.state(WALL));
    assert!(first.len() < gossip::PAYLOAD_BYTES_MAX && second.len() < first.len() + 10);
    let mut heard = gossip::decode(&first).unwrap().entries;
    let first_len = heard.len();
    assert!(first_len > 25_000 && first_len < 40_000);
    let second = gossip::decode(&second).unwrap().entries;
    assert_eq!(
        second.len(),
        first_len,
        "the second part starts over at the end"
    );
    heard.extend(second);
    gossip::normalise(&mut heard);
    assert_eq!(heard, expected);
}

/// One forged deletion with the highest version would spread, and nothing could be above it.
#[test]
fn a_deletion_that_nobody_counted_to_is_not_believed() {
    let addr = Ipv4Addr::new(10, 32, 0, 1);
    let (mut owner, mut other) = (names(2), names(2));
    other.us = peer(2);
    owner
        .add(Time::ZERO, WALL, "c", "a.weave.local", addr)
        .unwrap();
    let said = sent(&mut owner).broadcast;
    other
        .handle_broadcast(Time::ZERO, WALL, peer(1), &payload(&said))
        .unwrap();
    sent(&mut other);
    for version in [entry::VERSION_MAX, entry::VERSION_STEP_MAX + 1] {
        let lie = payload(&[entry("c", 1, 1, "a.weave.local.", (version, 5))]);
        for names in [&mut owner, &mut other] {
            names
                .handle_gossip(Time::ZERO, WALL, peer(2), &lie)
                .unwrap();
            let sent = sent(names);
            let said = [sent.gossip, sent.broadcast, sent.relay].concat();
            assert_eq!(said, [], "it is not passed on");
            assert_eq!(names.table.alive(), 1);
        }
    }
    assert_eq!(other.counters().bad, 2);
}

/// A deletion that others may believe is outdone by the owner, in steps that they follow.
#[test]
fn a_forged_deletion_is_outdone_by_the_owner() {
    let addr = Ipv4Addr::new(10, 32, 0, 1);
    for version in [1, 2, 1000, entry::VERSION_STEP_MAX] {
        let (mut owner, mut other) = (names(2), names(2));
        other.us = peer(2);
        owner
            .add(Time::ZERO, WALL, "c", "a.weave.local", addr)
            .unwrap();
        let said = sent(&mut owner).broadcast;
        let lie = entry("c", 1, 1, "a.weave.local.", (version, WALL.0));
        for entries in [said, vec![lie.clone()]] {
            other
                .handle_gossip(Time::ZERO, WALL, peer(1), &payload(&entries))
                .unwrap();
        }
        assert_eq!(other.table.alive(), 0, "the lie is believed");
        for _ in 0..3 {
            owner
                .handle_gossip(
                    Time::ZERO,
                    WALL,
                    peer(2),
                    &payload(std::slice::from_ref(&lie)),
                )
                .unwrap();
            let outdone = sent(&mut owner).broadcast;
            if !outdone.is_empty() {
                other
                    .handle_broadcast(Time::ZERO, WALL, peer(1), &payload(&outdone))
                    .unwrap();
            }
        }
        assert_eq!(other.table.alive(), 1, "version {version}");
    }
}

#[test]
fn what_is_said_at_once_goes_together() {
    let mut names = names(2);
    for (last, name) in [(1, "a.weave.local."), (2, "b.weave.local.")] {
        let addr = Ipv4Addr::new(10, 32, 0, last);
        names.add(Time::ZERO, WALL, "c", name, addr).unwrap();
    }
    let filter = Filter {
        hostname: Some("a.weave.local"),
        ..Filter::default()
    };
    names.delete(Time::ZERO, WALL, &filter);
    let outputs = outputs(&mut names);
    let [Output::Broadcast { payload }, Output::Index(_)] = &outputs[..] else {
        panic!("{outputs:?}");
    };
    let expected = [
        entry("c", 1, 1, "a.weave.local.", (1, WALL.0)),
        entry("c", 1, 2, "b.weave.local.", (0, 0)),
    ];
    assert_eq!(gossip::decode(payload).unwrap().entries, expected);
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let state = (0u32..3, prop_oneof![Just(0i64), WALL.0 - 9..WALL.0 + 9]);
    let name = prop_oneof!["[aAb]", "[a-z]{1,9}"];
    let parts = ("[cd]", 1u64..5, 0u8..3, name, state);
    parts.prop_map(|(container, origin, last, name, state)| {
        entry(
            &container,
            origin,
            last,
            &format!("{name}.weave.local."),
            state,
        )
    })
}

fn merged(order: &[Entry]) -> Vec<Entry> {
    let mut names = names(4);
    for entry in order {
        // As a bystander, who corrects nothing.
        names.table.merge(Time::ZERO, WALL, entry);
    }
    all(&names)
}

proptest! {
    #[test]
    fn merging_forgets_order_and_repetition(
        (entries, shuffled) in prop::collection::vec(any_entry(), 0..40).prop_flat_map(|entries| {
            let twice: Vec<Entry> = entries.iter().chain(&entries).cloned().collect();
            (Just(entries), Just(twice).prop_shuffle())
        }),
    ) {
        prop_assert_eq!(merged(&entries), merged(&shuffled));
    }

    #[test]
    fn merging_forgets_grouping(a in prop::collection::vec(any_entry(), 0..20),
                                b in prop::collection::vec(any_entry(), 0..20),
                                c in prop::collection::vec(any_entry(), 0..20)) {
        let first = merged(&[merged(&[a.clone(), b.clone()].concat()), c.clone()].concat());
        let second = merged(&[a, merged(&[b, c].concat())].concat());
        prop_assert_eq!(first, second);
    }

    #[test]
    fn the_index_shows_the_living(
        steps in prop::collection::vec((any_entry(), any::<bool>()), 0..60),
    ) {
        let mut names = names(4);
        for (entry, look) in &steps {
            names.table.set(Time::ZERO, entry);
            if *look {
                names.table.index();
            }
        }
        names.peers_gone(&[peer(4)]);
        let mut by_name = BTreeMap::<String, Vec<Ipv4Addr>>::new();
        let mut by_addr = BTreeMap::new();
        for (key, _) in names.entries().filter(|(_, state)| state.is_alive()) {
            by_name.entry(key.hostname.to_lowercase()).or_default().push(key.addr);
            by_addr.entry(key.addr).or_insert_with(|| domain::wire_as_spelled(&key.hostname));
        }
        let mut fresh = Index::default();
        for (name, addresses) in &mut by_name {
            addresses.sort();
            addresses.dedup();
            let mut wire = Vec::new();
            domain::push_wire(name, &mut wire);
            fresh.set_addresses(&wire, addresses);
        }
        for (addr, name) in &by_addr {
            fresh.set_name_of(*addr, Some(name));
        }
        prop_assert_eq!(names.table.index(), &fresh);
    }

    #[test]
    fn gossip_comes_back(entries in prop::collection::vec(any_entry(), 0..40), stamp: i64) {
        let bytes = gossip::encode_one(UnixSecs(stamp), entries.clone());
        let data = gossip::decode(&bytes).unwrap();
        prop_assert_eq!(data.timestamp, UnixSecs(stamp));
        prop_assert_eq!(data.bad, 0);
        let mut expected = entries;
        gossip::normalise(&mut expected);
        entry::one_spelling(&mut expected);
        prop_assert_eq!(data.entries, expected);
    }

    #[test]
    fn hostile_gossip_is_survived(
        entries in prop::collection::vec(any_entry(), 0..10),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = payload(&entries);
        for (at, with) in flips {
            let at = at.index(bytes.len());
            bytes[at] ^= with;
        }
        crate::fuzzing::fuzz_names_gossip(&bytes);
        crate::fuzzing::fuzz_names_gossip(&bytes[..cut.index(bytes.len())]);
    }

    #[test]
    fn random_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzzing::fuzz_names_gossip(&bytes);
        crate::fuzzing::fuzz_dns_message(&bytes);
    }
}
