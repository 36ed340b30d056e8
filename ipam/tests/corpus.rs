//! Replays what fuzzers of this crate's entry points start from and have found, and makes their
//! seeds from the recorded vectors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and write files when they are told to"
)]

mod common;
#[path = "../../fuzz/seeds.rs"]
mod seeds;

use ipam::fuzzing;
use ipam::leases::wire::Message;
use ipam::persist::Stored;

use self::common::messages::{lease_messages, ring_messages};
use self::common::{hex, load, path};
use self::seeds::Target;

fn targets() -> Vec<Target> {
    vec![
        Target::new("ipam_lease_message", fuzzing::fuzz_lease_message, leases()),
        Target::new("ipam_record", fuzzing::fuzz_record, records()),
        Target::new("ipam_ring_message", fuzzing::fuzz_ring_message, ring()),
        Target::new(
            "ipam_weave_database",
            fuzzing::fuzz_weave_database,
            databases(),
        ),
    ]
}

#[test]
fn every_input_is_survived() {
    seeds::replay(&targets());
}

#[test]
fn seeds_are_those_of_the_vectors() {
    seeds::check_seeds(&targets());
}

/// Recorded messages of Weave Net's channel, and the same kinds from our own ring.
fn ring() -> Vec<Vec<u8>> {
    let vectors = load("ipam_messages.json");
    let list = |name: &str, key: &str| -> Vec<Vec<u8>> {
        let cases = vectors[name].as_array().unwrap().iter();
        cases.map(|case| hex(&case[key])).collect()
    };
    let recorded = [list("unicast", "message"), list("gossip", "hex")].concat();
    assert!(recorded.len() > 10);
    [recorded, ring_messages()].concat()
}

/// Weave Net has no such channel, so these are our own.
fn leases() -> Vec<Vec<u8>> {
    lease_messages().iter().map(Message::encode).collect()
}

/// Returns a record of each kind; only our own store has them.
fn records() -> Vec<Vec<u8>> {
    let peer = [2, 0, 0, 0, 0, 1];
    let other = [2, 0, 0, 0, 0, 2];
    let time = 1_700_000_000_u64.to_be_bytes();
    let lease_key = [&[0, 3][..], b"web", &[10, 7, 0, 0, 24]].concat();
    let proposal = [&[0; 7][..], &[1], &peer, &[9; 8]].concat();
    let records: [(&[u8], &[&[u8]]); 9] = [
        (b"m", &[&[1], &peer, &[10, 7, 0, 0, 24, 0]]),
        (b"s", &[&[0, 0, 0, 2], &peer, &other]),
        (b"e\x0a\x07\x00\x00", &[&peer, &[0, 0, 0, 3, 0, 0, 0, 100]]),
        (b"a\x0a\x07\x00\x01", &[&[24, 1, 2], b"c0"]),
        (b"a\x0a\x07\x00\x02", &[&[24, 3, 2], b"c1", &lease_key]),
        (
            &[b"l", &lease_key[..]].concat(),
            &[&[0; 7], &[9], &peer, &[10, 7, 0, 2], &time, &[2, 2], b"c1"],
        ),
        (
            b"p",
            &[
                &[9; 8],
                &proposal,
                &proposal,
                &proposal,
                &[0, 0, 0, 1],
                &peer,
            ],
        ),
        (
            &[b"t", &other[..]].concat(),
            &[
                &time,
                &[1, 0, 0, 0, 1, 10, 7, 0, 128, 10, 7, 1, 0],
                &[0, 0, 0, 1],
                &peer,
            ],
        ),
        (&[b"k", &other[..]].concat(), &[&time, &[2], &peer]),
    ];
    let records = records.map(|(key, value)| {
        let value = value.concat();
        Stored::default().insert(key, &value).expect("a record");
        [&[u8::try_from(key.len()).unwrap()], key, &value].concat()
    });
    records.to_vec()
}

/// Returns a database that a real router wrote, and one with each kind of item.
fn databases() -> Vec<Vec<u8>> {
    ["weavedata.db", "weavedata_live_w1.db"]
        .map(|name| std::fs::read(path(name)).unwrap())
        .to_vec()
}
