//! What peers were asked for space, and what became of it.

use std::collections::BTreeMap;
use std::time::Duration;

use proto::types::{PeerName, Time};

use crate::allocator::progress::ASK_AGAIN;
use crate::range::Range;

/// A denial counts when the denier's ring came after it, or after this time: the ring may show
/// that the address was given to us meanwhile.
const DENIAL_SETTLES: Duration = Duration::from_millis(300);

/// How it stands with a question to a peer.
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
    /// Whether the ring of the denier came after its denial.
    settled: bool,
}

/// The space requests that were sent of late, and what became of them.
#[derive(Debug, Default)]
pub(crate) struct SpaceQuestions {
    asks: BTreeMap<(PeerName, Range), Ask>,
}

impl SpaceQuestions {
    /// How it stands with a request; `None` if it is to be sent.
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

    /// Whether somebody who was asked for space in this range has not answered yet; until when
    /// to wait for that.
    pub(crate) fn outstanding(&self, range: Range, now: Time) -> Option<Time> {
        self.asks
            .iter()
            .filter(|((_, asked), ask)| *asked == range && ask.denied.is_none())
            .map(|(_, ask)| ask.at + ASK_AGAIN)
            .filter(|again| *again > now)
            .max()
    }

    pub(crate) fn denied(&mut self, peer: PeerName, range: Range, now: Time) {
        if let Some(ask) = self.asks.get_mut(&(peer, range)) {
            // The denial is worth a while from its own time on.
            ask.at = now;
            ask.denied = Some(now);
            ask.settled = false;
        }
    }

    /// A peer sent its ring, as it does after every request.
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
