//! What a link is told of its keys, and what it says of them.

use std::net::SocketAddrV4;
use std::sync::Arc;
use std::time::Duration;

use super::keys::Binding;
use super::seal::Ciphers;
use super::tunnel::{REKEY_DATAGRAMS, Receiving, Sending};
use crate::crypto::{Secret, SessionKey};
use crate::sleeve::LinkId;
use crate::types::PeerName;

/// Age at which keys are replaced.
pub const KEY_TIME_MAX: Duration = Duration::from_secs(3600);
/// How long the previous key is kept once the other end uses the next one. Also the minimum
/// interval between epochs.
pub const KEY_LINGER: Duration = Duration::from_secs(10);

/// Limits of the use of a key. Those of the other end may be lower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyLife {
    /// Time after which another key is requested.
    pub time: Duration,
    /// Number of datagrams of one stream after which another key is requested.
    pub datagrams: u64,
}

impl KeyLife {
    /// The highest safe limits, which are used except in tests.
    pub const MAX: KeyLife = KeyLife {
        time: KEY_TIME_MAX,
        datagrams: REKEY_DATAGRAMS,
    };
}

/// Configuration of a link.
pub struct LinkConfig {
    /// Its handle.
    pub id: LinkId,
    /// The peer at the other end.
    pub peer: PeerName,
    /// Whether we made the connection.
    pub dialled: bool,
    /// What the keys depend on.
    pub binding: Binding,
    /// The key of the mesh connection, if it is encrypted.
    pub session_key: Option<SessionKey>,
    /// What the first key pair is made of. Each later one needs fresh random bytes.
    pub secret: Option<Secret>,
    /// The ciphers that we accept.
    pub ciphers: Ciphers,
    /// Our numbers for keys.
    pub numbers: SessionNumbers,
    /// How long a key is used.
    pub key_life: KeyLife,
    /// Where the peer is; known to the side that dialled.
    pub remote: Option<SocketAddrV4>,
}

/// The session numbers under which a peer receives: all different, and hard to guess.
#[derive(Clone, Copy, Debug)]
pub struct SessionNumbers {
    key: u64,
}

impl SessionNumbers {
    /// Creates a source of numbers from a random key.
    pub const fn new(key: u64) -> SessionNumbers {
        SessionNumbers { key }
    }

    /// Returns the session number of a link's key. Two that are in use at the same time differ,
    /// unless there were a billion links in between.
    pub const fn number(self, link: LinkId, epoch: u32) -> u32 {
        let [a, b] = [self.key as u32, (self.key >> 32) as u32];
        // Every step is reversible, so different numbers stay different.
        let mut x = (link.0 as u32) << 2 | (epoch & 3);
        x = (x ^ a).wrapping_mul(0x9e37_79b1);
        x = (x ^ x >> 15 ^ b).wrapping_mul(0x85eb_ca6b);
        x = (x ^ x >> 13 ^ a.rotate_left(16)).wrapping_mul(0xc2b2_ae35);
        x ^ x >> 16
    }
}

/// The keys of a link that are in use.
#[derive(Clone, Debug, Default)]
pub struct Keys {
    /// The key under which to send.
    pub send: Option<Arc<Sending>>,
    /// The keys under which datagrams may arrive.
    pub receive: Vec<Arc<Receiving>>,
}

impl PartialEq for Keys {
    fn eq(&self, other: &Keys) -> bool {
        let same = |a: &Arc<Receiving>, b: &Arc<Receiving>| Arc::ptr_eq(a, b);
        self.send.as_ref().map(Arc::as_ptr) == other.send.as_ref().map(Arc::as_ptr)
            && self.receive.len() == other.receive.len()
            && self
                .receive
                .iter()
                .zip(&other.receive)
                .all(|(a, b)| same(a, b))
    }
}

impl Eq for Keys {}

/// A control message that is ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No message has this tag.
    #[error("unknown control message {0} of the native overlay")]
    UnknownTag(u8),
    /// The content is malformed.
    #[error("malformed hello of {0} bytes")]
    Malformed(usize),
    /// The current keys are too new to be replaced.
    #[error("hello too soon after the one before")]
    Hasty,
    /// The epoch is not the expected one.
    #[error("hello for epoch {got}, {wanted} wanted")]
    Epoch {
        /// The epoch in the message.
        got: u32,
        /// The expected epoch.
        wanted: u32,
    },
}
