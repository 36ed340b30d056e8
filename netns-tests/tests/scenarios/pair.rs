//! Two routers and what passes between them.

use std::time::{Duration, Instant};

use lab::host::HostOptions;
use netns_tests::{
    Container, Kind, Launch, Meddler, Mesh, frame, link_mtu, members, overlay, wait,
};

/// Two connected routers with a container each.
fn pair(kinds: &[Kind], launch: &Launch) -> (Mesh, [Container; 2]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch_all(&[&[], &[0]], launch);
    mesh.wait_connected(0, 1);
    let containers = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    (mesh, containers)
}

/// Every kind of traffic, in both directions.
fn exchange_everything(a: &Container, b: &Container) {
    for (from, to) in [(a, b), (b, a)] {
        from.must_reach(to);
        assert!(from.count_answers(to, 20) >= 19, "pings are lost");
        from.send_tcp(to, 3 << 20);
        from.send_udp(to, 100);
        from.send_udp(to, 1300);
        // In fragments.
        from.send_udp(to, 20_000);
        from.send_multicast(to, 500);
        from.send_ipv6(to, 1000);
        from.send_ipv6(to, 8000);
        assert!(from.ping(to, 1376, true), "a full packet does not pass");
        exchange_frames(from, to);
    }
}

/// Frames of no protocol that anybody knows: broadcast, unicast, tagged, short and long.
fn exchange_frames(from: &Container, to: &Container) {
    let capture = to.capture();
    let socket = from.frames();
    let mut sent = Vec::new();
    for (number, target) in [(1, frame::BROADCAST), (2, to.mac)] {
        for (kind, tags) in [(0, &[][..]), (1, &[5, 7][..])] {
            for size in [60, 600, 1390] {
                let number = number << 24 | kind << 16 | size;
                let frame = frame::build(target, from.mac, tags, number, size as usize);
                socket.send(&frame).unwrap();
                sent.push((number, frame));
            }
        }
    }
    for (number, frame) in sent {
        let what = format!("frame {number:x} arrives");
        let arrived = capture.wait_for(&what, |frame| frame::number(frame) == Some(number));
        // The capture does not see the first tag.
        let tagged = frame[12..14] == [0x81, 0];
        let rest = if tagged { &frame[16..] } else { &frame[12..] };
        assert_eq!(arrived[12..], *rest);
    }
}

/// Waits until both ends use the best overlay in full, and looks whether it is encrypted.
fn wait_measured(mesh: &Mesh, kinds: &[Kind], password: bool) {
    let kinds = [kinds[0], kinds[1]];
    for (from, to) in [(0, 1), (1, 0)] {
        wait::until_true("the path is measured", wait::SOON, || {
            let mtu = mesh.connection(from, to).and_then(|c| c.mtu);
            mtu == Some(link_mtu(kinds, 1500, password))
        });
        let encrypted = password || overlay(kinds) == "weft";
        assert_eq!(mesh.connection(from, to).unwrap().encrypted, encrypted);
    }
}

fn plain(kinds: &[Kind]) {
    let (mesh, [a, b]) = pair(kinds, &Launch::new());
    wait_measured(&mesh, kinds, false);
    exchange_everything(&a, &b);
}
members!(plain, 2);

fn encrypted(kinds: &[Kind]) {
    let (mesh, [a, b]) = pair(kinds, &Launch::new().password("a secret"));
    wait_measured(&mesh, kinds, true);
    exchange_everything(&a, &b);
}
members!(encrypted, 2);

/// Both routers know version 2, but somebody between them makes each believe that the other
/// does not.
fn first_version(kinds: &[Kind]) {
    for password in [None, Some("a secret")] {
        let mut mesh = Mesh::new(kinds);
        let between = mesh.lab.add_host(HostOptions::default()).unwrap();
        let host = &mesh.lab.hosts()[between];
        let meddler = Meddler::start(&host.namespace, host.address, mesh.address(0));
        let address = host.address;
        // Without discovery: the second must not find the way around.
        let launch = Launch::new()
            .maybe_password(password)
            .with("--min-protocol-version=1")
            .with("--no-discovery");
        mesh.launch(0, &launch);
        mesh.launch(1, &launch.peer(address));
        mesh.wait_connected(0, 1);
        let [a, b] = [mesh.attach(0), mesh.attach(1)];
        mesh.wait_routed(&[0, 1]);
        for host in (0..2).filter(|host| mesh.kind(*host).is_ours()) {
            let facts = mesh.get_json(host, "/status/weft").unwrap();
            assert_eq!(facts["connections"][0]["protocol"], 1);
            assert_eq!(facts["connections"][0]["encrypted"], password.is_some());
        }
        a.must_reach(&b);
        b.must_reach(&a);
        a.send_tcp(&b, 1 << 20);
        drop(meddler);
    }
}
members!(first_version, 2);

/// The same, beside a password and without the flag: version 1 authenticates nothing of the
/// introduction, so a weft router refuses it, and says so.
#[test]
fn first_version_is_refused_beside_a_password() {
    netns_tests::needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let between = mesh.lab.add_host(HostOptions::default()).unwrap();
    let host = &mesh.lab.hosts()[between];
    let meddler = Meddler::start(&host.namespace, host.address, mesh.address(0));
    let address = host.address;
    let launch = Launch::new().password("a secret").with("--no-discovery");
    mesh.launch(0, &launch);
    mesh.launch(1, &launch.peer(address));
    wait::until_true("the dial is told to have failed", wait::SOON, || {
        let page = mesh.get(1, "/status/connections").unwrap();
        page.contains("failed") || page.contains("retrying")
    });
    let facts = mesh.get_json(0, "/status/weft").unwrap();
    let connections = facts["connections"].as_array().unwrap();
    assert!(connections.iter().all(|c| c["state"] != "established"));
    drop(meddler);
}

/// Local frames do not need the router, and are not carried by it.
#[test]
fn containers_of_one_host_need_no_router() {
    netns_tests::needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [a, b, c] = [mesh.attach(0), mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    a.must_reach(&c);
    let far = c.capture();
    a.send_tcp(&b, 1 << 20);
    assert_eq!(
        far.count(|f| frame::is_from(f, a.mac) && frame::ports(f, frame::TCP).is_some()),
        0
    );
}

/// The second of two routers is connected, as both say, within half a second of its start; much
/// more is allowed here, for machines that do other things.
#[test]
fn is_established_at_once() {
    netns_tests::needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &Launch::new().password("a secret"));
    let peer = mesh.address(0);
    let start = Instant::now();
    mesh.start(1, &Launch::new().password("a secret").peer(peer));
    wait::until_true("they are connected", wait::SOON, || {
        mesh.is_connected(0, 1) && mesh.is_connected(1, 0)
    });
    let time = start.elapsed();
    println!("established after {time:?}");
    assert!(time < Duration::from_secs(3), "{time:?}");
}
