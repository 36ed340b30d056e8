//! What the overlays of a connection want done, and how they are doing.

use std::net::SocketAddrV4;

use super::kind::Overlay;
use crate::native::{self, Keys, Report};
use crate::sleeve::link::Path;
use crate::sleeve::{LinkId, Special};

/// Health of a forwarder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Health {
    /// Not established yet.
    Pending,
    /// Established.
    Established,
    /// Established before, but currently nothing gets through.
    OnHold(String),
    /// Failed for the life of the connection.
    Failed(String),
}

/// A forwarder as status pages show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ForwarderView {
    /// Its overlay.
    pub overlay: Overlay,
    /// Its link.
    pub link: LinkId,
    /// Its health, with the reason.
    pub health: Health,
    /// Path of its packets; `None` once it failed.
    pub path: Option<Path>,
    /// Whether its packets are encrypted.
    pub sealed: bool,
    /// Further facts of a native link.
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
    /// A native link has new keys. Datagrams under them may arrive at once, and later outputs may
    /// use them.
    Keys(Keys),
    /// A native link needs random bytes: to be answered by `Node::handle_secret`.
    NeedSecret,
    /// Send a special frame over a sleeve link; the frame says on which channel it goes.
    Special(Special),
    /// Seal a report with the key of a native link, in a datagram of so many bytes, and send it
    /// at once.
    Report(Report, usize),
}

/// What the driver must do for the overlays of a connection.
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
    /// From now on, the links to try for a frame, in this order.
    Order(Vec<LinkId>),
    /// The first forwarder is established. Reported once.
    Established,
    /// An established forwarder was put on hold, or is used again.
    Health {
        /// Its overlay.
        overlay: Overlay,
        /// Why it is on hold; `None` if it is used again.
        held: Option<String>,
    },
    /// A forwarder failed; others continue.
    LinkFailed {
        /// The link.
        link: LinkId,
        /// Its overlay.
        overlay: Overlay,
        /// Why.
        reason: String,
    },
    /// No forwarder is left: close the connection. Reported once, as the last output.
    Broken(String),
}
