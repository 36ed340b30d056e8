//! Reading the recorded vectors.

#![allow(dead_code, clippy::unwrap_used)]

pub(crate) mod messages;

use ipam::range::{Address, Range};
use ipam::ring::{Entry, Ring};
use proto::types::PeerName;
use serde_json::Value;

pub(crate) fn path(name: &str) -> String {
    format!("{}/tests/vectors/{name}", env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn load(name: &str) -> Value {
    serde_json::from_slice(&std::fs::read(path(name)).unwrap()).unwrap()
}

pub(crate) fn hex(value: &Value) -> Vec<u8> {
    let text = value.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap())
        .collect()
}

pub(crate) fn peer(value: &Value) -> PeerName {
    value.as_str().unwrap().parse().unwrap()
}

pub(crate) fn address(value: &Value) -> Address {
    value.as_str().unwrap().parse().unwrap()
}

pub(crate) fn number(value: &Value) -> u32 {
    value.as_u64().unwrap().try_into().unwrap()
}

pub(crate) fn range(value: &Value) -> Range {
    Range::new(address(&value[0]), address(&value[1]))
}

pub(crate) fn ring(value: &Value) -> Ring {
    let list = |name: &str| value[name].as_array().cloned().unwrap_or_default();
    Ring {
        start: address(&value["start"]),
        end: address(&value["end"]),
        entries: list("entries")
            .iter()
            .map(|entry| Entry {
                token: address(&entry["token"]),
                peer: peer(&entry["peer"]),
                version: entry["version"].as_u64().unwrap_or(0) as u32,
                free: entry["free"].as_u64().unwrap_or(0) as u32,
            })
            .collect(),
        seeds: list("seeds").iter().map(peer).collect(),
    }
}

/// Returns the ids of the types that a stream defines, in order.
pub(crate) fn type_ids(stream: &[u8]) -> Vec<i64> {
    let mut ids = Vec::new();
    let mut rest = stream;
    while let Ok(Some((start, end))) = proto::gob::split_message(rest, usize::MAX) {
        let id = int(&rest[start..end]);
        if id < 0 {
            ids.push(-id);
        }
        rest = &rest[end..];
    }
    ids
}

fn int(bytes: &[u8]) -> i64 {
    let first = bytes[0];
    let value = if first < 0x80 {
        u64::from(first)
    } else {
        let len = usize::from(first.wrapping_neg());
        bytes[1..=len].iter().fold(0, |n, b| n << 8 | u64::from(*b))
    };
    let magnitude = (value >> 1).cast_signed();
    if value & 1 == 0 {
        magnitude
    } else {
        !magnitude
    }
}
