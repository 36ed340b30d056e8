//! Parsers of names and of DNS messages.

use std::net::Ipv4Addr;

use fastrand::Rng;

use crate::names::answer::{Reply, Responder, Transport, Zone};
use crate::names::message::{self as dns, Query};
use crate::names::{Domain, Index, Names, NamesConfig, UnixSecs, gossip};
use crate::types::{PeerName, Time};

/// Gossip of names: what decodes is in order, without repetition, survives its own encoding, and
/// is taken in without harm.
pub fn fuzz_names_gossip(data: &[u8]) {
    let Ok(decoded) = gossip::decode(data) else {
        return;
    };
    assert!(decoded.entries.is_sorted_by(|a, b| a.key < b.key));
    let again = gossip::encode_one(decoded.timestamp, decoded.entries.clone());
    let again = gossip::decode(&again).unwrap_or_default();
    assert_eq!((again.timestamp, again.bad), (decoded.timestamp, 0));
    assert_eq!(again.entries.is_empty(), decoded.entries.is_empty());
    assert!(again.entries.iter().all(|e| decoded.entries.contains(e)));

    let Ok(domain) = "weave.local.".parse::<Domain>() else {
        return;
    };
    let us = PeerName::from_bytes([1; 6]);
    let mut names = Names::new(NamesConfig { us, domain }, Time::ZERO);
    let mut peers: Vec<PeerName> = decoded.entries.iter().map(|e| e.key.origin).collect();
    peers.truncate(3);
    let wall = UnixSecs(1_700_000_000);
    names.handle_peers(Time::ZERO, wall, &peers);
    let taken = names.handle_gossip(Time::ZERO, wall, us, data);
    assert!(taken.is_ok() && names.table().len() <= decoded.entries.len());
    while names.poll_output().is_some() {}
    let repeated = names.handle_broadcast(Time::ZERO, wall, us, data);
    assert!(repeated.is_ok() && names.table().len() <= decoded.entries.len());
}

/// DNS messages: a response is never longer than allowed, nor made to what is no query, and
/// parses as what it is.
pub fn fuzz_dns_message(data: &[u8]) {
    let Ok(domain) = "weave.local.".parse::<Domain>() else {
        return;
    };
    let zone = Zone {
        domain,
        ttl_secs: 1,
        private: Vec::new(),
    };
    let mut responder = Responder::new(zone, Rng::with_seed(1));
    let (index, mut out) = (sample_index(), Vec::new());
    for transport in [Transport::Udp, Transport::Tcp] {
        match responder.respond(&index, data, transport, &mut out) {
            Reply::Answered(rcode) => {
                assert_eq!(dns::rcode_of(&out), rcode as u8);
                assert_eq!(dns::id_of(&out), dns::id_of(data));
                match Query::parse(data) {
                    Ok(query) => {
                        assert!(query.is_answered_by(query.id(), &out));
                        assert!(out.len() <= transport.limit(&query).max(data.len()));
                    }
                    Err(_) => assert!(out.len() <= data.len()),
                }
            }
            Reply::Forward(query) => assert_eq!(query.packet(), data),
            Reply::Ignored => assert!(data.len() < dns::HEADER_BYTES || data[2] & 0x80 != 0),
        }
    }
    for limit in [0, dns::HEADER_BYTES, 100, data.len() / 2] {
        let mut response = data.to_vec();
        dns::cut_response(&mut response, limit);
        assert!(response.len() <= data.len());
    }
}

fn sample_index() -> Index {
    let names = (0..60).map(|i| ("many.weave.local.", Ipv4Addr::new(10, 7, 2, i)));
    Index::of(names.chain([("a.weave.local.", Ipv4Addr::new(10, 7, 1, 1))]))
}
