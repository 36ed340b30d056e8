//! Replication of the table of leases among weft routers.
//!
//! Changes are sent by unicast to every weft router in reach, several together. Losses are found by
//! comparing digests: each router periodically gossips the digest of its table, and one that sees
//! another digest compares tables with its sender, bucket by bucket.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::api::{Channel, Output};
use super::cx::Cx;
use crate::leases::wire::{ENTRIES_PER_MESSAGE, Hello, Message};
use crate::leases::{BUCKETS, LeaseEntry, LeaseKey, key_hash};

/// A change of a lease is sent at once, unless others were just sent: then changes are collected
/// for this long ...
///
/// Rule: `docs/protocol/ipam.md#9-4-replication`.
const PUSH_DELAY: Duration = Duration::from_millis(20);
/// ... and this much longer for each peer in reach, because each gets its own message.
const PUSH_DELAY_PER_PEER: Duration = Duration::from_micros(500);
/// Delay of a hello, so that routers that come into reach together are greeted together.
const HELLO_DELAY: Duration = Duration::from_millis(50);
/// Routers that do not answer a hello are greeted again after this time ...
///
/// Rule: `docs/protocol/ipam.md#9-5-negotiation`.
const HELLO_AGAIN: Duration = Duration::from_secs(10);
/// ... and then after twice the time each, up to this one: they may not be weft routers.
const HELLO_AGAIN_MAX: Duration = Duration::from_secs(600);
/// Time after others came into reach during which their tables may contain leases that are unknown
/// here.
const UNKNOWN_FOR: Duration = Duration::from_secs(1);
/// Time after which an unfinished comparison has failed.
const COMPARE_MAX: Duration = Duration::from_secs(3);

/// State of the replication.
#[derive(Debug)]
pub(super) struct Replication {
    /// Local changes that were not sent yet.
    changed: BTreeSet<Arc<LeaseKey>>,
    push_at: Option<Time>,
    /// When further changes may be sent.
    next_push: Time,
    hello_at: Option<Time>,
    hello_again: Duration,
    /// The peer with which tables are being compared, and since when.
    comparing: Option<(PeerName, Time)>,
    /// Hashes of the keys whose leases that peer was asked for and has not sent yet.
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

    /// Before others were heard, they may know more than we do.
    pub(super) fn start(&self, cx: &mut Cx) {
        cx.questions.unknown_until = Some(cx.clock.now + UNKNOWN_FOR);
    }

    pub(super) fn next_wake(&self) -> Option<Time> {
        self.push_at.into_iter().chain(self.hello_at).min()
    }

    /// Records a local change, to be sent together with others.
    pub(super) fn changed(&mut self, key: &Arc<LeaseKey>, now: Time) {
        self.changed.insert(Arc::clone(key));
        self.push_at.get_or_insert(now.max(self.next_push));
    }

    /// Handles that others came into reach: greets them, as they may know more than we do.
    pub(super) fn peers_came(&mut self, cx: &mut Cx) {
        let now = cx.clock.now;
        cx.questions.unknown_until = Some(now + UNKNOWN_FOR);
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

    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    pub(super) fn on_hello(&mut self, cx: &mut Cx, hello: &Hello) {
        let peer = hello.origin;
        if hello.reply {
            let payload = cx.hello(false);
            cx.unicast(Channel::Leases, peer, payload);
        }
        if !hello.yields && cx.durable.ring().is_empty() {
            // If there is a ring, the rings decide.
            cx.adopt_universe(peer, hello.universe);
        }
        if hello.digest == cx.durable.leases().digest() {
            cx.questions.unknown_until = None;
            self.in_step_with(peer);
            cx.try_again();
        } else {
            self.compare_with(cx, peer);
        }
    }

    fn compare_with(&mut self, cx: &mut Cx, peer: PeerName) {
        let now = cx.clock.now;
        let busy = self.comparing;
        if busy.is_some_and(|(_, since)| since + COMPARE_MAX > now)
            || !cx.members.is_reachable(peer)
        {
            return;
        }
        self.comparing = Some((peer, now));
        self.wanted.clear();
        let buckets = Box::new(*cx.durable.leases().buckets());
        let message = Message::Compare(buckets);
        cx.unicast(Channel::Leases, peer, message.encode());
    }

    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    pub(super) fn on_compare(&mut self, cx: &mut Cx, from: PeerName, theirs: &[u64; BUCKETS]) {
        let now = cx.clock.now;
        if !cx.rations.allows(from, now) {
            return;
        }
        let leases = cx.durable.leases();
        let summary: BTreeMap<u8, BTreeMap<u64, u64>> = leases
            .buckets()
            .iter()
            .zip(theirs)
            .enumerate()
            .filter(|(_, (mine, theirs))| mine != theirs)
            .map(|(bucket, _)| (bucket as u8, leases.summary(bucket).collect()))
            .collect();
        let payload = Message::Summary(summary).encode();
        cx.rations.spend(from, payload.len(), now);
        cx.unicast(Channel::Leases, from, payload);
    }

    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    pub(super) fn on_summary(
        &mut self,
        cx: &mut Cx,
        from: PeerName,
        buckets: &BTreeMap<u8, BTreeMap<u64, u64>>,
    ) {
        if !self.is_comparing_with(from) {
            return;
        }
        let table = cx.durable.leases();
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
        if wanted.is_empty() {
            cx.questions.unknown_until = None;
            self.in_step_with(from);
            cx.try_again();
        }
        self.wanted = wanted.iter().copied().collect();
        self.send_entries(cx, from, send, wanted);
    }

    /// Rule: `docs/protocol/ipam.md#9-4-replication`.
    pub(super) fn on_entries(
        &mut self,
        cx: &mut Cx,
        from: PeerName,
        leases: Vec<LeaseEntry>,
        wanted: &[u64],
    ) {
        let universe = cx.durable.ring().universe();
        let awaited = !self.wanted.is_empty() && self.is_comparing_with(from);
        for (key, lease) in leases {
            if awaited {
                self.wanted.remove(&key_hash(&key));
            }
            // Leases of another universe belong to another mesh.
            if universe.overlaps(&key.subnet.range()) {
                cx.accept_lease(key, lease);
            }
        }
        if awaited && self.wanted.is_empty() {
            cx.questions.unknown_until = None;
            self.in_step_with(from);
            cx.try_again();
        }
        if !cx.rations.allows(from, cx.clock.now) {
            // It compares again in a while.
            return;
        }
        let table = cx.durable.leases();
        let send: Vec<LeaseEntry> = wanted
            .iter()
            .filter_map(|key| table.by_hash(*key))
            .collect();
        self.send_entries(cx, from, send, Vec::new());
    }

    fn send_entries(
        &mut self,
        cx: &mut Cx,
        to: PeerName,
        leases: Vec<LeaseEntry>,
        mut wanted: Vec<u64>,
    ) {
        let mut leases = leases.into_iter().peekable();
        while leases.peek().is_some() || !wanted.is_empty() {
            let part: Vec<LeaseEntry> = leases.by_ref().take(ENTRIES_PER_MESSAGE).collect();
            let message = Message::Entries {
                leases: part,
                wanted: std::mem::take(&mut wanted),
            };
            let payload = message.encode();
            cx.rations.spend(to, payload.len(), cx.clock.now);
            cx.unicast(Channel::Leases, to, payload);
        }
    }

    /// Does what is due: sends hellos and changes.
    pub(super) fn timeout(&mut self, cx: &mut Cx) {
        let now = cx.clock.now;
        if self.push_at.is_some_and(|at| at <= now) {
            self.push(cx);
        }
        if self.hello_at.is_some_and(|at| at <= now) {
            let payload = cx.hello(true);
            cx.emit(Output::Broadcast {
                channel: Channel::Leases,
                payload,
            });
            let strangers = cx.members.strangers().next().is_some();
            let again = self.hello_again;
            self.hello_at = strangers.then_some(now + again);
            self.hello_again = (again * 2).min(HELLO_AGAIN_MAX);
        }
    }

    /// Sends locally changed leases to all weft routers in reach.
    pub(super) fn push(&mut self, cx: &mut Cx) {
        self.push_at = None;
        let changed = std::mem::take(&mut self.changed);
        let entries: Vec<LeaseEntry> = changed
            .into_iter()
            .filter_map(|key| {
                let lease = cx.durable.leases().get(&key)?.clone();
                Some((key, lease))
            })
            .collect();
        let peers: Vec<PeerName> = cx.members.weft_in_reach().collect();
        let count = u32::try_from(peers.len()).unwrap_or(u32::MAX);
        let delay = PUSH_DELAY + PUSH_DELAY_PER_PEER.saturating_mul(count);
        self.next_push = cx.clock.now + delay;
        for part in entries.chunks(ENTRIES_PER_MESSAGE) {
            let message = Message::Entries {
                leases: part.to_vec(),
                wanted: Vec::new(),
            };
            let payload = message.encode();
            for peer in &peers {
                cx.unicast(Channel::Leases, *peer, payload.clone());
            }
        }
    }
}
