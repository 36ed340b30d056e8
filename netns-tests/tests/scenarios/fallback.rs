//! Every way to carry frames without one of the kernel's short cuts, forced.

use netns_tests::{Kind, Launch, Mesh, members};

/// Traffic flows with each offload left out and with all of them, also towards a router that has
/// them or never had any.
fn offloads(kinds: &[Kind]) {
    for off in ["gso", "gro", "tap", "gso,gro", "gso,gro,tap"] {
        let mut mesh = Mesh::new(kinds);
        let launch = Launch::new().password("a secret");
        let launch_of = |host: usize, mesh: &Mesh| match mesh.kind(host) {
            Kind::Weft | Kind::Sleeve => launch.clone().with("--no-offload").with(off),
            Kind::Weaver => launch.clone(),
        };
        mesh.launch(0, &launch_of(0, &mesh));
        let second = launch_of(1, &mesh).peer(mesh.address(0));
        mesh.launch(1, &second);
        let containers = mesh.attach_all();
        mesh.wait_routed(&[0, 1]);
        for host in (0..2).filter(|host| kinds[*host].is_ours()) {
            let status = mesh.get_json(host, "/status/weft").unwrap();
            for (name, key) in [
                ("gso", "udp_gso"),
                ("gro", "udp_gro"),
                ("tap", "tap_offload"),
            ] {
                let state = status["data"][key].as_str().unwrap();
                if off.split(',').any(|off| off == name) {
                    assert!(state.starts_with("off"), "{key}: {state}");
                } else {
                    assert!(!state.starts_with("off"), "{key}: {state}");
                }
            }
        }
        let [a, b] = &containers[..] else {
            unreachable!()
        };
        for (from, to) in [(a, b), (b, a)] {
            from.must_reach(to);
            from.send_tcp(to, 2 << 20);
            from.send_udp(to, 1300);
            from.send_udp(to, 20_000);
            from.send_ipv6(to, 8000);
        }
    }
}
members!(offloads, 2);

/// With fallbacks on one side only.
#[test]
fn one_side_without_offloads() {
    netns_tests::needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &Launch::new().with("--no-offload=gso,gro,tap"));
    mesh.launch(1, &Launch::new().peer(mesh.address(0)));
    let containers = mesh.attach_all();
    mesh.wait_routed(&[0, 1]);
    let [a, b] = &containers[..] else {
        unreachable!()
    };
    for (from, to) in [(a, b), (b, a)] {
        from.must_reach(to);
        from.send_tcp(to, 4 << 20);
        from.send_udp(to, 20_000);
    }
}
