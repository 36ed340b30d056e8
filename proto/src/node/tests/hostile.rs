use proptest::prelude::*;

use super::*;

/// Returns a message of any kind, well formed, broken or nonsense.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let bytes = || proptest::collection::vec(any::<u8>(), 0..60);
    let names = || prop_oneof![0u64..8, Just(US), Just(u64::MAX >> 16), any::<u64>()];
    let channels = prop_oneof![
        Just("topology".to_owned()),
        Just("IPallocation".to_owned()),
        Just("unknown".to_owned()),
        "[a-z]{0,300}",
    ];
    let peers = proptest::collection::vec(
        (
            0u64..8,
            0u64..3,
            0u64..9,
            proptest::collection::vec(0u64..8, 0..4),
        ),
        0..4,
    );
    let payload = prop_oneof![
        bytes(),
        peers.prop_map(|peers| {
            let peers: Vec<_> = peers
                .iter()
                .map(|(n, u, v, c)| (*n, *u, *v, &c[..]))
                .collect();
            update(&peers)
        }),
    ];
    let gossip =
        (4u8..7, channels, names(), names(), payload).prop_map(|(tag, channel, a, b, payload)| {
            let clip = |n: u64| name(n & (u64::MAX >> 16));
            let (channel, payload) = (&channel[..], &payload[..]);
            match tag {
                4 => Message::Gossip {
                    channel,
                    sender: clip(a),
                    payload,
                },
                5 => Message::Unicast {
                    channel,
                    source: clip(a),
                    dest: clip(b),
                    payload,
                },
                _ => Message::Broadcast {
                    channel,
                    source: clip(a),
                    payload,
                },
            }
            .encode()
        });
    let control = (0u8..10, bytes()).prop_map(|(tag, body)| [&[tag][..], &body].concat());
    let short = (any::<u8>(), 0u8..3, 0u8..5, any::<u16>(), 0usize..6).prop_map(
        |(tag, index, control, mtu, len)| {
            let [high, low] = mtu.to_be_bytes();
            [tag % 9, index, control, high, low][..len.min(5)].to_vec()
        },
    );
    prop_oneof![
        4 => gossip.clone(),
        2 => control,
        2 => short,
        1 => bytes(),
        // A real message with one bit changed, or its end cut off.
        2 => (gossip.clone(), any::<proptest::sample::Index>(), 0u8..8).prop_map(
            |(mut message, at, bit)| {
                let at = at.index(message.len());
                message[at] ^= 1 << bit;
                message
            }
        ),
        1 => (gossip, any::<proptest::sample::Index>()).prop_map(|(mut message, at)| {
            message.truncate(at.index(message.len()));
            message
        }),
    ]
}

#[derive(Clone, Debug)]
enum Step {
    Message(Vec<u8>),
    Raw(Vec<u8>),
    Special(Special),
    TooBig(usize),
    Wait(u64),
    Again,
}

fn step() -> impl Strategy<Value = Step> {
    let special = prop_oneof![
        any::<u64>().prop_map(|uid| Special::Heartbeat(ConnUid(uid))),
        Just(Special::FragmentationTest),
        any::<u16>().prop_map(|mtu| Special::MtuTest { mtu }),
    ];
    prop_oneof![
        10 => message().prop_map(Step::Message),
        1 => proptest::collection::vec(any::<u8>(), 0..40).prop_map(Step::Raw),
        1 => special.prop_map(Step::Special),
        1 => any::<usize>().prop_map(Step::TooBig),
        2 => (0u64..20_000).prop_map(Step::Wait),
        1 => Just(Step::Again),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn a_bad_peer_costs_itself_only(
        version in 1u8..3,
        overlays: bool,
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        let mut rig = Rig::new(config());
        let good = rig.member(6);
        let mut guise = Guise::new(5);
        guise.max_version = version;
        guise.features.overlays = overlays.then(|| vec!["sleeve".to_owned()]);
        let mut bad = rig.accept(&guise);
        let mut last_alive = rig.now;
        for step in steps {
            if !rig.is_open(bad) {
                guise.features.conn_id += 1;
                bad = rig.accept(&guise);
            }
            match step {
                Step::Message(message) => {
                    if rig.remotes[&bad].introduced.is_some() {
                        rig.send_raw(bad, &message);
                    }
                }
                Step::Raw(bytes) => rig.node.handle_bytes(rig.now, bad, &bytes),
                Step::Special(special) => {
                    let from = "10.0.0.5:6783".parse().unwrap();
                    for link in rig.node.core.connections.links.keys().copied().collect::<Vec<_>>() {
                        rig.node.handle_special(rig.now, link, from, special);
                    }
                }
                Step::TooBig(mtu) => {
                    let link = rig.node.core.connections.links.keys().next_back().copied();
                    link.into_iter().for_each(|link| rig.node.handle_too_big(rig.now, link, mtu));
                }
                Step::Wait(ms) => rig.advance(Duration::from_millis(ms)),
                Step::Again => {
                    guise.features.conn_id += 1;
                    rig.accept(&guise);
                }
            }
            rig.work();
            if rig.now.since(last_alive) < Duration::from_secs(50) {
                prop_assert!(rig.is_open(good), "{:?}", rig.events());
            }
            if rig.is_open(good) {
                rig.send(good, &Message::Heartbeat);
                let view = rig.node.connections().find(|view| view.conn == good);
                let uid = view.map(|view| (view.uid, view.forwarders[0].link));
                if let Some((uid, link)) = uid {
                    let from = "10.0.0.6:6783".parse().unwrap();
                    rig.node.handle_special(rig.now, link, from, Special::Heartbeat(uid));
                    rig.work();
                }
                last_alive = rig.now;
            } else {
                break;
            }
            check(&rig);
        }
    }
}

/// Recorded messages of real routers, whole and with changes, as the fuzzer would find them.
#[test]
fn changed_recordings_are_survived() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/gossip.json");
    let vectors: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut rng = fastrand::Rng::with_seed(5);
    for case in vectors.as_array().unwrap() {
        let hex = case["message"].as_str().unwrap();
        let message: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap())
            .collect();
        for _ in 0..20 {
            let mut data = vec![rng.u8(..2)];
            for _ in 0..rng.usize(1..8) {
                let mut message = message[..message.len().min(255)].to_vec();
                if rng.bool() {
                    message.truncate(rng.usize(..=message.len()));
                }
                for _ in 0..rng.usize(..4).min(message.len()) {
                    let at = rng.usize(..message.len());
                    message[at] = rng.u8(..);
                }
                data.extend([0, message.len() as u8]);
                data.extend(message);
                data.extend([rng.u8(3..8), rng.u8(..), rng.u8(..)]);
            }
            crate::fuzzing::fuzz_node(&data);
        }
    }
}

proptest! {
    #[test]
    fn any_steps_are_survived(data in proptest::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzzing::fuzz_node(&data);
    }
}

/// What must hold at any time.
fn check(rig: &Rig) {
    let node = &rig.node;
    assert!(node.topology().peer(name(US)).is_some());
    let listed = &node.topology().peer(name(US)).unwrap().connections;
    let mut members: Vec<PeerName> = node.connections().map(|view| view.peer.name).collect();
    members.sort();
    assert!(listed.iter().map(|c| c.remote).eq(members.iter().copied()));
    assert!(node.core.connections.members.keys().copied().eq(members));
    let links: usize = node.connections().map(|view| view.forwarders.len()).sum();
    assert!(node.core.connections.links.len() <= links);
    assert!(node.core.sink.outputs.is_empty() && node.core.connections.touched.is_empty());
    for conn in rig.remotes.keys() {
        let open = node.core.connections.conns.contains_key(conn);
        assert_eq!(open, rig.is_open(*conn));
    }
}

#[test]
fn every_message_before_the_introduction_ends_the_connection() {
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        b"weave\x03\x04",
        b"weave\x02\x00",
        b"weave\x01\x02\x02",
        b"weave\x01\x02\x00\xff\xff\xff\xff",
        b"weave\x01\x02\x00\x00\x00\x00\x02\x07\x00",
        b"weave\x01\x01\xff",
        &[0; 4096],
    ] {
        let mut rig = Rig::new(config());
        let secret = rig.secret();
        let conn = rig.node.handle_accepted(rig.now, address(1), secret);
        let mut remote = Rig::remote(&Guise::new(1), true);
        remote.wire.poll_transmit();
        rig.remotes.insert(conn, remote);
        rig.node.handle_bytes(rig.now, conn, bytes);
        rig.work();
        assert!(!rig.is_open(conn), "{bytes:?}");
        assert_eq!(rig.node.topology().peers().len(), 1);
        let events = rig.events();
        assert!(events[0].contains("refused"), "{events:?}");
    }
}

#[test]
fn controls_that_end_the_original_are_ignored_and_told_once() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    for bad in [
        &[7][..],
        &[7, 0],
        &[7, 1, 1],
        &[7, 255, 3, 1, 2],
        &[7, 0, 3],
        &[7, 0, 3, 9],
        &[7, 0, 77],
        &[1],
        &[2, 0],
        &[3, 0, 0],
        &[8],
        &[255, 1, 2, 3],
        &[],
    ] {
        rig.send_raw(conn, bad);
        assert!(rig.is_open(conn), "{bad:?}");
    }
    let told = rig
        .events()
        .iter()
        .filter(|e| e.contains("ignored"))
        .count();
    assert_eq!(told, 1);
    assert_eq!(rig.node.counters().messages_ignored, 12);
}

#[test]
fn nicknames_cannot_spoil_the_log() {
    let mut rig = Rig::new(config());
    let mut guise = Guise::new(1);
    guise.features.nickname = format!("evil\n\x1b[31m{}", "x".repeat(1000));
    rig.accept(&guise);
    for event in rig.events() {
        assert!(
            !event.contains(['\n', '\x1b']) && event.len() < 300,
            "{event}"
        );
    }
}

#[test]
fn calls_for_what_is_gone_change_nothing() {
    let mut rig = Rig::new(config());
    let (conn, link) = (ConnId(77), LinkId(77));
    let from = "10.0.0.1:1".parse().unwrap();
    rig.node.handle_bytes(rig.now, conn, b"weave");
    rig.node.handle_sent(rig.now, conn, 5);
    rig.node.handle_closed(rig.now, conn, None);
    rig.node.handle_dial_failed(rig.now, conn, "no");
    rig.node
        .handle_special(rig.now, link, from, Special::FragmentationTest);
    rig.node.handle_too_big(rig.now, link, 0);
    rig.node.handle_state(rig.now, "IPallocation", conn, None);
    rig.node.handle_state(rig.now, "what", conn, Some(b"x"));
    rig.node.close(rig.now, conn, "no");
    rig.node.handle_timeout(rig.now);
    rig.outputs.clear();
    rig.work();
    assert!(rig.outputs.is_empty(), "{:?}", rig.outputs);
    let secret = rig.secret();
    rig.node.handle_dialled(rig.now, conn, address(1), secret);
    assert!(matches!(
        rig.node.poll_output(),
        Some(Output::Close { conn: ConnId(77) })
    ));
}
