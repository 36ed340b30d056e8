//! What the threads that carry frames know of one link.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};

use super::wire::{
    COUNTER_DF, Channel, FRAME_HEADER_BYTES, MTU_UNKNOWN, PACKET_BYTES_MAX, PLAIN_HEADER_BYTES,
    SEALED_HEADER_BYTES, UDP_IP_BYTES,
};
use crate::crypto::{Nonce, SessionKey};
use crate::ethernet;
use crate::types::PeerName;

/// The handle of one link. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.0)
    }
}

/// What does not change while a link lives.
#[derive(Debug)]
pub struct TunnelConfig {
    /// The handle of the link.
    pub id: LinkId,
    /// Ourself.
    pub us: PeerName,
    /// The neighbour at the other end.
    pub peer: PeerName,
    /// The key of the connection; None sends and takes plain packets.
    pub key: Option<SessionKey>,
    /// Whether we made the TCP connection, which keeps the nonces of both directions apart.
    pub dialled: bool,
    /// Where packets go; None until the neighbour was heard.
    pub remote: Option<SocketAddrV4>,
}

/// One link as it is shared between the link's state machine, which sets address, MTU and
/// flags, and the threads that carry frames, which read them and draw counters.
///
/// Each field is an atomic of its own and read without order between them: a frame that is
/// judged by a new MTU and sent to an old address is as good as one sent a moment earlier.
pub struct Tunnel {
    config: TunnelConfig,
    remote: AtomicRemote,
    mtu: AtomicU32,
    max_payload: AtomicU32,
    fragments_proven: AtomicBool,
    /// Whether frames in plain packets are taken.
    open: AtomicBool,
    /// Next counter of each channel, without the DF bit.
    counters: [AtomicU64; 2],
}

impl Tunnel {
    /// A link whose path is unknown: MTU and packet size are the largest there are.
    pub fn new(config: TunnelConfig) -> Tunnel {
        let remote = AtomicRemote::new(config.remote);
        Tunnel {
            config,
            remote,
            mtu: AtomicU32::new(MTU_UNKNOWN as u32),
            max_payload: AtomicU32::new(PACKET_BYTES_MAX as u32),
            fragments_proven: AtomicBool::new(false),
            open: AtomicBool::new(true),
            counters: [AtomicU64::new(0), AtomicU64::new(0)],
        }
    }

    /// The handle of the link.
    pub const fn id(&self) -> LinkId {
        self.config.id
    }

    /// Ourself.
    pub const fn us(&self) -> PeerName {
        self.config.us
    }

    /// The neighbour at the other end.
    pub const fn peer(&self) -> PeerName {
        self.config.peer
    }

    /// Whether packets are encrypted.
    pub const fn is_encrypted(&self) -> bool {
        self.config.key.is_some()
    }

    /// Whether we made the TCP connection.
    pub const fn dialled(&self) -> bool {
        self.config.dialled
    }

    /// Where packets go; None until the neighbour was heard.
    #[inline]
    pub fn remote(&self) -> Option<SocketAddrV4> {
        self.remote.get()
    }

    /// Sends packets to `remote` from now on.
    pub fn set_remote(&self, remote: Option<SocketAddrV4>) {
        self.remote.set(remote);
    }

    /// The largest frame that fits, without its Ethernet header of 14 bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    /// The largest packet, in bytes of UDP payload.
    #[inline]
    pub fn max_payload(&self) -> usize {
        self.max_payload.load(Ordering::Relaxed) as usize
    }

    /// Sets [`Tunnel::mtu`] and [`Tunnel::max_payload`].
    pub fn set_limits(&self, mtu: usize, max_payload: usize) {
        let clamp = |value: usize, max: usize| value.min(max) as u32;
        self.mtu.store(clamp(mtu, MTU_UNKNOWN), Ordering::Relaxed);
        self.max_payload
            .store(clamp(max_payload, PACKET_BYTES_MAX), Ordering::Relaxed);
    }

    /// Whether large packets without DF were seen to arrive.
    #[inline]
    pub fn fragments_proven(&self) -> bool {
        self.fragments_proven.load(Ordering::Relaxed)
    }

    /// Sets [`Tunnel::fragments_proven`].
    pub fn set_fragments_proven(&self, proven: bool) {
        self.fragments_proven.store(proven, Ordering::Relaxed);
    }

    /// Sets whether frames in plain packets are taken.
    pub fn set_open(&self, open: bool) {
        self.open.store(open, Ordering::Relaxed);
    }

    /// Returns true if a frame may come in a packet from this address. A plain packet shows nothing
    /// of who sent it, so it must come from the address of the link, and while the link is open.
    #[inline]
    pub fn takes(&self, from: SocketAddrV4) -> bool {
        self.is_encrypted() || self.open.load(Ordering::Relaxed) && self.remote() == Some(from)
    }

    /// Bytes of a packet before its frames.
    #[inline]
    pub const fn header_len(&self) -> usize {
        if self.is_encrypted() {
            SEALED_HEADER_BYTES
        } else {
            PLAIN_HEADER_BYTES
        }
    }

    /// Bytes by which a packet with one frame exceeds what follows the frame's Ethernet header,
    /// IP and UDP included: path MTU minus this is the MTU of the link.
    pub const fn overhead(&self) -> usize {
        UDP_IP_BYTES + self.header_len() + FRAME_HEADER_BYTES + ethernet::HEADER_BYTES
    }

    pub(super) const fn key(&self) -> Option<&SessionKey> {
        self.config.key.as_ref()
    }

    /// Draws the counter of the next packet, with the channel in its top bit. No counter is
    /// drawn twice, by however many threads.
    #[inline]
    pub(super) fn next_counter(&self, channel: Channel) -> u64 {
        let sequence = self.counters[channel.index()].fetch_add(1, Ordering::Relaxed);
        match channel {
            Channel::Df => sequence | COUNTER_DF,
            Channel::NonDf => sequence & !COUNTER_DF,
        }
    }

    pub(super) const fn send_nonce(&self, counter: u64) -> Nonce {
        Nonce::sleeve(self.config.dialled, counter)
    }

    pub(super) const fn receive_nonce(&self, counter: u64) -> Nonce {
        Nonce::sleeve(!self.config.dialled, counter)
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("id", &self.id())
            .field("peer", &self.peer())
            .field("encrypted", &self.is_encrypted())
            .field("remote", &self.remote())
            .field("mtu", &self.mtu())
            .finish_non_exhaustive()
    }
}

/// An address, or none, that threads share. Address (32 bits) and port (16 bits); 0 for none.
pub(crate) struct AtomicRemote(AtomicU64);

impl AtomicRemote {
    pub(crate) fn new(remote: Option<SocketAddrV4>) -> AtomicRemote {
        AtomicRemote(AtomicU64::new(pack(remote)))
    }

    #[inline]
    pub(crate) fn get(&self) -> Option<SocketAddrV4> {
        unpack(self.0.load(Ordering::Relaxed))
    }

    pub(crate) fn set(&self, remote: Option<SocketAddrV4>) {
        self.0.store(pack(remote), Ordering::Relaxed);
    }
}

fn pack(remote: Option<SocketAddrV4>) -> u64 {
    remote.map_or(0, |remote| {
        u64::from(u32::from(*remote.ip())) << 16 | u64::from(remote.port())
    })
}

fn unpack(packed: u64) -> Option<SocketAddrV4> {
    if packed == 0 {
        return None;
    }
    let address = Ipv4Addr::from((packed >> 16) as u32);
    Some(SocketAddrV4::new(address, packed as u16))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tunnel(key: Option<SessionKey>) -> Tunnel {
        Tunnel::new(TunnelConfig {
            id: LinkId(1),
            us: PeerName::from_bytes([1; 6]),
            peer: PeerName::from_bytes([2; 6]),
            key,
            dialled: true,
            remote: None,
        })
    }

    #[test]
    fn address_is_learned_and_forgotten() {
        let tunnel = tunnel(None);
        assert_eq!(tunnel.remote(), None);
        for address in ["255.255.255.255:65535", "10.0.0.1:6783", "0.0.0.1:1"] {
            let address = address.parse().unwrap();
            tunnel.set_remote(Some(address));
            assert_eq!(tunnel.remote(), Some(address));
        }
        tunnel.set_remote(None);
        assert_eq!(tunnel.remote(), None);
    }

    #[test]
    fn each_channel_counts_for_itself() {
        let tunnel = tunnel(None);
        assert_eq!(tunnel.next_counter(Channel::Df), COUNTER_DF);
        assert_eq!(tunnel.next_counter(Channel::Df), COUNTER_DF | 1);
        assert_eq!(tunnel.next_counter(Channel::NonDf), 0);
        assert_eq!(tunnel.next_counter(Channel::NonDf), 1);
        assert_eq!(tunnel.next_counter(Channel::Df), COUNTER_DF | 2);
    }

    #[test]
    fn limits_start_open_and_are_clamped() {
        let tunnel = tunnel(None);
        assert_eq!((tunnel.mtu(), tunnel.max_payload()), (65535, 65507));
        tunnel.set_limits(1414, 1472);
        assert_eq!((tunnel.mtu(), tunnel.max_payload()), (1414, 1472));
        tunnel.set_limits(usize::MAX, usize::MAX);
        assert_eq!((tunnel.mtu(), tunnel.max_payload()), (65535, 65507));
    }
}
