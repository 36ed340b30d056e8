//! Who is let in at the other end of a connection.

use crate::types::{PeerName, PeerUid, ShortId};

/// The peer at the other end of a connection, as it introduced itself.
#[derive(Clone, Copy, Debug)]
pub struct Introduced<'a> {
    /// Its name.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: &'a str,
    /// Which start of the peer this is.
    pub uid: PeerUid,
    /// The short id it claims.
    pub short_id: Option<ShortId>,
}

/// The peer at the other end of a connection was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The peer is known from an earlier start, so it has forgotten everything.
    pub restarted: bool,
}

/// Why the peer at the other end of a connection was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another router has our name. Dialling again would have the same result.
    #[error("peer names collide: {0} is our own name, and another router carries it too")]
    NameCollision(PeerName),
    /// The peer is this router itself. Dialling again would have the same result.
    #[error("cannot connect to ourself")]
    Ourself,
    /// The peer at a discovered address is unknown to the mesh, or has no name.
    #[error("found unknown remote name: {0}")]
    UnknownPeer(PeerName),
}

impl Refused {
    /// Returns true if dialling the same address again would have the same result.
    pub fn is_final(self) -> bool {
        matches!(self, Refused::NameCollision(_) | Refused::Ourself)
    }
}
