//! The scheduling of machines: which acts on what, and in which order.
//!
//! Machines never call each other. If what one does concerns others, it records an [`Effect`] in
//! the context, and this file hands it on, always in the same order. Waiting requests are retried
//! last, when everything else has settled.

use std::time::Duration;

use proto::types::{PeerName, Time};

use super::api::{
    Channel, Delivery, Found, Incoming, Init, Output, Peer, Request, RequestError, RequestId,
    Response,
};
use super::containers;
use super::cx::Cx;
use super::departure;
use super::effects::Effect;
use super::holder;
use super::housekeeping::Housekeeping;
use super::operations::Operation;
use super::progress::Progress;
use super::queue::{Queue, Seq, Waiter};
use super::reclaim::{self, Reclaim};
use super::replication::Replication;
use super::requests::{self, Begun};
use super::ring::channel::{Heard, RingChannel, Source};
use super::ring::election::Election;
use super::ring::grants::Grants;
use super::status;
use super::strays::{self, Strays};
use crate::leases::wire::Message;
use crate::messages::Unicast;

/// Time within which a weft router announces itself after it came into reach.
///
/// Rule: `docs/protocol/ipam.md#9-5-negotiation`.
const WEFT_SILENT_MAX: Duration = Duration::from_secs(200);
/// Maximum number of rounds in which waiting requests are tried in one step. Each round ends some
/// or moves something, so a few suffice; if there were ever more, requests go on when they wake.
const ROUNDS_MAX: u32 = 64;

/// The machines, each with the state that is its alone.
#[derive(Debug)]
pub(super) struct Machines {
    pub(super) queue: Queue,
    pub(super) election: Election,
    ring: RingChannel,
    grants: Grants,
    replication: Replication,
    reclaim: Reclaim,
    strays: Strays,
    housekeeping: Housekeeping,
}

impl Machines {
    pub(super) fn new(now: Time) -> Machines {
        Machines {
            queue: Queue::default(),
            election: Election::default(),
            ring: RingChannel::default(),
            grants: Grants::default(),
            replication: Replication::new(now),
            reclaim: Reclaim::default(),
            strays: Strays::default(),
            housekeeping: Housekeeping::new(now),
        }
    }

    /// The first step of all.
    pub(super) fn start(&mut self, cx: &mut Cx) {
        let known = cx.durable.known().iter();
        for (peer, _) in known.filter(|(_, known)| known.weft) {
            cx.members.was_weft(*peer);
        }
        self.replication.start(cx);
        self.strays.watch(cx);
        if !cx.durable.ring().is_empty() {
            return;
        }
        match cx.config.init.clone() {
            Init::Seed(mut peers) => {
                peers.sort_unstable();
                peers.dedup();
                self.election.make_ring(cx, &peers);
            }
            Init::Consensus(_) => cx.join_election(),
            Init::Observer => {}
        }
    }

    /// The end of every step.
    pub(super) fn finish(&mut self, cx: &mut Cx) {
        self.drain(cx);
        for round in 0..=ROUNDS_MAX {
            if !cx.take_retry() {
                break;
            }
            debug_assert!(round < ROUNDS_MAX, "requests that wait set each other off");
            for seq in self.queue.all() {
                self.advance(cx, seq);
            }
        }
        self.reclaim.settle(cx);
    }

    pub(super) fn next_wake(&self) -> Time {
        let at = self.housekeeping.next_wake();
        let wakes = self.ring.next_wake().into_iter();
        wakes
            .chain(self.election.next_wake())
            .chain(self.reclaim.next_wake())
            .chain(self.queue.next_wake())
            .chain(self.replication.next_wake())
            .fold(at, Time::min)
    }

    pub(super) fn timeout(&mut self, cx: &mut Cx) {
        let now = cx.clock.now;
        self.ring.timeout(cx);
        if self.housekeeping.ticks(now) {
            cx.members.forget_weft(WEFT_SILENT_MAX, now);
            cx.questions.forget_old(now);
            cx.rations.forget_old(now);
            cx.send_owed();
            containers::release_dead(cx);
            self.drain(cx);
            reclaim::progress(cx);
            self.drain(cx);
            strays::claim(cx);
        } else if self.reclaim.is_due(now) {
            reclaim::progress(cx);
        }
        self.drain(cx);
        self.housekeeping.forget(cx);
        self.drain(cx);
        self.election.timeout(cx);
        self.drain(cx);
        self.replication.timeout(cx);
        for seq in self.queue.due(now) {
            self.advance(cx, seq);
        }
    }

    /// Passes effects on until there are none left.
    fn drain(&mut self, cx: &mut Cx) {
        while let Some(effect) = cx.next_effect() {
            match effect {
                Effect::LeaseChanged(key) => self.replication.changed(&key, cx.clock.now),
                Effect::HoldingsChanged => self.strays.watch(cx),
                Effect::RingChanged => {
                    self.election.end(cx);
                    self.ring.forget_digests();
                    reclaim::take_over_again(cx);
                    self.strays.watch(cx);
                }
                Effect::UniverseChanged => self.ring.forget_digests(),
                Effect::HeardRing(via) => reclaim::heard_ring(cx, via),
                Effect::PeerCame(peer) => {
                    reclaim::came_back(cx, peer);
                    self.replication.peers_came(cx);
                }
                Effect::PeerWent(peer) => {
                    cx.questions.forget(peer);
                    cx.rations.forget(peer);
                    self.grants.forget(peer);
                    if cx.members.leaving.remove(&peer) {
                        reclaim::peer_gone(cx, peer);
                    }
                }
                Effect::RemovalConfirmed(peer) => reclaim::remove(cx, peer),
            }
        }
    }

    /// Continues from the stored state after the store failed.
    pub(super) fn rolled_back(&mut self, cx: &mut Cx) {
        self.ring.forget_digests();
        self.election.resume(cx);
        // Questions of those steps were not sent, and answers to earlier ones are asked for again.
        cx.questions.forget_all();
        cx.hosted.rolled_back();
        for op in self.queue.operations_mut() {
            op.rolled_back(cx);
        }
    }

    /// Handles the complete list of peers.
    pub(super) fn peers(&mut self, cx: &mut Cx, peers: Vec<Peer>) {
        let change = cx.members.update(cx.clock.now, peers);
        let (ring, known) = (cx.durable.ring(), cx.durable.known());
        cx.members.prune(|peer| {
            let met = known.get(&peer).is_some_and(|known| !known.gone);
            met || ring.has_owner(peer)
        });
        cx.note_known();
        if !change.came.is_empty() || !change.went.is_empty() {
            cx.try_again();
        }
        for peer in change.came {
            cx.effect(Effect::PeerCame(peer));
        }
        for peer in change.went {
            cx.effect(Effect::PeerWent(peer));
        }
    }

    pub(super) fn message(&mut self, cx: &mut Cx, message: &Incoming<'_>) {
        match message.channel {
            Channel::Ring => self.ring_message(cx, message),
            Channel::Leases => self.lease_message(cx, message),
        }
    }

    /// Rule: `docs/protocol/ipam.md#6-requests`.
    fn ring_message(&mut self, cx: &mut Cx, message: &Incoming<'_>) {
        let via = message.via;
        match message.kind {
            Delivery::Unicast(from) => match Unicast::decode(message.payload) {
                Ok(Unicast::SpaceRequest(range)) => self.grants.asked(cx, from, range),
                Ok(Unicast::SpaceDenied(range)) => cx.space_denied(from, range),
                Ok(Unicast::RingUpdate(state)) => {
                    self.state(cx, Source::made_by(from), state);
                    self.grants.reported(cx, from);
                    cx.questions.space.answered(from);
                    strays::note_kept(cx, from);
                    cx.try_again();
                }
                Ok(Unicast::Unknown(kind)) => {
                    cx.refuse(from, format!("unknown kind {kind} of message"));
                }
                Err(error) => cx.refuse(from, error.to_string()),
            },
            Delivery::Broadcast(source) => {
                let made_by = Source {
                    sender: Some(source),
                    via,
                };
                if self.state(cx, made_by, message.payload) {
                    cx.emit(Output::Relay {
                        channel: Channel::Ring,
                        source,
                        payload: None,
                    });
                }
            }
            Delivery::Gossip => {
                self.ring.release(cx, via);
                let source = Source { sender: None, via };
                self.state(cx, source, message.payload);
            }
        }
    }

    /// Takes a `gossipState`. Returns true if nothing was wrong with it.
    ///
    /// Rule: `docs/protocol/ipam.md#6-3-state`.
    fn state(&mut self, cx: &mut Cx, source: Source, message: &[u8]) -> bool {
        let heard = self.ring.hear(cx, source, message);
        match &heard {
            Heard::Nothing | Heard::Refused => {}
            Heard::Election(nodes) => self.election.hear(cx, nodes),
            Heard::RingWanted => self.election.establish(cx),
        }
        self.drain(cx);
        !matches!(heard, Heard::Refused)
    }

    /// Format: `docs/protocol/ipam.md#9-1-messages`.
    fn lease_message(&mut self, cx: &mut Cx, message: &Incoming<'_>) {
        let decoded = match Message::decode(message.payload) {
            Ok(decoded) => decoded,
            // A later format is not an error of the peer, but cannot be handled.
            Err(error) => return cx.refuse(message.via, error.to_string()),
        };
        let us = cx.us();
        match (message.kind, decoded) {
            (_, Message::Hello(hello)) => {
                if hello.origin != us {
                    self.weft_seen(cx, hello.origin);
                    self.replication.on_hello(cx, &hello);
                }
                relay(cx, message);
            }
            (_, Message::Gone(peer)) => {
                reclaim::peer_gone(cx, peer);
                self.drain(cx);
                relay(cx, message);
            }
            (Delivery::Unicast(from), decoded) if from != us => {
                self.weft_seen(cx, from);
                self.lease_unicast(cx, from, decoded);
            }
            _ => {}
        }
    }

    /// Rule: `docs/protocol/ipam.md#9-1-messages`.
    fn lease_unicast(&mut self, cx: &mut Cx, from: PeerName, message: Message) {
        match message {
            Message::Compare(buckets) => self.replication.on_compare(cx, from, &buckets),
            Message::Summary(buckets) => self.replication.on_summary(cx, from, &buckets),
            Message::Entries { leases, wanted } => {
                self.replication.on_entries(cx, from, leases, &wanted);
            }
            Message::Ask(ask) => holder::asked(cx, from, ask),
            Message::Answer(answer) => {
                if let Some(ring) = &answer.ring {
                    self.state(cx, Source::made_by(from), ring);
                }
                holder::answered(cx, from, answer);
            }
            Message::RingQuery { nonce, taking } => reclaim::asked(cx, from, nonce, &taking),
            Message::RingAnswer {
                nonce,
                gone,
                taking,
                state,
            } => {
                reclaim::told(cx, from, &gone, &taking);
                self.drain(cx);
                let asked = Time::from_micros(nonce);
                if asked <= cx.clock.now && self.state(cx, Source::made_by(from), &state) {
                    reclaim::heard(cx, from, asked);
                }
            }
            Message::Hello(_) | Message::Gone(_) => {}
        }
    }

    /// Rule: `docs/protocol/ipam.md#9-5-negotiation`.
    fn weft_seen(&mut self, cx: &mut Cx, peer: PeerName) {
        if cx.members.set_weft(peer) {
            cx.note_weft(peer);
            self.ring.release(cx, peer);
            cx.try_again();
        }
    }

    pub(super) fn state_wanted(
        &mut self,
        cx: &mut Cx,
        channel: Channel,
        token: u64,
        neighbour: Option<PeerName>,
        new_link: bool,
    ) {
        match channel {
            Channel::Ring => self.ring.state_wanted(cx, token, neighbour, new_link),
            Channel::Leases => {
                let payload = Some(cx.hello(false));
                cx.emit(Output::State { token, payload });
            }
        }
    }

    pub(super) fn request(
        &mut self,
        cx: &mut Cx,
        id: RequestId,
        deadline: Option<Time>,
        request: Request,
    ) {
        let result = match request {
            Request::Shutdown => {
                self.shut_down(cx);
                Ok(Response::Done)
            }
            Request::Found { addresses } => {
                self.found(cx, addresses);
                Ok(Response::Done)
            }
            Request::Status => {
                let status = status::status(cx, &self.queue, &self.election);
                Ok(Response::Status(Box::new(status)))
            }
            other => match requests::begin(cx, other) {
                Begun::Operation(op) => return self.begin(cx, id, deadline, op),
                Begun::Answer(result) => result,
            },
        };
        self.drain(cx);
        reply(cx, id, result);
    }

    /// Tries an operation for the first time. It waits if it cannot complete at once.
    fn begin(
        &mut self,
        cx: &mut Cx,
        request: RequestId,
        deadline: Option<Time>,
        mut op: Operation,
    ) {
        if cx.durable.meta().left {
            return reply(cx, request, Err(op.cancelled()));
        }
        match self.try_operation(cx, &mut op) {
            Progress::Done(result) => reply(cx, request, result),
            Progress::Wait(waiting, _) if is_over(deadline, cx.clock.now) => {
                reply(cx, request, Err(RequestError::Deadline(waiting)));
            }
            Progress::Wait(waiting, wake) => {
                let waiter = Waiter {
                    request,
                    deadline,
                    wake,
                    waiting,
                    op,
                };
                if let Err(error) = self.queue.add(waiter, wake) {
                    reply(cx, request, Err(error));
                }
            }
        }
    }

    /// Tries an operation that waits.
    fn advance(&mut self, cx: &mut Cx, seq: Seq) {
        let Some(mut waiter) = self.queue.take(seq) else {
            return;
        };
        match self.try_operation(cx, &mut waiter.op) {
            Progress::Done(result) => reply(cx, waiter.request, result),
            Progress::Wait(waiting, _) if is_over(waiter.deadline, cx.clock.now) => {
                reply(cx, waiter.request, Err(RequestError::Deadline(waiting)));
            }
            Progress::Wait(waiting, wake) => {
                waiter.waiting = waiting;
                self.queue.put(seq, waiter, wake);
            }
        }
    }

    fn try_operation(&mut self, cx: &mut Cx, op: &mut Operation) -> Progress {
        if cx.durable.ring().is_empty() && op.wants_ring(cx) {
            self.election.establish(cx);
            self.drain(cx);
        }
        let progress = op.advance(cx);
        self.drain(cx);
        progress
    }

    /// Cancels a request whose caller has gone.
    pub(super) fn cancel(&mut self, cx: &mut Cx, request: RequestId) {
        if let Some(seq) = self.queue.find(request) {
            self.end(cx, [seq]);
        }
    }

    fn cancel_for(&mut self, cx: &mut Cx, container: &str) {
        let seqs = self.queue.of(|op| op.is_for(container));
        self.end(cx, seqs);
    }

    fn end(&mut self, cx: &mut Cx, seqs: impl IntoIterator<Item = Seq>) {
        for seq in seqs {
            if let Some(waiter) = self.queue.take(seq) {
                reply(cx, waiter.request, Err(waiter.op.cancelled()));
            }
        }
    }

    pub(super) fn container_died(&mut self, cx: &mut Cx, id: &str) {
        containers::died(cx, id);
        self.cancel_for(cx, id);
    }

    pub(super) fn container_destroyed(&mut self, cx: &mut Cx, id: &str) {
        self.cancel_for(cx, id);
        containers::destroyed(cx, id);
    }

    /// Takes the addresses that are in use on this host already. From now on addresses are given
    /// out.
    fn found(&mut self, cx: &mut Cx, addresses: Vec<Found>) {
        containers::found(cx, addresses);
        self.drain(cx);
        strays::claim(cx);
    }

    /// Transfers everything to the heir and stops.
    fn shut_down(&mut self, cx: &mut Cx) {
        let all = self.queue.all();
        self.end(cx, all);
        if let Some(heir) = departure::choose_heir(cx) {
            departure::leave_leases(cx, heir);
            self.drain(cx);
            self.replication.push(cx);
            departure::hand_over(cx, heir);
            self.drain(cx);
        }
        departure::leave(cx);
        cx.take_retry();
    }
}

fn is_over(deadline: Option<Time>, now: Time) -> bool {
    deadline.is_some_and(|deadline| deadline <= now)
}

fn reply(cx: &mut Cx, request: RequestId, result: Result<Response, RequestError>) {
    cx.emit(Output::Reply { request, result });
}

/// Relays a broadcast unchanged.
fn relay(cx: &mut Cx, message: &Incoming<'_>) {
    if let Delivery::Broadcast(source) = message.kind {
        cx.emit(Output::Relay {
            channel: Channel::Leases,
            source,
            payload: Some(message.payload.to_vec()),
        });
    }
}
