//! Why a connection failed, and whose fault it is.

use super::magic::{HEADER_BYTES, Magic};
use crate::features::FeaturesError;
use crate::gob;

/// Longest message in bytes, as sent (so with its seal, if it is encrypted). A longer one is
/// not sent, and ends the connection when it is announced.
pub const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Whose fault it is that a connection failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other end breaks the protocol, or speaks another.
    Misbehaved,
    /// The other end is right in itself, but does not fit us.
    Incompatible,
    /// The other end does not know our password.
    Unauthorised,
    /// It is our own.
    Local,
}

/// Why a connection failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The other end speaks another protocol.
    #[error("remote does not speak our protocol, it began with {0}")]
    Magic(Magic),
    /// The ends have no version in common; lowest and highest of both.
    #[error(
        "remote version range [{},{}] is incompatible with ours [{},{}]",
        remote.0, remote.1, ours.0, ours.1
    )]
    Versions {
        /// What the remote accepts.
        remote: (u8, u8),
        /// What we accept.
        ours: (u8, u8),
    },
    /// The byte that announces encryption has no meaning.
    #[error("bad encryption flag {0}")]
    Flag(u8),
    /// We have a password, the other end has none.
    #[error("remote uses no password, but we do")]
    RemoteUnencrypted,
    /// The other end has a password, we have none.
    #[error("remote uses a password, but we do not")]
    RemoteEncrypted,
    /// The public key is malformed, or of the kind that gives the session key away.
    #[error("remote sent an unusable public key")]
    PublicKey,
    /// The first message does not open.
    #[error("unable to decrypt the first message: the passwords differ")]
    Password,
    /// A later message does not open.
    #[error("unable to decrypt a message: it was changed on the way")]
    Forged,
    /// A message is too short to be encrypted.
    #[error("message is too short to be encrypted")]
    Unsealed,
    /// As many messages as there are nonces were exchanged.
    #[error("connection has used up its sequence numbers")]
    Exhausted,
    /// The features are not acceptable.
    #[error("bad introduction: {0}")]
    Features(#[from] FeaturesError),
    /// A message announces more bytes than are accepted in this phase.
    #[error("incoming message exceeds maximum size: {len} > {limit}")]
    TooLong {
        /// The announced length.
        len: u64,
        /// The limit.
        limit: usize,
    },
    /// The gob stream of protocol 1 is broken.
    #[error("bad message stream: {0}")]
    Gob(#[from] gob::Error),
    /// The stream ended after so many bytes of the header.
    #[error("remote closed the connection after {0} of {HEADER_BYTES} bytes of its header")]
    EndInHeader(usize),
    /// The stream ended before the ends were introduced.
    #[error("remote closed the connection during the introduction (do the passwords differ?)")]
    EndInIntroduction,
    /// The stream ended inside a message.
    #[error("remote closed the connection inside a message")]
    EndInMessage,
    /// There is no introduced connection to send a message over.
    #[error("connection is not introduced")]
    NotIntroduced,
    /// A message of ours has this many bytes, which is too long.
    #[error("outgoing message exceeds maximum size: {0} > {MESSAGE_BYTES_MAX}")]
    SendTooLong(usize),
}

impl WireError {
    /// Whose fault it is.
    pub const fn fault(&self) -> Fault {
        match self {
            WireError::Versions { .. } | WireError::Features(FeaturesError::Flavour(_)) => {
                Fault::Incompatible
            }
            WireError::RemoteUnencrypted | WireError::RemoteEncrypted | WireError::Password => {
                Fault::Unauthorised
            }
            WireError::Exhausted | WireError::NotIntroduced | WireError::SendTooLong(_) => {
                Fault::Local
            }
            _ => Fault::Misbehaved,
        }
    }
}
