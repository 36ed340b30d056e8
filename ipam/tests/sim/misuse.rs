//! What must not be done is refused where that can be seen, and raises an alarm where not.

use ipam::allocator::{Alarm, Request, Response};

use crate::scene::{explicit, given, refused};
use crate::world::World;

#[test]
fn a_peer_in_reach_is_not_removed() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let error = refused(world.remove_peer(0, 1, 5));
    assert!(error.contains(&world.nodes[1].name.to_string()), "{error}");
    assert!(world.watch.alarms.is_empty());
}

#[test]
fn a_removal_asks_for_confirmation() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    world.die(1);
    world.pass(5);
    let request = Request::RemovePeer {
        peer: world.nodes[1].name.to_string(),
        confirmed: false,
    };
    let error = refused(world.ask(0, 5, request));
    assert!(error.contains("never"), "{error}");
}

/// The one that was removed gives up what it does not use, and says what it does use; both keep
/// running, and nothing more is given out twice.
#[test]
fn the_removal_of_a_living_peer_raises_alarms_on_both_sides() {
    let mut world = World::misuse(2);
    let (here, _) = given(world.plain_up(0, "c0"));
    let (there, _) = given(world.plain_up(1, "c1"));
    world.split(&[0, 1]);
    world.pass(5);
    assert_eq!(world.remove_peer(0, 1, 200), Ok(Response::TakenOver(128)));
    world.join();
    world.pass(60);
    let (zero, one) = (world.nodes[0].name, world.nodes[1].name);
    assert!(world.has_alarm(|alarm| *alarm == Alarm::RemovedPeerBack(one)));
    assert!(world.has_alarm(|alarm| *alarm == Alarm::TakenFromUs { by: zero, used: 1 }));
    // What it has in use went back to it, as nobody else had got it.
    assert_eq!(world.owner(0, there.address), Some(1));
    assert_eq!(world.owner(1, here.address), Some(0));
    for number in 0..200 {
        let (cidr, _) = given(world.plain_up(number % 2, &format!("more-{number}")));
        assert!(cidr != here && cidr != there);
    }
}

/// The same with identities: whoever removed the peer has its leases, so what runs there is told
/// of on its host.
#[test]
fn the_removal_of_a_living_holder_raises_alarms() {
    let mut world = World::misuse(2);
    let (there, _) = given(world.up(1, "c1", &explicit("one")));
    world.pass(2);
    world.split(&[0, 1]);
    world.pass(5);
    assert_eq!(world.remove_peer(0, 1, 200), Ok(Response::TakenOver(128)));
    world.join();
    world.pass(60);
    let zero = world.nodes[0].name;
    assert!(world.has_alarm(|alarm| *alarm == Alarm::TakenFromUs { by: zero, used: 1 }));
    assert!(world.has_alarm(
        |alarm| matches!(alarm, Alarm::Duplicate { address, .. } if *address == there.address)
    ));
}

/// The second one to try is told of the first.
#[test]
fn a_peer_is_removed_on_one_host_alone() {
    let mut world = World::scene(3, 0, "10.7.0.0/24");
    given(world.plain_up(2, "gone"));
    world.die(2);
    world.pass(70);
    assert!(matches!(
        world.remove_peer(0, 2, 100),
        Ok(Response::TakenOver(1..))
    ));
    world.pass(5);
    let error = refused(world.remove_peer(1, 2, 100));
    assert!(error.contains(&world.nodes[0].name.to_string()), "{error}");
    assert!(world.watch.alarms.is_empty());
}

/// Two hosts that cannot see each other wait for each other, so that only one of them goes on.
#[test]
fn hosts_that_are_apart_do_not_both_remove_a_peer() {
    let mut world = World::scene(3, 0, "10.7.0.0/24");
    given(world.plain_up(2, "gone"));
    world.die(2);
    world.split(&[0, 1, 0]);
    world.pass(70);
    for node in [0, 1] {
        let error = refused(world.remove_peer(node, 2, 100));
        let other = world.nodes[1 - node].name.to_string();
        assert!(error.contains(&other), "{error}");
    }
    world.join();
    world.pass(200);
    let owner = (1..=254).map(|n| format!("10.7.0.{n}").parse().unwrap());
    let owners: Vec<_> = owner.map(|address| world.owner(0, address)).collect();
    assert!(owners.iter().all(|owner| matches!(owner, Some(0 | 1))));
    assert!(!world.has_alarm(|_| true), "{:?}", world.watch.alarms);
}

/// Whoever removes the other as well, on both sides, and then lets them meet, is told.
#[test]
fn a_removal_on_two_hosts_raises_an_alarm() {
    let mut world = World::misuse(3);
    world.die(2);
    world.split(&[0, 1, 0]);
    world.pass(70);
    for (node, other) in [(0, 1), (1, 0)] {
        let error = refused(world.remove_peer(node, 2, 5));
        assert!(
            error.contains(&world.nodes[other].name.to_string()),
            "{error}"
        );
        assert!(world.remove_peer(node, other, 200).is_ok());
    }
    for number in 0..100 {
        given(world.plain_up(0, &format!("zero-{number}")));
        given(world.plain_up(1, &format!("one-{number}")));
    }
    world.join();
    world.pass(100);
    assert!(world.has_alarm(|alarm| matches!(alarm, Alarm::TwoOwners { .. })));
}
