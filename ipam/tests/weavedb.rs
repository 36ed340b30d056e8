//! The recorded databases of real routers.

mod common;

use common::{hex, load, path, peer, ring, type_ids};
use ipam::bolt::read_bucket;
use ipam::import::{
    WeaveState, decode_name, decode_owned, decode_targets, encode_name, encode_owned,
    encode_targets,
};
use ipam::messages::{decode_ring, encode_ring};
use proto::gob::Encoder;
use proto::types::PeerName;

fn encoder(stream: &[u8]) -> Encoder {
    Encoder::with_ids(type_ids(stream))
}

#[test]
fn a_made_database_is_read_whole() {
    let file = std::fs::read(path("weavedata.db")).unwrap();
    let vectors = load("weavedb.json");
    let top = read_bucket(&file, b"top").unwrap();
    assert_eq!(top[&b"version"[..]], hex(&vectors["version_key_hex"]));
    assert_eq!(top.len(), vectors["items"].as_array().unwrap().len() + 1);
    let state = WeaveState::from_file(&file).unwrap();
    for item in vectors["items"].as_array().unwrap() {
        let (key, value) = (item["key"].as_str().unwrap(), &item["value"]);
        let stream = hex(&item["gob_hex"]);
        assert_eq!(top[key.as_bytes()], stream, "{key}");
        match key {
            "peername" => {
                assert_eq!(state.name, Some(peer(value)));
                assert_eq!(encode_name(encoder(&stream), peer(value)), stream);
            }
            "ring" => {
                assert_eq!(state.ring, Some(ring(value)));
                let mut out = encoder(&stream);
                encode_ring(&mut out, peer(&value["peer"]), &ring(value));
                assert_eq!(out.finish(), stream);
            }
            "ownedAddresses" => {
                for (id, owned) in value.as_object().unwrap() {
                    let read = &state.owned[id];
                    assert_eq!(read.is_container, owned["IsContainer"].as_bool().unwrap());
                    for (cidr, expected) in
                        read.cidrs.iter().zip(owned["Cidrs"].as_array().unwrap())
                    {
                        assert_eq!(cidr.address, common::address(&expected["Addr"]));
                        assert_eq!(u32::from(cidr.len), common::number(&expected["PrefixLen"]));
                    }
                    assert_eq!(read.cidrs.len(), owned["Cidrs"].as_array().unwrap().len());
                }
                assert_eq!(state.owned.len(), value.as_object().unwrap().len());
                // The order of a map is the sender's, so only what comes back can be compared.
                let written = encode_owned(encoder(&stream), &state.owned);
                assert_eq!(decode_owned(&written).unwrap(), state.owned);
                assert_eq!(written.len(), stream.len());
            }
            "directPeers" => {
                let expected: Vec<&str> = value
                    .as_array()
                    .unwrap()
                    .iter()
                    .map(|target| target.as_str().unwrap())
                    .collect();
                assert_eq!(state.targets, expected);
                assert_eq!(encode_targets(encoder(&stream), &state.targets), stream);
            }
            _ => assert_eq!(key, "flag:peer-reclaim"),
        }
    }
    let empty = hex(&vectors["extra"]["empty_owned_map"]);
    assert!(decode_owned(&empty).unwrap().is_empty());
    let empty = hex(&vectors["extra"]["empty_ring_never_persisted_as_nil"]);
    let (_, ring) = decode_ring(&empty).unwrap();
    assert!(ring.is_empty() && ring.check().is_ok());
}

#[test]
fn databases_of_running_routers_are_read() {
    let vectors = load("weavedb_live.json");
    let file = std::fs::read(path("weavedata_live_w1.db")).unwrap();
    for router in ["w1", "w3"] {
        let raw = &vectors[router];
        let decoded = &vectors[format!("{router}_decoded")];
        let name = decode_name(&hex(&raw["peername"])).unwrap();
        assert_eq!(name.as_u64(), decoded["peername"].as_u64().unwrap());
        let (copy_of, ring) = decode_ring(&hex(&raw["ring"])).unwrap();
        assert_eq!(copy_of, name);
        assert_eq!(ring.check(), Ok(()));
        let expected = decoded["ring"]["Entries"].as_array().unwrap();
        assert_eq!(ring.entries.len(), expected.len());
        for (entry, expected) in ring.entries.iter().zip(expected) {
            assert_eq!(
                u64::from(entry.token.get()),
                expected["Token"].as_u64().unwrap()
            );
            assert_eq!(entry.peer.as_u64(), expected["Peer"].as_u64().unwrap());
            assert_eq!(
                u64::from(entry.version),
                expected["Version"].as_u64().unwrap_or(0)
            );
            assert_eq!(
                u64::from(entry.free),
                expected["Free"].as_u64().unwrap_or(0)
            );
        }
        let owned = decode_owned(&hex(&raw["ownedAddresses"])).unwrap();
        for pair in decoded["ownedAddresses"].as_array().unwrap() {
            let read = &owned[pair[0].as_str().unwrap()];
            let expected = &pair[1]["Cidrs"][0];
            assert_eq!(
                u64::from(read.cidrs[0].address.get()),
                expected["Addr"].as_u64().unwrap()
            );
            assert_eq!(
                u64::from(read.cidrs[0].len),
                expected["PrefixLen"].as_u64().unwrap()
            );
        }
        assert_eq!(
            owned.len(),
            decoded["ownedAddresses"].as_array().unwrap().len()
        );
        let targets = decode_targets(&hex(&raw["directPeers"])).unwrap();
        assert_eq!(targets[0], decoded["directPeers"][0].as_str().unwrap());
    }
    let state = WeaveState::from_file(&file).unwrap();
    assert_eq!(state.name, PeerName::from_u64(1));
    let top = read_bucket(&file, b"top").unwrap();
    for key in ["peername", "ring", "directPeers", "version"] {
        assert_eq!(top[key.as_bytes()], hex(&vectors["w1"][key]), "{key}");
    }
    assert_eq!(
        state.owned,
        decode_owned(&hex(&vectors["w1"]["ownedAddresses"])).unwrap()
    );
}
