//! Events for the log, with their texts.

use std::fmt;
use std::net::{SocketAddr, SocketAddrV4};
use std::sync::Arc;

use super::config::{INTRODUCTION_TIME_MAX, INTRODUCTIONS_MAX, READ_TIME_MAX, WRITE_TIME_MAX};
use crate::features::FeaturesError;
use crate::gob;
use crate::message::MessageError;
use crate::overlay::NoCommonOverlay;
use crate::topology::Refused;
use crate::types::{ConnId, PeerName};
use crate::wire::WireError;

/// Reason why a connection was closed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The protocol was violated, or the passwords differ.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The peer at the other end was refused.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// The ends have no overlay in common.
    #[error(transparent)]
    NoCommonOverlay(#[from] NoCommonOverlay),
    /// There is another connection to the same peer, which is kept.
    #[error("Multiple connections to {0} added to {1}")]
    Duplicate(PeerName, PeerName),
    /// The peer was restarted and has made a new connection.
    #[error("{0} was restarted")]
    Restarted(PeerName),
    /// The maximum number of connections is reached.
    #[error("Connection limit reached ({0})")]
    ConnectionLimit(usize),
    /// The other end did not introduce itself in time.
    #[error("no introduction within {} s", INTRODUCTION_TIME_MAX.as_secs())]
    IntroductionTimeout,
    /// Too many connections are without introduction, and this one is the oldest.
    #[error("more than {INTRODUCTIONS_MAX} connections without introduction, this was the oldest")]
    Crowded,
    /// Nothing was received for too long.
    #[error("no message within {} s", READ_TIME_MAX.as_secs())]
    ReadTimeout,
    /// Nothing could be sent for too long.
    #[error("remote took no bytes within {} s", WRITE_TIME_MAX.as_secs())]
    WriteTimeout,
    /// The other end closed the connection, or it broke.
    #[error("{0}")]
    Ended(String),
    /// No overlay works.
    #[error("{0}")]
    Overlay(String),
    /// The peer is known to speak protocol 2, so somebody on the way made it protocol 1.
    #[error("{0} speaks protocol 2, but the introduction was changed to protocol 1 on the way")]
    Downgraded(PeerName),
    /// The introduction was changed on the way.
    #[error("the introduction was changed on the way, or the other end does not confirm it")]
    Unconfirmed,
    /// The peer that has this name is alive, so this is another one.
    #[error("{0} is alive at {1}, so another router carries its name")]
    NameTaken(PeerName, SocketAddr),
    /// It sends more than is kept until it is known who is there.
    #[error("too much was sent before the introduction was over")]
    Hasty,
    /// A message could not be understood.
    #[error(transparent)]
    Message(#[from] MessageError),
    /// A topology update could not be understood.
    #[error("bad topology update: {0}")]
    Topology(gob::Error),
    /// There are no unicasts on the channel of topology.
    #[error("unexpected topology gossip unicast")]
    TopologyUnicast,
    /// The handler of a channel requested it.
    #[error("{0}")]
    Handler(String),
}

impl CloseReason {
    /// Returns true if trying again would lead to the same.
    pub fn is_final(&self) -> bool {
        matches!(self, CloseReason::Refused(refused) if refused.is_final())
    }

    /// Returns what the user can do about it.
    pub fn advice(&self) -> Option<&'static str> {
        match self {
            CloseReason::Wire(error) => wire_advice(error),
            CloseReason::Refused(Refused::NameCollision(_)) | CloseReason::NameTaken(..) => Some(
                "give each host its own name with --name; hosts cloned from one image share \
                 their machine id",
            ),
            CloseReason::Refused(Refused::Ourself) => {
                Some("the address is one of this host; it will not be dialled again")
            }
            CloseReason::Refused(Refused::UnknownPeer(_)) => {
                Some("name the peer on the command line or with `connect` to let it in")
            }
            CloseReason::ConnectionLimit(_) => Some("see --conn-limit"),
            CloseReason::Overlay(reason) if reason.contains("heartbeat") => {
                Some("let UDP pass in both directions on the port of the mesh")
            }
            _ => None,
        }
    }
}

fn wire_advice(error: &WireError) -> Option<&'static str> {
    match error {
        WireError::Password => Some("start all peers with the same password"),
        WireError::EndInIntroduction => Some("the log of the other peer tells why"),
        WireError::RemoteEncrypted => Some("start this peer with the password of the mesh"),
        WireError::RemoteUnencrypted => Some("start the other peer with the password of the mesh"),
        WireError::Versions { .. } => Some("see --min-protocol-version on both peers"),
        WireError::Features(FeaturesError::Flavour(_)) => {
            Some("the other router was built to name its peers in another way")
        }
        _ => None,
    }
}

/// Severity of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// A decision that explains others.
    Debug,
    /// A change for users.
    Info,
    /// Something is unusual, but everything continues.
    Warn,
}

/// A peer, as named in logs: `name(nickname)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerLabel {
    /// Its name.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: Arc<str>,
}

impl fmt::Display for PeerLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.nickname)
    }
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A connection was added to our peer.
    Added {
        /// The connection.
        conn: ConnId,
        /// The peer at the other end.
        peer: PeerLabel,
        /// Its address.
        address: SocketAddr,
        /// Whether we dialled.
        outbound: bool,
        /// Whether the peer was known from an earlier start.
        restarted: bool,
        /// Whether messages are encrypted.
        encrypted: bool,
        /// Whether frames are encrypted.
        frames_encrypted: bool,
        /// The version of the protocol.
        version: u8,
    },
    /// A connection carries frames.
    Established {
        /// The connection.
        conn: ConnId,
        /// The peer at the other end.
        peer: PeerLabel,
        /// The first established overlay.
        overlay: &'static str,
    },
    /// A connection was closed.
    Closed {
        /// The connection.
        conn: ConnId,
        /// The peer at the other end, if the connection was added.
        peer: Option<PeerLabel>,
        /// The other end's address.
        address: SocketAddr,
        /// Whether we dialled.
        outbound: bool,
        /// The reason.
        reason: CloseReason,
    },
    /// An address could not be dialled.
    DialFailed {
        /// The address.
        address: SocketAddr,
        /// The reason.
        error: String,
    },
    /// A peer's packets come from another address.
    Moved {
        /// The peer.
        peer: PeerLabel,
        /// The address before.
        from: SocketAddrV4,
        /// The address that is followed.
        to: SocketAddrV4,
    },
    /// The MTU of a link was verified.
    Mtu {
        /// The peer at the other end.
        peer: PeerLabel,
        /// The MTU in bytes.
        mtu: usize,
    },
    /// One of several overlays of a connection failed.
    OverlayFailed {
        /// The peer at the other end.
        peer: PeerLabel,
        /// The overlay.
        overlay: &'static str,
        /// The reason.
        reason: String,
    },
    /// An overlay that carried frames was put on hold, or is used again.
    OverlayHealth {
        /// The peer at the other end.
        peer: PeerLabel,
        /// The overlay.
        overlay: &'static str,
        /// Reason why it is left; `None` if it is used again.
        held: Option<String>,
    },
    /// A peer sends messages that have no meaning here. Reported once for each connection.
    Ignored {
        /// The peer.
        peer: PeerLabel,
        /// The message.
        what: String,
    },
    /// Gossip was dropped. Reported once for each connection.
    GossipDropped {
        /// The peer that reads too slowly or sends too much; `None` if there is no route.
        peer: Option<PeerLabel>,
        /// The channel.
        channel: Arc<str>,
        /// The reason.
        reason: &'static str,
    },
    /// Entries of an update were left out because they exceed limits.
    TopologyIgnored {
        /// The neighbour that sent the update.
        peer: PeerLabel,
        /// Their number.
        entries: usize,
    },
    /// A neighbour passed on a false entry about us. Our own entry replaces it. Reported once for
    /// each connection over which it comes.
    Forged {
        /// The neighbour that passed it on.
        peer: PeerLabel,
        /// The version that it claims.
        version: u64,
    },
    /// Another router seems to have our name: its entry keeps coming back. Reported once for each
    /// start of it.
    Twin {
        /// The neighbour that passed it on, or found out.
        peer: PeerLabel,
        /// The other one's address, if known.
        address: Option<String>,
    },
    /// The overlay that frames to a peer take changed.
    OverlayChanged {
        /// The peer at the other end.
        peer: PeerLabel,
        /// The overlay before.
        from: &'static str,
        /// The overlay from here on.
        to: &'static str,
        /// Reason why the previous one is left; `None` if the other one is better.
        reason: Option<String>,
    },
    /// Peers are unreachable and were removed.
    PeersGone(Vec<PeerName>),
}

impl Event {
    /// Returns how much it matters.
    pub fn level(&self) -> Level {
        match self {
            Event::Added { .. } | Event::Established { .. } | Event::PeersGone(_) => Level::Info,
            Event::Moved { .. } | Event::OverlayChanged { .. } => Level::Info,
            Event::OverlayHealth { held: None, .. } => Level::Info,
            Event::Closed {
                peer,
                outbound,
                reason,
                ..
            } => match reason {
                CloseReason::IntroductionTimeout if !outbound => Level::Debug,
                CloseReason::Crowded => Level::Debug,
                CloseReason::Duplicate(..) => Level::Debug,
                CloseReason::Refused(Refused::UnknownPeer(_)) => Level::Debug,
                CloseReason::Ended(_) if peer.is_some() => Level::Info,
                CloseReason::Restarted(_) => Level::Info,
                _ => Level::Warn,
            },
            Event::DialFailed { .. } | Event::Mtu { .. } => Level::Debug,
            Event::OverlayFailed { .. }
            | Event::OverlayHealth { .. }
            | Event::Ignored { .. }
            | Event::GossipDropped { .. }
            | Event::TopologyIgnored { .. }
            | Event::Forged { .. }
            | Event::Twin { .. } => Level::Warn,
        }
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Added {
                peer,
                address,
                outbound,
                restarted,
                encrypted,
                frames_encrypted,
                version,
                ..
            } => {
                let way = if *outbound { "to" } else { "from" };
                let again = if *restarted { ", started anew" } else { "" };
                let sealed = match (encrypted, frames_encrypted) {
                    (true, true) => "encrypted",
                    (true, false) => "encrypted, frames in the clear (trusted subnet)",
                    (false, _) => "not encrypted",
                };
                write!(
                    f,
                    "connection {way} {peer} at {address} added: protocol {version}, \
                     {sealed}{again}"
                )
            }
            Event::Established { peer, overlay, .. } => {
                write!(f, "connection to {peer} established over {overlay}")
            }
            Event::Closed {
                peer,
                address,
                outbound,
                reason,
                ..
            } => {
                let way = if *outbound { "to" } else { "from" };
                match peer {
                    Some(peer) => write!(f, "connection {way} {peer} at {address} closed: ")?,
                    None => write!(f, "connection {way} {address} refused: ")?,
                }
                write!(f, "{reason}")?;
                match reason.advice() {
                    Some(advice) => write!(f, " ({advice})"),
                    None => Ok(()),
                }
            }
            Event::DialFailed { address, error } => {
                write!(f, "could not connect to {address}: {error}")
            }
            Event::Moved { peer, from, to } => {
                write!(f, "UDP address of {peer} changed from {from} to {to}")
            }
            Event::Mtu { peer, mtu } => write!(f, "MTU of the link to {peer} verified: {mtu}"),
            Event::OverlayFailed {
                peer,
                overlay,
                reason,
            } => write!(f, "overlay {overlay} to {peer} failed: {reason}"),
            Event::OverlayHealth {
                peer,
                overlay,
                held: Some(reason),
            } => write!(
                f,
                "overlay {overlay} to {peer} is on hold: {reason}; frames take another way until \
                 it works again"
            ),
            Event::OverlayHealth { peer, overlay, .. } => {
                write!(f, "overlay {overlay} to {peer} works again")
            }
            Event::Ignored { peer, what } => write!(f, "ignored from {peer}: {what}"),
            Event::GossipDropped {
                peer: Some(peer),
                channel,
                reason,
            } => write!(
                f,
                "gossip on channel {channel:?} for {peer} dropped: {reason}"
            ),
            Event::GossipDropped {
                peer: None,
                channel,
                reason,
            } => write!(f, "gossip on channel {channel:?} dropped: {reason}"),
            Event::TopologyIgnored { peer, entries } => write!(
                f,
                "{entries} entries of a topology update from {peer} ignored: they exceed limits"
            ),
            Event::Forged { peer, version } => write!(
                f,
                "{peer} passed on a forged entry of this peer (version {version}); it is replaced \
                 by ours"
            ),
            Event::Twin {
                peer,
                address: None,
            } => write!(
                f,
                "another router carries the name of this peer: its entry keeps coming from {peer} \
                 (give each host its own name with --name)"
            ),
            Event::Twin {
                peer,
                address: Some(address),
            } => write!(
                f,
                "another router carries the name of this peer: {peer} met it at {address} (give \
                 each host its own name with --name)"
            ),
            Event::OverlayChanged {
                peer,
                from,
                to,
                reason,
            } => {
                write!(f, "frames to {peer} take overlay {to} in place of {from}: ")?;
                f.write_str(reason.as_deref().unwrap_or("it works, and is preferred"))
            }
            Event::PeersGone(names) => {
                f.write_str("peers out of reach removed:")?;
                names.iter().try_for_each(|name| write!(f, " {name}"))
            }
        }
    }
}
