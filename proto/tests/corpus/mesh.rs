//! Seeds for what comes over mesh connections, and for names.

use serde_json::Value;

use super::{bytes, list, load};

/// Choices of the targets `wire`, `wire_introduced` and `node`: protocol 1 only, encrypted, and
/// pieces of 64 bytes instead of one.
const VERSION_1: u8 = 1;
const ENCRYPTED: u8 = 2;
const PIECES_OF_64: u8 = 63 << 2;

pub(crate) fn gob() -> Vec<Vec<u8>> {
    let vectors = load("gob.json");
    let streams = list(&vectors, "streams");
    streams.iter().map(|stream| bytes(stream, "hex")).collect()
}

pub(crate) fn features() -> Vec<Vec<u8>> {
    let vectors = load("features.json");
    let sessions = vectors.as_array().unwrap();
    sessions
        .iter()
        .map(|session| bytes(session, "gob"))
        .collect()
}

/// Returns the messages of recorded connections, small ones first: there are many of each kind.
pub(crate) fn messages() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for message in load("gossip.json").as_array().unwrap() {
        if message["message"].is_string() {
            found.push(bytes(message, "message"));
        }
    }
    for session in load("live_capture.json").as_array().unwrap() {
        found.extend(
            list(session, "messages")
                .iter()
                .map(|m| bytes(m, "plaintext")),
        );
    }
    for case in load("handshake.json").as_array().unwrap() {
        found.extend(
            after_introduction(case)
                .iter()
                .map(|m| bytes(m, "plaintext")),
        );
    }
    found.sort_by_key(Vec::len);
    found.dedup();
    found
}

fn after_introduction(case: &Value) -> &[Value] {
    let messages = case["messages_after_intro"].as_array();
    messages.map_or(&[], Vec::as_slice)
}

/// Whole connections, as each end said it.
pub(crate) fn wires() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for case in load("handshake.json").as_array().unwrap() {
        for end in ["A", "B"] {
            if case[end]["all_bytes_sent"].is_string() {
                let mut choice = PIECES_OF_64;
                if case["version"] == 1 {
                    choice |= VERSION_1;
                }
                if case[end]["password_hex"].is_string() {
                    choice |= ENCRYPTED;
                }
                let sent = bytes(&case[end], "all_bytes_sent");
                found.push([&[choice], &sent[..]].concat());
                found.push([&[choice & !PIECES_OF_64], &sent[..]].concat());
            }
        }
    }
    for session in load("live_capture.json").as_array().unwrap() {
        let said = bytes(session, "tcp_client_to_router");
        found.push([&[PIECES_OF_64], &said[..]].concat());
    }
    found
}

/// Returns what is said on an introduced connection: plain, all messages one after the other, each
/// behind its length; encrypted, one message each.
pub(crate) fn introduced() -> Vec<Vec<u8>> {
    let mut found = Vec::new();
    for choice in [PIECES_OF_64, PIECES_OF_64 | VERSION_1] {
        let mut all = vec![choice];
        for message in messages().iter().take(12) {
            all.extend(u32::try_from(message.len()).unwrap().to_be_bytes());
            all.extend(message);
        }
        found.push(all);
    }
    for message in messages() {
        found.push([&[PIECES_OF_64 | ENCRYPTED], &message[..]].concat());
    }
    found
}

/// Returns what a neighbour of a node does: says recorded messages, and something of each other
/// kind between them.
pub(crate) fn nodes() -> Vec<Vec<u8>> {
    let others: [&[u8]; 5] = [
        &[4, 5, 134],
        &[5, 0, 1],
        &[6, 5, 134],
        &[7, 255, 255],
        &[3, 3, 0, 0, 0],
    ];
    let short: Vec<Vec<u8>> = messages().into_iter().filter(|m| m.len() <= 255).collect();
    let mut found = Vec::new();
    for (number, said) in short.chunks(3).enumerate() {
        let mut life = vec![PIECES_OF_64 | u8::from(number % 4 == 3)];
        for message in said {
            life.extend([0, u8::try_from(message.len()).unwrap()]);
            life.extend(message);
            life.extend(others[number % others.len()]);
        }
        found.push(life);
    }
    found
}

pub(crate) fn topologies() -> Vec<Vec<u8>> {
    let merges = load("topology_merge.json");
    let routes = load("routes.json");
    let updates = merges.as_array().unwrap().iter();
    let mut found: Vec<Vec<u8>> = updates.map(|case| bytes(case, "update")).collect();
    let payloads = routes.as_array().unwrap().iter();
    found.extend(payloads.map(|case| bytes(case, "gossip_payload")));
    found
}

pub(crate) fn names() -> Vec<Vec<u8>> {
    let vectors = load("nameserver.json");
    let gossip = list(&vectors, "gossip");
    let mut found: Vec<Vec<u8>> = gossip.iter().map(|case| bytes(case, "hex")).collect();
    // A message on that channel, behind what says its kind and the channel's name.
    let channel = b"nameserver";
    for message in messages() {
        let at = message
            .windows(channel.len())
            .position(|part| part == channel);
        found.extend(at.map(|at| message[at + channel.len()..].to_vec()));
    }
    found
}

pub(crate) fn dns() -> Vec<Vec<u8>> {
    let vectors = load("dns.json");
    let exchanges = list(&vectors, "exchanges").iter();
    exchanges
        .flat_map(|exchange| [bytes(exchange, "query"), bytes(exchange, "response")])
        .collect()
}
