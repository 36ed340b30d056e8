//! The connection maker: which address is dialled, and when.
//!
//! *Direct* targets are those that the user named. *Discovered* targets are the remote ends of
//! other peers' connections. Both are dialled at once and then, as long as they fail, at growing
//! intervals:
//!
//! ```text
//! (named or discovered) -> Waiting --time--> Attempting --added--> Connected
//!                            ^  ^               |                      |
//!                            |  +----failed-----+--------ended---------+
//!                            +--> Suspended   while there is no reason to dial it
//! ```
//!
//! The driver answers every [`Dial`] eventually: by [`Connector::handle_added`] and later
//! [`Connector::handle_ended`], or by [`Connector::handle_ended`] alone.

mod discovery;
mod link;
mod met;
mod target;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

pub use target::{InvalidTarget, Target, split_target};

use crate::topology::Topology;
use crate::types::{ConnId, PeerName, Time};
use discovery::Candidates;
pub use link::Link;
use met::Met;
use target::{Entry, Kind, RESET_AFTER, Schedule, State};

/// Maximum number of direct targets. Naming more is refused.
pub const DIRECT_MAX: usize = 1024;
/// Maximum number of simultaneous attempts on direct targets. Further ones wait.
pub const DIRECT_ATTEMPTS_MAX: usize = 64;
/// Maximum number of simultaneous attempts on discovered targets. Further ones wait, and never
/// delay direct ones.
pub const DISCOVERED_ATTEMPTS_MAX: usize = 16;

/// Average interval between attempts on discovered targets: gossip cannot make this router dial
/// more than 100 addresses per second.
pub const DISCOVERED_SPACING: Duration = Duration::from_millis(10);
/// Maximum number of attempts on discovered targets that may follow each other without that
/// interval.
pub const DISCOVERED_BURST_MAX: u32 = 64;

/// At the latest after this time it is found out anew what is wanted.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(3600);

/// Configuration of a connector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// The port that we listen on, and assume others to listen on.
    pub port: u16,
    /// Whether to dial addresses learned from other peers.
    pub discovery: bool,
    /// Maximum number of connections; 0 for no limit.
    pub connection_limit: usize,
}

/// An attempt to make a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The address.
    pub to: SocketAddr,
    /// Whether a peer that the mesh does not know yet is accepted.
    pub accept_new: bool,
}

/// How an attempt or a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The address that was dialled; `None` for a connection that was accepted.
    pub dialled: Option<SocketAddr>,
    /// The peer that answered, if any.
    pub peer: Option<PeerName>,
    /// The reason.
    pub error: &'a str,
    /// Trying again would have the same result: the other end is this router, or has its name.
    pub never_again: bool,
}

/// More direct targets were named than [`DIRECT_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("more than {DIRECT_MAX} targets")]
pub struct TooManyTargets;

/// An address as the status pages show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TargetView<'a> {
    /// The address.
    pub address: SocketAddr,
    /// Whether the user named it.
    pub direct: bool,
    /// Its state.
    pub state: TargetState,
    /// Why the last attempt or connection ended.
    pub error: Option<&'a str>,
    /// When it is tried next, or was last tried; `None` if it is never tried again.
    pub next_try: Option<Time>,
}

/// State of an address.
///
/// Rule: `docs/protocol/mesh.md#8-3-states`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetState {
    /// It was not tried yet.
    Waiting,
    /// It is being tried for the first time.
    Connecting,
    /// It is being tried again after a failure.
    Retrying,
    /// It failed and waits for the next try.
    Failed,
    /// There is no need to dial it: its peer is connected otherwise.
    Suspended,
    /// We are connected.
    Connected,
}

/// The connection maker.
///
/// Rule: `docs/protocol/mesh.md#8-3-states`.
#[derive(Clone, Debug)]
pub struct Connector {
    config: ConnectorConfig,
    rng: fastrand::Rng,
    /// The targets that the user named, by their text.
    direct: BTreeMap<String, Target>,
    discovered: Candidates,
    met: Met,
    entries: BTreeMap<SocketAddr, Entry>,
    schedule: Schedule,
    links: BTreeMap<ConnId, Link>,
    attempts: Attempts,
    dials: VecDeque<Dial>,
    /// The time up to which the attempts made on discovered targets use up their intervals.
    spent_until: Time,
    reconciled: Time,
    wake: Option<Time>,
}

impl Connector {
    /// Creates a connector without targets.
    pub fn new(config: ConnectorConfig, rng: fastrand::Rng) -> Connector {
        Connector {
            config,
            rng,
            direct: BTreeMap::new(),
            discovered: Candidates::new(),
            met: Met::default(),
            entries: BTreeMap::new(),
            schedule: Schedule::default(),
            links: BTreeMap::new(),
            attempts: Attempts::default(),
            dials: VecDeque::new(),
            spent_until: Time::ZERO,
            reconciled: Time::ZERO,
            wake: None,
        }
    }

    /// Adds direct targets; with `replace`, replaces all previous ones. Waiting targets are tried
    /// at once. If there are too many, nothing changes.
    pub fn connect(
        &mut self,
        now: Time,
        targets: impl IntoIterator<Item = Target>,
        replace: bool,
    ) -> Result<(), TooManyTargets> {
        let mut direct = if replace {
            BTreeMap::new()
        } else {
            self.direct.clone()
        };
        let mut named = Vec::new();
        for target in targets {
            named.push(target.address(self.config.port));
            direct.insert(target.text.clone(), target);
            if direct.len() > DIRECT_MAX {
                return Err(TooManyTargets);
            }
        }
        self.direct = direct;
        for address in named {
            if let Some(entry) = self.entries.get_mut(&address).filter(|e| e.is_idle()) {
                entry.try_now(now);
                entry.peer = None;
            }
        }
        self.reconcile(now);
        Ok(())
    }

    /// Removes direct targets by their texts. Connections to them stay.
    pub fn forget<'t>(&mut self, now: Time, texts: impl IntoIterator<Item = &'t str>) {
        for text in texts {
            if let Some(target) = self.direct.remove(text) {
                self.met.forget_address(target.address(self.config.port));
            }
        }
        self.reconcile(now);
    }

    /// Forgets where a peer was met that is not to come back.
    pub fn forget_peer(&mut self, now: Time, peer: PeerName) {
        self.met.forget(peer);
        self.reconcile(now);
    }

    /// Takes in where peers were met before this start.
    pub fn recall(&mut self, now: Time, met: impl IntoIterator<Item = (PeerName, SocketAddr)>) {
        for (peer, address) in met {
            self.met.recall(now, peer, address);
        }
        self.reconcile(now);
    }

    /// Returns where peers were met: what to recall after a restart.
    pub fn met(&self) -> impl Iterator<Item = (PeerName, SocketAddr)> {
        self.met.iter()
    }

    /// Returns true if [`Connector::met`] changed since this was last asked.
    pub fn take_met_changed(&mut self) -> bool {
        self.met.take_changed()
    }

    /// Returns the direct targets, sorted by text, to be named again after a restart.
    pub fn direct(&self) -> impl ExactSizeIterator<Item = &Target> {
        self.direct.values()
    }

    /// Looks for addresses in the topology. Call this after every change of it, including deleted
    /// connections.
    pub fn handle_topology(&mut self, now: Time, topology: &Topology) {
        if self.config.discovery {
            let loopback = self
                .links
                .values()
                .any(|link| link.address.ip().is_loopback());
            let peers = self.connected_peers();
            self.discovered = discovery::candidates(topology, &peers, self.config.port, loopback);
        }
        self.reconcile(now);
    }

    /// Reports that a connection, dialled or accepted, was added to our peer.
    pub fn handle_added(&mut self, now: Time, conn: ConnId, link: Link) {
        self.links.insert(conn, link);
        self.met.note(now, &link, self.config.port);
        if link.outbound {
            self.end_attempt(link.address, |entry, _| {
                entry.state = State::Connected;
                entry.peer = Some(link.peer);
            });
        }
        self.discovered.retain(|_, peers| {
            peers.remove(&link.peer);
            !peers.is_empty()
        });
        self.reconcile(now);
    }

    /// Reports that an attempt failed, or that a connection ended, whether or not it was added.
    ///
    /// Rule: `docs/protocol/mesh.md#8-2-attempts`.
    pub fn handle_ended(&mut self, now: Time, conn: ConnId, ended: Ended<'_>) {
        let lost = self.links.remove(&conn);
        let was_added = lost.is_some();
        if let Some(link) = lost {
            self.met.lost(now, link.peer);
        }
        if let Some(address) = ended.dialled {
            self.end_attempt(address, |entry, rng| {
                let lasted = entry.try_at.is_some_and(|at| now > at + RESET_AFTER);
                entry.fail(ended.error);
                entry.peer = ended.peer.or(entry.peer);
                if ended.never_again {
                    entry.try_never();
                } else if was_added && lasted {
                    entry.try_soon(now, rng);
                } else {
                    entry.try_later(now, rng);
                }
            });
            self.settle(now, address);
        }
        if was_added || ended.peer.is_some() {
            self.reconcile(now);
        } else {
            self.start_due(now);
        }
    }

    /// Does what is due. Call this at or after [`Connector::poll_timeout`].
    pub fn handle_timeout(&mut self, now: Time) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        if self.reconciled + RECONCILE_INTERVAL <= now {
            // Who was met may have been gone for too long meanwhile.
            self.reconcile(now);
        } else {
            self.start_due(now);
        }
    }

    /// Returns the next attempt to make. Every other call may add attempts.
    pub fn poll_output(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    /// Returns the time at which [`Connector::handle_timeout`] is due. Every `handle_` call,
    /// `connect` and `forget` may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.wake
    }

    /// Returns all addresses in order.
    pub fn targets(&self) -> impl Iterator<Item = TargetView<'_>> {
        self.entries.iter().filter_map(|(address, entry)| {
            let state = match (entry.state, &entry.error) {
                (State::Suspended, _) if entry.kind == Kind::Discovered => return None,
                (State::Waiting, None) => TargetState::Waiting,
                (State::Waiting, Some(_)) => TargetState::Failed,
                (State::Attempting(_), None) => TargetState::Connecting,
                (State::Attempting(_), Some(_)) => TargetState::Retrying,
                (State::Connected, _) => TargetState::Connected,
                (State::Suspended, _) => TargetState::Suspended,
            };
            Some(TargetView {
                address: *address,
                direct: entry.kind == Kind::Direct,
                state,
                error: entry.error.as_deref(),
                next_try: entry.try_at,
            })
        })
    }

    fn connected_peers(&self) -> BTreeSet<PeerName> {
        self.links.values().map(|link| link.peer).collect()
    }

    /// Changes the entry of an address with an attempt or a connection in progress.
    fn end_attempt(
        &mut self,
        address: SocketAddr,
        change: impl FnOnce(&mut Entry, &mut fastrand::Rng),
    ) {
        let entry = self.entries.get_mut(&address);
        let Some(entry) = entry.filter(|entry| !entry.is_idle()) else {
            return;
        };
        if let State::Attempting(kind) = entry.state {
            *self.attempts.of(kind) -= 1;
        }
        change(entry, &mut self.rng);
    }

    /// Updates one entry according to whether it is wanted.
    fn settle(&mut self, now: Time, address: SocketAddr) {
        let Some(entry) = self.entries.get_mut(&address) else {
            return;
        };
        if entry.settle(now) {
            self.schedule.put(address, entry, &mut self.rng);
        } else {
            self.schedule.remove(entry);
            self.entries.remove(&address);
        }
    }

    /// Recomputes which addresses are wanted, after targets or connections have changed, and starts
    /// the attempts that are due.
    fn reconcile(&mut self, now: Time) {
        self.reconciled = now;
        self.mark_wanted(now);
        self.entries.retain(|address, entry| {
            let kept = entry.settle(now);
            if kept {
                self.schedule.put(*address, entry, &mut self.rng);
            } else {
                self.schedule.remove(entry);
            }
            kept
        });
        self.start_due(now);
    }

    /// Marks the entries that are wanted, and adds missing ones.
    ///
    /// Rule: `docs/protocol/mesh.md#8-1-targets`.
    fn mark_wanted(&mut self, now: Time) {
        let links = self.links.values();
        let taken: BTreeSet<SocketAddr> = links.clone().map(|link| link.address).collect();
        let accepted: BTreeSet<IpAddr> = links
            .filter(|link| !link.outbound)
            .map(|link| link.address.ip())
            .collect();
        let peers = self.connected_peers();
        for entry in self.entries.values_mut() {
            entry.kind = Kind::Discovered;
            entry.wanted = false;
        }
        for target in self.direct.values() {
            let address = target.address(self.config.port);
            let entry = self.entries.entry(address);
            let entry = entry.or_insert_with(|| Entry::new(now));
            entry.kind = Kind::Direct;
            // Dialling a peer that is connected otherwise would only replace one of the two
            // connections by the other, over and over.
            let connected = entry.peer.is_some_and(|peer| peers.contains(&peer));
            let accepted = target.port.is_none() && accepted.contains(&target.ip);
            entry.wanted |= !connected && !accepted && !taken.contains(&address);
        }
        for (address, named) in &self.discovered {
            if taken.contains(address) {
                continue;
            }
            let entry = self.entries.entry(*address).or_insert_with(|| {
                let mut entry = Entry::new(now);
                if named.iter().any(|peer| self.met.is_just_lost(now, *peer)) {
                    entry.try_soon(now, &mut self.rng);
                }
                entry
            });
            entry.wanted = true;
        }
        if self.config.discovery {
            for (peer, address) in self.met.wanted(now) {
                if peers.contains(&peer) || taken.contains(&address) {
                    continue;
                }
                let entry = self.entries.entry(address).or_insert_with(|| {
                    let mut entry = Entry::new(now);
                    if self.met.is_just_lost(now, peer) {
                        entry.try_soon(now, &mut self.rng);
                    }
                    entry
                });
                entry.wanted = true;
            }
        }
    }

    /// Starts the attempts that are due, within the limits.
    fn start_due(&mut self, now: Time) {
        self.start_due_of(now, Kind::Direct);
        self.start_due_of(now, Kind::Discovered);
        let waits = self.schedule.due(Kind::Discovered, now).is_some();
        let delay = Some(self.held_back(now)).filter(|delay| waits && !delay.is_zero());
        let delayed = delay.map(|delay| now + delay);
        self.wake = self.schedule.next(now).into_iter().chain(delayed).min();
    }

    /// Returns how long discovered targets must not be dialled because too many were dialled
    /// before.
    fn held_back(&self, now: Time) -> Duration {
        let burst = DISCOVERED_SPACING * (DISCOVERED_BURST_MAX - 1);
        self.spent_until.since(now).saturating_sub(burst)
    }

    /// Starts the due attempts of one kind. Those beyond the limits stay queued until another
    /// attempt ends.
    fn start_due_of(&mut self, now: Time, kind: Kind) {
        let limit = self.config.connection_limit;
        let full = limit != 0 && self.links.len() >= limit;
        while let Some(address) = self.schedule.due(kind, now) {
            if !full && !self.has_room(now, kind) {
                return;
            }
            let Some(entry) = self.entries.get_mut(&address) else {
                return;
            };
            if full {
                entry.fail(&format!("connection limit reached ({limit})"));
                entry.try_later(now, &mut self.rng);
            } else {
                entry.state = State::Attempting(kind);
                entry.try_at = Some(now);
                *self.attempts.of(kind) += 1;
                if kind == Kind::Discovered {
                    self.spent_until = self.spent_until.max(now) + DISCOVERED_SPACING;
                }
                // Who was met may have been forgotten by the mesh meanwhile.
                let accept_new = kind == Kind::Direct || self.met.has(address);
                self.dials.push_back(Dial {
                    to: address,
                    accept_new,
                });
            }
            self.schedule.put(address, entry, &mut self.rng);
        }
    }

    /// Returns true if an attempt may start.
    fn has_room(&self, now: Time, kind: Kind) -> bool {
        let Attempts { direct, discovered } = self.attempts;
        let limit = self.config.connection_limit;
        // Attempts count as connections, so that they do not exceed the limit. Attempts on
        // discovered targets do not count against direct ones.
        let has_place = |used| limit == 0 || self.links.len() + used < limit;
        match kind {
            Kind::Direct => has_place(direct) && direct < DIRECT_ATTEMPTS_MAX,
            Kind::Discovered => {
                has_place(direct + discovered)
                    && discovered < DISCOVERED_ATTEMPTS_MAX
                    && self.held_back(now).is_zero()
            }
        }
    }
}

/// Number of attempts in progress.
#[derive(Clone, Copy, Debug, Default)]
struct Attempts {
    direct: usize,
    discovered: usize,
}

impl Attempts {
    fn of(&mut self, kind: Kind) -> &mut usize {
        match kind {
            Kind::Direct => &mut self.direct,
            Kind::Discovered => &mut self.discovered,
        }
    }
}
