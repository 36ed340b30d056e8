//! The part of a native link that is shared with the threads that carry frames.
//!
//! A key serves one direction for one epoch. [`Sending`] and [`Receiving`] hold one key each;
//! another epoch needs new ones. The address and the size of datagrams outlive keys; they are in
//! [`Tunnel`].

use std::fmt;
use std::net::SocketAddrV4;
use std::ops::Range;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

use super::replay::Window;
use super::seal::{Cipher, Key};
use super::wire::{
    DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, Kind, NAMES_BYTES, OVERHEAD_BYTES, RECORD_BYTES,
    TAG_BYTES,
};
use crate::crypto::KEY_BYTES;
use crate::ethernet;
use crate::sleeve::LinkId;
use crate::sleeve::tunnel::AtomicRemote;
use crate::sleeve::wire::UDP_IP_BYTES;
use crate::types::PeerName;

/// Maximum number of pairs of threads of a sender with streams of their own.
pub const QUEUES_MAX: usize = 16;
/// The stream of reports.
pub const STREAM_REPORTS: u8 = 2 * QUEUES_MAX as u8;
/// Number of streams on which a receiver accepts datagrams. On others they are dropped, so that a
/// sender cannot make a receiver use more memory.
pub const STREAMS_MAX: usize = 64;
/// Number of datagrams of one stream after which a new key is requested.
pub const REKEY_DATAGRAMS: u64 = 1 << 30;

/// Returns the stream of the thread that takes frames from TAP queue `queue`.
pub const fn stream_of_captured(queue: usize) -> u8 {
    2 * (queue % QUEUES_MAX) as u8
}

/// Returns the stream of the thread that receives on socket `queue`, for what it relays.
pub const fn stream_of_relayed(queue: usize) -> u8 {
    stream_of_captured(queue) + 1
}

/// A key for what we send.
pub struct Sending {
    epoch: u32,
    /// The receiver's number for the key.
    session: u32,
    key: Key,
    streams: Box<[Stream]>,
}

/// The next counter of a stream, alone in its cache line.
#[repr(align(128))]
#[derive(Debug, Default)]
struct Stream(AtomicU64);

impl Sending {
    /// Creates an unused key.
    pub(super) fn new(epoch: u32, session: u32, key: Key) -> Sending {
        Sending {
            epoch,
            session,
            key,
            streams: (0..=STREAM_REPORTS).map(|_| Stream::default()).collect(),
        }
    }

    /// Creates a key from its bytes, for tests and benchmarks. Returns `None` if the cipher refuses
    /// it.
    #[doc(hidden)]
    pub fn from_bytes(cipher: Cipher, session: u32, key: &[u8; KEY_BYTES]) -> Option<Sending> {
        Some(Sending::new(0, session, Key::new(cipher, key)?))
    }

    /// Returns the epoch of the key.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns the cipher.
    pub const fn cipher(&self) -> Cipher {
        self.key.cipher()
    }

    /// Draws `count` consecutive counters of a stream and returns the first. No counter is drawn
    /// twice, by any number of threads. Returns `None` if there are not enough left, or no such
    /// stream.
    ///
    /// Rule: `docs/native.md#nonces-and-limits`.
    #[inline]
    pub fn draw(&self, stream: u8, count: u32) -> Option<u32> {
        let next = &self.streams.get(usize::from(stream))?.0;
        let first = next.fetch_add(count.into(), Relaxed);
        let end = first.saturating_add(count.into());
        // An exhausted stream stays exhausted: 2^64 cannot be reached.
        if end > COUNTERS {
            return None;
        }
        u32::try_from(first).ok()
    }

    /// Completes a datagram: writes its header, encrypts its body in place, and appends the tag.
    /// `datagram` has room for exactly these. `counter` must be drawn from `stream` and used once.
    /// Returns false if there is no room for header and tag.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn seal(&self, kind: Kind, stream: u8, counter: u32, datagram: &mut [u8]) -> bool {
        let header = Header {
            kind,
            stream,
            session: self.session,
            counter,
        }
        .encode();
        let Some((start, rest)) = datagram.split_first_chunk_mut::<HEADER_BYTES>() else {
            return false;
        };
        let Some((body, end)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            return false;
        };
        let Some(tag) = self.key.seal(nonce(stream, counter), &header, body) else {
            return false;
        };
        *start = header;
        *end = tag;
        true
    }

    /// Returns the number of datagrams sent under this key.
    pub fn datagrams(&self) -> u64 {
        self.streams.iter().map(|stream| stream.drawn()).sum()
    }

    /// Returns how many of them were on streams for frames.
    pub fn frames(&self) -> u64 {
        let streams = self.streams.iter().take(usize::from(STREAM_REPORTS));
        streams.map(Stream::drawn).sum()
    }

    /// Returns true if this many datagrams were sent on one stream.
    pub fn is_worn(&self, datagrams: u64) -> bool {
        self.streams
            .iter()
            .any(|stream| stream.drawn() >= datagrams)
    }

    #[cfg(test)]
    pub(super) fn set_counter(&self, stream: u8, next: u64) {
        self.streams[usize::from(stream)].0.store(next, Relaxed);
    }
}

impl Stream {
    fn drawn(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending")
            .field("epoch", &self.epoch)
            .field("cipher", &self.cipher())
            .field("datagrams", &self.datagrams())
            .finish_non_exhaustive()
    }
}

/// Why a datagram was dropped completely. These are only counted, because anyone can send such
/// datagrams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// The datagram was not encrypted with the key of its session, or was changed since.
    #[error("datagram does not open")]
    Forged,
    /// The datagram was seen before, is too old to tell, or belongs to an invalid stream.
    #[error("datagram was seen before")]
    Replayed,
}

/// A datagram that was opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Range of its decrypted body in the datagram.
    pub body: Range<usize>,
    /// Whether all datagrams of its stream that were seen before are older.
    pub is_newest: bool,
}

/// A key for receiving, with its replay state.
pub struct Receiving {
    link: LinkId,
    epoch: u32,
    peer: PeerName,
    session: u32,
    key: Key,
    /// Created when the first datagram of a stream was authenticated.
    windows: [OnceLock<Box<Window>>; STREAMS_MAX],
    datagrams: AtomicU64,
}

impl Receiving {
    /// Creates an unused key. `session` is our number for it, under which the other end sends.
    pub(super) fn new(
        (link, peer): (LinkId, PeerName),
        epoch: u32,
        session: u32,
        key: Key,
    ) -> Receiving {
        Receiving {
            link,
            epoch,
            peer,
            session,
            key,
            windows: [const { OnceLock::new() }; STREAMS_MAX],
            datagrams: AtomicU64::new(0),
        }
    }

    /// Creates a key from its bytes, for tests and benchmarks. Returns `None` if the cipher refuses
    /// it.
    #[doc(hidden)]
    pub fn from_bytes(
        (link, peer): (LinkId, PeerName),
        cipher: Cipher,
        session: u32,
        key: &[u8; KEY_BYTES],
    ) -> Option<Receiving> {
        let key = Key::new(cipher, key)?;
        Some(Receiving::new((link, peer), 0, session, key))
    }

    /// Returns the link.
    pub const fn link(&self) -> LinkId {
        self.link
    }

    /// Returns the neighbour at the other end.
    pub const fn peer(&self) -> PeerName {
        self.peer
    }

    /// Returns the epoch of the key.
    pub const fn epoch(&self) -> u32 {
        self.epoch
    }

    /// Returns our number for the key.
    pub const fn session(&self) -> u32 {
        self.session
    }

    /// Opens a datagram in place whose header names this session: decrypts it, then checks that it
    /// is new.
    ///
    /// Format: `docs/native.md#datagrams`.
    #[inline]
    pub fn open(&self, header: &Header, datagram: &mut [u8]) -> Result<Opened, OpenError> {
        let len = datagram.len();
        let (start, body) = datagram
            .split_first_chunk_mut::<HEADER_BYTES>()
            .ok_or(OpenError::Forged)?;
        let nonce = nonce(header.stream, header.counter);
        self.key
            .open(nonce, start, body)
            .map_err(|_| OpenError::Forged)?;
        let window = self.windows.get(usize::from(header.stream));
        let window = window.ok_or(OpenError::Replayed)?;
        let accepted = window
            .get_or_init(|| Box::new(Window::new()))
            .accept(header.counter)
            .ok_or(OpenError::Replayed)?;
        Ok(Opened {
            body: HEADER_BYTES..len - TAG_BYTES,
            is_newest: accepted.is_newest,
        })
    }

    /// Counts datagrams that were opened.
    #[inline]
    pub fn note_datagrams(&self, count: u64) {
        self.datagrams.fetch_add(count, Relaxed);
    }

    /// Returns how many datagrams were opened under this key.
    pub fn datagrams(&self) -> u64 {
        self.datagrams.load(Relaxed)
    }
}

impl fmt::Debug for Receiving {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiving")
            .field("link", &self.link)
            .field("epoch", &self.epoch)
            .field("peer", &self.peer)
            .field("cipher", &self.key.cipher())
            .field("datagrams", &self.datagrams())
            .finish_non_exhaustive()
    }
}

/// Address and maximum size of a link's datagrams, shared between the link's state machine, which
/// sets them, and the threads that carry frames.
pub struct Tunnel {
    id: LinkId,
    us: PeerName,
    peer: PeerName,
    remote: AtomicRemote,
    /// Size in bytes of the largest datagram that the path is known to carry,.
    max_payload: AtomicU32,
    /// The last address that was reported to the state machine.
    told: AtomicRemote,
}

impl Tunnel {
    /// Creates a link that sends nothing yet.
    pub fn new(id: LinkId, us: PeerName, peer: PeerName, remote: Option<SocketAddrV4>) -> Tunnel {
        Tunnel {
            id,
            us,
            peer,
            remote: AtomicRemote::new(remote),
            max_payload: AtomicU32::new(0),
            told: AtomicRemote::new(None),
        }
    }

    /// Returns the handle of the link.
    pub const fn id(&self) -> LinkId {
        self.id
    }

    /// Ourself.
    pub const fn us(&self) -> PeerName {
        self.us
    }

    /// Returns the neighbour at the other end.
    pub const fn peer(&self) -> PeerName {
        self.peer
    }

    /// Returns the address to which datagrams are sent, or `None` until the neighbour was heard.
    #[inline]
    pub fn remote(&self) -> Option<SocketAddrV4> {
        self.remote.get()
    }

    /// Sends datagrams to `remote` from now on.
    pub fn set_remote(&self, remote: Option<SocketAddrV4>) {
        self.remote.set(remote);
        self.told.set(None);
    }

    /// Returns true if `from`, the source of the newest datagram, must be reported to the state
    /// machine: once for each address that differs from the one in use and from the one last
    /// reported.
    #[inline]
    pub fn is_news(&self, from: SocketAddrV4) -> bool {
        if self.remote.get() == Some(from) || self.told.get() == Some(from) {
            return false;
        }
        self.told.set(Some(from));
        true
    }

    /// Undoes the last [`Tunnel::is_news`]: the address is reported again with the next datagram.
    pub fn forget_news(&self) {
        self.told.set(None);
    }

    /// Returns the maximum size of a datagram, in bytes of UDP payload.
    #[inline]
    pub fn max_payload(&self) -> usize {
        self.max_payload.load(Relaxed) as usize
    }

    /// Sets [`Tunnel::max_payload`].
    pub fn set_max_payload(&self, max_payload: usize) {
        let max = max_payload.min(DATAGRAM_BYTES_MAX) as u32;
        self.max_payload.store(max, Relaxed);
    }

    /// Returns the maximum size of a frame without its Ethernet header, in bytes.
    #[inline]
    pub fn mtu(&self) -> usize {
        mtu(self.max_payload())
    }
}

impl fmt::Debug for Tunnel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tunnel")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .field("remote", &self.remote())
            .field("mtu", &self.mtu())
            .finish_non_exhaustive()
    }
}

/// Returns the maximum size of a frame without its Ethernet header, in bytes, for datagrams of this
/// size.
pub const fn mtu(max_payload: usize) -> usize {
    (max_payload + UDP_IP_BYTES).saturating_sub(OVERHEAD_BYTES)
}

/// Returns the number of bytes of records that fit a datagram of this size.
pub const fn records_room(max_payload: usize) -> usize {
    max_payload.saturating_sub(HEADER_BYTES + NAMES_BYTES + TAG_BYTES)
}

const _: () = assert!(records_room(1472) == mtu(1472) + ethernet::HEADER_BYTES + RECORD_BYTES);

/// Number of counters of a stream under one key.
const COUNTERS: u64 = 1 << 32;

/// Returns the nonce of a datagram. It differs for any two datagrams under one key, because
/// counters of one stream differ, and so do the numbers of streams.
///
/// Format: `docs/native.md#nonces-and-limits`.
#[inline]
const fn nonce(stream: u8, counter: u32) -> [u8; 12] {
    let [a, b, c, d] = counter.to_be_bytes();
    [stream, 0, 0, 0, 0, 0, 0, 0, a, b, c, d]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn news_of_an_address_is_told_once_unless_it_was_not_heard() {
        let at = |port| SocketAddrV4::new([10, 0, 0, 1].into(), port);
        let (us, peer) = (PeerName::from_bytes([1; 6]), PeerName::from_bytes([2; 6]));
        let tunnel = Tunnel::new(LinkId(1), us, peer, Some(at(1)));
        assert!(!tunnel.is_news(at(1)), "it is in use");
        assert!(tunnel.is_news(at(2)));
        assert!(!tunnel.is_news(at(2)), "it was told");
        tunnel.forget_news();
        assert!(tunnel.is_news(at(2)));
        tunnel.set_remote(Some(at(2)));
        assert!(!tunnel.is_news(at(2)));
        assert!(tunnel.is_news(at(1)));
    }
}
