//! Events of one part of a node for the others.

use super::digests::Exchange;
use super::event::CloseReason;
use crate::types::{ConnId, PeerName};
use crate::wire::Introduced;

/// An event in one part of a node that concerns the others. The node itself passes it on; no part
/// calls another.
#[derive(Debug)]
pub(super) enum Happened {
    /// Both ends of a connection are known to each other.
    Introduced(Box<Introduced>),
    /// A gossip message arrived from this neighbour: the whole message.
    Gossip(PeerName, Vec<u8>),
    /// A neighbour of our kind compares what it knows with what we know.
    Exchange(Exchange),
    /// A connection to this neighbour carries frames.
    Established(PeerName),
    /// An answer came on this connection, so the peer of the one that waits for it is not its
    /// successor.
    Answered(ConnId),
    /// A connection is over, though it was not closed yet.
    Lost(CloseReason),
}
