//! All parts of a node, and who hands on what to whom.
//!
//! No part knows another. What happens in one of them comes here ([`Happened`]), and the others
//! are told of it from here, in an order that is the same in every run.

use std::collections::BTreeSet;

use super::channels::{Content, TOPOLOGY_ID};
use super::config::{GOSSIP_INTERVAL, NodeConfig};
use super::connection::Member;
use super::connections::Connections;
use super::digests::{Digests, Exchange, Task};
use super::event::{CloseReason, Event};
use super::happened::Happened;
use super::membership::Membership;
use super::output::{DeliveryKind, Output};
use super::relay::{Heard, Relay};
use super::sink::Sink;
use crate::connector::{Connector, ConnectorConfig, Ended, Link};
use crate::gossip::{ChannelId, Item, News, Reach, Route};
use crate::message::{Message, OverlayMode};
use crate::native::SessionNumbers;
use crate::types::{ConnId, PeerName, ShortId, Time};
use crate::wire::Introduced;

/// The parts.
#[derive(Debug)]
pub(super) struct Core {
    pub(super) config: NodeConfig,
    pub(super) membership: Membership,
    pub(super) connections: Connections,
    pub(super) relay: Relay,
    pub(super) digests: Digests,
    pub(super) connector: Connector,
    pub(super) sink: Sink,
}

impl Core {
    /// A peer without connections.
    pub(super) fn new(config: NodeConfig, now: Time) -> Core {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let membership = Membership::new(&config, rng.fork());
        // Peers that start together do not gossip together.
        let first_gossip = GOSSIP_INTERVAL.mul_f64(0.5 + rng.f64() / 2.0);
        let connections = Connections::new(SessionNumbers::new(rng.u64(..)));
        let connector = ConnectorConfig {
            port: config.port,
            discovery: config.discovery,
            connection_limit: config.connection_limit,
        };
        let connector = Connector::new(connector, rng.fork());
        let mut sink = Sink::default();
        sink.push(Output::Routes(membership.routes().clone()));
        Core {
            digests: Digests::new(rng.fork()),
            relay: Relay::new(&config.channels, now, first_gossip, rng),
            membership,
            connections,
            connector,
            sink,
            config,
        }
    }

    /// What an introduction says of us.
    pub(super) fn ourself(&self) -> (&NodeConfig, Option<ShortId>) {
        let ourself = self.membership.topology().peer(self.membership.us());
        (&self.config, ourself.and_then(|ourself| ourself.short_id))
    }

    /// Passes on all that happened on a connection.
    pub(super) fn advance(&mut self, now: Time, conn: ConnId) {
        while let Some(happened) = self.connections.next(now, conn, &mut self.sink) {
            let handled = match happened {
                Happened::Introduced(introduced) => self.introduce(now, conn, *introduced),
                Happened::Gossip(neighbour, message) => {
                    self.handle_gossip(now, (conn, neighbour), &message)
                }
                Happened::Exchange(exchange) => {
                    self.handle_exchange(now, conn, exchange);
                    Ok(())
                }
                Happened::Established(peer) => {
                    self.membership.establish_connection(peer);
                    Ok(())
                }
                Happened::Lost(reason) => Err(reason),
            };
            if let Err(reason) = handled {
                self.close_connection(now, conn, reason);
            }
        }
    }

    /// Brings everything up to date that follows from what was just handled.
    pub(super) fn settle(&mut self, now: Time) {
        self.membership.note_changes(now);
        self.exchange(now);
        self.pass_on();
        while let Some(conn) = self.connections.pop_touched() {
            self.connections.flush(now, conn, &mut self.sink);
            self.pump(now, conn);
        }
        while let Some(dial) = self.connector.poll_output() {
            let conn = self.connections.dial(dial);
            self.sink.push(Output::Dial { conn, to: dial.to });
        }
    }

    pub(super) fn recalculate(&mut self, now: Time) {
        self.membership.recalculate(now, &mut self.sink);
        self.connector
            .handle_topology(now, self.membership.topology());
    }

    /// Both ends of a connection are known to each other: makes it a member, or says why not.
    pub(super) fn introduce(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: Introduced,
    ) -> Result<(), CloseReason> {
        let Some(accept_new) = self.connections.accepts_new(conn) else {
            return Ok(());
        };
        let admitted = self.membership.admit(&introduced.remote, accept_new)?;
        match self.prepare_member(now, conn, &introduced) {
            Ok(member) => {
                self.add_member(now, conn, member, admitted.restarted);
                Ok(())
            }
            Err(reason) => {
                let peer = introduced.remote.name;
                self.membership.release(now, peer, &mut self.sink);
                Err(reason)
            }
        }
    }

    pub(super) fn prepare_member(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: &Introduced,
    ) -> Result<Member, CloseReason> {
        let member = self.connections.prepare(conn, introduced, &self.config)?;
        if let Some(tie) = self.connections.tie(self.membership.us(), &member) {
            if let Some(reason) = tie.other_ends {
                self.close_connection(now, tie.other, reason);
            }
            tie.new_ends.map_or(Ok(()), Err)?;
        }
        let limit = self.config.connection_limit;
        if limit != 0 && self.connections.members() >= limit {
            return Err(CloseReason::ConnectionLimit(limit));
        }
        Ok(member)
    }

    pub(super) fn add_member(&mut self, now: Time, conn: ConnId, member: Member, restarted: bool) {
        let Some(connection) = self.connections.get_mut(conn) else {
            return;
        };
        let link = Link {
            peer: member.peer,
            address: connection.remote,
            outbound: connection.dial.is_some(),
        };
        let event = Event::Added {
            conn,
            peer: member.label.clone(),
            address: link.address,
            outbound: link.outbound,
            restarted,
            encrypted: member.encrypted,
            frames_encrypted: member.key.is_some(),
            version: member.version,
        };
        self.connections.add(now, conn, member, &mut self.sink);
        let is_known = self.membership.routes().unicast(link.peer).is_some();
        self.membership
            .add_connection(link.peer, link.address, link.outbound);
        self.connector.handle_added(now, conn, link);
        self.sink.event(event);
        let is_news = restarted || !is_known;
        if is_news {
            self.send_outside_state(conn);
        }
        if self.connections.has_digests(conn) {
            self.tell_digest(now, conn);
        } else if is_news {
            self.tell_all(conn);
        } else {
            let names = self.membership.recent_changes(now);
            if !names.is_empty() {
                self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
            }
        }
        if let Some(member) = self.connections.member_mut(conn) {
            member.overlay.confirm(now);
        }
    }

    /// Closes a connection of ours, introduced or not, and tells everybody concerned.
    pub(super) fn close_connection(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        let Some(connection) = self.connections.remove(conn, &mut self.sink) else {
            return;
        };
        self.digests.forget(conn);
        let peer = connection.member.map(|member| member.label);
        if let Some(peer) = &peer {
            self.membership
                .delete_connection(now, peer.name, &mut self.sink);
        }
        if connection.dial.is_some() || peer.is_some() {
            let ended = Ended {
                dialled: connection.dial.map(|dial| dial.to),
                peer: peer.as_ref().map(|peer| peer.name),
                error: &reason.to_string(),
                never_again: reason.is_final(),
            };
            self.connector.handle_ended(now, conn, ended);
        }
        self.sink.push(Output::Close { conn });
        self.sink.event(Event::Closed {
            conn,
            peer,
            address: connection.remote,
            outbound: connection.dial.is_some(),
            reason,
        });
    }

    /// A gossip message arrived. An error says why its connection is to be closed.
    pub(super) fn handle_gossip(
        &mut self,
        now: Time,
        (conn, neighbour): (ConnId, PeerName),
        bytes: &[u8],
    ) -> Result<(), CloseReason> {
        let message = Message::decode(bytes, OverlayMode::Legacy)?;
        let heard = self.relay.hear(
            self.membership.us(),
            (conn, neighbour),
            message,
            &mut self.sink,
        );
        match heard {
            Heard::Done => {}
            Heard::Forward(dest) => {
                self.forward_unicast(dest, bytes.to_vec(), Some(neighbour));
            }
            Heard::Topology(kind, payload) => {
                return self.handle_topology(now, (conn, neighbour), kind, payload);
            }
            Heard::PassOn(channel, route, news) => self.tell_later(channel, route, news),
        }
        Ok(())
    }

    pub(super) fn handle_topology(
        &mut self,
        now: Time,
        (conn, neighbour): (ConnId, PeerName),
        kind: DeliveryKind,
        payload: &[u8],
    ) -> Result<(), CloseReason> {
        if let DeliveryKind::Unicast { .. } = kind {
            return Err(CloseReason::TopologyUnicast);
        }
        let merged = self.membership.merge(now, payload);
        let merged = merged.map_err(CloseReason::Topology)?;
        self.digests.handle_entries(now, conn);
        if !merged.improved.is_empty() {
            self.digests.note_change(now);
        }
        if merged.ignored > 0 {
            self.sink.counters.topology_ignored += merged.ignored as u64;
            let member = self.connections.member_mut(conn);
            if let Some(peer) = member.and_then(Member::tell_dropped_once) {
                let entries = merged.ignored;
                self.sink.event(Event::TopologyIgnored { peer, entries });
            }
        }
        match kind {
            DeliveryKind::Broadcast { source } => {
                self.tell_peers_later(Route::Broadcast { source }, merged.named);
            }
            _ => self.pass_on_peers(neighbour, merged.improved),
        }
        Ok(())
    }

    /// Passes on what a neighbour told of these peers. Who compares digests tells all neighbours
    /// itself, so what comes from a neighbour of ours that does goes on to those only that it does
    /// not list, and to some of the others.
    fn pass_on_peers(&mut self, from: PeerName, names: BTreeSet<PeerName>) {
        let (heard, told): (BTreeSet<PeerName>, BTreeSet<PeerName>) =
            names.into_iter().partition(|name| {
                let conn = self.connections.of_peer(*name);
                conn.is_none_or(|conn| !self.connections.has_digests(conn))
            });
        let except = Some(from);
        self.tell_peers_later(Route::Neighbours { except }, heard);
        if told.is_empty() {
            return;
        }
        let drawn = self.relay.draw(self.membership.routes(), except);
        for (peer, conn) in self.connections.neighbours() {
            let has_digests = self.connections.has_digests(conn);
            if peer == from || !has_digests && !drawn.contains(&peer) {
                continue;
            }
            let is_news = |name: &PeerName| {
                !has_digests || *name != peer && !self.membership.topology().lists(*name, peer)
            };
            let names: BTreeSet<PeerName> = told.iter().copied().filter(is_news).collect();
            if !names.is_empty() {
                self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
            }
        }
    }

    /// Tells of our own entry and of these new neighbours: all that compare digests, and some of
    /// the others.
    pub(super) fn announce(&mut self, now: Time, names: &BTreeSet<PeerName>) {
        self.digests.note_change(now);
        let drawn = self.relay.draw(self.membership.routes(), None);
        for (peer, conn) in self.connections.neighbours() {
            if self.connections.has_digests(conn) || drawn.contains(&peer) {
                let news = News::Peers(names.clone());
                self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, news);
            }
        }
    }

    fn tell_peers_later(&mut self, route: Route, names: BTreeSet<PeerName>) {
        if !names.is_empty() {
            self.tell_later(TOPOLOGY_ID, route, News::Peers(names));
        }
    }

    pub(super) fn tell(&mut self, now: Time, channel: &str, route: Route, content: Content) {
        if let Some(id) = self.relay.outside(channel) {
            self.tell_later(id, route, content.into());
            self.settle(now);
        }
    }

    /// Sends news their way as soon as routes are up to date.
    pub(super) fn tell_later(&mut self, channel: ChannelId, route: Route, news: News) {
        if let Route::Broadcast { source } = route
            && self.membership.topology().peer(source).is_none()
        {
            // There is no route for it, and the number of those that wait is bounded.
            return;
        }
        let dropped = self.relay.push(channel, route, news);
        if dropped > 0 {
            self.count_dropped(None, channel, dropped, "too much waits for routes");
        }
    }

    /// Puts news that wait into the outboxes of those to whom they go.
    pub(super) fn pass_on(&mut self) {
        if self.membership.are_routes_stale() {
            return;
        }
        while let Some(mailing) = self.relay.pop(self.membership.routes()) {
            for peer in mailing.to {
                if let Some(conn) = self.connections.of_peer(peer) {
                    self.enqueue(conn, mailing.channel, mailing.reach, mailing.news.clone());
                }
            }
        }
    }

    /// Tells a neighbour all that is known of the mesh.
    fn tell_all(&mut self, conn: ConnId) {
        let names = self.membership.all();
        self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
    }

    /// Tells a new neighbour the state of all channels that the driver handles.
    fn send_outside_state(&mut self, conn: ConnId) {
        for id in self.relay.all_outside() {
            self.enqueue(conn, id, Reach::Neighbour, News::State);
        }
    }

    /// Tells some neighbours everything, as is done from time to time. Of the topology those that
    /// compare digests are told one.
    pub(super) fn gossip_all_state(&mut self, now: Time) {
        for peer in self.relay.draw(self.membership.routes(), None) {
            if let Some(conn) = self.connections.of_peer(peer)
                && !self.connections.has_digests(conn)
            {
                self.tell_all(conn);
            }
        }
        self.tell_digests(now);
        let route = Route::Neighbours { except: None };
        for id in self.relay.all_outside() {
            self.tell_later(id, route, News::State);
        }
        self.relay.age();
    }

    /// A neighbour compares what it knows with what we know.
    fn handle_exchange(&mut self, now: Time, conn: ConnId, exchange: Exchange) {
        match exchange {
            Exchange::Digest(theirs) => {
                let ours = self.membership.topology().digest();
                self.digests.handle_digest(now, conn, theirs, ours);
            }
            Exchange::Want => self.digests.handle_want(now, conn),
        }
    }

    /// Does what comparing digests asks for.
    fn exchange(&mut self, now: Time) {
        loop {
            let ours = || self.membership.topology().digest();
            let Some(task) = self.digests.next(now, ours) else {
                return;
            };
            match task {
                Task::Want(conn) => self.send_exchange(now, conn, Exchange::Want),
                Task::TellAll(conn) => self.tell_all(conn),
                Task::TellDigest(conn) => self.tell_digest(now, conn),
                Task::Settled => self.tell_digests(now),
            }
        }
    }

    fn tell_digest(&mut self, now: Time, conn: ConnId) {
        let digest = self.membership.topology().digest();
        self.send_exchange(now, conn, Exchange::Digest(digest));
    }

    /// Tells our digest to some neighbours.
    fn tell_digests(&mut self, now: Time) {
        for conn in self.digests.draw(self.connections.with_digests()) {
            self.tell_digest(now, conn);
        }
    }

    fn send_exchange(&mut self, now: Time, conn: ConnId, exchange: Exchange) {
        let message = Message::Own {
            kind: exchange.kind(),
            body: exchange.body(),
        };
        self.send(now, conn, &message.encode());
        self.connections.touch(conn);
    }

    pub(super) fn enqueue(&mut self, conn: ConnId, channel: ChannelId, reach: Reach, news: News) {
        let has_state = self.relay.has_state(channel);
        let dropped = self
            .connections
            .enqueue(conn, (channel, has_state), reach, news);
        if dropped > 0 {
            self.count_dropped(Some(conn), channel, dropped, "it reads too slowly");
        }
    }

    /// Turns what waits for a connection into messages, as far as it takes them.
    pub(super) fn pump(&mut self, now: Time, conn: ConnId) {
        while let Some(item) = self.connections.pop(conn) {
            match item {
                Item::Message(message) => self.send(now, conn, &message),
                Item::News(channel, reach, News::Payload(payload)) => {
                    self.send_payload(now, conn, (channel, reach), &payload);
                }
                Item::News(channel, reach, News::Peers(names)) => {
                    for part in self.membership.encode(names) {
                        self.send_payload(now, conn, (channel, reach), &part);
                    }
                }
                Item::News(channel, reach, News::State) => {
                    let ask = self.connections.await_state(conn, channel, reach);
                    if let Some((neighbour, first)) = ask {
                        let channel = self.relay.name(channel).clone();
                        self.sink.push(Output::NeedState {
                            channel,
                            conn,
                            neighbour,
                            first,
                        });
                    }
                }
            }
            self.connections.flush(now, conn, &mut self.sink);
        }
    }

    pub(super) fn send_payload(
        &mut self,
        now: Time,
        conn: ConnId,
        (channel, reach): (ChannelId, Reach),
        payload: &[u8],
    ) {
        let name = self.relay.name(channel).clone();
        let message = match reach {
            Reach::Neighbour => Message::Gossip {
                channel: &name,
                sender: self.membership.us(),
                payload,
            },
            Reach::Everybody(source) => Message::Broadcast {
                channel: &name,
                source,
                payload,
            },
        };
        self.sink.counters.gossip_sent += 1;
        self.sink.counters.gossip_sent_bytes += payload.len() as u64;
        self.send(now, conn, &message.encode());
    }

    /// Queues a message; closes the connection if it cannot carry another one.
    pub(super) fn send(&mut self, now: Time, conn: ConnId, message: &[u8]) {
        if let Err(reason) = self.connections.send(conn, message, &mut self.sink) {
            self.close_connection(now, conn, reason);
        }
    }

    /// Gives a unicast to the neighbour that is next on its way, unless it came from there.
    pub(super) fn forward_unicast(
        &mut self,
        dest: PeerName,
        message: Vec<u8>,
        from: Option<PeerName>,
    ) -> bool {
        let hop = self.membership.routes().unicast_all(dest);
        let hop = hop.filter(|hop| Some(*hop) != from);
        let queued = hop.is_some_and(|hop| self.connections.enqueue_unicast(hop, message));
        if !queued {
            self.sink.counters.unicasts_dropped += 1;
        }
        queued
    }

    pub(super) fn count_dropped(
        &mut self,
        conn: Option<ConnId>,
        channel: ChannelId,
        count: usize,
        reason: &'static str,
    ) {
        self.sink.counters.gossip_dropped += count as u64;
        let member = conn.and_then(|conn| self.connections.member_mut(conn));
        if let Some(peer) = member.and_then(Member::tell_dropped_once) {
            self.sink.event(Event::GossipDropped {
                peer: Some(peer),
                channel: self.relay.name(channel).clone(),
                reason,
            });
        }
    }
}
