use std::net::SocketAddrV4;

use super::timers::keep_link;
use super::*;
use crate::overlay::Health;

fn from() -> SocketAddrV4 {
    "10.0.0.1:6783".parse().unwrap()
}

fn special(output: &Output) -> Option<Special> {
    match output {
        Output::Link(LinkOutput {
            what: LinkAction::Special(special),
            ..
        }) => Some(*special),
        _ => None,
    }
}

fn links(rig: &mut Rig) -> Vec<Output> {
    let all = std::mem::take(&mut rig.outputs);
    all.into_iter()
        .filter(|output| {
            matches!(
                output,
                Output::LinkAdded(_)
                    | Output::Link(_)
                    | Output::LinkRemoved { .. }
                    | Output::LinkOrder { .. }
            )
        })
        .collect()
}

#[test]
fn a_link_lives_as_long_as_its_connection() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    let outputs = links(&mut rig);
    let [
        Output::LinkAdded(info),
        Output::Link(LinkOutput { link, .. }),
        Output::LinkOrder { peer, links: order },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert_eq!((info.link, info.peer, info.conn), (*link, name(1), conn));
    assert!(!info.dialled && info.path.remote.is_none());
    assert_eq!((*peer, &order[..]), (name(1), &[*link][..]));
    let link = *link;
    rig.node.close(rig.now, conn, "enough");
    rig.work();
    let outputs = links(&mut rig);
    let [
        Output::LinkOrder { links: none, .. },
        Output::LinkRemoved { link: gone },
    ] = &outputs[..]
    else {
        panic!("{outputs:?}");
    };
    assert_eq!((none.len(), *gone), (0, link));
    rig.node
        .handle_special(rig.now, link, from(), Special::FragmentationTest);
    rig.node.handle_too_big(rig.now, link, 1500);
    rig.work();
    assert!(links(&mut rig).is_empty());
}

#[test]
fn a_heartbeat_teaches_the_address_and_is_acknowledged() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.received(conn);
    links(&mut rig);
    keep_link(&mut rig);
    let outputs = links(&mut rig);
    assert!(outputs.iter().any(|output| matches!(
        output,
        Output::Link(LinkOutput { what: LinkAction::Path(path), .. })
            if path.remote == Some(from())
    )));
    assert!(outputs.iter().any(|output| special(output).is_some()));
    assert_eq!(rig.received(conn), [[7, 0, 1]]);
    rig.send_raw(conn, &[7, 0, 1]);
    let view = rig.node.connections().next().unwrap();
    assert!(view.established);
    assert_eq!(view.active.unwrap().health, Health::Established);
}

#[test]
fn addresses_that_nobody_can_have_are_not_learned() {
    let mut rig = Rig::new(config());
    rig.member(1);
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    let uid = rig.node.connections().next().unwrap().uid;
    for bad in [
        "0.0.0.0:6783",
        "255.255.255.255:6783",
        "224.0.0.1:6783",
        "10.0.0.1:0",
    ] {
        let bad = bad.parse().unwrap();
        rig.node
            .handle_special(rig.now, link, bad, Special::Heartbeat(uid));
    }
    let view = rig.node.connections().next().unwrap();
    assert_eq!(view.forwarders[0].path.unwrap().remote, None);
}

#[test]
fn old_routers_are_spoken_to_in_the_old_way() {
    for (overlays, version) in [(None, 2), (Some(vec!["sleeve".to_owned()]), 1)] {
        let mut rig = Rig::new(config());
        let mut guise = Guise::new(1);
        guise.features.overlays = overlays;
        guise.max_version = version;
        let conn = rig.accept(&guise);
        rig.received(conn);
        keep_link(&mut rig);
        let link = *rig.node.core.connections.links.keys().next().unwrap();
        let test = Special::MtuTest { mtu: 1414 };
        rig.node.handle_special(rig.now, link, from(), test);
        rig.work();
        assert_eq!(rig.remotes[&conn].inbox.len(), 2);
        assert_eq!(rig.remotes[&conn].inbox[0], [1]);
        assert_eq!(rig.remotes[&conn].inbox[1], [3, 0x05, 0x86]);
        rig.send_raw(conn, &[1]);
        assert!(rig.node.connections().next().unwrap().established);
    }
}

#[test]
fn the_mtu_is_found_and_told() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    keep_link(&mut rig);
    rig.send_raw(conn, &[7, 0, 1]);
    links(&mut rig);
    rig.events();
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    rig.node.handle_too_big(rig.now, link, 1500);
    rig.work();
    let specials: Vec<Special> = links(&mut rig)
        .iter()
        .filter_map(|output| match output {
            Output::Link(LinkOutput {
                what: LinkAction::Special(special),
                ..
            }) => Some(*special),
            _ => None,
        })
        .collect();
    assert_eq!(specials, [Special::MtuTest { mtu: 1438 }]);
    rig.send_raw(conn, &[7, 0, 3, 0x05, 0x9e]);
    assert!(rig.events().iter().any(|e| e.contains("verified: 1438")));
}

#[test]
fn a_link_without_heartbeats_ends_the_connection() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    for _ in 0..61 {
        rig.send(conn, &Message::Heartbeat);
        rig.advance(Duration::from_secs(1));
        if !rig.is_open(conn) {
            break;
        }
    }
    assert!(!rig.is_open(conn));
    let events = rig.events();
    let closed = events.iter().find(|e| e.contains("closed")).unwrap();
    assert!(closed.contains("timed out waiting for UDP heartbeat"));
    assert!(closed.contains("let UDP pass"), "{closed}");
}

#[test]
fn answers_to_tests_are_bounded_when_nobody_reads_them() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    keep_link(&mut rig);
    rig.sending = false;
    let link = *rig.node.core.connections.links.keys().next().unwrap();
    for _ in 0..200_000 {
        rig.node
            .handle_special(rig.now, link, from(), Special::MtuTest { mtu: 1 });
        while let Some(output) = rig.node.poll_output() {
            if let Output::Send { bytes, .. } = output {
                rig.remotes.get_mut(&conn).unwrap().unsent += bytes.len();
            }
        }
    }
    assert!(rig.remotes[&conn].unsent < 400 * 1024);
}
