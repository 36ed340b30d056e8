//! Who connects to whom.

use netns_tests::{Kind, Launch, Mesh, members, peer_name, wait};

/// The first is known to the second alone, the second to the third: all find each other.
fn chain(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch_all(&[&[], &[0], &[1]], &Launch::new().password("a secret"));
    let containers = mesh.attach_all();
    for (a, b) in [(0, 1), (1, 2), (0, 2)] {
        mesh.wait_connected(a, b);
    }
    mesh.wait_routed(&[0, 1, 2]);
    wait::until_true("the third has a link of its own", wait::LATER, || {
        mesh.next_hop(0, 2) == Some(peer_name(2))
    });
    containers[0].must_reach(&containers[2]);
    containers[2].must_reach(&containers[1]);
}
members!(chain, 3);

/// Peers are named while the router runs, remembered over a restart, and forgotten.
fn connect_and_forget(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let peer = mesh.address(0);
    mesh.launch(0, &Launch::new());
    mesh.launch(1, &Launch::new());
    let targets = |mesh: &Mesh| mesh.get(1, "/status/targets").unwrap();
    assert_eq!(targets(&mesh), "");
    let answer = mesh.post(1, "/connect", &format!("peer={peer}"));
    assert!(answer.status.is_success(), "{answer:?}");
    mesh.wait_connected(0, 1);
    assert_eq!(targets(&mesh), format!("{peer}\n"));

    mesh.kill(1);
    mesh.launch(1, &Launch::new().with("--resume"));
    mesh.wait_connected(0, 1);
    assert_eq!(targets(&mesh), format!("{peer}\n"));

    assert!(
        mesh.post(1, "/forget", &format!("peer={peer}"))
            .status
            .is_success()
    );
    assert_eq!(targets(&mesh), "");
    assert!(mesh.is_connected(1, 0), "forgetting must not disconnect");

    mesh.kill(1);
    mesh.launch(1, &Launch::new().with("--resume"));
    assert_eq!(targets(&mesh), "");
    let answer = mesh.post(1, "/connect", "peer=not+a+name");
    assert_eq!(answer.status.as_u16(), 400, "{answer:?}");
}
members!(connect_and_forget, 2);

/// A router takes no more connections than it was told to.
fn connection_limit(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let launch = Launch::new().with("--no-discovery");
    mesh.launch(0, &launch.clone().with("--conn-limit").with("1"));
    let launch = launch.peer(mesh.address(0));
    mesh.launch(1, &launch);
    mesh.wait_connected(0, 1);
    mesh.launch(2, &launch);
    wait::until_true("the third is refused", wait::LATER, || {
        mesh.connections(2).iter().any(|c| c.state == "failed")
    });
    assert!(mesh.is_connected(0, 1) && !mesh.is_connected(0, 2));

    // A place becomes free.
    mesh.kill(1);
    mesh.wait_connected(0, 2);
}
members!(connection_limit, 3);

/// Both dial each other at the same moment: one connection remains, and stays.
fn both_dial(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let [a, b] = [mesh.address(0), mesh.address(1)];
    mesh.start(0, &Launch::new().peer(b));
    mesh.start(1, &Launch::new().peer(a));
    mesh.wait_until_up(0);
    mesh.wait_until_up(1);
    let containers = mesh.attach_all();
    mesh.wait_connected(0, 1);
    mesh.wait_routed(&[0, 1]);
    containers[0].must_reach(&containers[1]);
    let one = |host: usize| {
        let connections = mesh.connections(host);
        connections
            .iter()
            .filter(|c| c.state == "established")
            .count()
            == 1
    };
    wait::stays_true("one connection", std::time::Duration::from_secs(2), || {
        one(0) && one(1)
    });
    assert!(containers[0].count_answers(&containers[1], 10) >= 9);
}
members!(both_dial, 2);
