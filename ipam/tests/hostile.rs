//! Messages that nobody should send: random, cut and changed ones. They cost nothing but
//! themselves: the allocator does not panic, and its state still fits together.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::allocator::{Channel, Clock, Output};
use ipam::fuzzing::{
    busy_allocator, fuzz_lease_message, fuzz_record, fuzz_ring_message, fuzz_weave_database,
};
use ipam::leases::wire::{Answer, Ask, AskKind, Hello, Message, Outcome};
use ipam::leases::{BUCKETS, Identity, IdentityKind, Lease, LeaseEntry, LeaseState};
use ipam::messages::Unicast;
use ipam::range::{Cidr, Range};
use proptest::prelude::*;
use proto::types::{PeerName, Time};

fn peer(number: u8) -> PeerName {
    PeerName::from_bytes([2, 0, 0, 0, 0, number])
}

fn universe() -> Cidr {
    "10.7.0.0/24".parse().unwrap()
}

/// What the allocator itself says of its ring.
fn state() -> Vec<u8> {
    let mut allocator = busy_allocator();
    let clock = Clock {
        now: Time::from_micros(6_000_000),
        wall: 1_700_000_006,
    };
    allocator.handle_state_wanted(clock, Channel::Ring, 1, None, false);
    let mut state = None;
    while let Some(output) = allocator.poll_output() {
        match output {
            Output::State { payload, .. } => state = payload,
            Output::Persist(batch) => allocator.handle_persisted(clock, batch.id, Ok(())),
            _ => {}
        }
    }
    state.unwrap()
}

fn ring_messages() -> Vec<Vec<u8>> {
    let state = state();
    vec![
        Unicast::RingUpdate(&state).encode(),
        Unicast::SpaceRequest(universe().range()).encode(),
        Unicast::SpaceDenied(Range::single("10.7.0.200".parse().unwrap())).encode(),
        state,
    ]
}

fn entry(name: &str, address: &str, state: LeaseState) -> LeaseEntry {
    let identity = Identity::new(IdentityKind::Explicit, name).unwrap();
    let lease = Lease {
        version: 9,
        holder: peer(2),
        address: address.parse().unwrap(),
        state,
        pinned: false,
        since: 1_700_000_000,
    };
    (Arc::new(identity.key(universe())), lease)
}

fn lease_messages() -> Vec<Message> {
    let entries = || {
        vec![
            entry("web", "10.7.0.1", LeaseState::Unused),
            entry("db", "10.7.0.200", LeaseState::Used("c".to_owned())),
            entry("old", "10.7.0.2", LeaseState::Gone),
        ]
    };
    let one = || entry("web", "10.7.0.2", LeaseState::Unused);
    let mut messages = vec![
        Message::Hello(Hello {
            origin: peer(2),
            digest: 77,
            universe: universe(),
            yields: false,
            has_ring: true,
            reply: true,
        }),
        Message::Compare(Box::new([3; BUCKETS])),
        Message::Summary(BTreeMap::from([(3, BTreeMap::from([(1, 2), (3, 4)]))])),
        Message::Entries {
            leases: entries(),
            wanted: vec![1, 2, 3],
        },
        Message::Answer(Answer {
            nonce: 1,
            outcome: Outcome::Done,
            entry: Some(one()),
            ring: Some(state()),
        }),
        Message::RingQuery {
            nonce: 5,
            taking: vec![peer(3)],
        },
        Message::RingAnswer {
            nonce: 5,
            gone: vec![peer(3)],
            taking: vec![peer(4)],
            state: state(),
        },
        Message::Gone(peer(3)),
    ];
    let kinds = [
        AskKind::Take,
        AskKind::Pin,
        AskKind::Unpin,
        AskKind::Release,
        AskKind::Grant,
    ];
    messages.extend(kinds.map(|kind| {
        Message::Ask(Ask {
            nonce: 1,
            kind,
            entry: one(),
        })
    }));
    messages
}

#[test]
fn lease_messages_come_back_as_they_were() {
    for message in lease_messages() {
        assert_eq!(Message::decode(&message.encode()), Ok(message));
    }
}

#[test]
fn cut_messages_are_no_messages() {
    for message in lease_messages() {
        let whole = message.encode();
        for end in 0..whole.len() {
            // A ring at the end is not looked into at this level.
            if !matches!(message, Message::RingAnswer { .. }) {
                assert!(
                    Message::decode(&whole[..end]).is_err(),
                    "{message:?} to {end}"
                );
            }
        }
        fuzz_lease_message(&whole);
    }
    for message in ring_messages() {
        for end in 0..message.len() {
            fuzz_ring_message(&message[..end]);
        }
    }
}

/// A changed copy of one of these.
fn changed(of: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let flips = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6);
    (prop::sample::select(of), flips).prop_map(|(mut bytes, flips)| {
        for (index, value) in flips {
            let at = index.index(bytes.len());
            bytes[at] = value;
        }
        bytes
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn random_bytes_do_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        fuzz_ring_message(&bytes);
        fuzz_lease_message(&bytes);
        fuzz_weave_database(&bytes);
        fuzz_record(&bytes);
    }

    #[test]
    fn changed_rings_do_no_harm(bytes in changed(ring_messages())) {
        fuzz_ring_message(&bytes);
    }

    #[test]
    fn changed_lease_messages_do_no_harm(
        bytes in changed(lease_messages().iter().map(Message::encode).collect()),
    ) {
        fuzz_lease_message(&bytes);
    }
}
