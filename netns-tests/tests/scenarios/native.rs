//! The native overlay: agreed on between two of ours, left when nothing gets through, come back
//! to; and what is carried over it.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns_tests::{
    Capture, Container, Kind, Launch, Mesh, frame, members, needs_root, overlay, peer_name, wait,
};
use serde_json::Value;

/// The other tests would see what they look for in everything between two routers, if these were
/// not told apart.
#[test]
fn datagrams_of_both_overlays_are_told_apart() {
    let frame = |port: u16, datagram: &[u8]| {
        let mut frame = vec![0; 42];
        frame[12..15].copy_from_slice(&[8, 0, 0x45]);
        frame[23] = frame::UDP;
        frame[34..36].copy_from_slice(&40_000_u16.to_be_bytes());
        frame[36..38].copy_from_slice(&port.to_be_bytes());
        frame.extend_from_slice(datagram);
        frame
    };
    let kinds = |frame: &[u8]| (frame::is_sleeve(frame), frame::is_native(frame));
    assert_eq!(
        kinds(&frame(6783, &[2, 0, 0, 0, 0, 1, 9, 9])),
        (true, false)
    );
    assert_eq!(
        kinds(&frame(6783, &[0, 0, 0, 0, 0, 0, 0x10, 9])),
        (false, true)
    );
    assert_eq!(kinds(&frame(53, &[2, 0, 0, 0, 0, 1, 9, 9])), (false, false));
    assert_eq!(kinds(&[0; 20]), (false, false));
}

/// Returns what a router says of its connection to the peer on another host.
fn facts(mesh: &Mesh, host: usize, to: usize) -> Option<Value> {
    let status = mesh.get_json(host, "/status/weft")?;
    let connections = status["connections"].as_array()?;
    let mut connections = connections.iter();
    let found = connections.find(|c| c["peer"] == peer_name(to).as_str())?;
    Some(found.clone())
}

/// Returns the overlay that carries frames to the peer on another host.
fn active(mesh: &Mesh, host: usize, to: usize) -> Option<String> {
    let facts = facts(mesh, host, to).filter(|facts| facts["state"] == "established")?;
    Some(facts["overlay"].as_str()?.to_owned())
}

#[track_caller]
pub(crate) fn wait_active(mesh: &Mesh, pairs: &[(usize, usize)], overlay: &str) -> Duration {
    let start = Instant::now();
    for (a, b) in pairs {
        for (host, to) in [(*a, *b), (*b, *a)] {
            let what = format!("host {host} uses {overlay} towards host {to}");
            wait::until_true(&what, wait::LATER, || {
                active(mesh, host, to).as_deref() == Some(overlay)
            });
        }
    }
    start.elapsed()
}

/// A filter on a host that drops native datagrams and no other ones.
fn block_native(mesh: &Mesh, host: usize) {
    // The first six bytes behind the UDP header are the name of the sender, or zero.
    let rule = "table ip native { chain in { type filter hook input priority 0; \
                udp dport 6783 @th,64,48 0 drop; }; }";
    mesh.run(host, Command::new("nft").arg(rule)).ok();
}

fn unblock_native(mesh: &Mesh, host: usize) {
    let rule = "delete table ip native";
    mesh.run(host, Command::new("nft").arg(rule)).ok();
}

fn pair(kinds: [Kind; 2], launch: &Launch) -> (Mesh, [Container; 2]) {
    let mut mesh = Mesh::new(&kinds);
    mesh.launch_all(&[&[], &[0]], launch);
    let containers = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    (mesh, containers)
}

/// Both say within moments that frames are native, and nothing of them can be read.
#[test]
fn is_native_at_once() {
    needs_root!();
    for password in [None, Some("a secret")] {
        let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
        let launch = Launch::new().maybe_password(password);
        mesh.launch(0, &launch);
        let peer = mesh.address(0);
        let start = Instant::now();
        mesh.start(1, &launch.peer(peer));
        wait_active(&mesh, &[(0, 1)], "weft");
        let time = start.elapsed();
        println!("native after {time:?}");
        assert!(time < Duration::from_secs(3), "{time:?}");
        let [a, b] = [mesh.attach(0), mesh.attach(1)];
        mesh.wait_routed(&[0, 1]);
        a.must_reach(&b);
        let wire = Capture::start(mesh.namespace(0), "eth0");
        let arriving = b.capture();
        let socket = a.frames();
        for number in 0..20 {
            let frame = frame::build(b.mac, a.mac, &[], number, 200);
            socket.send(&frame).unwrap();
        }
        arriving.wait_for("frames arrive", |frame| frame::number(frame) == Some(19));
        assert_eq!(wire.count(|f| frame::number(f).is_some()), 0);
        let facts = facts(&mesh, 0, 1).unwrap();
        assert_eq!(facts["frames_encrypted"], true);
        assert_eq!(facts["encrypted"], password.is_some());
        assert!(facts["cipher"].is_string() && facts["rtt_ms"].is_number());
        assert!(facts["why_not_weft"].is_null());
    }
}

/// Real routers never hear of it.
fn with_real_routers(kinds: &[Kind]) {
    let (mesh, [a, b]) = pair([kinds[0], kinds[1]], &Launch::new());
    a.must_reach(&b);
    for host in (0..2).filter(|host| kinds[*host].is_ours()) {
        let facts = facts(&mesh, host, 1 - host).unwrap();
        assert_eq!(facts["overlay"], "sleeve");
        let why = match kinds[host] {
            Kind::Sleeve => "switched off here by --overlays",
            _ => "peer does not offer it",
        };
        assert_eq!(facts["why_not_weft"], why);
    }
}
members!(with_real_routers: first [Weaver Weft], second [Weft Weaver], ours [Weft Sleeve]);

/// When native datagrams vanish, in one direction or in both, sleeve takes over within seconds,
/// and gives way again.
#[test]
fn blocked_and_free_again() {
    needs_root!();
    let (mesh, [a, b]) = pair(
        [Kind::Weft, Kind::Weft],
        &Launch::new().password("a secret"),
    );
    wait_active(&mesh, &[(0, 1)], "weft");
    a.must_reach(&b);
    let mut downgrades = 0;
    for blocked in [&[0][..], &[1], &[0, 1]] {
        blocked.iter().for_each(|host| block_native(&mesh, *host));
        let start = Instant::now();
        let outage = a.reaches_within(&b, wait::SOON);
        let outage = outage.expect("frames get through again");
        wait_active(&mesh, &[(0, 1)], "sleeve");
        let time = start.elapsed();
        println!("blocked at {blocked:?}: no answer for {outage:?}, sleeve after {time:?}");
        assert!(time < Duration::from_secs(8), "{time:?}");
        for (host, to) in [(0, 1), (1, 0)] {
            let facts = facts(&mesh, host, to).unwrap();
            assert_eq!(facts["why_not_weft"], "reports over UDP are not answered");
            assert!(mesh.log(host).contains("reports over UDP are not answered"));
        }
        a.send_tcp(&b, 1 << 20);
        assert_eq!(a.count_answers(&b, 20), 20);
        let counted = mesh.get_json(0, "/status/weft").unwrap()["downgrades"]["unanswered"]
            .as_u64()
            .unwrap();
        assert!(counted > downgrades);
        downgrades = counted;

        blocked.iter().for_each(|host| unblock_native(&mesh, *host));
        let start = Instant::now();
        // The way back is planned: nothing is lost on it.
        while active(&mesh, 0, 1).as_deref() != Some("weft")
            || active(&mesh, 1, 0).as_deref() != Some("weft")
        {
            assert_eq!(a.count_answers(&b, 10), 10, "lost on the way back");
            assert!(start.elapsed() < wait::LATER, "it does not come back");
        }
        println!("native again after {:?}", start.elapsed());
        assert_eq!(a.count_answers(&b, 50), 50);
    }
}

/// Without a password only native links are encrypted. Who requires encryption has no other ones.
#[test]
fn required_without_password() {
    needs_root!();
    let launch = Launch::new().with("--require-encryption");
    let (mesh, [a, b]) = pair([Kind::Weft, Kind::Weft], &launch);
    wait_active(&mesh, &[(0, 1)], "weft");
    a.must_reach(&b);
    a.send_tcp(&b, 1 << 20);
    let why = &facts(&mesh, 0, 1).unwrap()["overlays"][1];
    assert_eq!(why["overlay"], "sleeve");
    assert_eq!(why["health"], "failed");
    assert!(
        why["reason"]
            .as_str()
            .unwrap()
            .contains("--require-encryption")
    );

    // Better nothing than in the clear.
    block_native(&mesh, 1);
    wait::until_true("nothing gets through", wait::SOON, || !a.ping(&b, 84, true));
    let wire = Capture::of(mesh.namespace(0), "eth0", frame::is_sleeve);
    for _ in 0..5 {
        assert!(!a.ping(&b, 84, true));
    }
    assert_eq!(wire.count(|_| true), 0);
    unblock_native(&mesh, 1);
    a.must_reach(&b);
}

/// Those that cannot encrypt are refused.
fn required_of_others(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let required = Launch::new().with("--require-encryption");
    let launch_of = |kind: Kind| match kind {
        Kind::Weft => required.clone(),
        _ => Launch::new(),
    };
    mesh.launch(0, &launch_of(kinds[0]));
    mesh.launch(1, &launch_of(kinds[1]).peer(mesh.address(0)));
    let ours = kinds.iter().position(|kind| *kind == Kind::Weft).unwrap();
    wait::until_true("it is refused", wait::LATER, || {
        mesh.log(ours).contains("--require-encryption forbids")
    });
    wait::stays_true("it stays out", Duration::from_secs(3), || {
        !mesh.is_connected(0, 1) && !mesh.is_connected(1, 0)
    });
}
members!(required_of_others: sleeve_dials [Weft Sleeve], sleeve_is_dialled [Sleeve Weft],
    real_dials [Weft Weaver], real_is_dialled [Weaver Weft]);

/// With a password sleeve encrypts too and may take over.
#[test]
fn required_with_password() {
    needs_root!();
    let launch = Launch::new()
        .password("a secret")
        .with("--require-encryption");
    let (mesh, [a, b]) = pair([Kind::Weft, Kind::Weft], &launch);
    wait_active(&mesh, &[(0, 1)], "weft");
    block_native(&mesh, 0);
    wait_active(&mesh, &[(0, 1)], "sleeve");
    a.must_reach(&b);
    assert!(mesh.connection(0, 1).unwrap().encrypted);
}

/// Several hops over several overlays: native, sleeve, and native again.
fn relayed(kinds: &[Kind]) {
    // News of the mesh may take half a minute to pass a real router in the middle.
    let passwords = match kinds.contains(&Kind::Weaver) {
        true => &[Some("a secret")][..],
        false => &[None, Some("a secret")],
    };
    for password in passwords {
        let mut mesh = Mesh::new(kinds);
        let launch = Launch::new()
            .maybe_password(*password)
            .with("--no-discovery");
        let peers: Vec<Vec<usize>> = (0..kinds.len())
            .map(|host| host.checked_sub(1).into_iter().collect())
            .collect();
        let peers: Vec<&[usize]> = peers.iter().map(Vec::as_slice).collect();
        mesh.launch_all(&peers, &launch);
        let containers = mesh.attach_all();
        let hosts: Vec<usize> = (0..kinds.len()).collect();
        mesh.wait_routed(&hosts);
        for host in 1..kinds.len() {
            let between = [kinds[host - 1], kinds[host]];
            for (from, to) in [(host - 1, host), (host, host - 1)] {
                if kinds[from].is_ours() {
                    wait::until_true("the best overlay is used", wait::LATER, || {
                        active(&mesh, from, to).as_deref() == Some(overlay(between))
                    });
                }
            }
        }
        let [first, .., last] = &containers[..] else {
            unreachable!()
        };
        for (from, to) in [(first, last), (last, first)] {
            from.must_reach(to);
            from.send_tcp(to, 2 << 20);
            from.send_udp(to, 1300);
            from.send_udp(to, 20_000);
            from.send_multicast(to, 500);
            from.send_ipv6(to, 8000);
            assert!(from.ping(to, 1376, true), "a full packet does not pass");
        }
    }
}
members!(relayed: native [Weft Weft Weft Weft], sleeve_between [Weft Weft Sleeve Weft Weft],
    real_between [Weft Weft Weaver Weft Weft], real_at_the_end [Weaver Weft Weft Weft]);

/// The path gets narrow while a transfer goes on, without a word, and wide again.
#[test]
fn path_gets_narrow_and_wide_again() {
    needs_root!();
    let (mesh, [a, b]) = pair([Kind::Weft, Kind::Weft], &Launch::new());
    wait_active(&mesh, &[(0, 1)], "weft");
    let mtu = |mesh: &Mesh| mesh.connection(0, 1).and_then(|c| c.mtu);
    wait::until_true("the path is measured", wait::SOON, || {
        mtu(&mesh) == Some(1410)
    });
    a.send_tcp(&b, 1 << 20);
    mesh.lab.set_port_mtu(1, 1300).unwrap();
    let start = Instant::now();
    a.send_tcp(&b, 1 << 20);
    println!(
        "1 MiB through a path that got narrow: {:?}",
        start.elapsed()
    );
    assert!(start.elapsed() < Duration::from_secs(10));
    // Trains of segments pass a port whatever its MTU is; single packets do not.
    wait::until_true("the path is measured again", wait::LATER, || {
        a.ping(&b, 1376, true);
        mtu(&mesh) == Some(1210)
    });
    assert_eq!(active(&mesh, 0, 1).as_deref(), Some("weft"));
    mesh.lab.set_port_mtu(1, 1500).unwrap();
    let start = Instant::now();
    wait::until_true("the room is found", Duration::from_secs(90), || {
        mtu(&mesh) == Some(1410)
    });
    println!("a wide path is found after {:?}", start.elapsed());
    a.send_tcp(&b, 1 << 20);
}

/// A router that is killed and comes back is native again at once.
#[test]
fn killed_and_back() {
    needs_root!();
    let launch = Launch::new().password("a secret");
    let (mut mesh, [a, b]) = pair([Kind::Weft, Kind::Weft], &launch);
    let peer = mesh.address(0);
    for (host, launch) in [(1, launch.clone().peer(peer)), (0, launch)] {
        wait_active(&mesh, &[(0, 1)], "weft");
        mesh.kill(host);
        mesh.launch(host, &launch);
        let time = wait_active(&mesh, &[(0, 1)], "weft");
        println!("host {host} is native again after {time:?}");
        a.must_reach(&b);
        a.send_tcp(&b, 1 << 20);
        b.send_tcp(&a, 1 << 20);
    }
}

/// `weft bench` over two hops, for people and for programs; nothing of it stays.
#[test]
fn measured_by_a_command() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 3]);
    let launch = Launch::new().password("a secret").with("--no-discovery");
    mesh.launch_all(&[&[], &[0], &[1]], &launch);
    mesh.wait_routed(&[0, 1, 2]);
    let devices = |mesh: &Mesh| [0, 1, 2].map(|host| mesh.devices(host));
    let before = devices(&mesh);
    let said = mesh
        .weft(0, &["bench", "h3", "--seconds", "1", "--json"])
        .ok();
    let figures: Value = serde_json::from_str(&said).unwrap();
    println!("{figures}");
    for key in [
        "round_trip_us",
        "stream_bits_per_second",
        "four_streams_bits_per_second",
        "packets_per_second",
    ] {
        assert!(figures[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let text = mesh
        .weft(2, &["bench", &peer_name(0), "--seconds", "1"])
        .ok();
    for label in ["Round trip: ", "One stream: ", "64-byte packets: "] {
        assert!(text.contains(label), "{text}");
    }
    wait::until_true("everything is removed", wait::SOON, || {
        devices(&mesh) == before
    });
    let refused = mesh.weft(0, &["bench", "nobody"]).failed(1);
    assert!(
        refused.contains("no other peer is called nobody"),
        "{refused}"
    );
    mesh.weft(0, &["bench", "h1"]).failed(1);
}

/// A measurement ends with whoever asked for it, and with the other router; and then nothing of it
/// stays.
#[test]
fn measurement_is_given_up() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1]);
    let before = mesh.devices(0);
    let is_clean = |mesh: &Mesh| mesh.devices(0) == before;
    let begin = |mesh: &Mesh, step: &str| {
        let mut command = Command::new(netns_tests::weft());
        command.args(["bench", "h2", "--seconds", "20"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let running = mesh.namespace(0).spawn(&mut command).unwrap();
        wait::until_true("it gets so far", wait::LATER, || {
            mesh.get_json(0, "/weft/bench")
                .is_some_and(|now| now == step)
        });
        running
    };
    let mut running = begin(&mesh, "one_stream");
    let other = mesh.weft(1, &["bench", "h1", "--seconds", "1"]);
    let refused = mesh.weft(0, &["bench", "h2"]).failed(1);
    assert!(refused.contains("another measurement runs"), "{refused}");
    running.kill().unwrap();
    running.wait().unwrap();
    let start = Instant::now();
    wait::until_true("it ends with who asked", wait::SOON, || is_clean(&mesh));
    println!("given up after {:?}", start.elapsed());
    assert!(start.elapsed() < Duration::from_secs(3));
    // Both directions at once are fine, and so is one right after the other.
    other.ok();
    for _ in 0..2 {
        mesh.weft(0, &["bench", "h2", "--seconds", "1"]).ok();
    }

    let running = begin(&mesh, "one_stream");
    mesh.kill(1);
    let start = Instant::now();
    let output = running.wait_with_output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    println!("after {:?}: {said}", start.elapsed());
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("has left the mesh"), "{said}");
    assert!(start.elapsed() < Duration::from_secs(5));
    wait::until_true("nothing of it stays", wait::SOON, || is_clean(&mesh));
}

/// A real router says nothing to it.
#[test]
fn measured_towards_a_real_router() {
    netns_tests::needs_real!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weaver]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1]);
    let refused = mesh.weft(0, &["bench", "h2"]).failed(1);
    assert!(refused.contains("does it run weft?"), "{refused}");
    assert!(mesh.is_connected(0, 1) && mesh.is_connected(1, 0));
}
