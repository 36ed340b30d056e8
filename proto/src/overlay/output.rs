//! What the overlays of a connection want done, and how they are doing.

use std::net::SocketAddrV4;

use super::kind::Overlay;
use crate::native::{self, Keys, Report};
use crate::sleeve::link::Path;
use crate::sleeve::{LinkId, Special};

/// How a forwarder is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not established yet.
    Pending,
    /// Established.
    Established,
    /// Established before, but nothing gets through at the moment.
    OnHold(String),
    /// Over, for the life of the connection.
    Failed(String),
}

/// A forwarder as status pages show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwarderView {
    /// Its overlay.
    pub overlay: Overlay,
    /// Its link.
    pub link: LinkId,
    /// How it is doing, and why not better.
    pub health: Health,
    /// How its packets travel; `None` once it failed.
    pub path: Option<Path>,
    /// Whether its packets are encrypted.
    pub sealed: bool,
    /// What is known of a native link beyond that.
    pub native: Option<native::LinkView>,
}

/// What is to be done about one link. It is the same whether a switch wants it or a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkOutput {
    /// The link.
    pub link: LinkId,
    /// What is to be done.
    pub what: LinkAction,
}

/// See [`LinkOutput`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LinkAction {
    /// Its packets travel in another way.
    Path(Path),
    /// A native link has other keys. Datagrams that need them may come at once, and what follows
    /// may be sent with them.
    Keys(Keys),
    /// Send a special frame over a sleeve link; the frame says on which channel it goes.
    Special(Special),
    /// Seal a report with the key of a native link, in a datagram of so many bytes, and send it
    /// at once.
    Report(Report, usize),
}

/// What the overlays of a connection want done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SwitchOutput {
    /// Send this protocol message down the connection.
    Message(Vec<u8>),
    /// Something about one link.
    Link(LinkOutput),
    /// The peer's end of a link moved.
    Moved {
        /// The link.
        link: LinkId,
        /// Where it was.
        from: SocketAddrV4,
        /// Where it is.
        to: SocketAddrV4,
    },
    /// The links to try for a frame, in this order, from here on.
    Order(Vec<LinkId>),
    /// The first forwarder is established. Comes once.
    Established,
    /// A forwarder that was established is left for a while, or used again.
    Health {
        /// Its overlay.
        overlay: Overlay,
        /// Why it is left; `None` if it is used again.
        held: Option<String>,
    },
    /// A forwarder is over; others go on.
    LinkFailed {
        /// The link.
        link: LinkId,
        /// Its overlay.
        overlay: Overlay,
        /// Why.
        reason: String,
    },
    /// No forwarder is left: the connection is to be closed. Comes once, at the end.
    Broken(String),
}
