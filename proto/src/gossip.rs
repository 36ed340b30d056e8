//! Outgoing gossip: what waits for a connection, merged so that it cannot accumulate.
//!
//! Channels are named by text. [`TOPOLOGY`] and those that the driver registers are handled here;
//! any other channel is relayed by a surrogate, which does not interpret it.
//!
//! ```text
//! news --> Relays: until routes are up to date --> Outbox of each chosen connection
//!                                                    unicasts, gossip, broadcasts, in this order
//!                                                  --> while the connection takes bytes: messages
//! ```
//!
//! Waiting news are merged: names of peers into their union, and repeated "current state" into one.
//! Other payloads queue up to a limit. Beyond it, the channel's current state replaces them, or, on
//! an unknown channel, the oldest are dropped. So a peer that does not read costs a bounded amount
//! of memory, and gets the newest state when it reads again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use crate::types::PeerName;

/// The channel of peers and their connections.
pub const TOPOLOGY: &str = "topology";
/// Maximum number of unknown channels. Gossip on further ones is dropped and counted.
pub const SURROGATES_MAX: usize = 64;
/// Bytes that may be handed to the driver for one connection before gossip for it waits.
pub const WINDOW_BYTES: usize = 256 * 1024;
/// Maximum number of payloads that wait for a connection, per channel and source. Beyond it, the
/// channel's current state replaces them, or the oldest is dropped and counted.
pub const PENDING_PAYLOADS_MAX: usize = 16;
/// Maximum number of payload bytes that wait for one connection, or for routes. Beyond it, the same
/// happens.
pub const PENDING_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Maximum number of unicasts that wait for one connection; further ones are dropped and counted.
pub const PENDING_UNICASTS_MAX: usize = 64;
/// Maximum number of sources whose broadcasts of topology wait. Those of further sources are passed
/// on as gossip.
const PEERS_BROADCASTS_MAX: usize = 64;
/// Overhead that is counted for each payload, in bytes.
const PAYLOAD_OVERHEAD_BYTES: usize = 64;
/// Maximum number of payloads that a surrogate remembers per generation. Beyond it, a new
/// generation begins early.
const SEEN_MAX: usize = 4096;

/// Identifies a channel by its index in the table of channels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ChannelId(pub(crate) usize);

/// News for a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// The entries of these peers, as they are when sent. Only on the channel of topology.
    Peers(BTreeSet<PeerName>),
    /// The channel's complete state, as it is when sent.
    State,
    /// These bytes.
    Payload(Arc<[u8]>),
}

/// Destination of news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Route {
    /// To random neighbours, except the one from which it came.
    Neighbours { except: Option<PeerName> },
    /// Along the broadcast route of its source.
    Broadcast { source: PeerName },
}

/// Waiting news of one kind, merged.
///
/// Rule: `docs/protocol/mesh.md#5-6-queues`.
#[derive(Debug, Default)]
struct Pending {
    peers: BTreeSet<PeerName>,
    state: bool,
    payloads: VecDeque<Arc<[u8]>>,
}

impl Pending {
    /// Adds news. `has_state` is true if the channel's state can replace payloads. Returns the
    /// number of payloads dropped.
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

    /// Removes and returns the first waiting news: one payload, or up to `names_max` names.
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

/// News that wait for the calculation of routes.
#[derive(Debug, Default)]
pub(crate) struct Relays {
    pending: BTreeMap<(ChannelId, Route), Pending>,
    bytes: usize,
}

impl Relays {
    /// Adds news. Returns the number of payloads dropped.
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

    /// Removes and returns the next news with its destination, or `None` if nothing is left.
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
    /// For the neighbour, which decides whether to pass it on.
    Neighbour,
    /// For everybody, from this peer.
    Everybody(PeerName),
}

/// Something that can be sent.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Item {
    /// A complete protocol message.
    Message(Vec<u8>),
    /// News from which a message is to be made.
    News(ChannelId, Reach, News),
}

/// What waits for one connection, and how many bytes handed to the driver are not sent yet.
///
/// Rule: `docs/protocol/mesh.md#5-6-queues`.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    unicasts: VecDeque<Vec<u8>>,
    pending: BTreeMap<(Reach, ChannelId), Pending>,
    /// Bytes of waiting unicasts and payloads.
    bytes: usize,
    /// Bytes handed to the driver and not sent yet.
    in_flight: usize,
    /// Channels whose state was requested and not received yet, with its destination.
    awaiting: BTreeSet<(ChannelId, Reach)>,
}

impl Outbox {
    /// Adds news. Returns the number of payloads dropped.
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

    /// Adds a unicast, as a complete message. Returns false if too much waits already.
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

    /// Removes and returns the next item to send, if the connection accepts more.
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

    /// Returns true if the state of this channel was requested and not received yet.
    pub(crate) fn is_awaiting(&self, channel: ChannelId) -> bool {
        self.awaiting.iter().any(|(awaited, _)| *awaited == channel)
    }

    /// Notes that the state of this channel was requested.
    pub(crate) fn await_state(&mut self, channel: ChannelId, reach: Reach) {
        self.awaiting.insert((channel, reach));
    }

    /// Removes and returns the destinations that wait for the state of a channel.
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

    /// Returns true if gossip may be handed to the driver.
    pub(crate) fn has_credit(&self) -> bool {
        self.in_flight < WINDOW_BYTES
    }

    /// Returns the number of bytes handed to the driver and not sent yet.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// Returns the number of bytes that wait here.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.bytes
    }

    /// Notes that bytes were handed to the driver.
    pub(crate) fn add_in_flight(&mut self, bytes: usize) {
        self.in_flight += bytes;
    }

    /// Notes that the driver has sent bytes.
    pub(crate) fn take_in_flight(&mut self, bytes: usize) {
        self.in_flight = self.in_flight.saturating_sub(bytes);
    }
}

/// Hashes of the payloads that a surrogate relayed recently.
///
/// They are kept for one to two generations of the interval at which [`Seen::age`] is called.
///
/// Rule: `docs/protocol/mesh.md#5-3-channels`.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    young: BTreeSet<[u8; 16]>,
    old: BTreeSet<[u8; 16]>,
}

impl Seen {
    /// Returns true if this payload was not seen before, and remembers it.
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

    /// Begins a new generation and forgets the one before the last.
    pub(crate) fn age(&mut self) {
        self.old = std::mem::take(&mut self.young);
    }
}

#[cfg(test)]
mod tests;
