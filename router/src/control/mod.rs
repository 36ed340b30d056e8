//! The one loop that owns the mesh: it feeds the node with what happens and does what it wants.
//!
//! ```text
//! TCP tasks ----TcpEvent---->  +---------+  --bytes-->  TCP tasks
//! data threads --DataEvent-->  | Control |  --Snapshot, special frames-->  data threads
//! HTTP, signals ---Call----->  +---------+  --batches-->  store
//! ```
//!
//! Everybody else talks to it through a [`Handle`]: a call is a closure that runs between two
//! events, on the loop's own thread.

mod addresses;
mod bench;
mod facts;
mod gateway;
mod handle;
mod links;
mod log;
mod names;
mod report;
mod targets;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::native::Report;
use proto::node::{ConnSecret, LinkAction, LinkOutput, Node, Output};
use proto::sleeve::{LinkId, Special};
use proto::types::{ConnId, Time};
use tokio::sync::mpsc;

pub use addresses::{Addresses, RECORD_PREFIX, Saved, channels as address_channels};
pub use bench::Outcome;
pub use gateway::{stored_exposures, watch as watch_gateway};
pub use handle::{Call, Handle, Stopped};
pub use links::{FOREIGN_BURST_PACKETS, Links};
pub use names::{NamesError, Naming, SavedName, channels as name_channels};
pub use targets::resolve;

use crate::config::Config;
use crate::docker::Networks;
use bench::Benches;
use boundary::forwarding_event::{DataEvent, Events};
use boundary::records::Change;
use dataplane::plane::{DataPlane, SpecialError};
use host::gateway::Gateway;
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
    /// How the router runs.
    pub config: Arc<Config>,
    /// Our peer.
    pub node: Node,
    /// Docker's networks, once they are looked after.
    pub docker: Option<Networks>,
    addresses: Option<Addresses>,
    naming: Option<Naming>,
    links: Links,
    data: DataPlane,
    store: Arc<Store>,
    pumps: BTreeMap<ConnId, Pump>,
    tcp: TcpEvents,
    epoch: Instant,
    targets: Targets,
    benches: Benches,
    tap_name: String,
    /// The host's own addresses and rules.
    pub gateway: Arc<Gateway>,
    exposures_saved: Option<u64>,
    strangers: Strangers,
    swept: Instant,
    stopping: bool,
}

/// What the loop listens to.
pub struct Inputs {
    /// Calls of others.
    pub calls: mpsc::Receiver<Call>,
    /// What happens on TCP.
    pub tcp: mpsc::Receiver<TcpEvent>,
    /// What data threads tell.
    pub data: Events,
    /// What became of the allocator's records.
    pub saved: mpsc::UnboundedReceiver<Saved>,
}

/// What control is made of.
pub struct Parts {
    /// How the router runs.
    pub config: Arc<Config>,
    /// Our peer.
    pub node: Node,
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
    /// The host's own addresses and rules.
    pub gateway: Arc<Gateway>,
}

impl Control {
    /// Puts the parts together.
    pub fn new(parts: Parts) -> Control {
        Control {
            config: parts.config,
            node: parts.node,
            docker: None,
            addresses: parts.addresses,
            naming: parts.naming,
            links: parts.links,
            data: parts.data,
            store: parts.store,
            pumps: BTreeMap::new(),
            tcp: parts.tcp,
            epoch: parts.epoch,
            targets: Targets::default(),
            benches: Benches::default(),
            tap_name: parts.tap_name,
            gateway: parts.gateway,
            exposures_saved: None,
            strangers: Strangers::default(),
            swept: parts.epoch,
            stopping: false,
        }
    }

    /// The time as the core counts it.
    pub fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    /// Runs until somebody calls [`Control::stop`].
    pub async fn run(mut self, mut inputs: Inputs, handle: Handle) {
        self.targets.attach(handle);
        self.follow_leases();
        while !self.stopping {
            self.act();
            let wake = self.next_wake();
            tokio::select! {
                Some(call) = inputs.calls.recv() => call(&mut self),
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

    /// Ends the loop after the current turn. Devices stay.
    pub fn stop(&mut self) {
        self.stopping = true;
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
                tcp::dial(conn, to, self.config.host, self.tcp.clone());
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
            Output::Link(LinkOutput { link, what }) => self.link_output(link, what),
            Output::LinkRemoved { link } => self.links.remove(link),
            Output::LinkOrder { peer, links } => self.links.set_order(peer, links),
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
                if !self.deliver_to_bench(&channel, kind, &payload)
                    && !self.deliver_to_names(&channel, neighbour, kind, &payload)
                {
                    self.deliver_to_allocator(&channel, neighbour, kind, &payload);
                }
            }
            Output::NeedState {
                channel,
                conn,
                neighbour,
                first,
            } => {
                if !self.names_state_wanted(&channel, conn)
                    && !self.allocator_state_wanted(&channel, conn, neighbour, first)
                {
                    let now = self.now();
                    self.node.handle_state(now, &channel, conn, None);
                }
            }
        }
    }

    fn publish(&mut self) {
        if let Some(snapshot) = self.links.take_snapshot() {
            self.data.publish(snapshot);
        }
    }

    fn link_output(&mut self, link: LinkId, what: LinkAction) {
        let now = self.now();
        match what {
            LinkAction::Path(path) => self.links.update(link, path),
            LinkAction::Keys(keys) => {
                self.links.set_keys(link, keys);
                // What is sent next tells the peer that it may use them.
                self.publish();
            }
            LinkAction::NeedSecret => {
                let mut bytes = [0; 32];
                match getrandom::fill(&mut bytes) {
                    Ok(()) => self.node.handle_secret(now, link, bytes.into()),
                    Err(error) => tracing::error!(%error, "no random bytes for a native key"),
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
        key: (*key).into(),
        native: (*native).into(),
        conn_id,
    })
}
