//! Routers that end and come back.

use std::time::Instant;

use netns_tests::{Kind, Launch, Mesh, members, needs_root, peer_name, wait};

/// How a router ends.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Terminated,
}

/// Containers stay attached while their router is away, reach each other all the time, and the
/// rest of the mesh again within seconds.
fn comes_back(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let first = Launch::new().password("a secret");
    let second = first.clone().peer(mesh.address(0));
    mesh.launch(0, &first);
    mesh.launch(1, &second);
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    let [near_a, near_b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    for end in [End::Killed, End::Terminated] {
        for host in [0, 1] {
            let (local, near) = [(&a, &near_a), (&b, &near_b)][host];
            match end {
                End::Killed => mesh.kill(host),
                End::Terminated => assert!(mesh.terminate(host).success()),
            }
            assert_eq!(local.count_answers(near, 5), 5);
            wait::until_true("the other notices", wait::SOON, || {
                !mesh.is_connected(1 - host, host)
            });
            assert!(!a.ping(&b, 84, true));

            mesh.launch(host, [&first, &second][host]);
            let start = Instant::now();
            a.must_reach(&b);
            println!("{end:?}: host {host} is back after {:?}", start.elapsed());
            assert_eq!(local.count_answers(near, 5), 5);
            b.must_reach(&a);
            assert_eq!(mesh.peers(0), [peer_name(0), peer_name(1)]);
        }
    }
    a.send_tcp(&b, 1 << 20);
}
members!(comes_back, 2);

/// The devices of the last run are taken up: same bridge, same TAP device, and containers that
/// are attached anew work beside those of before.
#[test]
fn devices_are_taken_up() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    let before = mesh.devices(0);
    mesh.kill(0);
    assert_eq!(mesh.devices(0), before);
    mesh.launch(0, &Launch::new());
    assert_eq!(mesh.devices(0), before);
    assert!(mesh.log(0).contains("took up the bridge"));
    let c = mesh.attach(0);
    for container in [&a, &c] {
        container.must_reach(&b);
    }
}

/// A TAP device of another kind than wanted is made again, and put back on the bridge.
#[test]
fn a_device_of_another_kind_is_made_again() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let one = Launch::new().with("--queues").with("1");
    let two = Launch::new().with("--queues").with("2");
    mesh.launch(0, &one);
    mesh.launch(1, &Launch::new().peer(mesh.address(0)));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    a.must_reach(&b);
    for launch in [&two, &one] {
        mesh.kill(0);
        mesh.launch(0, launch);
        a.must_reach(&b);
        a.send_tcp(&b, 1 << 20);
    }
    assert_eq!(mesh.log(0).matches("made TAP device again").count(), 2);
}

/// The offloads of a device that is taken up are those of this run.
#[test]
fn offloads_follow_the_last_launch() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    for launch in [Launch::new().with("--no-offload=tap"), Launch::new()] {
        a.must_reach(&b);
        a.send_tcp(&b, 1 << 20);
        mesh.kill(0);
        mesh.launch(0, &launch);
    }
    a.must_reach(&b);
    a.send_tcp(&b, 1 << 20);
}

/// A peer is the same peer after a restart, without anybody naming it.
#[test]
fn names_are_stable() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let name = |mesh: &Mesh| {
        mesh.report(0)["Router"]["Name"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    mesh.launch(0, &Launch::new().name("02:00:00:00:77:01"));
    let first = name(&mesh);
    mesh.kill(0);
    // The bridge is there and has it.
    mesh.launch_unnamed(0);
    assert_eq!(name(&mesh), first);
    mesh.kill(0);
    // Without the bridge, what was saved counts.
    let netlink = mesh.namespace(0).netlink().unwrap();
    for link in ["weft-weave", "weave"] {
        netlink
            .delete_link(&netlink.link_named(link).unwrap())
            .unwrap();
    }
    mesh.launch_unnamed(0);
    assert_eq!(name(&mesh), first);
}
