//! One connection of the mesh, as its bytes: introduction, framing, encryption.
//!
//! [`Wire`] takes what was received in any pieces and hands out what is to be sent; both ends of
//! a connection run one. It knows no time: who drives
//! it sees to it that no [`Phase`] takes too long.
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

use crate::crypto::PrivateKey;
use crate::features::Features;
use crate::framing::Channel;
use crate::handshake::{Handshake, Step};

pub use crate::handshake::FEATURES_BYTES_MAX;
pub use error::{Fault, MESSAGE_BYTES_MAX, WireError};
pub use introduced::{Introduced, Recorded, VERSION_MAX, VERSION_MIN, WireConfig, version_min};
pub use magic::Magic;

pub(crate) mod error;
pub(crate) mod introduced;
pub(crate) mod magic;

/// Memory that a connection keeps for the start of its next message, in bytes. What a larger
/// message needed beyond this is freed.
const INBOX_BYTES_KEPT: usize = 4 * 1024;
/// Capacity that a connection keeps in each of its queues while they are empty.
const QUEUE_PLACES_KEPT: usize = 16;

/// One end of a connection.
///
/// Poll [`Wire::poll_transmit`] after [`Wire::new`], [`Wire::handle_bytes`] and [`Wire::send`], and
/// [`Wire::poll_event`] after [`Wire::handle_bytes`], even if it failed.
///
/// Rule: `docs/protocol/mesh.md#3-introduction`.
#[derive(Debug)]
pub struct Wire {
    state: State,
    /// The beginning of a message that has not arrived completely.
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

/// An event of a connection.
#[derive(Debug)]
pub enum WireEvent {
    /// Both ends have introduced themselves. Reported once, before any message.
    Introduced(Box<Introduced>),
    /// The decrypted bytes of a message, starting with its tag.
    Message(Vec<u8>),
}

/// Phase of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Waiting for the other end's header.
    Header,
    /// The version is agreed on; waiting for the rest of the introduction.
    Introduction,
    /// Messages are exchanged.
    Introduced,
    /// The connection failed and must be closed.
    Failed,
}

impl Wire {
    /// Creates one end of a new connection. `dialled` is true if this end made the connection.
    /// `key` must be fresh; it is used only if there is a password.
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

    /// Handles received bytes. An error is final: handle the events before it, then close the
    /// connection; further bytes are ignored.
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

    /// Reports that the other end closed the stream. Returns an error unless the stream ended
    /// between two messages.
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

    /// Returns the next bytes to send.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        let bytes = self.outbox.pop_front();
        if bytes.is_none() {
            self.outbox.shrink_to(QUEUE_PLACES_KEPT);
        }
        bytes
    }

    /// Returns the next event.
    pub fn poll_event(&mut self) -> Option<WireEvent> {
        let event = self.events.pop_front();
        if event.is_none() {
            self.events.shrink_to(QUEUE_PLACES_KEPT);
        }
        event
    }

    /// Queues a message; the ends must be introduced. If it returns an error, nothing was queued;
    /// only [`WireError::Exhausted`] requires the connection to be closed.
    pub fn send(&mut self, message: &[u8]) -> Result<(), WireError> {
        let State::Open(channel) = &mut self.state else {
            return Err(WireError::NotIntroduced);
        };
        self.outbox.push_back(channel.seal(message)?);
        Ok(())
    }

    /// Returns the phase of the connection.
    pub fn phase(&self) -> Phase {
        match &self.state {
            State::Handshake(handshake) if handshake.awaits_header() => Phase::Header,
            State::Handshake(_) => Phase::Introduction,
            State::Open(_) => Phase::Introduced,
            State::Failed => Phase::Failed,
        }
    }

    /// Returns the number of bytes received of an incomplete message.
    pub fn buffered(&self) -> usize {
        self.inbox.len()
    }

    /// Handles everything that is complete in `input` and returns its length in bytes.
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

    /// Handles the first item in `input` and returns its length in bytes, or `None` if it is not
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

#[cfg(test)]
mod tests;
