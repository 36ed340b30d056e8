//! A peer of the mesh: the complete control side of this crate as one state machine.
//!
//! ```text
//!              handle_accepted, handle_dialled        handle_special, handle_too_big
//!                          |                                      |
//!   bytes --> Wire --> introduction --> member --> OverlaySwitch (links)
//!                          |               |
//!                     Topology <--- gossip channels ---> Deliver, NeedState (the driver's)
//!                          |
//!                  Routes, Connector --> Dial
//! ```
//!
//! A connection is *introduced* when both ends know each other's features, and becomes a *member*
//! of our peer if it is not refused; only then are its messages handled. It is *established* when
//! one of its overlays carries frames.
//!
//! The driver calls the `handle_` functions, then polls outputs until there are none, and acts on
//! them in order. Unknown connections and links are ignored, so the driver need not keep track of
//! what was closed in between.

mod channels;
mod config;
mod connection;
mod connections;
mod core;
mod digests;
mod event;
mod happened;
mod introduction;
mod membership;
mod output;
mod pace;
mod relay;
mod sink;
mod telling;
#[cfg(test)]
mod tests;
mod tie;
mod view;
mod word;

use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

pub use crate::overlay::{LinkAction, LinkOutput};
pub use channels::Content;
pub use config::{
    ConnSecret, GARBAGE_DELAY, GOSSIP_INTERVAL, HEARTBEAT_INTERVAL, INTRODUCTION_TIME_MAX,
    INTRODUCTIONS_MAX, NodeConfig, READ_TIME_MAX, WRITE_TIME_MAX,
};
pub use event::{CloseReason, Event, Level, PeerLabel};
pub use output::{DeliveryKind, LinkInfo, Output};
pub use sink::Counters;
pub use view::ConnectionView;

use crate::connector::{Ended, Target, TargetView, TooManyTargets};
use crate::crypto::Secret;
use crate::gossip::Route;
use crate::message::Message;
use crate::native::Report;
use crate::overlay::OverlaySwitch;
use crate::routes::Routes;
use crate::sleeve::{LinkId, Special};
use crate::topology::Topology;
use crate::types::{ConnId, PeerName, Time};
use core::Core;
use introduction::open_connection;

/// Our peer.
#[derive(Debug)]
pub struct Node {
    core: Core,
}

impl Node {
    /// Creates a peer without connections.
    pub fn new(config: NodeConfig, now: Time) -> Node {
        Node {
            core: Core::new(config, now),
        }
    }

    /// Returns what to do next, in order, until `None`. Any other call may add outputs.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.core.sink.outputs.pop_front()
    }

    /// Returns the time at which [`Node::handle_timeout`] is due. Any other call may change it.
    pub fn poll_timeout(&self) -> Option<Time> {
        [
            self.core.membership.poll_timeout(),
            self.core.connections.poll_timeout(),
            self.core.connector.poll_timeout(),
            self.core.digests.poll_timeout(),
            Some(self.core.relay.poll_timeout()),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Time) {
        for conn in self.core.connections.ids() {
            match self.core.connections.handle_timeout(now, conn) {
                Ok(()) => self.core.advance(now, conn),
                Err(reason) => self.core.close_connection(now, conn, reason),
            }
        }
        self.core.connector.handle_timeout(now);
        if self.core.membership.is_garbage_due(now) {
            self.core
                .membership
                .collect_garbage(now, None, &mut self.core.sink);
        }
        if self.core.relay.is_due(now) {
            self.core.membership.forget_changes(now);
            self.core.gossip_all_state(now);
        }
        if let Some(names) = self.core.membership.take_announcement(now) {
            self.core.announce(now, &names);
        }
        if self.core.membership.are_routes_due(now) {
            self.core.recalculate(now);
        }
        self.core.settle(now);
    }

    /// Reports that a connection was accepted. Returns its handle.
    pub fn handle_accepted(&mut self, now: Time, remote: SocketAddr, secret: ConnSecret) -> ConnId {
        if let Some(victim) = self.core.crowded_out() {
            self.core.sink.counters.strangers_dropped += 1;
            self.core
                .close_connection(now, victim, CloseReason::Crowded);
        }
        let conn = self.core.connections.accept();
        let connection = open_connection(now, (remote, None), secret, self.core.ourself());
        self.core.connections.open(conn, connection);
        self.core.settle(now);
        conn
    }

    /// Reports that [`Output::Dial`] succeeded.
    pub fn handle_dialled(
        &mut self,
        now: Time,
        conn: ConnId,
        remote: SocketAddr,
        secret: ConnSecret,
    ) {
        let Some(dial) = self.core.connections.take_dial(conn) else {
            self.core.sink.push(Output::Close { conn });
            return;
        };
        let connection = open_connection(now, (remote, Some(dial)), secret, self.core.ourself());
        self.core.connections.open(conn, connection);
        self.core.settle(now);
    }

    /// Reports that [`Output::Dial`] failed.
    pub fn handle_dial_failed(&mut self, now: Time, conn: ConnId, error: &str) {
        let Some(dial) = self.core.connections.take_dial(conn) else {
            return;
        };
        let ended = Ended {
            dialled: Some(dial.to),
            peer: None,
            error,
            never_again: false,
        };
        self.core.connector.handle_ended(now, conn, ended);
        self.core.sink.event(Event::DialFailed {
            address: dial.to,
            error: error.to_owned(),
        });
        self.core.settle(now);
    }

    /// Handles bytes received on a connection.
    pub fn handle_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.core.connections.get_mut(conn) else {
            return;
        };
        if connection.is_hasty(bytes.len()) {
            self.core.close_connection(now, conn, CloseReason::Hasty);
            return self.core.settle(now);
        }
        let taken = connection.wire.handle_bytes(bytes);
        self.core.connections.touch(conn);
        self.core.advance(now, conn);
        if let Err(error) = taken {
            // The other end may need what led to this, such as our own header.
            self.core.connections.flush(now, conn, &mut self.core.sink);
            self.core.close_connection(now, conn, error.into());
        }
        self.core.settle(now);
    }

    /// Reports that the driver has sent bytes of [`Output::Send`].
    pub fn handle_sent(&mut self, now: Time, conn: ConnId, bytes: usize) {
        if let Some(connection) = self.core.connections.get_mut(conn) {
            connection.handle_sent(now, bytes);
            self.core.connections.touch(conn);
            self.core.settle(now);
        }
    }

    /// Reports that a connection ended: the other end closed it (no error), or it broke.
    pub fn handle_closed(&mut self, now: Time, conn: ConnId, error: Option<&str>) {
        let Some(connection) = self.core.connections.get_mut(conn) else {
            return;
        };
        let reason = match (error, connection.wire.handle_end()) {
            (Some(error), _) => CloseReason::Ended(error.to_owned()),
            (None, Err(error)) => error.into(),
            (None, Ok(())) => CloseReason::Ended("remote closed the connection".to_owned()),
        };
        self.core.close_connection(now, conn, reason);
        self.core.settle(now);
    }

    /// Closes a connection on behalf of a channel's handler.
    pub fn close(&mut self, now: Time, conn: ConnId, reason: &str) {
        self.core
            .close_connection(now, conn, CloseReason::Handler(reason.to_owned()));
        self.core.settle(now);
    }

    /// Handles a special frame of the neighbour that arrived over a link from this address, in a
    /// packet that was authenticated if the link has a key.
    pub fn handle_special(
        &mut self,
        now: Time,
        link: LinkId,
        from: SocketAddrV4,
        special: Special,
    ) {
        if is_source(from) && self.core.is_trusted_source(link, from) {
            self.on_link(now, link, |overlay| {
                overlay.handle_special(now, link, from, special);
            });
        }
    }

    /// Handles a report that arrived over a native link, in a datagram of `bytes` bytes under the
    /// key of `epoch`.
    pub fn handle_report(
        &mut self,
        now: Time,
        link: LinkId,
        epoch: u32,
        report: Report,
        bytes: usize,
    ) {
        self.on_link(now, link, |overlay| {
            overlay.handle_report(now, link, epoch, report, bytes);
        });
    }

    /// Random bytes that a link asked for ([`LinkAction::NeedSecret`]), used for nothing else.
    pub fn handle_secret(&mut self, now: Time, link: LinkId, secret: Secret) {
        self.on_link(now, link, |overlay| {
            overlay.handle_secret(now, link, secret);
        });
    }

    /// Reports that the newest datagram of a native link came from this address.
    pub fn handle_moved(&mut self, now: Time, link: LinkId, from: SocketAddrV4) {
        self.on_link(now, link, |overlay| {
            if is_source(from) {
                overlay.handle_moved(now, link, from);
            }
        });
    }

    /// Reports that the kernel refused a packet of a link's DF channel because its path carries
    /// only `path_mtu` bytes.
    pub fn handle_too_big(&mut self, now: Time, link: LinkId, path_mtu: usize) {
        self.on_link(now, link, |overlay| {
            overlay.handle_too_big(now, link, path_mtu);
        });
    }

    /// Adds targets; with `replace`, replaces all previous ones. Waiting targets are tried at once.
    pub fn connect(
        &mut self,
        now: Time,
        targets: impl IntoIterator<Item = Target>,
        replace: bool,
    ) -> Result<(), TooManyTargets> {
        self.core.connector.connect(now, targets, replace)?;
        self.targets_changed();
        self.core.settle(now);
        Ok(())
    }

    /// Removes targets by their texts. Connections to them stay.
    pub fn forget<'t>(&mut self, now: Time, texts: impl IntoIterator<Item = &'t str>) {
        self.core.connector.forget(now, texts);
        self.targets_changed();
        self.core.settle(now);
    }

    /// Forgets where a peer was met that is not to come back.
    pub fn forget_peer(&mut self, now: Time, peer: PeerName) {
        self.core.connector.forget_peer(now, peer);
        self.core.settle(now);
    }

    /// Takes in where peers were met before this start ([`Output::PeersMet`]): they are dialled
    /// until they are found, unless discovery is off.
    pub fn recall(&mut self, now: Time, met: impl IntoIterator<Item = (PeerName, SocketAddr)>) {
        self.core.connector.recall(now, met);
        self.core.settle(now);
    }

    /// Sends `payload` to one peer, which need not be a neighbour. Returns true if there is a route
    /// to it and room for the message; only an answer can confirm that it arrived.
    pub fn send_unicast(
        &mut self,
        now: Time,
        channel: &str,
        dest: PeerName,
        payload: &[u8],
    ) -> bool {
        let is_known = self.routes().unicast_all(dest).is_some();
        if !is_known && self.core.membership.are_routes_stale() {
            self.core.recalculate(now);
        }
        let message = Message::Unicast {
            channel,
            source: self.us(),
            dest,
            payload,
        };
        let sent = self.core.forward_unicast(dest, message.encode(), None);
        self.core.settle(now);
        sent
    }

    /// Broadcasts content. Does nothing on a channel that the driver did not register.
    pub fn broadcast(&mut self, now: Time, channel: &str, content: Content) {
        self.relay_broadcast(now, channel, self.us(), content);
    }

    /// Relays a broadcast of `source` along its route.
    pub fn relay_broadcast(
        &mut self,
        now: Time,
        channel: &str,
        source: PeerName,
        content: Content,
    ) {
        self.core
            .tell(now, channel, Route::Broadcast { source }, content);
    }

    /// Sends content to random neighbours.
    pub fn gossip_neighbours(&mut self, now: Time, channel: &str, content: Content) {
        self.core
            .tell(now, channel, Route::Neighbours { except: None }, content);
    }

    /// Relays gossip of `neighbour` to other random neighbours.
    pub fn relay_gossip(
        &mut self,
        now: Time,
        channel: &str,
        neighbour: PeerName,
        content: Content,
    ) {
        let except = Some(neighbour);
        self.core
            .tell(now, channel, Route::Neighbours { except }, content);
    }

    /// Answers [`Output::NeedState`] with the complete state of a channel, or `None` if nothing
    /// must be sent to this neighbour.
    pub fn handle_state(&mut self, now: Time, channel: &str, conn: ConnId, state: Option<&[u8]>) {
        let Some(id) = self.core.relay.outside(channel) else {
            return;
        };
        if self.core.connections.get_mut(conn).is_none() {
            return;
        }
        for reach in self.core.connections.take_awaiting(conn, id) {
            let Some(state) = state else { continue };
            self.core.send_payload(now, conn, (id, reach), state);
        }
        self.core.connections.touch(conn);
        self.core.settle(now);
    }

    /// Returns our name.
    pub fn us(&self) -> PeerName {
        self.core.membership.us()
    }

    /// Returns the topology.
    pub fn topology(&self) -> &Topology {
        self.core.membership.topology()
    }

    /// Returns the routes that are in use.
    pub fn routes(&self) -> &Arc<Routes> {
        self.core.membership.routes()
    }

    /// Connections that were added to our peer, oldest first.
    pub fn connections(&self) -> impl Iterator<Item = ConnectionView> {
        self.core.connections.views()
    }

    /// Returns how many connections are not introduced yet.
    pub fn introductions(&self) -> usize {
        self.core.connections.introductions()
    }

    /// Returns all addresses that are dialled or waited for.
    pub fn targets(&self) -> impl Iterator<Item = TargetView<'_>> {
        self.core.connector.targets()
    }

    /// Returns the targets that users named.
    pub fn direct_targets(&self) -> impl ExactSizeIterator<Item = &Target> {
        self.core.connector.direct()
    }

    /// Returns the counters since the start.
    pub fn counters(&self) -> Counters {
        self.core.sink.counters
    }

    fn targets_changed(&mut self) {
        let texts = self
            .core
            .connector
            .direct()
            .map(|target| target.text.clone());
        let texts = texts.collect();
        self.core.sink.push(Output::TargetsChanged(texts));
    }

    fn on_link(&mut self, now: Time, link: LinkId, act: impl FnOnce(&mut OverlaySwitch)) {
        let Some(conn) = self.core.connections.of_link(link) else {
            return;
        };
        if let Some(member) = self.core.connections.member_mut(conn) {
            act(&mut member.overlay);
        }
        self.core.connections.touch(conn);
        self.core.advance(now, conn);
        self.core.settle(now);
    }
}

/// Returns true if this is a valid source address.
fn is_source(address: SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast()
}
