//! Members that lie, and whoever stands in between.

use super::*;

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
    assert!(!rig.is_open(second) && rig.is_member(first));
    assert!(
        rig.events()
            .iter()
            .any(|event| event.contains("protocol 1"))
    );
    // Who was never seen to be one of ours may be as old as it says.
    let mut old = Guise::new(2);
    old.password = Some("secret");
    old.max_version = 1;
    let old = rig.accept(&old);
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
