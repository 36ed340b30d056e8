//! From a TCP connection to a member of our peer, or to its end.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use super::config::{ConnSecret, INTRODUCTIONS_MAX};
use super::connection::{Connection, Member, Told};
use super::event::{CloseReason, Event, PeerLabel};
use super::{LinkInfo, Node, Output};
use crate::connector::{Dial, Ended, Link};
use crate::crypto::PrivateKey;
use crate::features::Features;
use crate::overlay::{OverlaySwitch, Params};
use crate::sleeve::LinkId;
use crate::topology;
use crate::types::{ConnId, ConnUid, PeerName, PeerUid, Time};
use crate::wire::{Introduced, Wire, WireConfig};

impl Node {
    /// A connection was accepted. Returns the name under which it is known from here on.
    pub fn handle_accepted(&mut self, now: Time, remote: SocketAddr, secret: ConnSecret) -> ConnId {
        if self.strangers.len() >= INTRODUCTIONS_MAX
            && let Some(victim) = self.stranger_to_drop()
        {
            self.counters.strangers_dropped += 1;
            self.close_connection(now, victim, CloseReason::Crowded);
        }
        let conn = self.next_conn();
        self.strangers.insert(conn);
        self.open(now, conn, remote, None, secret);
        conn
    }

    /// [`Output::Dial`] led to a connection.
    pub fn handle_dialled(
        &mut self,
        now: Time,
        conn: ConnId,
        remote: SocketAddr,
        secret: ConnSecret,
    ) {
        match self.dialling.remove(&conn) {
            Some(dial) => self.open(now, conn, remote, Some(dial), secret),
            None => self.outputs.push_back(Output::Close { conn }),
        }
    }

    /// [`Output::Dial`] led to nothing.
    pub fn handle_dial_failed(&mut self, now: Time, conn: ConnId, error: &str) {
        let Some(dial) = self.dialling.remove(&conn) else {
            return;
        };
        let ended = Ended {
            dialled: Some(dial.to),
            peer: None,
            error,
            never_again: false,
        };
        self.connector.handle_ended(now, conn, ended);
        self.event(Event::DialFailed {
            address: dial.to,
            error: error.to_owned(),
        });
        self.settle(now);
    }

    /// The connection to give up when too many are without introduction: the oldest of the
    /// address that has most of them, so that one host cannot keep out another.
    fn stranger_to_drop(&self) -> Option<ConnId> {
        let address = |conn: &ConnId| self.conns.get(conn).map(|c| c.remote.ip());
        let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
        for ip in self.strangers.iter().filter_map(address) {
            *counts.entry(ip).or_default() += 1;
        }
        let most = counts.values().copied().max()?;
        let crowd = |conn: &&ConnId| address(conn).is_some_and(|ip| counts.get(&ip) == Some(&most));
        self.strangers.iter().find(crowd).copied()
    }

    fn open(
        &mut self,
        now: Time,
        conn: ConnId,
        remote: SocketAddr,
        dial: Option<Dial>,
        secret: ConnSecret,
    ) {
        let remote = SocketAddr::new(remote.ip().to_canonical(), remote.port());
        let subnets = &self.config.trusted_subnets;
        let trusting = !self.config.require_encryption
            && subnets.iter().any(|subnet| subnet.contains(&remote.ip()));
        let ourself = self.topology.peer(self.us);
        let overlays = self.config.overlays.iter();
        let features = Features {
            name: self.us,
            nickname: self.config.nickname.clone(),
            uid: self.config.uid,
            conn_id: secret.conn_id,
            short_id: ourself.and_then(|ourself| ourself.short_id),
            trusted: trusting,
            overlays: Some(overlays.map(|overlay| overlay.name().to_owned()).collect()),
            extra: BTreeMap::new(),
        };
        let wire = WireConfig {
            min_version: self.config.min_version,
            max_version: self.config.max_version,
            ..WireConfig::new(features, self.config.password.clone())
        };
        let wire = Wire::new(wire, dial.is_some(), PrivateKey::from_bytes(secret.key));
        let connection = Connection::new(now, remote, dial, trusting, &secret, wire);
        self.conns.insert(conn, connection);
        self.touched.insert(conn);
        self.settle(now);
    }

    /// Both ends of a connection are known to each other: makes it a member, or says why not.
    pub(super) fn introduce(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: Introduced,
    ) -> Result<(), CloseReason> {
        let remote = &introduced.remote;
        let Some(connection) = self.conns.get(&conn) else {
            return Ok(());
        };
        let accept_new = connection.dial.is_none_or(|dial| dial.accept_new);
        let peer = topology::Introduced {
            name: remote.name,
            nickname: &remote.nickname,
            uid: remote.uid,
            short_id: remote.short_id,
        };
        let admitted = self.topology.admit(peer, accept_new)?;
        match self.prepare_member(now, conn, &introduced) {
            Ok(member) => {
                self.add_member(now, conn, member, admitted.restarted);
                Ok(())
            }
            Err(reason) => {
                self.topology.release(introduced.remote.name);
                self.collect_garbage(now, Some(introduced.remote.name));
                Err(reason)
            }
        }
    }

    fn prepare_member(
        &mut self,
        now: Time,
        conn: ConnId,
        introduced: &Introduced,
    ) -> Result<Member, CloseReason> {
        let remote = &introduced.remote;
        let Some(connection) = self.conns.get(&conn) else {
            return Err(CloseReason::Ended("connection is gone".to_owned()));
        };
        let trusted = connection.trusting && remote.trusted;
        let uid = ConnUid(connection.conn_id ^ remote.conn_id);
        let params = Params {
            us: self.us,
            peer: remote.name,
            uid,
            remote: connection.remote,
            dialled: connection.dial.is_some(),
            session_key: introduced.session_key.clone(),
            trusted,
            sealed_only: self.config.require_encryption,
            transcript: introduced.transcript,
            seed: connection.native_seed,
            ciphers: self.config.ciphers,
            numbers: self.numbers,
            key_life: self.config.key_life,
        };
        let last_link = &mut self.last_link;
        let overlay = OverlaySwitch::prepare(
            &self.config.overlays,
            remote.overlays.as_deref(),
            &params,
            || {
                *last_link += 1;
                LinkId(*last_link)
            },
        )?;
        self.break_tie(now, remote.name, remote.uid, uid)?;
        let limit = self.config.connection_limit;
        if limit != 0 && self.members.len() >= limit {
            return Err(CloseReason::ConnectionLimit(limit));
        }
        Ok(Member {
            peer: remote.name,
            peer_uid: remote.uid,
            label: PeerLabel::new(remote.name, &remote.nickname),
            uid,
            version: introduced.version,
            encrypted: introduced.session_key.is_some(),
            key: params.sleeve_key().cloned(),
            trusted,
            remote_overlays: remote.overlays.clone().unwrap_or_default().into(),
            overlay,
            told: Told::default(),
        })
    }

    /// Of two connections to one peer the one with the lower number stays; both ends come to the
    /// same result. A connection to an earlier start of the peer is dead, whatever its number.
    fn break_tie(
        &mut self,
        now: Time,
        peer: PeerName,
        peer_uid: PeerUid,
        uid: ConnUid,
    ) -> Result<(), CloseReason> {
        let Some(&other) = self.members.get(&peer) else {
            return Ok(());
        };
        let Some(member) = self.conns.get(&other).and_then(|c| c.member.as_ref()) else {
            return Ok(());
        };
        if member.peer_uid != peer_uid {
            self.close_connection(now, other, CloseReason::Restarted(peer));
            return Ok(());
        }
        let theirs = member.uid;
        let duplicate = || CloseReason::Duplicate(peer, self.us);
        let (lost, won) = (duplicate(), uid < theirs);
        if uid <= theirs {
            self.close_connection(now, other, lost.clone());
        }
        if won { Ok(()) } else { Err(lost) }
    }

    fn add_member(&mut self, now: Time, conn: ConnId, member: Member, restarted: bool) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let (peer, address) = (member.peer, connection.remote);
        let outbound = connection.dial.is_some();
        let event = Event::Added {
            conn,
            peer: member.label.clone(),
            address,
            outbound,
            restarted,
            encrypted: member.encrypted,
            frames_encrypted: member.key.is_some(),
            version: member.version,
        };
        let links = member.overlay.forwarders().filter_map(|view| {
            Some(LinkInfo {
                link: view.link,
                conn,
                peer,
                overlay: view.overlay,
                remote_overlays: member.remote_overlays.clone(),
                uid: member.uid,
                key: member.key.clone(),
                dialled: outbound,
                path: view.path?,
            })
        });
        for info in links {
            self.links.insert(info.link, conn);
            self.outputs.push_back(Output::LinkAdded(Box::new(info)));
        }
        connection.admit(now, member);
        self.strangers.remove(&conn);
        self.members.insert(peer, conn);
        let known = self.routes.unicast(peer).is_some();
        self.topology.add_connection(peer, address, outbound);
        self.announce.insert(peer);
        let link = Link {
            peer,
            address,
            outbound,
        };
        self.connector.handle_added(now, conn, link);
        self.event(event);
        if restarted || !known {
            self.send_all_state(conn);
        } else {
            self.send_recent_changes(now, conn);
        }
        if let Some(member) = self.member_mut(conn) {
            member.overlay.confirm(now);
        }
        self.handle_overlay(now, conn);
    }
}
