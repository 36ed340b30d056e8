//! The allocator in the loop: its messages, its records, and the requests of users.
//!
//! What it puts out after a batch of records it holds back itself until it is told that the batch
//! is on disk, so everything here is done at once and in order.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use ipam::allocator::{
    Allocator, Channel, Clock, Delivery, Event as AddressEvent, Incoming, Output, Peer, Request,
    RequestError, RequestId, Response,
};
use ipam::persist::BatchId;
use proto::node::{Content, DeliveryKind};
use proto::types::{ConnId, PeerName};
use tokio::sync::{mpsc, oneshot};

use super::Control;
use boundary::records::{Change, StoreError};
use store::store::Store;

/// What the keys of the allocator's records start with in the store.
pub const RECORD_PREFIX: &[u8] = b"ipam/";

/// What became of a batch.
pub type Saved = (BatchId, Result<(), StoreError>);

/// The answer to a request.
pub(super) type Answer = Result<Response, RequestError>;

/// The allocator, and who waits for it.
pub struct Addresses {
    /// The allocator itself.
    pub allocator: Allocator,
    waiting: BTreeMap<RequestId, oneshot::Sender<Answer>>,
    last_request: u64,
    saved: mpsc::UnboundedSender<Saved>,
    /// The last batch handed to the store.
    handed: BatchId,
    /// Batches up to this one failed together; the failure was dealt with.
    failed: BatchId,
    /// States that the node waits for, by the numbers under which the allocator was asked.
    states: BTreeMap<u64, (Channel, ConnId)>,
    last_state: u64,
}

impl Addresses {
    /// The allocator with nobody waiting. `saved` is where the store's answers are sent.
    pub fn new(allocator: Allocator, saved: mpsc::UnboundedSender<Saved>) -> Addresses {
        Addresses {
            allocator,
            waiting: BTreeMap::new(),
            last_request: 0,
            saved,
            handed: BatchId(0),
            failed: BatchId(0),
            states: BTreeMap::new(),
            last_state: 0,
        }
    }

    fn save(&mut self, store: &Store, batch: &ipam::persist::Batch) {
        let prefixed = |key: &[u8]| [RECORD_PREFIX, key].concat();
        let changes = batch.iter().map(|(key, value)| Change {
            key: prefixed(key),
            value: value.map(<[u8]>::to_vec),
        });
        let (id, saved) = (batch.id, self.saved.clone());
        self.handed = id;
        store.save(changes.collect(), move |result| {
            // A loop that has ended needs no answer.
            let _ = saved.send((id, result));
        });
    }
}

/// The channels of the allocator, as the node is to know them.
pub fn channels() -> Vec<String> {
    [Channel::Ring, Channel::Leases]
        .iter()
        .map(|channel| channel.name().to_owned())
        .collect()
}

fn channel(name: &str) -> Option<Channel> {
    [Channel::Ring, Channel::Leases]
        .into_iter()
        .find(|channel| channel.name() == name)
}

impl Control {
    /// Both clocks.
    pub(super) fn clock(&self) -> Clock {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        Clock {
            now: self.now(),
            wall: wall.as_secs(),
        }
    }

    /// The subnet of requests that name none; `None` if addresses are not allocated.
    pub fn default_subnet(&self) -> Option<ipam::range::Cidr> {
        Some(self.addresses.as_ref()?.allocator.default_subnet())
    }

    /// All addresses that are allocated from; `None` if they are not.
    pub fn address_range(&self) -> Option<ipam::range::Cidr> {
        Some(self.addresses.as_ref()?.allocator.universe())
    }

    /// Whether it is settled who gives out which addresses, so that the range stays.
    pub fn has_ring(&self) -> bool {
        let addresses = self.addresses.as_ref();
        addresses.is_some_and(|addresses| !addresses.allocator.ring().is_empty())
    }

    /// Hands a request to the allocator. The answer comes at the deadline at the latest, if there
    /// is one. `None` if addresses are not allocated.
    pub fn request_address(
        &mut self,
        request: Request,
        time_max: Option<Duration>,
    ) -> Option<(RequestId, oneshot::Receiver<Answer>)> {
        let clock = self.clock();
        let addresses = self.addresses.as_mut()?;
        addresses.last_request += 1;
        let id = RequestId(addresses.last_request);
        let (answer, wait) = oneshot::channel();
        addresses.waiting.insert(id, answer);
        let deadline = time_max.map(|time| clock.now + time);
        addresses
            .allocator
            .handle_request(clock, id, deadline, request);
        Some((id, wait))
    }

    /// A container with this id was started.
    pub fn container_started(&mut self, id: &str) {
        let clock = self.clock();
        if let Some(addresses) = &mut self.addresses {
            addresses.allocator.handle_container_started(clock, id);
        }
    }

    /// A container has ended; addresses that were asked for in its name are kept for a while.
    pub fn container_died(&mut self, id: &str) {
        let clock = self.clock();
        if let Some(addresses) = &mut self.addresses {
            addresses.allocator.handle_container_died(clock, id);
        }
    }

    /// A container was removed.
    pub fn container_destroyed(&mut self, id: &str) {
        let clock = self.clock();
        if let Some(addresses) = &mut self.addresses {
            addresses.allocator.handle_container_destroyed(clock, id);
        }
    }

    /// Whoever made a request has gone.
    pub fn cancel_address(&mut self, id: RequestId) {
        let clock = self.clock();
        if let Some(addresses) = &mut self.addresses
            && addresses.waiting.contains_key(&id)
        {
            addresses.allocator.handle_cancel(clock, id);
        }
    }

    pub(super) fn handle_saved(&mut self, (id, result): Saved) {
        let clock = self.clock();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        match result {
            Ok(()) => addresses.allocator.handle_persisted(clock, id, Ok(())),
            // The batches behind the first failed one fail with it.
            Err(_) if id <= addresses.failed => {}
            Err(error) => {
                // Whoever waits for an address is told each time, the log once.
                if addresses.allocator.status().store_error.is_none() {
                    tracing::error!(%error, "addresses were not saved");
                }
                addresses.failed = addresses.handed;
                addresses
                    .allocator
                    .handle_persisted(clock, id, Err(error.to_string()));
                self.store.resume();
            }
        }
    }

    pub(super) fn handle_address_time(&mut self) {
        let clock = self.clock();
        if let Some(addresses) = &mut self.addresses
            && addresses.allocator.poll_timeout() <= clock.now
        {
            addresses.allocator.handle_timeout(clock);
        }
    }

    /// Gossip for the allocator. Tells whether it was for it.
    pub(super) fn deliver_to_allocator(
        &mut self,
        name: &str,
        via: PeerName,
        kind: DeliveryKind,
        payload: &[u8],
    ) -> bool {
        let (Some(channel), clock) = (channel(name), self.clock()) else {
            return false;
        };
        let Some(addresses) = &mut self.addresses else {
            return false;
        };
        let kind = match kind {
            DeliveryKind::Unicast { source } => Delivery::Unicast(source),
            DeliveryKind::Broadcast { source } => Delivery::Broadcast(source),
            DeliveryKind::Gossip => Delivery::Gossip,
        };
        let message = Incoming {
            channel,
            kind,
            via,
            payload,
        };
        addresses.allocator.handle_message(clock, message);
        true
    }

    /// The node wants to send the allocator's state. Tells whether the channel is one of its.
    pub(super) fn allocator_state_wanted(
        &mut self,
        name: &str,
        conn: ConnId,
        neighbour: PeerName,
        first: bool,
    ) -> bool {
        let (Some(channel), clock) = (channel(name), self.clock()) else {
            return false;
        };
        let Some(addresses) = &mut self.addresses else {
            return false;
        };
        addresses.last_state += 1;
        let token = addresses.last_state;
        addresses.states.insert(token, (channel, conn));
        let allocator = &mut addresses.allocator;
        allocator.handle_state_wanted(clock, channel, token, Some(neighbour), first);
        true
    }

    /// Peers or routes changed.
    pub(super) fn tell_allocator_of_peers(&mut self) {
        let clock = self.clock();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        let (topology, routes) = (self.node.topology(), self.node.routes());
        let us = self.node.us();
        let peers = topology.peers().map(|peer| Peer {
            name: peer.name,
            nickname: String::from_utf8_lossy(&peer.nickname).into_owned(),
            reachable: peer.name == us || routes.unicast_all(peer.name).is_some(),
        });
        addresses.allocator.handle_peers(clock, peers.collect());
    }

    /// How many peers we were told to connect to changed.
    pub(super) fn tell_allocator_of_targets(&mut self) {
        let clock = self.clock();
        let count = self.node.direct_targets().len() + self.targets.unresolved().count();
        if let Some(addresses) = &mut self.addresses {
            addresses.allocator.handle_targets(clock, count);
        }
    }

    /// Does what the allocator wants. Tells whether there was anything.
    pub(super) fn act_for_allocator(&mut self) -> bool {
        let mut acted = false;
        while let Some(output) = self
            .addresses
            .as_mut()
            .and_then(|addresses| addresses.allocator.poll_output())
        {
            acted = true;
            self.act_on_allocator(output);
        }
        acted
    }

    fn act_on_allocator(&mut self, output: Output) {
        let now = self.now();
        let store = Arc::clone(&self.store);
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        match output {
            Output::Persist(batch) => addresses.save(&store, &batch),
            Output::Reply { request, result } => {
                if let Some(answer) = addresses.waiting.remove(&request) {
                    // Whoever asked may have gone away.
                    let _ = answer.send(result);
                }
            }
            Output::Unicast {
                channel,
                to,
                payload,
            } => {
                self.node.send_unicast(now, channel.name(), to, &payload);
            }
            Output::BroadcastState => {
                self.node
                    .broadcast(now, Channel::Ring.name(), Content::State);
            }
            Output::Broadcast { channel, payload } => {
                self.node
                    .broadcast(now, channel.name(), Content::Payload(payload));
            }
            Output::Relay {
                channel,
                source,
                payload,
            } => {
                let content = payload.map_or(Content::State, Content::Payload);
                self.node
                    .relay_broadcast(now, channel.name(), source, content);
            }
            Output::State { token, payload } => {
                if let Some((channel, conn)) = addresses.states.remove(&token) {
                    self.node
                        .handle_state(now, channel.name(), conn, payload.as_deref());
                }
            }
            Output::Alarm(alarm) => tracing::error!("{alarm}"),
            Output::Event(
                event @ (AddressEvent::StoreFailed(_) | AddressEvent::Refused { .. }),
            ) => {
                tracing::warn!("{event}");
            }
            Output::Event(event) => tracing::info!("{event}"),
        }
    }
}
