//! Peers that must not become connected, and what they are told.

use std::time::Duration;

use netns_tests::{Kind, Launch, Mesh, members, nickname, peer_name, wait};

/// Waits until an attempt of a router has failed with one of these errors.
#[track_caller]
fn wait_failed(mesh: &Mesh, host: usize, errors: &[&str]) {
    let what = format!("{} fails with one of {errors:?}", nickname(host));
    wait::until_true(&what, wait::LATER, || {
        mesh.connections(host).iter().any(|connection| {
            connection.state == "failed"
                && errors.iter().any(|error| connection.info.contains(error))
        })
    });
}

const RESET: &str = "connection reset by peer";
const ENDED: &str = "EOF";

fn wrong_password(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let peer = mesh.address(0);
    mesh.launch(0, &Launch::new().password("a secret"));
    mesh.launch(1, &Launch::new().password("another secret").peer(peer));
    wait_failed(
        &mesh,
        1,
        &[
            "Unable to decrypt TCP msg",
            "passwords differ",
            RESET,
            ENDED,
        ],
    );
    assert!(!mesh.is_connected(0, 1) && !mesh.is_connected(1, 0));
    assert_eq!(mesh.peers(0), [peer_name(0)]);

    mesh.kill(1);
    mesh.launch(1, &Launch::new().password("a secret").peer(peer));
    mesh.wait_connected(0, 1);
}
members!(wrong_password, 2);

fn password_on_one_side(kinds: &[Kind]) {
    for with in [0, 1] {
        let mut mesh = Mesh::new(kinds);
        let launch = |host| Launch::new().maybe_password((host == with).then_some("a secret"));
        mesh.launch(0, &launch(0));
        mesh.launch(1, &launch(1).peer(mesh.address(0)));
        wait_failed(&mesh, 1, &["password", RESET, ENDED]);
        assert!(!mesh.is_connected(0, 1) && !mesh.is_connected(1, 0));
    }
}
members!(password_on_one_side, 2);

fn same_name(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch(0, &Launch::new().name("02:00:00:00:00:0a"));
    let peer = mesh.address(0);
    mesh.launch(1, &Launch::new().name("02:00:00:00:00:0a").peer(peer));
    // One of them notices first, and the other may see no more than the end of the connection.
    wait_failed(
        &mesh,
        1,
        &["peer names collision", "names collide", RESET, ENDED],
    );
    let told = [0, 1].map(|host| mesh.log(host).contains("colli"));
    assert!(told.contains(&true));
}
members!(same_name, 2);

fn itself(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch(0, &Launch::new().peer(mesh.address(0)));
    wait_failed(&mesh, 0, &["cannot connect to ourself"]);
    wait_failed(&mesh, 0, &["retry: never"]);
}
members!(itself: ours [Weft], real [Weaver]);

/// A third peer sees two of the same name: one of them is connected at a time, chance decides
/// which, and nobody breaks.
fn same_name_at_a_third(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch(0, &Launch::new().with("--no-discovery"));
    let twin = Launch::new()
        .name("02:00:00:00:00:0a")
        .peer(mesh.address(0))
        .with("--no-discovery");
    let twins = |mesh: &Mesh| {
        let connections = mesh.connections(0).into_iter();
        let up = connections.filter(|c| c.state == "established" && c.info.contains("00:0a("));
        up.count()
    };
    mesh.launch(1, &twin);
    wait::until_true("the first is connected", wait::SOON, || twins(&mesh) == 1);
    mesh.launch(2, &twin);
    let refused = |host: usize| mesh.connections(host).iter().any(|c| c.state == "failed");
    wait::until_true("one of them is refused", wait::LATER, || {
        refused(1) || refused(2)
    });
    wait::stays_true("never both", Duration::from_secs(3), || twins(&mesh) <= 1);
    wait::until_true("one of them is connected", wait::LATER, || {
        twins(&mesh) == 1
    });
    assert_eq!(mesh.peers(0).len(), 2);
    for host in 0..3 {
        assert!(mesh.is_running(host));
    }
}
members!(same_name_at_a_third, 3);
