//! dev only
#![allow(clippy::all, missing_docs, clippy::print_stdout)]
use std::sync::Arc;
use std::time::{Duration, Instant};
use proto::crypto::SessionKey;
use proto::routes::Routes;
use proto::sleeve::{LinkId, Tunnel, TunnelConfig};
use proto::switch::*;
use proto::topology::*;
use proto::types::*;
use router::data::*;
use router::tap::*;
use router::udp::*;
fn main() {
    tracing_subscriber::fmt().init();
    let a: Vec<String> = std::env::args().collect();
    // devplane <us n> <peer n> <local ip> <remote ip> <flags>
    let us = PeerName::from_u64(a[1].parse().unwrap()).unwrap();
    let peer = PeerName::from_u64(a[2].parse().unwrap()).unwrap();
    let flags = a.get(5).cloned().unwrap_or_default();
    let has = |f: &str| flags.split(',').any(|x| x == f);
    let pmtu: usize = flags.split(',').find_map(|f| f.strip_prefix("pmtu=")).map_or(1500, |v| v.parse().unwrap());
    let mut topology = Topology::new(us, "", PeerUid(1), None, fastrand::Rng::with_seed(1));
    topology.merge(&encode_update(&[Peer { name: peer, nickname: Box::default(), uid: PeerUid(2), version: 1, short_id: None,
        connections: vec![Connection { remote: us, address: Address::from_text(b"1.1.1.1:1"), outbound: true, established: true }] }])).unwrap();
    topology.add_connection(peer, "1.1.1.1:1".parse().unwrap(), true);
    topology.establish_connection(peer);
    let routes = Arc::new(Routes::calculate(&topology));
    let mut slots = PeerSlots::new(us);
    slots.update(Time::ZERO, routes.peers());
    let tunnel = Arc::new(Tunnel::new(TunnelConfig { id: LinkId(1), us, peer, key: (!has("plain")).then(|| SessionKey::from_bytes([7; 32])), dialled: us < peer,
        remote: Some(format!("{}:6783", a[4]).parse().unwrap()) }));
    tunnel.set_limits(pmtu - tunnel.overhead(), pmtu - 28);
    let forwarding = Forwarding::new(routes, &slots, &[peer]);
    let snapshot = Snapshot::new(forwarding, vec![Link { peer, encap: Encap::Sleeve(tunnel.clone()), burst_packets: 0 }], vec![tunnel]);
    let tap = Tap::open(&TapConfig { name: "wtap".into(), queues: 1, offload: !has("notap") }).unwrap();
    let sockets = Sockets::open(&UdpConfig { local: format!("{}:6783", a[3]).parse().unwrap(), queues: 1, gso: !has("nogso"), gro: !has("nogro") }).unwrap();
    let (plane, mut events) = DataPlane::start(&DataConfig { epoch: Instant::now(), mac_key: 5, join: !has("nojoin") }, tap, sockets, snapshot).unwrap();
    println!("{:?}", plane.status());
    std::thread::spawn(move || { while let Some(e) = events.blocking_recv() { println!("{e:?}"); } });
    loop {
        std::thread::sleep(Duration::from_secs(3));
        if has("v") {
        let t = plane.counters();
        println!("in/out {:?} reads {} writes {} rb {} sb {} cap {} sent {} rcv {} inj {} kd {}", t.balance(), t.get(Count::TapReads), t.get(Count::TapWrites), t.get(Count::ReceiveBatches), t.get(Count::SendBatches), t.get(Count::Captured), t.get(Count::Sent), t.get(Count::Received), t.get(Count::Injected), plane.status().udp.kernel_drops);
        for r in DropReason::ALL { if t.dropped(*r) > 0 { println!("   {r}: {}", t.dropped(*r)); } }
        }
    }
}
