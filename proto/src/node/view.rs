//! The view of a node for status pages, reports and metrics.

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
    /// The overlays that the other end offers, in its order; none in legacy mode.
    pub remote_overlays: Arc<[String]>,
    /// Its overlays, each in its place.
    pub forwarders: Vec<ForwarderView>,
    /// The overlay that currently carries frames.
    pub active: Option<ForwarderView>,
    /// Bytes handed to the driver and not sent yet.
    pub bytes_in_flight: usize,
    /// Bytes of gossip that wait for these to be sent.
    pub bytes_waiting: usize,
}

impl ConnectionView {
    /// Returns true if the other end is a weft router.
    pub fn is_weft(&self) -> bool {
        offers_weft(&self.remote_overlays)
    }
}
