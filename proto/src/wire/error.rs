//! Why a connection failed, and whose fault it is.

use super::magic::{HEADER_BYTES, Magic};
use crate::features::FeaturesError;
use crate::gob;

/// Maximum size of a message in bytes, as sent (with its tag, if it is encrypted). A longer message
/// is not sent; a connection that announces one is closed.
pub const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;

/// Which side is responsible for a failed connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The other end violates the protocol, or speaks another one.
    Misbehaved,
    /// The other end follows the protocol but is incompatible with this one.
    Incompatible,
    /// The other end does not know the password.
    Unauthorised,
    /// This end is responsible.
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
    /// The encryption flag has an unknown value.
    #[error("bad encryption flag {0}")]
    Flag(u8),
    /// We have a password, the other end has none.
    #[error("remote uses no password, but we do")]
    RemoteUnencrypted,
    /// The other end has a password, we have none.
    #[error("remote uses a password, but we do not")]
    RemoteEncrypted,
    /// The public key is malformed, or one of the few that make the session key predictable.
    #[error("remote sent an unusable public key")]
    PublicKey,
    /// The first message cannot be decrypted.
    #[error("unable to decrypt the first message: the passwords differ")]
    Password,
    /// A later message cannot be decrypted.
    #[error("unable to decrypt a message: it was changed on the way")]
    Forged,
    /// A message is too short to be encrypted.
    #[error("message is too short to be encrypted")]
    Unsealed,
    /// All nonces of this direction are used up.
    #[error("connection has used up its sequence numbers")]
    Exhausted,
    /// The features are not acceptable.
    #[error("bad introduction: {0}")]
    Features(#[from] FeaturesError),
    /// A message announces more bytes than this phase accepts.
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
    /// The stream ended after this many bytes of the header.
    #[error("remote closed the connection after {0} of {HEADER_BYTES} bytes of its header")]
    EndInHeader(usize),
    /// The stream ended before the ends were introduced.
    #[error("remote closed the connection during the introduction (do the passwords differ?)")]
    EndInIntroduction,
    /// The stream ended inside a message.
    #[error("remote closed the connection inside a message")]
    EndInMessage,
    /// The connection is not introduced yet, so no message can be sent.
    #[error("connection is not introduced")]
    NotIntroduced,
    /// An outgoing message of this many bytes is too long.
    #[error("outgoing message exceeds maximum size: {0} > {MESSAGE_BYTES_MAX}")]
    SendTooLong(usize),
}

impl WireError {
    /// Returns which side is responsible.
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
