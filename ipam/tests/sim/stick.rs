//! Leases, scene by scene: addresses that stick, and when they cannot.

use ipam::allocator::{Alarm, Found, Request, Response};
use ipam::leases::{Identity, IdentityKind, LeaseState};

use crate::plan::Plan;
use crate::scene::{explicit, given, refused};
use crate::world::{SECOND, World};

#[test]
fn an_identity_moves_with_its_address_and_mac() {
    let mut world = World::scene(3, 0, "10.7.0.0/24");
    let web = explicit("web");
    let (first, mac) = given(world.up(0, "a", &web));
    assert!(mac.is_some());
    world.down(0, "a");
    assert_eq!(given(world.up(0, "b", &web)), (first, mac));
    world.down(0, "b");
    for (node, id) in [(1, "c"), (2, "d"), (0, "e")] {
        let start = world.now;
        assert_eq!(given(world.up(node, id, &web)), (first, mac));
        assert!(world.now - start < SECOND);
        assert_eq!(world.owner(node, first.address), Some(node));
        world.down(node, id);
    }
}

#[test]
fn an_identity_that_is_up_elsewhere_is_refused() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let web = explicit("web");
    let (first, _) = given(world.up(0, "a", &web));
    world.pass(1);
    let error = refused(world.up(1, "b", &web));
    let host = world.nodes[0].name.to_string();
    for part in ["web", &first.address.to_string(), &host] {
        assert!(error.contains(part), "{part}: {error}");
    }
    world.down(0, "a");
    // The other host hears of it a moment later.
    world.pass(1);
    assert_eq!(given(world.up(1, "b", &web)).0, first);
}

#[test]
fn a_name_that_is_up_elsewhere_gets_a_lease_of_its_host() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let name = Identity::new(IdentityKind::Derived, "web").unwrap();
    let (first, _) = given(world.up(0, "a", &name));
    world.pass(1);
    let (second, mac) = given(world.up(1, "b", &name));
    assert_ne!(first, second);
    world.down(0, "a");
    world.down(1, "b");
    assert_eq!(given(world.up(0, "c", &name)).0, first);
    assert_eq!(given(world.up(1, "d", &name)), (second, mac));
}

/// What a container has without an identity, or as another one, is not what it is given when it
/// asks as this one.
#[test]
fn a_container_is_who_it_says() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let (plain, _) = given(world.plain_up(0, "a"));
    let (web, mac) = given(world.up(0, "a", &explicit("web")));
    let (db, _) = given(world.up(0, "a", &explicit("db")));
    assert!(plain != web && web != db && plain != db);
    assert_eq!(given(world.up(0, "a", &explicit("web"))), (web, mac));
    assert_eq!(given(world.plain_up(0, "a")).0, plain);
}

#[test]
fn a_holder_out_of_reach_is_waited_for_and_named() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let web = explicit("web");
    let (first, mac) = given(world.up(0, "a", &web));
    world.down(0, "a");
    world.pass(2);
    world.split(&[0, 1]);
    world.pass(3);
    let start = world.now;
    let error = refused(world.up(1, "b", &web));
    assert!((world.now - start).abs_diff(5 * SECOND) < SECOND);
    for part in [&world.nodes[0].name.to_string(), "web"] {
        assert!(error.contains(part), "{error}");
    }
    world.join();
    world.pass(3);
    assert_eq!(given(world.up(1, "b", &web)), (first, mac));
}

#[test]
fn what_an_original_got_is_claimed_back() {
    let mut world = World::scene(2, 1, "10.7.0.0/24");
    let web = explicit("web");
    let (first, mac) = given(world.up(0, "a", &web));
    world.down(0, "a");
    world.pass(2);
    world.die(0);
    world.pass(70);
    let lost = world.nodes[0].name;
    world.with_weave(2, |weave| weave.take_over(lost));
    world.pass(2);
    assert_eq!(world.owner(1, first.address), Some(2));
    // Its holder is gone: somebody has to say so.
    assert_eq!(world.remove_peer(1, 0, 200), Ok(Response::TakenOver(0)));
    assert_eq!(given(world.up(1, "b", &web)), (first, mac));
}

#[test]
fn what_an_original_gave_away_is_replaced_with_an_alarm() {
    let mut world = World::scene(2, 1, "10.7.0.0/24");
    let web = explicit("web");
    let (first, _) = given(world.up(0, "a", &web));
    world.down(0, "a");
    world.pass(2);
    world.die(0);
    world.pass(70);
    let lost = world.nodes[0].name;
    world.new_container_of("taker", 2);
    world.with_weave(2, |weave| {
        weave.take_over(lost);
        weave.start("taker".to_owned(), Some(first.address));
    });
    world.pass(2);
    assert_eq!(world.remove_peer(1, 0, 200), Ok(Response::TakenOver(0)));
    let (fresh, _) = given(world.up(1, "b", &web));
    assert_ne!(fresh, first);
    let moved = |alarm: &Alarm| matches!(alarm, Alarm::LeaseMoved { .. });
    assert!(world.has_alarm(moved));
    assert_eq!(world.lease(1, &web).unwrap().address, fresh.address);
}

#[test]
fn sides_of_a_partition_agree_in_the_end() {
    let mut world = World::scene(4, 0, "10.7.0.0/24");
    let web = explicit("web");
    world.split(&[0, 0, 1, 1]);
    world.pass(3);
    let (left, _) = given(world.up(0, "a", &web));
    let (right, _) = given(world.up(2, "b", &web));
    assert_ne!(left, right);
    world.join();
    world.pass(60);
    let lease = world.lease(0, &web).unwrap();
    for node in 1..4 {
        assert_eq!(world.lease(node, &web).as_ref(), Some(&lease));
    }
    assert!([left.address, right.address].contains(&lease.address));
    world.down(0, "a");
    world.down(2, "b");
    let again = given(world.up(3, "c", &web)).0;
    assert_eq!(again.address, lease.address);
    // The other address is free: all but this one can be given out.
    for number in 0..253 {
        given(world.plain_up(number % 4, &format!("more-{number}")));
    }
}

#[test]
fn unused_leases_give_way_and_pinned_ones_do_not() {
    let mut world = World::scene(2, 0, "10.7.0.0/28");
    let names: Vec<_> = (0..4).map(|n| explicit(&format!("s{n}"))).collect();
    let mut had = Vec::new();
    for (number, name) in names.iter().enumerate() {
        let id = format!("lease-{number}");
        had.push(given(world.up(0, &id, name)).0);
        world.down(0, &id);
        world.pass(10);
    }
    let key = names[0].key(world.plan.universe);
    let pin = Request::LeasePin { key, pinned: true };
    assert_eq!(world.ask(0, 5, pin), Ok(Response::Done));
    // 14 addresses, 4 of which are leased: the next 10 are from the rest.
    for number in 0..10 {
        let (cidr, _) = given(world.plain_up(1, &format!("free-{number}")));
        assert!(!had.contains(&cidr));
    }
    for expected in &had[1..] {
        assert_eq!(
            &given(world.plain_up(1, &format!("from-{expected}"))).0,
            expected
        );
    }
    let error = refused(world.plain_up(1, "too-many"));
    assert!(error.contains("timed out"), "{error}");
    assert_eq!(given(world.up(1, "pinned", &names[0])).0, had[0]);
}

#[test]
fn an_original_gets_unused_leases_when_space_is_short() {
    let mut world = World::scene(1, 1, "10.7.0.0/29");
    let web = explicit("web");
    let (first, _) = given(world.up(0, "a", &web));
    world.down(0, "a");
    let mut number = 0;
    while world.lease(0, &web).is_some() {
        number += 1;
        if number >= 8 {
            let t: Vec<String> = world.watch.trace.drain(..).collect();
            println!("{}", t.join("\n"));
            panic!();
        }
        let id = format!("w{number}");
        world.new_container_of(&id, 1);
        world.with_weave(1, |weave| weave.start(id, None));
        world.pass(20);
    }
    assert_eq!(world.owner(0, first.address), Some(1));
}

#[test]
fn the_address_of_an_unused_lease_is_claimed_by_force_alone() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let web = explicit("web");
    let (first, _) = given(world.up(0, "a", &web));
    world.down(0, "a");
    world.pass(1);
    for node in [0, 1] {
        let claim = |force| Request::Claim {
            id: "other".to_owned(),
            cidr: first,
            identity: None,
            container: true,
            no_error_on_unknown: false,
            force,
        };
        let error = refused(world.ask(node, 5, claim(false)));
        assert!(error.contains("web"), "{error}");
        if node == 1 {
            assert_eq!(world.ask(node, 5, claim(true)), Ok(Response::Done));
        }
    }
    assert_ne!(given(world.up(0, "b", &web)).0, first);
}

#[test]
fn what_a_container_has_becomes_that_of_its_identity() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let [web, db] = ["web", "db"].map(explicit);
    let (first, _) = given(world.plain_up(0, "a"));
    let claim = |who: &Identity| Request::Claim {
        id: "a".to_owned(),
        cidr: first,
        identity: Some(who.clone()),
        container: true,
        no_error_on_unknown: false,
        force: false,
    };
    // One that is up elsewhere is refused, and the address stays where it is.
    given(world.up(1, "b", &db));
    world.pass(1);
    let error = refused(world.ask(0, 5, claim(&db)));
    assert!(error.contains("db"), "{error}");
    assert_ne!(given(world.plain_up(0, "c")).0, first);
    let (same, mac) = given(world.ask(0, 5, claim(&web)));
    assert_eq!((same, mac.is_some()), (first, true));
    assert_ne!(given(world.plain_up(0, "d")).0, first);
    world.down(0, "a");
    assert_eq!(given(world.up(1, "e", &web)), (first, mac));
}

#[test]
fn a_lease_ends_after_its_retention() {
    let mut world = World::scene_of(Plan {
        seeded: true,
        retention: 300,
        ..Plan::calm(7, 2)
    });
    let web = explicit("web");
    given(world.up(0, "a", &web));
    world.pass(600);
    assert!(world.lease(1, &web).is_some(), "it is in use");
    world.down(0, "a");
    world.pass(200);
    assert!(world.lease(1, &web).is_some());
    world.pass(200);
    assert_eq!(world.lease(0, &web), None);
    assert_eq!(world.lease(1, &web), None);
}

#[test]
fn what_is_handed_over_goes_to_a_weft_router_first() {
    let mut world = World::scene(2, 2, "10.7.0.0/24");
    let web = explicit("web");
    let (first, mac) = given(world.up(0, "a", &web));
    world.down(0, "a");
    world.pass(1);
    world.reset(0);
    world.pass(5);
    assert_eq!(world.owner(1, first.address), Some(1));
    assert_eq!(given(world.up(1, "b", &web)), (first, mac));
}

/// The container still has its address; that our store forgot so must not give it another one.
#[test]
fn after_a_lost_store_a_container_that_runs_keeps_the_address_of_its_identity() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let web = explicit("web");
    let (first, mac) = given(world.up(0, "a", &web));
    world.pass(2);
    world.lose_store(0);
    world.pass(10);
    let addresses = vec![Found {
        id: "a".to_owned(),
        cidr: first,
        container: true,
    }];
    assert_eq!(
        world.ask(0, 5, Request::Found { addresses }),
        Ok(Response::Done)
    );
    for _ in 0..3 {
        assert_eq!(given(world.up(0, "a", &web)), (first, mac));
        world.pass(2);
    }
    let lease = world.lease(1, &web).unwrap();
    assert_eq!(lease.state, LeaseState::Used("a".to_owned()));
}

/// An identity that a user gave moves as soon as it does not run; one derived from a container's
/// name stays with the container, which may be started again.
#[test]
fn an_identity_moves_as_soon_as_its_container_is_dead() {
    let mut world = World::scene(2, 0, "10.7.0.0/24");
    let web = explicit("web");
    let name = Identity::new(IdentityKind::Derived, "db").unwrap();
    let (first, mac) = given(world.up(0, "a", &web));
    let (second, _) = given(world.up(0, "b", &name));
    world.pass(2);
    for id in ["a", "b"] {
        world.weft(0, |allocator, clock| {
            allocator.handle_container_died(clock, id)
        });
    }
    assert_eq!(given(world.up(1, "c", &web)), (first, mac));
    assert_ne!(given(world.up(1, "d", &name)).0, second);
}
