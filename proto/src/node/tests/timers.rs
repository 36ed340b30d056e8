use super::*;

fn seconds(s: u64) -> Duration {
    Duration::from_secs(s)
}

#[test]
fn silence_ends_an_introduction_after_10_s_and_a_connection_after_60_s() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    let secret = rig.secret();
    let silent = rig.node.handle_accepted(rig.now, address(2), secret);
    let mut remote = Rig::remote(&Guise::new(2), true);
    remote.wire.poll_transmit();
    rig.remotes.insert(silent, remote);
    rig.work();
    rig.advance(Duration::from_millis(9_990));
    assert!(rig.is_open(silent));
    rig.advance(Duration::from_millis(20));
    assert!(!rig.is_open(silent));
    rig.advance(seconds(49));
    assert!(rig.is_open(conn));
    rig.events();
    rig.advance(seconds(1));
    assert!(!rig.is_open(conn));
    assert!(rig.events().iter().any(|e| e.contains("closed: ")));
    assert_eq!(rig.node.connections().count(), 0);
}

#[test]
fn heartbeats_keep_a_connection() {
    let mut rig = Rig::new(config());
    let mut guise = Guise::new(1);
    guise.features.overlays = Some(vec!["sleeve".to_owned()]);
    let conn = rig.accept(&guise);
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    let uid = rig.node.connections().next().unwrap().uid;
    let mut heartbeats = 0;
    for _ in 0..30 {
        rig.advance(seconds(20));
        let from = "10.0.0.1:6783".parse().unwrap();
        rig.node
            .handle_special(rig.now, link, from, Special::Heartbeat(uid));
        rig.send(conn, &Message::Heartbeat);
        let inbox = &mut rig.remotes.get_mut(&conn).unwrap().inbox;
        heartbeats += inbox.iter().filter(|message| message[..] == [0]).count();
        inbox.clear();
    }
    assert!(rig.is_open(conn));
    assert_eq!(heartbeats, 20, "one every 30 s");
}

#[test]
fn a_dribble_is_no_sign_of_life() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    // The start of a message whose end never comes.
    rig.node.handle_bytes(rig.now, conn, &[0, 0, 1, 0]);
    for _ in 0..59 {
        rig.advance(seconds(1));
        rig.node.handle_bytes(rig.now, conn, &[0]);
        rig.work();
    }
    assert!(rig.is_open(conn));
    rig.advance(seconds(2));
    assert!(!rig.is_open(conn));
}

#[test]
fn a_remote_that_takes_nothing_is_given_up() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.sending = false;
    rig.node.broadcast(rig.now, "IPallocation", Content::State);
    rig.advance(Duration::from_millis(100));
    assert!(rig.remotes[&conn].unsent > 0);
    for _ in 0..6 {
        assert!(rig.is_open(conn));
        keep_link(&mut rig);
        rig.send(conn, &Message::Heartbeat);
        rig.advance(seconds(10));
    }
    assert!(!rig.is_open(conn));
    assert!(rig.events().iter().any(|e| e.contains("took no bytes")));
}

#[test]
fn the_complete_state_is_gossiped_every_30_s() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.advance(seconds(1));
    rig.received(conn);
    let mut times = Vec::new();
    for s in 0..100 {
        rig.advance(seconds(1));
        rig.send(conn, &Message::Heartbeat);
        keep_link(&mut rig);
        if !rig.topology_received(conn).is_empty() {
            times.push(s);
        }
    }
    assert!(times.len() >= 3, "{times:?}");
    assert!(
        times.windows(2).all(|pair| pair[1] - pair[0] == 30),
        "{times:?}"
    );
}

#[test]
fn our_entry_counts_its_versions() {
    let mut rig = Rig::new(config());
    let version = |rig: &Rig| rig.node.topology().peer(name(US)).unwrap().version;
    let conn = rig.member(1);
    assert_eq!(version(&rig), 1);
    rig.send_raw(conn, &[7, 0, 1]);
    assert_eq!(version(&rig), 2, "established");
    assert!(rig.node.topology().peer(name(US)).unwrap().connections[0].established);
    rig.node.handle_closed(rig.now, conn, None);
    rig.work();
    assert_eq!(version(&rig), 3);
    let gone = |output: &Output| matches!(output, Output::PeersGone(names) if *names == [name(1)]);
    assert!(rig.outputs.iter().any(gone));
}

#[test]
fn peers_out_of_reach_go_after_a_second() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.send_raw(
        conn,
        &topology_gossip(1, &update(&[(1, 1, 5, &[US, 2]), (2, 2, 1, &[1])])),
    );
    rig.advance(seconds(2));
    assert_eq!(rig.node.topology().peers().len(), 3);
    rig.send_raw(conn, &topology_gossip(1, &update(&[(1, 1, 6, &[US])])));
    rig.advance(Duration::from_millis(990));
    assert_eq!(rig.node.topology().peers().len(), 3);
    rig.advance(Duration::from_millis(20));
    assert_eq!(rig.node.topology().peers().len(), 2);
}

#[test]
fn routes_follow_changes_within_milliseconds_but_not_in_a_storm() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.advance(seconds(5));
    let before = rig.node.counters().route_calculations;
    for version in 10..1010 {
        let entry = update(&[(1, 1, version, &[US, version])]);
        rig.send_raw(conn, &topology_gossip(1, &entry));
        rig.advance(Duration::from_millis(1));
        keep_link(&mut rig);
    }
    let calculations = rig.node.counters().route_calculations - before;
    assert!(
        (10..=20).contains(&calculations),
        "{calculations} in a second"
    );
}

/// Plays the UDP side of the only link.
pub(super) fn keep_link(rig: &mut Rig) {
    let uid = rig.node.connections().next().unwrap().uid;
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    let from = "10.0.0.1:6783".parse().unwrap();
    rig.node
        .handle_special(rig.now, link, from, Special::Heartbeat(uid));
    rig.work();
}
