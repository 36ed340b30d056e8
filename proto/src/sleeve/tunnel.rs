//! The part of a sleeve link that is shared with the threads that carry frames.

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

/// Handle of one link. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

impl fmt::Display for LinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "~{}", self.0)
    }
}

/// The constant properties of a link.
#[derive(Debug)]
pub struct TunnelConfig {
    /// The handle of the link.
    pub id: LinkId,
    /// Ourself.
    pub us: PeerName,
    /// The neighbour at the other end.
    pub peer: PeerName,
    /// The key of the connection; `None` for plain packets.
    pub key: Option<SessionKey>,
    /// Whether we made the TCP connection, which distinguishes the nonces of both directions.
    pub dialled: bool,
    /// Address to which packets are sent; `None` until the neighbour was heard.
    pub remote: Option<SocketAddrV4>,
}

/// A link as shared between its state machine, which sets address, MTU and flags, and the threads
/// that carry frames, which read them and draw counters.
///
/// Each field is a separate atomic and is read without ordering: a frame that is checked against a
/// new MTU and sent to an old address is no worse than one sent a moment earlier.
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
    /// Creates a link whose path is unknown: MTU and packet size have their maximum.
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

    /// Returns the handle of the link.
    pub const fn id(&self) -> LinkId {
        self.config.id
    }

    /// Ourself.
    pub const fn us(&self) -> PeerName {
        self.config.us
    }

    /// Returns the neighbour at the other end.
    pub const fn peer(&self) -> PeerName {
        self.config.peer
    }

    /// Returns true if packets are encrypted.
    pub const fn is_encrypted(&self) -> bool {
        self.config.key.is_some()
    }

    /// Returns true if we made the TCP connection.
    pub const fn dialled(&self) -> bool {
        self.config.dialled
    }

    /// Address to which packets are sent; `None` until the neighbour was heard.
    #[inline]
    pub fn remote(&self) -> Option<SocketAddrV4> {
        self.remote.get()
    }

    /// Sends packets to `remote` from now on.
    pub fn set_remote(&self, remote: Option<SocketAddrV4>) {
        self.remote.set(remote);
    }

    /// Returns the maximum size of a frame without its Ethernet header, in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        self.mtu.load(Ordering::Relaxed) as usize
    }

    /// Returns the maximum size of a packet, in bytes of UDP payload.
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

    /// Returns true if large packets without DF were seen to arrive.
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

    /// Returns the size of the packet header in bytes.
    ///
    /// Format: `docs/protocol/sleeve.md#2-1-layout`.
    #[inline]
    pub const fn header_len(&self) -> usize {
        if self.is_encrypted() {
            SEALED_HEADER_BYTES
        } else {
            PLAIN_HEADER_BYTES
        }
    }

    /// Returns the difference between the path MTU and the MTU of the link, in bytes.
    ///
    /// Rule: `docs/protocol/sleeve.md#2-6-sizes`.
    pub const fn overhead(&self) -> usize {
        UDP_IP_BYTES + self.header_len() + FRAME_HEADER_BYTES + ethernet::HEADER_BYTES
    }

    pub(super) const fn key(&self) -> Option<&SessionKey> {
        self.config.key.as_ref()
    }

    /// Returns the counter of the next packet, with the channel in its top bit. No counter is
    /// returned twice, to any number of threads.
    ///
    /// Rule: `docs/protocol/sleeve.md#2-3-encryption`.
    #[inline]
    pub(super) fn next_counter(&self, channel: Channel) -> u64 {
        let sequence = self.counters[channel.index()].fetch_add(1, Ordering::Relaxed);
        match channel {
            Channel::Df => sequence | COUNTER_DF,
            Channel::NonDf => sequence & !COUNTER_DF,
        }
    }

    /// Format: `docs/protocol/sleeve.md#2-3-encryption`.
    pub(super) const fn send_nonce(&self, counter: u64) -> Nonce {
        Nonce::sleeve(self.config.dialled, counter)
    }

    /// Format: `docs/protocol/sleeve.md#2-3-encryption`.
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

/// An optional address shared by threads: address (32 bits) and port (16 bits); 0 for none.
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
