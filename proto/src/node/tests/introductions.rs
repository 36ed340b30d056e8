use super::*;
use crate::connector::{Target, TargetState};

fn target(n: u64) -> Target {
    let address = address(n);
    Target {
        text: address.to_string(),
        ip: address.ip(),
        port: Some(address.port()),
    }
}

#[test]
fn a_new_peer_is_told_everything_and_announced() {
    let mut rig = Rig::new(config());
    let first = rig.member(1);
    assert_eq!(rig.topology_received(first), [[name(1), name(US)]]);
    assert_eq!(rig.node.topology().peer(name(US)).unwrap().version, 1);
    let second = rig.member(2);
    assert_eq!(
        rig.topology_received(second),
        [[name(1), name(2), name(US)]]
    );
    rig.advance(Duration::from_millis(100));
    let news = rig.topology_received(first);
    assert!(news.iter().flatten().any(|peer| *peer == name(2)));
    assert!(news.iter().flatten().any(|peer| *peer == name(US)));
}

#[test]
fn state_of_each_channel_is_asked_for_once_and_sent() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    let asked = rig
        .outputs
        .iter()
        .filter(|o| matches!(o, Output::NeedState { .. }));
    assert_eq!(asked.count(), 1);
    let state = Message::Gossip {
        channel: "IPallocation",
        sender: name(US),
        payload: b"state",
    };
    assert!(rig.received(conn).contains(&state.encode()));
}

#[test]
fn frames_are_encrypted_unless_both_ends_trust() {
    for (ours, theirs, version) in [
        (false, false, 2),
        (false, true, 2),
        (true, false, 2),
        (true, true, 2),
        (true, true, 1),
    ] {
        let mut rig = Rig::new(NodeConfig {
            password: Some(b"secret".as_slice().into()),
            trusted_subnets: ours
                .then(|| "10.0.0.0/8".parse().unwrap())
                .into_iter()
                .collect(),
            ..config()
        });
        let mut guise = Guise::new(1);
        guise.password = Some("secret");
        guise.features.trusted = theirs;
        guise.max_version = version;
        let conn = rig.accept(&guise);
        if version == 1 {
            rig.send_raw(conn, &[0]);
        }
        let introduced = rig.remotes[&conn].introduced.clone().unwrap();
        assert_eq!(introduced.remote.trusted, ours && version == 2);
        let info = rig.outputs.iter().find_map(|output| match output {
            Output::LinkAdded(info) => Some(info.clone()),
            _ => None,
        });
        let info = info.unwrap();
        let trusted = ours && theirs && version == 2;
        assert_eq!(info.key.is_none(), trusted);
        if let Some(key) = &info.key {
            assert_eq!(key.as_bytes(), introduced.session_key.unwrap().as_bytes());
        }
        assert_eq!(info.uid, ConnUid(1 ^ introduced.remote.conn_id));
        let view = rig.node.connections().next().unwrap();
        assert!(view.encrypted);
        assert_eq!((view.trusted, view.version), (trusted, version));
    }
}

#[test]
fn wrong_and_missing_passwords_are_told_apart() {
    for (ours, theirs, version, expected) in [
        (Some("a"), Some("b"), 2, "the passwords differ"),
        (Some("a"), None, 2, "remote uses no password, but we do"),
        (None, Some("b"), 2, "remote uses a password, but we do not"),
        (Some("a"), None, 1, "remote uses no password, but we do"),
        (None, Some("b"), 1, "remote uses a password, but we do not"),
    ] {
        let mut rig = Rig::new(NodeConfig {
            password: ours.map(|password| Arc::from(password.as_bytes())),
            ..config()
        });
        let mut guise = Guise::new(1);
        (guise.password, guise.max_version) = (theirs, version);
        let conn = rig.accept(&guise);
        assert!(!rig.is_open(conn));
        let events = rig.events();
        assert!(events[0].contains(expected), "{events:?}");
        assert!(events[0].contains("password"), "says what to do");
        assert_eq!(rig.node.counters().terminations, 1);
    }
}

#[test]
fn a_name_collision_is_never_dialled_again() {
    for (uid, text) in [(8, "collide"), (7, "cannot connect to ourself")] {
        let mut rig = Rig::new(config());
        rig.node.connect(rig.now, [target(1)], false).unwrap();
        rig.work();
        let mut guise = Guise::new(US);
        guise.features.uid = PeerUid(uid);
        let conn = rig.answer_dial(&guise);
        assert!(!rig.is_open(conn));
        assert!(rig.events()[0].contains(text));
        rig.advance(Duration::from_secs(3600));
        assert!(rig.dials.is_empty());
        let view = rig.node.targets().next().unwrap();
        assert_eq!((view.state, view.next_try), (TargetState::Failed, None));
        // Until the user names it again.
        rig.node.connect(rig.now, [target(1)], false).unwrap();
        rig.work();
        assert_eq!(rig.dials.len(), 1);
    }
}

#[test]
fn failed_dials_are_repeated_later_and_later() {
    let mut rig = Rig::new(config());
    rig.node.connect(rig.now, [target(1)], false).unwrap();
    rig.work();
    let mut tries = Vec::new();
    while tries.len() < 6 {
        let (conn, to) = rig.dials.remove(0);
        assert_eq!(to, address(1));
        tries.push(rig.now);
        rig.node
            .handle_dial_failed(rig.now, conn, "connection refused");
        rig.work();
        while rig.dials.is_empty() {
            rig.advance(Duration::from_millis(100));
        }
    }
    let gaps: Vec<Duration> = tries
        .windows(2)
        .map(|pair| pair[1].since(pair[0]))
        .collect();
    assert!(gaps[0] >= Duration::from_secs(1) && gaps[0] <= Duration::from_millis(3200));
    assert!(gaps[4] > gaps[0], "{gaps:?}");
    assert!(rig.events()[0].contains("connection refused"));
}

#[test]
fn of_two_connections_the_one_with_the_lower_number_stays() {
    // Our half of the number is drawn by the rig, so theirs decides the order.
    for lower_first in [true, false] {
        let mut rig = Rig::new(config());
        let mut guise = Guise::new(1);
        let (low, high) = (0, u64::MAX);
        guise.features.conn_id = if lower_first { low } else { high };
        let first = rig.accept(&guise);
        guise.features.conn_id = if lower_first { high } else { low };
        let second = rig.accept(&guise);
        let (winner, loser) = if lower_first {
            (first, second)
        } else {
            (second, first)
        };
        assert!(rig.is_member(winner) && rig.is_open(winner));
        assert!(!rig.is_open(loser));
        assert!(
            rig.events()
                .iter()
                .any(|e| e.contains("Multiple connections to"))
        );
        assert_eq!(rig.node.connections().count(), 1);
        let links = rig.node.core.connections.links.len();
        assert_eq!(links, 1);
        rig.advance(Duration::from_millis(500));
        assert_eq!(
            rig.node
                .topology()
                .peer(name(US))
                .unwrap()
                .connections
                .len(),
            1
        );
    }
}

#[test]
fn equal_numbers_end_both_connections() {
    let mut rig = Rig::new(config());
    let mut guise = Guise::new(1);
    // The number is the XOR of both halves; make both connections come out at 5.
    guise.features.conn_id = 1001 << 32 ^ 5;
    let first = rig.accept(&guise);
    guise.features.conn_id = 1002 << 32 ^ 5;
    let second = rig.accept(&guise);
    assert!(!rig.is_open(first) && !rig.is_open(second));
    assert_eq!(rig.node.connections().count(), 0);
    assert!(
        rig.node.topology().peer(name(1)).is_none(),
        "nothing leads to it"
    );
}

#[test]
fn a_restarted_peer_replaces_its_dead_connection() {
    let mut rig = Rig::new(config());
    let mut guise = Guise::new(1);
    guise.features.conn_id = 0;
    let first = rig.accept(&guise);
    guise.features.uid = PeerUid(99);
    guise.features.conn_id = u64::MAX;
    let second = rig.accept(&guise);
    assert!(!rig.is_open(first) && rig.is_member(second));
    assert!(
        !rig.topology_received(second).is_empty(),
        "it has forgotten everything"
    );
}

#[test]
fn connections_beyond_the_limit_are_refused() {
    let mut rig = Rig::new(NodeConfig {
        connection_limit: 2,
        ..config()
    });
    let kept = [rig.member(1), rig.member(2)];
    let third = rig.accept(&Guise::new(3));
    assert!(!rig.is_open(third));
    assert!(
        rig.events()
            .last()
            .unwrap()
            .contains("Connection limit reached (2)")
    );
    assert!(kept.iter().all(|conn| rig.is_open(*conn)));
    assert!(rig.node.topology().peer(name(3)).is_none());
}

#[test]
fn a_discovered_address_must_lead_to_a_known_peer() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.send_raw(conn, &topology_gossip(1, &update(&[(1, 1, 5, &[2, US])])));
    rig.advance(Duration::from_millis(200));
    assert_eq!(rig.dials.len(), 1);
    assert_eq!(rig.dials[0].1, address(2));
    let stranger = rig.answer_dial(&Guise::new(3));
    assert!(!rig.is_open(stranger));
    assert!(
        rig.events()
            .iter()
            .any(|e| e.contains("unknown remote name"))
    );
    assert!(rig.node.topology().peer(name(3)).is_none());
    while rig.dials.is_empty() {
        rig.advance(Duration::from_secs(1));
    }
    let known = rig.answer_dial(&Guise::new(2));
    assert!(rig.is_member(known));
}

#[test]
fn features_that_do_not_fit_end_the_connection() {
    type Change = fn(&mut Guise);
    let cases: [(Change, &str); 4] = [
        (|g| g.features.name = PeerName::UNKNOWN, "Name"),
        (|g| g.features.uid = PeerUid(0), "UID"),
        (
            |g| g.features.overlays = Some(vec!["awsvpc".to_owned()]),
            "no overlays in common",
        ),
        (
            |g| g.features.overlays = Some(vec![]),
            "no overlays in common",
        ),
    ];
    for (change, text) in cases {
        let mut rig = Rig::new(config());
        let mut guise = Guise::new(1);
        change(&mut guise);
        let conn = rig.accept(&guise);
        assert!(!rig.is_open(conn));
        let events = rig.events();
        assert!(events[0].contains(text), "{events:?}");
        assert_eq!(rig.node.topology().peers().len(), 1, "only we are known");
    }
}

#[test]
fn silent_connections_do_not_keep_out_a_real_peer() {
    let mut rig = Rig::new(config());
    let member = rig.member(1);
    let mut silent = Vec::new();
    for n in 0..INTRODUCTIONS_MAX + 450 {
        let secret = rig.secret();
        let from = format!("192.0.2.1:{}", 1000 + n).parse().unwrap();
        silent.push(rig.node.handle_accepted(rig.now, from, secret));
        if n == INTRODUCTIONS_MAX {
            // It needs a while, during which many others come.
            let secret = rig.secret();
            let conn = rig.node.handle_accepted(rig.now, address(2), secret);
            rig.remotes.insert(conn, Rig::remote(&Guise::new(2), true));
        }
        while let Some(output) = rig.node.poll_output() {
            if let Output::Close { conn } = output {
                assert!(silent.contains(&conn), "only silent ones are closed");
                silent.retain(|other| *other != conn);
            } else if let Output::Send { conn, .. } = output
                && silent.contains(&conn)
            {
                continue;
            } else {
                rig.execute(output);
            }
        }
        assert!(rig.node.introductions() <= INTRODUCTIONS_MAX);
    }
    rig.work();
    assert_eq!(rig.node.connections().count(), 2);
    assert!(rig.is_open(member));
    assert!(rig.node.counters().strangers_dropped >= 400);
    for conn in silent {
        rig.remotes.insert(conn, Rig::remote(&Guise::new(9), true));
        rig.remotes.get_mut(&conn).unwrap().wire.poll_transmit();
    }
    rig.advance(Duration::from_secs(11));
    assert_eq!(rig.node.introductions(), 0);
}

#[test]
fn messages_right_behind_the_features_are_taken() {
    let mut rig = Rig::new(config());
    let guise = Guise::new(1);
    let secret = rig.secret();
    let conn = rig.node.handle_accepted(rig.now, address(1), secret);
    let mut remote = Rig::remote(&guise, true);
    let mut last = Vec::new();
    for _ in 0..10 {
        while let Some(output) = rig.node.poll_output() {
            if let Output::Send { bytes, .. } = output {
                remote.wire.handle_bytes(&bytes).unwrap();
            }
        }
        while let Some(bytes) = remote.wire.poll_transmit() {
            if remote.wire.phase() == crate::wire::Phase::Introduced {
                last.extend(bytes);
            } else {
                rig.node.handle_bytes(rig.now, conn, &bytes);
            }
        }
    }
    remote
        .wire
        .send(&topology_gossip(1, &update(&[(1, 1, 9, &[US, 5])])))
        .unwrap();
    while let Some(bytes) = remote.wire.poll_transmit() {
        last.extend(bytes);
    }
    rig.node.handle_bytes(rig.now, conn, &last);
    rig.remotes.insert(conn, remote);
    rig.work();
    assert!(rig.is_open(conn), "{:?}", rig.events());
    assert_eq!(rig.node.topology().peer(name(1)).unwrap().version, 9);
    assert!(rig.node.topology().peer(name(5)).is_some());
}
