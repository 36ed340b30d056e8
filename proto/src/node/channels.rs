//! Gossip: what comes in on channels, where it goes on to, and what we say ourselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::config::{
    GARBAGE_DELAY, PEERS_PER_TURN_MAX, RECENT_MAX, RECENT_TIME, TOPOLOGY_MESSAGE_BYTES,
};
use super::event::{CloseReason, Event};
use super::{DeliveryKind, Node, Output};
use crate::gossip::{ChannelId, Item, News, Reach, Route, SURROGATES_MAX, Seen, TOPOLOGY};
use crate::message::Message;
use crate::types::{ConnId, PeerName, Time};

/// What is told on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// The channel's complete state, as it is when it is sent ([`Output::NeedState`]).
    State,
    /// These bytes. While they wait to be sent the channel's state may take their place, so they
    /// must be part of it.
    Payload(Vec<u8>),
}

impl From<Content> for News {
    fn from(content: Content) -> News {
        match content {
            Content::State => News::State,
            Content::Payload(bytes) => News::Payload(bytes.into()),
        }
    }
}

/// All channels that were heard of.
#[derive(Debug)]
pub(super) struct Channels {
    ids: BTreeMap<Arc<str>, ChannelId>,
    table: Vec<(Arc<str>, Kind)>,
}

#[derive(Debug)]
enum Kind {
    Topology,
    /// The driver handles it.
    Outside,
    /// Nobody here knows it.
    Surrogate(Seen),
}

impl Channels {
    pub(super) fn new(outside: &[String]) -> Channels {
        let mut channels = Channels {
            ids: BTreeMap::new(),
            table: Vec::new(),
        };
        channels.add(TOPOLOGY, Kind::Topology);
        for name in outside {
            channels.add(name, Kind::Outside);
        }
        channels
    }

    fn add(&mut self, name: &str, kind: Kind) -> ChannelId {
        let id = ChannelId(self.table.len());
        let name: Arc<str> = name.into();
        self.ids.insert(name.clone(), id);
        self.table.push((name, kind));
        id
    }

    /// The channel of this name; a surrogate takes care of it if nobody else does.
    fn find_or_add(&mut self, name: &str) -> Option<ChannelId> {
        if let Some(id) = self.ids.get(name) {
            return Some(*id);
        }
        let surrogates = self
            .table
            .iter()
            .filter(|(_, kind)| matches!(kind, Kind::Surrogate(_)));
        if surrogates.count() >= SURROGATES_MAX {
            return None;
        }
        Some(self.add(name, Kind::Surrogate(Seen::default())))
    }

    fn outside(&self, name: &str) -> Option<ChannelId> {
        let id = self.ids.get(name)?;
        matches!(self.kind(*id), Kind::Outside).then_some(*id)
    }

    fn name(&self, id: ChannelId) -> &Arc<str> {
        &self.table[id.0].0
    }

    fn kind(&self, id: ChannelId) -> &Kind {
        &self.table[id.0].1
    }

    fn has_state(&self, id: ChannelId) -> bool {
        !matches!(self.kind(id), Kind::Surrogate(_))
    }
}

/// The channel of topology, which is the first.
pub(super) const TOPOLOGY_ID: ChannelId = ChannelId(0);

impl Node {
    /// Sends `payload` to one peer, however far. Returns whether there is a way to it and room on
    /// that way; whether it arrives, only an answer can tell.
    pub fn send_unicast(
        &mut self,
        now: Time,
        channel: &str,
        dest: PeerName,
        payload: &[u8],
    ) -> bool {
        if self.routes.unicast_all(dest).is_none() && self.pace.routes.is_requested() {
            self.recalculate(now);
        }
        let message = Message::Unicast {
            channel,
            source: self.us,
            dest,
            payload,
        };
        let sent = self.forward_unicast(dest, message.encode(), None);
        self.settle(now);
        sent
    }

    /// Tells everybody. Does nothing on a channel that the driver did not register.
    pub fn broadcast(&mut self, now: Time, channel: &str, content: Content) {
        self.relay_broadcast(now, channel, self.us, content);
    }

    /// Passes on what a broadcast of `source` brought, along the route for it.
    pub fn relay_broadcast(
        &mut self,
        now: Time,
        channel: &str,
        source: PeerName,
        content: Content,
    ) {
        self.tell(now, channel, Route::Broadcast { source }, content);
    }

    /// Tells some neighbours, drawn by chance.
    pub fn gossip_neighbours(&mut self, now: Time, channel: &str, content: Content) {
        self.tell(now, channel, Route::Neighbours { except: None }, content);
    }

    /// Passes on what gossip of `neighbour` brought, to others drawn by chance.
    pub fn relay_gossip(
        &mut self,
        now: Time,
        channel: &str,
        neighbour: PeerName,
        content: Content,
    ) {
        let except = Some(neighbour);
        self.tell(now, channel, Route::Neighbours { except }, content);
    }

    /// Answers [`Output::NeedState`]: the complete state of a channel; `None` if there is nothing
    /// to be said to this neighbour.
    pub fn handle_state(&mut self, now: Time, channel: &str, conn: ConnId, state: Option<&[u8]>) {
        let Some(id) = self.channels.outside(channel) else {
            return;
        };
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        for reach in connection.outbox.take_awaiting(id) {
            let Some(state) = state else { continue };
            self.send_payload(now, conn, id, reach, state);
        }
        self.touched.insert(conn);
        self.settle(now);
    }

    fn tell(&mut self, now: Time, channel: &str, route: Route, content: Content) {
        if let Some(id) = self.channels.outside(channel) {
            self.relay(id, route, content.into());
            self.settle(now);
        }
    }

    /// Sends news their way as soon as routes are up to date.
    pub(super) fn relay(&mut self, channel: ChannelId, route: Route, news: News) {
        if let Route::Broadcast { source } = route
            && self.topology.peer(source).is_none()
        {
            // There is no route for it, and the number of those that wait is bounded.
            return;
        }
        let has_state = self.channels.has_state(channel);
        let dropped = self.relays.push(channel, route, news, has_state);
        if dropped > 0 {
            self.count_dropped(None, channel, dropped, "too much waits for routes");
        }
    }

    /// Puts news that wait into the outboxes of those to whom they go.
    pub(super) fn pass_on(&mut self) {
        if self.pace.routes.is_requested() {
            return;
        }
        while let Some((channel, route, news)) = self.relays.pop() {
            let routes = self.routes.clone();
            let (reach, to) = match route {
                Route::Neighbours { except } => {
                    let chosen = routes.random_neighbours(except, &mut self.rng);
                    (Reach::Neighbour, chosen)
                }
                Route::Broadcast { source } => {
                    let next = routes.broadcast_all(source).to_vec();
                    (Reach::Everybody(source), next)
                }
            };
            for peer in to {
                if let Some(conn) = self.members.get(&peer) {
                    self.enqueue(*conn, channel, reach, news.clone());
                }
            }
        }
    }

    /// Tells a new neighbour everything.
    pub(super) fn send_all_state(&mut self, conn: ConnId) {
        let names = self.topology.names().collect();
        self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
        for id in self.outside_channels() {
            self.enqueue(conn, id, Reach::Neighbour, News::State);
        }
    }

    /// Tells a new neighbour that we could reach before what it may not have heard of: the way to
    /// it may lead over a connection that is dead, though nobody noticed yet. While peers see the
    /// mesh differently, broadcasts may go round in circles.
    pub(super) fn send_recent_changes(&mut self, now: Time, conn: ConnId) {
        let since = |at: Time| at + RECENT_TIME > now;
        let mut recent: Vec<(Time, PeerName)> = self
            .changed
            .iter()
            .filter(|(_, at)| since(**at))
            .map(|(name, at)| (*at, *name))
            .collect();
        recent.sort_by(|a, b| b.cmp(a));
        let names: BTreeSet<PeerName> = recent
            .into_iter()
            .take(RECENT_MAX)
            .map(|(_, name)| name)
            .collect();
        if !names.is_empty() {
            self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
        }
    }

    /// Tells some neighbours everything, as is done from time to time.
    pub(super) fn gossip_all_state(&mut self) {
        let route = Route::Neighbours { except: None };
        let names = self.topology.names().collect();
        self.relay(TOPOLOGY_ID, route, News::Peers(names));
        for id in self.outside_channels() {
            self.relay(id, route, News::State);
        }
        for (_, kind) in &mut self.channels.table {
            if let Kind::Surrogate(seen) = kind {
                seen.age();
            }
        }
    }

    fn outside_channels(&self) -> Vec<ChannelId> {
        let table = self.channels.table.iter().enumerate();
        table
            .filter(|(_, (_, kind))| matches!(kind, Kind::Outside))
            .map(|(index, _)| ChannelId(index))
            .collect()
    }

    fn enqueue(&mut self, conn: ConnId, channel: ChannelId, reach: Reach, news: News) {
        let has_state = self.channels.has_state(channel);
        if let Some(connection) = self.conns.get_mut(&conn) {
            let dropped = connection.outbox.push(channel, reach, news, has_state);
            self.touched.insert(conn);
            if dropped > 0 {
                self.count_dropped(Some(conn), channel, dropped, "it reads too slowly");
            }
        }
    }

    /// Turns what waits for a connection into messages, as far as it takes them.
    pub(super) fn pump(&mut self, now: Time, conn: ConnId) {
        loop {
            let Some(connection) = self.conns.get_mut(&conn) else {
                return;
            };
            match connection.outbox.pop(PEERS_PER_TURN_MAX) {
                None => break,
                Some(Item::Message(message)) => self.send(now, conn, &message),
                Some(Item::News(channel, reach, News::Payload(payload))) => {
                    self.send_payload(now, conn, channel, reach, &payload);
                }
                Some(Item::News(channel, reach, News::Peers(names))) => {
                    let parts = self.topology.encode_parts(names, TOPOLOGY_MESSAGE_BYTES);
                    for part in parts {
                        self.send_payload(now, conn, channel, reach, &part);
                    }
                }
                Some(Item::News(channel, reach, News::State)) => {
                    let asked = connection.outbox.is_awaiting(channel);
                    connection.outbox.await_state(channel, reach);
                    if !asked && let Some(member) = &mut connection.member {
                        let first = member.told.states.insert(channel);
                        let neighbour = member.peer;
                        let channel = self.channels.name(channel).clone();
                        self.outputs.push_back(Output::NeedState {
                            channel,
                            conn,
                            neighbour,
                            first,
                        });
                    }
                }
            }
            self.flush(now, conn);
        }
    }

    fn send_payload(
        &mut self,
        now: Time,
        conn: ConnId,
        channel: ChannelId,
        reach: Reach,
        payload: &[u8],
    ) {
        let name = self.channels.name(channel).clone();
        let message = match reach {
            Reach::Neighbour => Message::Gossip {
                channel: &name,
                sender: self.us,
                payload,
            },
            Reach::Everybody(source) => Message::Broadcast {
                channel: &name,
                source,
                payload,
            },
        };
        self.counters.gossip_sent += 1;
        self.counters.gossip_sent_bytes += payload.len() as u64;
        self.send(now, conn, &message.encode());
    }

    /// Gives a unicast to the neighbour that is next on its way, unless it came from there.
    fn forward_unicast(
        &mut self,
        dest: PeerName,
        message: Vec<u8>,
        from: Option<PeerName>,
    ) -> bool {
        let hop = self
            .routes
            .unicast_all(dest)
            .filter(|hop| Some(*hop) != from);
        let conn = hop.and_then(|hop| self.members.get(&hop)).copied();
        let Some(connection) = conn.and_then(|conn| self.conns.get_mut(&conn)) else {
            self.counters.unicasts_dropped += 1;
            return false;
        };
        let queued = connection.outbox.push_unicast(message);
        self.touched.extend(conn);
        if !queued {
            self.counters.unicasts_dropped += 1;
        }
        queued
    }

    /// A gossip message arrived. An error says why its connection is to be closed.
    pub(super) fn handle_gossip(
        &mut self,
        now: Time,
        conn: ConnId,
        neighbour: PeerName,
        message: Message<'_>,
        whole: &[u8],
    ) -> Result<(), CloseReason> {
        let (channel, kind, payload) = match message {
            Message::Gossip {
                channel, payload, ..
            } => (channel, DeliveryKind::Gossip, payload),
            Message::Broadcast {
                channel,
                source,
                payload,
            } => (channel, DeliveryKind::Broadcast { source }, payload),
            Message::Unicast {
                channel,
                source,
                dest,
                payload,
            } => {
                if dest != self.us {
                    self.forward_unicast(dest, whole.to_vec(), Some(neighbour));
                    return Ok(());
                }
                (channel, DeliveryKind::Unicast { source }, payload)
            }
            _ => return Ok(()),
        };
        self.counters.gossip_received += 1;
        self.counters.gossip_received_bytes += payload.len() as u64;
        let Some(id) = self.channels.find_or_add(channel) else {
            self.counters.gossip_dropped += 1;
            return Ok(());
        };
        let name = self.channels.name(id).clone();
        match &mut self.channels.table[id.0].1 {
            Kind::Topology => return self.handle_topology(now, conn, neighbour, kind, payload),
            Kind::Outside => self.outputs.push_back(Output::Deliver {
                channel: name,
                conn,
                neighbour,
                kind,
                payload: payload.to_vec(),
            }),
            Kind::Surrogate(seen) => {
                let route = match kind {
                    DeliveryKind::Unicast { .. } => return Ok(()),
                    DeliveryKind::Gossip if !seen.is_new(payload) => return Ok(()),
                    DeliveryKind::Gossip => Route::Neighbours {
                        except: Some(neighbour),
                    },
                    DeliveryKind::Broadcast { source } => Route::Broadcast { source },
                };
                self.relay(id, route, News::Payload(payload.into()));
            }
        }
        Ok(())
    }

    fn handle_topology(
        &mut self,
        now: Time,
        conn: ConnId,
        neighbour: PeerName,
        kind: DeliveryKind,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        if let DeliveryKind::Unicast { .. } = kind {
            return Err(CloseReason::TopologyUnicast);
        }
        let merged = self
            .topology
            .merge(payload)
            .map_err(CloseReason::Topology)?;
        if merged.ignored > 0 {
            self.counters.topology_ignored += merged.ignored as u64;
            if let Some(peer) = self.tell_dropped_once(conn) {
                let entries = merged.ignored;
                self.event(Event::TopologyIgnored { peer, entries });
            }
        }
        if !merged.improved.is_empty() {
            self.garbage_at.get_or_insert(now + GARBAGE_DELAY);
            let changed = merged.improved.iter().map(|name| (*name, now));
            self.changed.extend(changed);
        }
        let (route, names) = match kind {
            DeliveryKind::Broadcast { source } => (Route::Broadcast { source }, merged.named),
            _ => {
                let except = Some(neighbour);
                (Route::Neighbours { except }, merged.improved)
            }
        };
        self.note_topology(now);
        if !names.is_empty() {
            self.relay(TOPOLOGY_ID, route, News::Peers(names));
        }
        Ok(())
    }

    fn count_dropped(
        &mut self,
        conn: Option<ConnId>,
        channel: ChannelId,
        count: usize,
        reason: &'static str,
    ) {
        self.counters.gossip_dropped += count as u64;
        let peer = conn.and_then(|conn| self.tell_dropped_once(conn));
        if peer.is_some() {
            let channel = self.channels.name(channel).clone();
            self.event(Event::GossipDropped {
                peer,
                channel,
                reason,
            });
        }
    }
}
