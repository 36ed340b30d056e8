//! What a node tells of the topology, and to whom: to those of our kind that compare digests, and
//! to all others.

use std::collections::BTreeSet;

use super::channels::TOPOLOGY_ID;
use super::connections::Connections;
use super::core::Core;
use super::digests::{Exchange, Task};
use crate::gossip::{News, Reach, Route};
use crate::message::Message;
use crate::types::{ConnId, PeerName, Time};

impl Core {
    /// Passes on what a neighbour told of these peers. Who compares digests tells all neighbours
    /// itself, so what comes from a neighbour of ours that does goes on to those only that it does
    /// not list, and to some of the others.
    pub(super) fn pass_on_peers(&mut self, from: PeerName, names: BTreeSet<PeerName>) {
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
        let drawn = self.draw_neighbours(except);
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
        let drawn = self.draw_neighbours(None);
        for (peer, conn) in self.connections.neighbours() {
            if self.connections.has_digests(conn) || drawn.contains(&peer) {
                let news = News::Peers(names.clone());
                self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, news);
            }
        }
    }

    /// Some neighbours, drawn by chance, and those to whom there is no route yet.
    fn draw_neighbours(&mut self, except: Option<PeerName>) -> BTreeSet<PeerName> {
        let routes = self.membership.routes();
        let mut drawn: BTreeSet<PeerName> = self.relay.draw(routes, except).into_iter().collect();
        let all = self.connections.neighbours().into_iter();
        drawn.extend(
            all.map(|(peer, _)| peer)
                .filter(|peer| routes.unicast_all(*peer).is_none()),
        );
        drawn
    }

    pub(super) fn tell_peers_later(&mut self, route: Route, names: BTreeSet<PeerName>) {
        if !names.is_empty() {
            self.tell_later(TOPOLOGY_ID, route, News::Peers(names));
        }
    }

    /// Tells a neighbour all that is known of the mesh.
    pub(super) fn tell_all(&mut self, conn: ConnId) {
        let names = self.membership.all();
        self.enqueue(conn, TOPOLOGY_ID, Reach::Neighbour, News::Peers(names));
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
    pub(super) fn handle_exchange(&mut self, now: Time, conn: ConnId, exchange: Exchange) {
        match exchange {
            Exchange::Digest(theirs) => {
                let ours = self.membership.topology().digest();
                self.digests.handle_digest(now, conn, theirs, ours);
            }
            Exchange::Want => self.digests.handle_want(now, conn),
        }
    }

    /// Does what comparing digests asks for.
    pub(super) fn exchange(&mut self, now: Time) {
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

    pub(super) fn tell_digest(&mut self, now: Time, conn: ConnId) {
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
}

impl Connections {
    /// Returns all neighbours, each with its connection.
    pub(super) fn neighbours(&self) -> Vec<(PeerName, ConnId)> {
        let all = self.members.iter();
        all.map(|(peer, conn)| (*peer, *conn)).collect()
    }

    /// Returns true if the other end of a connection compares digests with us.
    pub(super) fn has_digests(&self, conn: ConnId) -> bool {
        let member = self.conns.get(&conn).and_then(|c| c.member.as_ref());
        member.is_some_and(|member| member.has_digests)
    }

    /// Creates the connections to neighbours that compare digests with us.
    pub(super) fn with_digests(&self) -> Vec<ConnId> {
        let all = self.members.values().copied();
        all.filter(|conn| self.has_digests(*conn)).collect()
    }
}
