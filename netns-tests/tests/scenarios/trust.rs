//! Which frames are encrypted, and addresses that are not what they seem.

use lab::host::{HostOptions, Place};
use netns_tests::{Capture, Container, Kind, Launch, Mesh, frame, members, overlay};

/// Sends frames from one container to another, and tells whether they can be read on the way.
fn can_be_read(wire: &Capture, from: &Container, to: &Container, first: u32) -> bool {
    let arriving = to.capture();
    let socket = from.frames();
    for number in first..first + 10 {
        let frame = frame::build(to.mac, from.mac, &[], number, 200);
        socket.send(&frame).unwrap();
    }
    arriving.wait_for("frames arrive", |frame| {
        frame::number(frame) == Some(first + 9)
    });
    let numbers = first..first + 10;
    wire.count(|packet| {
        frame::datagram(packet).is_some()
            && frame::number(packet).is_some_and(|n| numbers.contains(&n))
    }) > 0
}

/// Sleeve's frames travel in the clear only where both sides trust the other's subnet, native ones
/// and gossip never.
fn trusted_subnets(kinds: &[Kind]) {
    const TRUSTED: &str = "--trusted-subnets=172.30.0.0/16";
    for trusting in [[false, false], [true, false], [false, true], [true, true]] {
        let mut mesh = Mesh::new(kinds);
        let launch = |host: usize| {
            let launch = Launch::new().password("a secret");
            if trusting[host] {
                launch.with(TRUSTED)
            } else {
                launch
            }
        };
        mesh.launch(0, &launch(0));
        mesh.launch(1, &launch(1).peer(mesh.address(0)));
        let [a, b] = [mesh.attach(0), mesh.attach(1)];
        mesh.wait_routed(&[0, 1]);
        a.must_reach(&b);
        let wire = Capture::start(mesh.namespace(0), "eth0");
        let both = trusting == [true, true] && overlay([kinds[0], kinds[1]]) == "sleeve";
        assert_eq!(can_be_read(&wire, &a, &b, 100), both, "{trusting:?}");
        assert_eq!(can_be_read(&wire, &b, &a, 200), both, "{trusting:?}");
        for (from, to) in [(0, 1), (1, 0)] {
            assert_eq!(mesh.connection(from, to).unwrap().encrypted, !both);
        }
    }
}
members!(trusted_subnets, 2);

/// Two peers behind address translation reach one outside, which learns where their packets
/// come from, and each other through it.
fn behind_translation(kinds: &[Kind]) {
    let hidden = HostOptions {
        place: Place::Nat,
        ..HostOptions::default()
    };
    let open = HostOptions::default();
    let mut mesh = Mesh::with_hosts(&[(kinds[0], open), (kinds[1], hidden), (kinds[2], hidden)]);
    mesh.launch_all(&[&[], &[0], &[0]], &Launch::new().password("a secret"));
    let containers = mesh.attach_all();
    mesh.wait_connected(0, 1);
    mesh.wait_connected(0, 2);
    mesh.wait_routed(&[0, 1, 2]);
    for from in &containers {
        for to in containers.iter().filter(|to| to.address != from.address) {
            from.must_reach(to);
        }
    }
    containers[1].send_tcp(&containers[0], 1 << 20);
    containers[1].send_tcp(&containers[2], 1 << 20);
}
members!(behind_translation, 3);
