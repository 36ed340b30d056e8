//! The allocator in the loop: its messages, its records, and the requests of users.
//!
//! What it puts out after a batch of records it holds back itself until it is told that the batch
//! is on disk, so everything here is done at once and in order.

use std::sync::Arc;
use std::time::Duration;

use ipam::allocator::{
    Channel, Delivery, Event as AddressEvent, Incoming, Output, Peer, Request, RequestId,
};
use proto::node::{Content, DeliveryKind};
use proto::types::{ConnId, PeerName};

use super::addresses::{Answer, Saved};
use super::control::Control;
use super::errors::RequestError;
use super::request::{ContainerEvent, Reply};

impl Control {
    /// Hands a request to the allocator. The answer comes at the deadline at the latest, if there
    /// is one.
    pub(super) fn request_address(
        &mut self,
        request: Request,
        time_max: Option<Duration>,
        reply: Option<Reply<Answer>>,
    ) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let Some(addresses) = &mut self.addresses else {
            if let Some(reply) = reply {
                reply.send(Err(RequestError::Off));
            }
            return;
        };
        addresses.last_request += 1;
        let id = RequestId(addresses.last_request);
        let is_abandoned = reply.as_ref().is_some_and(Reply::is_abandoned);
        if let Some(reply) = reply {
            addresses.waiting.insert(id, reply);
        }
        let deadline = time_max.map(|time| clock.now + time);
        let allocator = &mut addresses.allocator;
        allocator.handle_request(clock, id, deadline, request);
        // A caller who went away before the request arrived is not told of again.
        if is_abandoned {
            allocator.handle_cancel(clock, id);
        }
    }

    /// Cancels the requests of callers who have gone away.
    pub(super) fn cancel_abandoned(&mut self) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        let waiting = addresses.waiting.iter();
        let abandoned = waiting.filter(|(_, reply)| reply.is_abandoned());
        for id in abandoned.map(|(id, _)| *id) {
            addresses.allocator.handle_cancel(clock, id);
        }
    }

    /// Tells the allocator what happened to a container.
    pub(super) fn handle_container(&mut self, id: &str, event: ContainerEvent) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        let allocator = &mut addresses.allocator;
        match event {
            ContainerEvent::Started => allocator.handle_container_started(clock, id),
            ContainerEvent::Died => allocator.handle_container_died(clock, id),
            ContainerEvent::Destroyed => allocator.handle_container_destroyed(clock, id),
        }
    }

    pub(super) fn handle_saved(&mut self, (id, result): Saved) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
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
                self.surroundings.records.resume();
            }
        }
    }

    pub(super) fn handle_address_time(&mut self) {
        let clock = self.surroundings.both();
        if let Some(addresses) = &mut self.addresses
            && addresses.allocator.poll_timeout() <= clock.now
        {
            self.publisher.changed().addresses = true;
            addresses.allocator.handle_timeout(clock);
        }
    }

    /// Takes gossip for the allocator.
    pub(super) fn deliver_to_allocator(
        &mut self,
        channel: Channel,
        via: PeerName,
        kind: DeliveryKind,
        payload: &[u8],
    ) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let Some(addresses) = &mut self.addresses else {
            return;
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
    }

    /// The node wants to send the allocator's state.
    pub(super) fn allocator_state_wanted(
        &mut self,
        channel: Channel,
        conn: ConnId,
        neighbour: PeerName,
        first: bool,
    ) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        addresses.last_state += 1;
        let token = addresses.last_state;
        addresses.states.insert(token, (channel, conn));
        let allocator = &mut addresses.allocator;
        allocator.handle_state_wanted(clock, channel, token, Some(neighbour), first);
    }

    /// Peers or routes changed.
    pub(super) fn tell_allocator_of_peers(&mut self) {
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
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
        self.publisher.changed().addresses = true;
        let clock = self.surroundings.both();
        let count = self.node.direct_targets().len() + self.targets.unresolved().count();
        if let Some(addresses) = &mut self.addresses {
            addresses.allocator.handle_targets(clock, count);
        }
    }

    /// Does what the allocator wants. Returns true if there was anything.
    pub(super) fn act_for_allocator(&mut self) -> bool {
        let mut acted = false;
        while let Some(output) = self
            .addresses
            .as_mut()
            .and_then(|addresses| addresses.allocator.poll_output())
        {
            acted = true;
            self.publisher.changed().addresses = true;
            self.act_on_allocator(output);
        }
        acted
    }

    fn act_on_allocator(&mut self, output: Output) {
        let now = self.now();
        let records = Arc::clone(&self.surroundings.records);
        let Some(addresses) = &mut self.addresses else {
            return;
        };
        match output {
            Output::Persist(batch) => addresses.save(&*records, &batch),
            Output::Reply { request, result } => {
                if let Some(reply) = addresses.waiting.remove(&request) {
                    reply.send(result.map_err(RequestError::Refused));
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
