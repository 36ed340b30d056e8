//! Messages of other routers, and the peers of the mesh.

use proto::types::PeerName;

/// A message from another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The channel on which it arrived.
    pub channel: Channel,
    /// How it was delivered.
    pub kind: Delivery,
    /// The neighbour that sent this hop.
    pub via: PeerName,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// The channels that the allocator serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// `IPallocation`, which all routers speak.
    Ring,
    /// `weft-leases`, which only weft routers speak and others relay.
    Leases,
}

impl Channel {
    /// Returns its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Ring => crate::messages::CHANNEL,
            Channel::Leases => crate::leases::CHANNEL,
        }
    }
}

/// How a message was delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// A unicast to us from this peer.
    Unicast(PeerName),
    /// A broadcast from this peer.
    Broadcast(PeerName),
    /// Gossip of a neighbour.
    Gossip,
}

/// A peer of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// Whether a message can be sent to it.
    pub reachable: bool,
}
