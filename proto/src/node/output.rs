//! What a node wants done.

use std::net::SocketAddr;
use std::sync::Arc;

use super::event::Event;
use crate::crypto::SessionKey;
use crate::overlay::{LinkOutput, Overlay};
use crate::routes::Routes;
use crate::sleeve::LinkId;
use crate::sleeve::link::Path;
use crate::types::{ConnId, ConnUid, PeerName};

/// What a node wants done.
#[derive(Clone, Debug)]
pub enum Output {
    /// Connect to an address. To be answered by `Node::handle_dialled` or
    /// `Node::handle_dial_failed`.
    Dial {
        /// The name of the connection.
        conn: ConnId,
        /// The address.
        to: SocketAddr,
    },
    /// Send bytes down a connection. To be answered by `Node::handle_sent` when they left.
    Send {
        /// The connection.
        conn: ConnId,
        /// The bytes.
        bytes: Vec<u8>,
    },
    /// Close a connection; nothing more comes for it.
    Close {
        /// The connection.
        conn: ConnId,
    },
    /// Gossip on a channel that the driver registered.
    Deliver {
        /// The channel.
        channel: Arc<str>,
        /// The connection over which it came, to be closed if it must not be tolerated.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Whom it is for, and from whom.
        kind: DeliveryKind,
        /// The channel's data.
        payload: Vec<u8>,
    },
    /// The complete state of a channel is to be sent down a connection: answer by
    /// `Node::handle_state`, at once or later.
    NeedState {
        /// The channel.
        channel: Arc<str>,
        /// The connection.
        conn: ConnId,
        /// The peer at the other end.
        neighbour: PeerName,
        /// Whether the channel's state was never asked for this connection before.
        first: bool,
    },
    /// There is a new link to a neighbour. Packets from it may come at once.
    LinkAdded(Box<LinkInfo>),
    /// Something about one link.
    Link(LinkOutput),
    /// A link is over.
    LinkRemoved {
        /// The link.
        link: LinkId,
    },
    /// The links to a neighbour, in the order in which they are to be tried for a frame; none if
    /// it is a neighbour no longer.
    LinkOrder {
        /// The neighbour.
        peer: PeerName,
        /// The links.
        links: Vec<LinkId>,
    },
    /// New routes; to be used from here on.
    Routes(Arc<Routes>),
    /// Peers were removed: forget what belongs to them.
    PeersGone(Vec<PeerName>),
    /// What is to be dialled after a restart, as the user wrote it.
    TargetsChanged(Vec<String>),
    /// Where peers were met: to be recalled after a restart.
    PeersMet(Vec<(PeerName, SocketAddr)>),
    /// Something for the log.
    Event(Event),
}

/// From whom gossip comes, and for whom it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DeliveryKind {
    /// From one peer for us alone.
    Unicast {
        /// The peer.
        source: PeerName,
    },
    /// From one peer for everybody. The handler decides what goes on
    /// (`Node::relay_broadcast`).
    Broadcast {
        /// The peer.
        source: PeerName,
    },
    /// From the neighbour for us. The handler decides what goes on (`Node::relay_gossip`).
    Gossip,
}

/// What the threads that carry frames must know of a new link.
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
    /// The overlays that the neighbour offers, in its order; none if it is an old router.
    pub remote_overlays: Arc<[String]>,
    /// The number of the connection, which is in heartbeats.
    pub uid: ConnUid,
    /// The key of sleeve packets; none for packets in the clear.
    pub key: Option<SessionKey>,
    /// Whether we dialled, which tells the nonces of both directions apart.
    pub dialled: bool,
    /// How packets travel at first.
    pub path: Path,
}

impl LinkInfo {
    /// Whether the router at the other end is one of ours.
    pub fn is_weft(&self) -> bool {
        offers_weft(&self.remote_overlays)
    }
}

/// Whether a router that offers these overlays is one of ours.
pub(super) fn offers_weft(overlays: &[String]) -> bool {
    overlays.iter().any(|name| name == Overlay::Weft.name())
}
