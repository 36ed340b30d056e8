//! What comes from other routers, and who they are.

use proto::types::PeerName;

/// A message from another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The channel it came by.
    pub channel: Channel,
    /// How it came.
    pub kind: Delivery,
    /// The neighbour that sent this hop of it.
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
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Ring => crate::messages::CHANNEL,
            Channel::Leases => crate::leases::CHANNEL,
        }
    }
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To us alone, from this peer.
    Unicast(PeerName),
    /// To everyone, from this peer.
    Broadcast(PeerName),
    /// To neighbours.
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
