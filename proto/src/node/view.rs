//! What status pages, reports and metrics show of a node.

use std::net::SocketAddr;
use std::sync::Arc;

use super::event::PeerLabel;
use super::output::offers_weft;
use crate::overlay::ForwarderView;
use crate::types::{ConnId, ConnUid};

/// A connection that was added to our peer.
#[derive(Clone, Debug)]
pub struct ConnectionView {
    /// Its name.
    pub conn: ConnId,
    /// The peer at the other end.
    pub peer: PeerLabel,
    /// Its address.
    pub address: SocketAddr,
    /// Whether we dialled.
    pub outbound: bool,
    /// Whether an overlay carries frames.
    pub established: bool,
    /// The number that both ends give it.
    pub uid: ConnUid,
    /// The version of the protocol.
    pub version: u8,
    /// Whether messages are encrypted.
    pub encrypted: bool,
    /// Whether both ends trust the network between them, so that frames are not encrypted.
    pub trusted: bool,
    /// The overlays that the other end offers, in its order; none if it is an old router.
    pub remote_overlays: Arc<[String]>,
    /// Its overlays, each in its place.
    pub forwarders: Vec<ForwarderView>,
    /// The overlay that frames take at the moment.
    pub active: Option<ForwarderView>,
    /// Bytes in the driver's hands that have not left it.
    pub bytes_in_flight: usize,
    /// Bytes of gossip that wait for these to leave.
    pub bytes_waiting: usize,
}

impl ConnectionView {
    /// Whether the router at the other end is one of ours.
    pub fn is_weft(&self) -> bool {
        offers_weft(&self.remote_overlays)
    }
}
