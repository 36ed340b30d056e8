//! The connection maker: which address is dialled, and when.
//!
//! *Direct* targets are what the user named. *Discovered* ones are the far ends of other peers'
//! connections, and where peers were met before. Both are dialled at once and then, as long as they fail, at growing intervals:
//!
//! ```text
//! (named or discovered) -> Waiting --time--> Attempting --added--> Connected
//!                            ^  ^               |                      |
//!                            |  +----failed-----+--------ended---------+
//!                            +--> Suspended   while there is no reason to dial it
//! ```
//!
//! Every [`Dial`] is answered in the end: by [`Connector::handle_added`] and later
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

/// Most direct targets; naming more is refused.
pub const DIRECT_MAX: usize = 1024;
/// Most attempts on direct targets that go on at the same time; further ones wait for their turn.
pub const DIRECT_ATTEMPTS_MAX: usize = 64;
/// Most attempts on discovered targets that go on at the same time; further ones wait for their
/// turn, and never keep direct ones waiting.
pub const DISCOVERED_ATTEMPTS_MAX: usize = 16;

/// The time between attempts on discovered targets, on average: gossip cannot make us dial more
/// than 100 addresses in a second.
pub const DISCOVERED_SPACING: Duration = Duration::from_millis(10);
/// Most attempts on discovered targets that may follow each other without that time between them.
pub const DISCOVERED_BURST_MAX: u32 = 64;

/// At the latest after this time it is found out anew what is wanted.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(3600);

/// What a connector is told once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConnectorConfig {
    /// The port that we listen on, and assume others to listen on.
    pub port: u16,
    /// Whether to dial addresses that other peers tell of.
    pub discovery: bool,
    /// Most connections; 0 for no limit.
    pub connection_limit: usize,
}

/// An attempt to make a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dial {
    /// The address.
    pub to: SocketAddr,
    /// Whether a peer may answer that the mesh does not know yet.
    pub accept_new: bool,
}

/// How an attempt or a connection ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended<'a> {
    /// The address that was dialled; `None` for a connection that was accepted.
    pub dialled: Option<SocketAddr>,
    /// The peer that answered, if it came so far.
    pub peer: Option<PeerName>,
    /// The reason.
    pub error: &'a str,
    /// Trying again leads to the same: the other end is ourselves or carries our name.
    pub never_again: bool,
}

/// More direct targets were named than are kept.
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
    /// What is going on.
    pub state: TargetState,
    /// Why the last attempt or connection ended.
    pub error: Option<&'a str>,
    /// When it is tried next, or was tried last; `None` for never again.
    pub next_try: Option<Time>,
}

/// What is going on with an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TargetState {
    /// It was not tried yet.
    Waiting,
    /// It is tried for the first time.
    Connecting,
    /// It is tried after a failure.
    Retrying,
    /// It failed and waits for the next try.
    Failed,
    /// There is no need to dial it: its peer is connected to us in another way.
    Suspended,
    /// We are connected.
    Connected,
}

/// The connection maker.
#[derive(Clone, Debug)]
pub struct Connector {
    config: ConnectorConfig,
    rng: fastrand::Rng,
    /// What the user named, by its text.
    direct: BTreeMap<String, Target>,
    discovered: Candidates,
    met: Met,
    entries: BTreeMap<SocketAddr, Entry>,
    schedule: Schedule,
    links: BTreeMap<ConnId, Link>,
    attempts: Attempts,
    dials: VecDeque<Dial>,
    /// Up to when the attempts made on discovered targets use up the time, one after the other.
    spent_until: Time,
    reconciled: Time,
    wake: Option<Time>,
}

impl Connector {
    /// A connector without targets.
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

    /// Names direct targets; with `replace`, in place of all named before. Those that wait are
    /// tried at once. If they are too many, nothing changes.
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

    /// Forgets direct targets by their texts. Connections to them stay.
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

    /// Where peers were met: what to recall after a restart.
    pub fn met(&self) -> impl Iterator<Item = (PeerName, SocketAddr)> {
        self.met.iter()
    }

    /// Returns true if [`Connector::met`] changed since this was last asked.
    pub fn take_met_changed(&mut self) -> bool {
        self.met.take_changed()
    }

    /// The direct targets in order of their texts: what to name again after a restart.
    pub fn direct(&self) -> impl ExactSizeIterator<Item = &Target> {
        self.direct.values()
    }

    /// Looks for addresses in the topology. To be called after every change of it, so also after
    /// a connection was deleted.
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

    /// A connection was added to our peer, dialled or accepted.
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

    /// An attempt failed, or a connection ended, whether it was added or not.
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

    /// The time has come that [`Connector::poll_timeout`] named.
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

    /// The next attempt to make. Every other call may add some.
    pub fn poll_output(&mut self) -> Option<Dial> {
        self.dials.pop_front()
    }

    /// When [`Connector::handle_timeout`] is to be called. Every `handle_` call, `connect` and
    /// `forget` may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        self.wake
    }

    /// All addresses in order.
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

    /// Changes the entry of an address where an attempt or a connection goes on.
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

    /// Brings one entry in line with whether it is wanted.
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

    /// Finds out what is wanted after something named, discovered or connected has changed, and
    /// starts what is due.
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

    /// Marks the entries that there is a reason to dial, and makes those that are missing.
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
            // Dialling a peer that is connected in another way would only replace one of the
            // two connections by the other, again and again.
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

    /// Starts attempts on what is due, as far as the limits allow.
    fn start_due(&mut self, now: Time) {
        self.start_due_of(now, Kind::Direct);
        self.start_due_of(now, Kind::Discovered);
        let waits = self.schedule.due(Kind::Discovered, now).is_some();
        let delay = Some(self.held_back(now)).filter(|delay| waits && !delay.is_zero());
        let delayed = delay.map(|delay| now + delay);
        self.wake = self.schedule.next(now).into_iter().chain(delayed).min();
    }

    /// How long no discovered target may be dialled, since there were so many.
    fn held_back(&self, now: Time) -> Duration {
        let burst = DISCOVERED_SPACING * (DISCOVERED_BURST_MAX - 1);
        self.spent_until.since(now).saturating_sub(burst)
    }

    /// What is due and has no room stays where it is, until another attempt ends.
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

    /// Whether an attempt may start.
    fn has_room(&self, now: Time, kind: Kind) -> bool {
        let Attempts { direct, discovered } = self.attempts;
        let limit = self.config.connection_limit;
        // Attempts count as connections, so that they do not overshoot the limit; those on
        // discovered targets do not stand in the way of direct ones.
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

/// How many attempts go on.
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
