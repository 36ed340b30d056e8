//! Who is let in at the other end of a connection.

use crate::types::{PeerName, PeerUid, ShortId};

/// What a handshake told of the peer at the other end.
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

/// A peer at the other end of a connection was let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admitted {
    /// The peer is known from an earlier start, so it has forgotten everything.
    pub restarted: bool,
}

/// Why the peer at the other end of a connection was not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// Another router carries our name. Dialling again leads to the same.
    #[error("peer names collide: {0} is our own name, and another router carries it too")]
    NameCollision(PeerName),
    /// It is ourselves. Dialling again leads to the same.
    #[error("cannot connect to ourself")]
    Ourself,
    /// A discovered address led to a peer that the mesh does not know, or to one without a name.
    #[error("found unknown remote name: {0}")]
    UnknownPeer(PeerName),
}

impl Refused {
    /// Whether dialling the same address again would lead to the same.
    pub fn is_final(self) -> bool {
        matches!(self, Refused::NameCollision(_) | Refused::Ourself)
    }
}
