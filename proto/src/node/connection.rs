//! One TCP connection of ours, from its first byte to its last.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{
    CONTROL_BYTES_MAX, ConnSecret, HEARTBEAT_INTERVAL, INTRODUCTION_TIME_MAX, READ_TIME_MAX,
    WRITE_TIME_MAX,
};
use super::event::{CloseReason, Event, PeerLabel};
use super::sink::Sink;
use crate::connector::Dial;
use crate::crypto::SessionKey;
use crate::gossip::{ChannelId, Outbox, WINDOW_BYTES};
use crate::message::Message;
use crate::overlay::OverlaySwitch;
use crate::types::{ConnUid, PeerName, PeerUid, Time};
use crate::wire::{Wire, WireError};

/// A connection. Without a member it is not introduced yet.
#[derive(Debug)]
pub(super) struct Connection {
    /// The other end's address.
    pub(super) remote: SocketAddr,
    /// The attempt that led to it, if we dialled.
    pub(super) dial: Option<Dial>,
    /// Whether we trust the subnet in which we see the other end.
    pub(super) trusting: bool,
    /// Our half of its number.
    pub(super) conn_id: u64,
    /// Where native keys come from.
    pub(super) native_seed: [u8; 32],
    pub(super) wire: Wire,
    pub(super) outbox: Outbox,
    pub(super) member: Option<Box<Member>>,
    since: Time,
    last_message: Time,
    next_heartbeat: Time,
    /// Since when bytes are in the driver's hands of which none left.
    stuck_since: Option<Time>,
}

/// What is known once the connection was added to our peer.
#[derive(Debug)]
pub(super) struct Member {
    pub(super) peer: PeerName,
    pub(super) peer_uid: PeerUid,
    pub(super) label: PeerLabel,
    pub(super) uid: ConnUid,
    pub(super) version: u8,
    /// Whether messages are encrypted.
    pub(super) encrypted: bool,
    /// The key of sleeve packets.
    pub(super) key: Option<SessionKey>,
    /// Whether both ends trust the network between them.
    pub(super) trusted: bool,
    /// Whether both ends compare digests of the topology.
    pub(super) has_digests: bool,
    /// What the other end offers.
    pub(super) remote_overlays: Arc<[String]>,
    pub(super) overlay: OverlaySwitch,
    /// What was told already and is not told again.
    pub(super) told: Told,
}

/// Facts that are told once for each connection, or once until they change.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ignored: bool,
    pub(super) dropped: bool,
    pub(super) mtu: Option<usize>,
    /// Channels whose state was asked of the driver.
    pub(super) states: BTreeSet<ChannelId>,
}

impl Connection {
    pub(super) fn new(
        now: Time,
        remote: SocketAddr,
        dial: Option<Dial>,
        trusting: bool,
        secret: &ConnSecret,
        wire: Wire,
    ) -> Connection {
        Connection {
            remote,
            dial,
            trusting,
            conn_id: secret.conn_id,
            native_seed: secret.native,
            wire,
            outbox: Outbox::default(),
            member: None,
            since: now,
            last_message: now,
            next_heartbeat: now,
            stuck_since: None,
        }
    }

    /// The connection was added to our peer.
    pub(super) fn admit(&mut self, now: Time, member: Member) {
        self.member = Some(Box::new(member));
        self.last_message = now;
        self.next_heartbeat = now + HEARTBEAT_INTERVAL;
    }

    /// A message is complete.
    pub(super) fn note_message(&mut self, now: Time) {
        self.last_message = now;
    }

    /// The next bytes for the other end.
    pub(super) fn poll_transmit(&mut self, now: Time) -> Option<Vec<u8>> {
        let bytes = self.wire.poll_transmit()?;
        self.outbox.add_in_flight(bytes.len());
        self.stuck_since.get_or_insert(now);
        Some(bytes)
    }

    /// Bytes left the driver.
    pub(super) fn handle_sent(&mut self, now: Time, bytes: usize) {
        self.outbox.take_in_flight(bytes);
        if self.outbox.in_flight() == 0 {
            self.stuck_since = None;
        } else if bytes > 0 {
            self.stuck_since = Some(now);
        }
    }

    /// Sends a message of an overlay, unless too much is on its way already.
    pub(super) fn send_control(&mut self, message: &[u8]) -> Result<(), WireError> {
        if self.outbox.in_flight() >= WINDOW_BYTES + CONTROL_BYTES_MAX {
            return Ok(());
        }
        self.wire.send(message)
    }

    /// When something is to be done about it, overlays aside.
    pub(super) fn poll_timeout(&self) -> Time {
        let limit = match self.member {
            None => self.since + INTRODUCTION_TIME_MAX,
            Some(_) => (self.last_message + READ_TIME_MAX).min(self.next_heartbeat),
        };
        match self.stuck_since {
            Some(stuck) => limit.min(stuck + WRITE_TIME_MAX),
            None => limit,
        }
    }

    /// Sends a heartbeat if it is time. An error says why the connection is to be closed.
    pub(super) fn handle_timeout(&mut self, now: Time) -> Result<(), CloseReason> {
        if self
            .stuck_since
            .is_some_and(|stuck| stuck + WRITE_TIME_MAX <= now)
        {
            return Err(CloseReason::WriteTimeout);
        }
        if self.member.is_none() {
            return match self.since + INTRODUCTION_TIME_MAX <= now {
                true => Err(CloseReason::IntroductionTimeout),
                false => Ok(()),
            };
        }
        if self.last_message + READ_TIME_MAX <= now {
            return Err(CloseReason::ReadTimeout);
        }
        if self.next_heartbeat <= now {
            self.next_heartbeat = now + HEARTBEAT_INTERVAL;
            if self.outbox.has_credit() {
                self.wire.send(&Message::Heartbeat.encode())?;
            }
        }
        Ok(())
    }
}

impl Member {
    /// Tells once for each connection that something on it is ignored.
    pub(super) fn ignore(&mut self, what: impl FnOnce() -> String, sink: &mut Sink) {
        sink.counters.messages_ignored += 1;
        if !std::mem::replace(&mut self.told.ignored, true) {
            let (peer, what) = (self.label.clone(), what());
            sink.event(Event::Ignored { peer, what });
        }
    }

    /// Whom to name when gossip is dropped, unless that was told before.
    pub(super) fn tell_dropped_once(&mut self) -> Option<PeerLabel> {
        let told = std::mem::replace(&mut self.told.dropped, true);
        (!told).then(|| self.label.clone())
    }
}

impl PeerLabel {
    /// The label of a peer. Characters that would spoil a log line are replaced.
    pub(super) fn new(name: PeerName, nickname: &str) -> PeerLabel {
        let clean = nickname.chars().take(NICKNAME_CHARS_MAX).map(|c| match c {
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        });
        let nickname: Arc<str> = clean.collect::<String>().into();
        PeerLabel { name, nickname }
    }
}

/// How much of a nickname logs show, in characters.
const NICKNAME_CHARS_MAX: usize = 64;
