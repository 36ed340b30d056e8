use super::*;
use crate::gossip::{PENDING_BYTES_MAX, WINDOW_BYTES};

/// Returns a node between two neighbours that each have a peer behind them: 3 - 1 - us - 2 - 4.
fn line() -> (Rig, ConnId, ConnId) {
    let mut rig = Rig::new(config());
    let (a, b) = (rig.member(1), rig.member(2));
    let left = update(&[(1, 1, 5, &[US, 3]), (3, 3, 5, &[1])]);
    rig.send_raw(a, &topology_gossip(1, &left));
    let right = update(&[(2, 2, 5, &[US, 4]), (4, 4, 5, &[2])]);
    rig.send_raw(b, &topology_gossip(2, &right));
    rig.advance(Duration::from_secs(2));
    rig.received(a);
    rig.received(b);
    rig.outputs.clear();
    (rig, a, b)
}

fn delivered(rig: &mut Rig) -> Vec<(String, PeerName, DeliveryKind, Vec<u8>)> {
    std::mem::take(&mut rig.outputs)
        .into_iter()
        .filter_map(|output| match output {
            Output::Deliver {
                channel,
                neighbour,
                kind,
                payload,
                ..
            } => Some((channel.to_string(), neighbour, kind, payload)),
            _ => None,
        })
        .collect()
}

#[test]
fn unicasts_are_relayed_unchanged() {
    let (mut rig, a, b) = line();
    let message = Message::Unicast {
        channel: "whatever",
        source: name(3),
        dest: name(4),
        payload: b"for you",
    };
    // Bytes behind the message belong to it as well.
    let raw = [&message.encode()[..], b"tail"].concat();
    rig.send_raw(a, &raw);
    assert_eq!(rig.received(b), [raw]);
    assert!(rig.received(a).is_empty());
}

#[test]
fn unicasts_without_a_way_are_dropped_and_counted() {
    let (mut rig, a, b) = line();
    for (from, dest) in [(a, 99), (a, 3), (b, 4)] {
        let message = Message::Unicast {
            channel: "whatever",
            source: name(5),
            dest: name(dest),
            payload: b"x",
        };
        rig.send(from, &message);
    }
    assert!(rig.received(a).is_empty() && rig.received(b).is_empty());
    assert_eq!(rig.node.counters().unicasts_dropped, 3);
    let now = rig.now;
    assert!(!rig.node.send_unicast(now, "IPallocation", name(99), b"x"));
    assert!(!rig.node.send_unicast(now, "IPallocation", name(US), b"x"));
}

#[test]
fn our_unicasts_find_their_way() {
    let (mut rig, _, b) = line();
    assert!(
        rig.node
            .send_unicast(rig.now, "IPallocation", name(4), b"hello")
    );
    rig.work();
    let message = Message::Unicast {
        channel: "IPallocation",
        source: name(US),
        dest: name(4),
        payload: b"hello",
    };
    assert_eq!(rig.received(b), [message.encode()]);
}

#[test]
fn gossip_is_delivered_with_its_kind() {
    let (mut rig, a, _) = line();
    let channel = "IPallocation";
    let payload = b"p".as_slice();
    let source = name(3);
    rig.send(
        a,
        &Message::Gossip {
            channel,
            sender: name(77),
            payload,
        },
    );
    rig.send(
        a,
        &Message::Broadcast {
            channel,
            source,
            payload,
        },
    );
    rig.send(
        a,
        &Message::Unicast {
            channel,
            source,
            dest: name(US),
            payload,
        },
    );
    let kinds: Vec<DeliveryKind> = delivered(&mut rig)
        .into_iter()
        .map(|(on, neighbour, kind, bytes)| {
            assert_eq!(
                (on.as_str(), neighbour, &bytes[..]),
                (channel, name(1), payload)
            );
            kind
        })
        .collect();
    assert_eq!(
        kinds,
        [
            DeliveryKind::Gossip,
            DeliveryKind::Broadcast { source },
            DeliveryKind::Unicast { source }
        ]
    );
}

#[test]
fn relays_go_on_but_not_back() {
    let (mut rig, a, b) = line();
    let (now, channel) = (rig.now, "IPallocation");
    let content = || Content::Payload(b"news".to_vec());
    rig.node.relay_broadcast(now, channel, name(3), content());
    rig.work();
    let broadcast = Message::Broadcast {
        channel,
        source: name(3),
        payload: b"news",
    };
    assert_eq!(rig.received(b), [broadcast.encode()]);
    rig.node.relay_gossip(now, channel, name(1), content());
    rig.work();
    let gossip = Message::Gossip {
        channel,
        sender: name(US),
        payload: b"news",
    };
    assert_eq!(rig.received(b), [gossip.encode()]);
    rig.node.relay_broadcast(now, channel, name(99), content());
    rig.node.broadcast(now, "no such channel", content());
    rig.work();
    assert!(rig.received(a).is_empty() && rig.received(b).is_empty());
}

#[test]
fn what_is_said_before_routes_are_ready_waits_for_them() {
    let mut rig = Rig::new(config());
    let conn = rig.member(1);
    rig.received(conn);
    let payload = Content::Payload(b"early".to_vec());
    rig.node.broadcast(rig.now, "IPallocation", payload);
    rig.work();
    assert!(rig.received(conn).is_empty());
    rig.advance(Duration::from_millis(10));
    let message = Message::Broadcast {
        channel: "IPallocation",
        source: name(US),
        payload: b"early",
    };
    assert_eq!(rig.received(conn), [message.encode()]);
    // A unicast does not wait: the caller wants to know.
    let second = rig.member(2);
    rig.received(second);
    assert!(
        rig.node
            .send_unicast(rig.now, "IPallocation", name(2), b"x")
    );
}

#[test]
fn state_is_asked_for_each_connection() {
    let (mut rig, a, b) = line();
    rig.node.broadcast(rig.now, "IPallocation", Content::State);
    rig.work();
    let asked = rig.outputs.iter().filter_map(|output| match output {
        Output::NeedState { conn, first, .. } => Some((*conn, *first)),
        _ => None,
    });
    // The first state went when the connection was made.
    assert_eq!(asked.collect::<Vec<_>>(), [(a, false), (b, false)]);
    let message = Message::Broadcast {
        channel: "IPallocation",
        source: name(US),
        payload: b"state",
    };
    for conn in [a, b] {
        assert_eq!(rig.received(conn), [message.encode()]);
    }
    // An answer that nobody asked for goes nowhere.
    rig.node
        .handle_state(rig.now, "IPallocation", a, Some(b"more"));
    rig.work();
    assert!(rig.received(a).is_empty());
}

#[test]
fn channels_that_nobody_knows_are_relayed_once() {
    let (mut rig, a, b) = line();
    let gossip = |payload: &'static [u8]| Message::Gossip {
        channel: "future",
        sender: name(1),
        payload,
    };
    for _ in 0..3 {
        rig.send(a, &gossip(b"one"));
    }
    rig.send(a, &gossip(b"two"));
    let relayed = |payload: &'static [u8]| {
        Message::Gossip {
            channel: "future",
            sender: name(US),
            payload,
        }
        .encode()
    };
    assert_eq!(rig.received(b), [relayed(b"one"), relayed(b"two")]);
    for _ in 0..2 {
        let broadcast = Message::Broadcast {
            channel: "future",
            source: name(3),
            payload: b"all",
        };
        rig.send(a, &broadcast);
        assert_eq!(rig.received(b), [broadcast.encode()]);
    }
    let unicast = Message::Unicast {
        channel: "future",
        source: name(3),
        dest: name(US),
        payload: b"me",
    };
    rig.send(a, &unicast);
    assert!(rig.received(a).is_empty() && rig.received(b).is_empty());
    assert!(rig.is_open(a));
}

#[test]
fn too_many_unknown_channels_are_dropped_and_counted() {
    let (mut rig, a, b) = line();
    for n in 0..200 {
        let channel = format!("channel {n}");
        let message = Message::Gossip {
            channel: &channel,
            sender: name(1),
            payload: b"x",
        };
        rig.send(a, &message);
    }
    assert_eq!(rig.received(b).len(), crate::gossip::SURROGATES_MAX);
    assert_eq!(rig.node.counters().gossip_dropped, 200 - 64);
}

#[test]
fn topology_news_go_on_and_old_ones_do_not() {
    let (mut rig, a, b) = line();
    let news = update(&[(3, 3, 6, &[1, 5]), (4, 4, 1, &[])]);
    rig.send_raw(a, &topology_gossip(1, &news));
    rig.advance(Duration::from_millis(200));
    assert_eq!(rig.topology_received(b), [[name(3)]]);
    assert!(rig.topology_received(a).is_empty());
    rig.send_raw(a, &topology_gossip(1, &news));
    rig.advance(Duration::from_millis(200));
    assert!(rig.topology_received(b).is_empty());
}

#[test]
fn topology_broadcasts_go_on_with_our_data_of_all_they_name() {
    let (mut rig, a, b) = line();
    let payload = update(&[(3, 3, 1, &[]), (1, 1, 1, &[])]);
    let message = Message::Broadcast {
        channel: "topology",
        source: name(3),
        payload: &payload,
    };
    rig.send(a, &message);
    rig.advance(Duration::from_millis(200));
    let relayed = rig.received(b);
    let Message::Broadcast {
        source, payload, ..
    } = decode(&relayed[0])
    else {
        panic!("{relayed:?}");
    };
    assert_eq!(source, name(3));
    let peers = topology::decode_update(payload).unwrap();
    let versions: Vec<(PeerName, u64)> = peers.iter().map(|p| (p.name, p.version)).collect();
    assert_eq!(versions, [(name(1), 5), (name(3), 5)]);
}

#[test]
fn errors_on_the_channel_of_topology_end_the_connection() {
    let unicast = Message::Unicast {
        channel: "topology",
        source: name(3),
        dest: name(US),
        payload: b"",
    };
    let garbage = topology_gossip(1, b"garbage");
    for bad in [
        unicast.encode(),
        garbage,
        vec![4],
        vec![5, 1],
        vec![6, 0xff],
    ] {
        let (mut rig, a, b) = line();
        rig.send_raw(a, &bad);
        assert!(!rig.is_open(a), "{bad:?}");
        assert!(rig.is_open(b));
    }
}

#[test]
fn a_reader_that_sleeps_costs_little_and_gets_the_newest() {
    let (mut rig, a, b) = line();
    rig.sending = false;
    let big = vec![7; 100_000];
    for n in 0..2000u32 {
        let payload = [&n.to_be_bytes()[..], &big].concat();
        rig.node
            .broadcast(rig.now, "IPallocation", Content::Payload(payload));
        rig.work();
        let entry = update(&[(4, 4, u64::from(n) + 10, &[2])]);
        rig.send_raw(b, &topology_gossip(2, &entry));
        rig.advance(Duration::from_millis(10));
        for view in rig.node.connections() {
            assert!(view.bytes_in_flight <= WINDOW_BYTES + 200_000);
            assert!(view.bytes_waiting <= PENDING_BYTES_MAX);
        }
    }
    assert!(rig.remotes[&a].unsent < WINDOW_BYTES + 200_000);
    rig.received(a);
    rig.sending = true;
    let unsent = rig.remotes[&a].unsent;
    rig.node.handle_sent(rig.now, a, unsent);
    rig.work();
    let inbox = rig.received(a);
    let newest = inbox.iter().filter_map(|message| match decode(message) {
        Message::Gossip {
            channel: "topology",
            payload,
            ..
        } => Some(topology::decode_update(payload).unwrap()),
        _ => None,
    });
    assert!(
        newest
            .flatten()
            .any(|peer| peer.name == name(4) && peer.version == 2009)
    );
    let state = Message::Broadcast {
        channel: "IPallocation",
        source: name(US),
        payload: b"state",
    };
    assert!(inbox.contains(&state.encode()));
    assert_eq!(rig.node.counters().gossip_dropped, 0);
    assert!(rig.node.connections().all(|view| view.bytes_waiting == 0));
}

#[test]
fn unicasts_to_a_reader_that_sleeps_are_refused_in_the_end() {
    let (mut rig, a, _) = line();
    rig.sending = false;
    let mut taken = 0;
    while rig
        .node
        .send_unicast(rig.now, "IPallocation", name(3), &[0; 10_000])
    {
        taken += 1;
        rig.work();
        assert!(taken < 1000);
    }
    assert!(taken >= 26, "{taken}");
    assert!(rig.remotes[&a].unsent <= WINDOW_BYTES + 20_000);
    assert_eq!(rig.node.counters().unicasts_dropped, 1);
}
