//! One connection of the mesh, as its bytes: introduction, framing, encryption.
//!
//! [`Wire`] takes what was received in any pieces and hands out what is to be sent; both ends of
//! a connection run one. It knows no time: [`Wire::phase`] says which limit applies.
//!
//! ```
//! use proto::crypto::PrivateKey;
//! use proto::features::Features;
//! use proto::types::{PeerName, PeerUid};
//! use proto::wire::{Wire, WireConfig, WireEvent};
//!
//! let end = |number: u64, dialled| {
//!     let features = Features {
//!         name: PeerName::from_u64(number).unwrap_or_default(),
//!         uid: PeerUid(number),
//!         ..Features::default()
//!     };
//!     let config = WireConfig::new(features, Some(b"secret".as_slice().into()));
//!     Wire::new(config, dialled, PrivateKey::from_bytes([number as u8; 32]))
//! };
//! let (mut a, mut b) = (end(1, true), end(2, false));
//! loop {
//!     match (a.poll_transmit(), b.poll_transmit()) {
//!         (None, None) => break,
//!         (to_b, to_a) => {
//!             b.handle_bytes(&to_b.unwrap_or_default())?;
//!             a.handle_bytes(&to_a.unwrap_or_default())?;
//!         }
//!     }
//! }
//! assert!(matches!(a.poll_event(), Some(WireEvent::Introduced(_))));
//! # Ok::<(), proto::wire::WireError>(())
//! ```

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use crate::crypto::{PrivateKey, SessionKey};
use crate::features::{Features, FeaturesError};
use crate::framing::Channel;
use crate::gob;
use crate::handshake::{HEADER_BYTES, Handshake, Step};

pub use crate::handshake::{FEATURES_BYTES_MAX, Magic};

/// Lowest version of the protocol that is spoken here.
pub const VERSION_MIN: u8 = 1;
/// Highest version of the protocol that is spoken here.
pub const VERSION_MAX: u8 = 2;
/// Longest message in bytes, as sent (so with its seal, if it is encrypted). A longer one is
/// not sent, and ends the connection when it is announced.
pub const MESSAGE_BYTES_MAX: usize = 10 * 1024 * 1024;
/// How much memory a connection keeps for the start of its next message, in bytes; what a large
/// message needed beyond this is given back.
const INBOX_BYTES_KEPT: usize = 4 * 1024;
/// How many places in its queues a connection keeps while they are empty.
const QUEUE_PLACES_KEPT: usize = 16;

/// What one end brings to a connection.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// Lowest version to accept.
    pub min_version: u8,
    /// Highest version to accept.
    pub max_version: u8,
    /// The password, if messages are to be encrypted. An empty one encrypts too.
    pub password: Option<Arc<[u8]>>,
    /// Our features for this connection.
    pub features: Features,
}

impl WireConfig {
    /// All versions that are spoken here.
    pub fn new(features: Features, password: Option<Arc<[u8]>>) -> WireConfig {
        WireConfig {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            password,
            features,
        }
    }
}

/// One end of a connection.
///
/// After each call of [`Wire::new`], [`Wire::handle_bytes`] and [`Wire::send`] there may be
/// something for [`Wire::poll_transmit`], and after [`Wire::handle_bytes`], even if it failed,
/// for [`Wire::poll_event`].
#[derive(Debug)]
pub struct Wire {
    state: State,
    /// The start of a message whose rest has not arrived.
    inbox: Vec<u8>,
    outbox: VecDeque<Vec<u8>>,
    events: VecDeque<WireEvent>,
}

#[derive(Debug)]
enum State {
    Handshake(Box<Handshake>),
    Open(Box<Channel>),
    Failed,
}

/// What a connection brought.
#[derive(Debug)]
pub enum WireEvent {
    /// Both ends know each other; comes once, before any message.
    Introduced(Box<Introduced>),
    /// The plain bytes of a message, its tag first.
    Message(Vec<u8>),
}

/// How an introduction ended.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// The features of the other end; with version 1 only those that it has.
    pub remote: Features,
    /// The version of the protocol that is used.
    pub version: u8,
    /// The key of the connection, if it is encrypted.
    pub session_key: Option<SessionKey>,
    /// A digest of everything that both ends sent up to here, the same at both unless something
    /// was changed on the way.
    pub transcript: [u8; 32],
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The other end's header is awaited.
    Header,
    /// The versions are agreed on, the rest of the introduction is awaited.
    Introduction,
    /// Messages are exchanged.
    Introduced,
    /// The connection failed and is to be closed.
    Failed,
}

impl Phase {
    /// How long the other end may take: in [`Phase::Header`] and [`Phase::Introduction`] since
    /// the phase began, so that silence cannot hold a place for long; in [`Phase::Introduced`]
    /// since its last message was complete.
    pub const fn time_limit(self) -> Duration {
        match self {
            Phase::Header => Duration::from_secs(10),
            Phase::Introduction => Duration::from_secs(30),
            Phase::Introduced => Duration::from_secs(60),
            Phase::Failed => Duration::ZERO,
        }
    }
}

impl Wire {
    /// An end of a connection that was just made; `dialled` tells whether by us. The key pair
    /// must be fresh; it is used only if there is a password.
    pub fn new(config: WireConfig, dialled: bool, key: PrivateKey) -> Wire {
        let mut outbox = VecDeque::new();
        let handshake = Handshake::new(config, dialled, key, &mut outbox);
        Wire {
            state: State::Handshake(Box::new(handshake)),
            inbox: Vec::new(),
            outbox,
            events: VecDeque::new(),
        }
    }

    /// Takes in received bytes. An error is final: close the connection once the events before
    /// it are handled; further bytes are ignored.
    pub fn handle_bytes(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let mut inbox = std::mem::take(&mut self.inbox);
        if inbox.is_empty() {
            let used = self.consume(bytes)?;
            inbox.extend_from_slice(&bytes[used..]);
        } else {
            inbox.extend_from_slice(bytes);
            let used = self.consume(&inbox)?;
            inbox.drain(..used);
        }
        if inbox.capacity() > INBOX_BYTES_KEPT.max(4 * inbox.len()) {
            inbox.shrink_to(INBOX_BYTES_KEPT);
        }
        self.inbox = inbox;
        Ok(())
    }

    /// The other end closed the stream. An error if that was no place to do so.
    pub fn handle_end(&mut self) -> Result<(), WireError> {
        let have = self.inbox.len();
        let error = match self.phase() {
            Phase::Header => Some(WireError::EndInHeader(have)),
            Phase::Introduction => Some(WireError::EndInIntroduction),
            Phase::Introduced if have > 0 => Some(WireError::EndInMessage),
            Phase::Introduced | Phase::Failed => None,
        };
        self.fail();
        error.map_or(Ok(()), Err)
    }

    /// The next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let bytes = self.outbox.pop_front();
        if bytes.is_none() {
            self.outbox.shrink_to(QUEUE_PLACES_KEPT);
        }
        bytes
    }

    /// What came in next.
    pub fn poll_event(&mut self) -> Option<WireEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to(QUEUE_PLACES_KEPT);
        }
        event
    }

    /// Queues a message, once the ends are introduced. After an error nothing was queued; only
    /// [`WireError::Exhausted`] requires the connection to be closed.
    pub fn send(&mut self, message: &[u8]) -> Result<(), WireError> {
        let State::Open(channel) = &mut self.state else {
            return Err(WireError::NotIntroduced);
        };
        self.outbox.push_back(channel.seal(message)?);
        Ok(())
    }

    /// How far the connection has come.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Handshake(handshake) if handshake.awaits_header() => Phase::Header,
            State::Handshake(_) => Phase::Introduction,
            State::Open(_) => Phase::Introduced,
            State::Failed => Phase::Failed,
        }
    }

    /// How many bytes of an incomplete message wait for their rest.
    pub fn buffered(&self) -> usize {
        self.inbox.len()
    }

    /// Handles all that is complete in `input` and returns how long it was.
    fn consume(&mut self, input: &[u8]) -> Result<usize, WireError> {
        let mut used = 0;
        loop {
            match self.step(&input[used..]) {
                Ok(Some(more)) => used += more,
                Ok(None) => return Ok(used),
                Err(error) => {
                    self.fail();
                    return Err(error);
                }
            }
        }
    }

    /// Handles what comes first in `input` and returns how long it was; `None` if it is not
    /// complete.
    fn step(&mut self, input: &[u8]) -> Result<Option<usize>, WireError> {
        match &mut self.state {
            State::Handshake(handshake) => match handshake.step(input, &mut self.outbox)? {
                Step::Wait => Ok(None),
                Step::Used(used) => Ok(Some(used)),
                Step::Done(used, remote) => {
                    self.open(*remote);
                    Ok(Some(used))
                }
            },
            State::Open(channel) => {
                let Some(body) = channel.split(input, channel.limit())? else {
                    return Ok(None);
                };
                let used = body.end;
                if let Some(message) = channel.open(&input[body])? {
                    self.events.push_back(WireEvent::Message(message));
                }
                Ok(Some(used))
            }
            State::Failed => Ok((!input.is_empty()).then_some(input.len())),
        }
    }

    fn open(&mut self, remote: Features) {
        if let State::Handshake(handshake) = std::mem::replace(&mut self.state, State::Failed) {
            let (introduced, channel) = handshake.finish(remote);
            self.state = State::Open(Box::new(channel));
            self.events
                .push_back(WireEvent::Introduced(Box::new(introduced)));
        }
    }

    fn fail(&mut self) {
        self.state = State::Failed;
        self.inbox = Vec::new();
    }
}

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

#[cfg(test)]
mod tests;
