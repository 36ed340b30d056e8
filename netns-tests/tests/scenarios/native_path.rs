//! What happens to native links while frames travel: keys are replaced, addresses change, the path
//! gets narrow; and what becomes of every frame.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use kernel::sys::ethtool::Offload;
use kernel::sys::packet::PacketSocket;
use lab::host::{HostOptions, Place};
use netns_tests::{
    Capture, Container, Kind, Launch, Mesh, frame, members, needs_root, peer_name, wait,
};
use serde_json::Value;

/// Returns what a router says of its connection to the peer on another host.
fn facts(mesh: &Mesh, host: usize, to: usize) -> Option<Value> {
    let status = mesh.get_json(host, "/status/weft")?;
    let connections = status["connections"].as_array()?;
    let name = peer_name(to);
    let mut connections = connections.iter();
    let found = connections.find(|c| c["peer"] == name.as_str() && c["state"] == "established")?;
    Some(found.clone())
}

#[track_caller]
fn wait_native(mesh: &Mesh, pairs: &[(usize, usize)]) {
    for (a, b) in pairs {
        for (host, to) in [(*a, *b), (*b, *a)] {
            wait::until_true("the native overlay is in use", wait::LATER, || {
                facts(mesh, host, to).is_some_and(|facts| facts["overlay"] == "weft")
            });
        }
    }
}

/// Returns what a router says of the native overlay towards the peer on another host.
fn native(mesh: &Mesh, host: usize, to: usize) -> Value {
    let facts = facts(mesh, host, to).unwrap();
    let overlays = facts["overlays"].as_array().unwrap();
    let native = overlays.iter().find(|overlay| overlay["overlay"] == "weft");
    native.unwrap().clone()
}

/// Sends numbered datagrams at an even rate while `work` goes on, and returns how many were sent
/// and which of them arrived, each as often as it did.
fn stream<T>(from: &Container, to: &Container, work: impl FnOnce() -> T) -> (u32, Vec<u32>, T) {
    // Not from a capture, whose socket would lose some when there is much else to see.
    let open = |at: &Container| {
        at.namespace
            .run(|| UdpSocket::bind((at.address, 0)))
            .unwrap()
    };
    let (source, sink) = (open(from).unwrap(), open(to).unwrap());
    sink.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    source.connect(sink.local_addr().unwrap()).unwrap();
    let stopping = AtomicBool::new(false);
    let last = AtomicU32::new(u32::MAX);
    std::thread::scope(|scope| {
        let sender = scope.spawn(|| {
            let mut number = 0_u32;
            while !stopping.load(Ordering::Relaxed) {
                let mut payload = [0xa5; 250];
                payload[..4].copy_from_slice(&number.to_be_bytes());
                source.send(&payload).unwrap();
                number += 1;
                std::thread::sleep(FRAME_INTERVAL);
            }
            last.store(number - 1, Ordering::Relaxed);
            number
        });
        let receiver = scope.spawn(|| {
            let (mut arrived, mut buffer) = (Vec::new(), [0; 300]);
            let mut quiet = 0;
            while arrived.last() != Some(&last.load(Ordering::Relaxed)) && quiet < 20 {
                match sink.recv(&mut buffer) {
                    Ok(_) => arrived.push(u32::from_be_bytes(*buffer.first_chunk().unwrap())),
                    Err(_) if stopping.load(Ordering::Relaxed) => quiet += 1,
                    Err(_) => {}
                }
            }
            arrived
        });
        let result = work();
        stopping.store(true, Ordering::Relaxed);
        (sender.join().unwrap(), receiver.join().unwrap(), result)
    })
}

/// Every frame arrived once.
#[track_caller]
fn nothing_lost(sent: u32, mut arrived: Vec<u32>) {
    arrived.sort_unstable();
    let missing: Vec<u32> = (0..sent)
        .filter(|n| arrived.binary_search(n).is_err())
        .collect();
    assert!(
        missing.is_empty(),
        "of {sent} frames these are missing: {missing:?}"
    );
    assert_eq!(arrived.len(), sent as usize, "some arrived twice");
}

/// Keys are replaced, as one end or the other wants, and no frame is lost or comes twice.
#[track_caller]
fn keys_are_replaced_under_traffic(hasty: usize, how: &str) {
    needs_root!();
    let plain = Launch::new().password("a secret");
    let mut launches = [plain.clone(), plain];
    launches[hasty] = launches[hasty].clone().with(how);
    let [accepting, dialling] = launches;
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &accepting);
    let peer = mesh.address(0);
    mesh.launch(1, &dialling.peer(peer));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    wait_native(&mesh, &[(0, 1)]);
    a.must_reach(&b);
    // A report may come before its key at the very start.
    let before = [drops(&mesh, 0), drops(&mesh, 1)];
    let epochs =
        || [(0, 1), (1, 0)].map(|(host, to)| native(&mesh, host, to)["key_epoch"].as_u64());
    let ((sent, arrived, ()), (sent_back, arrived_back, ())) = std::thread::scope(|scope| {
        let back = scope.spawn(|| {
            stream(&b, &a, || {
                wait::until_true("keys are replaced twice", wait::LATER, || {
                    epochs().iter().all(|epoch| *epoch >= Some(2))
                });
                std::thread::sleep(Duration::from_millis(500));
            })
        });
        let out = stream(&a, &b, || {
            while !back.is_finished() {
                a.send_tcp(&b, 1 << 20);
                std::thread::sleep(Duration::from_millis(200));
            }
        });
        (out, back.join().unwrap())
    });
    println!("{sent} and {sent_back} frames, {:?} epochs", epochs());
    nothing_lost(sent, arrived);
    nothing_lost(sent_back, arrived_back);
    assert_eq!(facts(&mesh, 0, 1).unwrap()["overlay"], "weft");
    for (host, before) in before.iter().enumerate() {
        let drops = drops(&mesh, host);
        for reason in ["unknown_session", "forged", "replayed", "key_worn"] {
            assert_eq!(drops[reason], before[reason], "{drops}");
        }
    }
}

#[test]
fn keys_are_replaced_by_time_of_the_acceptor() {
    keys_are_replaced_under_traffic(0, "--rekey-seconds=10");
}

#[test]
fn keys_are_replaced_by_time_of_the_dialler() {
    keys_are_replaced_under_traffic(1, "--rekey-seconds=10");
}

#[test]
fn keys_are_replaced_by_volume_of_the_acceptor() {
    keys_are_replaced_under_traffic(0, "--rekey-datagrams=1000");
}

#[test]
fn keys_are_replaced_by_volume_of_the_dialler() {
    keys_are_replaced_under_traffic(1, "--rekey-datagrams=1000");
}

/// Returns how many frames and packets a router dropped, by reason.
fn drops(mesh: &Mesh, host: usize) -> Value {
    mesh.get_json(host, "/status/weft").unwrap()["data"]["drops"].clone()
}

/// One end without instructions for AES is enough for both to use the other cipher.
#[test]
fn without_aes_on_one_side() {
    needs_root!();
    let plain = Launch::new().password("a secret");
    let without = plain.clone().with("--no-offload=aes");
    for launches in [[&plain, &without], [&without, &plain], [&without, &without]] {
        let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
        mesh.launch(0, launches[0]);
        let peer = mesh.address(0);
        mesh.launch(1, &launches[1].clone().peer(peer));
        let [a, b] = [mesh.attach(0), mesh.attach(1)];
        mesh.wait_routed(&[0, 1]);
        wait_native(&mesh, &[(0, 1)]);
        for (host, to) in [(0, 1), (1, 0)] {
            let facts = facts(&mesh, host, to).unwrap();
            assert_eq!(facts["cipher"], "chacha20-poly1305");
        }
        a.send_tcp(&b, 2 << 20);
        b.send_udp(&a, 20_000);
        assert_eq!(a.count_answers(&b, 20), 20);
        assert_eq!(facts(&mesh, 0, 1).unwrap()["overlay"], "weft");
    }
}

/// Has the router between hosts show the native and sleeve datagrams of one as from this port.
/// Without state, so that nothing is left of the mapping before.
fn show_from(mesh: &Mesh, host: usize, port: u16) {
    let (inner, outer) = (mesh.address(host), OUTER);
    let rules = format!(
        "table ip mapping {{ }}; delete table ip mapping; table ip mapping {{ \
         chain arriving {{ type filter hook prerouting priority raw; \
         ip saddr {inner} udp sport 6783 notrack; \
         ip daddr {outer} udp dport {port} notrack ip daddr set {inner} udp dport set 6783; }}; \
         chain leaving {{ type filter hook postrouting priority srcnat; \
         ip saddr {inner} udp sport 6783 ip saddr set {outer} udp sport set {port}; }}; }}"
    );
    let nft = mesh
        .lab
        .switch()
        .spawn(Command::new("nft").arg(rules))
        .unwrap();
    assert!(nft.wait_with_output().unwrap().status.success());
}

/// Returns where a router sends native datagrams for the peer on another host.
fn remote(mesh: &Mesh, host: usize, to: usize) -> String {
    let native = native(mesh, host, to);
    native["remote"].as_str().unwrap_or_default().to_owned()
}

/// A router that hides a host behind its own address begins to use another port in the middle of
/// everything.
#[test]
fn mapping_changes_in_mid_flow() {
    needs_root!();
    let hidden = HostOptions {
        place: Place::Nat,
        ..HostOptions::default()
    };
    let mut mesh = Mesh::with_hosts(&[(Kind::Weft, hidden), (Kind::Weft, HostOptions::default())]);
    show_from(&mesh, 0, 40_001);
    let launch = Launch::new().password("a secret");
    mesh.launch(1, &launch);
    let peer = mesh.address(1);
    mesh.launch(0, &launch.peer(peer));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    wait_native(&mesh, &[(0, 1)]);
    assert_eq!(remote(&mesh, 1, 0), format!("{OUTER}:40001"));
    a.must_reach(&b);
    for port in 40_002..40_005 {
        let ((sent, arrived, ()), (sent_back, mut arrived_back, took)) =
            std::thread::scope(|scope| {
                let back = scope.spawn(|| {
                    stream(&b, &a, || {
                        std::thread::sleep(Duration::from_millis(300));
                        show_from(&mesh, 0, port);
                        let start = Instant::now();
                        wait::until_true("the new address is followed", wait::SOON, || {
                            remote(&mesh, 1, 0) == format!("{OUTER}:{port}")
                        });
                        let took = start.elapsed();
                        std::thread::sleep(Duration::from_millis(300));
                        took
                    })
                });
                let out = stream(&a, &b, || {
                    while !back.is_finished() {
                        std::thread::sleep(Duration::from_millis(20));
                    }
                });
                (out, back.join().unwrap())
            });
        nothing_lost(sent, arrived);
        arrived_back.sort_unstable();
        arrived_back.dedup();
        let lost = sent_back as usize - arrived_back.len();
        println!("port {port} is followed, seen after {took:?}, {lost} of {sent_back} frames lost");
        // What left before a datagram from the new port had come, with time for a busy machine.
        assert!(lost < 100, "{lost}");
        assert!(mesh.log(1).contains(&format!("{OUTER}:{port}")));
    }
    a.send_tcp(&b, 4 << 20);
    assert_eq!(facts(&mesh, 1, 0).unwrap()["overlay"], "weft");
    let downgrades = mesh.get_json(1, "/status/weft").unwrap()["downgrades"].clone();
    assert_eq!(downgrades["unanswered"], 0);
}

/// Genuine datagrams that come once more from another address, and such as would be genuine but
/// for a bit, move nobody.
#[test]
fn copies_from_elsewhere_move_nobody() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    wait_native(&mesh, &[(0, 1)]);
    a.must_reach(&b);
    let before = remote(&mesh, 1, 0);
    let victim = mesh.address(1).octets();
    let wire = Capture::of(mesh.namespace(1), "eth0", move |packet| {
        // Whole ones to the victim.
        frame::is_native(packet) && packet[30..34] == victim && packet.len() <= 1514
    });
    let (sent, arrived, ()) = stream(&a, &b, || std::thread::sleep(Duration::from_millis(300)));
    nothing_lost(sent, arrived);
    let genuine = wire.all(|_| true);
    assert!(genuine.len() > 50);
    let switch = mesh.lab.switch();
    let port = switch.netlink().unwrap().link_named("port1").unwrap();
    let open = || PacketSocket::open(port.index.0, false).unwrap();
    let forger = switch.run(open).unwrap();
    let count = |reason: &str| drops(&mesh, 1)[reason].as_u64().unwrap_or_default();
    let (sent, arrived, ()) = stream(&a, &b, || {
        for packet in &genuine {
            forger.send(&from_elsewhere(packet.clone())).unwrap();
            // With a counter that is far ahead of all.
            let mut ahead = packet.clone();
            ahead[42 + 12] ^= 0x40;
            forger.send(&from_elsewhere(ahead)).unwrap();
            assert_eq!(remote(&mesh, 1, 0), before);
        }
    });
    nothing_lost(sent, arrived);
    let copies = genuine.len() as u64;
    assert_eq!((count("replayed"), count("forged")), (copies, copies));
    assert_eq!(remote(&mesh, 1, 0), before);
    assert!(!mesh.log(1).contains(ELSEWHERE));
}

/// Creates the packet, as from another address and port, without UDP checksum.
fn from_elsewhere(mut packet: Vec<u8>) -> Vec<u8> {
    let address: std::net::Ipv4Addr = ELSEWHERE.parse().unwrap();
    packet[26..30].copy_from_slice(&address.octets());
    packet[34..36].copy_from_slice(&7777_u16.to_be_bytes());
    packet[40..42].fill(0);
    packet[24..26].fill(0);
    let words = packet[14..34].chunks(2);
    let sum: u32 = words
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    packet[24..26].copy_from_slice(&(!(sum as u16)).to_be_bytes());
    packet
}

/// Takes every packet on a host's port of the switch that is larger than so much, without a word.
/// For links on which packets have the size that they have on a real wire.
fn swallow(mesh: &Mesh, host: usize, larger: Option<u32>) {
    let rules = match larger {
        Some(bytes) => format!(
            "table bridge hole {{ }}; delete table bridge hole; table bridge hole {{ chain through {{ \
             type filter hook forward priority 0; \
             oifname port{host} ip length > {bytes} counter drop; \
             iifname port{host} ip length > {bytes} counter drop; }}; }}"
        ),
        None => "delete table bridge hole".to_owned(),
    };
    switch(mesh, Command::new("nft").arg(rules));
}

fn switch(mesh: &Mesh, command: &mut Command) -> String {
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let child = mesh.lab.switch().spawn(command).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// Packets on the links of all hosts have their real sizes. The kernel cuts trains of datagrams for
/// devices that do not complete checksums.
fn cut_by_senders(mesh: &Mesh) {
    for host in 0..mesh.lab.hosts().len() {
        for offload in [
            Offload::TcpSegmentation,
            Offload::GenericSegmentation,
            Offload::TxChecksum,
        ] {
            mesh.lab.set_offload(host, offload, false).unwrap();
        }
    }
}

/// In the middle of a transfer the path begins to take packets of 1300 bytes only, without a word.
/// The transfer goes on.
#[test]
fn black_hole_in_mid_transfer() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    cut_by_senders(&mesh);
    mesh.launch_all(&[&[], &[0]], &Launch::new().password("a secret"));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    wait_native(&mesh, &[(0, 1)]);
    wait::until_true("the path is measured", wait::SOON, || {
        native(&mesh, 0, 1)["mtu"] == 1410
    });
    let pauses = Transfer::run(&a, &b, || {
        std::thread::sleep(Duration::from_secs(2));
        swallow(&mesh, 1, Some(1300));
        std::thread::sleep(Duration::from_secs(8));
    });
    let counters = switch(
        &mesh,
        Command::new("nft").args(["list", "table", "bridge", "hole"]),
    );
    assert!(
        !counters.contains("packets 0 "),
        "nothing was too large: {counters}"
    );
    println!("longest pauses: {pauses:?}; {counters}");
    assert!(pauses[0] < Duration::from_secs(3), "{pauses:?}");
    assert_eq!(native(&mesh, 0, 1)["mtu"], 1210);
    let status = mesh.get_json(0, "/status/weft").unwrap();
    assert_eq!(
        status["downgrades"]["unanswered"], 0,
        "reports are small and get through"
    );
    swallow(&mesh, 1, None);
    a.send_tcp(&b, 4 << 20);
}

/// Bytes that flow as fast as they can.
struct Transfer;

impl Transfer {
    /// Sends while `work` goes on. Returns the longest times in which nothing arrived, longest
    /// first; that up to the end counts.
    fn run(from: &Container, to: &Container, work: impl FnOnce()) -> Vec<Duration> {
        let listen = || TcpListener::bind((to.address, 0)).unwrap();
        let listener = to.namespace.run(listen).unwrap();
        let target = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&target, wait::SOON).unwrap();
        let mut out = from.namespace.run(connect).unwrap();
        let (mut into, _) = listener.accept().unwrap();
        into.set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        out.set_write_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        let stopping = AtomicBool::new(false);
        let mut pauses = std::thread::scope(|scope| {
            scope.spawn(|| {
                let data = vec![0x5a; 1 << 16];
                while !stopping.load(Ordering::Relaxed) {
                    // What waits for room is tried again.
                    let _ = out.write(&data);
                }
            });
            let receiver = scope.spawn(|| {
                let (mut pauses, mut buffer) = (Vec::new(), vec![0; 1 << 18]);
                let mut before = Instant::now();
                while !stopping.load(Ordering::Relaxed) {
                    if into.read(&mut buffer).is_ok_and(|length| length > 0) {
                        pauses.push(before.elapsed());
                        before = Instant::now();
                    }
                }
                pauses.push(before.elapsed());
                pauses
            });
            work();
            stopping.store(true, Ordering::Relaxed);
            receiver.join().unwrap()
        });
        pauses.sort_unstable_by(|a, b| b.cmp(a));
        pauses.truncate(4);
        pauses
    }
}

/// On the way back from sleeve no frame is lost and none comes twice.
#[test]
fn way_back_loses_nothing() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    let block = "table ip native { chain in { type filter hook input priority 0; \
                 udp dport 6783 @th,64,48 0 drop; }; }";
    mesh.run(1, Command::new("nft").arg(block)).ok();
    mesh.launch_all(&[&[], &[0]], &Launch::new().password("a secret"));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    assert_eq!(facts(&mesh, 0, 1).unwrap()["overlay"], "sleeve");
    let there = || {
        let unblock = "delete table ip native";
        mesh.run(1, Command::new("nft").arg(unblock)).ok();
        wait_native(&mesh, &[(0, 1)]);
        std::thread::sleep(Duration::from_millis(500));
    };
    let ((sent, arrived, ()), (sent_back, arrived_back, ())) = std::thread::scope(|scope| {
        let back = scope.spawn(|| stream(&b, &a, there));
        let out = stream(&a, &b, || {
            while !back.is_finished() {
                a.send_tcp(&b, 1 << 20);
                std::thread::sleep(Duration::from_millis(100));
            }
        });
        (out, back.join().unwrap())
    });
    println!("{sent} and {sent_back} frames");
    nothing_lost(sent, arrived);
    nothing_lost(sent_back, arrived_back);
}

/// What comes in or is made goes out or is dropped for a reason that is told, on every router,
/// whatever comes.
fn every_frame_is_accounted_for(kinds: &[Kind]) {
    for off in ["", "gso,gro,tap"] {
        let mut mesh = Mesh::new(kinds);
        let stranger = mesh.add_host(Kind::Weft, HostOptions::default());
        mesh.lab.set_mtu(2, 1400).unwrap();
        let mut launch = Launch::new().with("--no-discovery");
        if !off.is_empty() {
            launch = launch.with(&format!("--no-offload={off}"));
        }
        mesh.launch_all(&[&[], &[0], &[1]], &launch);
        let containers = [mesh.attach(0), mesh.attach(1), mesh.attach(2)];
        mesh.wait_routed(&[0, 1, 2]);
        let [first, middle, last] = &containers;
        first.must_reach(last);
        for (from, to) in [(first, last), (last, first), (middle, last)] {
            from.send_tcp(to, 2 << 20);
            from.send_udp(to, 20_000);
            from.send_multicast(to, 500);
            from.send_ipv6(to, 8000);
            // Larger than a link takes, with and without leave to cut it.
            from.ping(to, 1376, true);
            from.ping(to, 1376, false);
        }
        throw_frames(first, last);
        throw_datagrams(&mesh, stranger, 1);
        for host in 0..3 {
            let mut last = Value::Null;
            let balanced = wait::within(wait::SOON, || {
                last = mesh.get_json(host, "/status/weft")?["data"].clone();
                let (came, went) = balance(&last);
                (came == went && came > 0).then_some(())
            });
            println!("host {host}: {}", last["drops"]);
            assert!(
                balanced.is_some(),
                "host {host}: {:?}, {last}",
                balance(&last)
            );
        }
        let dropped = drops(&mesh, 1);
        for reason in ["malformed", "unknown_session", "unknown_sender"] {
            assert!(dropped[reason].as_u64() > Some(0), "{reason}: {dropped}");
        }
    }
}
members!(every_frame_is_accounted_for: native [Weft Weft Weft], sleeve_first [Sleeve Weft Weft],
    sleeve [Sleeve Sleeve Sleeve]);

/// Frames that came in or were made, and those that went out or were dropped.
fn balance(data: &Value) -> (u64, u64) {
    let count = |name: &str| data["counters"][name].as_u64().unwrap();
    let drops = data["drops"].as_object().unwrap().iter();
    let frames = drops.filter(|(reason, _)| !COUNTED_BY_PACKET.contains(&reason.as_str()));
    let dropped: u64 = frames.map(|(_, number)| number.as_u64().unwrap()).sum();
    (
        count("captured") + count("received") + count("made"),
        count("injected") + count("sent") + count("specials") + dropped,
    )
}

/// Reasons for which packets are dropped whole, of which nobody knows what is in them.
const COUNTED_BY_PACKET: [&str; 6] = [
    "malformed",
    "truncated",
    "unknown_sender",
    "forged",
    "replayed",
    "unknown_session",
];

/// Frames as no kernel makes them: cut off, of unknown kinds, for nobody, from many.
fn throw_frames(from: &Container, to: &Container) {
    let socket = from.frames();
    let mut random = fastrand::Rng::with_seed(3);
    let mut noise = [0; 1400];
    let ip = |protocol: u8, options: u8| {
        let mut packet = vec![0x40 | (5 + options), 0, 0, 0, 0, 0, 0x40, 0, 64, protocol];
        packet.resize(20 + usize::from(options) * 4, 7);
        packet
    };
    for round in 0..200 {
        random.fill(&mut noise);
        let mut source = *from.mac.as_bytes();
        source[5] ^= round as u8;
        for target in [
            to.mac.as_bytes(),
            frame::BROADCAST.as_bytes(),
            &[2, 9, 9, 9, 9, 9],
        ] {
            for kind in [
                &[8, 0][..],
                &[0x86, 0xdd],
                &[0x81, 0, 0, 5, 8, 0],
                &[0x88, 0xb5],
            ] {
                let head = match round % 3 {
                    0 => ip(6, (round % 10) as u8),
                    1 => ip(17, 0),
                    _ => Vec::new(),
                };
                let length = random.usize(..noise.len() - head.len());
                let frame = [target, &source[..], kind, &head, &noise[..length]].concat();
                // One that the bridge or the device refuses has not come in.
                let _ = socket.send(&frame);
            }
        }
    }
}

/// Datagrams as no router makes them.
fn throw_datagrams(mesh: &Mesh, from: usize, to: usize) {
    let open = || UdpSocket::bind((mesh.address(from), 0)).unwrap();
    let socket = mesh.namespace(from).run(open).unwrap();
    let target = (mesh.address(to), 6783);
    let mut random = fastrand::Rng::with_seed(4);
    for length in (0..200).chain([1000, 1400]) {
        for start in [
            &[0; 6][..],
            &[0, 0, 0, 0, 0, 0, 0x10, 0],
            &[2, 0, 0, 0, 0, 1],
            &[7; 6],
        ] {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            let end = length.min(start.len());
            bytes[..end].copy_from_slice(&start[..end]);
            socket.send_to(&bytes, target).unwrap();
        }
    }
}

/// The address by which the lab's router shows hosts that it hides.
const OUTER: &str = "172.30.255.254";
const ELSEWHERE: &str = "172.30.77.77";
const FRAME_INTERVAL: Duration = Duration::from_millis(1);
