//! What a connection tells its overlays.

use std::net::SocketAddr;

use crate::crypto::{Secret, SessionKey};
use crate::native::{Ciphers, KeyLife, SessionNumbers};
use crate::types::{ConnUid, PeerName};

/// Parameters of a connection, given to its overlays when it is introduced.
#[derive(Debug)]
pub struct Params {
    /// Ourself.
    pub us: PeerName,
    /// The peer at the other end.
    pub peer: PeerName,
    /// The number of the connection.
    pub uid: ConnUid,
    /// The other end's TCP address.
    pub remote: SocketAddr,
    /// Whether we made the connection, and therefore know where the other end listens.
    pub dialled: bool,
    /// The key of the connection, if its messages are encrypted.
    pub session_key: Option<SessionKey>,
    /// Whether both ends trust the network between them, so that sleeve packets are not encrypted.
    pub trusted: bool,
    /// Whether an overlay whose frames would travel in the clear is refused.
    pub sealed_only: bool,
    /// Whether both ends leave sleeve alone while the native overlay does well.
    pub quiet: bool,
    /// Digest of the introduction ([`crate::wire::Introduced::transcript`]).
    pub transcript: [u8; 32],
    /// What the first native key pair is made of.
    pub secret: Option<Secret>,
    /// The ciphers that we accept.
    pub ciphers: Ciphers,
    /// Source of our session numbers for native keys.
    pub numbers: SessionNumbers,
    /// How long a native key is used.
    pub key_life: KeyLife,
}

impl Params {
    /// Returns the key for sleeve packets; `None` without a password or on a trusted link.
    pub fn sleeve_key(&self) -> Option<&SessionKey> {
        self.session_key.as_ref().filter(|_| !self.trusted)
    }
}
