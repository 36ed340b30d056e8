//! What is known of a connection that was made.

use std::net::SocketAddr;

use crate::types::PeerName;

/// A connection that was added to our peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// The peer at the other end.
    pub peer: PeerName,
    /// Its address.
    pub address: SocketAddr,
    /// Whether we dialled.
    pub outbound: bool,
}
