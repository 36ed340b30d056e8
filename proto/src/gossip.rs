//! Gossip on its way out: what waits for a connection, merged so that it cannot pile up.
//!
//! A channel is named by a text. Ours are [`TOPOLOGY`] and those that the driver registers; any
//! other is relayed by a surrogate, which understands nothing of it.
//!
//! ```text
//! news --> Relays: until routes are up to date --> Outbox of each chosen connection
//!                                                    unicasts, gossip, broadcasts, in this order
//!                                                  --> while the connection takes bytes: messages
//! ```
//!
//! News that wait are merged: names of peers by union; "the current state" once, whatever came
//! before; other payloads line up to a limit, at which the channel's current state takes their
//! place, or, where nobody knows it, the oldest are dropped. So a reader that does not read costs
//! a bounded amount of memory, and gets the newest when it reads on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::types::PeerName;

/// The channel of peers and their connections.
pub const TOPOLOGY: &str = "topology";
/// Most channels that nobody here knows. Gossip on further ones is dropped and counted.
pub const SURROGATES_MAX: usize = 64;
/// Bytes that a connection may have in the driver's hands before gossip for it waits.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Most payloads that wait for a connection per channel and source; more become the channel's
/// current state, or the oldest is dropped and counted.
pub const PENDING_PAYLOADS_MAX: usize = 16;
/// Most bytes of payloads that wait for one connection, or for routes; the same happens beyond.
pub const PENDING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Most unicasts that wait for one connection; further ones are dropped and counted.
pub const PENDING_UNICASTS_MAX: usize = 64;
/// Most sources whose broadcasts of topology wait; those of further ones go on as gossip.
const PEERS_BROADCASTS_MAX: usize = 64;
/// What a payload counts for beside its own bytes.
const PAYLOAD_OVERHEAD_BYTES: usize = 64;
/// Most payloads that a surrogate remembers per generation; when more come it forgets earlier.
const SEEN_MAX: usize = 4096;

/// Which channel, by its place in the table of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelId(pub(crate) usize);

/// Something to tell on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The entries of these peers, as they are when sent. Only on the channel of topology.
    Peers(BTreeSet<PeerName>),
    /// The channel's complete state, as it is when sent.
    State,
    /// These bytes.
    Payload(Arc<[u8]>),
}

/// To whom news go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// To neighbours drawn by chance, but not to the one that it came from.
    Neighbours { except: Option<PeerName> },
    /// Along the broadcast route of its source.
    Broadcast { source: PeerName },
}

/// News of one kind that wait, merged.
#[derive(Debug, Default)]
struct Pending {
    peers: BTreeSet<PeerName>,
    state: bool,
    payloads: VecDeque<Arc<[u8]>>,
}

impl Pending {
    /// Takes in news. `has_state` tells that the channel's state can take the place of payloads.
    /// Returns how many payloads were dropped.
    fn merge(&mut self, news: News, has_state: bool, bytes: &mut usize) -> usize {
        match news {
            News::Peers(names) => self.peers.extend(names),
            News::State => self.become_state(bytes),
            News::Payload(_) if self.state => {}
            News::Payload(payload) => return self.push(payload, has_state, bytes),
        }
        0
    }

    fn push(&mut self, payload: Arc<[u8]>, has_state: bool, bytes: &mut usize) -> usize {
        let crowded = |bytes: usize| bytes > 0 && bytes + cost(&payload) > PENDING_BYTES_MAX;
        let full = self.payloads.len() >= PENDING_PAYLOADS_MAX || crowded(*bytes);
        if full && has_state {
            self.become_state(bytes);
            return 0;
        }
        let mut dropped = 0;
        if full {
            match self.payloads.pop_front() {
                Some(oldest) => *bytes -= cost(&oldest),
                None => return 1,
            }
            dropped = 1;
            if crowded(*bytes) {
                return 2;
            }
        }
        *bytes += cost(&payload);
        self.payloads.push_back(payload);
        dropped
    }

    fn become_state(&mut self, bytes: &mut usize) {
        *bytes -= self.payloads.drain(..).map(|p| cost(&p)).sum::<usize>();
        self.state = true;
    }

    /// The first of what waits; payloads one by one, names at most `names_max`.
    fn pop(&mut self, names_max: usize, bytes: &mut usize) -> Option<News> {
        if let Some(payload) = self.payloads.pop_front() {
            *bytes -= cost(&payload);
            return Some(News::Payload(payload));
        }
        if std::mem::take(&mut self.state) {
            return Some(News::State);
        }
        if self.peers.is_empty() {
            return None;
        }
        let rest = match self.peers.iter().nth(names_max).copied() {
            Some(first_left) => self.peers.split_off(&first_left),
            None => BTreeSet::new(),
        };
        Some(News::Peers(std::mem::replace(&mut self.peers, rest)))
    }

    fn is_empty(&self) -> bool {
        self.peers.is_empty() && !self.state && self.payloads.is_empty()
    }
}

fn cost(payload: &[u8]) -> usize {
    payload.len() + PAYLOAD_OVERHEAD_BYTES
}

/// News that wait until routes are up to date.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    pending: BTreeMap<(ChannelId, Route), Pending>,
    bytes: usize,
}

impl Relays {
    /// Takes in news. Returns how many payloads were dropped.
    pub(crate) fn push(
        &mut self,
        channel: ChannelId,
        route: Route,
        news: News,
        has_state: bool,
    ) -> usize {
        let route = match (&news, route) {
            (News::Peers(_), Route::Broadcast { .. })
                if self.pending.len() >= PEERS_BROADCASTS_MAX =>
            {
                Route::Neighbours { except: None }
            }
            _ => route,
        };
        let pending = self.pending.entry((channel, route)).or_default();
        pending.merge(news, has_state, &mut self.bytes)
    }

    /// The next piece of news with its way; `None` when nothing is left.
    pub(crate) fn pop(&mut self) -> Option<(ChannelId, Route, News)> {
        loop {
            let mut first = self.pending.first_entry()?;
            let (channel, route) = *first.key();
            if let Some(news) = first.get_mut().pop(usize::MAX, &mut self.bytes) {
                return Some((channel, route, news));
            }
            first.remove();
        }
    }
}

/// Whether gossip is for the neighbour or for everybody.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Reach {
    /// For the neighbour; it decides what becomes of it.
    Neighbour,
    /// For everybody, from this peer.
    Everybody(PeerName),
}

/// Something that can be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A complete protocol message.
    Message(Vec<u8>),
    /// News to be put into one.
    News(ChannelId, Reach, News),
}

/// What waits for one connection, and how much of what it was given is not sent yet.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    unicasts: VecDeque<Vec<u8>>,
    pending: BTreeMap<(Reach, ChannelId), Pending>,
    /// Bytes of unicasts and payloads that wait.
    bytes: usize,
    /// Bytes handed to the driver that have not left it.
    in_flight: usize,
    /// What was popped as state, and waits for the state.
    awaiting: BTreeSet<(ChannelId, Reach)>,
}

impl Outbox {
    /// Takes in news. Returns how many payloads were dropped.
    pub(crate) fn push(
        &mut self,
        channel: ChannelId,
        reach: Reach,
        news: News,
        has_state: bool,
    ) -> usize {
        let reach = match news {
            News::Peers(_) if self.pending.len() >= PEERS_BROADCASTS_MAX => Reach::Neighbour,
            _ => reach,
        };
        let pending = self.pending.entry((reach, channel)).or_default();
        let dropped = pending.merge(news, has_state, &mut self.bytes);
        if pending.is_empty() {
            self.pending.remove(&(reach, channel));
        }
        dropped
    }

    /// Takes in a unicast, as a complete message, unless too much waits already.
    #[must_use]
    pub(crate) fn push_unicast(&mut self, message: Vec<u8>) -> bool {
        let room = self.bytes == 0 || self.bytes + message.len() <= PENDING_BYTES_MAX;
        if !room || self.unicasts.len() >= PENDING_UNICASTS_MAX {
            return false;
        }
        self.bytes += message.len();
        self.unicasts.push_back(message);
        true
    }

    /// The next thing to send, if the connection takes more.
    pub(crate) fn pop(&mut self, names_max: usize) -> Option<Item> {
        if !self.has_credit() {
            return None;
        }
        if let Some(message) = self.unicasts.pop_front() {
            self.bytes -= message.len();
            return Some(Item::Message(message));
        }
        loop {
            let mut first = self.pending.first_entry()?;
            let (reach, channel) = *first.key();
            let news = first.get_mut().pop(names_max, &mut self.bytes);
            if first.get().is_empty() {
                first.remove();
            }
            if let Some(news) = news {
                return Some(Item::News(channel, reach, news));
            }
        }
    }

    /// Whether state of this channel was popped and is not at hand yet.
    pub(crate) fn is_awaiting(&self, channel: ChannelId) -> bool {
        self.awaiting.iter().any(|(awaited, _)| *awaited == channel)
    }

    /// State of this channel was popped, but is not at hand.
    pub(crate) fn await_state(&mut self, channel: ChannelId, reach: Reach) {
        self.awaiting.insert((channel, reach));
    }

    /// The state of a channel is at hand: to whom it goes.
    pub(crate) fn take_awaiting(&mut self, channel: ChannelId) -> Vec<Reach> {
        let mine: Vec<Reach> = self
            .awaiting
            .iter()
            .filter(|(awaited, _)| *awaited == channel)
            .map(|(_, reach)| *reach)
            .collect();
        self.awaiting.retain(|(awaited, _)| *awaited != channel);
        mine
    }

    /// Whether gossip may be handed to the driver.
    pub(crate) fn has_credit(&self) -> bool {
        self.in_flight < WINDOW_BYTES
    }

    /// Bytes in the driver's hands.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Bytes that wait here.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes were handed to the driver.
    pub(crate) fn add_in_flight(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    /// Bytes left the driver.
    pub(crate) fn take_in_flight(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }
}

/// Payloads that a surrogate has relayed lately, by their hash.
///
/// They are kept for one to two generations of the interval at which [`Seen::age`] is called.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    young: BTreeSet<[u8; 16]>,
    old: BTreeSet<[u8; 16]>,
}

impl Seen {
    /// Whether this payload comes for the first time.
    pub(crate) fn is_new(&mut self, payload: &[u8]) -> bool {
        let hash = Sha256::digest(payload);
        let mut key = [0; 16];
        key.copy_from_slice(&hash[..16]);
        if self.old.contains(&key) || self.young.contains(&key) {
            return false;
        }
        if self.young.len() >= SEEN_MAX {
            self.age();
        }
        self.young.insert(key);
        true
    }

    /// An interval passed: forgets what is older than the one before.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests;
