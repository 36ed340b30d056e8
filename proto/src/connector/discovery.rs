//! Addresses learned from the connections of other peers.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use crate::topology::{Connection, Topology, resolve};
use crate::types::PeerName;

/// Maximum number of discovered addresses; further ones are left out until others go.
pub(super) const DISCOVERED_MAX: usize = 4096;
/// Maximum number of addresses for one peer; further ones are left out. Peers behind address
/// translation have one for each network that others see them from.
const ADDRESSES_PER_PEER_MAX: usize = 8;

/// Addresses, each with the peers that are reported to be there.
pub(super) type Candidates = BTreeMap<SocketAddr, BTreeSet<PeerName>>;

/// Returns the addresses of peers that we are not connected to.
///
/// If the peer was dialled, this is the address that worked. If the peer dialled, its source port
/// is meaningless, so `port`, our own, is used instead.
///
/// Rule: `docs/protocol/mesh.md#8-1-targets`.
pub(super) fn candidates(
    topology: &Topology,
    connected: &BTreeSet<PeerName>,
    port: u16,
    allow_loopback: bool,
) -> Candidates {
    let names: Vec<PeerName> = topology.names().collect();
    let wanted: Vec<bool> = names
        .iter()
        .map(|name| *name != topology.us() && !connected.contains(name))
        .collect();
    let mut found: Vec<Vec<SocketAddr>> = vec![Vec::new(); names.len()];
    for peer in topology.peers().filter(|peer| peer.name != topology.us()) {
        resolve(&names, &peer.connections, |index, connection| {
            let Some(index) = index.filter(|index| wanted[*index]) else {
                return;
            };
            let known = &mut found[index];
            if known.len() < ADDRESSES_PER_PEER_MAX
                && let Some(address) = address(connection, port, allow_loopback)
                && !known.contains(&address)
            {
                known.push(address);
            }
        });
    }
    // If there are too many, one address of each peer takes precedence over a second one of any.
    let mut out = Candidates::new();
    for round in 0..ADDRESSES_PER_PEER_MAX {
        for (name, addresses) in names.iter().zip(&found) {
            let Some(address) = addresses.get(round) else {
                continue;
            };
            if out.len() < DISCOVERED_MAX || out.contains_key(address) {
                out.entry(*address).or_default().insert(*name);
            }
        }
    }
    out
}

/// Returns the address at which to dial the remote end of another peer's connection, if it is
/// usable.
///
/// Rule: `docs/protocol/mesh.md#8-1-targets`.
fn address(connection: &Connection, port: u16, allow_loopback: bool) -> Option<SocketAddr> {
    let mut address = connection.address.socket_addr()?;
    if !connection.outbound {
        address.set_port(port);
    }
    let ip = address.ip();
    let broadcast = matches!(ip, std::net::IpAddr::V4(ip) if ip.is_broadcast());
    let unusable = ip.is_unspecified() || ip.is_multicast() || broadcast || address.port() == 0;
    // A loopback address leads to this host, whoever reports it.
    let foreign = ip.is_loopback() && !allow_loopback;
    (!unusable && !foreign).then_some(address)
}
