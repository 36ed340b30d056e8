//! Container names: a gossiped table, and answers from it.
//!
//! ```text
//! entry      identity and state of one name; which state is newer
//! table      all entries; merge, limits, expiry
//! held       entries of peers that are not known yet
//! clocks     whose wall clock is off
//! gossip     entries to bytes and back
//! index      the snapshot that queries read
//! message    queries and responses as bytes
//! answer     question -> answer | forward | refuse
//! ```
//!
//! [`Names`] is the machine that owns the table. It takes gossip and local changes, and hands out
//! what to send and the snapshots from which [`answer::Responder`] answers, on any thread.

pub mod answer;
mod clocks;
pub mod domain;
pub mod entry;
pub mod gossip;
mod held;
pub mod index;
mod machine;
pub mod message;
pub mod table;

use std::fmt;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

pub use domain::Domain;
pub use entry::{BadEntry, Entry, Key, State, UnixSecs};
pub use index::Index;
pub use machine::Names;

use self::table::ENTRIES_PER_ORIGIN_MAX;
use crate::types::PeerName;

/// How often dead entries are looked through.
pub const EXPIRY_INTERVAL: Duration = Duration::from_secs(30 * 60);

/// What to be told once.
#[derive(Clone, Debug)]
pub struct NamesConfig {
    /// Our own name.
    pub us: PeerName,
    /// The domain in which names may be registered.
    pub domain: Domain,
}

/// Something to be done, in order.
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
    /// Answer from this from now on. Comes after all else, once for all changes.
    Index(Arc<Index>),
    /// For the log.
    Event(Event),
}

/// What a user may want to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The clock of a peer went off by more than the original tolerates, or came back.
    PeerClock {
        /// Whose clock.
        peer: PeerName,
        /// Seconds by which it is ahead of ours.
        ahead_secs: i64,
        /// Whether it is off now.
        off: bool,
    },
    /// Our own clock is off by the word of most neighbours, or no longer.
    OurClock {
        /// Seconds by which it is ahead of theirs.
        ahead_secs: i64,
        /// Whether it is off now.
        off: bool,
    },
    /// A peer sends entries that are left out. Told once in [`EXPIRY_INTERVAL`].
    BadEntries {
        /// Who sent or originated the message.
        from: PeerName,
        /// How many there were in this message.
        count: usize,
        /// What was wrong with the first.
        reason: BadEntry,
    },
    /// There is no room for entries of this peer. Told once in [`EXPIRY_INTERVAL`].
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

/// Why a name was not registered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddError {
    /// The name does not lie in our domain.
    #[error("name lies outside the domain")]
    OutsideDomain,
    /// The name or the container id cannot be sent.
    #[error(transparent)]
    Bad(#[from] BadEntry),
    /// We have as many entries as one peer may have.
    #[error("too many names: {ENTRIES_PER_ORIGIN_MAX} registered here")]
    Full,
}

/// Which of our entries to delete; what is `None` matches all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Filter<'a> {
    /// The name, in any case; the trailing dot may be left out.
    pub hostname: Option<&'a str>,
    /// The container.
    pub container: Option<&'a str>,
    /// The address.
    pub addr: Option<Ipv4Addr>,
}

impl Filter<'_> {
    fn matches(&self, key: &Key) -> bool {
        let dotless = |name: &'_ str| name.strip_suffix('.').unwrap_or(name).len();
        self.container
            .is_none_or(|wanted| wanted == &*key.container)
            && self.addr.is_none_or(|wanted| wanted == key.addr)
            && self.hostname.is_none_or(|wanted| {
                wanted.as_bytes()[..dotless(wanted)]
                    .eq_ignore_ascii_case(&key.hostname.as_bytes()[..dotless(&key.hostname)])
            })
    }
}

/// What happened to received entries, counted since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Entries received, repetitions within one message not counted.
    pub received: u64,
    /// Entries that were new or newer.
    pub news: u64,
    /// Entries said to be ours that were wrong, and were overridden.
    pub overridden: u64,
    /// Entries left out because they break a rule.
    pub bad: u64,
    /// Unknown entries left out because they died long ago.
    pub stale: u64,
    /// Entries left out for want of room in the table.
    pub full: u64,
    /// Entries of unknown peers dropped for want of room.
    pub not_held: u64,
}
