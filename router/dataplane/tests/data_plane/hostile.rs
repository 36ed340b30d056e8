//! Bytes that nobody of the mesh has sent.

use std::net::UdpSocket;

use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use proto::sleeve::{LinkId, PacketBuilder, Tunnel, TunnelConfig};
use testbed::rig::{Options, Trial, name, wait_until};

use crate::support::*;

/// Sends each datagram to host 0 from the machine of host 1, but from another port.
fn send_all(trial: &Trial, datagrams: &[Vec<u8>]) {
    let hosts = trial.lab.hosts();
    let socket = hosts[1]
        .namespace
        .run(|| UdpSocket::bind("0.0.0.0:0").unwrap())
        .unwrap();
    for datagram in datagrams {
        socket.send_to(datagram, (hosts[0].address, 6783)).unwrap();
    }
}

#[test]
fn garbage_is_counted_and_harms_nobody() {
    needs_root!();
    let trial = Trial::pair(&Options::default()).unwrap();
    let mut rng = fastrand::Rng::with_seed(1);
    let mut datagrams = Vec::new();
    for _ in 0..300 {
        let mut bytes = vec![0; rng.usize(0..3000)];
        rng.fill(&mut bytes);
        // Every other claims to be a neighbour.
        if rng.bool() && bytes.len() >= 6 {
            bytes[..6].copy_from_slice(name(1).as_bytes());
        }
        datagrams.push(bytes);
    }
    send_all(&trial, &datagrams);
    let refused = [
        DropReason::Malformed,
        DropReason::UnknownSender,
        DropReason::Forged,
    ];
    let total = || {
        refused
            .iter()
            .map(|&reason| dropped(&trial, 0, reason))
            .sum::<u64>()
    };
    assert!(wait_until(|| total() == 300), "{} refused", total());
    for reason in refused {
        assert!(dropped(&trial, 0, reason) > 0, "{reason}");
    }
    transfer(&trial, 0, 1, Trial::address(1).into(), 300_000);
    check_balance(&trial);
}

/// Returns a tunnel as the neighbour has it, to make packets that open. The neighbour must be
/// silent, since no counter may be used twice; those of what it has sent before are skipped.
fn neighbour(key: Option<[u8; 32]>) -> Tunnel {
    let tunnel = Tunnel::new(TunnelConfig {
        id: LinkId(9),
        us: name(1),
        peer: name(0),
        key: key.map(proto::crypto::SessionKey::from_bytes),
        dialled: false,
        remote: None,
    });
    for _ in 0..1000 {
        packet(&tunnel, &[]);
    }
    tunnel
}

fn packet(tunnel: &Tunnel, frames: &[(usize, usize, &[u8])]) -> Vec<u8> {
    let mut builder = PacketBuilder::new(tunnel, proto::sleeve::Channel::Df);
    let mut packet = vec![0; 2000];
    for &(source, dest, frame) in frames {
        builder
            .append(&mut packet, name(source), name(dest), frame.len())
            .unwrap()
            .copy_from_slice(frame);
    }
    let len = builder.finish(tunnel, &mut packet);
    packet.truncate(len);
    packet
}

#[test]
fn a_packet_that_comes_again_is_dropped() {
    needs_root!();
    let mut trial = Trial::pair(&Options::default()).unwrap();
    let _silent = trial.replace_by_socket(1).unwrap();
    let tunnel = neighbour(Options::default().key);
    let mut heartbeat = [0; 22];
    heartbeat[21] = 5;
    let packet = packet(&tunnel, &[(1, 0, &heartbeat)]);
    send_all(&trial, &[packet.clone(), packet]);
    assert!(wait_until(|| dropped(&trial, 0, DropReason::Replayed) == 1));
    assert_eq!(count(&trial, 0, Count::Specials), 1);
    let event = trial.hosts[0].events.try_recv().unwrap();
    let special = proto::sleeve::Special::Heartbeat(proto::types::ConnUid(5));
    assert!(
        matches!(event, DataEvent::Special { special: s, link: LinkId(1), from }
            if s == special && *from.ip() == trial.lab.hosts()[1].address && from.port() != 6783)
    );
    assert!(trial.hosts[0].events.try_recv().is_err());
}

/// Authentic packets with frames that no honest neighbour sends.
#[test]
fn odd_frames_are_dropped_one_by_one() {
    needs_root!();
    for options in sleeves() {
        let mut trial = Trial::pair(&options).unwrap();
        let silent = trial.replace_by_socket(1).unwrap();
        let tunnel = neighbour(options.key);
        let heartbeat = [0; 22];
        let good = [&[0xff; 6][..], &[2, 0, 0, 0, 0, 9], &[0x88, 0xb5, 1]].concat();
        let mut packets = vec![packet(
            &tunnel,
            &[
                (1, 0, &[]),
                (1, 0, &[0; 13]),
                // Between routers, but not from the neighbour, or not to us.
                (0, 0, &heartbeat),
                (1, 1, &heartbeat),
                // From and to peers that the mesh does not know.
                (7, 0, &good),
                (1, 7, &good),
                // From ourselves, by way of the neighbour.
                (0, 0, &good),
                (1, 0, &good),
            ],
        )];
        packets.push(packet(&tunnel, &[]));
        if options.key.is_none() {
            let mut cut = packet(&tunnel, &[(1, 0, &good)]);
            cut.truncate(cut.len() - 1);
            packets.push(cut);
        }
        let before = count(&trial, 0, Count::PacketsReceived);
        for packet in &packets {
            let to = (trial.lab.hosts()[0].address, 6783);
            silent.send_to(packet, to).unwrap();
        }
        assert!(wait_until(
            || count(&trial, 0, Count::PacketsReceived) >= before + packets.len() as u64
        ));
        let drops = |reason| dropped(&trial, 0, reason);
        assert!(wait_until(|| drops(DropReason::UnknownPeer) == 2));
        assert_eq!(drops(DropReason::Short), 2);
        assert_eq!(drops(DropReason::OwnSource), 1);
        assert_eq!(drops(DropReason::Special), 2);
        assert_eq!(
            drops(DropReason::Malformed),
            u64::from(options.key.is_none())
        );
        check_balance(&trial);
    }
}

#[test]
fn special_frames_reach_the_other_side_as_events() {
    needs_root!();
    use proto::sleeve::Special;
    for options in sleeves() {
        let mut trial = Trial::pair(&options).unwrap();
        let tunnel = &trial.hosts[0].tunnels[0];
        let sent = [
            Special::Heartbeat(proto::types::ConnUid(u64::MAX)),
            Special::MtuTest { mtu: 1414 },
            Special::FragmentationTest,
        ];
        let plane = &trial.hosts[0].plane;
        for special in sent {
            plane.send_special(tunnel, special).unwrap();
        }
        let mut got = Vec::new();
        wait_until(|| {
            while let Ok(event) = trial.hosts[1].events.try_recv() {
                if let DataEvent::Special { special, link, .. } = event {
                    assert_eq!(link, LinkId(0));
                    got.push(special);
                }
            }
            got.len() == sent.len()
        });
        got.sort_by_key(|special| special.frame_len());
        assert_eq!(got, sent);
    }
}
