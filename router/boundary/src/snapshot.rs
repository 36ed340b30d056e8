//! The forwarding state that control publishes to the data threads, as one immutable value.

use std::cmp::Reverse;
use std::ops::Range;
use std::sync::Arc;

use proto::native;
use proto::sleeve::{LinkId, Tunnel};
use proto::switch::{Forwarding, LinkIndex};
use proto::types::PeerName;

use crate::owners::Owners;

/// The way by which frames are sent to a neighbour.
#[derive(Clone, Debug)]
pub enum Encap {
    /// Weave Net's own format.
    Sleeve(Arc<Tunnel>),
    /// Our own.
    Native(NativeLink),
}

/// State for sending over a native link.
#[derive(Clone, Debug)]
pub struct NativeLink {
    /// Destination, and number at once.
    pub tunnel: Arc<native::Tunnel>,
    /// The key.
    pub key: Arc<native::Sending>,
}

/// A key under which native datagrams may come.
#[derive(Clone, Debug)]
pub struct Session {
    /// The key.
    pub key: Arc<native::Receiving>,
    /// The link that it belongs to.
    pub tunnel: Arc<native::Tunnel>,
}

/// A neighbour to which frames can be sent.
#[derive(Clone, Debug)]
pub struct Link {
    /// The neighbour.
    pub peer: PeerName,
    /// Path by which frames are sent.
    pub encap: Encap,
    /// Maximum number of packets that are sent to it back to back, for receivers with small
    /// buffers; zero for no limit. Further packets wait, in order, until the receiver has had time
    /// to read.
    pub burst_packets: u16,
}

impl Link {
    /// Returns the handle of the link.
    pub fn id(&self) -> LinkId {
        match &self.encap {
            Encap::Sleeve(tunnel) => tunnel.id(),
            Encap::Native(link) => link.tunnel.id(),
        }
    }
}

/// Routes, links and keys as they are for a while.
#[derive(Clone, Debug)]
pub struct Snapshot {
    forwarding: Arc<Forwarding>,
    links: Box<[Link]>,
    tunnels: Box<[Arc<Tunnel>]>,
    /// Sorted by number.
    sessions: Box<[Session]>,
    /// Sorted.
    idle: Box<[LinkId]>,
    owners: Arc<Owners>,
}

impl Snapshot {
    /// Creates a snapshot in which frames leave by `links`, which are those that `forwarding` was
    /// made with, in the same order, and sleeve packets are taken from `tunnels`. A neighbour may
    /// have several, while one connection takes the place of another.
    pub fn new(
        forwarding: Forwarding,
        links: Vec<Link>,
        mut tunnels: Vec<Arc<Tunnel>>,
    ) -> Snapshot {
        debug_assert!(
            links
                .iter()
                .map(|link| link.peer)
                .eq(forwarding.neighbours().iter().copied())
        );
        tunnels.sort_by_key(|tunnel| (tunnel.peer(), Reverse(tunnel.id())));
        Snapshot {
            forwarding: Arc::new(forwarding),
            links: links.into(),
            tunnels: tunnels.into(),
            sessions: Box::default(),
            idle: Box::default(),
            owners: Arc::default(),
        }
    }

    /// Takes native datagrams under these keys, whose numbers are all different.
    #[must_use]
    pub fn with_sessions(self, mut sessions: Vec<Session>) -> Snapshot {
        sessions.sort_by_key(|session| session.key.session());
        Snapshot {
            sessions: sessions.into(),
            ..self
        }
    }

    /// Takes frames with these addresses only from their owners.
    #[must_use]
    pub fn with_owners(self, owners: Arc<Owners>) -> Snapshot {
        Snapshot { owners, ..self }
    }

    /// To whom addresses belong.
    #[inline]
    pub fn owners(&self) -> &Owners {
        &self.owners
    }

    /// Takes no frames of containers in plain packets of these sleeve links, since their
    /// neighbours send by other links: anybody can make a plain packet.
    #[must_use]
    pub fn with_idle(self, mut links: Vec<LinkId>) -> Snapshot {
        links.sort();
        Snapshot {
            idle: links.into(),
            ..self
        }
    }

    /// Returns true if the neighbour at the other end of a sleeve link sends by another link.
    pub fn is_idle(&self, link: LinkId) -> bool {
        self.idle.binary_search(&link).is_ok()
    }

    /// Returns where frames go.
    pub fn forwarding(&self) -> &Forwarding {
        &self.forwarding
    }

    /// Returns the links, at the places that [`LinkIndex`] names.
    pub fn links(&self) -> &[Link] {
        &self.links
    }

    /// Returns the link at `index`.
    pub fn link(&self, index: LinkIndex) -> Option<&Link> {
        self.links.get(index.get())
    }

    /// Returns the sleeve tunnels from which packets are taken, sorted by neighbour.
    pub fn tunnels(&self) -> &[Arc<Tunnel>] {
        &self.tunnels
    }

    /// Returns the key with this number.
    #[inline]
    pub fn session(&self, number: u32) -> Option<&Session> {
        let sessions = &self.sessions;
        let place = sessions.binary_search_by_key(&number, |session| session.key.session());
        sessions.get(place.ok()?)
    }

    /// Returns the places of the tunnels of a neighbour, the newest first.
    #[inline]
    pub fn tunnels_of(&self, peer: PeerName) -> Range<usize> {
        let start = self.tunnels.partition_point(|tunnel| tunnel.peer() < peer);
        let rest = self.tunnels.get(start..).unwrap_or_default();
        let count = rest.iter().take_while(|tunnel| tunnel.peer() == peer);
        start..start + count.count()
    }
}
