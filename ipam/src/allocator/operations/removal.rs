//! Removal of a lost peer.

use proto::types::{PeerName, Time};

use super::super::api::{Channel, RequestError, Response, Waiting};
use super::super::cx::Cx;
use super::super::effects::Effect;
use super::super::progress::{ASK_AGAIN, Progress};
use crate::leases::wire::Message;
use crate::persist::Takeover;

/// A request to remove a peer.
#[derive(Debug)]
pub(crate) struct Removal {
    pub(crate) peer: PeerName,
    confirmed: bool,
    /// When others were asked which peers are gone, because an unreachable router takes the peer
    /// over.
    asked: Option<Time>,
    /// The number of addresses that we owned when its takeover began; `None` before.
    begun: Option<u32>,
}

impl Removal {
    pub(crate) fn new(peer: PeerName, confirmed: bool) -> Removal {
        Removal {
            peer,
            confirmed,
            asked: None,
            begun: None,
        }
    }

    /// Begins again, unless that it began is stored.
    pub(crate) fn rolled_back(&mut self, cx: &Cx) {
        let takeover = cx.durable.takeovers().get(&self.peer);
        if !takeover.is_some_and(Takeover::is_active) {
            self.begun = None;
        }
        self.asked = None;
    }

    /// Rule: `docs/protocol/ipam.md#8-2-removing-a-peer`.
    pub(crate) fn advance(&mut self, cx: &mut Cx) -> Progress {
        let peer = self.peer;
        if peer == cx.durable.us() {
            return Progress::Done(Ok(Response::TakenOver(0)));
        }
        if cx.members.is_reachable(peer) {
            let name = cx.members.describe(peer);
            return Progress::Done(Err(RequestError::Reachable(name)));
        }
        if self.begun.is_none() {
            if let Some(wait) = self.ask_of_taker(cx) {
                return wait;
            }
            if let Some(result) = self.obstacle(cx) {
                return Progress::Done(result);
            }
            self.begun = Some(cx.durable.owned_by_ring().len());
            cx.effect(Effect::RemovalConfirmed(peer));
            let waiting = Waiting::Takeover {
                peer: cx.members.describe(peer),
                waiting: "its last messages".to_owned(),
            };
            return Progress::Wait(waiting, cx.clock.now + ASK_AGAIN);
        }
        let takeover = cx.durable.takeovers().get(&peer);
        let Some(takeover) = takeover.filter(|takeover| takeover.is_active()) else {
            if let Some(taker) = cx.other_taker(peer) {
                let error = cx.taken_by_other(peer, taker);
                return Progress::Done(Err(error));
            }
            let owned = cx.durable.owned_by_ring().len();
            let gained = owned.saturating_sub(self.begun.unwrap_or(owned));
            return Progress::Done(Ok(Response::TakenOver(gained)));
        };
        let waiting = Waiting::Takeover {
            peer: cx.members.describe(peer),
            waiting: if takeover.waiting.is_empty() {
                "its last messages".to_owned()
            } else {
                cx.members.describe_all(&takeover.waiting)
            },
        };
        Progress::Wait(waiting, cx.clock.now + ASK_AGAIN)
    }

    /// Returns the router that takes the peer over may be gone as well without our knowledge: asks
    /// others. Returns `Some` while they may answer.
    fn ask_of_taker(&mut self, cx: &mut Cx) -> Option<Progress> {
        let taker = cx.other_taker(self.peer)?;
        if !self.confirmed || cx.members.is_reachable(taker) {
            return None;
        }
        let now = cx.clock.now;
        if self.asked.is_none() {
            let peers: Vec<PeerName> = cx.members.weft_in_reach().collect();
            for peer in peers {
                let message = Message::RingQuery {
                    nonce: now.as_micros(),
                    taking: Vec::new(),
                };
                cx.unicast(Channel::Leases, peer, message.encode());
            }
        }
        let until = *self.asked.get_or_insert(now) + ASK_AGAIN;
        let waiting = Waiting::Takeover {
            peer: cx.members.describe(self.peer),
            waiting: cx.members.describe(taker),
        };
        (now < until).then_some(Progress::Wait(waiting, until))
    }

    /// Returns why a removal does not begin: there is nothing to do, or it is not possible.
    fn obstacle(&self, cx: &Cx) -> Option<Result<Response, RequestError>> {
        let peer = self.peer;
        let owned = cx.durable.ring().owned(peer).len();
        let waited_for = cx.is_waited_for(peer);
        let met = cx.durable.known().contains_key(&peer);
        if owned == 0 && !waited_for && !(met && self.confirmed) {
            return Some(Ok(Response::TakenOver(0)));
        }
        if !self.confirmed {
            return Some(Err(RequestError::Unconfirmed {
                peer: cx.members.describe(peer),
                addresses: owned,
            }));
        }
        if let Some(taker) = cx.other_taker(peer)
            && owned > 0
        {
            return Some(Err(cx.taken_by_other(peer, taker)));
        }
        None
    }
}
