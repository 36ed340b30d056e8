//! All connections of our peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use super::config::{ANSWER_TIME_MAX, INTRODUCTIONS_MAX, NodeConfig, PEERS_PER_TURN_MAX};
use super::connection::{Connection, Member, Pending};
use super::digests::Exchange;
use super::event::{CloseReason, Event};
use super::happened::Happened;
use super::introduction::prepare_member;
use super::output::{LinkInfo, Output};
use super::sink::Sink;
use super::view::ConnectionView;
use super::word::Word;
use crate::connector::Dial;
use crate::gossip::{ChannelId, Item, News, Reach};
use crate::message::{Message, MessageError};
use crate::native::SessionNumbers;
use crate::overlay::{LinkAction, Overlay, SwitchOutput};
use crate::sleeve::LinkId;
use crate::types::{ConnId, PeerName, Time};
use crate::wire::{Introduced, WireError, WireEvent};

/// The connections and their links, by all of their names.
#[derive(Debug)]
pub(super) struct Connections {
    pub(super) conns: BTreeMap<ConnId, Connection>,
    dialling: BTreeMap<ConnId, Dial>,
    /// Accepted connections that are not introduced.
    strangers: BTreeSet<ConnId>,
    /// The connection to each neighbour.
    pub(super) members: BTreeMap<PeerName, ConnId>,
    /// The connection of each link.
    pub(super) links: BTreeMap<LinkId, ConnId>,
    /// Connections for which something may have to be sent.
    pub(super) touched: BTreeSet<ConnId>,
    last_conn: u64,
    last_link: u64,
    numbers: SessionNumbers,
}

impl Connections {
    pub(super) fn new(numbers: SessionNumbers) -> Connections {
        Connections {
            conns: BTreeMap::new(),
            dialling: BTreeMap::new(),
            strangers: BTreeSet::new(),
            members: BTreeMap::new(),
            links: BTreeMap::new(),
            touched: BTreeSet::new(),
            last_conn: 0,
            last_link: 0,
            numbers,
        }
    }

    /// Returns the connection of a link.
    pub(super) fn of_link(&self, link: LinkId) -> Option<ConnId> {
        self.links.get(&link).copied()
    }

    /// Returns the connection to a neighbour.
    pub(super) fn of_peer(&self, peer: PeerName) -> Option<ConnId> {
        self.members.get(&peer).copied()
    }

    pub(super) fn ids(&self) -> Vec<ConnId> {
        self.conns.keys().copied().collect()
    }

    /// Returns how many neighbours there are.
    pub(super) fn members(&self) -> usize {
        self.members.len()
    }

    /// Returns how many connections are not introduced yet.
    pub(super) fn introductions(&self) -> usize {
        self.conns.len() - self.members.len()
    }

    pub(super) fn get_mut(&mut self, conn: ConnId) -> Option<&mut Connection> {
        self.conns.get_mut(&conn)
    }

    pub(super) fn member_mut(&mut self, conn: ConnId) -> Option<&mut Member> {
        self.conns.get_mut(&conn)?.member.as_deref_mut()
    }

    /// Returns a connection for which something may have to be sent.
    pub(super) fn pop_touched(&mut self) -> Option<ConnId> {
        self.touched.pop_first()
    }

    pub(super) fn touch(&mut self, conn: ConnId) {
        self.touched.insert(conn);
    }

    /// Returns when something is to be done about any of them.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let timeouts = self.conns.values().flat_map(|connection| {
            let overlay = connection.member.as_ref().map(|m| m.overlay.poll_timeout());
            [Some(connection.poll_timeout()), overlay.flatten()]
        });
        timeouts.flatten().min()
    }

    /// Time passed. Returns why the connection is over, if it is.
    pub(super) fn handle_timeout(&mut self, now: Time, conn: ConnId) -> Result<(), CloseReason> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        if connection.poll_timeout() <= now {
            self.touched.insert(conn);
            connection.handle_timeout(now)?;
        }
        if let Some(member) = &mut connection.member
            && member.overlay.poll_timeout().is_some_and(|at| at <= now)
        {
            member.overlay.handle_timeout(now);
            self.touched.insert(conn);
        }
        Ok(())
    }

    /// Something is to be dialled. Returns the name of the connection.
    pub(super) fn dial(&mut self, dial: Dial) -> ConnId {
        let conn = self.next_conn();
        self.dialling.insert(conn, dial);
        conn
    }

    /// Returns what was dialled under this name.
    pub(super) fn take_dial(&mut self, conn: ConnId) -> Option<Dial> {
        self.dialling.remove(&conn)
    }

    /// Returns true if as many connections are without introduction as there may be.
    pub(super) fn is_crowded(&self) -> bool {
        self.strangers.len() >= INTRODUCTIONS_MAX
    }

    /// Returns the connection to give up if another one is accepted while it is crowded: the oldest
    /// of the address that has most of them, so that one host cannot keep out another; of addresses
    /// that the mesh knows only if there are no others.
    ///
    /// Rule: `docs/protocol/mesh.md#10-weft`.
    pub(super) fn crowded_out(&self, is_known: impl Fn(IpAddr) -> bool) -> Option<ConnId> {
        let address = |conn: &ConnId| self.conns.get(conn).map(|c| c.remote.ip());
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for ip in self.strangers.iter().filter_map(address) {
            *counts.entry(ip).or_default() += 1;
        }
        let rank = |ip: IpAddr| (!is_known(ip), counts.get(&ip).copied());
        let ranks = counts.keys().map(|ip| rank(*ip));
        let first = ranks.max()?;
        let crowd = |conn: &&ConnId| address(conn).is_some_and(|ip| rank(ip) == first);
        self.strangers.iter().find(crowd).copied()
    }

    /// Reports that a connection was accepted. Returns its handle.
    pub(super) fn accept(&mut self) -> ConnId {
        let conn = self.next_conn();
        self.strangers.insert(conn);
        conn
    }

    /// Begins the introduction on a connection that was just made.
    pub(super) fn open(&mut self, conn: ConnId, connection: Connection) {
        self.conns.insert(conn, connection);
        self.touched.insert(conn);
    }

    /// Creates from an introduction what the connection needs to become one to a neighbour.
    pub(super) fn prepare(
        &mut self,
        conn: ConnId,
        introduced: &Introduced,
        config: &NodeConfig,
    ) -> Result<Member, CloseReason> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Err(CloseReason::Ended("connection is gone".to_owned()));
        };
        let last_link = &mut self.last_link;
        prepare_member(connection, introduced, (config, self.numbers), || {
            *last_link += 1;
            LinkId(*last_link)
        })
    }

    /// Returns true if the other end may be a peer that the mesh does not know yet; `None` if there
    /// is no such connection.
    pub(super) fn accepts_new(&self, conn: ConnId) -> Option<bool> {
        let connection = self.conns.get(&conn)?;
        Some(connection.dial.is_none_or(|dial| dial.accept_new))
    }

    /// Makes a connection the one to its peer, and tells of its links.
    pub(super) fn add(&mut self, now: Time, conn: ConnId, member: Member, sink: &mut Sink) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let dialled = connection.dial.is_some();
        let links = member.overlay.forwarders().filter_map(|view| {
            Some(LinkInfo {
                link: view.link,
                conn,
                peer: member.peer,
                overlay: view.overlay,
                remote_overlays: member.remote_overlays.clone(),
                uid: member.uid,
                key: member.key.clone(),
                dialled,
                path: view.path?,
            })
        });
        for info in links {
            self.links.insert(info.link, conn);
            sink.push(Output::LinkAdded(Box::new(info)));
        }
        self.members.insert(member.peer, conn);
        connection.admit(now, member);
        self.strangers.remove(&conn);
    }

    /// Removes a connection and its links.
    pub(super) fn remove(
        &mut self,
        now: Time,
        conn: ConnId,
        sink: &mut Sink,
    ) -> Option<Connection> {
        let connection = self.conns.remove(&conn)?;
        // Nobody will answer on it any more.
        for waiting in self.conns.values_mut() {
            if let Some(Pending::Answer { on, until, .. }) = &mut waiting.pending
                && *on == conn
            {
                *until = now;
            }
        }
        self.strangers.remove(&conn);
        sink.counters.terminations += 1;
        let Some(member) = &connection.member else {
            return Some(connection);
        };
        let peer = member.peer;
        if self.members.get(&peer) == Some(&conn) {
            self.members.remove(&peer);
            let links = Vec::new();
            sink.push(Output::LinkOrder { peer, links });
        }
        for view in member.overlay.forwarders() {
            let link = view.link;
            if self.links.remove(&link).is_some() {
                sink.push(Output::LinkRemoved { link });
            }
        }
        Some(connection)
    }

    /// Returns what happened on a connection next that concerns more than itself. Nothing once it
    /// is closed.
    pub(super) fn next(&mut self, now: Time, conn: ConnId, sink: &mut Sink) -> Option<Happened> {
        loop {
            let connection = self.conns.get_mut(&conn)?;
            if let Some(Pending::Answer { until, .. }) = connection.pending {
                return (until <= now).then(|| connection.take_answered()).flatten();
            }
            let overlay = connection.member.as_mut();
            let happened = match overlay.and_then(|member| member.overlay.poll_output()) {
                Some(output) => self.handle_overlay(now, conn, output, sink),
                None => match connection.poll_wire()? {
                    WireEvent::Introduced(introduced) => {
                        self.touched.insert(conn);
                        connection.prove(introduced)
                    }
                    WireEvent::Message(message) => self.handle_message(now, conn, message, sink),
                },
            };
            if happened.is_some() {
                return happened;
            }
        }
    }

    fn handle_message(
        &mut self,
        now: Time,
        conn: ConnId,
        bytes: Vec<u8>,
        sink: &mut Sink,
    ) -> Option<Happened> {
        let connection = self.conns.get_mut(&conn)?;
        connection.note_message(now);
        if connection.member.is_none() {
            return connection.take_proof(bytes);
        }
        let member = connection.member.as_mut()?;
        if (member.agreed.ask || member.agreed.sleeve) && Word::parse(&bytes).is_some() {
            return self.handle_word(now, conn, &bytes, sink);
        }
        let message = match Message::decode(&bytes, member.overlay.mode()) {
            Ok(message) => message,
            Err(error @ MessageError::Envelope(_)) => return Some(Happened::Lost(error.into())),
            Err(error) => {
                member.ignore(|| error.to_string(), sink);
                return None;
            }
        };
        let (place, tag, body) = match message {
            Message::Heartbeat | Message::Empty => return None,
            Message::Own { kind, body } => {
                let exchange = Exchange::decode(kind, body).filter(|_| member.has_digests);
                if exchange.is_none() {
                    member.ignore(|| format!("message of unknown kind {kind}"), sink);
                }
                return exchange.map(Happened::Exchange);
            }
            Message::Unknown(tag) => {
                member.ignore(|| format!("message with unknown tag {tag}"), sink);
                return None;
            }
            Message::Legacy { tag, body } => (0, tag.get(), body),
            Message::Overlay { index, tag, body } => (usize::from(index.get()), tag, body),
            _ => return Some(Happened::Gossip(member.peer, bytes)),
        };
        if let Err(error) = member.overlay.handle_control(now, place, tag, body) {
            member.ignore(|| error.to_string(), sink);
        }
        None
    }

    /// The other end speaks about the connection itself.
    fn handle_word(
        &mut self,
        now: Time,
        conn: ConnId,
        message: &[u8],
        sink: &mut Sink,
    ) -> Option<Happened> {
        let connection = self.conns.get_mut(&conn)?;
        match Word::parse(message)? {
            Word::Ask(number) => {
                self.touched.insert(conn);
                let answer = Word::Here(number).encode();
                let sent = connection.send_control(&answer);
                sent.err().map(|error| Happened::Lost(error.into()))
            }
            Word::Here(number) => {
                let new = ConnId(number);
                let waiting = self.conns.get(&new)?;
                let Some(Pending::Answer { on, .. }) = waiting.pending else {
                    return None;
                };
                (on == conn).then_some(Happened::Answered(new))
            }
            Word::Taken(address) => {
                let peer = connection.member.as_ref()?.label.clone();
                let address = Some(address);
                sink.event(Event::Twin { peer, address });
                None
            }
            Word::Sleeve(uses) => {
                let member = connection.member.as_mut()?;
                member.overlay.handle_uses_sleeve(now, uses);
                None
            }
            Word::Confirm(_) => None,
        }
    }

    /// Before a connection replaces one to another start of its peer, asks on that one whether the
    /// peer is alive. Returns the introduction if there is nobody to ask.
    pub(super) fn ask_first(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: Introduced,
    ) -> Option<Introduced> {
        let other = self.of_peer(introduced.remote.name);
        let Some(other) = other.filter(|_| self.conns.get(&conn).is_some_and(|c| !c.asked)) else {
            return Some(introduced);
        };
        let Some(old) = self.conns.get_mut(&other) else {
            return Some(introduced);
        };
        let is_other_start = |m: &Member| m.peer_uid != introduced.remote.uid && m.agreed.ask;
        if !old.member.as_deref().is_some_and(is_other_start)
            || old.send_control(&Word::Ask(conn.0).encode()).is_err()
        {
            return Some(introduced);
        }
        self.touched.insert(other);
        if let Some(connection) = self.conns.get_mut(&conn) {
            connection.asked = true;
            connection.pending = Some(Pending::Answer {
                introduced: Box::new(introduced),
                on: other,
                until: now + ANSWER_TIME_MAX,
            });
        }
        None
    }

    /// Returns the address of the other end.
    pub(super) fn address(&self, conn: ConnId) -> Option<SocketAddr> {
        self.conns.get(&conn).map(|connection| connection.remote)
    }

    /// Tells the other end where another live router is that carries its name.
    pub(super) fn tell_taken(&mut self, conn: ConnId, by: SocketAddr) {
        if let Some(connection) = self.conns.get_mut(&conn) {
            // If the message is lost, our log tells of it.
            let _ = connection.send_control(&Word::Taken(by.to_string()).encode());
        }
    }

    /// Executes the outputs of a connection's overlays.
    fn handle_overlay(
        &mut self,
        now: Time,
        conn: ConnId,
        output: SwitchOutput,
        sink: &mut Sink,
    ) -> Option<Happened> {
        let connection = self.conns.get_mut(&conn)?;
        let member = connection.member.as_mut()?;
        if let Some(word) = member.say_sleeve() {
            // Before the first frame goes another way.
            if let Err(error) = connection.send_control(&word.encode()) {
                return Some(Happened::Lost(error.into()));
            }
            self.flush(now, conn, sink);
        }
        let connection = self.conns.get_mut(&conn)?;
        let member = connection.member.as_mut()?;
        let (peer, label) = (member.peer, member.label.clone());
        match output {
            SwitchOutput::Message(message) => {
                if let Err(error) = connection.send_control(&message) {
                    return Some(Happened::Lost(error.into()));
                }
                // At once, because the peer waits for answers to tests.
                self.flush(now, conn, sink);
            }
            SwitchOutput::Link(output) => {
                if let LinkAction::Path(path) = &output.what
                    && path.mtu_verified
                    && member.told.mtu.replace(path.mtu) != Some(path.mtu)
                {
                    let mtu = path.mtu;
                    sink.event(Event::Mtu { peer: label, mtu });
                }
                sink.push(Output::Link(output));
            }
            SwitchOutput::Health { overlay, held } => {
                sink.counters.overlay_holds += u64::from(held.is_some());
                sink.event(Event::OverlayHealth {
                    peer: label,
                    overlay: overlay.name(),
                    held,
                });
            }
            SwitchOutput::Moved { from, to, .. } => {
                let peer = label;
                sink.event(Event::Moved { peer, from, to });
            }
            SwitchOutput::Order(links) => {
                member.note_active(sink);
                sink.push(Output::LinkOrder { peer, links });
            }
            SwitchOutput::Established => {
                let active = member.overlay.active().map(|view| view.overlay);
                member.told.active = active;
                let overlay = active.map_or("none", Overlay::name);
                sink.event(Event::Established {
                    conn,
                    peer: label,
                    overlay,
                });
                return Some(Happened::Established(peer));
            }
            SwitchOutput::LinkFailed {
                link,
                overlay,
                reason,
            } => {
                sink.counters.overlay_failures += 1;
                self.links.remove(&link);
                sink.push(Output::LinkRemoved { link });
                sink.event(Event::OverlayFailed {
                    peer: label,
                    overlay: overlay.name(),
                    reason,
                });
            }
            SwitchOutput::Broken(reason) => {
                return Some(Happened::Lost(CloseReason::Overlay(reason)));
            }
        }
        None
    }

    /// Puts news into the outbox of a connection. Returns the number of dropped payloads.
    pub(super) fn enqueue(
        &mut self,
        conn: ConnId,
        (channel, has_state): (ChannelId, bool),
        reach: Reach,
        news: News,
    ) -> usize {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return 0;
        };
        self.touched.insert(conn);
        connection.outbox.push(channel, reach, news, has_state)
    }

    /// Gives a unicast to a neighbour. Returns whether there was room for it.
    pub(super) fn enqueue_unicast(&mut self, neighbour: PeerName, message: Vec<u8>) -> bool {
        let conn = self.of_peer(neighbour);
        let Some(connection) = conn.and_then(|conn| self.conns.get_mut(&conn)) else {
            return false;
        };
        self.touched.extend(conn);
        connection.outbox.push_unicast(message)
    }

    /// Returns what waits for a connection and may be sent now.
    pub(super) fn pop(&mut self, conn: ConnId) -> Option<Item> {
        self.conns.get_mut(&conn)?.outbox.pop(PEERS_PER_TURN_MAX)
    }

    /// Records that a channel's state is to be sent. Returns the neighbour, and whether it is the
    /// first time, if the driver has to be asked for it.
    pub(super) fn await_state(
        &mut self,
        conn: ConnId,
        channel: ChannelId,
        reach: Reach,
    ) -> Option<(PeerName, bool)> {
        let connection = self.conns.get_mut(&conn)?;
        let asked = connection.outbox.is_awaiting(channel);
        connection.outbox.await_state(channel, reach);
        let member = connection.member.as_mut().filter(|_| !asked)?;
        Some((member.peer, member.told.states.insert(channel)))
    }

    /// Receivers of the state of a channel that the driver was asked for.
    pub(super) fn take_awaiting(&mut self, conn: ConnId, channel: ChannelId) -> Vec<Reach> {
        let connection = self.conns.get_mut(&conn);
        connection.map_or_else(Vec::new, |c| c.outbox.take_awaiting(channel))
    }

    /// Queues a message. An error says why the connection cannot carry another one.
    pub(super) fn send(
        &mut self,
        conn: ConnId,
        message: &[u8],
        sink: &mut Sink,
    ) -> Result<(), CloseReason> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        match connection.wire.send(message) {
            Ok(()) => Ok(()),
            Err(WireError::Exhausted) => Err(WireError::Exhausted.into()),
            // The message is too long; others can follow.
            Err(_) => {
                sink.counters.gossip_dropped += 1;
                Ok(())
            }
        }
    }

    /// Passes what a connection has to send to the driver.
    pub(super) fn flush(&mut self, now: Time, conn: ConnId, sink: &mut Sink) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        while let Some(bytes) = connection.poll_transmit(now) {
            sink.push(Output::Send { conn, bytes });
        }
    }

    /// Connections to neighbours as pages show them, oldest first.
    pub(super) fn views(&self) -> impl Iterator<Item = ConnectionView> {
        self.conns.iter().filter_map(|(conn, connection)| {
            let member = connection.member.as_ref()?;
            Some(ConnectionView {
                conn: *conn,
                peer: member.label.clone(),
                address: connection.remote,
                outbound: connection.dial.is_some(),
                established: member.overlay.is_established(),
                uid: member.uid,
                version: member.version,
                encrypted: member.encrypted,
                trusted: member.trusted,
                remote_overlays: member.remote_overlays.clone(),
                forwarders: member.overlay.forwarders().collect(),
                active: member.overlay.active(),
                bytes_in_flight: connection.outbox.in_flight(),
                bytes_waiting: connection.outbox.waiting_bytes(),
            })
        })
    }

    fn next_conn(&mut self) -> ConnId {
        self.last_conn += 1;
        ConnId(self.last_conn)
    }
}
