//! Messages of the channel `weft-leases`, and leases as bytes.
//!
//! Every message starts with the version of the format and a kind. Numbers are big-endian; names
//! and ids are one length byte and the bytes:
//!
//! ```text
//! 01 | 00 | Hello      broadcast when routers come into reach, gossiped every period
//! 01 | 01 | Compare    unicast: our digest of each bucket, to one whose table differs
//! 01 | 02 | Summary    unicast: hashes of the leases in buckets that differ
//! 01 | 03 | Entries    unicast: leases, and hashes of keys whose lease is wanted
//! 01 | 04 | Ask        unicast to the holder of a lease, or to the owner of its address
//! 01 | 05 | Answer     unicast back
//! 01 | 06 | RingQuery  unicast: what is your ring now?
//! 01 | 07 | RingAnswer unicast back: a gossipState
//! 01 | 08 | Gone       broadcast: this router is gone for ever
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;

use proto::cursor::{Cursor, EndOfInput};
use proto::types::PeerName;

use super::lease::{
    CONTAINER_BYTES_MAX, IDENTITY_BYTES_MAX, Lease, LeaseEntry, LeaseKey, LeaseState, Scope,
};
use crate::range::{Address, Cidr};

/// The version of this format. Messages of another version are ignored.
pub const FORMAT: u8 = 1;
/// Number of parts of the table with a digest of their own.
pub const BUCKETS: usize = 64;
/// Maximum number of leases in one [`Message::Entries`]. More are sent in several.
pub const ENTRIES_PER_MESSAGE: usize = 512;

/// Why a message or record could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// It ends too early.
    #[error(transparent)]
    End(#[from] EndOfInput),
    /// It has a later format.
    #[error("format {0} is not known")]
    Format(u8),
    /// A value is invalid.
    #[error("invalid {0}")]
    Invalid(&'static str),
}

/// Announcement of a router, sent when others come into reach, and periodically.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The announcing router; relays do not keep the sender.
    pub origin: PeerName,
    /// The digest of its leases.
    pub digest: u64,
    /// Its universe.
    pub universe: Cidr,
    /// Whether the universe is only a default from which nothing was allocated.
    pub yields: bool,
    /// Whether it has a ring.
    pub has_ring: bool,
    /// Whether it requests a hello in return.
    pub reply: bool,
}

/// Kind of a request about a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AskKind {
    /// Hand the lease over to the sender.
    Take,
    /// Keep the lease forever.
    Pin,
    /// Do not keep the lease forever.
    Unpin,
    /// End the lease.
    Release,
    /// As the owner of its address in the ring, grant the address to the sender, which holds the
    /// lease.
    Grant,
}

/// A request about a lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ask {
    /// Repeated in the answer.
    pub nonce: u64,
    /// The kind of request.
    pub kind: AskKind,
    /// The key, and the lease as the sender knows it.
    pub entry: LeaseEntry,
}

/// Outcome of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// A container uses the address.
    InUse,
    /// The lease is held elsewhere, or the sender knows an older version; see `entry`.
    Elsewhere,
    /// Not possible now: the address is held back, or the router cannot save.
    Busy,
    /// The address is not free, or not here.
    Refused,
}

/// The answer to an [`Ask`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The nonce of the request.
    pub nonce: u64,
    /// The outcome.
    pub outcome: Outcome,
    /// The current lease, if the answering router knows it.
    pub entry: Option<LeaseEntry>,
    /// A `gossipState`, if the ring has news about the address. It is the whole ring, because a
    /// part of it would not show where its last range ends.
    pub ring: Option<Vec<u8>>,
}

/// A message of the channel.
///
/// Format: `docs/protocol/ipam.md#9-1-messages`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Announcement of a weft router.
    Hello(Hello),
    /// The sender's digest of each bucket, to be compared.
    Compare(Box<[u64; BUCKETS]>),
    /// The buckets that differ: hashes of keys and leases by bucket.
    Summary(BTreeMap<u8, BTreeMap<u64, u64>>),
    /// Leases of the sender, and hashes of the keys whose leases it requests.
    Entries {
        /// Leases.
        leases: Vec<LeaseEntry>,
        /// Hashes of keys.
        wanted: Vec<u64>,
    },
    /// A request about a lease.
    Ask(Ask),
    /// The answer to such a request.
    Answer(Answer),
    /// Requests the receiver's ring.
    RingQuery {
        /// Repeated in the answer.
        nonce: u64,
        /// The lost peers that the sender is taking over.
        taking: Vec<PeerName>,
    },
    /// The sender's ring.
    RingAnswer {
        /// The nonce of the query.
        nonce: u64,
        /// The peers that the sender knows to be gone forever.
        gone: Vec<PeerName>,
        /// The lost peers that the sender is taking over.
        taking: Vec<PeerName>,
        /// A `gossipState`.
        state: Vec<u8>,
    },
    /// A peer is gone forever: it handed everything over, or was removed.
    Gone(PeerName),
}

impl Message {
    /// Encodes the message.
    ///
    /// Format: `docs/protocol/ipam.md#9-1-messages`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = vec![FORMAT, self.kind()];
        match self {
            Message::Hello(hello) => put_hello(&mut out, hello),
            Message::Compare(buckets) => {
                buckets.iter().for_each(|bucket| put_u64(&mut out, *bucket));
            }
            Message::Summary(buckets) => put_summary(&mut out, buckets),
            Message::Entries { leases, wanted } => {
                put_u32(&mut out, leases.len());
                leases.iter().for_each(|entry| put_entry(&mut out, entry));
                put_u32(&mut out, wanted.len());
                wanted.iter().for_each(|hash| put_u64(&mut out, *hash));
            }
            Message::Ask(ask) => {
                put_u64(&mut out, ask.nonce);
                out.push(ask.kind as u8);
                put_entry(&mut out, &ask.entry);
            }
            Message::Answer(answer) => put_answer(&mut out, answer),
            Message::RingQuery { nonce, taking } => {
                put_u64(&mut out, *nonce);
                put_peers(&mut out, taking);
            }
            Message::RingAnswer {
                nonce,
                gone,
                taking,
                state,
            } => {
                put_u64(&mut out, *nonce);
                put_peers(&mut out, gone);
                put_peers(&mut out, taking);
                out.extend_from_slice(state);
            }
            Message::Gone(peer) => out.extend(peer.as_bytes()),
        }
        out
    }

    fn kind(&self) -> u8 {
        match self {
            Message::Hello(_) => 0,
            Message::Compare(_) => 1,
            Message::Summary(_) => 2,
            Message::Entries { .. } => 3,
            Message::Ask(_) => 4,
            Message::Answer(_) => 5,
            Message::RingQuery { .. } => 6,
            Message::RingAnswer { .. } => 7,
            Message::Gone(_) => 8,
        }
    }

    /// Decodes a message. Bytes after it are left to later versions and ignored.
    ///
    /// Format: `docs/protocol/ipam.md#9-1-messages`.
    pub fn decode(message: &[u8]) -> Result<Message, WireError> {
        let mut input = Cursor::new(message);
        let format = input.u8()?;
        if format != FORMAT {
            return Err(WireError::Format(format));
        }
        Ok(match input.u8()? {
            0 => Message::Hello(hello(&mut input)?),
            1 => {
                let mut buckets = Box::new([0; BUCKETS]);
                for bucket in buckets.iter_mut() {
                    *bucket = input.u64()?;
                }
                Message::Compare(buckets)
            }
            2 => Message::Summary(summary(&mut input)?),
            3 => {
                let mut leases = Vec::new();
                for _ in 0..input.u32()? {
                    leases.push(entry(&mut input)?);
                }
                let mut wanted = Vec::new();
                for _ in 0..input.u32()? {
                    wanted.push(input.u64()?);
                }
                Message::Entries { leases, wanted }
            }
            4 => Message::Ask(Ask {
                nonce: input.u64()?,
                kind: ask_kind(input.u8()?)?,
                entry: entry(&mut input)?,
            }),
            5 => Message::Answer(answer(&mut input)?),
            6 => Message::RingQuery {
                nonce: input.u64()?,
                taking: peers(&mut input)?,
            },
            7 => Message::RingAnswer {
                nonce: input.u64()?,
                gone: peers(&mut input)?,
                taking: peers(&mut input)?,
                state: input.rest().to_vec(),
            },
            8 => Message::Gone(peer(&mut input)?),
            _ => return Err(WireError::Invalid("kind of message")),
        })
    }
}

fn put_hello(out: &mut Vec<u8>, hello: &Hello) {
    out.extend(hello.origin.as_bytes());
    put_u64(out, hello.digest);
    put_cidr(out, &hello.universe);
    out.push(u8::from(hello.yields) | u8::from(hello.has_ring) << 1 | u8::from(hello.reply) << 2);
}

fn hello(input: &mut Cursor<'_>) -> Result<Hello, WireError> {
    let (origin, digest, universe) = (peer(input)?, input.u64()?, cidr(input)?);
    let flags = input.u8()?;
    Ok(Hello {
        origin,
        digest,
        universe,
        yields: flags & 1 != 0,
        has_ring: flags & 2 != 0,
        reply: flags & 4 != 0,
    })
}

fn put_summary(out: &mut Vec<u8>, buckets: &BTreeMap<u8, BTreeMap<u64, u64>>) {
    out.push(buckets.len() as u8);
    for (bucket, hashes) in buckets {
        out.push(*bucket);
        put_u32(out, hashes.len());
        for (key, lease) in hashes {
            put_u64(out, *key);
            put_u64(out, *lease);
        }
    }
}

fn summary(input: &mut Cursor<'_>) -> Result<BTreeMap<u8, BTreeMap<u64, u64>>, WireError> {
    let mut out = BTreeMap::new();
    for _ in 0..input.u8()? {
        let bucket = input.u8()?;
        if usize::from(bucket) >= BUCKETS {
            return Err(WireError::Invalid("bucket"));
        }
        let mut hashes = BTreeMap::new();
        for _ in 0..input.u32()? {
            hashes.insert(input.u64()?, input.u64()?);
        }
        out.insert(bucket, hashes);
    }
    Ok(out)
}

fn put_answer(out: &mut Vec<u8>, answer: &Answer) {
    put_u64(out, answer.nonce);
    out.push(answer.outcome as u8);
    out.push(u8::from(answer.entry.is_some()) | u8::from(answer.ring.is_some()) << 1);
    if let Some(entry) = &answer.entry {
        put_entry(out, entry);
    }
    if let Some(ring) = &answer.ring {
        put_u32(out, ring.len());
        out.extend_from_slice(ring);
    }
}

fn answer(input: &mut Cursor<'_>) -> Result<Answer, WireError> {
    let (nonce, outcome, flags) = (input.u64()?, outcome(input.u8()?)?, input.u8()?);
    let entry = if flags & 1 != 0 {
        Some(entry(input)?)
    } else {
        None
    };
    let ring = if flags & 2 != 0 {
        let len = usize::try_from(input.u32()?).unwrap_or(usize::MAX);
        Some(input.take(len)?.to_vec())
    } else {
        None
    };
    Ok(Answer {
        nonce,
        outcome,
        entry,
        ring,
    })
}

fn put_peers(out: &mut Vec<u8>, peers: &[PeerName]) {
    put_u32(out, peers.len());
    peers.iter().for_each(|peer| out.extend(peer.as_bytes()));
}

fn peers(input: &mut Cursor<'_>) -> Result<Vec<PeerName>, WireError> {
    let mut out = Vec::new();
    for _ in 0..input.u32()? {
        out.push(peer(input)?);
    }
    Ok(out)
}

fn ask_kind(value: u8) -> Result<AskKind, WireError> {
    Ok(match value {
        0 => AskKind::Take,
        1 => AskKind::Pin,
        2 => AskKind::Unpin,
        3 => AskKind::Release,
        4 => AskKind::Grant,
        _ => return Err(WireError::Invalid("kind of ask")),
    })
}

fn outcome(value: u8) -> Result<Outcome, WireError> {
    Ok(match value {
        0 => Outcome::Done,
        1 => Outcome::InUse,
        2 => Outcome::Elsewhere,
        3 => Outcome::Busy,
        4 => Outcome::Refused,
        _ => return Err(WireError::Invalid("outcome")),
    })
}

fn put_entry(out: &mut Vec<u8>, (key, lease): &LeaseEntry) {
    put_key(out, key);
    put_lease(out, lease);
}

fn entry(input: &mut Cursor<'_>) -> Result<LeaseEntry, WireError> {
    Ok((Arc::new(key(input)?), lease(input)?))
}

/// Encodes the key of a lease.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
pub(crate) fn put_key(out: &mut Vec<u8>, key: &LeaseKey) {
    match key.scope {
        Scope::Explicit => out.push(0),
        Scope::Derived => out.push(1),
        Scope::Host(host) => {
            out.push(2);
            out.extend(host.as_bytes());
        }
    }
    put_text(out, &key.name, IDENTITY_BYTES_MAX);
    put_cidr(out, &key.subnet);
}

/// Decodes the key of a lease.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
pub(crate) fn key(input: &mut Cursor<'_>) -> Result<LeaseKey, WireError> {
    let scope = match input.u8()? {
        0 => Scope::Explicit,
        1 => Scope::Derived,
        2 => Scope::Host(peer(input)?),
        _ => return Err(WireError::Invalid("scope")),
    };
    let name = text(input)?;
    if name.is_empty() {
        return Err(WireError::Invalid("identity"));
    }
    let subnet = cidr(input)?;
    if subnet.network() != subnet {
        return Err(WireError::Invalid("subnet"));
    }
    Ok(LeaseKey {
        scope,
        name,
        subnet,
    })
}

/// Encodes a lease.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
pub(crate) fn put_lease(out: &mut Vec<u8>, lease: &Lease) {
    put_u64(out, lease.version);
    out.extend(lease.holder.as_bytes());
    put_address(out, lease.address);
    put_u64(out, lease.since);
    let state = match lease.state {
        LeaseState::Gone => 0u8,
        LeaseState::Unused => 1,
        LeaseState::Used(_) => 2,
    };
    out.push(state | u8::from(lease.pinned) << 7);
    if let LeaseState::Used(container) = &lease.state {
        put_text(out, container, CONTAINER_BYTES_MAX);
    }
}

/// Decodes a lease.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
pub(crate) fn lease(input: &mut Cursor<'_>) -> Result<Lease, WireError> {
    let (version, holder, address) = (input.u64()?, peer(input)?, address(input)?);
    let since = input.u64()?;
    let flags = input.u8()?;
    let state = match flags & 0x7f {
        0 => LeaseState::Gone,
        1 => LeaseState::Unused,
        2 => LeaseState::Used(text(input)?),
        _ => return Err(WireError::Invalid("state of a lease")),
    };
    Ok(Lease {
        version,
        holder,
        address,
        state,
        pinned: flags & 0x80 != 0,
        since,
    })
}

pub(crate) fn put_u64(out: &mut Vec<u8>, value: u64) {
    out.extend(value.to_be_bytes());
}

pub(crate) fn put_u32(out: &mut Vec<u8>, value: usize) {
    out.extend(u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
}

pub(crate) fn put_address(out: &mut Vec<u8>, address: Address) {
    out.extend(address.get().to_be_bytes());
}

pub(crate) fn put_cidr(out: &mut Vec<u8>, cidr: &Cidr) {
    put_address(out, cidr.address);
    out.push(cidr.len);
}

/// Encodes a text of at most `max` bytes (at most 255). A longer one is cut.
pub(crate) fn put_text(out: &mut Vec<u8>, text: &str, max: usize) {
    let len = text.floor_char_boundary(max);
    out.push(len as u8);
    out.extend(text.as_bytes().iter().take(len));
}

pub(crate) fn address(input: &mut Cursor<'_>) -> Result<Address, WireError> {
    Ok(Address::new(input.u32()?))
}

pub(crate) fn cidr(input: &mut Cursor<'_>) -> Result<Cidr, WireError> {
    let (address, len) = (address(input)?, input.u8()?);
    if len > 32 {
        return Err(WireError::Invalid("prefix length"));
    }
    Ok(Cidr { address, len })
}

pub(crate) fn peer(input: &mut Cursor<'_>) -> Result<PeerName, WireError> {
    Ok(PeerName::from_bytes(input.array()?))
}

pub(crate) fn text(input: &mut Cursor<'_>) -> Result<String, WireError> {
    let len = usize::from(input.u8()?);
    let bytes = input.take(len)?;
    let text = std::str::from_utf8(bytes).map_err(|_| WireError::Invalid("text"))?;
    Ok(text.to_owned())
}
