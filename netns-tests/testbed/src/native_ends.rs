//! Both ends of native links with keys that nobody agreed on.

use std::collections::BTreeMap;
use std::net::SocketAddrV4;
use std::sync::Arc;

use boundary::snapshot::{NativeLink, Session};
use proto::native::tunnel::{Receiving, Sending};
use proto::native::{Cipher, Tunnel};
use proto::sleeve::LinkId;
use proto::types::PeerName;

/// One end of a native link.
#[derive(Clone, Debug)]
pub struct NativeEnd {
    /// How frames leave.
    pub link: NativeLink,
    /// The key under which datagrams come.
    pub session: Session,
}

/// The ends of all native links, by host and neighbour. They outlive the planes that use them, as
/// keys and the counters drawn from them must.
#[derive(Debug, Default)]
pub(crate) struct NativeEnds(BTreeMap<(usize, usize), NativeEnd>);

/// What an end of a link is made of.
pub(crate) struct EndConfig {
    /// The host, by its number.
    pub(crate) here: usize,
    /// The neighbour, by its number.
    pub(crate) there: usize,
    /// The names of both.
    pub(crate) names: (PeerName, PeerName),
    /// Where the neighbour receives.
    pub(crate) remote: SocketAddrV4,
    /// The largest datagram, in bytes of UDP payload.
    pub(crate) max_payload: usize,
}

impl NativeEnds {
    /// Adds the end of a link. False if the cipher refuses its keys.
    pub(crate) fn add(&mut self, config: &EndConfig) -> bool {
        let &EndConfig { here, there, .. } = config;
        let (us, peer) = config.names;
        let id = LinkId(1000 + there as u64);
        let key = |from: usize, to: usize| {
            let mut key = [5; 32];
            key[..2].copy_from_slice(&[from as u8, to as u8]);
            key
        };
        // A receiver tells its sessions apart by the sender.
        let session = |sender: usize| 0x5e55_0000 + sender as u32;
        let cipher = Cipher::ChaCha20Poly1305;
        let sending = Sending::from_bytes(cipher, session(here), &key(here, there));
        let receiving =
            Receiving::from_bytes((id, peer), cipher, session(there), &key(there, here));
        let (Some(sending), Some(receiving)) = (sending, receiving) else {
            return false;
        };
        let tunnel = Arc::new(Tunnel::new(id, us, peer, Some(config.remote)));
        tunnel.set_max_payload(config.max_payload);
        let end = NativeEnd {
            link: NativeLink {
                tunnel: Arc::clone(&tunnel),
                key: Arc::new(sending),
            },
            session: Session {
                key: Arc::new(receiving),
                tunnel,
            },
        };
        self.0.insert((here, there), end);
        true
    }

    /// Returns the end of the link of a host to a neighbour.
    pub(crate) fn get(&self, here: usize, there: usize) -> Option<&NativeEnd> {
        self.0.get(&(here, there))
    }

    /// Returns the ends of a host, in order of neighbours.
    pub(crate) fn of(&self, here: usize) -> impl Iterator<Item = &NativeEnd> {
        let ends = self.0.iter();
        ends.filter(move |((host, _), _)| *host == here)
            .map(|(_, end)| end)
    }
}
