//! Messages as routers send them, one of each kind.

use std::collections::BTreeMap;
use std::sync::Arc;

use ipam::allocator::{Channel, Clock, Output};
use ipam::fuzzing::busy_allocator;
use ipam::leases::wire::{Answer, Ask, AskKind, Hello, Message, Outcome};
use ipam::leases::{BUCKETS, Identity, IdentityKind, Lease, LeaseEntry, LeaseState};
use ipam::messages::Unicast;
use ipam::range::{Cidr, Range};
use proto::types::{PeerName, Time};

fn peer(number: u8) -> PeerName {
    PeerName::from_bytes([2, 0, 0, 0, 0, number])
}

fn universe() -> Cidr {
    "10.7.0.0/24".parse().unwrap()
}

/// Returns what the allocator itself says of its ring.
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

pub(crate) fn ring_messages() -> Vec<Vec<u8>> {
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

pub(crate) fn lease_messages() -> Vec<Message> {
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
