//! Underlays that carry less than usual.

use lab::host::{HostOptions, Place};
use netns_tests::{Container, Kind, Launch, Mesh, link_mtu, members, wait};

fn traffic_of_all_sizes(a: &Container, b: &Container, mtu: usize) {
    for (from, to) in [(a, b), (b, a)] {
        from.must_reach(to);
        // Connections begin with segments that are too large and learn.
        from.send_tcp(to, 2 << 20);
        from.send_udp(to, 1300);
        from.send_udp(to, 20_000);
        assert!(from.ping(to, mtu, true), "{mtu} bytes pass whole");
        assert!(!from.ping(to, mtu + 1, true), "one more does not");
        assert!(from.ping(to, mtu + 1, false), "but in parts");
        from.send_ipv6(to, 8000);
    }
}

fn measured(mesh: &Mesh, expected: u64) {
    for (from, to) in [(0, 1), (1, 0)] {
        wait::until_true("the path is measured", wait::LATER, || {
            mesh.connection(from, to).and_then(|c| c.mtu) == Some(expected)
        });
    }
}

/// The hosts' own links are small, so their kernels know.
fn small_links(kinds: &[Kind]) {
    let small = HostOptions {
        mtu: 1300,
        ..HostOptions::default()
    };
    for password in [None, Some("a secret")] {
        let mtu = link_mtu([kinds[0], kinds[1]], 1300, password.is_some());
        let mut mesh = Mesh::with_hosts(&[(kinds[0], small), (kinds[1], small)]);
        mesh.launch_all(&[&[], &[0]], &Launch::new().maybe_password(password));
        let [a, b] = [mesh.attach(0), mesh.attach(1)];
        mesh.wait_routed(&[0, 1]);
        measured(&mesh, mtu);
        traffic_of_all_sizes(&a, &b, mtu as usize);
    }
}
members!(small_links, 2);

/// A router on the way tells that packets are too large.
fn small_link_on_the_way(kinds: &[Kind]) {
    let behind = HostOptions {
        place: Place::Router,
        ..HostOptions::default()
    };
    let mut mesh = Mesh::with_hosts(&[(kinds[0], HostOptions::default()), (kinds[1], behind)]);
    mesh.lab.set_mtu(1, 1300).unwrap();
    mesh.launch_all(&[&[], &[0]], &Launch::new().password("a secret"));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    let mtu = link_mtu([kinds[0], kinds[1]], 1300, true);
    measured(&mesh, mtu);
    traffic_of_all_sizes(&a, &b, mtu as usize);
}
members!(small_link_on_the_way, 2);

/// Packets that are too large vanish without a word.
fn black_hole(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.lab.set_port_mtu(1, 1300).unwrap();
    mesh.launch_all(&[&[], &[0]], &Launch::new().password("a secret"));
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    let mtu = link_mtu([kinds[0], kinds[1]], 1300, true);
    wait::until_true("the path is measured", wait::LATER, || {
        mesh.connection(0, 1).and_then(|c| c.mtu) == Some(mtu)
    });
    a.must_reach(&b);
    a.send_tcp(&b, 1 << 20);
    b.send_tcp(&a, 1 << 20);
    assert!(a.ping(&b, mtu as usize, true));
}
members!(black_hole, 2);
