//! Figures that are promised. The limits here are generous, for debug builds on machines that do
//! other things; what was measured is printed.

use netns_tests::{Kind, Launch, Mesh, needs_root};

/// A router with three peers and a container, after some traffic, is small: 20 MB in a release
/// build.
#[test]
fn memory() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 4]);
    mesh.launch_all(
        &[&[], &[0], &[0], &[0]],
        &Launch::new().password("a secret"),
    );
    let containers = mesh.attach_all();
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        mesh.wait_connected(a, b);
    }
    mesh.wait_routed(&[0, 1, 2, 3]);
    for to in &containers[1..] {
        containers[0].must_reach(to);
        containers[0].send_tcp(to, 1 << 20);
        to.send_tcp(&containers[0], 1 << 20);
    }
    let resident = mesh.resident_kib(0);
    println!("a router with 3 peers: {resident} KiB resident");
    let limit = if cfg!(debug_assertions) { 40 } else { 20 };
    assert!(resident < limit * 1000, "{resident} KiB");
}
