//! What status pages, reports and metrics show of a node.

use std::net::SocketAddr;
use std::sync::Arc;

use super::event::PeerLabel;
use super::{Node, offers_weft};
use crate::connector::{Target, TargetView};
use crate::overlay::ForwarderView;
use crate::routes::Routes;
use crate::topology::Topology;
use crate::types::{ConnId, ConnUid, PeerName};

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

/// What happened so far, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that ended, introduced or not.
    pub terminations: u64,
    /// Accepted connections that were closed to make room for others.
    pub strangers_dropped: u64,
    /// How often an overlay was left since nothing came through.
    pub overlay_holds: u64,
    /// How often an overlay was over while its connection went on.
    pub overlay_failures: u64,
    /// Gossip messages sent, relayed unicasts aside.
    pub gossip_sent: u64,
    /// Bytes of their payloads.
    pub gossip_sent_bytes: u64,
    /// Gossip messages received for us.
    pub gossip_received: u64,
    /// Bytes of their payloads.
    pub gossip_received_bytes: u64,
    /// Payloads that were dropped since too much waited, or for want of a channel.
    pub gossip_dropped: u64,
    /// Unicasts that had no way, or no room on it.
    pub unicasts_dropped: u64,
    /// Messages that made no sense on their connection.
    pub messages_ignored: u64,
    /// Entries of topology updates that exceeded limits.
    pub topology_ignored: u64,
    /// How often routes were calculated.
    pub route_calculations: u64,
}

impl Node {
    /// Our name.
    pub fn us(&self) -> PeerName {
        self.us
    }

    /// All that is known of peers and their connections.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// The routes that are in use.
    pub fn routes(&self) -> &Arc<Routes> {
        &self.routes
    }

    /// Connections that were added to our peer, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> {
        self.conns.iter().filter_map(|(conn, connection)| {
            let member = connection.member.as_ref()?;
            Some(ConnectionView {
                conn: *conn,
                peer: member.label.clone(),
                address: connection.remote,
                outbound: connection.dial.is_some(),
                established: member.overlay.is_established(),
                uid: member.uid,
                version: member.version,
                encrypted: member.encrypted,
                trusted: member.trusted,
                remote_overlays: member.remote_overlays.clone(),
                forwarders: member.overlay.forwarders().collect(),
                active: member.overlay.active(),
                bytes_in_flight: connection.outbox.in_flight(),
                bytes_waiting: connection.outbox.waiting_bytes(),
            })
        })
    }

    /// How many connections are not introduced yet.
    pub fn introductions(&self) -> usize {
        self.conns.len() - self.members.len()
    }

    /// All addresses that are dialled or waited for.
    pub fn targets(&self) -> impl Iterator<Item = TargetView<'_>> {
        self.connector.targets()
    }

    /// The targets that users named.
    pub fn direct_targets(&self) -> impl ExactSizeIterator<Item = &Target> {
        self.connector.direct()
    }

    /// What happened so far.
    pub fn counters(&self) -> Counters {
        self.counters
    }
}
