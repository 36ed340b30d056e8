//! Space requests to peers, and their answers.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::types::{PeerName, Time};

use crate::allocator::progress::ASK_AGAIN;
use crate::range::Range;

/// Time after which a denial counts even if the peer's ring did not follow: the ring may show that
/// the address was given to us meanwhile.
///
/// Rule: `docs/protocol/ipam.md#6-2-denied`.
const DENIAL_SETTLES: Duration = Duration::from_millis(300);

/// State of a space request to a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// It was asked; look again at this time.
    Waiting(Time),
    /// It has nothing to give.
    Denied,
    /// It cannot be asked.
    Unreachable,
}

#[derive(Debug)]
struct Ask {
    at: Time,
    denied: Option<Time>,
    /// Whether the ring of the peer followed its denial.
    settled: bool,
}

/// Recent space requests, and their answers.
#[derive(Debug, Default)]
pub(crate) struct SpaceQuestions {
    asks: BTreeMap<(PeerName, Range), Ask>,
}

impl SpaceQuestions {
    /// Returns the state of a request, or `None` if it must be sent.
    pub(crate) fn state(&self, peer: PeerName, range: Range, now: Time) -> Option<Asked> {
        let ask = self.asks.get(&(peer, range))?;
        let again = ask.at + ASK_AGAIN;
        match ask.denied {
            _ if again <= now => None,
            None => Some(Asked::Waiting(again)),
            Some(at) if ask.settled || at + DENIAL_SETTLES <= now => Some(Asked::Denied),
            Some(at) => Some(Asked::Waiting(at + DENIAL_SETTLES)),
        }
    }

    pub(crate) fn is_denied(&self, peer: PeerName, range: Range, now: Time) -> bool {
        self.state(peer, range, now) == Some(Asked::Denied)
    }

    pub(crate) fn sent(&mut self, peer: PeerName, range: Range, now: Time) -> Asked {
        let ask = Ask {
            at: now,
            denied: None,
            settled: false,
        };
        self.asks.insert((peer, range), ask);
        Asked::Waiting(now + ASK_AGAIN)
    }

    /// Returns until when to wait for a peer that was asked for space in this range and has not
    /// answered yet, if any.
    pub(crate) fn outstanding(&self, range: Range, now: Time) -> Option<Time> {
        self.asks
            .iter()
            .filter(|((_, asked), ask)| *asked == range && ask.denied.is_none())
            .map(|(_, ask)| ask.at + ASK_AGAIN)
            .filter(|again| *again > now)
            .max()
    }

    /// Rule: `docs/protocol/ipam.md#6-2-denied`.
    pub(crate) fn denied(&mut self, peer: PeerName, range: Range, now: Time) {
        if let Some(ask) = self.asks.get_mut(&(peer, range)) {
            // A denial is remembered for a while from when it arrived.
            ask.at = now;
            ask.denied = Some(now);
            ask.settled = false;
        }
    }

    /// Handles that a peer sent its ring, as it does after every request.
    pub(crate) fn answered(&mut self, peer: PeerName) {
        self.asks
            .retain(|(asked, _), ask| *asked != peer || ask.denied.is_some());
        for ((asked, _), ask) in &mut self.asks {
            if *asked == peer {
                ask.settled = true;
            }
        }
    }

    pub(crate) fn forget(&mut self, peer: PeerName) {
        self.asks.retain(|(asked, _), _| *asked != peer);
    }

    pub(crate) fn forget_old(&mut self, now: Time) {
        self.asks.retain(|_, ask| ask.at + ASK_AGAIN > now);
    }
}
