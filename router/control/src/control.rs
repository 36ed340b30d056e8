//! The state of the router, and what a turn of the loop does with it.
//!
//! Larger than the habit: one loop owns the mesh, the addresses and the names, which tell each other
//! what happens in a fixed order; what each of them does stands in a file of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use boundary::connections::ConnectionEvent;
use boundary::forwarding::SendError;
use boundary::forwarding_event::DataEvent;
use boundary::records::{Change, StoreError};
use proto::native::Report;
use proto::node::{DeliveryKind, LinkAction, LinkOutput, Node, Output};
use proto::sleeve::{LinkId, Special};
use proto::types::{ConnId, PeerName, Time};

use super::addresses::{Addresses, Saved};
use super::consumers::{Consumer, Consumers, Delivery};
use super::links::Links;
use super::loop_time::LoopTime;
use super::names::Naming;
use super::publisher::Publisher;
use super::refusals::Strangers;
use super::request::{Reply, Request};
use super::surroundings::Surroundings;
use super::targets::Targets;

/// Interval between sweeps of the MAC table.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// The record that holds what is to be dialled after a restart.
pub const TARGETS_KEY: &[u8] = b"targets";

/// The state of the router. Nothing in here waits: each input is handled at once.
pub struct Control {
    pub(super) node: Node,
    pub(super) consumers: Consumers,
    pub(super) addresses: Option<Addresses>,
    pub(super) naming: Option<Naming>,
    pub(super) links: Links,
    pub(super) targets: Targets,
    pub(super) strangers: Strangers,
    pub(super) surroundings: Surroundings,
    pub(super) publisher: Publisher,
    pub(super) loop_time: LoopTime,
    /// The name of the TAP device.
    device: String,
    /// The latest revisions of records that were handed in by others.
    revisions: BTreeMap<Vec<u8>, u64>,
    /// Time of the last sweep of the MAC table.
    swept: Time,
    stopping: bool,
}

/// Parts from which control is made.
pub struct Parts {
    /// Our peer, which knows the topics of `consumers`.
    pub node: Node,
    /// Consumers of gossip.
    pub consumers: Consumers,
    /// Allocator of addresses, if there is one.
    pub addresses: Option<Addresses>,
    /// The names, unless they are off.
    pub naming: Option<Naming>,
    /// Its links; none yet.
    pub links: Links,
    /// The services beyond the loop.
    pub surroundings: Surroundings,
    /// The name of the TAP device.
    pub device: String,
}

/// An event.
pub enum Input {
    /// Somebody asks for something.
    Request(Request),
    /// Somebody who waited for an address has gone away.
    CallersGone,
    /// Something happened on a connection.
    Connection(ConnectionEvent),
    /// The data threads have something to say.
    Forwarding(DataEvent),
    /// The allocator's records were saved, or could not be.
    Saved(Saved),
    /// Time has passed.
    Time,
}

impl Control {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Control {
        let mut control = Control {
            node: parts.node,
            consumers: parts.consumers,
            addresses: parts.addresses,
            naming: parts.naming,
            links: parts.links,
            targets: Targets::default(),
            strangers: Strangers::default(),
            swept: parts.surroundings.now(),
            surroundings: parts.surroundings,
            publisher: Publisher::default(),
            loop_time: LoopTime::default(),
            device: parts.device,
            revisions: BTreeMap::new(),
            stopping: false,
        };
        control.follow_leases();
        control
    }

    /// Returns the time as the core counts it.
    pub fn now(&self) -> Time {
        self.surroundings.now()
    }

    /// Returns true once somebody has asked the loop to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// A whole turn: handles an input and does everything that follows from it.
    pub fn turn(&mut self, input: Input) {
        self.handle(input);
        self.finish_turn();
    }

    /// Handles an input. What follows from it is done by [`Control::finish_turn`].
    pub fn handle(&mut self, input: Input) {
        self.loop_time.begin(self.surroundings.now());
        if matches!(input, Input::Connection(_) | Input::Forwarding(_)) {
            self.publisher.changed().mesh = true;
        }
        match input {
            Input::Request(request) => self.handle_request(request),
            Input::CallersGone => self.cancel_abandoned(),
            Input::Connection(event) => self.handle_connection(event),
            Input::Forwarding(event) => self.handle_forwarding(event),
            Input::Saved(saved) => self.handle_saved(saved),
            Input::Time => self.handle_time(),
        }
    }

    /// Time by which [`Input::Time`] is to be handled, if nothing else happens before.
    pub fn next_wake(&self) -> Time {
        let sweep = self.swept + SWEEP_INTERVAL;
        let addresses = self.addresses.as_ref();
        let others = [
            self.node.poll_timeout(),
            self.targets.next_wake(),
            addresses.map(|addresses| addresses.allocator.poll_timeout()),
            self.naming.as_ref().and_then(|n| n.names.poll_timeout()),
            self.publisher.poll_timeout(),
        ];
        others.into_iter().flatten().fold(sweep, Time::min)
    }

    /// Does what somebody asks for, and answers.
    fn handle_request(&mut self, request: Request) {
        match request {
            Request::Address {
                request,
                time_max,
                reply,
            } => self.request_address(request, time_max, reply),
            Request::Container { id, event } => self.handle_container(&id, event),
            Request::RegisterNames {
                container,
                address,
                names,
                reply,
            } => reply.send(self.register_names(&container, address, &names)),
            Request::RemoveNames { filter, reply } => reply.send(self.remove_names(&filter)),
            Request::ForgetSavedNames(names) => self.forget_saved_names(&names),
            Request::Connect {
                peers,
                replace,
                reply,
            } => self.connect(peers, replace, reply),
            Request::ConnectInBackground(peers) => self.connect_in_background(peers),
            Request::Forget { peers, reply } => {
                self.forget(&peers);
                reply.send(());
            }
            Request::SaveRecord {
                key,
                value,
                revision,
                reply,
            } => self.save_record(key, value, revision, reply),
            Request::SendGossip {
                topic,
                to,
                payload,
                reply,
            } => {
                let now = self.now();
                self.publisher.changed().mesh = true;
                reply.send(self.node.send_unicast(now, topic, to, &payload));
            }
            Request::View(reply) => self.publisher.ask(reply),
            Request::Ranges(reply) => reply.send(self.ranges()),
            Request::NamedContainers(reply) => reply.send(self.named_containers()),
            Request::Stop(reply) => {
                // The loop ends after this turn. Devices stay.
                self.stopping = true;
                reply.send(());
            }
        }
    }

    /// Saves a record of somebody else's, unless a later revision was handed in before.
    fn save_record(
        &mut self,
        key: Vec<u8>,
        value: Vec<u8>,
        revision: u64,
        reply: Reply<Result<(), StoreError>>,
    ) {
        if self.revisions.get(&key) > Some(&revision) {
            return reply.send(Ok(()));
        }
        self.revisions.insert(key.clone(), revision);
        let value = Some(value);
        let done = |result| reply.send(result);
        let changes = vec![Change { key, value }];
        self.surroundings
            .records
            .save_alone(changes, Box::new(done));
    }

    fn handle_time(&mut self) {
        let now = self.now();
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.publisher.changed().mesh = true;
            self.node.handle_timeout(now);
        }
        self.handle_address_time();
        self.handle_names_time();
        self.resolve_due();
        if now >= self.swept + SWEEP_INTERVAL {
            self.swept = now;
            self.surroundings.forwarding.expire(now);
        }
    }

    fn handle_connection(&mut self, event: ConnectionEvent) {
        let now = self.now();
        match event {
            ConnectionEvent::Accepted(stream, remote) => {
                let Some(secret) = self.surroundings.secret() else {
                    return self.surroundings.connections.refuse(stream);
                };
                let conn = self.node.handle_accepted(now, remote, secret);
                self.surroundings.connections.start(stream, conn);
            }
            ConnectionEvent::Dialled(conn, stream, remote) => {
                let Some(secret) = self.surroundings.secret() else {
                    self.surroundings.connections.refuse(stream);
                    let error = "the system gives no random bytes";
                    return self.node.handle_dial_failed(now, conn, error);
                };
                self.surroundings.connections.start(stream, conn);
                self.node.handle_dialled(now, conn, remote, secret);
            }
            ConnectionEvent::DialFailed(conn, error) => {
                self.node.handle_dial_failed(now, conn, &error);
            }
            ConnectionEvent::Received(conn, bytes) => self.node.handle_bytes(now, conn, &bytes),
            ConnectionEvent::Sent(conn, count) => self.node.handle_sent(now, conn, count),
            ConnectionEvent::Closed(conn, error) => {
                self.node.handle_closed(now, conn, error.as_deref());
            }
            ConnectionEvent::Resolved(peer, result) => self.resolved(peer, result),
        }
    }

    fn handle_forwarding(&mut self, event: DataEvent) {
        let now = self.now();
        match event {
            DataEvent::Special {
                link,
                from,
                special,
            } => {
                self.node.handle_special(now, link, from, special);
            }
            DataEvent::Report {
                link,
                epoch,
                report,
                bytes,
                at,
            } => {
                // Its time of arrival, so that what waited here does not count as round trip.
                self.node
                    .handle_report(at.min(now), link, epoch, report, bytes);
            }
            DataEvent::LinkMoved { link, from } => self.node.handle_moved(now, link, from),
            DataEvent::TooBig { link, path_mtu } => {
                self.node.handle_too_big(now, link, path_mtu as usize);
            }
            DataEvent::Moved { mac, from, to } => {
                let from = from.map_or_else(|| "a peer that is gone".to_owned(), |p| p.to_string());
                tracing::debug!(%mac, %from, %to, "a MAC address moved");
            }
            DataEvent::TapFailed { queue, code } => {
                let error = std::io::Error::from_raw_os_error(code);
                let device = &self.device;
                tracing::error!(
                    device,
                    queue,
                    %error,
                    "the TAP device fails and no frames are carried; was it deleted or switched \
                     off? Restart the router to make it again"
                );
            }
        }
    }

    /// Does what the node, the allocator and the names want, in order, and publishes what changed.
    pub fn finish_turn(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output() {
                self.publisher.changed().mesh = true;
                self.act_on(output);
            }
            let allocated = self.act_for_allocator();
            if allocated {
                self.follow_leases();
            }
            let named = self.act_for_names();
            if !allocated && !named {
                break;
            }
        }
        self.publish();
        self.publish_view();
        self.loop_time.end(self.surroundings.now());
    }

    fn act_on(&mut self, output: Output) {
        match output {
            Output::Dial { conn, to } => {
                self.surroundings.connections.dial(conn, to);
            }
            Output::Send { conn, bytes } => self.surroundings.connections.send(conn, bytes),
            Output::Close { conn } => self.surroundings.connections.close(conn),
            Output::LinkAdded(info) => {
                self.links.add(*info);
                // Its packets may follow at once.
                self.publish();
            }
            Output::Link(LinkOutput { link, what }) => self.link_output(link, what),
            Output::LinkRemoved { link } => self.links.remove(link),
            Output::LinkOrder { peer, links } => self.links.set_order(peer, links),
            Output::Routes(routes) => {
                let now = self.now();
                for slot in self.links.set_routes(now, routes) {
                    self.surroundings.forwarding.forget_peer(slot);
                }
                self.tell_allocator_of_peers();
                self.tell_names_of_peers();
            }
            Output::TargetsChanged(texts) => {
                self.tell_allocator_of_targets();
                self.save_targets(texts);
            }
            Output::Event(event) => self.log(&event),
            Output::PeersMet(_) => {}
            Output::PeersGone(_) => {
                self.tell_allocator_of_peers();
                self.tell_names_of_peers();
            }
            Output::Deliver {
                channel,
                neighbour,
                kind,
                payload,
                ..
            } => {
                self.deliver(&channel, neighbour, kind, payload);
            }
            Output::NeedState {
                channel,
                conn,
                neighbour,
                first,
            } => self.give_state(&channel, conn, neighbour, first),
        }
    }

    /// Hands a message to the consumer of its topic.
    fn deliver(&mut self, topic: &str, via: PeerName, kind: DeliveryKind, payload: Vec<u8>) {
        match self.consumers.of(topic) {
            Some(Consumer::Allocator(channel)) => {
                let channel = *channel;
                self.deliver_to_allocator(channel, via, kind, &payload);
            }
            Some(Consumer::Names) => self.deliver_to_names(via, kind, &payload),
            Some(Consumer::Outside(sender)) => {
                let delivery = Delivery {
                    kind,
                    neighbour: via,
                    payload,
                };
                if sender.try_send(delivery).is_err() {
                    self.consumers.count_lost();
                }
            }
            None => self.consumers.count_unclaimed(),
        }
    }

    /// Has the consumer of a topic give its complete state, for a connection.
    fn give_state(&mut self, topic: &str, conn: ConnId, neighbour: PeerName, first: bool) {
        match self.consumers.of(topic) {
            Some(Consumer::Allocator(channel)) => {
                let channel = *channel;
                self.allocator_state_wanted(channel, conn, neighbour, first);
            }
            Some(Consumer::Names) => self.names_state_wanted(conn),
            // They have none.
            Some(Consumer::Outside(_)) | None => {
                let now = self.now();
                self.node.handle_state(now, topic, conn, None);
            }
        }
    }

    fn publish(&mut self) {
        if let Some(snapshot) = self.links.take_snapshot() {
            self.surroundings.forwarding.publish(snapshot);
        }
    }

    fn link_output(&mut self, link: LinkId, what: LinkAction) {
        match what {
            LinkAction::Path(path) => self.links.update(link, path),
            LinkAction::Keys(keys) => {
                self.links.set_keys(link, keys);
                // What is sent next tells the peer that it may use them.
                self.publish();
            }
            LinkAction::NeedSecret => {
                let now = self.now();
                if let Some(secret) = self.surroundings.native_secret() {
                    self.node.handle_secret(now, link, secret);
                }
            }
            LinkAction::Special(special) => self.send_special(link, special),
            LinkAction::Report(report, bytes) => self.send_report(link, &report, bytes),
        }
    }

    fn send_special(&mut self, link: LinkId, special: Special) {
        let Some(tunnel) = self.links.tunnel(link) else {
            return;
        };
        match self.surroundings.forwarding.send_special(tunnel, special) {
            Ok(()) | Err(SendError::NoAddress) => {}
            Err(SendError::TooBig(path_mtu)) => {
                let now = self.now();
                self.node.handle_too_big(now, link, path_mtu as usize);
            }
            Err(error) => tracing::debug!(%link, ?special, %error, "a special frame was not sent"),
        }
    }

    fn send_report(&mut self, link: LinkId, report: &Report, bytes: usize) {
        let Some(native) = self.links.native(link) else {
            return;
        };
        match self
            .surroundings
            .forwarding
            .send_report(&native, report, bytes)
        {
            Ok(()) | Err(SendError::NoAddress) => {}
            Err(SendError::TooBig(path_mtu)) => {
                let now = self.now();
                self.node.handle_too_big(now, link, path_mtu as usize);
            }
            Err(error) => tracing::debug!(%link, bytes, %error, "a report was not sent"),
        }
    }

    fn save_targets(&mut self, texts: Vec<String>) {
        let value = serde_json::to_vec(&texts).unwrap_or_default();
        let change = Change {
            key: TARGETS_KEY.to_vec(),
            value: Some(value),
        };
        let done = |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "what to connect to after a restart was not saved");
            }
        };
        let records = &self.surroundings.records;
        records.save_alone(vec![change], Box::new(done));
    }
}
