//! What a member of the mesh that lies can make us do, hold and say: all of it is bounded.

#![allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use ipam::allocator::{
    Alarm, Allocator, Channel, Clock, Delivery, Incoming, Output, Request, RequestId, Response,
};
use ipam::fuzzing::busy_allocator;
use ipam::leases::wire::Message;
use ipam::leases::{
    BUCKETS, HOLDER_LEASES_MAX, Identity, IdentityKind, LEASE_VERSION_MAX, LEASES_MAX, Lease,
    LeaseEntry, LeaseState,
};
use ipam::messages::{GossipState, Unicast, decode_state};
use ipam::range::{Address, Cidr};
use ipam::ring::VERSION_MAX;
use proto::types::{PeerName, Time};

fn peer(number: u8) -> PeerName {
    PeerName::from_bytes([2, 0, 0, 0, 0, number])
}

fn universe() -> Cidr {
    "10.7.0.0/24".parse().unwrap()
}

fn clock(millis: u64) -> Clock {
    Clock {
        now: Time::from_micros(millis * 1000),
        wall: 1_700_000_000 + millis / 1000,
    }
}

/// Everything that it puts out, with all that is to be saved saved at once.
fn drain(allocator: &mut Allocator, at: u64) -> Vec<Output> {
    let mut out = Vec::new();
    while let Some(output) = allocator.poll_output() {
        match output {
            Output::Persist(batch) => allocator.handle_persisted(clock(at), batch.id, Ok(())),
            other => out.push(other),
        }
    }
    out
}

/// Returns what comes of a message of the other router.
fn say(allocator: &mut Allocator, at: u64, channel: Channel, payload: &[u8]) -> Vec<Output> {
    let message = Incoming {
        channel,
        kind: Delivery::Unicast(peer(2)),
        via: peer(2),
        payload,
    };
    allocator.handle_message(clock(at), message);
    drain(allocator, at)
}

fn bytes(outputs: &[Output]) -> usize {
    let payloads = outputs.iter().map(|output| match output {
        Output::Unicast { payload, .. } | Output::Broadcast { payload, .. } => payload.len(),
        _ => 0,
    });
    payloads.sum()
}

fn alarms(outputs: Vec<Output>) -> Vec<Alarm> {
    let alarms = outputs.into_iter().filter_map(|output| match output {
        Output::Alarm(alarm) => Some(alarm),
        _ => None,
    });
    alarms.collect()
}

fn identity(name: &str) -> Identity {
    Identity::new(IdentityKind::Explicit, name).unwrap()
}

fn lease(name: &str, address: Address, version: u64) -> LeaseEntry {
    let lease = Lease {
        version,
        holder: peer(2),
        address,
        state: LeaseState::Unused,
        pinned: true,
        since: 1_700_000_000,
    };
    (Arc::new(identity(name).key(universe())), lease)
}

fn entries(leases: Vec<LeaseEntry>) -> Vec<u8> {
    let wanted = Vec::new();
    Message::Entries { leases, wanted }.encode()
}

/// Returns the lease of the identity that the busy allocator has up.
fn ours(allocator: &Allocator) -> LeaseEntry {
    let key = identity("web").key(universe());
    let lease = allocator.lease_table().live(&key).unwrap().clone();
    (Arc::new(key), lease)
}

fn nicknamed(count: u64) -> GossipState {
    let name = |n: u64| PeerName::from_u64(0x0300_0000_0000 + n).unwrap();
    GossipState {
        now: 0,
        nicknames: (0..count).map(|n| (name(n), "x".repeat(200))).collect(),
        election: None,
        ring: None,
    }
}

#[test]
fn ring_questions_after_many_nicknames_cost_no_more_than_the_asker_is_worth() {
    let mut allocator = busy_allocator();
    let mut told = 0;
    for part in 0..4 {
        let mut state = nicknamed(16_000);
        state.nicknames = state.nicknames.into_iter().skip(part * 4_000).collect();
        told += bytes(&say(
            &mut allocator,
            6_000,
            Channel::Ring,
            &Unicast::RingUpdate(&state.encode()).encode(),
        ));
    }
    let question = Unicast::SpaceRequest(universe().range()).encode();
    for number in 0..2_000 {
        told += bytes(&say(
            &mut allocator,
            6_000 + number,
            Channel::Ring,
            &question,
        ));
    }
    // The ration, and what the last answer took more.
    assert!(told < 10 << 20, "{told} bytes");
}

#[test]
fn an_asker_that_only_asks_does_not_come_to_own_everything() {
    let mut allocator = busy_allocator();
    let before = allocator.ring().owned(peer(1)).len();
    let question = Unicast::SpaceRequest(universe().range()).encode();
    for number in 0..2_000 {
        say(
            &mut allocator,
            6_000 + number * 10,
            Channel::Ring,
            &question,
        );
        // It tells what it owns, as an honest one does, and says that it uses nothing of it.
        allocator.handle_state_wanted(
            clock(6_000 + number * 10),
            Channel::Ring,
            number,
            None,
            false,
        );
        let outputs = drain(&mut allocator, 6_000 + number * 10);
        let state = outputs.into_iter().find_map(|output| match output {
            Output::State { payload, .. } => payload,
            _ => None,
        });
        let report = Unicast::RingUpdate(&state.unwrap()).encode();
        say(&mut allocator, 6_000 + number * 10, Channel::Ring, &report);
    }
    let after = allocator.ring().owned(peer(1)).len();
    assert!(after >= before / 2, "{after} of {before} left");
    // One that has used what it was given gets more.
    allocator.handle_state_wanted(clock(40_000), Channel::Ring, 1, None, false);
    let outputs = drain(&mut allocator, 40_000);
    let state = outputs.into_iter().find_map(|output| match output {
        Output::State { payload, .. } => payload,
        _ => None,
    });
    let mut state = decode_state(&state.unwrap(), |_| false).unwrap().state;
    for entry in &mut state.ring.as_mut().unwrap().1.entries {
        if entry.peer == peer(2) {
            entry.free = 0;
            entry.version += 1;
        }
    }
    say(&mut allocator, 40_000, Channel::Ring, &question);
    let report = Unicast::RingUpdate(&state.encode()).encode();
    say(&mut allocator, 40_001, Channel::Ring, &report);
    assert!(allocator.ring().owned(peer(1)).len() < after);
}

#[test]
fn one_that_claims_address_after_address_must_use_them() {
    let mut allocator = busy_allocator();
    for number in 3..120u32 {
        let one = ipam::range::Range::single(Address::new(0x0a07_0000 + number));
        let question = Unicast::SpaceRequest(one).encode();
        say(
            &mut allocator,
            6_000 + u64::from(number),
            Channel::Ring,
            &question,
        );
    }
    let left = allocator.ring().owned(peer(1)).len();
    assert!((60..=64).contains(&left), "{left}");
}

#[test]
fn comparisons_without_end_cost_a_ration() {
    let mut allocator = busy_allocator();
    for part in 0..100u32 {
        let leases = (0..500).map(|n| {
            let name = format!("{part}-{n}");
            lease(&name, "10.7.0.200".parse().unwrap(), 1)
        });
        say(
            &mut allocator,
            6_000,
            Channel::Leases,
            &entries(leases.collect()),
        );
    }
    assert!(allocator.lease_table().len() > 50_000);
    let compare = Message::Compare(Box::new([3; BUCKETS])).encode();
    let (mut told, start) = (0, Instant::now());
    for number in 0..5_000 {
        told += bytes(&say(
            &mut allocator,
            7_000 + number,
            Channel::Leases,
            &compare,
        ));
    }
    assert!(told < 16 << 20, "{told} bytes");
    assert!(
        start.elapsed() < Duration::from_secs(20),
        "{:?}",
        start.elapsed()
    );
}

#[test]
fn the_leases_of_one_member_leave_room_for_others() {
    let mut allocator = busy_allocator();
    let count = LEASES_MAX as u32;
    for part in 0..count / 512 {
        let leases = (0..512).map(|n| {
            let name = format!("{part}-{n}");
            lease(&name, "10.7.0.200".parse().unwrap(), 1)
        });
        say(
            &mut allocator,
            6_000,
            Channel::Leases,
            &entries(leases.collect()),
        );
    }
    let kept = allocator.lease_table().len();
    assert!(kept <= HOLDER_LEASES_MAX + 1, "{kept} leases");
    let request = Request::Allocate {
        id: "c9".to_owned(),
        subnet: None,
        identity: Some(identity("new")),
        container: true,
    };
    allocator.handle_request(clock(9_000), RequestId(99), None, request);
    let outputs = drain(&mut allocator, 9_000);
    let got = outputs.iter().any(|output| {
        matches!(
            output,
            Output::Reply {
                result: Ok(Response::Address { .. }),
                ..
            }
        )
    });
    assert!(got, "{outputs:?}");
}

#[test]
fn a_forged_end_of_our_lease_is_outdone_at_once_with_an_alarm() {
    let mut allocator = busy_allocator();
    let (key, mine) = ours(&allocator);
    let forged = Lease {
        version: mine.version + 1,
        state: LeaseState::Gone,
        ..mine.clone()
    };
    let outputs = say(
        &mut allocator,
        6_000,
        Channel::Leases,
        &entries(vec![(Arc::clone(&key), forged.clone())]),
    );
    let now = allocator.lease_table().live(&key).cloned().unwrap();
    assert!(now.beats(&forged) && now.holder == peer(1), "{now:?}");
    assert_eq!((&now.state, now.address), (&mine.state, mine.address));
    let alarms = alarms(outputs);
    assert!(
        matches!(alarms[..], [Alarm::LeaseDisputed { .. }]),
        "{alarms:?}"
    );
}

#[test]
fn two_that_both_have_an_identity_up_do_not_outdo_each_other_for_ever() {
    let mut allocator = busy_allocator();
    let (key, mine) = ours(&allocator);
    let (mut refuted, mut told) = (0, Vec::new());
    for number in 0..2_000 {
        let known = allocator.lease_table().get(&key).cloned().unwrap();
        let theirs = Lease {
            version: known.version + 1,
            holder: peer(2),
            state: LeaseState::Used("theirs".to_owned()),
            ..mine.clone()
        };
        let statement = entries(vec![(Arc::clone(&key), theirs.clone())]);
        told.extend(say(
            &mut allocator,
            6_000 + number * 100,
            Channel::Leases,
            &statement,
        ));
        let now = allocator.lease_table().get(&key).cloned().unwrap();
        assert_eq!((now.holder, now.address), (peer(1), mine.address));
        refuted += u32::from(now.beats(&theirs));
    }
    assert!((2..10).contains(&refuted), "{refuted} times");
    let alarms = alarms(told);
    assert!(
        matches!(alarms[..], [Alarm::LeaseDisputed { .. }]),
        "{alarms:?}"
    );
}

#[test]
fn versions_that_leave_no_room_are_refused() {
    let mut allocator = busy_allocator();
    let (key, mine) = ours(&allocator);
    for version in [LEASE_VERSION_MAX + 1, u64::MAX] {
        let forged = lease("web", mine.address, version);
        say(
            &mut allocator,
            6_000,
            Channel::Leases,
            &entries(vec![forged]),
        );
        let forged = lease("other", mine.address, version);
        say(
            &mut allocator,
            6_000,
            Channel::Leases,
            &entries(vec![forged]),
        );
    }
    assert_eq!(allocator.lease_table().get(&key), Some(&mine));
    assert_eq!(
        allocator
            .lease_table()
            .get(&identity("other").key(universe())),
        None
    );

    let ring = allocator.ring().clone();
    let mut theirs = ring.clone();
    theirs.entries[1].version = VERSION_MAX + 1;
    let state = GossipState {
        now: 0,
        nicknames: Vec::new().into_iter().collect(),
        election: None,
        ring: Some((peer(2), theirs)),
    };
    let report = Unicast::RingUpdate(&state.encode()).encode();
    say(&mut allocator, 6_000, Channel::Ring, &report);
    assert_eq!(allocator.ring(), &ring);
}
