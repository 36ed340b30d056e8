//! Exchanges recorded from a real router, answered byte for byte, and laws of the answers.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use fastrand::Rng;
use proptest::prelude::*;
use proto::fuzzing::fuzz_dns_message;
use proto::names::answer::{self, Reply, Responder, Transport, Zone};
use proto::names::message::{self, Query, QueryError, Rcode};
use proto::names::{Index, UnixSecs, gossip};
use serde_json::Value;

fn vectors(file: &str) -> Value {
    let path = format!("{}/tests/vectors/{file}", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn unhex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    let digit = |i| u8::from_str_radix(&text[i..i + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(digit).collect()
}

fn responder(seed: u64) -> Responder {
    let zone = Zone {
        domain: "weave.local.".parse().unwrap(),
        ttl_secs: 1,
        private: vec!["10.32.0.0/12".parse().unwrap()],
    };
    Responder::new(zone, Rng::with_seed(seed))
}

/// Returns the index of the names in `dns.json`.
fn recorded_index(vectors: &Value) -> Index {
    let names = vectors["names"].as_object().unwrap();
    Index::of(names.iter().flat_map(|(name, addresses)| {
        let addresses = addresses.as_array().unwrap().iter();
        addresses.map(|addr| (name.as_str(), addr.as_str().unwrap().parse().unwrap()))
    }))
}

/// Returns a response as its parts: header with question, and one part for each of its records of
/// `record_bytes`.
fn parts(response: &[u8], question_bytes: usize) -> (&[u8], Vec<&[u8]>) {
    let (head, records) = response.split_at(12 + question_bytes);
    let count = usize::from(u16::from_be_bytes([head[6], head[7]]));
    if count == 0 {
        assert!(records.is_empty());
        return (head, Vec::new());
    }
    assert_eq!(records.len() % count, 0);
    (head, records.chunks(records.len() / count).collect())
}

#[test]
fn recorded_exchanges_come_out_the_same() {
    let vectors = vectors("dns.json");
    let index = recorded_index(&vectors);
    let mut responder = responder(7);
    for exchange in vectors["exchanges"].as_array().unwrap() {
        let (query, recorded) = (unhex(&exchange["query"]), unhex(&exchange["response"]));
        let transport = match exchange["tcp"].as_bool().unwrap() {
            true => Transport::Tcp,
            false => Transport::Udp,
        };
        let mut out = vec![1, 2, 3];
        match responder.respond(&index, &query, transport, &mut out) {
            Reply::Answered(_) => {}
            // The recorded router had nobody to ask.
            Reply::Forward(query) => query.failure(Rcode::ServFail, &mut out),
            Reply::Ignored => panic!("{exchange}"),
        }
        if transport == Transport::Udp && recorded.len() > answer::UDP_ANSWER_BYTES_MAX {
            // Weave Net sends as much as it is asked for.
            assert!(message::is_truncated(&out), "{exchange}");
            continue;
        }
        let question_bytes = exchange["question"].as_str().unwrap().len() + 6;
        let (head, mut records) = parts(&out, question_bytes);
        let (recorded_head, mut recorded_records) = parts(&recorded, question_bytes);
        assert_eq!(head, recorded_head, "{exchange}");
        assert_eq!(out.len(), recorded.len());
        records.sort_unstable();
        recorded_records.sort_unstable();
        if !message::is_truncated(&out) {
            assert_eq!(records, recorded_records, "{exchange}");
            continue;
        }
        // Which of the answers are kept is random; they are different ones of the name.
        assert_eq!(records.len(), recorded_records.len());
        records.dedup();
        assert_eq!(records.len(), recorded_records.len());
        for record in records {
            let addr = Ipv4Addr::from(*record.last_chunk::<4>().unwrap());
            assert!(index.lookup("many.weave.local.").contains(&addr));
            assert_eq!(
                record[..record.len() - 4],
                recorded_records[0][..record.len() - 4]
            );
        }
    }
}

#[test]
fn captured_gossip_decodes_and_encodes() {
    let mut seen = 0;
    for session in vectors("live_capture.json").as_array().unwrap() {
        let messages = session["messages"].as_array().unwrap().iter();
        for message in messages.filter(|message| message["channel"] == gossip::CHANNEL) {
            let bytes = unhex(&message["payload"]);
            let ids = message["type_ids"].as_object().unwrap();
            let id = |name: &str| {
                let found = ids
                    .iter()
                    .find(|(_, ty)| ty.as_str().unwrap().ends_with(name));
                found.unwrap().0.parse().unwrap()
            };
            let ids = [id(" GossipData"), id(" Entries"), id(" Entry")];
            let data = gossip::decode(&bytes).unwrap();
            assert_eq!(data.bad, 0);
            assert!(data.timestamp > UnixSecs(1_700_000_000));
            assert_eq!(
                gossip::encode_with_ids(ids, data.timestamp, data.entries),
                bytes
            );
            seen += 1;
        }
    }
    assert_eq!(seen, 9);
}

/// Returns a query for one name given as text.
fn query(name: &str, qtype: u16) -> Vec<u8> {
    let mut out = vec![0xab, 0xcd, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.push(0);
    out.extend_from_slice(&qtype.to_be_bytes());
    out.extend_from_slice(&[0, 1]);
    out
}

fn with_udp_size(mut query: Vec<u8>, size: u16) -> Vec<u8> {
    query[11] += 1;
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&size.to_be_bytes());
    query.extend_from_slice(&[0; 6]);
    query
}

fn index() -> Index {
    Index::of([
        ("web.weave.local.", [10, 32, 0, 1].into()),
        ("Web.weave.local.", [10, 32, 0, 2].into()),
        ("a.b.weave.local.", [10, 32, 0, 3].into()),
    ])
}

/// Returns the reply to a query, in short.
fn reply(packet: &[u8]) -> String {
    let mut out = Vec::new();
    match responder(1).respond(&index(), packet, Transport::Udp, &mut out) {
        Reply::Answered(rcode) => {
            let authoritative = if out[2] & 4 != 0 { " aa" } else { "" };
            format!(
                "{rcode:?}{authoritative} {}",
                u16::from_be_bytes([out[6], out[7]])
            )
        }
        Reply::Forward(_) => "forward".into(),
        Reply::Ignored => "ignored".into(),
    }
}

#[test]
fn each_kind_of_question_has_its_answer() {
    for (name, qtype, expected) in [
        ("web.weave.local", 1, "NoError aa 2"),
        ("WEB", 1, "NoError aa 2"),
        ("a.b.weave.local", 1, "NoError aa 1"),
        ("a.b.weave.local", 28, "NoError aa 0"),
        ("web", 16, "NoError aa 0"),
        ("web.weave.local", 252, "NoError aa 0"),
        ("b.weave.local", 1, "NxDomain 0"),
        ("weave.local", 6, "NxDomain 0"),
        ("x", 28, "NxDomain 0"),
        ("web.xweave.local", 1, "forward"),
        ("local.weave", 1, "forward"),
        ("", 2, "forward"),
        ("example.com", 252, "Refused 0"),
        ("example.com", 251, "Refused 0"),
        ("2.0.32.10.IN-addr.arpa", 12, "NoError aa 1"),
        ("9.0.32.10.in-addr.arpa", 12, "NxDomain 0"),
        ("8.8.8.8.in-addr.arpa", 12, "forward"),
        ("8.8.8.8.in-addr.arpa", 1, "NxDomain 0"),
        ("0.32.10.in-addr.arpa", 12, "NxDomain 0"),
        ("1.2.0.32.10.in-addr.arpa", 12, "NxDomain 0"),
        ("02.0.32.10.in-addr.arpa", 12, "NxDomain 0"),
        ("256.0.32.10.in-addr.arpa", 12, "NxDomain 0"),
        ("in-addr.arpa", 12, "NxDomain 0"),
        ("xin-addr.arpa", 12, "forward"),
        ("8.8.ip6.arpa", 12, "forward"),
    ] {
        assert_eq!(reply(&query(name, qtype)), expected, "{name} {qtype}");
    }
}

#[test]
fn odd_queries_get_little() {
    let good = query("web.weave.local", 1);
    let changed = |at: usize, to: u8| {
        let mut packet = good.clone();
        packet[at] = to;
        packet
    };
    assert_eq!(reply(&[]), "ignored");
    assert_eq!(reply(&good[..11]), "ignored");
    assert_eq!(reply(&changed(2, 0x80)), "ignored", "a response");
    assert_eq!(reply(&changed(2, 0x28)), "NotImp 0", "an update");
    assert_eq!(reply(&good[..12]), "FormErr 0");
    assert_eq!(reply(&good[..20]), "FormErr 0");
    assert_eq!(reply(&changed(5, 0)), "FormErr 0", "no question");
    assert_eq!(reply(&changed(12, 64)), "FormErr 0", "a label too long");
    assert_eq!(reply(&changed(12, 0xc0)), "FormErr 0", "a pointer");
    assert_eq!(
        reply(&changed(7, 1)),
        "FormErr 0",
        "an answer that is missing"
    );
    assert_eq!(
        reply(&query(&"abcdefg.".repeat(32), 1)),
        "FormErr 0",
        "a name too long"
    );

    // Class CH instead of IN.
    assert_eq!(reply(&changed(good.len() - 1, 3)), "Refused 0");
    // Two questions, the second a pointer to the first.
    let two = |name| {
        let mut packet = query(name, 1);
        packet[5] = 2;
        packet.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1]);
        packet
    };
    assert_eq!(reply(&two("web")), "NxDomain 0");
    assert_eq!(reply(&two("1.0.32.10.in-addr.arpa")), "NxDomain 0");
    assert_eq!(reply(&two("example.com")), "FormErr 0");
    let two_sizes = with_udp_size(with_udp_size(good, 512), 512);
    assert_eq!(reply(&two_sizes), "FormErr 0");
}

#[test]
fn answers_fit_the_size_that_was_asked_for() {
    let names = (0..4000u32).map(|i| ("many.weave.local.", Ipv4Addr::from(0x0a20_0000 + i)));
    let index = Index::of(names);
    let mut responder = responder(1);
    let mut ask = |packet: &[u8], transport| {
        let mut out = Vec::new();
        let reply = responder.respond(&index, packet, transport, &mut out);
        assert!(matches!(reply, Reply::Answered(Rcode::NoError)));
        (out.len(), message::is_truncated(&out))
    };
    let plain = query("many", 1);
    let (head, record) = (plain.len(), 6 + 10 + 4);
    assert_eq!(
        ask(&plain, Transport::Udp),
        (head + (512 - head) / record * record, true)
    );
    for size in [
        0,
        20,
        head,
        head + record - 1,
        head + record,
        1232,
        4096,
        65_535,
    ] {
        let packet = with_udp_size(plain.clone(), size as u16);
        let room = size.min(answer::UDP_ANSWER_BYTES_MAX).saturating_sub(head) / record;
        assert_eq!(
            ask(&packet, Transport::Udp),
            (head + room * record, true),
            "{size}"
        );
    }
    let (len, truncated) = ask(&plain, Transport::Tcp);
    assert!(truncated && len > 65_535 - record && len <= 65_535);
}

#[test]
fn every_address_comes_first_equally_often() {
    let names = (0..5u8).map(|i| ("web.weave.local.", Ipv4Addr::new(10, 0, 0, i)));
    let index = Index::of(names);
    let mut responder = responder(42);
    let (mut firsts, mut out) = (BTreeMap::new(), Vec::new());
    let packet = query("web", 1);
    for _ in 0..10_000 {
        responder.respond(&index, &packet, Transport::Udp, &mut out);
        let (_, records) = parts(&out, packet.len() - 12);
        *firsts.entry(records[0].to_vec()).or_insert(0) += 1;
    }
    assert_eq!(firsts.len(), 5);
    assert!(
        firsts.values().all(|count| (1800..2200).contains(count)),
        "{firsts:?}"
    );
}

#[test]
fn a_response_is_checked_against_its_question() {
    let packet = query("www.example.com", 1);
    let query = Query::parse(&packet).unwrap();
    let mut good = packet.clone();
    good[2] |= 0x80;
    let changed = |at: usize, to: u8| {
        let mut response = good.clone();
        response[at] = to;
        response
    };
    assert!(query.is_answered_by(0xabcd, &good));
    assert!(
        query.is_answered_by(0xabcd, &changed(14, b'W')),
        "case does not matter"
    );
    assert!(!query.is_answered_by(0xabce, &good), "another id");
    assert!(!query.is_answered_by(0xabcd, &packet), "a query");
    assert!(
        !query.is_answered_by(0xabcd, &changed(14, b'x')),
        "another name"
    );
    assert!(
        !query.is_answered_by(0xabcd, &changed(packet.len() - 3, 28)),
        "another type"
    );
    assert!(
        !query.is_answered_by(0xabcd, &changed(5, 2)),
        "another question more"
    );
    assert!(!query.is_answered_by(0xabcd, &good[..good.len() - 1]));
    assert!(!query.is_answered_by(0xabcd, &[]));

    let mut bare = good[..12].to_vec();
    bare[5] = 0;
    assert!(
        !query.is_answered_by(0xabcd, &bare),
        "no failure, and no question"
    );
    bare[3] = 1;
    assert!(query.is_answered_by(0xabcd, &bare), "a bare failure");
}

/// Returns a response with compressed answers, an authority and an OPT record.
fn long_response(answers: u16) -> Vec<u8> {
    let mut out = query("www.example.com", 1);
    out[2] |= 0x80;
    out[6..12].copy_from_slice(&[(answers >> 8) as u8, answers as u8, 0, 1, 0, 1]);
    for i in 0..=answers {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, i as u8]);
    }
    out.extend_from_slice(&[0, 0, 41, 16, 0, 0, 0, 0, 0, 0, 0]);
    out
}

#[test]
fn long_responses_are_cut_between_records() {
    let whole = long_response(40);
    let head = query("www.example.com", 1).len();
    for limit in head..whole.len() + 2 {
        let mut cut = whole.clone();
        message::cut_response(&mut cut, limit);
        if limit >= whole.len() {
            assert_eq!(cut, whole);
            continue;
        }
        let opt = if limit >= head + 11 { 11 } else { 0 };
        let count = ((limit - head - opt) / 16).min(40);
        assert_eq!(cut.len(), head + count * 16 + opt, "limit {limit}");
        assert_eq!(cut[6..12], [0, count as u8, 0, 0, 0, u8::from(opt > 0)]);
        assert!(message::is_truncated(&cut));
        assert_eq!(cut[12..head + count * 16], whole[12..head + count * 16]);
        assert_eq!(cut[cut.len() - opt..], whole[whole.len() - opt..]);
    }
    // What cannot be read loses everything but its header.
    let mut broken = whole;
    broken[head] = 0x40;
    message::cut_response(&mut broken, 100);
    assert_eq!(broken.len(), 12);
    assert_eq!(broken[4..12], [0; 8]);
}

#[test]
fn a_query_says_what_it_asks() {
    let packet = with_udp_size(query("Www.Example.com", 28), 1232);
    let query = Query::parse(&packet).unwrap();
    assert_eq!(query.name(), b"\x03www\x07example\x03com\0");
    assert_eq!((query.id(), query.qtype(), query.qclass()), (0xabcd, 28, 1));
    assert_eq!((query.questions(), query.udp_limit()), (1, 1232));
    assert_eq!(query.packet(), packet);
    for end in 12..packet.len() {
        let cut = Query::parse(&packet[..end]);
        assert_eq!(cut.err(), Some(QueryError::Malformed), "cut at {end}");
    }
}

fn message_like() -> impl Strategy<Value = Vec<u8>> {
    let name = prop_oneof![
        Just("many.weave.local".to_owned()),
        Just("a".to_owned()),
        Just("1.1.7.10.in-addr.arpa".to_owned()),
        "[a-z]{1,5}\\.[a-z]{1,5}"
    ];
    let size = prop::option::of(any::<u16>());
    (name, 0u16..40, size).prop_map(|(name, qtype, size)| {
        let packet = query(&name, qtype);
        match size {
            Some(size) => with_udp_size(packet, size),
            None => packet,
        }
    })
}

proptest! {
    #[test]
    fn hostile_messages_are_survived(
        packet in prop_oneof![message_like(), (0u16..9).prop_map(long_response)],
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut packet = packet;
        fuzz_dns_message(&packet);
        for (at, with) in flips {
            let at = at.index(packet.len());
            packet[at] ^= with;
        }
        fuzz_dns_message(&packet);
        fuzz_dns_message(&packet[..cut.index(packet.len())]);
    }
}
