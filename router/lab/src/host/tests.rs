use std::time::{Duration, Instant};

use super::*;
use crate::pinger::{PingOptions, Pinger};
use crate::throughput::{self, Packets};
use testbed::root::needs_root;

/// After a cut it may take a second until a host asks again for the MAC address of another.
fn reaches(lab: &Lab, from: usize, to: usize) -> bool {
    answers(lab, from, to, Duration::from_secs(5))
}

fn is_cut(lab: &Lab, from: usize, to: usize) -> bool {
    !answers(lab, from, to, Duration::from_millis(200))
}

fn answers(lab: &Lab, from: usize, to: usize, within: Duration) -> bool {
    let mut pinger = Pinger::new(&lab.hosts()[from].namespace).unwrap();
    let deadline = Instant::now() + within;
    let interval = Duration::from_millis(100);
    pinger
        .wait_for(lab.hosts()[to].address, interval, deadline)
        .unwrap()
        .is_some()
}

fn passes(lab: &Lab, from: usize, to: usize, packet_bytes: usize) -> bool {
    let deadline = Instant::now() + Duration::from_secs(5);
    while Instant::now() < deadline {
        if !is_stopped(lab, from, to, packet_bytes) {
            return true;
        }
    }
    false
}

fn is_stopped(lab: &Lab, from: usize, to: usize, packet_bytes: usize) -> bool {
    let mut pinger = Pinger::new(&lab.hosts()[from].namespace).unwrap();
    let options = PingOptions {
        payload_bytes: packet_bytes - 28,
        dont_fragment: true,
    };
    let address = lab.hosts()[to].address;
    let timeout = Duration::from_millis(200);
    pinger.ping(address, options, timeout).unwrap().is_none()
}

fn lab(hosts: &[HostOptions]) -> Lab {
    let mut lab = Lab::new(None).unwrap();
    for host in hosts {
        lab.add_host(*host).unwrap();
    }
    lab
}

#[test]
fn all_hosts_reach_each_other() {
    needs_root!();
    let lab = lab(&[HostOptions::default(); 4]);
    for from in 0..4 {
        for to in 0..4 {
            assert!(reaches(&lab, from, to), "{from} to {to}");
        }
    }
}

#[test]
fn links_are_cut_and_pairs_are_blocked() {
    needs_root!();
    let mut lab = lab(&[HostOptions::default(); 3]);
    lab.set_link(0, false).unwrap();
    assert!(is_cut(&lab, 0, 1));
    assert!(reaches(&lab, 1, 2));
    lab.set_link(0, true).unwrap();
    assert!(reaches(&lab, 0, 1));

    lab.block(0, 1).unwrap();
    assert!(is_cut(&lab, 0, 1) && is_cut(&lab, 1, 0));
    assert!(reaches(&lab, 0, 2) && reaches(&lab, 1, 2));
    lab.unblock(0, 1).unwrap();
    assert!(reaches(&lab, 0, 1));

    lab.set_loss(2, 1_000_000).unwrap();
    assert!(is_cut(&lab, 0, 2));
    assert!(reaches(&lab, 0, 1));
    lab.heal().unwrap();
    assert!(reaches(&lab, 0, 2));
}

#[test]
fn some_packets_are_lost() {
    needs_root!();
    let mut lab = lab(&[HostOptions::default(); 2]);
    lab.set_loss(1, 300_000).unwrap();
    let packets = Packets {
        payload_bytes: 20,
        per_second: Some(5000),
    };
    let [a, b] = [&lab.hosts()[0], &lab.hosts()[1]];
    let time = Duration::from_millis(200);
    let to = b.address.into();
    let transfer = throughput::udp(&a.namespace, &b.namespace, to, packets, time).unwrap();
    assert!(transfer.packets_sent > 100, "{transfer:?}");
    assert!(
        (0.15..0.45).contains(&transfer.loss()),
        "{}",
        transfer.loss()
    );
}

#[test]
fn partitions_split_and_heal() {
    needs_root!();
    let mut lab = lab(&[HostOptions::default(); 5]);
    lab.partition(&[&[0, 1], &[2, 3]]).unwrap();
    assert!(reaches(&lab, 0, 1) && reaches(&lab, 3, 2));
    assert!(is_cut(&lab, 1, 2) && is_cut(&lab, 4, 0));
    lab.heal().unwrap();
    assert!(reaches(&lab, 1, 2) && reaches(&lab, 4, 0));
}

#[test]
fn small_mtus_stop_large_packets() {
    needs_root!();
    let small = HostOptions {
        mtu: 1300,
        place: Place::Switch,
    };
    let routed = HostOptions {
        mtu: 1500,
        place: Place::Router,
    };
    let lab = lab(&[HostOptions::default(), small, routed]);
    assert!(passes(&lab, 0, 1, 1300) && is_stopped(&lab, 0, 1, 1301));
    assert!(passes(&lab, 0, 2, 1500));
    lab.set_port_mtu(2, 1400).unwrap();
    assert!(passes(&lab, 0, 2, 1400) && is_stopped(&lab, 0, 2, 1401));
    // The router told the sender, so that now the sender's own kernel refuses.
    let address = lab.hosts()[2].address;
    let mtu = lab.hosts()[0].namespace.run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.connect((address, 9)).unwrap();
        rustix::net::sockopt::ip_mtu(&socket).unwrap()
    });
    assert_eq!(mtu.unwrap(), 1400);
    lab.set_mtu(1, 1500).unwrap();
    assert!(passes(&lab, 0, 1, 1500));
}

#[test]
fn address_translation_hides_hosts() {
    needs_root!();
    let hidden = HostOptions {
        mtu: 1500,
        place: Place::Nat,
    };
    let lab = lab(&[HostOptions::default(), hidden]);
    let open = || std::net::UdpSocket::bind("0.0.0.0:7777").unwrap();
    let outside = lab.hosts()[0].namespace.run(open).unwrap();
    let inside = lab.hosts()[1].namespace.run(open).unwrap();
    outside
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    inside
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    inside
        .send_to(b"hello", (lab.hosts()[0].address, 7777))
        .unwrap();
    let mut buffer = [0; 16];
    let (_, from) = outside.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), GATEWAY);
    outside.send_to(b"back", from).unwrap();
    let (length, from) = inside.recv_from(&mut buffer).unwrap();
    assert_eq!(&buffer[..length], b"back");
    assert_eq!(from.ip(), lab.hosts()[0].address);
}

#[test]
fn streams_and_packets_are_counted() {
    needs_root!();
    let lab = lab(&[HostOptions::default(); 2]);
    let [a, b] = [&lab.hosts()[0], &lab.hosts()[1]];
    let time = Duration::from_millis(150);
    let to = b.address.into();
    let transfer = throughput::tcp(&a.namespace, &b.namespace, to, 2, time).unwrap();
    assert!(transfer.bytes > 1_000_000, "{transfer:?}");
    assert!(transfer.time >= time / 2 && transfer.sender_cpu > Duration::ZERO);

    let paced = Packets {
        payload_bytes: 100,
        per_second: Some(1000),
    };
    let transfer = throughput::udp(&a.namespace, &b.namespace, to, paced, time).unwrap();
    assert!((50..=160).contains(&transfer.packets), "{transfer:?}");
    assert_eq!(transfer.bytes, transfer.packets * 100);
    assert_eq!(transfer.packets_sent, transfer.packets);
    assert_eq!(transfer.loss(), 0.0);
    assert!(throughput::process_cpu(std::process::id()).unwrap() > Duration::ZERO);
}

#[test]
fn processes_end_with_the_lab() {
    needs_root!();
    let lab = lab(&[HostOptions::default()]);
    let mut sleep = Command::new("sleep");
    sleep.arg("60");
    let mut first = lab.spawn(0, &mut sleep).unwrap();
    // A grandchild whose parent ends belongs to nobody, but still to the lab.
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "sleep 60 & echo $!"])
        .stdout(std::process::Stdio::piped());
    let mut shell = lab.spawn(0, &mut shell).unwrap();
    let mut line = String::new();
    let mut output = std::io::BufReader::new(shell.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut output, &mut line).unwrap();
    let orphan = PathBuf::from(format!("/proc/{}/environ", line.trim()));
    let lives = || fs::read(&orphan).is_ok_and(|environment| !environment.is_empty());
    while !lives() {
        thread::sleep(Duration::from_millis(1));
    }

    first.terminate().unwrap();
    assert!(!first.wait().unwrap().success());
    let folder = lab.folder().to_owned();
    assert!(folder.exists());
    drop(lab);
    assert!(!folder.exists());
    assert!(!lives());
}

#[test]
fn what_a_killed_lab_left_is_removed() {
    needs_root!();
    let folder = tempfile::tempdir().unwrap();
    let folder = folder.path();
    // A process id that is in use, but since another time than this.
    let stale = format!("{}-1-0", std::process::id());
    fs::create_dir_all(folder.join(&stale).join("db")).unwrap();
    fs::create_dir_all(folder.join("not a lab")).unwrap();
    let mut left = Command::new("sleep");
    left.arg("60").env(stale::ENVIRONMENT, &stale);
    let mut left = left.spawn().unwrap();

    let lab = Lab::new(Some(folder)).unwrap();
    assert!(!folder.join(&stale).exists());
    assert!(folder.join("not a lab").exists());
    assert!(!left.wait().unwrap().success());
    let own = lab.folder().to_owned();
    assert_eq!(remove_stale(folder).unwrap(), 0);
    assert!(own.exists());
}

#[test]
fn offloads_can_be_switched() {
    needs_root!();
    use kernel::sys::ethtool::{Offload, offload};
    let lab = lab(&[HostOptions::default()]);
    let get = |which| {
        lab.hosts()[0]
            .namespace
            .run(|| offload("eth0", which).unwrap())
    };
    assert!(get(Offload::TcpSegmentation).unwrap());
    for which in [Offload::TcpSegmentation, Offload::TxChecksum] {
        lab.set_offload(0, which, false).unwrap();
        assert!(!get(which).unwrap());
    }
}
