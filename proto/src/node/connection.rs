//! One TCP connection of ours, from its first byte to its last.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;

use super::config::{
    CONTROL_BYTES_MAX, HEARTBEAT_INTERVAL, INTRODUCTION_TIME_MAX, READ_TIME_MAX, WAITING_BYTES_MAX,
    WRITE_TIME_MAX,
};
use super::event::{CloseReason, Event, PeerLabel};
use super::happened::Happened;
use super::sink::Sink;
use super::word::{Agreed, Word, confirm, is_confirmed};
use crate::connector::Dial;
use crate::crypto::{Secret, SessionKey};
use crate::gossip::{ChannelId, Outbox, WINDOW_BYTES};
use crate::message::Message;
use crate::overlay::{Health, Overlay, OverlaySwitch};
use crate::types::{ConnId, ConnUid, PeerName, PeerUid, Time};
use crate::wire::{Introduced, Wire, WireError, WireEvent};

/// A connection. It has no member until it is introduced.
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
    /// Seed of native keys.
    pub(super) native: Option<Secret>,
    /// Whether we confirm introductions.
    confirms: bool,
    pub(super) wire: Wire,
    pub(super) outbox: Outbox,
    pub(super) member: Option<Box<Member>>,
    /// The introduction, while something is to be waited for before it counts.
    pub(super) pending: Option<Pending>,
    /// Whether it was asked whether the peer that it takes the place of is there.
    pub(super) asked: bool,
    /// The message that proved the introduction; it is handled once that is over.
    pub(super) held: Option<Vec<u8>>,
    waiting_bytes: usize,
    since: Time,
    last_message: Time,
    next_heartbeat: Time,
    /// Since when the driver could not send any of the bytes handed to it.
    stuck_since: Option<Time>,
}

/// The condition that an introduction waits for.
#[derive(Debug)]
pub(super) enum Pending {
    /// Waits for the other end's confirmation.
    Confirmation(Box<Introduced>),
    /// Waits for any message, since only a sealed one shows who the other end is.
    Message(Box<Introduced>),
    /// Waits for an answer on another connection, or for its absence.
    Answer {
        introduced: Box<Introduced>,
        on: ConnId,
        until: Time,
    },
}

/// State of a connection that was added to our peer.
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
    /// The overlays that the other end offers.
    pub(super) remote_overlays: Arc<[String]>,
    /// Abilities of both ends that concern the connection itself.
    pub(super) agreed: Agreed,
    pub(super) overlay: OverlaySwitch,
    /// What was reported and is not reported again.
    pub(super) told: Told,
}

/// Facts that are reported once for each connection, or once until they change.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) ignored: bool,
    pub(super) dropped: bool,
    pub(super) forged: bool,
    pub(super) mtu: Option<usize>,
    /// Whether the other end was told that we use sleeve; it takes us to.
    pub(super) spares_sleeve: bool,
    /// The overlay that frames take.
    pub(super) active: Option<Overlay>,
    /// Channels whose state was asked of the driver.
    pub(super) states: BTreeSet<ChannelId>,
}

impl Connection {
    pub(super) fn new(
        now: Time,
        remote: SocketAddr,
        dial: Option<Dial>,
        trusting: bool,
        (conn_id, native): (u64, Secret),
        wire: Wire,
    ) -> Connection {
        Connection {
            remote,
            dial,
            trusting,
            conn_id,
            native: Some(native),
            confirms: false,
            wire,
            outbox: Outbox::default(),
            member: None,
            pending: None,
            asked: false,
            held: None,
            waiting_bytes: 0,
            since: now,
            last_message: now,
            next_heartbeat: now,
            stuck_since: None,
        }
    }

    /// Has the introduction confirmed if the other end does so, too.
    pub(super) fn with_confirmation(mut self, confirms: bool) -> Connection {
        self.confirms = confirms;
        self
    }

    /// Returns true if more came than is kept while it is found out who is there.
    pub(super) fn is_hasty(&mut self, bytes: usize) -> bool {
        match self.pending {
            Some(Pending::Answer { .. }) => self.waiting_bytes += bytes,
            _ => self.waiting_bytes = 0,
        }
        self.waiting_bytes > WAITING_BYTES_MAX
    }

    /// Returns what comes next on the connection. The message that proved the introduction comes
    /// again once it can be handled.
    pub(super) fn poll_wire(&mut self) -> Option<WireEvent> {
        if self.member.is_some()
            && let Some(held) = self.held.take()
        {
            return Some(WireEvent::Message(held));
        }
        self.wire.poll_event()
    }

    /// Returns the introduction is complete. Whether it is true may be left to be shown: by both
    /// ends, if both know how, and in protocol 1, which is introduced in the clear, by any sealed
    /// message.
    pub(super) fn prove(&mut self, introduced: Box<Introduced>) -> Option<Happened> {
        let Some(key) = &introduced.session_key else {
            return Some(Happened::Introduced(introduced));
        };
        let confirms = self.confirms && Agreed::with(&introduced.remote).confirm;
        let (message, pending): (_, fn(_) -> _) = if confirms {
            let ours = confirm(key, &introduced.transcript, self.dial.is_some());
            (ours.encode(), Pending::Confirmation)
        } else if introduced.version == 1 {
            (Message::Heartbeat.encode(), Pending::Message)
        } else {
            return Some(Happened::Introduced(introduced));
        };
        if let Err(error) = self.wire.send(&message) {
            return Some(Happened::Lost(error.into()));
        }
        self.pending = Some(pending(introduced));
        None
    }

    /// Returns a message came on a connection that is not introduced.
    pub(super) fn take_proof(&mut self, message: Vec<u8>) -> Option<Happened> {
        match self.pending.take()? {
            Pending::Confirmation(introduced) => {
                let key = introduced.session_key.as_ref()?;
                let by_dialler = self.dial.is_none();
                let transcript = &introduced.transcript;
                if !is_confirmed(&message, key, transcript, by_dialler) {
                    return Some(Happened::Lost(CloseReason::Unconfirmed));
                }
                Some(Happened::Introduced(introduced))
            }
            Pending::Message(introduced) => {
                self.held = Some(message);
                Some(Happened::Introduced(introduced))
            }
            waiting @ Pending::Answer { .. } => {
                self.pending = Some(waiting);
                None
            }
        }
    }

    /// Returns the introduction that waited for an answer, which did not come.
    pub(super) fn take_answered(&mut self) -> Option<Happened> {
        match self.pending.take()? {
            Pending::Answer { introduced, .. } => Some(Happened::Introduced(introduced)),
            other => {
                self.pending = Some(other);
                None
            }
        }
    }

    /// The connection was added to our peer.
    pub(super) fn admit(&mut self, now: Time, member: Member) {
        self.member = Some(Box::new(member));
        self.last_message = now;
        self.next_heartbeat = now + HEARTBEAT_INTERVAL;
    }

    /// Records that a message was received.
    pub(super) fn note_message(&mut self, now: Time) {
        self.last_message = now;
    }

    /// Returns the next bytes for the other end.
    pub(super) fn poll_transmit(&mut self, now: Time) -> Option<Vec<u8>> {
        let bytes = self.wire.poll_transmit()?;
        self.outbox.add_in_flight(bytes.len());
        self.stuck_since.get_or_insert(now);
        Some(bytes)
    }

    /// Records that the driver has sent bytes.
    pub(super) fn handle_sent(&mut self, now: Time, bytes: usize) {
        self.outbox.take_in_flight(bytes);
        if self.outbox.in_flight() == 0 {
            self.stuck_since = None;
        } else if bytes > 0 {
            self.stuck_since = Some(now);
        }
    }

    /// Sends a message of an overlay, unless too many bytes wait already.
    pub(super) fn send_control(&mut self, message: &[u8]) -> Result<(), WireError> {
        if self.outbox.in_flight() >= WINDOW_BYTES + CONTROL_BYTES_MAX {
            return Ok(());
        }
        self.wire.send(message)
    }

    /// Returns the time at which something is due for this connection, apart from its overlays.
    pub(super) fn poll_timeout(&self) -> Time {
        let limit = match self.member {
            None => self.since + INTRODUCTION_TIME_MAX,
            Some(_) => (self.last_message + READ_TIME_MAX).min(self.next_heartbeat),
        };
        let limit = match self.pending {
            Some(Pending::Answer { until, .. }) => limit.min(until),
            _ => limit,
        };
        match self.stuck_since {
            Some(stuck) => limit.min(stuck + WRITE_TIME_MAX),
            None => limit,
        }
    }

    /// Sends a heartbeat if it is due. The error is the reason to close the connection.
    ///
    /// Rule: `docs/protocol/mesh.md#5-1-heartbeats`.
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
    /// Returns what to say to the other end since we began to use sleeve, or use it no longer.
    pub(super) fn say_sleeve(&mut self) -> Option<Word> {
        let spares = !self.overlay.uses_sleeve();
        let is_news = self.agreed.sleeve && self.told.spares_sleeve != spares;
        self.told.spares_sleeve = spares;
        is_news.then_some(Word::Sleeve(!spares))
    }

    /// Tells when frames take another overlay than before, and why.
    pub(super) fn note_active(&mut self, sink: &mut Sink) {
        let active = self.overlay.active().map(|view| view.overlay);
        let (Some(from), Some(to)) = (self.told.active, active) else {
            return;
        };
        if from == to {
            return;
        }
        self.told.active = active;
        let mut views = self.overlay.forwarders();
        let health = views.find(|view| view.overlay == from);
        let reason = match health.map(|view| view.health) {
            Some(Health::OnHold(reason) | Health::Failed(reason)) => Some(reason),
            _ => None,
        };
        sink.event(Event::OverlayChanged {
            peer: self.label.clone(),
            from: from.name(),
            to: to.name(),
            reason,
        });
    }

    /// Reports once for each connection that something on it is ignored.
    pub(super) fn ignore(&mut self, what: impl FnOnce() -> String, sink: &mut Sink) {
        sink.counters.messages_ignored += 1;
        if !std::mem::replace(&mut self.told.ignored, true) {
            let (peer, what) = (self.label.clone(), what());
            sink.event(Event::Ignored { peer, what });
        }
    }

    /// Returns the peer to report when gossip is dropped, unless it was reported before.
    pub(super) fn tell_dropped_once(&mut self) -> Option<PeerLabel> {
        let told = std::mem::replace(&mut self.told.dropped, true);
        (!told).then(|| self.label.clone())
    }
}

impl PeerLabel {
    /// Creates the label of a peer. Control characters are replaced.
    pub(super) fn new(name: PeerName, nickname: &str) -> PeerLabel {
        let clean = nickname.chars().take(NICKNAME_CHARS_MAX).map(|c| match c {
            c if c.is_control() => char::REPLACEMENT_CHARACTER,
            c => c,
        });
        let nickname: Arc<str> = clean.collect::<String>().into();
        PeerLabel { name, nickname }
    }
}

/// Maximum number of characters of a nickname in logs.
const NICKNAME_CHARS_MAX: usize = 64;
