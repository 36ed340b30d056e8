//! Frames of all kinds get where they should, over one hop and over several.

use std::collections::BTreeMap;
use std::time::Duration;

use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::{DataEvent, EVENTS_MAX};
use kernel::netns::Namespace;
use kernel::sys::packet::PacketSocket;
use lab::pinger::{PingOptions, Pinger};
use proto::offload::checksum;
use proto::types::Mac;
use testbed::rig::{Options, Trial, name, wait_until};

use crate::support::*;

#[test]
fn streams_and_pings_pass_in_both_directions() {
    needs_root!();
    for options in overlays() {
        let trial = Trial::pair(&options).unwrap();
        for (from, to) in [(0, 1), (1, 0)] {
            let mut pinger = Pinger::new(&trial.hosts[from].container).unwrap();
            let address = Trial::address(to);
            for payload_bytes in [0, 56, 1348] {
                let ping = PingOptions {
                    payload_bytes,
                    dont_fragment: true,
                };
                let reply = pinger.ping(address, ping, Duration::from_secs(5));
                assert!(reply.unwrap().is_some(), "{payload_bytes} bytes");
            }
            for address in Trial::addresses(to) {
                transfer(&trial, from, to, address, 3_000_000);
            }
        }
        let reads = count(&trial, 0, Count::TapReads);
        let captured = count(&trial, 0, Count::Captured);
        assert!(captured > 2 * reads, "{captured} frames in {reads} reads");
        let writes = count(&trial, 1, Count::TapWrites);
        let injected = count(&trial, 1, Count::Injected);
        assert!(
            injected > 2 * writes,
            "{injected} frames in {writes} writes"
        );
        check_balance(&trial);
    }
}

#[test]
fn a_line_relays_and_the_relay_sees_nothing_of_it() {
    needs_root!();
    for options in overlays() {
        let trial = Trial::line(3, &options).unwrap();
        for address in Trial::addresses(2) {
            transfer(&trial, 0, 2, address, 1_000_000);
        }
        // What goes to one peer enters no bridge on its way; only what was looking for it does.
        let relayed = count(&trial, 1, Count::Received);
        let injected = count(&trial, 1, Count::Injected);
        assert!(relayed > 700, "{relayed} frames");
        assert!(injected < 30, "{injected} frames");
        check_balance(&trial);
    }
}

/// Returns a raw socket at the container's end of its link.
fn raw(container: &Namespace) -> PacketSocket {
    let index = container.netlink().unwrap().link_named("eth0").unwrap();
    container
        .run(|| PacketSocket::open(index.index.0, true).unwrap())
        .unwrap()
}

fn frame(dst: Mac, src: Mac, rest: &[u8]) -> Vec<u8> {
    [dst.as_bytes(), src.as_bytes(), rest].concat()
}

/// Returns how often each frame of `sent` arrives at `socket` until nothing comes for a while.
fn arrivals(socket: &PacketSocket, sent: &[Vec<u8>]) -> BTreeMap<usize, usize> {
    let mut buffer = vec![0; 1 << 16];
    let mut seen = BTreeMap::new();
    while let Ok(len) = socket.receive(&mut buffer, Duration::from_millis(200)) {
        // Short frames are padded on some ways.
        let is = |frame: &&Vec<u8>| buffer[..len].starts_with(frame);
        if let Some(index) = sent.iter().position(|frame| is(&frame)) {
            *seen.entry(index).or_default() += 1;
        }
    }
    seen
}

/// Waits until what `from` sends arrives at `to`: ports of a bridge that has just been made may
/// take a moment.
fn warm_up(from: &PacketSocket, to: &PacketSocket) {
    let src = Mac::from_bytes([2, 0, 0, 0, 0xaa, 0xff]);
    let hello = [frame(Mac::BROADCAST, src, &[0x88, 0xb7, 1])];
    assert!(wait_until(|| {
        from.send(&hello[0]).unwrap();
        !arrivals(to, &hello).is_empty()
    }));
}

fn ipv4(flags: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (20 + payload.len() as u16).to_be_bytes();
    let mut header = [
        0x45, 0, high, low, 0, 1, flags, 0, 64, 253, 0, 0, 10, 7, 0, 9, 10, 7, 0, 10,
    ];
    checksum::fill_ipv4(&mut header);
    [&[0x08, 0x00], &header[..], payload].concat()
}

fn ipv6(payload: &[u8]) -> Vec<u8> {
    let [high, low] = (payload.len() as u16).to_be_bytes();
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, high, low, 253, 64]);
    header[8..10].copy_from_slice(&[0xfd, 0x07]);
    header[24..26].copy_from_slice(&[0xfd, 0x07]);
    [&[0x86, 0xdd], &header[..], payload].concat()
}

#[test]
fn every_kind_of_frame_is_carried_unchanged() {
    needs_root!();
    for options in overlays() {
        carries_every_kind_unchanged(&Trial::pair(&options).unwrap());
    }
}

fn carries_every_kind_unchanged(trial: &Trial) {
    let (from, to) = (
        raw(&trial.hosts[0].container),
        raw(&trial.hosts[1].container),
    );
    warm_up(&from, &to);
    let src = Mac::from_bytes([2, 0, 0, 0, 0xaa, 1]);
    let other = Mac::from_bytes([2, 0, 0, 0, 0xaa, 2]);
    let multicast = Mac::from_bytes([0x01, 0x00, 0x5e, 0, 0, 5]);
    let filler = pattern(1000);
    let frames = [
        frame(Mac::BROADCAST, src, &[&[0x08, 0x06][..], &filler].concat()),
        // Unknown destination, unknown ethertype.
        frame(other, src, &[&[0x88, 0xb5][..], &filler].concat()),
        frame(multicast, src, &[&[0x88, 0xb6][..], &filler].concat()),
        // IPv4 and IPv6 of a protocol that nobody knows, with and without DF.
        frame(other, src, &ipv4(0x40, &filler)),
        frame(other, src, &ipv4(0, &filler)),
        frame(other, src, &ipv6(&filler)),
        // A length in place of an ethertype.
        frame(multicast, src, &[&[0x00, 0x40][..], &filler[..64]].concat()),
        frame(other, src, &[0x88, 0xb5]),
    ];
    for frame in &frames {
        from.send(frame).unwrap();
    }
    let once: BTreeMap<usize, usize> = (0..frames.len()).map(|index| (index, 1)).collect();
    assert_eq!(arrivals(&to, &frames), once);
    check_balance(trial);
}

/// A neighbour that only listens and speaks, without a data plane: what leaves for it, and what
/// it sends, is looked at byte by byte.
#[test]
fn tags_and_names_stand_on_the_wire_as_they_should() {
    needs_root!();
    let options = Options {
        key: None,
        ..Options::default()
    };
    let mut trial = Trial::pair(&options).unwrap();
    let neighbour = trial.replace_by_socket(1).unwrap();
    neighbour
        .set_read_timeout(Some(Duration::from_secs(5)))
        .unwrap();
    let container = raw(&trial.hosts[0].container);
    let src = Mac::from_bytes([2, 0, 0, 0, 0xee, 1]);
    let other = Mac::from_bytes([2, 0, 0, 0, 0xee, 2]);
    let filler = pattern(300);
    let tagged = [
        frame(
            other,
            src,
            &[&[0x81, 0, 0, 7], &[0x88, 0xb5][..], &filler].concat(),
        ),
        frame(
            other,
            src,
            &[&[0x88, 0xa8, 0, 7, 0x81, 0, 0, 8, 0x88, 0xb5][..], &filler].concat(),
        ),
    ];
    let mut packet = vec![0; 1 << 16];
    for frame in &tagged {
        container.send(frame).unwrap();
        let length = (frame.len() as u16).to_be_bytes();
        let names = [name(0), name(0), name(1)].map(|name| *name.as_bytes());
        let expected = [names.as_flattened(), &length, frame].concat();
        // Others may come in between, such as what a new interface announces.
        let found = wait_until(|| {
            let (len, _) = neighbour.recv_from(&mut packet).unwrap();
            packet[..len].ends_with(frame) && packet[..len] == expected
        });
        assert!(found);
    }
    for (index, frame) in tagged.iter().enumerate() {
        let length = (frame.len() as u16).to_be_bytes();
        let names = [name(1), name(1), name(0)].map(|name| *name.as_bytes());
        let packet = [names.as_flattened(), &length, frame].concat();
        let to = (trial.lab.hosts()[0].address, 6783);
        neighbour.send_to(&packet, to).unwrap();
        // The kernel takes the outermost tag off before a raw socket sees the frame.
        let seen = [&frame[..12], &frame[16..]].concat();
        assert_eq!(arrivals(&container, &[seen]), [(0, 1)].into(), "{index}");
    }
    check_balance(&trial);
}

#[test]
fn spanning_tree_frames_stay_at_home() {
    needs_root!();
    let trial = Trial::pair(&Options::default()).unwrap();
    let (from, to) = (
        raw(&trial.hosts[0].container),
        raw(&trial.hosts[1].container),
    );
    let src = Mac::from_bytes([2, 0, 0, 0, 0xaa, 1]);
    let stp = Mac::from_bytes([0x01, 0x80, 0xc2, 0, 0, 0]);
    let zero = frame(Mac::ZERO, Mac::ZERO, &[0; 30]);
    let frames = [frame(stp, src, &[0, 0x26, 0x42, 0x42, 3]), zero];
    for frame in &frames {
        from.send(frame).unwrap();
    }
    assert_eq!(arrivals(&to, &frames), BTreeMap::new());
    check_balance(&trial);
}

#[test]
fn a_broadcast_reaches_every_container_once() {
    needs_root!();
    // A ring with a tail: there is a loop to fall into.
    let edges = [(0, 1), (1, 2), (2, 3), (3, 0), (2, 4)];
    for options in overlays() {
        reaches_every_container_once(&Trial::new(5, &edges, &options).unwrap());
    }
}

fn reaches_every_container_once(trial: &Trial) {
    let sockets: Vec<PacketSocket> = trial.hosts.iter().map(|h| raw(&h.container)).collect();
    for to in 1..sockets.len() {
        warm_up(&sockets[0], &sockets[to]);
    }
    for from in [0, 4] {
        let src = Mac::from_bytes([2, 0, 0, 0, 0xbb, from as u8]);
        let frames = [frame(
            Mac::BROADCAST,
            src,
            &[0x88, 0xb5, 1, 2, 3, from as u8],
        )];
        sockets[from].send(&frames[0]).unwrap();
        for (to, socket) in sockets.iter().enumerate() {
            let expected: BTreeMap<_, _> = (to != from).then_some((0, 1)).into_iter().collect();
            assert_eq!(arrivals(socket, &frames), expected, "from {from} to {to}");
        }
    }
    check_balance(trial);
}

#[test]
fn an_address_that_moves_is_followed_from_both_sides() {
    needs_root!();
    let mut trial = Trial::pair(&Options::default()).unwrap();
    let sockets: Vec<PacketSocket> = trial.hosts.iter().map(|h| raw(&h.container)).collect();
    warm_up(&sockets[0], &sockets[1]);
    let mac = Mac::from_bytes([2, 0, 0, 0, 0xcc, 1]);
    let announce = frame(Mac::BROADCAST, mac, &[0x88, 0xb5]);
    for (at, moved) in [(0, false), (1, true), (0, true)] {
        sockets[at].send(&announce).unwrap();
        for (number, host) in trial.hosts.iter_mut().enumerate() {
            let learned = wait_until(|| {
                let slot = host.plane.macs().lookup(mac).map(|slot| slot.0);
                // A peer knows itself by slot 0 and its only neighbour by slot 1.
                slot == Some(u16::from(number != at))
            });
            assert!(learned, "at {number}");
            let told = std::iter::from_fn(|| host.events.try_recv().ok())
                .any(|event| matches!(event, DataEvent::Moved { mac: m, to, .. } if m == mac && to == name(at)));
            assert_eq!(told, moved, "at {number}");
        }
    }
}

/// Two containers that use one address by turns make it move with every frame. What control has to
/// hear of links finds room all the same.
#[test]
fn moves_leave_room_for_what_links_live_by() {
    needs_root!();
    let mut trial = Trial::pair(&Options::default()).unwrap();
    let sockets: Vec<PacketSocket> = trial.hosts.iter().map(|h| raw(&h.container)).collect();
    warm_up(&sockets[0], &sockets[1]);
    let mac = Mac::from_bytes([2, 0, 0, 0, 0xcc, 2]);
    let announce = frame(Mac::BROADCAST, mac, &[0x88, 0xb5]);
    let moves = wait_until(|| {
        for socket in &sockets {
            for _ in 0..20 {
                socket.send(&announce).unwrap();
            }
        }
        count(&trial, 0, Count::Moves) > 2 * EVENTS_MAX as u64
    });
    assert!(moves, "{}", count(&trial, 0, Count::Moves));
    assert!(count(&trial, 0, Count::EventsLost) > 0);
    let told = std::iter::from_fn(|| trial.hosts[0].events.try_recv().ok()).count();
    // Each thread may find the last place of its half at the same time.
    assert!(told < EVENTS_MAX / 2 + 16, "{told}");
}

#[test]
fn a_destination_on_the_same_bridge_is_left_to_the_bridge() {
    needs_root!();
    let trial = Trial::pair(&Options::default()).unwrap();
    let from = raw(&trial.hosts[0].container);
    let (a, b) = (
        Mac::from_bytes([2, 0, 0, 0, 0xdd, 1]),
        Mac::from_bytes([2, 0, 0, 0, 0xdd, 2]),
    );
    from.send(&frame(b, a, &[0x88, 0xb5])).unwrap();
    from.send(&frame(a, b, &[0x88, 0xb5])).unwrap();
    // The bridge has just learned where both are and passes no more of them on; ask it to.
    from.send(&frame(Mac::BROADCAST, a, &[0x88, 0xb5])).unwrap();
    assert!(wait_until(|| count(&trial, 0, Count::Captured) >= 2));
    let known = trial.hosts[0].plane.macs();
    assert!(wait_until(|| known.lookup(a).is_some()));
    assert!(dropped(&trial, 0, DropReason::Local) <= 1);
    check_balance(&trial);
}
