//! All parts of a node, and the exchange between them.
//!
//! No part knows another. Events of one part come here ([`Happened`]) and are passed on to the
//! others, in an order that is the same in every run.

use std::net::SocketAddrV4;

use super::channels::{Content, TOPOLOGY_ID};
use super::config::{GOSSIP_INTERVAL, NodeConfig};
use super::connection::Member;
use super::connections::Connections;
use super::digests::Digests;
use super::event::{CloseReason, Event};
use super::happened::Happened;
use super::membership::Membership;
use super::output::{DeliveryKind, Output, offers_weft};
use super::relay::{Heard, Relay};
use super::sink::Sink;
use crate::connector::{Connector, ConnectorConfig, Ended, Link};
use crate::gossip::{ChannelId, Item, News, Reach, Route};
use crate::message::{Message, OverlayMode};
use crate::native::SessionNumbers;
use crate::sleeve::LinkId;
use crate::topology::Foreign;
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
    /// Creates a peer without connections.
    pub(super) fn new(config: NodeConfig, now: Time) -> Core {
        let mut rng = fastrand::Rng::with_seed(config.seed);
        let membership = Membership::new(&config, rng.fork());
        // Peers that start together must not gossip together.
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

    /// Returns what an introduction says of us.
    pub(super) fn ourself(&self) -> (&NodeConfig, Option<ShortId>) {
        let ourself = self.membership.topology().peer(self.membership.us());
        (&self.config, ourself.and_then(|ourself| ourself.short_id))
    }

    /// Returns false if packets of a link are plain because its network is trusted, and come from
    /// outside of that.
    pub(super) fn is_trusted_source(&mut self, link: LinkId, from: SocketAddrV4) -> bool {
        let conn = self.connections.of_link(link);
        let member = conn.and_then(|conn| self.connections.member_mut(conn));
        let is_trusted = member.is_some_and(|member| member.trusted);
        let subnets = &self.config.trusted_subnets;
        let ip = std::net::IpAddr::V4(*from.ip());
        !is_trusted || subnets.iter().any(|subnet| subnet.contains(&ip))
    }

    /// Returns the connection to give up if another one is accepted now.
    pub(super) fn crowded_out(&mut self) -> Option<ConnId> {
        if !self.connections.is_crowded() {
            return None;
        }
        let known = self.membership.addresses();
        self.connections.crowded_out(|ip| known.contains(&ip))
    }

    /// Passes on all events of a connection.
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
                Happened::Answered(new) => {
                    self.refuse_twin(now, conn, new);
                    Ok(())
                }
                Happened::Lost(reason) => Err(reason),
            };
            if let Err(reason) = handled {
                self.close_connection(now, conn, reason);
            }
        }
    }

    /// Executes everything that follows from what was just handled.
    pub(super) fn settle(&mut self, now: Time) {
        self.membership.note_changes(now);
        self.exchange(now);
        self.pass_on();
        while let Some(conn) = self.connections.pop_touched() {
            self.connections.flush(now, conn, &mut self.sink);
            self.pump(now, conn);
        }
        if self.connector.take_met_changed() {
            let met = self.connector.met().collect();
            self.sink.push(Output::PeersMet(met));
        }
        while let Some(dial) = self.connector.poll_output() {
            let conn = self.connections.dial(dial);
            self.sink.push(Output::Dial { conn, to: dial.to });
        }
    }

    /// Rule: `docs/protocol/mesh.md#7-4-calculation`.
    pub(super) fn recalculate(&mut self, now: Time) {
        self.membership.recalculate(now, &mut self.sink);
        self.connector
            .handle_topology(now, self.membership.topology());
    }

    /// Handles a completed introduction: makes the connection a member, or returns why not.
    pub(super) fn introduce(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: Introduced,
    ) -> Result<(), CloseReason> {
        let Some(accept_new) = self.connections.accepts_new(conn) else {
            return Ok(());
        };
        self.refuse_downgrade(&introduced)?;
        let asked = self.connections.ask_first(now, conn, introduced);
        let Some(introduced) = asked else {
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

    /// Closes a connection to a start of a peer that is alive elsewhere, since it is not its next
    /// start, and tells both where the other is.
    fn refuse_twin(&mut self, now: Time, old: ConnId, new: ConnId) {
        let address = |conn| self.connections.address(conn);
        let (Some(old_at), Some(new_at)) = (address(old), address(new)) else {
            return;
        };
        let Some(peer) = self.connections.member_mut(old).map(|member| member.peer) else {
            return;
        };
        for (conn, other) in [(old, new_at), (new, old_at)] {
            self.connections.tell_taken(conn, other);
            self.connections.flush(now, conn, &mut self.sink);
        }
        self.close_connection(now, new, CloseReason::NameTaken(peer, old_at));
    }

    /// Protocol 1 says who is there in the clear, so whoever stands in between can make it of an
    /// introduction of protocol 2. A router of ours never offers it alone.
    fn refuse_downgrade(&mut self, introduced: &Introduced) -> Result<(), CloseReason> {
        let remote = &introduced.remote;
        if introduced.session_key.is_none() {
            return Ok(());
        }
        if introduced.version > 1 {
            let overlays = remote.overlays.as_deref().unwrap_or_default();
            self.membership
                .note_weft(remote.name, offers_weft(overlays));
        } else if self.membership.is_weft(remote.name) {
            return Err(CloseReason::Downgraded(remote.name));
        }
        Ok(())
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

    /// Rule: `docs/protocol/mesh.md#3-6-duplicates`.
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

    /// Closes a connection, introduced or not, and updates everything that depends on it.
    pub(super) fn close_connection(&mut self, now: Time, conn: ConnId, reason: CloseReason) {
        let Some(connection) = self.connections.remove(now, conn, &mut self.sink) else {
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

    /// Handles a gossip message. The error is the reason to close its connection.
    ///
    /// Rule: `docs/protocol/mesh.md#5-4-relaying`.
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

    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
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
        if let Some(foreign) = merged.foreign {
            self.note_foreign(conn, foreign);
        }
        match kind {
            DeliveryKind::Broadcast { source } => {
                self.tell_peers_later(Route::Broadcast { source }, merged.named);
            }
            _ => self.pass_on_peers(neighbour, merged.improved),
        }
        Ok(())
    }

    /// Reports an entry of our peer that is not ours.
    fn note_foreign(&mut self, conn: ConnId, foreign: Foreign) {
        let is_forged = foreign.uid == self.config.uid;
        self.sink.counters.forgeries += u64::from(is_forged);
        let is_twin = !is_forged && self.membership.note_twin(foreign.uid);
        let Some(member) = self.connections.member_mut(conn) else {
            return;
        };
        let peer = member.label.clone();
        if is_forged && !std::mem::replace(&mut member.told.forged, true) {
            let version = foreign.version;
            self.sink.event(Event::Forged { peer, version });
        } else if is_twin {
            let address = None;
            self.sink.event(Event::Twin { peer, address });
        }
    }

    pub(super) fn tell(&mut self, now: Time, channel: &str, route: Route, content: Content) {
        if let Some(id) = self.relay.outside(channel) {
            self.tell_later(id, route, content.into());
            self.settle(now);
        }
    }

    /// Relays news as soon as routes are up to date.
    pub(super) fn tell_later(&mut self, channel: ChannelId, route: Route, news: News) {
        if let Route::Broadcast { source } = route
            && self.membership.topology().peer(source).is_none()
        {
            // There is no route for it, and the number of waiting broadcasts is bounded.
            return;
        }
        let dropped = self.relay.push(channel, route, news);
        if dropped > 0 {
            self.count_dropped(None, channel, dropped, "too much waits for routes");
        }
    }

    /// Moves waiting news to the outboxes of their destinations.
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

    /// Tells a new neighbour the state of all channels that the driver handles.
    fn send_outside_state(&mut self, conn: ConnId) {
        for id in self.relay.all_outside() {
            self.enqueue(conn, id, Reach::Neighbour, News::State);
        }
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

    /// Encodes what waits for a connection, as far as it accepts messages.
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

    /// Queues a message. Closes the connection if it cannot carry any more messages.
    pub(super) fn send(&mut self, now: Time, conn: ConnId, message: &[u8]) {
        if let Err(reason) = self.connections.send(conn, message, &mut self.sink) {
            self.close_connection(now, conn, reason);
        }
    }

    /// Forwards a unicast to its next hop, unless it came from there.
    ///
    /// Rule: `docs/protocol/mesh.md#5-4-relaying`.
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
