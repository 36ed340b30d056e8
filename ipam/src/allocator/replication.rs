//! Keeping the table of leases the same on all weft routers.
//!
//! A change goes by unicast to every weft router in reach, several changes together. What gets
//! lost is found by comparing digests: every period each router gossips the digest of its table,
//! and one that sees another digest compares tables with its sender, bucket by bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::{Allocator, Channel, Delivery, Incoming, Output};
use crate::leases::wire::{ENTRIES_PER_MESSAGE, Hello, Message};
use crate::leases::{BUCKETS, LeaseEntry, LeaseKey, LeaseState, key_hash};

/// A change of a lease is sent at once, unless others were just sent: then changes are collected
/// until this long after those, and ...
const PUSH_DELAY: Duration = Duration::from_millis(20);
/// ... this much longer for each peer in reach, as each gets them by a message of its own.
const PUSH_DELAY_PER_PEER: Duration = Duration::from_micros(500);
/// Routers that come into reach within this time are greeted together.
const HELLO_DELAY: Duration = Duration::from_millis(50);
/// Routers that do not answer to a hello are greeted again after this time ...
const HELLO_AGAIN: Duration = Duration::from_secs(10);
/// ... and then at twice the interval each time, up to this one: they may be no weft routers.
const HELLO_AGAIN_MAX: Duration = Duration::from_secs(600);
/// Before this much time has passed since others came into reach, and no table was compared with
/// theirs, a lease that is not in ours may be in theirs.
pub(super) const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// A comparison that is not over after this time has failed.
const COMPARE_MAX: Duration = Duration::from_secs(3);
/// A lease that is gone is remembered for this long, in seconds.
const TOMBSTONE_KEPT: u64 = 7 * 24 * 60 * 60;

/// How far the copies of the table are.
#[derive(Debug)]
pub(super) struct Replication {
    /// What changed here and was not sent yet.
    changed: BTreeSet<Arc<LeaseKey>>,
    push_at: Option<Time>,
    /// When further changes may be sent.
    next_push: Time,
    hello_at: Option<Time>,
    hello_again: Duration,
    /// With whom tables are being compared, and since when.
    comparing: Option<(PeerName, Time)>,
    /// Hashes of the keys whose leases it was asked for and has not sent yet.
    wanted: BTreeSet<u64>,
}

impl Replication {
    pub(super) fn new(now: Time) -> Replication {
        Replication {
            changed: BTreeSet::new(),
            push_at: None,
            next_push: now,
            hello_at: None,
            hello_again: HELLO_AGAIN,
            comparing: None,
            wanted: BTreeSet::new(),
        }
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        self.push_at.into_iter().chain(self.hello_at).min()
    }

    /// Notes a change of ours, to be sent together with others.
    pub(super) fn changed(&mut self, key: &Arc<LeaseKey>, now: Time) {
        self.changed.insert(Arc::clone(key));
        self.push_at.get_or_insert(now.max(self.next_push));
    }

    /// Others came into reach: they are greeted, and may know more than we do.
    pub(super) fn peers_came(&mut self, now: Time) {
        self.hello_at = Some(now + HELLO_DELAY);
        self.hello_again = HELLO_AGAIN;
    }

    fn is_comparing_with(&self, peer: PeerName) -> bool {
        self.comparing.is_some_and(|(with, _)| with == peer)
    }

    fn in_step_with(&mut self, peer: PeerName) {
        if self.is_comparing_with(peer) {
            self.comparing = None;
        }
    }
}

impl Allocator {
    pub(super) fn on_lease_message(&mut self, message: &Incoming<'_>) {
        let decoded = match Message::decode(message.payload) {
            Ok(decoded) => decoded,
            // A later format is no mistake of the peer, but there is nothing to do with it.
            Err(error) => return self.refuse(message.via, error.to_string()),
        };
        let us = self.durable.us();
        match (message.kind, decoded) {
            (_, Message::Hello(hello)) => {
                if hello.origin != us {
                    self.on_hello(&hello);
                }
                self.relay(message);
            }
            (_, Message::Gone(peer)) => {
                self.peer_gone(peer);
                self.relay(message);
            }
            (Delivery::Unicast(from), decoded) if from != us => {
                self.weft_seen(from);
                self.on_lease_unicast(from, decoded);
            }
            _ => {}
        }
    }

    fn on_lease_unicast(&mut self, from: PeerName, message: Message) {
        match message {
            Message::Compare(buckets) => self.on_compare(from, &buckets),
            Message::Summary(buckets) => self.on_summary(from, &buckets),
            Message::Entries { leases, wanted } => self.on_entries(from, leases, &wanted),
            Message::Ask(ask) => self.on_ask(from, ask),
            Message::Answer(answer) => self.on_answer(from, answer),
            Message::RingQuery { nonce, taking } => self.on_ring_query(from, nonce, &taking),
            Message::RingAnswer {
                nonce,
                gone,
                taking,
                state,
            } => {
                self.on_ring_gossip(from, &gone, &taking);
                self.on_ring_answer(from, Time::from_micros(nonce), &state);
            }
            Message::Hello(_) | Message::Gone(_) => {}
        }
    }

    /// Sends a broadcast on as it came.
    fn relay(&mut self, message: &Incoming<'_>) {
        if let Delivery::Broadcast(source) = message.kind {
            self.emit(Output::Relay {
                channel: Channel::Leases,
                source,
                payload: Some(message.payload.to_vec()),
            });
        }
    }

    fn weft_seen(&mut self, peer: PeerName) {
        if self.members.set_weft(peer) {
            self.note_weft(peer);
            self.release_links(|link| link.neighbour == peer);
            self.try_again();
        }
    }

    fn on_hello(&mut self, hello: &Hello) {
        let peer = hello.origin;
        self.weft_seen(peer);
        if hello.reply {
            let payload = self.hello(false);
            self.unicast(Channel::Leases, peer, payload);
        }
        if !hello.yields && self.durable.ring().is_empty() {
            // With a ring, the rings themselves decide.
            self.adopt_universe(peer, hello.universe);
        }
        if hello.digest == self.durable.leases().digest() {
            self.questions.unknown_until = None;
            self.leases.in_step_with(peer);
            self.try_again();
        } else {
            self.compare_with(peer);
        }
    }

    fn compare_with(&mut self, peer: PeerName) {
        let now = self.clock.now;
        let busy = self.leases.comparing;
        if busy.is_some_and(|(_, since)| since + COMPARE_MAX > now)
            || !self.members.is_reachable(peer)
        {
            return;
        }
        self.leases.comparing = Some((peer, now));
        self.leases.wanted.clear();
        let buckets = Box::new(*self.durable.leases().buckets());
        let message = Message::Compare(buckets);
        self.unicast(Channel::Leases, peer, message.encode());
    }

    fn on_compare(&mut self, from: PeerName, theirs: &[u64; BUCKETS]) {
        let leases = self.durable.leases();
        let summary: BTreeMap<u8, BTreeMap<u64, u64>> = leases
            .buckets()
            .iter()
            .zip(theirs)
            .enumerate()
            .filter(|(_, (mine, theirs))| mine != theirs)
            .map(|(bucket, _)| (bucket as u8, leases.summary(bucket).collect()))
            .collect();
        let message = Message::Summary(summary);
        self.unicast(Channel::Leases, from, message.encode());
    }

    fn on_summary(&mut self, from: PeerName, buckets: &BTreeMap<u8, BTreeMap<u64, u64>>) {
        let table = self.durable.leases();
        let mut send = Vec::new();
        let mut wanted = Vec::new();
        for (bucket, theirs) in buckets {
            let bucket = usize::from(*bucket);
            let mine: BTreeMap<u64, u64> = table.summary(bucket).collect();
            send.extend(table.differing(bucket, theirs));
            let unlike = theirs
                .iter()
                .filter(|(key, lease)| mine.get(key) != Some(lease));
            wanted.extend(unlike.map(|(key, _)| *key));
        }
        if !self.leases.is_comparing_with(from) {
            return;
        }
        if wanted.is_empty() {
            self.questions.unknown_until = None;
            self.leases.in_step_with(from);
            self.try_again();
        }
        self.leases.wanted = wanted.iter().copied().collect();
        self.send_entries(from, send, wanted);
    }

    fn on_entries(&mut self, from: PeerName, leases: Vec<LeaseEntry>, wanted: &[u64]) {
        let universe = self.durable.ring().universe();
        let awaited = !self.leases.wanted.is_empty() && self.leases.is_comparing_with(from);
        for (key, lease) in leases {
            if awaited {
                self.leases.wanted.remove(&key_hash(&key));
            }
            // Leases of another universe are of another mesh.
            if universe.overlaps(&key.subnet.range()) {
                self.accept_lease(key, lease);
            }
        }
        if awaited && self.leases.wanted.is_empty() {
            self.questions.unknown_until = None;
            self.leases.in_step_with(from);
        }
        let table = self.durable.leases();
        let send: Vec<LeaseEntry> = wanted
            .iter()
            .filter_map(|key| table.by_hash(*key))
            .collect();
        self.send_entries(from, send, Vec::new());
        self.try_again();
    }

    fn send_entries(&mut self, to: PeerName, leases: Vec<LeaseEntry>, mut wanted: Vec<u64>) {
        let mut leases = leases.into_iter().peekable();
        while leases.peek().is_some() || !wanted.is_empty() {
            let part: Vec<LeaseEntry> = leases.by_ref().take(ENTRIES_PER_MESSAGE).collect();
            let message = Message::Entries {
                leases: part,
                wanted: std::mem::take(&mut wanted),
            };
            self.unicast(Channel::Leases, to, message.encode());
        }
    }

    /// Does what is due: greets, and sends changes.
    pub(super) fn replicate_leases(&mut self) {
        let now = self.clock.now;
        if self.leases.push_at.is_some_and(|at| at <= now) {
            self.push_leases();
        }
        if self.leases.hello_at.is_some_and(|at| at <= now) {
            let payload = self.hello(true);
            self.emit(Output::Broadcast {
                channel: Channel::Leases,
                payload,
            });
            let strangers = self.members.strangers().next().is_some();
            let again = self.leases.hello_again;
            self.leases.hello_at = strangers.then_some(now + again);
            self.leases.hello_again = (again * 2).min(HELLO_AGAIN_MAX);
        }
    }

    /// Sends the leases that changed here to all weft routers in reach.
    pub(super) fn push_leases(&mut self) {
        self.leases.push_at = None;
        let changed = std::mem::take(&mut self.leases.changed);
        let entries: Vec<LeaseEntry> = changed
            .into_iter()
            .filter_map(|key| {
                let lease = self.durable.leases().get(&key)?.clone();
                Some((key, lease))
            })
            .collect();
        let peers: Vec<PeerName> = self.members.weft_in_reach().collect();
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX);
        let delay = PUSH_DELAY + PUSH_DELAY_PER_PEER.saturating_mul(count);
        self.leases.next_push = self.clock.now + delay;
        for part in entries.chunks(ENTRIES_PER_MESSAGE) {
            let message = Message::Entries {
                leases: part.to_vec(),
                wanted: Vec::new(),
            };
            let payload = message.encode();
            for peer in &peers {
                self.unicast(Channel::Leases, *peer, payload.clone());
            }
        }
    }

    /// Ends leases that nobody used for too long, and forgets those that ended long ago.
    pub(super) fn expire_leases(&mut self) {
        let wall = self.clock.wall;
        let us = self.durable.us();
        let mut expired = Vec::new();
        let mut forgotten = Vec::new();
        for (key, lease) in self.durable.leases().iter() {
            let age = wall.saturating_sub(lease.since);
            match lease.state {
                LeaseState::Gone if age > TOMBSTONE_KEPT => forgotten.push(Arc::clone(key)),
                LeaseState::Unused
                    if lease.holder == us && !lease.pinned && age > self.config.lease_retention =>
                {
                    expired.push((Arc::clone(key), lease.clone()));
                }
                _ => {}
            }
        }
        for (key, lease) in expired {
            self.end_lease(&key, &lease, "nobody has used it for too long");
        }
        for key in forgotten {
            self.durable.set_lease(&key, None);
        }
    }
}
