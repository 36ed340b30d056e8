//! Packets that do not fit, at each place where they may not.

use std::time::Duration;

use boundary::counters::{Count, DropReason};
use boundary::forwarding::SendError;
use boundary::forwarding_event::DataEvent;
use lab::pinger::{PingOptions, Pinger};
use testbed::rig::{Options, Trial, wait_until};

use crate::support::*;

/// Before control knows the path MTU nothing is lost: the kernel's refusal is reported, and the
/// packet goes where it may be fragmented.
#[test]
fn an_unknown_path_mtu_costs_no_frame() {
    needs_root!();
    for mut options in sleeves() {
        options.path_mtu = None;
        options.mtu = 8000;
        let mut trial = Trial::pair(&options).unwrap();
        transfer(&trial, 0, 1, Trial::address(1).into(), 500_000);
        let event = trial.hosts[0].events.try_recv().unwrap();
        let link = trial.hosts[0].tunnels[0].id();
        let path_mtu = 1500;
        assert_eq!(event, DataEvent::TooBig { link, path_mtu });
        assert!(count(&trial, 0, Count::PacketsFragmented) > 0);
        assert_eq!(dropped(&trial, 0, DropReason::PathMtu), 0);
        let special = trial.hosts[0]
            .plane
            .send_special(&trial.hosts[0].tunnels[0], proto::sleeve::Special::PROBE);
        assert!(matches!(special, Err(SendError::TooBig(1500))));
        check_balance(&trial);
    }
}

/// Containers with a larger MTU than the link learn the right one by ICMP; TCP needs no answer.
#[test]
fn senders_are_told_of_a_smaller_link() {
    needs_root!();
    for mut options in sleeves() {
        options.mtu = 4000;
        let trial = Trial::pair(&options).unwrap();
        for address in Trial::addresses(1) {
            transfer(&trial, 0, 1, address, 500_000);
        }
        assert_eq!(dropped(&trial, 0, DropReason::TooBig), 0);
        assert_eq!(dropped(&trial, 0, DropReason::Oversized), 0);
        assert_eq!(count(&trial, 0, Count::PacketsFragmented), 0);
        let link_mtu = trial.hosts[0].tunnels[0].mtu();
        let mut pinger = Pinger::new(&trial.hosts[0].container).unwrap();
        for (size, passes) in [(link_mtu - 28, true), (link_mtu - 27, false)] {
            let ping = PingOptions {
                payload_bytes: size,
                dont_fragment: true,
            };
            let reply = pinger.ping(Trial::address(1), ping, Duration::from_millis(500));
            assert_eq!(reply.is_ok_and(|reply| reply.is_some()), passes, "{size}");
        }
        assert!(dropped(&trial, 0, DropReason::TooBig) > 0);
        check_balance(&trial);
    }
}

/// A relay tells the container behind another host.
#[test]
fn senders_are_told_of_a_smaller_link_further_on() {
    needs_root!();
    let trial = Trial::line(3, &Options::default()).unwrap();
    let narrow = &trial.hosts[1].tunnels[1];
    narrow.set_limits(1300 - narrow.overhead(), 1300 - 28);
    for address in Trial::addresses(2) {
        transfer(&trial, 0, 2, address, 300_000);
    }
    assert_eq!(dropped(&trial, 1, DropReason::TooBig), 0);
    let mut pinger = Pinger::new(&trial.hosts[0].container).unwrap();
    let ping = PingOptions {
        payload_bytes: 1300,
        dont_fragment: true,
    };
    let patience = Duration::from_millis(500);
    assert!(wait_until(|| {
        let _ = pinger.ping(Trial::address(2), ping, patience);
        dropped(&trial, 1, DropReason::TooBig) > 0
    }));
    check_balance(&trial);
}

/// Packets that may be fragmented are, in pieces that fit, while the kernel is not known to do it.
#[test]
fn packets_without_df_are_cut() {
    needs_root!();
    let trial = Trial::pair(&Options::default()).unwrap();
    let tunnel = &trial.hosts[0].tunnels[0];
    tunnel.set_limits(1000 - tunnel.overhead(), 1000 - 28);
    let mut pinger = Pinger::new(&trial.hosts[0].container).unwrap();
    let ping = PingOptions {
        payload_bytes: 5000,
        dont_fragment: false,
    };
    for proven in [false, true] {
        tunnel.set_fragments_proven(proven);
        let before = count(&trial, 0, Count::Made);
        let reply = pinger.ping(Trial::address(1), ping, Duration::from_secs(5));
        assert!(reply.unwrap().is_some());
        // Proven, the whole frame goes and the kernel cuts its packet.
        let made = count(&trial, 0, Count::Made) - before;
        assert_eq!(made > 2, !proven, "{made} fragments");
    }
    check_balance(&trial);
}

#[test]
fn jumbo_frames_pass_where_the_underlay_takes_them() {
    needs_root!();
    for mut options in overlays() {
        options.mtu = 8900;
        options.underlay_mtu = 9000;
        options.path_mtu = Some(9000);
        let trial = Trial::pair(&options).unwrap();
        for address in Trial::addresses(1) {
            transfer(&trial, 0, 1, address, 3_000_000);
        }
        assert_eq!(dropped(&trial, 0, DropReason::TooBig), 0);
        check_balance(&trial);
    }
}

#[test]
fn a_link_without_an_address_drops_and_says_so() {
    needs_root!();
    for options in overlays() {
        drops_what_has_no_address(&Trial::pair(&options).unwrap());
    }
}

fn drops_what_has_no_address(trial: &Trial) {
    let remote = trial.hosts[0].set_remote(0, None);
    let (from, to) = (
        udp(&trial.hosts[0].container, Trial::address(0).into()),
        udp(&trial.hosts[1].container, Trial::address(1).into()),
    );
    from.send_to(b"lost", to.local_addr().unwrap()).unwrap();
    assert!(wait_until(|| dropped(trial, 0, DropReason::NoAddress) > 0));
    trial.hosts[0].set_remote(0, remote);
    assert!(datagram_arrives(&from, &to, b"found"));
    check_balance(trial);
}

#[test]
fn small_datagrams_share_packets() {
    needs_root!();
    for options in overlays() {
        shares_packets(&Trial::pair(&options).unwrap());
    }
}

fn shares_packets(trial: &Trial) {
    let (from, to) = (
        udp(&trial.hosts[0].container, Trial::address(0).into()),
        udp(&trial.hosts[1].container, Trial::address(1).into()),
    );
    assert!(datagram_arrives(&from, &to, b"warm"));
    let mut buffer = [0; 64];
    while to.recv_from(&mut buffer).is_ok() {}
    let (frames, packets) = (
        count(trial, 0, Count::Sent),
        count(trial, 0, Count::PacketsSent),
    );
    for n in 0..2000_u32 {
        let _ = from.send_to(&n.to_be_bytes(), to.local_addr().unwrap());
    }
    let mut expected = 0;
    while let Ok((4, _)) = to.recv_from(&mut buffer) {
        let n = u32::from_be_bytes(buffer[..4].try_into().unwrap());
        assert!(n >= expected, "{n} after {expected}");
        expected = n + 1;
    }
    assert!(expected > 0);
    let (frames, packets) = (
        count(trial, 0, Count::Sent) - frames,
        count(trial, 0, Count::PacketsSent) - packets,
    );
    assert!(frames > packets, "{frames} frames in {packets} packets");
    check_balance(trial);
}

/// Packets that wait for a slow neighbour stay in order, and what exceeds all patience is dropped
/// and counted.
#[test]
fn bursts_are_held_back() {
    needs_root!();
    let options = Options {
        burst_packets: 8,
        ..Options::default()
    };
    let trial = Trial::pair(&options).unwrap();
    for address in Trial::addresses(1) {
        transfer(&trial, 0, 1, address, 1_000_000);
    }
    let sends = count(&trial, 0, Count::SendBatches);
    let packets = count(&trial, 0, Count::PacketsSent);
    assert!(packets <= 8 * sends, "{packets} packets in {sends} sends");
    let (from, to) = (
        udp(&trial.hosts[0].container, Trial::address(0).into()),
        udp(&trial.hosts[1].container, Trial::address(1).into()),
    );
    assert!(wait_until(|| {
        for _ in 0..1000 {
            let _ = from.send_to(&[3; 1300], to.local_addr().unwrap());
        }
        dropped(&trial, 0, DropReason::Congested) > 0
    }));
    check_balance(&trial);
}

/// Containers of whatever MTU reach each other, though none of them hears of the overlay's.
#[test]
fn containers_of_any_mtu_talk() {
    needs_root!();
    for mut options in overlays() {
        options.mtu = TAP_MTU_MAX;
        options.container_mtus = vec![1500, 9000, 65535, 1376];
        options.trusted_mtu = Some(1376);
        let edges = [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)];
        let trial = Trial::new(4, &edges, &options).unwrap();
        for (from, to) in [(0, 1), (1, 0), (0, 2), (2, 1), (2, 3), (3, 2)] {
            let mut pinger = Pinger::new(&trial.hosts[from].container).unwrap();
            for payload_bytes in [1350, 1400, 1472, 8972, 20_000, 60_000] {
                let ping = PingOptions {
                    payload_bytes,
                    dont_fragment: false,
                };
                let answered = wait_until(|| {
                    let patience = Duration::from_secs(1);
                    let reply = pinger.ping(Trial::address(to), ping, patience);
                    reply.is_ok_and(|reply| reply.is_some())
                });
                assert!(answered, "{payload_bytes} bytes from {from} to {to}");
            }
            for address in Trial::addresses(to) {
                transfer(&trial, from, to, address, 2_000_000);
            }
        }
        check_balance(&trial);
    }
}

/// The largest MTU that a TAP device takes.
const TAP_MTU_MAX: u32 = 65521;
