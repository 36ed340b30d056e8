//! Replays what fuzzers of this crate's entry points start from and have found, and makes their
//! seeds from the recorded vectors.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    clippy::disallowed_methods,
    reason = "helpers of tests fail as tests do, and write files when they are told to"
)]

mod frames;
mod mesh;
mod native;
#[path = "../../../fuzz/seeds.rs"]
mod seeds;

use proto::fuzzing;
use serde_json::Value;

use self::seeds::Target;

fn targets() -> Vec<Target> {
    vec![
        Target::new("dns_message", fuzzing::fuzz_dns_message, mesh::dns()),
        Target::new("ethernet", fuzzing::fuzz_ethernet, frames::ethernet()),
        Target::new("features", fuzzing::fuzz_features, mesh::features()),
        Target::new("fragment", fuzzing::fuzz_fragment, frames::fragment()),
        Target::new("gob", fuzzing::fuzz_gob, mesh::gob()),
        Target::new("join", fuzzing::fuzz_join, frames::join()),
        Target::new("message", fuzzing::fuzz_message, mesh::messages()),
        Target::new("names_gossip", fuzzing::fuzz_names_gossip, mesh::names()),
        Target::new(
            "native_datagram",
            fuzzing::fuzz_native_datagram,
            native::datagrams(),
        ),
        Target::new("native_hello", fuzzing::fuzz_native_hello, native::hellos()),
        Target::new("native_link", fuzzing::fuzz_native_link, native::lives()),
        Target::new(
            "native_report",
            fuzzing::fuzz_native_report,
            native::reports(),
        ),
        Target::new("node", fuzzing::fuzz_node, mesh::nodes()),
        Target::new("sleeve", fuzzing::fuzz_sleeve, frames::sleeve()),
        Target::new("split", fuzzing::fuzz_split, frames::split()),
        Target::new("topology", fuzzing::fuzz_topology, mesh::topologies()),
        Target::new("wire", fuzzing::fuzz_wire, mesh::wires()),
        Target::new(
            "wire_introduced",
            fuzzing::fuzz_wire_introduced,
            mesh::introduced(),
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

/// Returns the content of a file of vectors.
fn load(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_str(&std::fs::read_to_string(&path).expect(&path)).expect(&path)
}

/// Returns the list under this key, which is not empty.
fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    let list = value[key].as_array().expect(key);
    assert!(!list.is_empty(), "{key} is empty");
    list
}

/// Returns the bytes whose hex digits stand under this key.
fn bytes(value: &Value, key: &str) -> Vec<u8> {
    unhex(value[key].as_str().expect(key))
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect(hex))
        .collect()
}
