//! Sleeve beside the native overlay: it says nothing until it is needed.
//!
//! ```text
//!         the native link is left, is over or does not come about,
//!         or the peer begins to use sleeve
//!   Cold ---------------------------------------------------------> Warm
//!     ^                                                              |
//!     +--------- the native link is well again for COOL_AFTER -------+
//! ```
//!
//! Only where both ends say that they do so, since others take silence for the end of the link.

use std::time::Duration;

use crate::sleeve::Special;
use crate::sleeve::link::HEARTBEAT_TIMEOUT;
use crate::types::{ConnUid, Time};

/// A native link that is not established within this time gets company.
pub(super) const WARM_AFTER: Duration = Duration::from_millis(1500);
/// The native link must be well for so long until sleeve is left again.
pub(super) const COOL_AFTER: Duration = Duration::from_secs(30);
/// Heartbeats that come closer after each other are those of an end that begins to use sleeve.
const EAGER_INTERVAL: Duration = Duration::from_secs(1);

/// Whether sleeve is used, and when that changes.
#[derive(Debug)]
pub(super) struct Reserve {
    uid: ConnUid,
    state: State,
    heard_at: Option<Time>,
}

#[derive(Debug)]
enum State {
    /// Until this time, if the native link does not come about before.
    Cold(Option<Time>),
    Warm {
        since: Time,
        cool_at: Option<Time>,
    },
}

/// How the native link is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Native {
    Pending,
    Well,
    Ill,
}

/// What is to be done with sleeve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    Warm,
    Cool,
}

impl Reserve {
    /// Cold, for the connection of this number.
    pub(super) fn new(uid: ConnUid) -> Reserve {
        Reserve {
            uid,
            state: State::Cold(None),
            heard_at: None,
        }
    }

    /// The native link begins.
    pub(super) fn confirm(&mut self, now: Time) {
        self.state = State::Cold(Some(now + WARM_AFTER));
    }

    /// Returns when [`Reserve::review`] is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match self.state {
            State::Cold(warm_at) => warm_at,
            State::Warm { cool_at, .. } => cool_at,
        }
    }

    /// From when on sleeve, which is not established, keeps no connection alive.
    pub(super) fn hopeless_at(&self) -> Time {
        match self.state {
            State::Cold(_) => Time::ZERO,
            State::Warm { since, .. } => since + HEARTBEAT_TIMEOUT,
        }
    }

    /// Sees what is to be done while the native link is like this.
    pub(super) fn review(&mut self, now: Time, native: Native) -> Option<Change> {
        match (&mut self.state, native) {
            (State::Cold(warm_at), Native::Pending) => {
                if warm_at.is_none_or(|at| at > now) {
                    return None;
                }
                self.warm(now)
            }
            (State::Cold(_), Native::Ill) => self.warm(now),
            (State::Cold(warm_at), Native::Well) => {
                *warm_at = None;
                None
            }
            (State::Warm { cool_at, .. }, Native::Well) => {
                let at = *cool_at.get_or_insert(now + COOL_AFTER);
                if at > now {
                    return None;
                }
                self.state = State::Cold(None);
                Some(Change::Cool)
            }
            (State::Warm { cool_at, .. }, Native::Pending | Native::Ill) => {
                *cool_at = None;
                None
            }
        }
    }

    /// Returns a special frame arrived over sleeve. The peer may be the only one that noticed that
    /// the native link is of no use.
    pub(super) fn hear(&mut self, now: Time, special: Special) -> Option<Change> {
        if special != Special::Heartbeat(self.uid) {
            return None;
        }
        let before = self.heard_at.replace(now);
        let is_eager = before.is_some_and(|at| now < at + EAGER_INTERVAL);
        match self.state {
            State::Cold(_) if is_eager => self.warm(now),
            _ => None,
        }
    }

    /// Sleeve timed out. Says whether it is to begin anew.
    pub(super) fn handle_silence(&mut self, native: Native) -> Option<Change> {
        if native == Native::Well {
            self.state = State::Cold(None);
            return None;
        }
        // As long as before, so that this does not keep a dead connection alive.
        Some(Change::Warm)
    }

    fn warm(&mut self, now: Time) -> Option<Change> {
        self.state = State::Warm {
            since: now,
            cool_at: None,
        };
        Some(Change::Warm)
    }
}

#[cfg(test)]
mod tests;
