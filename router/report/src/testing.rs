//! A recorded report, for tests of pages and metrics.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::*;

/// Returns the report of a recorded router, as far as the status pages show it.
pub fn recorded() -> Report {
    let connection = |name: &str, nick: &str, address: &str, outbound| PeerConnection {
        name: name.into(),
        nick_name: nick.into(),
        address: address.into(),
        outbound,
        established: true,
    };
    let (one, three) = ("00:00:00:00:00:01", "00:00:00:00:00:03");
    let peer = |name: &str, nick: &str, connection| PeerReport {
        name: name.into(),
        nick_name: nick.into(),
        uid: 1,
        short_id: 2,
        version: 3,
        connections: Some(vec![connection]),
    };
    let ring = |token: &str, size, peer: &str, nickname: &str, known| RingEntryReport {
        token: token.into(),
        size,
        peer: peer.into(),
        nickname: nickname.into(),
        is_known_peer: known,
        version: 1,
    };
    Report {
        ready: true,
        version: COMPATIBLE_VERSION,
        version_check: VersionCheck::OFF,
        router: RouterReport {
            protocol: "weave",
            protocol_min_version: 1,
            protocol_max_version: 2,
            encryption: true,
            peer_discovery: true,
            name: one.into(),
            nick_name: "h1".into(),
            port: 6783,
            peers: vec![
                peer(one, "h1", connection(three, "h3", "10.77.1.3:47721", false)),
                peer(three, "h3", connection(one, "h1", "10.77.1.1:6783", true)),
            ],
            unicast_routes: Vec::new(),
            broadcast_routes: Vec::new(),
            connections: vec![ConnectionReport {
                address: "10.77.1.3:47721".into(),
                outbound: false,
                state: "established",
                info: "encrypted   sleeve 00:00:00:00:00:03(h3)".into(),
                attrs: Some(BTreeMap::from([
                    ("encrypted", Value::from(true)),
                    ("mtu", Value::from(1414)),
                    ("name", Value::from("sleeve")),
                ])),
            }],
            termination_count: 28,
            targets: Vec::new(),
            overlay_diagnostics: BTreeMap::from([("sleeve".into(), Value::Null)]),
            trusted_subnets: Vec::new(),
            interface: "weft-weave (via tap)".into(),
            capture_stats: BTreeMap::new(),
            macs: Vec::new(),
        },
        ipam: Some(IpamReport {
            paxos: None,
            range: "10.7.0.0/16".into(),
            range_num_ips: 65536,
            active_ips: 2,
            default_subnet: "10.7.0.0/16".into(),
            entries: Some(vec![
                ring("10.7.0.0", 24833, one, "h1", true),
                ring("10.7.97.1", 16127, "aa:00:00:00:00:02", "donee", false),
                ring("10.7.160.0", 16384, "f0:00:00:00:00:01", "", false),
                ring("10.7.224.0", 8192, "f0:00:00:00:00:03", "", false),
            ]),
            pending_claims: None,
            pending_allocates: None,
        }),
        dns: Some(DnsReport {
            domain: "weave.local.".into(),
            upstream: Vec::new(),
            address: "127.0.0.1:53".into(),
            ttl: 1,
            entries: Some(vec![
                DnsEntryReport {
                    hostname: "foo.weave.local.".into(),
                    origin: one.into(),
                    container_id: "0123456789abcdef".into(),
                    address: "10.7.0.5".into(),
                    version: 0,
                    tombstone: 0,
                },
                DnsEntryReport {
                    hostname: "gone.weave.local.".into(),
                    origin: one.into(),
                    container_id: "x".into(),
                    address: "10.7.0.6".into(),
                    version: 1,
                    tombstone: 1,
                },
            ]),
            warnings: Vec::new(),
        }),
        plugin: None,
    }
}
