//! All fuzzing entry points under libFuzzer; `FUZZ_TARGET` says which one. Needs a nightly compiler
//! and a C++ compiler:
//!
//! ```text
//! RUSTFLAGS="-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
//!   -Cllvm-args=-sanitizer-coverage-inline-8bit-counters \
//!   -Cllvm-args=-sanitizer-coverage-pc-table -Ccodegen-units=1" \
//!   cargo +nightly build --release --target x86_64-unknown-linux-gnu
//! FUZZ_TARGET=native_link target/x86_64-unknown-linux-gnu/release/fuzz -max_total_time=300 \
//!   corpus/native_link
//! ```
//!
//! What it finds goes to `corpus/TARGET`, which `proto/tests/corpus.rs` replays.
#![no_main]

use std::sync::LazyLock;

use libfuzzer_sys::fuzz_target;

fn target() -> fn(&[u8]) {
    let name = std::env::var("FUZZ_TARGET").unwrap_or_default();
    match name.as_str() {
        "dns_message" => proto::fuzzing::fuzz_dns_message,
        "ethernet" => proto::fuzzing::fuzz_ethernet,
        "features" => proto::fuzzing::fuzz_features,
        "fragment" => proto::fuzzing::fuzz_fragment,
        "gob" => proto::fuzzing::fuzz_gob,
        "join" => proto::fuzzing::fuzz_join,
        "message" => proto::fuzzing::fuzz_message,
        "names_gossip" => proto::fuzzing::fuzz_names_gossip,
        "native_datagram" => proto::fuzzing::fuzz_native_datagram,
        "native_hello" => proto::fuzzing::fuzz_native_hello,
        "native_link" => proto::fuzzing::fuzz_native_link,
        "native_report" => proto::fuzzing::fuzz_native_report,
        "node" => proto::fuzzing::fuzz_node,
        "sleeve" => proto::fuzzing::fuzz_sleeve,
        "split" => proto::fuzzing::fuzz_split,
        "topology" => proto::fuzzing::fuzz_topology,
        "wire" => proto::fuzzing::fuzz_wire,
        "wire_introduced" => proto::fuzzing::fuzz_wire_introduced,
        "ipam_lease_message" => ipam::fuzzing::fuzz_lease_message,
        "ipam_record" => ipam::fuzzing::fuzz_record,
        "ipam_ring_message" => ipam::fuzzing::fuzz_ring_message,
        "ipam_weave_database" => ipam::fuzzing::fuzz_weave_database,
        other => panic!("FUZZ_TARGET={other:?} is none; see src/main.rs for their names"),
    }
}

static TARGET: LazyLock<fn(&[u8])> = LazyLock::new(target);

fuzz_target!(|data: &[u8]| (*TARGET)(data));
