//! The durable state, as records of a key-value store.
//!
//! The allocator keeps its state in small records, so that a change writes only what changed. All
//! records of one decision form one [`Batch`], which must be stored completely or not at all.
//! Numbers are big-endian; a text is a length and its bytes:
//!
//! ```text
//! key                  value
//! m                    format u8 | our name | universe | flags u8          the state itself
//! s                    names of the seeds                                   the ring
//! e | token u32        owner | version u32 | free u32                       one entry of it
//! a | address u32      prefix u8 | flags u8 | id | lease key, if flagged    an address in use
//! l | lease key        lease                                                see the leases' wire
//! p                    uid u64 | promise | accepted | origin | names        our part in the election
//! t | peer             since u64 | flags u8 | ranges | peers not heard yet  a takeover
//! k | peer             last seen u64 | flags u8 | who takes it over         a peer we have met
//! c                    seconds u64                                          the time that we saw pass
//! u | lease key        seconds u64                                          since when it is idle
//! ```
//!
//! [`Stored`] reads records one by one, in any order.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proto::cursor::Cursor;
use proto::types::PeerName;

use crate::consensus::{AcceptedValue, Claims, NodeId, ProposalId};
use crate::leases::wire::{self, WireError, put_address, put_cidr, put_text, put_u32, put_u64};
use crate::leases::{Lease, LeaseKey};
use crate::range::{Address, Cidr, Range};
use crate::range_set::RangeSet;
use crate::ring::Entry;

/// The version of the records that this module writes, and the highest that it reads.
pub const FORMAT: u8 = 1;
/// Maximum length of an id of an owner of addresses, in bytes. A longer one is refused.
pub const ID_BYTES_MAX: usize = 255;

/// The number of a batch. The first batch after a start is 1, and each further one is higher by
/// one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct BatchId(pub u64);

/// Records that must be stored together: all of them or none.
#[derive(Clone, PartialEq, Eq)]
pub struct Batch {
    /// Its number.
    pub id: BatchId,
    /// Key length u16, key, then 0 or value length + 1 as u32, value.
    packed: Vec<u8>,
    len: usize,
}

impl std::fmt::Debug for Batch {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Batch {} of {} records", self.id.0, self.len)
    }
}

impl Batch {
    pub(crate) fn new() -> Batch {
        Batch {
            id: BatchId(0),
            packed: Vec::new(),
            len: 0,
        }
    }

    /// Returns the number of records that it sets or removes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if it changes nothing. Such a batch is never returned to the driver.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the records in order: a key, and its value, or `None` if the record must be removed.
    /// No key occurs twice.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], Option<&[u8]>)> {
        let mut rest = Cursor::new(&self.packed);
        std::iter::from_fn(move || {
            let key_len = usize::from(rest.u16().ok()?);
            let key = rest.take(key_len).ok()?;
            let value_len = usize::try_from(rest.u32().ok()?).ok()?;
            let value = match value_len.checked_sub(1) {
                None => None,
                Some(len) => Some(rest.take(len).ok()?),
            };
            Some((key, value))
        })
    }

    /// Adds a record. `value` writes its value; without it, the record is removed.
    pub(crate) fn push(&mut self, key: &Key, value: Option<impl FnOnce(&mut Vec<u8>)>) {
        let start = self.packed.len();
        self.packed.extend([0; 2]);
        key.put(&mut self.packed);
        let key_len = (self.packed.len() - start - 2) as u16;
        self.packed[start..start + 2].copy_from_slice(&key_len.to_be_bytes());
        let at = self.packed.len();
        self.packed.extend([0; 4]);
        if let Some(write) = value {
            write(&mut self.packed);
            let len = (self.packed.len() - at - 4 + 1) as u32;
            self.packed[at..at + 4].copy_from_slice(&len.to_be_bytes());
        }
        self.len += 1;
    }
}

/// The key of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    Meta,
    Seeds,
    Entry(Address),
    Address(Address),
    Lease(Arc<LeaseKey>),
    Election,
    Takeover(PeerName),
    Known(PeerName),
    Time,
    Idle(Arc<LeaseKey>),
}

impl Key {
    fn put(&self, out: &mut Vec<u8>) {
        match self {
            Key::Meta => out.push(b'm'),
            Key::Seeds => out.push(b's'),
            Key::Entry(token) => {
                out.push(b'e');
                put_address(out, *token);
            }
            Key::Address(address) => {
                out.push(b'a');
                put_address(out, *address);
            }
            Key::Lease(key) => {
                out.push(b'l');
                wire::put_key(out, key);
            }
            Key::Election => out.push(b'p'),
            Key::Takeover(peer) => {
                out.push(b't');
                out.extend(peer.as_bytes());
            }
            Key::Known(peer) => {
                out.push(b'k');
                out.extend(peer.as_bytes());
            }
            Key::Time => out.push(b'c'),
            Key::Idle(key) => {
                out.push(b'u');
                wire::put_key(out, key);
            }
        }
    }
}

/// The router and universe to which all records belong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The router's name.
    pub name: PeerName,
    /// The universe.
    pub universe: Cidr,
    /// Whether the universe was only a default.
    pub defaulted: bool,
    /// Whether everything was handed over: the records must not be used again.
    pub left: bool,
}

/// An address in use.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holding {
    /// Its owner: a container's id, a name like `weave:expose`, or the address itself.
    pub id: String,
    /// The prefix length of its network.
    pub len: u8,
    /// Whether the id is that of a container, whose end can be detected.
    pub container: bool,
    /// The lease to which it belongs.
    pub lease: Option<Arc<LeaseKey>>,
}

/// Our part in the election of the first ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Election {
    /// The number under which we take part.
    pub uid: u64,
    /// Our claims.
    pub claims: Claims,
}

/// The takeover of a lost peer, or, under our own name, the fact that we lost our store.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Takeover {
    /// When it began, in seconds since 1970.
    pub since: u64,
    /// Whether it is still to be done, once all of `waiting` were heard.
    pub intended: bool,
    /// The addresses that are held back until then.
    pub ranges: RangeSet,
    /// The peers that may know of grants that we do not know.
    pub waiting: BTreeSet<PeerName>,
}

impl Takeover {
    /// Returns true if it is not finished.
    pub fn is_active(&self) -> bool {
        self.intended
    }
}

/// A peer that we have met.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Known {
    /// When it was last in the mesh, in seconds since 1970, to the day.
    pub seen: u64,
    /// Whether it handed everything over, or somebody removed it.
    pub gone: bool,
    /// Whether it is known to be a weft router.
    pub weft: bool,
    /// The other router that was the last to report that it takes this peer over.
    pub taker: PeerName,
}

pub(crate) fn put_known(out: &mut Vec<u8>, known: &Known) {
    put_u64(out, known.seen);
    out.push(u8::from(known.gone) | u8::from(known.weft) << 1);
    out.extend(known.taker.as_bytes());
}

fn known(input: &mut Cursor<'_>) -> Result<Known, WireError> {
    let (seen, flags) = (input.u64()?, input.u8()?);
    Ok(Known {
        seen,
        gone: flags & 1 != 0,
        weft: flags & 2 != 0,
        taker: wire::peer(input)?,
    })
}

pub(crate) fn put_meta(out: &mut Vec<u8>, meta: &Meta) {
    out.push(FORMAT);
    out.extend(meta.name.as_bytes());
    put_cidr(out, &meta.universe);
    out.push(u8::from(meta.defaulted) | u8::from(meta.left) << 1);
}

fn meta(input: &mut Cursor<'_>) -> Result<Meta, WireError> {
    let format = input.u8()?;
    if format > FORMAT {
        return Err(WireError::Format(format));
    }
    let (name, universe, flags) = (wire::peer(input)?, wire::cidr(input)?, input.u8()?);
    Ok(Meta {
        name,
        universe,
        defaulted: flags & 1 != 0,
        left: flags & 2 != 0,
    })
}

pub(crate) fn put_names(out: &mut Vec<u8>, names: &[PeerName]) {
    put_u32(out, names.len());
    names.iter().for_each(|name| out.extend(name.as_bytes()));
}

fn names(input: &mut Cursor<'_>) -> Result<Vec<PeerName>, WireError> {
    let mut out = Vec::new();
    for _ in 0..input.u32()? {
        out.push(wire::peer(input)?);
    }
    Ok(out)
}

pub(crate) fn put_ring_entry(out: &mut Vec<u8>, entry: &Entry) {
    out.extend(entry.peer.as_bytes());
    out.extend(entry.version.to_be_bytes());
    out.extend(entry.free.to_be_bytes());
}

pub(crate) fn put_holding(out: &mut Vec<u8>, holding: &Holding) {
    out.push(holding.len);
    out.push(u8::from(holding.container) | u8::from(holding.lease.is_some()) << 1);
    put_text(out, &holding.id, ID_BYTES_MAX);
    if let Some(key) = &holding.lease {
        wire::put_key(out, key);
    }
}

fn holding(input: &mut Cursor<'_>) -> Result<Holding, WireError> {
    let (len, flags, id) = (input.u8()?, input.u8()?, wire::text(input)?);
    if len > 32 {
        return Err(WireError::Invalid("prefix length"));
    }
    let lease = if flags & 2 != 0 {
        Some(Arc::new(wire::key(input)?))
    } else {
        None
    };
    Ok(Holding {
        id,
        len,
        container: flags & 1 != 0,
        lease,
    })
}

pub(crate) fn put_election(out: &mut Vec<u8>, election: &Election) {
    put_u64(out, election.uid);
    let claims = &election.claims;
    for proposal in [&claims.promise, &claims.accepted, &claims.value.origin] {
        put_u64(out, proposal.round);
        out.extend(proposal.proposer.name.as_bytes());
        put_u64(out, proposal.proposer.uid);
    }
    put_names(out, &claims.value.value);
}

fn election(input: &mut Cursor<'_>) -> Result<Election, WireError> {
    let uid = input.u64()?;
    let mut proposal = || -> Result<ProposalId, WireError> {
        Ok(ProposalId {
            round: input.u64()?,
            proposer: NodeId {
                name: wire::peer(input)?,
                uid: input.u64()?,
            },
        })
    };
    let (promise, accepted, origin) = (proposal()?, proposal()?, proposal()?);
    let value = names(input)?;
    Ok(Election {
        uid,
        claims: Claims {
            promise,
            accepted,
            value: AcceptedValue { value, origin },
        },
    })
}

pub(crate) fn put_takeover(out: &mut Vec<u8>, takeover: &Takeover) {
    put_u64(out, takeover.since);
    out.push(u8::from(takeover.intended));
    let ranges: Vec<Range> = takeover.ranges.iter().collect();
    put_u32(out, ranges.len());
    for range in ranges {
        put_address(out, range.start);
        put_address(out, range.end);
    }
    let waiting: Vec<PeerName> = takeover.waiting.iter().copied().collect();
    put_names(out, &waiting);
}

fn takeover(input: &mut Cursor<'_>) -> Result<Takeover, WireError> {
    let since = input.u64()?;
    let intended = input.u8()? & 1 != 0;
    let mut ranges = RangeSet::new();
    for _ in 0..input.u32()? {
        ranges.insert(Range::new(wire::address(input)?, wire::address(input)?));
    }
    let waiting = names(input)?.into_iter().collect();
    Ok(Takeover {
        since,
        intended,
        ranges,
        waiting,
    })
}

/// A record cannot be read: the store is damaged, or was written by a later version.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("stored record {key}: {error}")]
pub struct StoredError {
    /// The key, in hex.
    pub key: String,
    /// What is wrong.
    pub error: WireError,
}

/// The state described by a series of records.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// What the records belong to; `None` if there are none.
    pub meta: Option<Meta>,
    pub(crate) seeds: Vec<PeerName>,
    pub(crate) entries: BTreeMap<Address, Entry>,
    pub(crate) addresses: BTreeMap<Address, Holding>,
    pub(crate) leases: BTreeMap<Arc<LeaseKey>, Lease>,
    pub(crate) election: Option<Election>,
    pub(crate) takeovers: BTreeMap<PeerName, Takeover>,
    pub(crate) known: BTreeMap<PeerName, Known>,
    pub(crate) time: Option<u64>,
    pub(crate) idle: BTreeMap<Arc<LeaseKey>, u64>,
}

impl Stored {
    /// Reads all records of a store.
    pub fn load<'a>(
        records: impl IntoIterator<Item = (&'a [u8], &'a [u8])>,
    ) -> Result<Stored, StoredError> {
        let mut out = Stored::default();
        for (key, value) in records {
            out.insert(key, value)?;
        }
        Ok(out)
    }

    /// Reads one record.
    pub fn insert(&mut self, key: &[u8], value: &[u8]) -> Result<(), StoredError> {
        self.read(key, value).map_err(|error| StoredError {
            key: key.iter().map(|byte| format!("{byte:02x}")).collect(),
            error,
        })
    }

    fn read(&mut self, key: &[u8], value: &[u8]) -> Result<(), WireError> {
        let (mut key, mut value) = (Cursor::new(key), Cursor::new(value));
        let (key, value) = (&mut key, &mut value);
        match key.u8()? {
            b'm' => self.meta = Some(meta(value)?),
            b's' => self.seeds = names(value)?,
            b'e' => {
                let token = wire::address(key)?;
                let entry = Entry {
                    token,
                    peer: wire::peer(value)?,
                    version: value.u32()?,
                    free: value.u32()?,
                };
                self.entries.insert(token, entry);
            }
            b'a' => {
                self.addresses.insert(wire::address(key)?, holding(value)?);
            }
            b'l' => {
                let key = Arc::new(wire::key(key)?);
                self.leases.insert(key, wire::lease(value)?);
            }
            b'p' => self.election = Some(election(value)?),
            b't' => {
                self.takeovers.insert(wire::peer(key)?, takeover(value)?);
            }
            b'k' => {
                self.known.insert(wire::peer(key)?, known(value)?);
            }
            b'c' => self.time = Some(value.u64()?),
            b'u' => {
                let key = Arc::new(wire::key(key)?);
                self.idle.insert(key, value.u64()?);
            }
            _ => return Err(WireError::Invalid("kind of record")),
        }
        if !key.is_empty() || !value.is_empty() {
            return Err(WireError::Invalid("length"));
        }
        Ok(())
    }

    /// Returns true if any address is in use.
    pub fn has_addresses(&self) -> bool {
        !self.addresses.is_empty()
    }

    /// Returns true if there is a ring.
    pub fn has_ring(&self) -> bool {
        !self.entries.is_empty()
    }

    /// Returns the addresses in use.
    pub fn addresses(&self) -> impl Iterator<Item = (Address, &Holding)> {
        self.addresses.iter().map(|(address, h)| (*address, h))
    }

    /// Returns the leases.
    pub fn leases(&self) -> impl Iterator<Item = (&LeaseKey, &Lease)> {
        self.leases.iter().map(|(key, lease)| (&**key, lease))
    }

    /// Creates the state from that of a Weave Net router. `universe` is used if it has no ring.
    pub fn from_weave(state: &crate::import::WeaveState, name: PeerName, universe: Cidr) -> Stored {
        let ring = state.ring.clone().unwrap_or_default();
        let range = ring.universe();
        let cidr = range.cidrs().first().copied();
        let universe = cidr.filter(|_| !ring.is_empty()).unwrap_or(universe);
        let mut out = Stored {
            meta: Some(Meta {
                name,
                universe,
                defaulted: false,
                left: false,
            }),
            seeds: ring.seeds,
            entries: ring.entries.iter().map(|e| (e.token, *e)).collect(),
            ..Stored::default()
        };
        for (id, owned) in &state.owned {
            for cidr in &owned.cidrs {
                let id = id.get(..id.floor_char_boundary(ID_BYTES_MAX)).unwrap_or(id);
                let holding = Holding {
                    id: id.to_owned(),
                    len: cidr.len,
                    container: owned.is_container,
                    lease: None,
                };
                out.addresses.insert(cidr.address, holding);
            }
        }
        out
    }
}
