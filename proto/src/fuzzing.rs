//! Entry points for hostile bytes, one for each parser of what comes from the network.

use crate::topology::{self, Topology};
use crate::types::{PeerName, PeerUid};

/// Merges `data` into a small topology, twice, and sends the result on.
pub fn fuzz_topology(data: &[u8]) {
    let name = PeerName::from_bytes([0, 0, 0, 0, 0, 1]);
    let rng = fastrand::Rng::with_seed(1);
    let mut topology = Topology::new(name, "h1", PeerUid(1), None, rng);
    let before = topology.encode(topology.names());
    let Ok(merged) = topology.merge(data) else {
        assert_eq!(
            topology.encode(topology.names()),
            before,
            "an error changes nothing"
        );
        return;
    };
    assert!(merged.improved.is_subset(&merged.named));
    let version = topology.peer(name).map(|peer| peer.version);
    let again = topology.merge(data);
    assert!(again.is_ok_and(|again| again.improved.is_empty()));
    assert_eq!(topology.peer(name).map(|peer| peer.version), version);
    let peers = topology::decode_update(&topology.encode(topology.names()));
    assert!(peers.is_ok_and(|peers| peers.iter().eq(topology.peers())));
    let _ = crate::routes::Routes::calculate(&topology).broadcast(name);
    topology.collect_garbage();
    assert!(topology.peer(name).is_some());
}
