//! The one loop that owns the mesh: it feeds the node with what happens and does what it wants.
//!
//! ```text
//! TCP tasks ----TcpEvent---->  +---------+  --bytes-->  TCP tasks
//! data threads --DataEvent-->  | Control |  --Snapshot, special frames-->  data threads
//! HTTP, Docker ---Request--->  +---------+  --batches-->  store
//! ```
//!
//! Everybody else talks to it through a [`Client`], whose methods send a [`Request`] each.

mod addresses;
mod client;
mod consumers;
mod links;
mod log;
mod names;
mod request;
mod targets;
mod view;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::native::Report;
use proto::node::{ConnSecret, DeliveryKind, Node, Output};
use proto::sleeve::{LinkId, Special};
use proto::types::{ConnId, PeerName, Time};
use tokio::sync::mpsc;

pub use addresses::{Addresses, RECORD_PREFIX, Saved};
pub use client::{Client, Inbox};
pub use consumers::{Consumers, DELIVERIES_MAX, Delivery, LeftOver};
pub use links::{FOREIGN_BURST_PACKETS, Links};
pub use names::{NamesError, Naming, SavedName};
pub use request::{
    ConnectError, ContainerEvent, NameFilter, Reply, Request, RequestError, Stopped,
};
pub use targets::resolve;
pub use view::{AddressesView, MeshView, NamesView, Ranges, TargetFacts, View};

use boundary::forwarding_event::{DataEvent, Events};
use boundary::records::{Change, StoreError};
use consumers::Consumer;
use dataplane::plane::{DataPlane, SpecialError};
use log::Strangers;
use store::store::Store;
use targets::Targets;
use transport::tcp::{self, Pump, TcpEvent, TcpEvents};

/// Between sweeps of the MAC table.
const SWEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Events handled before outputs are acted on, so that a flood of one kind delays no other.
const EVENTS_PER_TURN_MAX: usize = 64;
/// The record that holds what is to be dialled after a restart.
pub const TARGETS_KEY: &[u8] = b"targets";

/// The state of the router, owned by its loop.
pub struct Control {
    node: Node,
    consumers: Consumers,
    /// The address that connections are dialled from.
    dial_from: IpAddr,
    addresses: Option<Addresses>,
    naming: Option<Naming>,
    links: Links,
    data: DataPlane,
    store: Arc<Store>,
    pumps: BTreeMap<ConnId, Pump>,
    tcp: TcpEvents,
    epoch: Instant,
    targets: Targets,
    tap_name: String,
    /// The latest revisions of records that were handed in by others.
    revisions: BTreeMap<Vec<u8>, u64>,
    strangers: Strangers,
    swept: Instant,
    stopping: bool,
}

/// What the loop listens to.
pub struct Inputs {
    /// Requests of others.
    pub inbox: Inbox,
    /// What happens on TCP.
    pub tcp: mpsc::Receiver<TcpEvent>,
    /// What data threads tell.
    pub data: Events,
    /// What became of the allocator's records.
    pub saved: mpsc::UnboundedReceiver<Saved>,
}

/// What control is made of.
pub struct Parts {
    /// The address that connections are dialled from.
    pub dial_from: IpAddr,
    /// Our peer, which knows the topics of `consumers`.
    pub node: Node,
    /// Whom gossip is for.
    pub consumers: Consumers,
    /// Who gives out addresses, if anybody does.
    pub addresses: Option<Addresses>,
    /// The names, unless they are off.
    pub naming: Option<Naming>,
    /// Its links; none yet.
    pub links: Links,
    /// The running data plane.
    pub data: DataPlane,
    /// Where state is kept.
    pub store: Arc<Store>,
    /// Where TCP tasks send their events.
    pub tcp: TcpEvents,
    /// The start of the clock.
    pub epoch: Instant,
    /// The name of the TAP device.
    pub tap_name: String,
}

impl Control {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Control {
        Control {
            node: parts.node,
            consumers: parts.consumers,
            dial_from: parts.dial_from,
            addresses: parts.addresses,
            naming: parts.naming,
            links: parts.links,
            data: parts.data,
            store: parts.store,
            pumps: BTreeMap::new(),
            tcp: parts.tcp,
            epoch: parts.epoch,
            targets: Targets::default(),
            tap_name: parts.tap_name,
            revisions: BTreeMap::new(),
            strangers: Strangers::default(),
            swept: parts.epoch,
            stopping: false,
        }
    }

    /// The time as the core counts it.
    pub fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// Runs until somebody asks it to stop.
    pub async fn run(mut self, mut inputs: Inputs, client: Client) {
        self.targets.attach(client);
        self.follow_leases();
        while !self.stopping {
            self.act();
            let wake = self.next_wake();
            tokio::select! {
                Some(request) = inputs.inbox.requests.recv() => self.handle_request(request),
                () = inputs.inbox.abandoned.notified() => self.cancel_abandoned(),
                Some(event) = inputs.tcp.recv() => {
                    self.handle_tcp(event);
                    for _ in 1..EVENTS_PER_TURN_MAX {
                        let Ok(event) = inputs.tcp.try_recv() else { break };
                        self.handle_tcp(event);
                    }
                }
                Some(event) = inputs.data.recv() => {
                    self.handle_data(event);
                    for _ in 1..EVENTS_PER_TURN_MAX {
                        let Ok(event) = inputs.data.try_recv() else { break };
                        self.handle_data(event);
                    }
                }
                Some(saved) = inputs.saved.recv() => {
                    self.handle_saved(saved);
                    while let Ok(saved) = inputs.saved.try_recv() {
                        self.handle_saved(saved);
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
            self.handle_time();
        }
        self.act();
        self.data.stop();
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
                targets,
                replace,
                reply,
            } => reply.send(self.connect(targets, replace)),
            Request::ConnectInBackground(peers) => self.connect_in_background(peers),
            Request::Resolved { text, result } => self.resolved(text, result),
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
                reply.send(self.node.send_unicast(now, topic, to, &payload));
            }
            Request::View(reply) => reply.send(Arc::new(self.view())),
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
        self.store
            .save(vec![Change { key, value }], |result| reply.send(result));
    }

    /// A time of the core as the system counts it.
    fn instant(&self, at: Time) -> Instant {
        self.epoch + Duration::from_micros(at.as_micros())
    }

    fn next_wake(&self) -> Instant {
        let sweep = self.swept + SWEEP_INTERVAL;
        let node = self.node.poll_timeout();
        let node = node.map(|at| self.instant(at));
        let targets = self.targets.next_wake();
        let addresses = self
            .addresses
            .as_ref()
            .map(|a| self.instant(a.allocator.poll_timeout()));
        let names = self.naming.as_ref().and_then(|n| n.names.poll_timeout());
        let names = names.map(|at| self.instant(at));
        [Some(sweep), node, targets, addresses, names]
            .into_iter()
            .flatten()
            .min()
            .unwrap_or(sweep)
    }

    fn handle_time(&mut self) {
        let now = self.now();
        if self.node.poll_timeout().is_some_and(|at| at <= now) {
            self.node.handle_timeout(now);
        }
        self.handle_address_time();
        self.handle_names_time();
        self.targets.resolve_due();
        if self.swept.elapsed() >= SWEEP_INTERVAL {
            self.swept = Instant::now();
            self.data.macs().expire(now);
        }
    }

    fn handle_tcp(&mut self, event: TcpEvent) {
        let now = self.now();
        match event {
            TcpEvent::Accepted(stream, remote) => {
                let Some(secret) = secret() else { return };
                let conn = self.node.handle_accepted(now, remote, secret);
                self.pumps
                    .insert(conn, Pump::start(conn, stream, &self.tcp));
            }
            TcpEvent::Dialled(conn, stream, remote) => {
                let Some(secret) = secret() else { return };
                self.pumps
                    .insert(conn, Pump::start(conn, stream, &self.tcp));
                self.node.handle_dialled(now, conn, remote, secret);
            }
            TcpEvent::DialFailed(conn, error) => self.node.handle_dial_failed(now, conn, &error),
            TcpEvent::Received(conn, bytes) => self.node.handle_bytes(now, conn, &bytes),
            TcpEvent::Sent(conn, count) => self.node.handle_sent(now, conn, count),
            TcpEvent::Closed(conn, error) => self.node.handle_closed(now, conn, error.as_deref()),
        }
    }

    fn handle_data(&mut self, event: DataEvent) {
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
                let device = &self.tap_name;
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
    fn act(&mut self) {
        loop {
            while let Some(output) = self.node.poll_output() {
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
        if let Some(snapshot) = self.links.take_snapshot() {
            self.data.publish(snapshot);
        }
    }

    fn act_on(&mut self, output: Output) {
        match output {
            Output::Dial { conn, to } => {
                tcp::dial(conn, to, self.dial_from, self.tcp.clone());
            }
            Output::Send { conn, bytes } => {
                if let Some(pump) = self.pumps.get(&conn) {
                    pump.send(bytes);
                }
            }
            Output::Close { conn } => drop(self.pumps.remove(&conn)),
            Output::LinkAdded(info) => {
                self.links.add(*info);
                // Its packets may follow at once.
                self.publish();
            }
            Output::LinkUpdated { link, path } => self.links.update(link, path),
            Output::LinkKeys { link, keys } => {
                self.links.set_keys(link, keys);
                // What is sent next tells the peer that it may use them.
                self.publish();
            }
            Output::LinkRemoved { link } => self.links.remove(link),
            Output::LinkOrder { peer, links } => self.links.set_order(peer, links),
            Output::Special { link, special } => self.send_special(link, special),
            Output::Report {
                link,
                report,
                bytes,
            } => self.send_report(link, &report, bytes),
            Output::Routes(routes) => {
                let now = self.now();
                for slot in self.links.set_routes(now, routes) {
                    self.data.macs().forget_peer(slot);
                }
                self.tell_allocator_of_peers();
                self.tell_names_of_peers();
            }
            Output::TargetsChanged(texts) => {
                self.tell_allocator_of_targets();
                self.save_targets(texts);
            }
            Output::Event(event) => self.log(&event),
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
            self.data.publish(snapshot);
        }
    }

    fn send_special(&mut self, link: LinkId, special: Special) {
        let Some(tunnel) = self.links.tunnel(link) else {
            return;
        };
        match self.data.send_special(tunnel, special) {
            Ok(()) | Err(SpecialError::NoAddress) => {}
            Err(SpecialError::TooBig(path_mtu)) => {
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
        match self.data.send_report(&native, report, bytes) {
            Ok(()) | Err(SpecialError::NoAddress) => {}
            Err(SpecialError::TooBig(path_mtu)) => {
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
        self.store.save(vec![change], |result| {
            if let Err(error) = result {
                tracing::warn!(%error, "what to connect to after a restart was not saved");
            }
        });
    }
}

/// Fresh secrets for one connection; without randomness there can be none.
fn secret() -> Option<ConnSecret> {
    let mut bytes = [0; 72];
    if let Err(error) = getrandom::fill(&mut bytes) {
        tracing::error!(%error, "the system gives no random bytes, a connection was refused");
        return None;
    }
    let (key, rest) = bytes.split_first_chunk::<32>()?;
    let (native, id) = rest.split_first_chunk::<32>()?;
    let conn_id = u64::from_ne_bytes(*id.first_chunk()?);
    Some(ConnSecret {
        key: *key,
        native: *native,
        conn_id,
    })
}
