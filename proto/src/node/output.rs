//! What the driver must do for a node.

use std::net::SocketAddr;
use std::sync::Arc;

use super::event::Event;
use crate::crypto::SessionKey;
use crate::overlay::{LinkOutput, Overlay};
use crate::routes::Routes;
use crate::sleeve::LinkId;
use crate::sleeve::link::Path;
use crate::types::{ConnId, ConnUid, PeerName};

/// What the driver must do for a node.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect to an address. The driver answers by `Node::handle_dialled` or
    /// `Node::handle_dial_failed`.
    Dial {
        /// The handle of the connection.
        conn: ConnId,
        /// The address.
        to: SocketAddr,
    },
    /// Send bytes down a connection. The driver answers by `Node::handle_sent` when they left.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection. There are no more outputs for it.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Gossip on a channel that the driver registered.
    Deliver {
        /// The channel.
        channel: Arc<str>,
        /// The connection over which it arrived, for `Node::close`.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Its destination and source.
        kind: DeliveryKind,
        /// The channel's data.
        payload: Vec<u8>,
    },
    /// Send the complete state of a channel down a connection. The driver answers by
    /// `Node::handle_state`, at once or later.
    NeedState {
        /// The channel.
        channel: Arc<str>,
        /// The connection.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Whether this is the first request of the channel's state for this connection.
        first: bool,
    },
    /// There is a new link to a neighbour. Packets from it may arrive at once.
    LinkAdded(Box<LinkInfo>),
    /// An action on one link.
    Link(LinkOutput),
    /// A link was removed.
    LinkRemoved {
        /// The link.
        link: LinkId,
    },
    /// The links to a neighbour, in the order in which to try them for a frame; none if it is not a
    /// neighbour any more.
    LinkOrder {
        /// The neighbour.
        peer: PeerName,
        /// The links.
        links: Vec<LinkId>,
    },
    /// New routes, to be used from now on.
    Routes(Arc<Routes>),
    /// Peers were removed: forget everything about them.
    PeersGone(Vec<PeerName>),
    /// The targets to dial after a restart, as the user wrote them.
    TargetsChanged(Vec<String>),
    /// Addresses at which peers were met: to be recalled after a restart.
    PeersMet(Vec<(PeerName, SocketAddr)>),
    /// An event for the log.
    Event(Event),
}

/// Destination and source of gossip.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// A unicast from one peer to us.
    Unicast {
        /// The peer.
        source: PeerName,
    },
    /// A broadcast from one peer. The handler decides what is relayed (`Node::relay_broadcast`).
    Broadcast {
        /// The peer.
        source: PeerName,
    },
    /// Gossip from the neighbour. The handler decides what is relayed (`Node::relay_gossip`).
    Gossip,
}

/// A new link, as needed by the threads that carry frames.
#[derive(Clone, Debug)]
pub struct LinkInfo {
    /// The link.
    pub link: LinkId,
    /// The connection it belongs to.
    pub conn: ConnId,
    /// The neighbour.
    pub peer: PeerName,
    /// Its kind.
    pub overlay: Overlay,
    /// The overlays that the neighbour offers, in its order; none in legacy mode.
    pub remote_overlays: Arc<[String]>,
    /// The UID of the connection, which heartbeats carry.
    pub uid: ConnUid,
    /// The key of sleeve packets; `None` for plain packets.
    pub key: Option<SessionKey>,
    /// Whether we dialled, which distinguishes the nonces of both directions.
    pub dialled: bool,
    /// The initial path.
    pub path: Path,
}

impl LinkInfo {
    /// Returns true if the other end is a weft router.
    pub fn is_weft(&self) -> bool {
        offers_weft(&self.remote_overlays)
    }
}

/// Returns true if a router that offers these overlays is a weft router.
pub(super) fn offers_weft(overlays: &[String]) -> bool {
    overlays.iter().any(|name| name == Overlay::Weft.name())
}
