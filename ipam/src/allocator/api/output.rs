//! What is to be done.

use proto::types::PeerName;

use super::error::RequestError;
use super::message::Channel;
use super::notice::{Alarm, Event};
use super::request::RequestId;
use super::response::Response;
use crate::persist::Batch;

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Store these records, whole or not at all, after those of all batches before; then call
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
        /// By which channel.
        channel: Channel,
        /// To whom.
        to: PeerName,
        /// What.
        payload: Vec<u8>,
    },
    /// Send our state of the channel [`Channel::Ring`] to everyone, as it is when it is sent: the
    /// driver asks for it with [`crate::allocator::Allocator::handle_state_wanted`].
    BroadcastState,
    /// Send to everyone.
    Broadcast {
        /// By which channel.
        channel: Channel,
        /// What.
        payload: Vec<u8>,
    },
    /// Send a broadcast on along the route of its source.
    Relay {
        /// By which channel.
        channel: Channel,
        /// Who made it.
        source: PeerName,
        /// What it carries; `None` for our own state, as with [`Output::BroadcastState`].
        payload: Option<Vec<u8>>,
    },
    /// The state that was asked for.
    State {
        /// What the driver named its question.
        token: u64,
        /// The state; `None` if nothing is to be sent.
        payload: Option<Vec<u8>>,
    },
    /// A person should look at this.
    Alarm(Alarm),
    /// Something happened that is worth a line in the log.
    Event(Event),
}
