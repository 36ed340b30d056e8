//! State machine of one native link: which keys are in use, whether datagrams get through, the
//! peer's address, and how large datagrams may be.
//!
//! ```text
//!           confirm            both hellos            a report was answered, a size was found
//!  Passive ---------> Keying --------------> Trying ---------------------------> Established
//!                                                                                  |     ^
//!                                               no answer for HOLD_AFTER           v     |
//!                                                                                On hold +
//! ```
//!
//! Reports go over UDP, hellos over the mesh connection. An answered report shows that both
//! directions work. A link is used while reports are answered, put on hold when they are not, and
//! tried again as long as the connection lives.

use std::collections::VecDeque;
use std::fmt;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::keyring::{Keyring, Rekey};
use super::keys::{Hello, VERSION};
use super::mtu::MtuSearch;
use super::report::{Answer, REPORT_DATAGRAM_BYTES, Report};
use super::seal::Cipher;
use super::traffic::{Sample, Traffic};
use super::tunnel::mtu;
use crate::crypto::Secret;
use crate::sleeve::link::Path;
use crate::sleeve::wire::UDP_IP_BYTES;
use crate::types::Time;

pub use super::session_config::{
    ControlError, KEY_LINGER, KEY_TIME_MAX, KeyLife, Keys, LinkConfig, SessionNumbers,
};
pub use control::Control;

mod control;

/// The link is put on hold if a report, and all after it, stay unanswered for this long.
pub const HOLD_AFTER: Duration = Duration::from_millis(2500);
/// Interval between reports while frames travel.
pub const REPORT_BUSY: Duration = Duration::from_millis(250);
/// Interval between reports while none do: before a device on the way that translates addresses
/// forgets the link, of which 30 seconds are usual.
pub const REPORT_REST: Duration = Duration::from_secs(25);
/// The same on a link that is watched, so that the mesh learns soon that a peer is gone.
pub const REPORT_WATCH: Duration = Duration::from_secs(3);
/// Looks whether frames travel again are at multiples of this, so that one turn looks at all links.
const REST_LOOK: Duration = Duration::from_millis(500);
/// Interval between reports while one is unanswered.
pub const REPORT_RETRY: Duration = Duration::from_millis(200);
/// Interval between reports on a link that is on hold.
pub const REPORT_HOPE: Duration = Duration::from_secs(1);
/// A link over which nothing arrived for this long does not keep its connection alive.
pub const HOPE_TIME_MAX: Duration = Duration::from_secs(60);
/// The first intervals between reports. A datagram that overtakes the hello on TCP is lost.
const REPORT_FIRST_MS: [u64; 5] = [10, 20, 40, 80, 160];
/// Minimum interval between checks of the size because of losses.
const SUSPECT_INTERVAL: Duration = Duration::from_secs(1);
/// A link on hold is used again after reports were answered for twice this time; the time doubles
/// with each hold.
const RECOVERY_MIN: Duration = Duration::from_millis(500);
const RECOVERY_MAX: Duration = Duration::from_secs(64);
/// Time after which earlier holds of a healthy link do not count any more.
const FORGIVE_AFTER: Duration = Duration::from_secs(300);
/// Maximum number of outputs waiting to be polled. Reports of the peer beyond it are not answered.
const OUTPUTS_MAX: usize = 256;
/// The size is checked if at least one of this many datagrams is lost.
const SUSPECT_PART: u64 = 8;
const HOLD_REASON: &str = "reports over UDP are not answered";

/// What the driver must do for a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Send a control message to the peer's end.
    Control(Control),
    /// Random bytes are needed: to be answered by [`Link::handle_secret`].
    NeedSecret,
    /// [`Link::keys`] changed. Must be acted on before later outputs.
    KeysChanged,
    /// Seal a report in a datagram of this size and send it.
    Report {
        /// The report.
        report: Report,
        /// Bytes of UDP payload.
        bytes: usize,
    },
    /// [`Link::path`] changed.
    PathChanged,
    /// The peer moved to another address.
    Moved {
        /// Where it was.
        from: SocketAddrV4,
        /// Where it is.
        to: SocketAddrV4,
    },
    /// Frames can be sent over the link.
    Established,
    /// Frames must not be sent over the link any more.
    Held(&'static str),
    /// The link failed. Reported once, as the last output.
    Failed(String),
}

/// Status of a native link.
#[derive(Clone, Debug, PartialEq)]
pub struct LinkView {
    /// The cipher, once agreed on.
    pub cipher: Option<Cipher>,
    /// Number of earlier keys.
    pub epoch: u32,
    /// The round trip time.
    pub rtt: Option<Duration>,
    /// The lost fraction of our datagrams, 0 to 1.
    pub loss_out: Option<f64>,
    /// The lost fraction of the peer's datagrams, 0 to 1.
    pub loss_in: Option<f64>,
    /// How often the link was put on hold.
    pub holds: u64,
}

/// One end of a native link.
///
/// Rule: `docs/native.md#link-quality-and-path-mtu`.
pub struct Link {
    ring: Keyring,
    /// The peer's first hello, if it arrived before [`Link::confirm`].
    early: Option<(Vec<u8>, Hello)>,
    /// Whether the next epoch is to be begun once there are random bytes for it.
    begins: bool,
    remote: Option<SocketAddrV4>,
    search: MtuSearch,
    traffic: Traffic,
    state: State,
    reports: Reports,
    /// Whether the peer's silence is to be noticed soon even while no frames travel.
    is_watched: bool,
    holds: u64,
    /// Number of holds that still count.
    strikes: u32,
    reported: Option<Path>,
    outputs: VecDeque<LinkOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Passive,
    Keying,
    Trying,
    Established { since: Time },
    OnHold { answered_since: Option<Time> },
    Failed,
}

/// What was sent and received in reports.
#[derive(Debug, Default)]
struct Reports {
    due: Option<Time>,
    /// When the last regular report was sent.
    sent_at: Time,
    count: usize,
    /// Our oldest report that was sent after the latest answered one.
    waiting_since: Option<Time>,
    /// When a report was last answered, or when the link started.
    answered_at: Time,
    /// The newest unanswered report of the peer.
    unanswered: Option<Unanswered>,
    /// When the newest report of the peer was sent, by its clock.
    newest: Option<Time>,
    /// Reports that arrived.
    received: u64,
    /// Datagrams with frames that were sent and received when our last report left.
    frames_before: u64,
    /// When the peer last asked, and so looked after the link for both.
    asked_at: Option<Time>,
    /// Whether its last question answered nothing.
    asked_bare: bool,
    suspect_at: Time,
}

#[derive(Clone, Copy, Debug)]
struct Unanswered {
    sent_at: Time,
    arrived_at: Time,
    bytes: u32,
}

impl Link {
    /// Creates an end that waits for [`Link::confirm`].
    pub fn new(config: LinkConfig) -> Link {
        Link {
            remote: config.remote,
            ring: Keyring::new(config),
            early: None,
            begins: false,
            search: MtuSearch::new(),
            traffic: Traffic::default(),
            state: State::Passive,
            reports: Reports::default(),
            is_watched: false,
            holds: 0,
            strikes: 0,
            reported: None,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the current path.
    pub fn path(&self) -> Path {
        let max_payload = self.search.size().unwrap_or_default();
        let max_payload = max_payload.saturating_sub(UDP_IP_BYTES);
        Path {
            remote: self.remote,
            mtu: mtu(max_payload),
            mtu_verified: self.search.size().is_some(),
            max_payload,
            fragments: false,
            open: true,
        }
    }

    /// Returns the keys in use.
    pub fn keys(&self) -> Keys {
        self.ring.keys()
    }

    /// Returns the status of the link.
    pub fn view(&self) -> LinkView {
        let (loss_out, loss_in) = self.traffic.loss();
        LinkView {
            cipher: self.ring.send().map(|key| key.cipher()),
            epoch: self.ring.epoch(),
            rtt: self.traffic.rtt(),
            loss_out,
            loss_in,
            holds: self.holds,
        }
    }

    /// Returns what to do next, in order, until `None`. Any `handle_` call and `confirm` may add
    /// outputs.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// Returns the time at which `handle_timeout` is due. Any other call may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        let is_used = matches!(self.state, State::Established { .. });
        [
            self.reports.due,
            self.ring.poll_timeout(),
            self.hold_at().filter(|_| is_used),
            self.search.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Reports that the connection has become a member and is used with its peer: starts to send.
    pub fn confirm(&mut self, now: Time) {
        if self.state != State::Passive {
            return;
        }
        self.state = State::Keying;
        self.reports.answered_at = now;
        self.begin_epoch();
        if let Some((bytes, hello)) = self.early.take() {
            self.take_hello(now, &bytes, &hello);
        }
    }

    /// Handles a control message of the peer.
    pub fn handle_control(&mut self, now: Time, control: Control) -> Result<(), ControlError> {
        match (control, self.state) {
            (_, State::Failed) => {}
            (Control::Hello(bytes), _) => {
                let hello = Hello::parse(&bytes);
                let hello = hello.ok_or(ControlError::Malformed(bytes.len()))?;
                self.ring.expect(now, &hello)?;
                match self.state {
                    State::Passive => self.early = Some((bytes, hello)),
                    _ => self.take_hello(now, &bytes, &hello),
                }
            }
            (Control::RekeyPlease, _) => {
                if self.ring.may_begin(now) && !self.begins {
                    self.begin_epoch();
                }
            }
        }
        Ok(())
    }

    /// Random bytes for a key pair, used for nothing else.
    pub fn handle_secret(&mut self, now: Time, secret: Secret) {
        if self.state == State::Failed || !self.ring.needs_secret() {
            return;
        }
        self.ring.give(secret);
        if let Some((bytes, hello)) = self.early.take_if(|_| self.state != State::Passive) {
            self.begins = false;
            self.take_hello(now, &bytes, &hello);
        } else if std::mem::take(&mut self.begins) {
            self.begin_epoch();
        }
    }

    /// Handles a report that arrived in a datagram of `bytes` bytes under the key of `epoch`.
    pub fn handle_report(&mut self, now: Time, epoch: u32, report: Report, bytes: usize) {
        if matches!(self.state, State::Passive | State::Keying | State::Failed) {
            return;
        }
        if self.ring.note_used(now, epoch) {
            self.push(LinkOutput::KeysChanged);
        }
        self.reports.received += 1;
        if self.reports.newest.is_none_or(|at| at < report.sent_at) {
            self.reports.newest = Some(report.sent_at);
            self.traffic.note_sent(report.sent, self.ring.received());
        }
        self.reports.unanswered = Some(Unanswered {
            sent_at: report.sent_at,
            arrived_at: now,
            bytes: u32::try_from(bytes).unwrap_or(u32::MAX),
        });
        if let Some(answer) = report.answer {
            self.handle_answer(now, answer, report.received);
        }
        if report.wants_answer {
            self.note_question(now, report.answer.is_some());
        }
        if report.wants_answer && self.can_send() && self.outputs.len() < OUTPUTS_MAX {
            self.send_report(now, REPORT_DATAGRAM_BYTES, false);
        }
    }

    /// Reports that the newest datagram came from another address than the one in use.
    pub fn handle_moved(&mut self, now: Time, from: SocketAddrV4) {
        if matches!(self.state, State::Passive | State::Failed) || self.remote == Some(from) {
            return;
        }
        let before = self.remote.replace(from);
        self.report_path();
        match before {
            None => {}
            Some(before) => {
                self.push(LinkOutput::Moved {
                    from: before,
                    to: from,
                });
                // Another address may be another path.
                let sizes = self.search.start(now, self.rtt());
                self.send_sizes(now, sizes);
            }
        }
        self.report(now);
    }

    /// Reports that a local device refused a datagram because it only accepts IP packets of `size`
    /// bytes.
    pub fn handle_too_big(&mut self, now: Time, size: usize) {
        if self.ring.send().is_some() {
            let sizes = self.search.handle_too_big(now, self.rtt(), size);
            self.send_sizes(now, sizes);
            self.review(now);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        if matches!(self.state, State::Passive | State::Failed) {
            return;
        }
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        let sizes = self.search.handle_timeout(now, self.rtt());
        self.send_sizes(now, sizes);
        if self.ring.forget(now) {
            self.push(LinkOutput::KeysChanged);
        }
        if let State::Established { since } = self.state {
            if due(self.hold_at()) {
                self.hold();
            } else if since + FORGIVE_AFTER <= now {
                self.strikes = 0;
            }
        }
        if due(self.reports.due) {
            match self.rests_until(now) {
                Some(look_at) => self.reports.due = Some(look_at),
                None => self.report(now),
            }
        }
        match self.ring.consider(now) {
            Some(Rekey::Begin) if self.begins => {}
            Some(Rekey::Begin) => self.begin_epoch(),
            Some(Rekey::Ask) => self.push(LinkOutput::Control(Control::RekeyPlease)),
            None => {}
        }
        self.review(now);
    }

    /// Returns true if nothing got through for so long that the link does not keep its connection
    /// alive.
    pub fn is_hopeless(&self, now: Time) -> bool {
        self.hopeless_at().is_some_and(|at| at <= now)
    }

    /// Returns when the link stops keeping its connection alive, unless something gets through.
    pub fn hopeless_at(&self) -> Option<Time> {
        match self.state {
            State::Passive | State::Established { .. } | State::Failed => None,
            State::Keying | State::Trying | State::OnHold { .. } => {
                Some(self.reports.answered_at + HOPE_TIME_MAX)
            }
        }
    }

    fn hold_at(&self) -> Option<Time> {
        self.reports.waiting_since.map(|at| at + HOLD_AFTER)
    }

    fn rtt(&self) -> Duration {
        self.traffic.rtt().unwrap_or_default()
    }

    fn handle_answer(&mut self, now: Time, answer: Answer, received: u64) {
        if answer.sent_at > now {
            return;
        }
        let rtt = self.rtt();
        self.reports.answered_at = now;
        let mut sizes = Vec::new();
        if self.state == State::Trying && self.search.is_off() {
            sizes = self.search.start(now, rtt);
        }
        if self
            .reports
            .waiting_since
            .is_some_and(|waiting| answer.sent_at >= waiting)
        {
            self.reports.waiting_since = None;
            self.reports.due = Some(now + REPORT_BUSY);
        }
        if let State::OnHold { answered_since } = &mut self.state {
            answered_since.get_or_insert(now);
        }
        let sample = self
            .traffic
            .note_answer(now, answer.sent_at, answer.waited, received);
        let size = answer.bytes as usize + UDP_IP_BYTES;
        sizes.extend(self.search.handle_arrived(now, rtt, answer.sent_at, size));
        if sample.is_some_and(is_suspicious) && self.reports.suspect_at <= now {
            self.reports.suspect_at = now + SUSPECT_INTERVAL;
            sizes.extend(self.search.suspect(now, rtt));
        }
        self.send_sizes(now, sizes);
        self.review(now);
    }

    /// Updates whether frames are sent over the link.
    fn review(&mut self, now: Time) {
        let is_sized = self.search.size().is_some() && !self.search.is_looking();
        match self.state {
            State::Trying if is_sized => self.establish(now),
            State::OnHold {
                answered_since: Some(since),
            } => {
                if self.hold_at().is_some_and(|at| at <= now) {
                    let answered_since = None;
                    self.state = State::OnHold { answered_since };
                } else if is_sized && since + self.recovery() <= now {
                    self.establish(now);
                    let sizes = self.search.suspect(now, self.rtt());
                    self.send_sizes(now, sizes);
                }
            }
            _ => {}
        }
    }

    fn establish(&mut self, now: Time) {
        self.state = State::Established { since: now };
        self.report_path();
        self.push(LinkOutput::Established);
    }

    fn hold(&mut self) {
        self.holds += 1;
        self.strikes += 1;
        let answered_since = None;
        self.state = State::OnHold { answered_since };
        self.push(LinkOutput::Held(HOLD_REASON));
    }

    /// Returns for how long reports must be answered before the link is used again.
    fn recovery(&self) -> Duration {
        let doubled = RECOVERY_MIN * 2_u32.saturating_pow(self.strikes.min(16));
        doubled.min(RECOVERY_MAX)
    }

    /// Watches the peer, or watches it no longer: its silence is noticed within seconds, even while
    /// no frames travel.
    pub fn watch(&mut self, now: Time, is_watched: bool) {
        let begins = is_watched && !self.is_watched;
        self.is_watched = is_watched;
        if begins && self.reports.due.is_some_and(|due| due > now) {
            self.reports.due = Some(next_look(now));
        }
    }

    /// Reports at once if the link rests, since somebody doubts that the peer is there.
    pub fn look(&mut self, now: Time) {
        let is_used = matches!(self.state, State::Established { .. });
        if is_used && self.reports.waiting_since.is_none() {
            self.report(now);
        }
    }

    /// The peer asks. It looks after the link for both, unless it asks again and again without
    /// having heard anything from us.
    fn note_question(&mut self, now: Time, answers: bool) {
        if answers || !self.reports.asked_bare {
            self.reports.asked_at = Some(now);
        }
        self.reports.asked_bare = !answers;
    }

    /// Returns when to look again whether a report is due, if no frames were sent or received since
    /// the last one.
    ///
    /// One end looks after a link at rest for both: its report proves one direction, and what it
    /// answers, which is the answer to the one before, the other. The other end asks itself only
    /// when that stays away.
    fn rests_until(&self, now: Time) -> Option<Time> {
        let is_used = matches!(self.state, State::Established { .. });
        let rest = match self.is_watched {
            true => REPORT_WATCH,
            false => REPORT_REST,
        };
        let asked = self.reports.asked_at.map(|at| at + rest + rest / 2);
        let due = (self.reports.sent_at + rest).max(asked.unwrap_or_default());
        let is_busy = self.frames() != self.reports.frames_before;
        if !is_used || self.reports.waiting_since.is_some() || is_busy || due <= now {
            return None;
        }
        Some(due.min(next_look(now)))
    }

    /// Datagrams with frames that were sent and received so far.
    fn frames(&self) -> u64 {
        let received = self.ring.received();
        self.ring.frames_sent() + received.saturating_sub(self.reports.received)
    }

    /// Sends a report that requests an answer, and schedules the next one.
    fn report(&mut self, now: Time) {
        if !self.can_send() {
            self.reports.due = None;
            return;
        }
        self.reports.waiting_since.get_or_insert(now);
        self.send_report(now, REPORT_DATAGRAM_BYTES, true);
        self.reports.sent_at = now;
        self.reports.frames_before = self.frames();
        let first = REPORT_FIRST_MS.get(self.reports.count);
        self.reports.count = self.reports.count.saturating_add(1);
        let wait = match (self.state, first) {
            (State::Trying, Some(ms)) => Duration::from_millis(*ms),
            (State::Established { .. }, _) => REPORT_RETRY.max(self.rtt() * 2),
            _ if self.reports.answered_at + HOLD_AFTER > now => REPORT_RETRY.max(self.rtt() * 2),
            _ => REPORT_HOPE,
        };
        self.reports.due = Some(now + wait);
    }

    fn send_sizes(&mut self, now: Time, sizes: Vec<usize>) {
        self.report_path();
        if self.can_send() {
            for size in sizes {
                let bytes = size.saturating_sub(UDP_IP_BYTES);
                self.send_report(now, bytes.max(REPORT_DATAGRAM_BYTES), true);
            }
        }
    }

    fn can_send(&self) -> bool {
        self.ring.send().is_some() && self.remote.is_some()
    }

    fn send_report(&mut self, now: Time, bytes: usize, wants_answer: bool) {
        let answer = self.reports.unanswered.take().map(|unanswered| Answer {
            sent_at: unanswered.sent_at,
            waited: now.since(unanswered.arrived_at),
            bytes: unanswered.bytes,
        });
        let report = Report {
            sent_at: now,
            answer,
            sent: self.ring.sent(),
            received: self.ring.received(),
            wants_answer,
        };
        if wants_answer {
            self.traffic.note_report(now, report.sent);
        }
        self.push(LinkOutput::Report { report, bytes });
    }

    fn begin_epoch(&mut self) {
        self.begins = self.ring.needs_secret();
        if self.begins {
            return self.push(LinkOutput::NeedSecret);
        }
        match self.ring.begin() {
            Ok(hello) => self.push(LinkOutput::Control(Control::Hello(hello))),
            Err(error) => self.fail(error.to_string()),
        }
    }

    fn take_hello(&mut self, now: Time, bytes: &[u8], hello: &Hello) {
        if hello.version != VERSION {
            let version = hello.version;
            return self.fail(format!(
                "peer speaks version {version} of the native overlay, we speak {VERSION}"
            ));
        }
        if self.ring.needs_secret() {
            let said = (bytes.to_vec(), hello.clone());
            if self.early.replace(said).is_none() {
                self.push(LinkOutput::NeedSecret);
            }
            return;
        }
        match self.ring.take(now, bytes, hello) {
            Err(error) => return self.fail(error.to_string()),
            Ok(None) => self.push(LinkOutput::KeysChanged),
            Ok(Some(answer)) => {
                self.push(LinkOutput::KeysChanged);
                self.push(LinkOutput::Control(Control::Hello(answer)));
                return;
            }
        }
        if self.state == State::Keying {
            self.state = State::Trying;
            self.report_path();
        }
        self.report(now);
    }

    fn report_path(&mut self) {
        let path = self.path();
        if self.reported != Some(path) {
            self.reported = Some(path);
            self.push(LinkOutput::PathChanged);
        }
    }

    fn fail(&mut self, reason: String) {
        self.state = State::Failed;
        self.ring.clear();
        self.reports = Reports::default();
        self.search = MtuSearch::new();
        self.outputs.clear();
        self.push(LinkOutput::Failed(reason));
    }

    fn push(&mut self, output: LinkOutput) {
        self.outputs.push_back(output);
    }
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link")
            .field("state", &self.state)
            .field("path", &self.path())
            .finish_non_exhaustive()
    }
}

/// Returns the next time at which links look whether frames travel.
fn next_look(now: Time) -> Time {
    let interval = REST_LOOK.as_micros() as u64;
    Time::from_micros((now.as_micros() / interval + 1) * interval)
}

/// Returns true if so many datagrams are lost that larger ones may not get through at all.
const fn is_suspicious(sample: Sample) -> bool {
    sample.lost > 0 && sample.lost * SUSPECT_PART >= sample.sent
}

#[cfg(test)]
mod tests;
