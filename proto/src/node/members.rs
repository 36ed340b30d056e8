//! Connections that were added to our peer: their messages, their overlays, their end.

use std::net::SocketAddrV4;

use super::connection::Member;
use super::event::{CloseReason, Event, PeerLabel};
use super::{Node, Output};
use crate::message::{Message, MessageError};
use crate::native::Report;
use crate::overlay::{ControlRejected, SwitchOutput};
use crate::sleeve::{LinkId, Special};
use crate::types::{ConnId, Time};
use crate::wire::WireEvent;

impl Node {
    /// Bytes arrived on a connection.
    pub fn handle_bytes(&mut self, now: Time, conn: ConnId, bytes: &[u8]) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        let taken = connection.wire.handle_bytes(bytes);
        self.touched.insert(conn);
        while let Some(event) = self.poll_wire(conn) {
            let handled = match event {
                WireEvent::Introduced(introduced) => self.introduce(now, conn, *introduced),
                WireEvent::Message(message) => self.handle_message(now, conn, &message),
            };
            if let Err(reason) = handled {
                self.close_connection(now, conn, reason);
            }
        }
        if let Err(error) = taken {
            // The other end may want to see what led to this, such as our own header.
            self.flush(now, conn);
            self.close_connection(now, conn, error.into());
        }
        self.settle(now);
    }

    /// A special frame of the neighbour arrived over a link from this address, in a packet that
    /// opened with the link's key if it has one.
    pub fn handle_special(
        &mut self,
        now: Time,
        link: LinkId,
        from: SocketAddrV4,
        special: Special,
    ) {
        if !is_source(from) {
            return;
        }
        let Some(&conn) = self.links.get(&link) else {
            return;
        };
        if let Some(member) = self.member_mut(conn) {
            member.overlay.handle_special(now, link, from, special);
        }
        self.handle_overlay(now, conn);
        self.settle(now);
    }

    /// A report arrived over a native link, in a datagram of `bytes` bytes that opened under the
    /// key of `epoch`.
    pub fn handle_report(
        &mut self,
        now: Time,
        link: LinkId,
        epoch: u32,
        report: Report,
        bytes: usize,
    ) {
        let Some(&conn) = self.links.get(&link) else {
            return;
        };
        if let Some(member) = self.member_mut(conn) {
            member
                .overlay
                .handle_report(now, link, epoch, report, bytes);
        }
        self.handle_overlay(now, conn);
        self.settle(now);
    }

    /// A datagram of a native link that is newer than all before came from this address.
    pub fn handle_moved(&mut self, now: Time, link: LinkId, from: SocketAddrV4) {
        let Some(&conn) = self.links.get(&link) else {
            return;
        };
        if is_source(from)
            && let Some(member) = self.member_mut(conn)
        {
            member.overlay.handle_moved(now, link, from);
        }
        self.handle_overlay(now, conn);
        self.settle(now);
    }

    /// The kernel refused a packet of a link's DF channel: its path takes `path_mtu` bytes.
    pub fn handle_too_big(&mut self, now: Time, link: LinkId, path_mtu: usize) {
        let Some(&conn) = self.links.get(&link) else {
            return;
        };
        if let Some(member) = self.member_mut(conn) {
            member.overlay.handle_too_big(now, link, path_mtu);
        }
        self.handle_overlay(now, conn);
        self.settle(now);
    }

    pub(super) fn handle_connection_timeout(&mut self, now: Time, conn: ConnId) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if connection.poll_timeout() <= now {
            self.touched.insert(conn);
            if let Err(reason) = connection.handle_timeout(now) {
                self.close_connection(now, conn, reason);
                return;
            }
        }
        let due = self.member_mut(conn).and_then(|m| {
            let due = m.overlay.poll_timeout()? <= now;
            due.then(|| m.overlay.handle_timeout(now))
        });
        if due.is_some() {
            self.handle_overlay(now, conn);
        }
    }

    pub(super) fn member_mut(&mut self, conn: ConnId) -> Option<&mut Member> {
        self.conns.get_mut(&conn)?.member.as_deref_mut()
    }

    /// What a connection brought next; nothing once it is closed.
    fn poll_wire(&mut self, conn: ConnId) -> Option<WireEvent> {
        self.conns.get_mut(&conn)?.wire.poll_event()
    }

    fn handle_message(&mut self, now: Time, conn: ConnId, bytes: &[u8]) -> Result<(), CloseReason> {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return Ok(());
        };
        connection.note_message(now);
        let Some(member) = &mut connection.member else {
            return Ok(());
        };
        let message = match Message::decode(bytes, member.overlay.mode()) {
            Ok(message) => message,
            Err(error @ MessageError::Envelope(_)) => return Err(error.into()),
            Err(error) => {
                self.ignore(conn, || error.to_string());
                return Ok(());
            }
        };
        let neighbour = member.peer;
        let (place, tag, body) = match message {
            Message::Heartbeat | Message::Empty => return Ok(()),
            Message::Unknown(tag) => {
                self.ignore(conn, || format!("message with unknown tag {tag}"));
                return Ok(());
            }
            Message::Legacy { tag, body } => (0, tag.get(), body),
            Message::Overlay { index, tag, body } => (usize::from(index.get()), tag, body),
            _ => return self.handle_gossip(now, conn, neighbour, message, bytes),
        };
        let taken: Result<(), ControlRejected> =
            member.overlay.handle_control(now, place, tag, body);
        self.handle_overlay(now, conn);
        if let Err(error) = taken {
            self.ignore(conn, || error.to_string());
        }
        Ok(())
    }

    /// Does what the overlays of a connection want.
    pub(super) fn handle_overlay(&mut self, now: Time, conn: ConnId) {
        while let Some(output) = self.poll_overlay(conn) {
            let Some(member) = self.member_mut(conn) else {
                return;
            };
            let (peer, label) = (member.peer, member.label.clone());
            match output {
                SwitchOutput::Message(message) => self.send_control(now, conn, &message),
                SwitchOutput::Special { link, special } => {
                    self.outputs.push_back(Output::Special { link, special });
                }
                SwitchOutput::Report {
                    link,
                    report,
                    bytes,
                } => {
                    self.outputs.push_back(Output::Report {
                        link,
                        report,
                        bytes,
                    });
                }
                SwitchOutput::Keys(link, keys) => {
                    self.outputs.push_back(Output::LinkKeys { link, keys });
                }
                SwitchOutput::Health { overlay, held } => {
                    self.counters.overlay_holds += u64::from(held.is_some());
                    self.event(Event::OverlayHealth {
                        peer: label,
                        overlay: overlay.name(),
                        held,
                    });
                }
                SwitchOutput::PathChanged(link, path) => {
                    let mtu = path.mtu;
                    let told = &mut member.told.mtu;
                    if path.mtu_verified && told.replace(mtu) != Some(mtu) {
                        self.event(Event::Mtu { peer: label, mtu });
                    }
                    self.outputs.push_back(Output::LinkUpdated { link, path });
                }
                SwitchOutput::Moved { from, to, .. } => {
                    let peer = label;
                    self.event(Event::Moved { peer, from, to });
                }
                SwitchOutput::Order(links) => {
                    self.outputs.push_back(Output::LinkOrder { peer, links });
                }
                SwitchOutput::Established => {
                    let overlay = member.overlay.active();
                    let overlay = overlay.map_or("none", |view| view.overlay.name());
                    self.topology.establish_connection(peer);
                    self.event(Event::Established {
                        conn,
                        peer: label,
                        overlay,
                    });
                }
                SwitchOutput::LinkFailed {
                    link,
                    overlay,
                    reason,
                } => {
                    self.counters.overlay_failures += 1;
                    self.links.remove(&link);
                    self.outputs.push_back(Output::LinkRemoved { link });
                    self.event(Event::OverlayFailed {
                        peer: label,
                        overlay: overlay.name(),
                        reason,
                    });
                }
                SwitchOutput::Broken(reason) => {
                    self.close_connection(now, conn, CloseReason::Overlay(reason));
                }
            }
        }
        self.touched.insert(conn);
    }

    fn poll_overlay(&mut self, conn: ConnId) -> Option<SwitchOutput> {
        self.member_mut(conn)?.overlay.poll_output()
    }

    fn send_control(&mut self, now: Time, conn: ConnId, message: &[u8]) {
        let Some(connection) = self.conns.get_mut(&conn) else {
            return;
        };
        if let Err(error) = connection.send_control(message) {
            self.close_connection(now, conn, error.into());
            return;
        }
        // At once, since answers to tests are waited for.
        self.flush(now, conn);
    }

    /// Takes a connection that was closed out of our peer.
    pub(super) fn remove_member(&mut self, now: Time, conn: ConnId, member: &Member) {
        let peer = member.peer;
        if self.members.get(&peer) == Some(&conn) {
            self.members.remove(&peer);
            self.outputs.push_back(Output::LinkOrder {
                peer,
                links: Vec::new(),
            });
        }
        for view in member.overlay.forwarders() {
            if self.links.remove(&view.link).is_some() {
                self.outputs
                    .push_back(Output::LinkRemoved { link: view.link });
            }
        }
        self.topology.delete_connection(peer);
        self.topology.release(peer);
        // Before anything is announced: an entry of ours that does not lead to peers which we
        // still tell of would go round in circles.
        self.collect_garbage(now, None);
    }

    /// Tells once for each connection that something on it is ignored.
    fn ignore(&mut self, conn: ConnId, what: impl FnOnce() -> String) {
        self.counters.messages_ignored += 1;
        let Some(member) = self.member_mut(conn) else {
            return;
        };
        if !std::mem::replace(&mut member.told.ignored, true) {
            let (peer, what) = (member.label.clone(), what());
            self.event(Event::Ignored { peer, what });
        }
    }

    /// Whom to name when gossip is dropped, unless that was told before.
    pub(super) fn tell_dropped_once(&mut self, conn: ConnId) -> Option<PeerLabel> {
        let member = self.member_mut(conn)?;
        let told = std::mem::replace(&mut member.told.dropped, true);
        (!told).then(|| member.label.clone())
    }
}

/// Whether a packet can come from this address.
fn is_source(address: SocketAddrV4) -> bool {
    let ip = address.ip();
    address.port() != 0 && !ip.is_unspecified() && !ip.is_broadcast() && !ip.is_multicast()
}
