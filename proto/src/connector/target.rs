//! One address to dial: its state, and when it is tried next.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::types::{PeerName, Time};

/// The first delay after a failure, before randomisation.
pub(super) const INTERVAL_MIN: Duration = Duration::from_secs(2);
/// The maximum delay, before randomisation.
pub(super) const INTERVAL_MAX: Duration = Duration::from_secs(6 * 60);
/// A connection that lasted longer than this was a success: it is dialled again without delay.
pub(super) const RESET_AFTER: Duration = Duration::from_secs(1);
/// The first waits after a connection was lost that had lived: most likely the other end is
/// started anew, and soon there.
const HURRY_MS: [u64; 4] = [50, 100, 200, 400];
/// How often in a row an address is dialled in a hurry, and after which time once more, so that
/// connections that do not last are no busy loop.
const HURRIES_MAX: u32 = 12;
const HURRY_INTERVAL: Duration = Duration::from_secs(60);
/// How long a failure is remembered for a discovered address that no peer reports any more. An
/// address that reappears sooner keeps its delay, so that an unstable address is not dialled each
/// time.
const FAILURE_KEPT: Duration = Duration::from_secs(10);
/// The same for an address that led to this router itself.
const NEVER_KEPT: Duration = Duration::from_secs(10 * 60);
/// Maximum length of an error kept for display, in bytes; the rest is cut off.
const ERROR_BYTES_MAX: usize = 256;

/// An address that the user gave.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// What the user wrote: `host[:port]`.
    pub text: String,
    /// The address of the host.
    pub ip: IpAddr,
    /// The port, if one was given.
    pub port: Option<u16>,
}

impl Target {
    /// Returns the address to dial. Without a port, the other end is assumed to use `port`.
    ///
    /// Rule: `docs/protocol/mesh.md#8-1-targets`.
    pub fn address(&self, port: u16) -> SocketAddr {
        SocketAddr::new(self.ip, self.port.unwrap_or(port))
    }
}

/// A text that is not a target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid peer name {0:?}, should be host[:port]")]
pub struct InvalidTarget(pub String);

/// Splits `host[:port]`. An IPv6 address with a port must be in brackets. Port 0 counts as none.
///
/// Format: `docs/protocol/mesh.md#8-1-targets`.
pub fn split_target(text: &str) -> Result<(&str, Option<u16>), InvalidTarget> {
    let invalid = || InvalidTarget(text.to_owned());
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => match rest.split_once(']').ok_or_else(invalid)? {
            (host, "") => (host, ""),
            (host, port) => (host, port.strip_prefix(':').ok_or_else(invalid)?),
        },
        None => match text.rsplit_once(':') {
            Some((host, port)) if !host.contains(':') => (host, port),
            // No port, or an IPv6 address without brackets.
            _ => (text, ""),
        },
    };
    let digits = port.bytes().all(|byte| byte.is_ascii_digit());
    if host.is_empty() || host.contains(char::is_whitespace) || !digits {
        return Err(invalid());
    }
    let port = match port {
        "" => 0,
        port => port.parse().map_err(|_| invalid())?,
    };
    Ok((host, Some(port).filter(|port| *port != 0)))
}

/// State of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Waiting for its next attempt.
    Waiting,
    /// Being dialled, or the connection is not introduced yet.
    Attempting(Kind),
    /// Connected; this router dialled.
    Connected,
    /// Currently not wanted.
    Suspended,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// The user named it.
    Direct,
    /// It was learned from connections of other peers.
    Discovered,
}

/// What is known of an address.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) state: State,
    pub(super) kind: Kind,
    /// Whether it is wanted.
    pub(super) wanted: bool,
    /// When it may be tried, or was last tried; `None` if it is never tried again.
    pub(super) try_at: Option<Time>,
    pub(super) error: Option<String>,
    /// The peer that answered here last.
    pub(super) peer: Option<PeerName>,
    /// The delay after the next failure.
    interval: Duration,
    /// The place in [`HURRY_MS`] of the next wait; behind its end when there is no hurry.
    hurry: usize,
    /// Hurries that are left, and when they were counted.
    hurries: (u32, Time),
    /// Until when a discovered address that no peer reports is remembered.
    keep_until: Time,
    /// Its place in the schedule.
    ticket: Option<(Kind, Ticket)>,
}

impl Entry {
    pub(super) fn new(now: Time) -> Entry {
        Entry {
            state: State::Waiting,
            kind: Kind::Discovered,
            wanted: false,
            try_at: Some(now),
            error: None,
            peer: None,
            interval: INTERVAL_MIN,
            hurry: HURRY_MS.len(),
            hurries: (HURRIES_MAX, now),
            keep_until: now,
            ticket: None,
        }
    }

    pub(super) fn try_now(&mut self, now: Time) {
        self.try_at = Some(now);
        self.interval = INTERVAL_MIN;
    }

    /// The connection was lost, or the peer is known to have been there a moment ago: tries again
    /// soon, and soon again.
    pub(super) fn try_soon(&mut self, now: Time, rng: &mut fastrand::Rng) {
        let (left, counted) = self.hurries;
        let more = now.since(counted).as_secs() / HURRY_INTERVAL.as_secs();
        let left = HURRIES_MAX.min(left.saturating_add(u32::try_from(more).unwrap_or(u32::MAX)));
        if more > 0 {
            self.hurries.1 = now;
        }
        self.hurries.0 = left.saturating_sub(1);
        if left > 0 {
            self.hurry = 0;
            self.interval = INTERVAL_MIN;
        }
        self.try_later(now, rng);
    }

    /// Rule: `docs/protocol/mesh.md#8-2-attempts`.
    pub(super) fn try_never(&mut self) {
        self.try_at = None;
        self.interval = INTERVAL_MIN;
    }

    /// Delays the next attempt by a random time of 0.5 to 1.5 intervals, so that peers that failed
    /// together do not return together.
    ///
    /// Rule: `docs/protocol/mesh.md#8-2-attempts`.
    pub(super) fn try_later(&mut self, now: Time, rng: &mut fastrand::Rng) {
        if let Some(ms) = HURRY_MS.get(self.hurry) {
            self.hurry += 1;
            let spread = rng.u64(..ms * 1000 / 8);
            self.try_at = Some(now + Duration::from_micros(ms * 1000 + spread));
            return;
        }
        let interval = self.interval.as_micros() as u64;
        let delay = Duration::from_micros(interval / 2 + rng.u64(..interval));
        self.try_at = Some(now + delay);
        self.interval = (self.interval * 3 / 2).min(INTERVAL_MAX);
    }

    pub(super) fn fail(&mut self, error: &str) {
        self.state = State::Waiting;
        self.error = Some(error[..error.floor_char_boundary(ERROR_BYTES_MAX)].to_owned());
    }

    /// Returns true if no attempt or connection is in progress.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Waiting | State::Suspended)
    }

    /// Updates the state of an idle entry according to whether it is wanted. Returns true if the
    /// entry must be kept.
    ///
    /// Rule: `docs/protocol/mesh.md#8-1-targets`.
    pub(super) fn settle(&mut self, now: Time) -> bool {
        if !self.is_idle() {
            return true;
        }
        if self.wanted {
            self.state = State::Waiting;
            return true;
        }
        if self.state == State::Waiting && self.error.is_some() {
            let never = self.try_at.is_none();
            self.keep_until = now + if never { NEVER_KEPT } else { FAILURE_KEPT };
        }
        self.state = State::Suspended;
        self.kind == Kind::Direct || now < self.keep_until
    }
}

/// Position in the queue of waiting entries: time, then a random number. Without the random number,
/// many peers that discover each other would all dial the same one first.
type Ticket = (Time, u32, SocketAddr);

/// All waiting entries, by the time of their next attempt.
#[derive(Clone, Debug, Default)]
pub(super) struct Schedule {
    direct: BTreeSet<Ticket>,
    discovered: BTreeSet<Ticket>,
}

impl Schedule {
    fn queue(&mut self, kind: Kind) -> &mut BTreeSet<Ticket> {
        match kind {
            Kind::Direct => &mut self.direct,
            Kind::Discovered => &mut self.discovered,
        }
    }

    /// Updates the position of an entry according to its state and time.
    pub(super) fn put(&mut self, address: SocketAddr, entry: &mut Entry, rng: &mut fastrand::Rng) {
        let waits = entry.state == State::Waiting;
        let place = entry.try_at.filter(|_| waits).map(|at| (entry.kind, at));
        if place == entry.ticket.map(|(kind, (at, ..))| (kind, at)) {
            return;
        }
        self.remove(entry);
        if let Some((kind, at)) = place {
            let ticket = (at, rng.u32(..), address);
            self.queue(kind).insert(ticket);
            entry.ticket = Some((kind, ticket));
        }
    }

    /// Removes an entry.
    pub(super) fn remove(&mut self, entry: &mut Entry) {
        if let Some((kind, ticket)) = entry.ticket.take() {
            self.queue(kind).remove(&ticket);
        }
    }

    /// Returns the address of this kind that has been due longest.
    pub(super) fn due(&self, kind: Kind, now: Time) -> Option<SocketAddr> {
        let queue = match kind {
            Kind::Direct => &self.direct,
            Kind::Discovered => &self.discovered,
        };
        let (at, _, address) = queue.first()?;
        (*at <= now).then_some(*address)
    }

    /// Returns the next time at which an entry becomes due.
    pub(super) fn next(&self, now: Time) -> Option<Time> {
        let queues = [&self.direct, &self.discovered].into_iter();
        let first = |queue: &BTreeSet<Ticket>| queue.first().map(|(at, ..)| *at);
        queues.filter_map(first).filter(|at| *at > now).min()
    }
}
