//! State machine of one sleeve link: whether the peer is alive, at which address, and how large
//! packets may be.
//!
//! ```text
//!            confirm                 control 1 (the peer heard us)
//!  Passive ----------> Fast heartbeats ----------> Slow heartbeats, established
//!                           |                          |
//!                           +-- 60 s without a valid heartbeat --> failed
//! ```
//!
//! The dialler knows where to send. The other end learns the address from the first heartbeat with
//! the connection's UID, and follows it if it changes (NAT). Established means that the other end
//! hears *us*. `mtu.rs` searches for the path MTU.

use std::collections::VecDeque;
use std::net::SocketAddrV4;
use std::time::Duration;

use super::mtu::MtuSearch;
use super::wire::{
    FRAME_HEADER_BYTES, PACKET_BYTES_MAX, PLAIN_HEADER_BYTES, SEALED_HEADER_BYTES, Special,
    UDP_IP_BYTES,
};
use crate::ethernet;
use crate::types::{ConnUid, Time};

/// The link fails if no valid heartbeat arrives for this long.
pub const HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(60);
/// Interval between heartbeats until the peer confirms that it received one.
pub const HEARTBEAT_FAST: Duration = Duration::from_millis(500);
/// Interval between heartbeats after that.
pub const HEARTBEAT_SLOW: Duration = Duration::from_secs(10);
/// The first intervals between heartbeats. A packet that overtakes the TCP messages which prepare
/// the other end for it is lost, so the first ones are repeated quickly.
const HEARTBEAT_FIRST_MS: [u64; 5] = [10, 20, 40, 80, 160];
/// Interval between tests of whether packets that the kernel fragments arrive.
pub const FRAGMENTATION_TEST_INTERVAL: Duration = Duration::from_secs(300);
/// Maximum number of outputs waiting to be polled. Tests of the peer beyond it are not answered.
const OUTPUTS_MAX: usize = 64;

/// Returns the difference between the size of a packet with one frame and the MTU of that frame, in
/// bytes: IP, UDP, packet, frame and Ethernet headers.
///
/// Rule: `docs/protocol/sleeve.md#2-6-sizes`.
pub const fn overhead_bytes(encrypted: bool) -> usize {
    let packet = if encrypted {
        SEALED_HEADER_BYTES
    } else {
        PLAIN_HEADER_BYTES
    };
    UDP_IP_BYTES + packet + FRAME_HEADER_BYTES + ethernet::HEADER_BYTES
}

/// A control message between the two ends of a sleeve link, sent over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// Tag 1: a valid heartbeat of the receiver arrived.
    ConnectionEstablished,
    /// Tag 2: the receiver's fragmentation test arrived.
    FragmentationReceived,
    /// Tag 3: the receiver's test of this MTU arrived.
    MtuVerified(u16),
}

/// A control message that cannot be understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ControlError {
    /// No message has this tag.
    #[error("unknown sleeve control message {0}")]
    UnknownTag(u8),
    /// The content has the wrong length.
    #[error("sleeve control message {tag} with {len} bytes")]
    Length {
        /// Returns the tag of the message.
        tag: u8,
        /// Bytes of its content.
        len: usize,
    },
}

impl Control {
    /// Decodes the message with this tag and content. Additional content is ignored.
    ///
    /// Format: `docs/protocol/sleeve.md#5-1-control-messages`.
    pub fn decode(tag: u8, content: &[u8]) -> Result<Control, ControlError> {
        match (tag, content) {
            (1, _) => Ok(Control::ConnectionEstablished),
            (2, _) => Ok(Control::FragmentationReceived),
            (3, [high, low, ..]) => Ok(Control::MtuVerified(u16::from_be_bytes([*high, *low]))),
            (3, _) => Err(ControlError::Length {
                tag,
                len: content.len(),
            }),
            _ => Err(ControlError::UnknownTag(tag)),
        }
    }

    /// Returns the tag of the message.
    ///
    /// Format: `docs/protocol/sleeve.md#5-1-control-messages`.
    pub const fn tag(self) -> u8 {
        match self {
            Control::ConnectionEstablished => 1,
            Control::FragmentationReceived => 2,
            Control::MtuVerified(_) => 3,
        }
    }

    /// Returns the content of the message.
    ///
    /// Format: `docs/protocol/sleeve.md#5-1-control-messages`.
    pub fn content(self) -> Vec<u8> {
        match self {
            Control::ConnectionEstablished | Control::FragmentationReceived => Vec::new(),
            Control::MtuVerified(mtu) => mtu.to_be_bytes().to_vec(),
        }
    }
}

/// Why a link ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The peer is silent, or what it sends does not arrive.
    #[error("timed out waiting for UDP heartbeat")]
    HeartbeatTimeout,
}

/// Address and limits for packets of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// Address of the peer; `None` until it is known.
    pub remote: Option<SocketAddrV4>,
    /// Maximum size of a frame without its Ethernet header, in bytes.
    pub mtu: usize,
    /// Whether the peer verified the MTU.
    pub mtu_verified: bool,
    /// Maximum UDP payload on the DF channel, in bytes.
    pub max_payload: usize,
    /// Whether packets that the kernel fragments were seen to arrive.
    pub fragments: bool,
    /// Whether the peer may send frames in plain packets over the link. It may not while it said
    /// that it uses another one.
    pub open: bool,
}

/// What the driver must do for a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkOutput {
    /// Send a special frame to the peer, on its own channel.
    Special(Special),
    /// Send a control message to the peer's end.
    Control(Control),
    /// [`Link::path`] changed.
    PathChanged,
    /// The peer moved to another address.
    Moved {
        /// Where it was.
        from: SocketAddrV4,
        /// Where it is.
        to: SocketAddrV4,
    },
    /// The peer hears us. Comes once for each time that it begins.
    Established,
    /// The peer is silent, so the link waits for [`Link::confirm`] again. Only of a link that is a
    /// reserve.
    Silent,
    /// The link failed. Reported once, as the last output.
    Failed(LinkError),
}

/// One end of a sleeve link.
///
/// Rule: `docs/protocol/sleeve.md#5-2-states`.
#[derive(Debug)]
pub struct Link {
    uid: ConnUid,
    overhead: usize,
    remote: Option<SocketAddrV4>,
    search: MtuSearch,
    fragments: bool,
    open: bool,
    state: State,
    /// Whether the link may be left and begun anew.
    is_reserve: bool,
    heard_peer: bool,
    heard_at: Option<Time>,
    first_heartbeats: usize,
    heartbeat_due: Option<Time>,
    timeout: Option<Time>,
    fragmentation_test_due: Option<Time>,
    reported: Option<Path>,
    outputs: VecDeque<LinkOutput>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Passive,
    Fast,
    Established,
    Failed,
}

impl Link {
    /// Creates one end, which waits for [`Link::confirm`]. `remote` is known to the end that
    /// dialled.
    pub fn new(uid: ConnUid, encrypted: bool, remote: Option<SocketAddrV4>) -> Link {
        let overhead = overhead_bytes(encrypted);
        Link {
            uid,
            overhead,
            remote,
            search: MtuSearch::new(overhead),
            fragments: false,
            open: true,
            state: State::Passive,
            is_reserve: false,
            heard_peer: false,
            heard_at: None,
            first_heartbeats: 0,
            heartbeat_due: None,
            timeout: None,
            fragmentation_test_due: None,
            reported: None,
            outputs: VecDeque::new(),
        }
    }

    /// Returns the current path.
    pub fn path(&self) -> Path {
        let mtu = self.search.mtu();
        Path {
            remote: self.remote,
            mtu,
            mtu_verified: self.search.is_verified(),
            max_payload: (mtu + self.overhead - UDP_IP_BYTES).min(PACKET_BYTES_MAX),
            fragments: self.fragments,
            open: self.open,
        }
    }

    /// Returns true if the peer confirmed that it hears us.
    pub fn is_established(&self) -> bool {
        self.state == State::Established
    }

    /// Returns what to do next, in order, until `None`. Any `handle_` call and `confirm` may add
    /// outputs.
    pub fn poll_output(&mut self) -> Option<LinkOutput> {
        self.outputs.pop_front()
    }

    /// Returns the time at which `handle_timeout` is due. Any other call may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.heartbeat_due,
            self.timeout,
            self.fragmentation_test_due,
            self.search.poll_timeout(),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Reports that the connection has become a member and is used with its peer: starts to send.
    ///
    /// Rule: `docs/protocol/sleeve.md#5-2-states`.
    pub fn confirm(&mut self, now: Time) {
        if self.state != State::Passive {
            return;
        }
        self.state = State::Fast;
        self.timeout = Some(now + HEARTBEAT_TIMEOUT);
        self.report_path();
        self.heartbeat(now);
    }

    /// The peer said whether it sends frames over this link.
    pub fn set_open(&mut self, open: bool) {
        self.open = open;
        if self.state != State::Failed {
            self.report_path();
        }
    }

    /// From now on the link is a reserve: it can be left, and ends with its connection only.
    #[must_use]
    pub fn as_reserve(mut self) -> Link {
        self.is_reserve = true;
        self
    }

    /// Leaves the link: says nothing until [`Link::confirm`].
    pub fn leave(&mut self) {
        if self.state == State::Failed {
            return;
        }
        self.state = State::Passive;
        self.heard_peer = false;
        self.heard_at = None;
        self.first_heartbeats = 0;
        self.heartbeat_due = None;
        self.timeout = None;
        self.fragmentation_test_due = None;
        self.search = MtuSearch::new(self.overhead);
        self.fragments = false;
        self.report_path();
    }

    /// Handles a special frame that arrived from the peer at the address `from`.
    ///
    /// Rule: `docs/protocol/sleeve.md#5-2-states`.
    pub fn handle_special(&mut self, now: Time, from: SocketAddrV4, special: Special) {
        if matches!(self.state, State::Passive | State::Failed) {
            return;
        }
        match special {
            Special::Heartbeat(uid) if uid == self.uid => self.handle_heartbeat(now, from),
            Special::Heartbeat(_) => {}
            Special::FragmentationTest => self.answer(Control::FragmentationReceived),
            Special::MtuTest { mtu } => self.answer(Control::MtuVerified(mtu)),
        }
    }

    /// Handles a control message of the peer.
    ///
    /// Rule: `docs/protocol/sleeve.md#5-2-states`.
    pub fn handle_control(&mut self, now: Time, control: Control) {
        match (control, self.state) {
            (_, State::Failed) => {}
            (Control::ConnectionEstablished, State::Fast) => self.establish(now),
            (Control::ConnectionEstablished, State::Passive | State::Established) => {}
            (Control::FragmentationReceived, _) => {
                self.fragments = true;
                self.report_path();
            }
            (Control::MtuVerified(mtu), _) => {
                let sizes = self.search.handle_verified(now, mtu);
                self.send_tests(sizes);
            }
        }
    }

    /// Reports that the kernel refused a packet of the DF channel because the path carries only
    /// `path_mtu` bytes.
    pub fn handle_too_big(&mut self, now: Time, path_mtu: usize) {
        if matches!(self.state, State::Fast | State::Established) {
            let sizes = self.search.handle_too_big(now, path_mtu);
            self.send_tests(sizes);
        }
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        let due = |at: Option<Time>| at.is_some_and(|at| at <= now);
        if due(self.timeout) {
            match self.is_reserve {
                true => {
                    self.leave();
                    self.push(LinkOutput::Silent);
                }
                false => self.fail(LinkError::HeartbeatTimeout),
            }
            return;
        }
        if due(self.heartbeat_due) {
            self.heartbeat(now);
        }
        if due(self.fragmentation_test_due) {
            self.test_fragmentation(now);
            self.push(LinkOutput::Special(Special::PROBE));
            let sizes = self.search.recheck(now);
            self.send_tests(sizes);
        }
        if due(self.search.poll_timeout()) {
            let sizes = self.search.handle_timeout(now);
            self.send_tests(sizes);
        }
    }

    /// Rule: `docs/protocol/sleeve.md#5-3-heartbeats`.
    fn handle_heartbeat(&mut self, now: Time, from: SocketAddrV4) {
        match self.remote {
            None => {
                self.remote = Some(from);
                self.report_path();
                self.heartbeat(now);
            }
            Some(known) if known != from => {
                self.remote = Some(from);
                self.report_path();
                self.push(LinkOutput::Moved {
                    from: known,
                    to: from,
                });
            }
            Some(_) => {}
        }
        let before = self.heard_at.replace(now);
        if !self.heard_peer {
            self.heard_peer = true;
            self.push(LinkOutput::Control(Control::ConnectionEstablished));
        } else if self.is_reserve && before.is_some_and(|at| now < at + HEARTBEAT_FAST * 2) {
            // The other end began anew and waits to hear that we hear it.
            self.answer(Control::ConnectionEstablished);
        }
        self.timeout = Some(now + HEARTBEAT_TIMEOUT);
    }

    /// Rule: `docs/protocol/sleeve.md#5-4-fragmentation`.
    fn establish(&mut self, now: Time) {
        self.state = State::Established;
        self.heartbeat_due = Some(now + HEARTBEAT_SLOW);
        self.push(LinkOutput::Established);
        self.test_fragmentation(now);
        self.push(LinkOutput::Special(Special::PROBE));
    }

    /// Rule: `docs/protocol/sleeve.md#5-3-heartbeats`.
    fn heartbeat(&mut self, now: Time) {
        if self.remote.is_none() {
            self.heartbeat_due = None;
            return;
        }
        self.push(LinkOutput::Special(Special::Heartbeat(self.uid)));
        let wait = match (self.state, HEARTBEAT_FIRST_MS.get(self.first_heartbeats)) {
            (State::Established, _) => HEARTBEAT_SLOW,
            (_, Some(ms)) => Duration::from_millis(*ms),
            (_, None) => HEARTBEAT_FAST,
        };
        self.first_heartbeats = self.first_heartbeats.saturating_add(1);
        self.heartbeat_due = Some(now + wait);
    }

    /// Rule: `docs/protocol/sleeve.md#5-4-fragmentation`.
    fn test_fragmentation(&mut self, now: Time) {
        self.fragmentation_test_due = Some(now + FRAGMENTATION_TEST_INTERVAL);
        self.fragments = false;
        self.report_path();
        self.push(LinkOutput::Special(Special::FragmentationTest));
    }

    fn send_tests(&mut self, sizes: Vec<u16>) {
        self.report_path();
        for mtu in sizes {
            self.push(LinkOutput::Special(Special::MtuTest { mtu }));
        }
    }

    /// Answers a test, unless the peer sends tests faster than outputs are polled.
    fn answer(&mut self, control: Control) {
        if self.outputs.len() < OUTPUTS_MAX {
            self.push(LinkOutput::Control(control));
        }
    }

    fn report_path(&mut self) {
        let path = self.path();
        if self.reported != Some(path) {
            self.reported = Some(path);
            self.push(LinkOutput::PathChanged);
        }
    }

    fn fail(&mut self, error: LinkError) {
        self.state = State::Failed;
        self.heartbeat_due = None;
        self.timeout = None;
        self.fragmentation_test_due = None;
        self.search = MtuSearch::new(self.overhead);
        self.outputs.clear();
        self.push(LinkOutput::Failed(error));
    }

    fn push(&mut self, output: LinkOutput) {
        self.outputs.push_back(output);
    }
}

#[cfg(test)]
mod tests;
