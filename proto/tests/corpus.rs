//! Replays the inputs that fuzzers start from and what they have found: every file of
//! `fuzz/corpus/TARGET` goes through the function of that target.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::fs;
use std::path::Path;

use proto::fuzzing;

#[test]
fn every_input_is_survived() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for target in fs::read_dir(corpus).unwrap() {
        let target = target.unwrap();
        let function = match target.file_name().to_str().unwrap() {
            "dns_message" => fuzzing::fuzz_dns_message,
            "names_gossip" => fuzzing::fuzz_names_gossip,
            "native_datagram" => fuzzing::fuzz_native_datagram,
            "native_hello" => fuzzing::fuzz_native_hello,
            "native_link" => fuzzing::fuzz_native_link,
            "native_report" => fuzzing::fuzz_native_report,
            other => panic!("no function for target {other}"),
        };
        let mut inputs = 0;
        for input in fs::read_dir(target.path()).unwrap() {
            function(&fs::read(input.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{} is empty", target.path().display());
    }
}
