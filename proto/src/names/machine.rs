//! The state machine that owns the table.

use std::collections::{BTreeSet, VecDeque};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::clocks::Clocks;
use super::domain::Domain;
use super::entry::{self, BadEntry, Entry, Key, State, UnixSecs};
use super::gossip;
use super::held::Held;
use super::local::{AddError, Filter, NamesConfig};
use super::output::{Counters, EXPIRY_INTERVAL, Event, Output};
use super::table::{self, Merged, Table};
use crate::gob;
use crate::types::{PeerName, Time};

#[cfg(test)]
mod tests;

/// The names of the mesh, as known by one peer.
#[derive(Debug)]
pub struct Names {
    us: PeerName,
    domain: Domain,
    table: Table,
    held: Held,
    known: BTreeSet<PeerName>,
    clocks: Clocks,
    counters: Counters,
    /// Peers that were reported by an event; see [`Event`].
    told: BTreeSet<PeerName>,
    outputs: VecDeque<Output>,
    /// Our entries to be broadcast, and our wall clock at the last of them.
    unsaid: (UnixSecs, Vec<Entry>),
    next_expiry: Time,
    /// Where the next complete state starts, if the previous one was too long.
    state_from: Option<Arc<Key>>,
}

impl Names {
    /// Creates an empty table.
    pub fn new(config: NamesConfig, now: Time) -> Names {
        Names {
            us: config.us,
            domain: config.domain,
            table: Table::new(config.us),
            held: Held::default(),
            known: BTreeSet::from([config.us]),
            clocks: Clocks::default(),
            counters: Counters::default(),
            told: BTreeSet::new(),
            outputs: VecDeque::new(),
            unsaid: (UnixSecs::default(), Vec::new()),
            next_expiry: now + EXPIRY_INTERVAL,
            state_from: None,
        }
    }

    /// Registers a name of a local container and broadcasts it. A name that is already registered,
    /// in any spelling, is broadcast again. Returns the identity of the entry.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
    pub fn add(
        &mut self,
        now: Time,
        wall: UnixSecs,
        container: &str,
        hostname: &str,
        addr: Ipv4Addr,
    ) -> Result<Arc<Key>, AddError> {
        let mut hostname = hostname.to_owned();
        if !hostname.ends_with('.') {
            hostname.push('.');
        }
        let key = Key::new(&hostname, self.us, container, addr)?;
        if !self.domain.contains(&hostname) {
            return Err(AddError::OutsideDomain);
        }
        let rank = |state: State| (state.is_alive(), state);
        let variants = self.table.variants(&key);
        let known = variants.max_by_key(|(_, state)| rank(*state));
        let entry = match known {
            Some((key, state)) => Entry {
                key: key.clone(),
                state: if state.is_alive() {
                    state
                } else {
                    state.revived()
                },
            },
            None => Entry {
                key: Arc::new(key),
                state: State::default(),
            },
        };
        if self.table.merge(now, wall, &entry) == Merged::Full {
            return Err(AddError::Full);
        }
        let key = entry.key.clone();
        self.broadcast(wall, vec![entry]);
        Ok(key)
    }

    /// Deletes our living entries that match, and broadcasts that. Returns their identities.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
    pub fn delete(&mut self, now: Time, wall: UnixSecs, filter: &Filter<'_>) -> Vec<Arc<Key>> {
        let ours = self.table.of(self.us);
        let doomed: Vec<Entry> = ours
            .filter(|(key, state)| state.is_alive() && filter.matches(key))
            .map(|(key, state)| Entry {
                key: key.clone(),
                state: state.killed(wall),
            })
            .collect();
        for entry in &doomed {
            self.table.set(now, entry);
        }
        let keys = doomed.iter().map(|entry| entry.key.clone()).collect();
        self.broadcast(wall, doomed);
        keys
    }

    /// Deletes the names of a container that ended.
    pub fn delete_container(
        &mut self,
        now: Time,
        wall: UnixSecs,
        container: &str,
    ) -> Vec<Arc<Key>> {
        let filter = Filter {
            container: Some(container),
            ..Filter::default()
        };
        self.delete(now, wall, &filter)
    }

    /// Makes the identity of a lease resolvable: see [`Domain::lease_hostname`].
    pub fn add_lease(
        &mut self,
        now: Time,
        wall: UnixSecs,
        identity: &str,
        addr: Ipv4Addr,
    ) -> Result<(), AddError> {
        let hostname = self.domain.lease_hostname(identity);
        let hostname = hostname.ok_or(BadEntry::Hostname)?;
        self.add(now, wall, &lease_container(identity), &hostname, addr)?;
        Ok(())
    }

    /// Undoes [`add_lease`](Names::add_lease), for all addresses of the identity.
    pub fn delete_lease(&mut self, now: Time, wall: UnixSecs, identity: &str) -> usize {
        let container = lease_container(identity);
        self.delete_container(now, wall, &container).len()
    }

    /// Handles gossip of a neighbour (tag 4). An error means that the payload is not a
    /// `GossipData`; the connection can be kept.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    pub fn handle_gossip(
        &mut self,
        now: Time,
        wall: UnixSecs,
        sender: PeerName,
        payload: &[u8],
    ) -> Result<(), gob::Error> {
        let message = gossip::decode(payload)?;
        if self.known.contains(&sender) {
            let events = self.clocks.heard(sender, message.timestamp, wall);
            self.outputs.extend(events);
        }
        let received = self.receive(now, wall, sender, message);
        self.gossip(wall, Some(sender), received.news);
        Ok(())
    }

    /// Handles a broadcast (tag 6) of `source`. Errors are those of gossip.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    pub fn handle_broadcast(
        &mut self,
        now: Time,
        wall: UnixSecs,
        source: PeerName,
        payload: &[u8],
    ) -> Result<(), gob::Error> {
        let message = gossip::decode(payload)?;
        let received = self.receive(now, wall, source, message);
        for payload in gossip::encode(wall, received.of_known) {
            self.outputs.push_back(Output::Relay { source, payload });
        }
        Ok(())
    }

    /// Handles the complete list of peers in the topology: merges waiting entries of new peers, and
    /// drops entries of those that left.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    pub fn handle_peers(&mut self, now: Time, wall: UnixSecs, peers: &[PeerName]) {
        let mut known: BTreeSet<PeerName> = peers.iter().copied().collect();
        known.insert(self.us);
        let gone: Vec<PeerName> = self.known.difference(&known).copied().collect();
        self.peers_gone(&gone);
        let before = std::mem::replace(&mut self.known, known.clone());
        let mut news = Vec::new();
        for &peer in known.difference(&before) {
            for entry in self.held.release(peer) {
                if self.merge(now, wall, &entry) == Merged::News {
                    news.push(entry);
                }
            }
        }
        self.gossip(wall, None, news);
    }

    /// Drops the entries of peers that the topology has removed.
    ///
    /// Rule: `docs/protocol/names.md#2-local`.
    pub fn peers_gone(&mut self, gone: &[PeerName]) {
        for &peer in gone.iter().filter(|peer| **peer != self.us) {
            self.known.remove(&peer);
            self.table.remove_origin(peer);
            self.clocks.forget(peer);
            self.told.remove(&peer);
        }
    }

    /// Returns the complete state, for periodic gossip and new connections. A state too long for
    /// one payload is returned in parts, one per call.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    pub fn state(&mut self, wall: UnixSecs) -> Vec<u8> {
        let mut entries: Vec<Entry> = self
            .table
            .iter()
            .filter(|(_, state)| !table::is_stale(*state, wall))
            .map(|(key, state)| Entry {
                key: key.clone(),
                state,
            })
            .collect();
        entry::one_spelling(&mut entries);
        let start = self.state_from.take();
        let start = start.map_or(0, |start| entries.partition_point(|e| e.key < start));
        entries.rotate_left(start);
        let end = gossip::fitting(entries.iter());
        self.state_from = entries.get(end).map(|entry| entry.key.clone());
        entries.truncate(end);
        gossip::encode_one(wall, entries)
    }

    /// Does what is due at `now`. Spurious calls change nothing.
    pub fn handle_timeout(&mut self, now: Time) {
        self.held.expire(now);
        if now < self.next_expiry {
            return;
        }
        self.next_expiry = now + EXPIRY_INTERVAL;
        self.table.expire(now);
        self.told.clear();
    }

    /// Returns the time at which [`handle_timeout`](Names::handle_timeout) is due. Any other call
    /// may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let held = self.held.next_expiry();
        Some(held.map_or(self.next_expiry, |held| held.min(self.next_expiry)))
    }

    /// Returns what to do next. Calls with `&mut self` other than the polls add outputs; their
    /// broadcasts are combined.
    pub fn poll_output(&mut self) -> Option<Output> {
        let (wall, unsaid) = (self.unsaid.0, std::mem::take(&mut self.unsaid.1));
        for payload in gossip::encode(wall, unsaid) {
            self.outputs.push_back(Output::Broadcast { payload });
        }
        if let Some(output) = self.outputs.pop_front() {
            return Some(output);
        }
        let behind = self.table.index_is_behind();
        behind.then(|| Output::Index(Arc::new(self.table.index().clone())))
    }

    /// Returns all entries, alive and deleted, sorted by name (ignoring case), origin, container
    /// and address.
    pub fn entries(&self) -> impl Iterator<Item = (&Key, State)> {
        self.table.iter().map(|(key, state)| (&**key, state))
    }

    /// Returns the table, for counts.
    pub fn table(&self) -> &Table {
        &self.table
    }

    /// Returns the identities of our own entries that are alive.
    pub fn own_alive(&self) -> impl Iterator<Item = &Arc<Key>> {
        let ours = self.table.of(self.us);
        ours.filter(|(_, state)| state.is_alive())
            .map(|(key, _)| key)
    }

    /// Returns how many entries wait for their peer to become known.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the domain in which names may be registered.
    pub fn domain(&self) -> &Domain {
        &self.domain
    }

    /// Returns what happened to received entries.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Neighbours whose clocks are off, and by how many seconds they are ahead of ours.
    pub fn clocks_off(&self) -> impl Iterator<Item = (PeerName, i64)> {
        self.clocks.off()
    }

    /// Rule: `docs/protocol/names.md#3-receiving`.
    fn receive(
        &mut self,
        now: Time,
        wall: UnixSecs,
        from: PeerName,
        message: gossip::GossipData,
    ) -> Received {
        self.note_bad(from, &message);
        self.counters.received += message.entries.len() as u64;
        let mut received = Received::default();
        let mut overrides = Vec::new();
        for mut entry in message.entries {
            if !self.known.contains(&entry.key.origin) {
                self.counters.not_held += u64::from(!self.held.keep(now, entry));
                continue;
            }
            if entry.key.origin == self.us
                && self.may_be_ours(&entry)
                && let Some(truth) = self.truth_about(wall, &entry)
            {
                entry.state = truth;
                overrides.push(entry.clone());
            }
            match self.merge(now, wall, &entry) {
                Merged::Incredible => continue,
                Merged::News => received.news.push(entry.clone()),
                Merged::Known | Merged::Stale | Merged::Full => {}
            }
            received.of_known.push(entry);
        }
        self.counters.overridden += overrides.len() as u64;
        self.broadcast(wall, overrides);
        received
    }

    fn note_bad(&mut self, from: PeerName, message: &gossip::GossipData) {
        self.counters.bad += message.bad as u64;
        if let Some(reason) = message.first_bad
            && self.known.contains(&from)
            && self.told.insert(from)
        {
            self.outputs.push_back(Output::Event(Event::BadEntries {
                from,
                count: message.bad,
                reason,
            }));
        }
    }

    /// Returns true if others may believe what somebody says about an entry of ours.
    fn may_be_ours(&self, said: &Entry) -> bool {
        let ours = self.table.get(&said.key).unwrap_or_default();
        ours.may_become(said.state)
    }

    /// Returns the state that must override what another peer says about an entry of ours, if any.
    ///
    /// Rule: `docs/protocol/names.md#3-receiving`.
    fn truth_about(&self, wall: UnixSecs, said: &Entry) -> Option<State> {
        match self.table.get(&said.key) {
            Some(ours) => {
                let differs = said.state.version == ours.version && said.state != ours;
                let overrides = said.state.version > ours.version || differs;
                overrides.then(|| ours.outdoing(said.state))
            }
            None => (said.state.is_alive()).then(|| {
                let dead = State::default().killed(wall);
                dead.outdoing(said.state)
            }),
        }
    }

    fn merge(&mut self, now: Time, wall: UnixSecs, entry: &Entry) -> Merged {
        let merged = self.table.merge(now, wall, entry);
        match merged {
            Merged::News => self.counters.news += 1,
            Merged::Known => {}
            Merged::Stale => self.counters.stale += 1,
            Merged::Incredible => {
                self.counters.bad += 1;
                let from = entry.key.origin;
                if self.told.insert(from) {
                    self.outputs.push_back(Output::Event(Event::BadEntries {
                        from,
                        count: 1,
                        reason: BadEntry::Version,
                    }));
                }
            }
            Merged::Full => {
                self.counters.full += 1;
                let origin = entry.key.origin;
                if self.told.insert(origin) {
                    let event = Event::Full { origin };
                    self.outputs.push_back(Output::Event(event));
                }
            }
        }
        merged
    }

    /// Queues entries of ours for the next broadcast.
    fn broadcast(&mut self, wall: UnixSecs, entries: Vec<Entry>) {
        self.unsaid.0 = wall;
        self.unsaid.1.extend(entries);
    }

    fn gossip(&mut self, wall: UnixSecs, except: Option<PeerName>, entries: Vec<Entry>) {
        let payloads = gossip::encode(wall, entries);
        let outputs = payloads.into_iter();
        self.outputs
            .extend(outputs.map(|payload| Output::Gossip { except, payload }));
    }
}

/// The entries of a message, without those of unknown peers, and with ours corrected.
#[derive(Default)]
struct Received {
    of_known: Vec<Entry>,
    news: Vec<Entry>,
}

fn lease_container(identity: &str) -> String {
    format!("lease:{identity}")
}
