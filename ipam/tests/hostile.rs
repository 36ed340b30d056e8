//! Messages that nobody should send: random, cut and changed ones. They cost nothing but
//! themselves: the allocator does not panic, and its state still fits together.

#![allow(clippy::unwrap_used)]

mod common;

use ipam::fuzzing::{fuzz_lease_message, fuzz_record, fuzz_ring_message, fuzz_weave_database};
use ipam::leases::wire::Message;
use proptest::prelude::*;

use self::common::messages::{lease_messages, ring_messages};

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

/// Returns a changed copy of one of these.
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
