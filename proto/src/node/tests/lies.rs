//! Members that lie, and whoever stands in between.

use super::*;
use crate::features::Ability;

fn own(rig: &Rig) -> topology::Peer {
    rig.node.topology().peer(name(US)).unwrap().clone()
}

#[test]
fn a_forged_entry_of_ours_is_outdone_at_once_and_told() {
    let mut rig = Rig::new(config());
    let (liar, other) = (rig.member(1), rig.member(2));
    rig.advance(Duration::from_secs(5));
    rig.received(other);
    rig.events();
    let before = own(&rig);
    for lie in 0..3 {
        let forged = topology::Peer {
            version: before.version + 10 + lie,
            connections: Vec::new(),
            ..before.clone()
        };
        let update = topology::encode_update([&forged]);
        rig.send_raw(liar, &topology_gossip(1, &update));
        assert_eq!(own(&rig).version, forged.version + 1);
        assert_eq!(own(&rig).connections, before.connections);
        rig.advance(Duration::from_secs(2));
        let told = rig.topology_received(other).concat();
        assert!(told.contains(&name(US)), "{told:?}");
    }
    let events = rig.events();
    let told = events.iter().filter(|event| event.contains("forged"));
    assert_eq!(told.count(), 1, "{events:?}");
    assert_eq!(rig.node.counters().forgeries, 3);
}

#[test]
fn a_version_without_end_does_not_cut_off_its_peer() {
    let mut rig = Rig::new(config());
    let (liar, victim) = (rig.member(1), rig.member(2));
    let entry = update(&[(2, 2, 5, &[US, 9])]);
    rig.send_raw(victim, &topology_gossip(2, &entry));
    let forged = update(&[(2, 2, u64::MAX, &[])]);
    rig.send_raw(liar, &topology_gossip(1, &forged));
    assert!(rig.node.topology().peer(name(9)).is_some());
    let entry = update(&[(2, 2, 6, &[US, 10])]);
    rig.send_raw(victim, &topology_gossip(2, &entry));
    assert!(rig.node.topology().peer(name(10)).is_some());
    assert!(rig.events().iter().any(|event| event.contains("ignored")));
}

#[test]
fn another_router_with_our_name_is_told_once() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    for _ in 0..10 {
        let twin = topology::Peer {
            uid: PeerUid(99),
            version: own(&rig).version + 1,
            ..own(&rig)
        };
        let update = topology::encode_update([&twin]);
        rig.send_raw(conn, &topology_gossip(1, &update));
    }
    let events = rig.events();
    let told = events
        .iter()
        .filter(|event| event.contains("another router"));
    assert_eq!(told.count(), 1, "{events:?}");
}

/// Protocol 1 introduces itself in the clear, and has no features that would say more.
#[test]
fn a_router_of_ours_is_not_spoken_to_in_protocol_1() {
    let mut config = config();
    config.password = Some(b"secret".as_slice().into());
    config.min_version = 1;
    let mut rig = Rig::new(config);
    let mut guise = Guise::new(1);
    guise.password = Some("secret");
    guise.features.overlays = Some(vec!["weft".to_owned(), "sleeve".to_owned()]);
    let first = rig.accept(&guise);
    assert!(rig.is_member(first), "{:?}", rig.events());
    let mut stripped = guise.clone();
    stripped.max_version = 1;
    stripped.features.conn_id = 0;
    let second = rig.accept(&stripped);
    rig.send_raw(second, &[0]);
    assert!(!rig.is_open(second) && rig.is_member(first));
    assert!(
        rig.events()
            .iter()
            .any(|event| event.contains("protocol 1"))
    );
    // A peer that was never seen to be a weft router may be as old as it says.
    let mut old = Guise::new(2);
    old.password = Some("secret");
    old.max_version = 1;
    let old = rig.accept(&old);
    rig.send_raw(old, &[0]);
    assert!(rig.is_member(old), "{:?}", rig.events());
}

#[test]
fn strangers_from_everywhere_do_not_keep_out_a_member() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    let entry = update(&[(1, 1, 5, &[US, 2])]);
    rig.send_raw(conn, &topology_gossip(1, &entry));
    rig.advance(Duration::from_secs(1));
    // It needs a while, during which many others come.
    let secret = rig.secret();
    let slow = rig.node.handle_accepted(rig.now, address(2), secret);
    rig.remotes.insert(slow, Rig::remote(&Guise::new(2), true));
    for n in 0..500_u32 {
        let secret = rig.secret();
        let from = SocketAddr::from((std::net::Ipv4Addr::from(0xc633_0000 + n), 999));
        let silent = rig.node.handle_accepted(rig.now, from, secret);
        let mut remote = Rig::remote(&Guise::new(9), true);
        remote.wire.poll_transmit();
        rig.remotes.insert(silent, remote);
        while let Some(output) = rig.node.poll_output() {
            rig.execute(output);
        }
    }
    rig.work();
    assert!(rig.is_member(slow), "{:?}", rig.events().last());
}

/// Returns a guise that knows what routers of ours say about a connection itself.
fn ours(n: u64, uid: u64, conn_id: u64, password: Option<&'static str>) -> Guise {
    let mut guise = Guise::new(n);
    guise.password = password;
    guise.features.uid = PeerUid(uid);
    guise.features.conn_id = conn_id;
    guise
        .features
        .add_abilities(&[Ability::Confirm, Ability::Ask, Ability::Sleeve]);
    guise
}

fn with_password() -> NodeConfig {
    NodeConfig {
        password: Some(b"secret".as_slice().into()),
        ..config()
    }
}

/// Returns what the remote end, which dialled, says to confirm the introduction.
fn confirmation(rig: &Rig, conn: ConnId) -> Vec<u8> {
    let introduced = rig.remotes[&conn].introduced.as_ref().unwrap();
    let key = introduced.session_key.as_ref().unwrap();
    word::confirm(key, &introduced.transcript, true).encode()
}

/// Returns the words that a remote end received since this was last asked.
fn words(rig: &mut Rig, conn: ConnId) -> Vec<word::Word> {
    let received = rig.received(conn);
    received
        .iter()
        .filter_map(|m| word::Word::parse(m))
        .collect()
}

#[test]
fn a_peer_is_let_in_once_it_has_confirmed_the_introduction() {
    let mut rig = Rig::new(with_password());
    for (change, good) in [(0, true), (1, false)] {
        let conn = rig.accept(&ours(1 + change, 1, 1, Some("secret")));
        assert!(rig.is_open(conn) && !rig.is_member(conn));
        assert!(matches!(
            words(&mut rig, conn)[..],
            [word::Word::Confirm(_)]
        ));
        let mut message = confirmation(&rig, conn);
        message[2] ^= u8::from(!good);
        rig.send_raw(conn, &message);
        assert_eq!((rig.is_member(conn), rig.is_open(conn)), (good, good));
    }
    // Anything else is no confirmation.
    let conn = rig.accept(&ours(5, 5, 5, Some("secret")));
    rig.send_raw(conn, &topology_gossip(5, &update(&[(5, 5, 9, &[US])])));
    assert!(!rig.is_open(conn));
}

/// What is not confirmed changes nothing: neither the connection that there is, nor the topology.
#[test]
fn a_connection_takes_the_place_of_another_only_once_it_is_confirmed() {
    let mut rig = Rig::new(with_password());
    let first = rig.accept(&ours(1, 1, 1, Some("secret")));
    let message = confirmation(&rig, first);
    rig.send_raw(first, &message);
    assert!(rig.is_member(first));
    let before = own(&rig);
    let second = rig.accept(&ours(1, 2, 2, Some("secret")));
    assert!(rig.is_member(first) && !rig.is_member(second));
    assert_eq!(own(&rig), before);
    // In protocol 1, in which the introduction is not sealed, the first sealed message shows it.
    let mut old = Guise::new(1);
    old.password = Some("secret");
    old.max_version = 1;
    old.features.uid = PeerUid(3);
    let third = rig.accept(&old);
    assert!(rig.is_open(third) && !rig.is_member(third) && rig.is_member(first));
    rig.send_raw(third, &[0]);
    assert_eq!((rig.is_member(first), rig.is_open(third)), (true, true));
    rig.advance(Duration::from_secs(2));
    assert_eq!((rig.is_member(first), rig.is_member(third)), (false, true));
}

/// A router with the name of another is its next start if that one has ended.
#[test]
fn a_restart_is_told_from_a_second_router_of_the_same_name() {
    for alive in [true, false] {
        for closed in [true, false] {
            let mut rig = Rig::new(config());
            let first = rig.accept(&ours(1, 1, 1, None));
            assert!(rig.is_member(first));
            let second = rig.accept(&ours(1, 2, 2, None));
            let asked = words(&mut rig, first);
            let [word::Word::Ask(number)] = asked[..] else {
                panic!("{asked:?}");
            };
            // What it says meanwhile is not lost.
            let entry = update(&[(1, 2, 9, &[US, 7])]);
            rig.send_raw(second, &topology_gossip(1, &entry));
            assert!(rig.is_member(first) && !rig.is_member(second));
            if alive {
                rig.advance(Duration::from_millis(900));
                rig.send_raw(first, &word::Word::Here(number).encode());
                assert!(rig.is_member(first) && !rig.is_open(second));
                let told = words(&mut rig, first);
                assert!(matches!(told[..], [word::Word::Taken(_)]), "{told:?}");
                let events = rig.events();
                assert!(
                    events.iter().any(|e| e.contains("is alive at")),
                    "{events:?}"
                );
                continue;
            }
            if closed {
                rig.node.handle_closed(rig.now, first, None);
                rig.work();
                rig.advance(Duration::ZERO);
            } else {
                rig.advance(Duration::from_millis(990));
                assert!(rig.is_member(first));
                rig.advance(Duration::from_millis(20));
                assert!(!rig.is_open(first));
            }
            assert!(rig.is_member(second));
            assert!(rig.node.topology().peer(name(7)).is_some());
        }
    }
}

#[test]
fn the_other_router_of_our_name_is_told_by_its_address() {
    let mut rig = Rig::new(config());
    let conn = rig.accept(&ours(1, 1, 1, None));
    let taken = word::Word::Taken("10.9.9.9:6783".to_owned());
    rig.send_raw(conn, &taken.encode());
    let events = rig.events();
    assert!(
        events.iter().any(|e| e.contains("10.9.9.9:6783")),
        "{events:?}"
    );
    assert!(rig.is_member(conn));
    // A question is answered.
    rig.send_raw(conn, &word::Word::Ask(77).encode());
    let answers = words(&mut rig, conn);
    assert!(answers.contains(&word::Word::Here(77)), "{answers:?}");
}

#[test]
fn not_much_is_kept_while_it_is_not_known_who_is_there() {
    let mut rig = Rig::new(config());
    let first = rig.accept(&ours(1, 1, 1, None));
    let second = rig.accept(&ours(1, 2, 2, None));
    let message = vec![0; 6 << 20];
    for kept in [true, true, false] {
        rig.send_raw(second, &message);
        assert_eq!(rig.is_open(second), kept);
    }
    assert!(!rig.is_open(second) && rig.is_member(first));
}

/// A plain packet shows nothing of who sent it. Beside a native link it is taken only after the
/// peer said that it uses sleeve.
#[test]
fn the_plain_door_is_open_only_while_the_peer_uses_it() {
    let mut rig = Rig::new(config());
    let conn = rig.accept(&ours(1, 1, 1, None));
    let open = |rig: &Rig| {
        let view = rig.node.connections().find(|view| view.conn == conn);
        let sleeve = view.unwrap().forwarders.pop().unwrap();
        sleeve.path.unwrap().open
    };
    assert!(open(&rig));
    for uses in [false, true, false] {
        rig.send_raw(conn, &word::Word::Sleeve(uses).encode());
        assert_eq!(open(&rig), uses);
    }
    // Who does not have the word is taken as it comes.
    let old = rig.member(2);
    rig.send_raw(old, &word::Word::Sleeve(false).encode());
    let view = rig.node.connections().find(|view| view.conn == old);
    assert!(view.unwrap().forwarders.pop().unwrap().path.unwrap().open);
}

#[test]
fn a_trusted_link_does_not_move_out_of_its_trusted_subnet() {
    let mut rig = Rig::new(NodeConfig {
        trusted_subnets: vec!["10.0.0.0/8".parse().unwrap()],
        ..with_password()
    });
    let mut guise = Guise::new(1);
    guise.password = Some("secret");
    guise.features.trusted = true;
    rig.accept(&guise);
    let view = rig.node.connections().next().unwrap();
    assert!(view.trusted);
    let remote = |rig: &Rig| {
        let mut view = rig.node.connections().next().unwrap();
        view.forwarders.pop().unwrap().path.unwrap().remote
    };
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    for (from, taken) in [
        ("192.0.2.1:6783", false),
        ("10.0.0.9:6783", true),
        ("192.0.2.1:6783", false),
    ] {
        let from = from.parse().unwrap();
        let heartbeat = Special::Heartbeat(view.uid);
        rig.node.handle_special(rig.now, link, from, heartbeat);
        rig.work();
        assert_eq!(remote(&rig) == Some(from), taken);
    }
}
