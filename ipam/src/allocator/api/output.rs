//! What the driver must do.

use proto::types::PeerName;

use super::error::RequestError;
use super::message::Channel;
use super::notice::{Alarm, Event};
use super::request::RequestId;
use super::response::Response;
use crate::persist::Batch;

/// What the driver must do.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Store these records completely or not at all, after those of all earlier batches, then call
    /// [`crate::allocator::Allocator::handle_persisted`]. Several batches may be stored at once.
    Persist(Batch),
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With this.
        result: Result<Response, RequestError>,
    },
    /// Send to one peer.
    Unicast {
        /// Channel of the message.
        channel: Channel,
        /// Receiver of the message.
        to: PeerName,
        /// The subject.
        payload: Vec<u8>,
    },
    /// Broadcast our state of the channel [`Channel::Ring`], as it is when it is sent: the driver
    /// requests it with [`crate::allocator::Allocator::handle_state_wanted`].
    BroadcastState,
    /// Send to everyone.
    Broadcast {
        /// Channel of the message.
        channel: Channel,
        /// The subject.
        payload: Vec<u8>,
    },
    /// Relay a broadcast along the route of its source.
    Relay {
        /// Channel of the message.
        channel: Channel,
        /// Its maker.
        source: PeerName,
        /// The payload; `None` for our own state, as with [`Output::BroadcastState`].
        payload: Option<Vec<u8>>,
    },
    /// The requested state.
    State {
        /// The token of the driver's request.
        token: u64,
        /// The state; `None` if nothing must be sent.
        payload: Option<Vec<u8>>,
    },
    /// A condition that needs attention.
    Alarm(Alarm),
    /// An event for the log.
    Event(Event),
}
