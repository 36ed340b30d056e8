//! Events from the data threads to control. The threads never wait for control: events for which
//! there is no room are dropped and counted. Each event may be lost, since the sender of a special
//! frame or a report repeats it, a packet that is too large and a datagram from a new address are
//! followed by others, and moves of MAC addresses are informational.

use std::net::SocketAddrV4;

use proto::native::Report;
use proto::sleeve::{LinkId, Special};
use proto::types::{Mac, PeerName, Time};
use tokio::sync::mpsc;

/// Maximum number of events that wait for control. Further ones are dropped
/// ([`Count::EventsLost`]).
///
/// [`Count::EventsLost`]: crate::counters::Count::EventsLost
pub const EVENTS_MAX: usize = 1024;

/// An event for control.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DataEvent {
    /// A frame between routers came over a link.
    Special {
        /// The link that it opened with.
        link: LinkId,
        /// Source address of its packet.
        from: SocketAddrV4,
        /// What it says.
        special: Special,
    },
    /// A report came over a native link.
    Report {
        /// The link.
        link: LinkId,
        /// Which of its keys the report opened with.
        epoch: u32,
        /// The report.
        report: Report,
        /// Bytes of its datagram.
        bytes: usize,
        /// Time of its arrival.
        at: Time,
    },
    /// A datagram of a native link that is newer than all before came from another address.
    LinkMoved {
        /// The link.
        link: LinkId,
        /// The address.
        from: SocketAddrV4,
    },
    /// The kernel refused a packet because it exceeds the path MTU.
    TooBig {
        /// The link.
        link: LinkId,
        /// The path MTU, in bytes of IP packet.
        path_mtu: u32,
    },
    /// A MAC address was seen at another peer than before.
    Moved {
        /// The address.
        mac: Mac,
        /// Its earlier peer; unknown if that peer has just gone.
        from: Option<PeerName>,
        /// Where it is.
        to: PeerName,
    },
    /// A queue of the TAP device fails; frames are not carried until it works again.
    TapFailed {
        /// The queue.
        queue: usize,
        /// The error code.
        code: i32,
    },
}

/// Receiver of events. `recv` waits on a tokio runtime, `blocking_recv` anywhere else.
pub type Events = mpsc::Receiver<DataEvent>;

/// Sender of events.
pub type EventSender = mpsc::Sender<DataEvent>;

/// Makes the two ends of the queue of events.
pub fn channel() -> (EventSender, Events) {
    mpsc::channel(EVENTS_MAX)
}
