//! What the machine of names wants done, and what it counts.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::entry::BadEntry;
use super::index::Index;
use crate::types::PeerName;

/// Interval between removals of deleted entries.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// What the driver must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send to random neighbours (tag 4), except towards the one it came from.
    Gossip {
        /// The neighbour to leave out.
        except: Option<PeerName>,
        /// What to send.
        payload: Vec<u8>,
    },
    /// Send to everybody as ours (tag 6).
    Broadcast {
        /// What to send.
        payload: Vec<u8>,
    },
    /// Pass on along the broadcast routes of its source (tag 6).
    Relay {
        /// Who broadcast it first.
        source: PeerName,
        /// What to send.
        payload: Vec<u8>,
    },
    /// From now on, answer from this index. Returned after all other outputs, once for all changes.
    Index(Arc<Index>),
    /// For the log.
    Event(Event),
}

/// An event for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The clock of a peer differs by more than Weave Net tolerates, or agrees again.
    PeerClock {
        /// Whose clock.
        peer: PeerName,
        /// Seconds by which it is ahead of ours.
        ahead_secs: i64,
        /// Whether it is off now.
        off: bool,
    },
    /// Our own clock differs from those of most neighbours, or agrees again.
    OurClock {
        /// Seconds by which it is ahead of theirs.
        ahead_secs: i64,
        /// Whether it is off now.
        off: bool,
    },
    /// A peer sends invalid entries. Reported once in [`EXPIRY_INTERVAL`].
    BadEntries {
        /// Who sent or originated the message.
        from: PeerName,
        /// How many there were in this message.
        count: usize,
        /// What was wrong with the first.
        reason: BadEntry,
    },
    /// There is no room for entries of this peer. Reported once in [`EXPIRY_INTERVAL`].
    Full {
        /// Whose entries.
        origin: PeerName,
    },
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::PeerClock {
                peer,
                ahead_secs,
                off: true,
            } => write!(
                f,
                "clock of {peer} is {ahead_secs} s ahead of ours: Weave routers close connections \
                 between such hosts"
            ),
            Event::PeerClock { peer, .. } => write!(f, "clock of {peer} agrees with ours again"),
            Event::OurClock {
                ahead_secs,
                off: true,
            } => write!(
                f,
                "our clock is {ahead_secs} s ahead of those of most peers: Weave routers will \
                 close connections to us"
            ),
            Event::OurClock { .. } => f.write_str("our clock agrees with those of peers again"),
            Event::BadEntries {
                from,
                count,
                reason,
            } => write!(f, "left out {count} names sent by {from}: {reason}"),
            Event::Full { origin } => write!(f, "no room for further names of {origin}"),
        }
    }
}

/// Counters of received entries since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries received, repetitions within one message not counted.
    pub received: u64,
    /// Entries that were new or newer.
    pub news: u64,
    /// Wrong entries in our name, which were overridden.
    pub overridden: u64,
    /// Invalid entries, which were left out.
    pub bad: u64,
    /// Unknown entries left out because they were deleted long ago.
    pub stale: u64,
    /// Entries left out for want of room in the table.
    pub full: u64,
    /// Entries of unknown peers dropped for want of room.
    pub not_held: u64,
}
