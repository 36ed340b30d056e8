#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| ipam::fuzzing::fuzz_lease_message(data));
