//! When an address is free again, and what a store that fails does to that.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use ipam::allocator::{
    Allocator, Clock, Config, Init, Origin, Output, Proof, Request, RequestError, RequestId,
    Response,
};
use ipam::fuzzing::busy_allocator;
use ipam::leases::{Identity, IdentityKind, LeaseState};
use ipam::persist::{BatchId, Stored};
use ipam::range::Cidr;
use proto::types::{PeerName, Time};

fn clock(seconds: u64) -> Clock {
    Clock {
        now: Time::from_micros(seconds * 1_000_000),
        wall: 1_700_000_000 + seconds,
    }
}

fn identity(name: &str) -> Identity {
    Identity::new(IdentityKind::Explicit, name).unwrap()
}

type Answers = Vec<(u64, Result<Response, RequestError>)>;

/// The answers, with all that is to be saved saved, or none of it.
fn answers(allocator: &mut Allocator, at: u64, store_works: bool) -> Answers {
    let mut out = Vec::new();
    let mut first = None;
    loop {
        while let Some(output) = allocator.poll_output() {
            match output {
                Output::Persist(batch) if store_works => {
                    allocator.handle_persisted(clock(at), batch.id, Ok(()));
                }
                Output::Persist(batch) => {
                    first.get_or_insert(batch.id);
                }
                Output::Reply { request, result } => out.push((request.0, result)),
                _ => {}
            }
        }
        match first.take() {
            Some(id) => fail(allocator, at, id),
            None => return out,
        }
    }
}

fn fail(allocator: &mut Allocator, at: u64, first: BatchId) {
    allocator.handle_persisted(clock(at), first, Err("no space left".to_owned()));
}

fn ask(allocator: &mut Allocator, at: u64, request: Request) -> Result<Response, RequestError> {
    allocator.handle_request(clock(at), RequestId(at), None, request);
    let mut all = answers(allocator, at, true);
    assert_eq!(all.len(), 1, "{all:?}");
    all.remove(0).1
}

fn allocate(id: &str, who: Option<&str>) -> Request {
    Request::Allocate {
        id: id.to_owned(),
        subnet: None,
        identity: who.map(identity),
        container: true,
    }
}

fn address(answer: Result<Response, RequestError>) -> Cidr {
    match answer {
        Ok(Response::Address { cidr, .. }) => cidr,
        other => panic!("{other:?}"),
    }
}

fn addresses(allocator: &mut Allocator, at: u64, id: &str) -> Vec<Cidr> {
    let request = Request::Lookup {
        id: id.to_owned(),
        subnet: None,
    };
    match ask(allocator, at, request) {
        Ok(Response::Addresses(addresses)) => addresses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_release_of_a_dead_container_that_was_not_stored_is_tried_again() {
    for destroyed in [true, false] {
        let mut allocator = busy_allocator();
        if destroyed {
            allocator.handle_container_destroyed(clock(10), "c0");
        } else {
            allocator.handle_container_died(clock(10), "c0");
            allocator.handle_timeout(clock(45));
        }
        answers(&mut allocator, 45, false);
        assert_eq!(addresses(&mut allocator, 46, "c0").len(), 1, "it is kept");
        for at in [50, 55, 60] {
            allocator.handle_timeout(clock(at));
            answers(&mut allocator, at, true);
        }
        assert_eq!(addresses(&mut allocator, 61, "c0"), []);
    }
}

#[test]
fn a_container_that_is_started_again_keeps_its_address() {
    let mut allocator = busy_allocator();
    allocator.handle_container_died(clock(10), "c0");
    allocator.handle_container_started(clock(20), "c0");
    for at in [45, 50, 55] {
        allocator.handle_timeout(clock(at));
        answers(&mut allocator, at, true);
    }
    assert_eq!(addresses(&mut allocator, 61, "c0").len(), 1);
}

#[test]
fn a_failed_save_fails_the_request_that_asked_for_it_and_no_other() {
    let mut allocator = busy_allocator();
    allocator.handle_request(clock(10), RequestId(1), None, allocate("new", None));
    let Some(Output::Persist(first)) = allocator.poll_output() else {
        panic!("nothing to save");
    };
    allocator.handle_request(clock(10), RequestId(2), None, Request::List);
    allocator.handle_request(clock(10), RequestId(3), None, allocate("other", None));
    fail(&mut allocator, 10, first.id);
    let all = answers(&mut allocator, 10, true);
    let of = |id: u64| all.iter().filter(move |(request, _)| *request == id);
    assert_eq!(of(1).count() + of(2).count() + of(3).count(), all.len());
    assert!(
        matches!(of(1).next(), Some((_, Err(RequestError::Store(_))))),
        "{all:?}"
    );
    assert!(of(2).all(|(_, result)| result.is_ok()), "{all:?}");
    assert!(of(3).all(|(_, result)| result.is_ok()), "{all:?}");
    assert_eq!(all.len(), 3, "{all:?}");
    assert!(addresses(&mut allocator, 11, "new").is_empty());
    assert_eq!(addresses(&mut allocator, 12, "other").len(), 1);
}

#[test]
fn a_store_that_takes_nothing_ends_every_request() {
    let mut allocator = busy_allocator();
    for id in 1..=20 {
        let request = allocate(&format!("n{id}"), None);
        allocator.handle_request(clock(10), RequestId(id), None, request);
    }
    let all = answers(&mut allocator, 10, false);
    assert_eq!(all.len(), 20);
    for (_, result) in all {
        assert!(matches!(result, Err(RequestError::Store(_))), "{result:?}");
    }
}

#[test]
fn an_identity_whose_container_is_dead_need_not_wait() {
    let mut allocator = busy_allocator();
    let [before] = addresses(&mut allocator, 9, "c1")[..] else {
        panic!("it has one");
    };
    let error = ask(&mut allocator, 10, allocate("c2", Some("web")));
    assert!(matches!(error, Err(RequestError::IdentityInUse { .. })));
    allocator.handle_container_died(clock(11), "c1");
    assert_eq!(
        address(ask(&mut allocator, 12, allocate("c2", Some("web")))),
        before
    );
    assert!(addresses(&mut allocator, 13, "c1").is_empty());
}

#[test]
fn an_address_moves_to_an_identity_without_being_free() {
    let mut allocator = busy_allocator();
    let [cidr] = addresses(&mut allocator, 9, "c0")[..] else {
        panic!("it has one");
    };
    let moved = |from: &str, to: &str, who: Option<&str>| Request::Move {
        from: from.to_owned(),
        to: to.to_owned(),
        cidr,
        identity: who.map(identity),
        container: true,
    };
    // Another identity's name is up elsewhere: nothing changes.
    let error = ask(&mut allocator, 10, moved("c0", "c9", Some("web")));
    assert!(error.is_err());
    assert_eq!(addresses(&mut allocator, 11, "c0"), [cidr]);
    // Who does not have it cannot move it.
    assert!(ask(&mut allocator, 12, moved("nobody", "c9", Some("db"))).is_err());
    let got = ask(&mut allocator, 13, moved("c0", "c9", Some("db")));
    assert_eq!(address(got), cidr);
    assert!(addresses(&mut allocator, 14, "c0").is_empty());
    assert_eq!(addresses(&mut allocator, 15, "c9"), [cidr]);
    let lease = allocator
        .lease_table()
        .live(&identity("db").key("10.7.0.0/24".parse().unwrap()));
    assert_eq!(lease.unwrap().state, LeaseState::Used("c9".to_owned()));
    // From one identity to a plain container: the identity keeps the address for later.
    assert!(ask(&mut allocator, 16, moved("c9", "c8", None)).is_err());
    assert_eq!(addresses(&mut allocator, 17, "c9"), [cidr]);
}

#[test]
fn an_end_is_told_with_its_proof() {
    let mut allocator = busy_allocator();
    let request = Request::Release {
        id: "c0".to_owned(),
        proof: Proof::NamespaceEnded,
    };
    assert_eq!(ask(&mut allocator, 10, request), Ok(Response::Done));
    assert!(addresses(&mut allocator, 11, "c0").is_empty());
}

/// Lets time pass, with what the wall clock says of it.
fn pass(allocator: &mut Allocator, to: u64, wall: u64) {
    let clock = Clock { wall, ..clock(to) };
    allocator.handle_timeout(clock);
    while let Some(output) = allocator.poll_output() {
        if let Output::Persist(batch) = output {
            allocator.handle_persisted(clock, batch.id, Ok(()));
        }
    }
}

fn has_lease(allocator: &Allocator) -> bool {
    let key = identity("web").key("10.7.0.0/24".parse().unwrap());
    allocator.lease_table().live(&key).is_some()
}

/// The busy allocator keeps an unused lease for 1000 seconds.
#[test]
fn retention_is_time_that_the_router_saw_pass() {
    let mut allocator = busy_allocator();
    let delete = Request::Delete {
        id: "c1".to_owned(),
    };
    assert_eq!(ask(&mut allocator, 10, delete), Ok(Response::Done));
    let days = 24 * 3600;
    // The wall clock is 40 days ahead for a minute: nothing has happened.
    pass(&mut allocator, 100, 1_700_000_000 + 40 * days);
    pass(&mut allocator, 160, 1_700_000_000 + 40 * days);
    assert!(has_lease(&allocator));
    // It is years behind, and the lease ends nevertheless.
    for to in [300, 600, 900, 1000] {
        pass(&mut allocator, to, 1_500_000_000);
        assert!(has_lease(&allocator));
    }
    pass(&mut allocator, 1080, 1_500_000_000);
    assert!(!has_lease(&allocator));
    // Its end is remembered for a week, and then forgotten.
    assert_eq!(allocator.lease_table().len(), 1);
    pass(&mut allocator, 6 * days, 1_700_000_000 + 400 * days);
    assert_eq!(allocator.lease_table().len(), 1);
    pass(&mut allocator, 8 * days, 1_500_000_000);
    assert_eq!(allocator.lease_table().len(), 0);
}

fn config() -> Config {
    Config {
        name: PeerName::from_bytes([2, 0, 0, 0, 0, 1]),
        nickname: "one".to_owned(),
        universe: "10.7.0.0/24".parse().unwrap(),
        universe_defaulted: false,
        default_subnet: None,
        init: Init::Seed(vec![PeerName::from_bytes([2, 0, 0, 0, 0, 1])]),
        uid: 1,
        lease_retention: 1000,
        await_found: false,
        rng_seed: 1,
    }
}

/// Starts from what was stored, does something, and stores what comes of it.
fn run(records: &mut BTreeMap<Vec<u8>, Vec<u8>>, wall: u64, times: &[u64], requests: Vec<Request>) {
    let stored = Stored::load(records.iter().map(|(key, value)| (&key[..], &value[..]))).unwrap();
    let clock = |seconds: u64| Clock {
        now: Time::from_micros(seconds * 1_000_000),
        wall,
    };
    let mut allocator = Allocator::new(clock(1), config(), stored, Origin::Store).unwrap();
    for (at, request) in requests.into_iter().enumerate() {
        allocator.handle_request(clock(5), RequestId(at as u64), None, request);
    }
    for at in times {
        allocator.handle_timeout(clock(*at));
        while let Some(output) = allocator.poll_output() {
            let Output::Persist(batch) = output else {
                continue;
            };
            for (key, value) in batch.iter() {
                match value {
                    Some(value) => records.insert(key.to_vec(), value.to_vec()),
                    None => records.remove(key),
                };
            }
            allocator.handle_persisted(clock(*at), batch.id, Ok(()));
        }
    }
}

fn leases(records: &BTreeMap<Vec<u8>, Vec<u8>>) -> usize {
    let stored = Stored::load(records.iter().map(|(key, value)| (&key[..], &value[..]))).unwrap();
    stored.leases().filter(|(_, lease)| lease.is_live()).count()
}

#[test]
fn retention_goes_on_after_a_restart_whatever_the_wall_clock_says() {
    let mut records = BTreeMap::new();
    let reserve = |name: &str| Request::LeaseReserve {
        identity: identity(name),
        subnet: None,
        address: None,
        pinned: false,
    };
    let now = 1_700_000_000;
    run(&mut records, now, &[5], vec![reserve("web")]);
    run(&mut records, now + (1 << 30), &[100, 500, 3700], Vec::new());
    assert_eq!(leases(&records), 0, "it was idle for an hour");

    // A store of a release that knew no such time: what it has is as of now.
    run(&mut records, now, &[5], vec![reserve("web")]);
    records.retain(|key, _| key[0] != b'c' && key[0] != b'u');
    run(&mut records, now + (1 << 30), &[100, 900], Vec::new());
    assert_eq!(leases(&records), 1);
    run(&mut records, now, &[100, 1100], Vec::new());
    assert_eq!(leases(&records), 0);
}
