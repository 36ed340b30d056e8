//! The recorded vectors of ring, space, election and messages, each decoded, encoded and acted
//! out.

#![allow(clippy::unwrap_used)]

mod common;

use common::{address, hex, load, number, peer, range, ring, type_ids};
use ipam::consensus::{Elector, NodeId, ProposalId, normalize};
use ipam::messages::{GossipState, Unicast, decode_state};
use ipam::range::{Address, Cidr, Range};
use ipam::ring::{Ring, WeaveRules};
use ipam::space::Space;
use proto::gob::Encoder;
use proto::types::PeerName;
use serde_json::Value;

fn texts(value: &Value) -> Vec<&str> {
    let list = value.as_array().unwrap();
    list.iter().map(|item| item.as_str().unwrap()).collect()
}

fn ranges(value: &Value) -> Vec<Range> {
    value.as_array().unwrap().iter().map(range).collect()
}

#[test]
fn rings_are_seeded_as_recorded() {
    for case in load("ring.json")["seed"].as_array().unwrap() {
        let expected = ring(&case["ring"]);
        let seeded = Ring::seeded(expected.universe(), &expected.seeds);
        assert_eq!(seeded, expected);
        let first = expected.seeds[0];
        assert_eq!(seeded.owned_ranges(first), ranges(&case["owned_by_first"]));
    }
}

#[test]
fn ownership_is_as_recorded() {
    for case in load("ring.json")["ownership"].as_array().unwrap() {
        let ring = ring(&case["ring"]);
        let us = peer(&case["ring"]["peer"]);
        assert_eq!(ring.owned_ranges(us), ranges(&case["owned_ranges"]));
        for (text, owner) in case["owner"].as_object().unwrap() {
            let seen = ring.owner(text.parse().unwrap());
            assert_eq!(seen.unwrap_or(PeerName::UNKNOWN), peer(owner));
        }
        let mut infos: Vec<_> = case["all_range_info"]
            .as_array()
            .unwrap()
            .iter()
            .map(|info| {
                let range = Range::new(address(&info["start"]), address(&info["end"]));
                (range, peer(&info["peer"]), number(&info["version"]))
            })
            .collect();
        let mut seen: Vec<_> = ring
            .intervals()
            .map(|(range, entry)| (range, entry.peer, entry.version))
            .collect();
        infos.sort_unstable();
        seen.sort_unstable();
        assert_eq!(seen, infos);
    }
}

#[test]
fn grants_transfers_and_reports_are_as_recorded() {
    let vectors = load("ring.json");
    for case in vectors["grant"].as_array().unwrap() {
        let (before, after) = (ring(&case["before"]), ring(&case["after"]));
        let us = peer(&case["before"]["peer"]);
        let mut granted = before.clone();
        let changes = granted.grant(us, range(&case["grant"]), peer(&case["to"]));
        assert_eq!(granted, after);
        granted.undo(&changes);
        assert_eq!(granted, before);
    }
    for case in vectors["transfer"].as_array().unwrap() {
        let (before, after) = (ring(&case["before"]), ring(&case["after"]));
        let mut moved = before.clone();
        let from = peer(&case["from"]);
        let gained = before.owned_ranges(from);
        let changes = moved.transfer(from, peer(&case["to"]));
        assert_eq!(moved, after);
        assert_eq!(gained, ranges(&case["new_ranges"]));
        moved.undo(&changes);
        assert_eq!(moved, before);
    }
    for case in vectors["report_free"].as_array().unwrap() {
        let (before, after) = (ring(&case["before"]), ring(&case["after"]));
        let us = peer(&case["before"]["peer"]);
        let free = case["free_by_owned_range_start"].as_object().unwrap();
        let mut reported = before.clone();
        let changes =
            reported.report_free(us, |range| Some(number(&free[&range.start.to_string()])));
        assert_eq!(reported, after);
        assert_eq!(!changes.is_empty(), case["updated"].as_bool().unwrap());
    }
}

#[test]
fn donors_are_as_recorded() {
    for case in load("ring.json")["donors"].as_array().unwrap() {
        let us = peer(&case["ring"]["peer"]);
        let donors = ring(&case["ring"]).donors(us, range(&case["range"]));
        let mut expected: Vec<_> = case["candidate_donors_unordered"]
            .as_array()
            .unwrap()
            .iter()
            .map(peer)
            .collect();
        expected.sort_unstable();
        let names: Vec<_> = donors.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, expected);
    }
}

#[test]
fn merges_are_as_recorded() {
    for case in load("ring.json")["merge"].as_array().unwrap() {
        let name = case["name"].as_str().unwrap();
        let (mine, theirs) = (ring(&case["mine"]), ring(&case["theirs"]));
        let us = peer(&case["mine"]["peer"]);
        let used: Vec<Address> = case["allocated_addresses"]
            .as_array()
            .unwrap()
            .iter()
            .map(address)
            .collect();
        let owned = mine.owned(us);
        let idle = |range: Range| {
            let ours = owned.count(range) == range.size();
            ours && !used.iter().any(|address| range.contains(*address))
        };
        let mut merged = mine.clone();
        match mine.merge(us, &theirs, &mut WeaveRules(idle)) {
            Ok(result) => {
                assert!(case["error"].is_null(), "{name}: no error");
                assert_eq!(result.updated, case["updated"].as_bool().unwrap(), "{name}");
                let changes = result.changes.clone();
                merged.apply(result);
                let mut undone = merged.clone();
                undone.undo(&changes);
                assert_eq!(undone.entries, mine.entries, "{name}");
            }
            Err(failed) => {
                let expected = case["error"].as_str().unwrap_or_default();
                assert_eq!(failed.error.to_string(), expected, "{name}");
                for (token, version) in failed.raised {
                    let entry = merged.entries.iter_mut().find(|e| e.token == token);
                    entry.unwrap().version = version;
                }
            }
        }
        assert_eq!(merged, ring(&case["after"]), "{name}");
    }
}

#[test]
fn blocks_are_as_recorded() {
    for case in load("space.json")["biggest_cidr"].as_array().unwrap() {
        let range = Range::new(address(&case["start"]), address(&case["end"]));
        let block = Range::new(
            address(&case["biggest_start"]),
            address(&case["biggest_end"]),
        );
        assert_eq!(range.biggest_block(), block);
        assert_eq!(
            range.as_cidr_text(),
            case["as_cidr_string"].as_str().unwrap()
        );
        let cidrs: Vec<String> = range.cidrs().iter().map(Cidr::to_string).collect();
        assert_eq!(cidrs, texts(&case["cidrs"]));
    }
}

fn space(free: &Value, ours: &Value) -> Space {
    let mut space = Space::new();
    for range in ranges(free) {
        space.gain(range);
    }
    for range in ranges(ours) {
        space.gain(range);
        for address in range.start.get()..range.end.get() {
            space.claim(Address::new(address)).unwrap();
        }
    }
    space
}

#[test]
fn donations_are_as_recorded() {
    for case in load("space.json")["donate"].as_array().unwrap() {
        let mut space = space(&case["free"], &case["ours"]);
        let wanted = range(&case["range"]);
        let biggest = space.biggest_free(wanted).unwrap_or_default();
        assert_eq!(biggest, range(&case["biggest_free"]));
        assert_eq!(space.free_in(wanted), number(&case["free_in_range"]));
        let gift = space.donate(wanted);
        assert_eq!(gift.is_some(), case["ok"].as_bool().unwrap());
        if let Some(gift) = gift {
            assert_eq!(gift, range(&case["donated"]));
        }
        let free: Vec<Range> = space.free_ranges().iter().collect();
        let ours: Vec<Range> = space.our_ranges().iter().collect();
        assert_eq!(free, ranges(&case["free_after"]));
        assert_eq!(ours, ranges(&case["ours_after"]));
    }
}

#[test]
fn allocations_are_as_recorded() {
    for case in load("space.json")["allocate"].as_array().unwrap() {
        let mut space = space(&case["initial_free"], &Value::Array(Vec::new()));
        for step in case["steps"].as_array().unwrap() {
            let expected_error = step["error"].as_str().map(str::to_owned);
            match step["op"].as_str().unwrap() {
                "allocate" => {
                    let got = space.allocate(range(&step["range"]));
                    let expected = step["ok"].as_bool().unwrap();
                    assert_eq!(got, expected.then(|| address(&step["addr"])));
                }
                "claim" => {
                    let error = space.claim(address(&step["addr"])).err();
                    assert_eq!(error.map(|e| e.to_string()), expected_error);
                }
                _ => {
                    let error = space.free(address(&step["addr"])).err();
                    assert_eq!(error.map(|e| e.to_string()), expected_error);
                }
            }
        }
        let free: Vec<Range> = space.free_ranges().iter().collect();
        let ours: Vec<Range> = space.our_ranges().iter().collect();
        assert_eq!(free, ranges(&case["free_after"]));
        assert_eq!(ours, ranges(&case["ours_after"]));
    }
}

fn node_id(text: &str) -> NodeId {
    let (name, uid) = text.rsplit_once('/').unwrap();
    NodeId {
        name: name.parse().unwrap(),
        uid: uid.parse().unwrap(),
    }
}

fn proposal(value: &Value) -> ProposalId {
    ProposalId {
        round: value["round"].as_u64().unwrap(),
        proposer: node_id(value["proposer"].as_str().unwrap()),
    }
}

fn assert_nodes(nodes: &ipam::consensus::Nodes, expected: &Value, context: &str) {
    let expected = expected.as_array().unwrap();
    assert_eq!(nodes.len(), expected.len(), "{context}");
    for state in expected {
        let claims = &nodes[&node_id(state["node"].as_str().unwrap())];
        assert_eq!(claims.promise, proposal(&state["promise"]), "{context}");
        assert_eq!(claims.accepted, proposal(&state["accepted"]), "{context}");
        let origin = proposal(&state["accepted_origin"]);
        assert_eq!(claims.value.origin, origin, "{context}");
        let mut names: Vec<String> = claims.value.value.iter().map(|n| n.to_string()).collect();
        names.sort_unstable();
        assert_eq!(names, texts(&state["accepted_value_sorted"]), "{context}");
    }
}

#[test]
fn elections_go_as_recorded() {
    for case in load("paxos.json").as_array().unwrap() {
        let context = case["name"].as_str().unwrap();
        let quorum = case["quorum"].as_u64().unwrap() as usize;
        let mut electors: Vec<Elector> = (0..case["nodes"].as_u64().unwrap())
            .map(|i| {
                let id = node_id(&format!("00:00:00:00:00:{:02x}/{}", i + 1, 1000 + i));
                let mut elector = Elector::new(id);
                elector.set_quorum(quorum);
                elector
            })
            .collect();
        for step in case["steps"].as_array().unwrap() {
            let op: Vec<&str> = step["op"].as_str().unwrap().split(' ').collect();
            let first: usize = op[1].parse().unwrap();
            let node = step["node"].as_u64().unwrap() as usize;
            if op[0] == "propose" {
                electors[first].propose();
            } else {
                let known = electors[first].nodes().clone();
                let updated = electors[node].update(&known);
                assert_eq!(
                    updated,
                    step["update_changed"].as_bool().unwrap(),
                    "{context}"
                );
                let thought = updated && electors[node].think();
                let expected = step["think_changed"].as_bool().unwrap_or(false);
                assert_eq!(thought, expected, "{context}");
            }
            assert_nodes(electors[node].nodes(), &step["state"], context);
            let consensus = electors[node].consensus();
            assert_eq!(
                consensus.is_some(),
                step["consensus"].as_bool().unwrap(),
                "{context}"
            );
            if let Some(names) = consensus {
                let names: Vec<String> = names.iter().map(|n| n.to_string()).collect();
                assert_eq!(names, texts(&step["consensus_value_sorted"]), "{context}");
            }
        }
    }
}

#[test]
fn values_are_normalized_as_recorded() {
    for case in load("ipam_messages.json")["normalize_consensus"]
        .as_array()
        .unwrap()
    {
        let names: Vec<_> = case["in"].as_array().unwrap().iter().map(peer).collect();
        let out: Vec<_> = case["out"].as_array().unwrap().iter().map(peer).collect();
        assert_eq!(normalize(&names), out);
    }
}

#[test]
fn subnets_are_read_as_recorded() {
    for case in load("ipam_messages.json")["parse_subnet"]
        .as_array()
        .unwrap()
    {
        let text = case["in"].as_str().unwrap();
        match Cidr::parse_subnet(text) {
            Ok(cidr) => {
                assert_eq!(cidr.to_string(), text);
                assert_eq!(cidr.range(), range(&case["range"]), "{text}");
                assert_eq!(cidr.host_range(), range(&case["host_range"]), "{text}");
            }
            Err(error) => assert_eq!(error.to_string(), case["error"].as_str().unwrap()),
        }
    }
}

fn assert_state(state: &GossipState, expected: &Value) {
    assert_eq!(state.now, expected["now"].as_i64().unwrap());
    let nicknames = expected["nicknames"].as_object().unwrap();
    assert_eq!(state.nicknames.len(), nicknames.len());
    for (name, nickname) in &state.nicknames {
        assert_eq!(nickname, nicknames[&name.to_string()].as_str().unwrap());
    }
    let present = expected["paxos_present"].as_bool().unwrap();
    assert_eq!(state.election.is_some(), present);
    if let Some(nodes) = &state.election {
        assert_nodes(nodes, &expected["paxos"], "gossip");
    }
    assert_eq!(state.ring.is_some(), !expected["ring"].is_null());
    if let Some((copy_of, read)) = &state.ring {
        assert_eq!(*copy_of, peer(&expected["ring"]["peer"]));
        assert_eq!(*read, ring(&expected["ring"]));
    }
}

#[test]
fn gossip_is_read_and_written_as_recorded() {
    for case in load("ipam_messages.json")["gossip"].as_array().unwrap() {
        let bytes = hex(&case["hex"]);
        let received = decode_state(&bytes, |_| false).unwrap();
        assert_state(&received.state, case);
        let encoder = Encoder::with_ids(type_ids(&bytes));
        assert_eq!(
            received.state.encode_with(encoder),
            bytes,
            "{}",
            case["name"]
        );

        let has_entries = received.state.ring.is_some();
        let again = decode_state(&bytes, |digest| Some(*digest) == received.digest).unwrap();
        assert_eq!(again.known, has_entries);
        assert_eq!(again.state.nicknames, received.state.nicknames);
    }
}

#[test]
fn unicasts_are_read_and_written_as_recorded() {
    for case in load("ipam_messages.json")["unicast"].as_array().unwrap() {
        let bytes = hex(&case["message"]);
        let message = Unicast::decode(&bytes).unwrap();
        match (&message, case["kind"].as_str().unwrap()) {
            (Unicast::SpaceRequest(range), "space request")
            | (Unicast::SpaceDenied(range), "space request denied") => {
                assert_eq!(range.start, address(&case["start"]));
                assert_eq!(range.end, address(&case["end"]));
            }
            (Unicast::RingUpdate(state), "ring update") => {
                let state = decode_state(state, |_| false).unwrap().state;
                let (_, ring) = state.ring.unwrap();
                assert_eq!(ring.check(), Ok(()));
                let encoder = Encoder::with_ids(type_ids(&bytes[1..]));
                let state = decode_state(&bytes[1..], |_| false).unwrap().state;
                assert_eq!(state.encode_with(encoder), bytes[1..]);
            }
            (other, kind) => panic!("{kind} read as {other:?}"),
        }
        let encoder = Encoder::with_ids(type_ids(&bytes[1..]));
        assert_eq!(message.encode_with(encoder), bytes);
    }
    assert!(Unicast::decode(&[]).is_err());
    assert_eq!(Unicast::decode(&[9, 1]), Ok(Unicast::Unknown(9)));
}
