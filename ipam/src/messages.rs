//! Messages of the channel `IPallocation`.
//!
//! Gossip and broadcasts carry a [`GossipState`]; a unicast starts with one byte that says what
//! follows:
//!
//! ```text
//! 00 | Range          give me space in this range
//! 01 | gossipState    this is my ring
//! 02 | Range          I have none to give there
//! ```
//!
//! In a `gossipState`, an absent map of electors and an empty one mean different things: a router
//! without a ring that takes part in the election sends a map, an observer sends none.

use proto::gob::{Decoder, Encoder, Error, MapType, SliceType, StructType, Type, Value, Writer};
use proto::types::PeerName;
use sha2::{Digest as _, Sha256};

use crate::consensus::{
    AcceptedValue, Claims, NODES_MAX, NodeId, Nodes, ProposalId, VALUE_NAMES_MAX,
};
use crate::range::{Address, Range};
use crate::ring::{ENTRIES_MAX, Entry, Ring, SEEDS_MAX};

/// The name of the channel.
pub const CHANNEL: &str = "IPallocation";
/// Maximum number of nicknames accepted from one message. Further ones are ignored.
pub const NICKNAMES_MAX: usize = 1 << 14;
/// Maximum length of a nickname in bytes. A longer one is cut.
pub const NICKNAME_BYTES_MAX: usize = 255;

const SPACE_REQUEST: u8 = 0;
const RING_UPDATE: u8 = 1;
const SPACE_DENIED: u8 = 2;

/// The state of a router, as sent in gossip.
///
/// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GossipState {
    /// Seconds since 1970; receivers do not use it.
    pub now: i64,
    /// Names and nicknames of the peers that it knows.
    pub nicknames: Vec<(PeerName, String)>,
    /// What it knows of the election; `None` if it takes no part, or there is a ring.
    pub election: Option<Nodes>,
    /// Its ring, with the name of the peer whose copy it is.
    pub ring: Option<(PeerName, Ring)>,
}

/// Digest of a ring's bytes in a message.
pub type RingDigest = [u8; 32];

/// A received [`GossipState`].
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Received {
    /// The state; its ring is missing if it was known already.
    pub state: GossipState,
    /// The ring's digest, if there is one.
    pub digest: Option<RingDigest>,
    /// Whether the ring was known by its digest, and therefore not decoded.
    pub known: bool,
}

/// A message to one peer.
///
/// Format: `docs/protocol/ipam.md#1-3-unicast`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unicast<'a> {
    /// A request for space in this range.
    SpaceRequest(Range),
    /// There is no space to give in this range.
    SpaceDenied(Range),
    /// A [`GossipState`], still encoded.
    RingUpdate(&'a [u8]),
    /// A kind that is not known; it is ignored.
    Unknown(u8),
}

impl<'a> Unicast<'a> {
    /// Decodes a message.
    ///
    /// Format: `docs/protocol/ipam.md#1-3-unicast`.
    pub fn decode(message: &'a [u8]) -> Result<Unicast<'a>, Error> {
        let (kind, body) = message.split_first().ok_or(Error::Missing)?;
        Ok(match *kind {
            SPACE_REQUEST => Unicast::SpaceRequest(decode_range(body)?),
            SPACE_DENIED => Unicast::SpaceDenied(decode_range(body)?),
            RING_UPDATE => Unicast::RingUpdate(body),
            other => Unicast::Unknown(other),
        })
    }

    /// Encodes the message. An unknown one has no body.
    ///
    /// Format: `docs/protocol/ipam.md#1-3-unicast`.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Encoder::new())
    }

    /// Encodes the message with the type ids of `encoder`.
    ///
    /// Format: `docs/protocol/ipam.md#1-3-unicast`.
    pub fn encode_with(&self, encoder: Encoder) -> Vec<u8> {
        let (kind, body) = match self {
            Unicast::SpaceRequest(range) => (SPACE_REQUEST, encode_range(range, encoder)),
            Unicast::SpaceDenied(range) => (SPACE_DENIED, encode_range(range, encoder)),
            Unicast::RingUpdate(state) => (RING_UPDATE, state.to_vec()),
            Unicast::Unknown(kind) => (*kind, Vec::new()),
        };
        let mut out = Vec::with_capacity(1 + body.len());
        out.push(kind);
        out.extend(body);
        out
    }
}

fn encode_range(range: &Range, mut encoder: Encoder) -> Vec<u8> {
    encoder.value(Type::Struct(&RANGE), |w| {
        w.structure(|s| {
            s.uint(0, range.start.get().into());
            s.uint(1, range.end.get().into());
        });
    });
    encoder.finish()
}

fn decode_range(body: &[u8]) -> Result<Range, Error> {
    let mut range = Range::default();
    let mut decoder = Decoder::new(body);
    decoder
        .value()?
        .structure(&["Start", "End"], |field, value| {
            let address = Address::new(value.uint32()?);
            match field {
                0 => range.start = address,
                _ => range.end = address,
            }
            Ok(())
        })?;
    Ok(range)
}

impl GossipState {
    /// Encodes the message.
    ///
    /// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
    pub fn encode(&self) -> Vec<u8> {
        self.encode_with(Encoder::new())
    }

    /// Encodes the message with the type ids of `encoder`.
    ///
    /// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
    pub fn encode_with(&self, mut encoder: Encoder) -> Vec<u8> {
        let ring = self.ring.as_ref().map(|(peer, ring)| (*peer, ring));
        encode_state(
            &mut encoder,
            self.now,
            self.nicknames
                .iter()
                .map(|(peer, name)| (*peer, name.as_str())),
            self.election.as_ref(),
            ring,
        );
        encoder.finish()
    }
}

/// Encodes a `gossipState` from its parts, without copying them first.
///
/// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
pub fn encode_state<'a>(
    encoder: &mut Encoder,
    now: i64,
    nicknames: impl ExactSizeIterator<Item = (PeerName, &'a str)>,
    election: Option<&Nodes>,
    ring: Option<(PeerName, &Ring)>,
) {
    encoder.value(Type::Struct(&GOSSIP_STATE), |w| {
        w.structure(|s| {
            s.int(0, now);
            s.map(1, nicknames, |w, (peer, nickname)| {
                w.uint(peer.as_u64());
                w.bytes(nickname.as_bytes());
            });
            if let Some(nodes) = election {
                s.map(2, nodes.iter(), |w, (id, claims)| {
                    write_node_id(w, id);
                    write_claims(w, claims);
                });
            }
            if let Some((peer, ring)) = ring {
                s.structure(3, |s| write_ring(s, peer, ring));
            }
        });
    });
}

/// Encodes a ring alone, as Weave Net stores it.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn encode_ring(encoder: &mut Encoder, peer: PeerName, ring: &Ring) {
    encoder.value(Type::Struct(&RING), |w| {
        w.structure(|s| write_ring(s, peer, ring));
    });
}

fn write_node_id(w: &mut Writer<'_>, id: &NodeId) {
    w.structure(|s| {
        s.uint(0, id.name.as_u64());
        s.uint(1, id.uid);
    });
}

fn write_claims(w: &mut Writer<'_>, claims: &Claims) {
    w.structure(|s| {
        s.structure(0, |s| write_proposal(s, &claims.promise));
        s.structure(1, |s| write_proposal(s, &claims.accepted));
        s.structure(2, |s| {
            s.slice(0, claims.value.value.iter(), |w, name| {
                w.uint(name.as_u64())
            });
            s.structure(1, |s| write_proposal(s, &claims.value.origin));
        });
    });
}

fn write_proposal(s: &mut proto::gob::StructWriter<'_>, proposal: &ProposalId) {
    s.uint(0, proposal.round);
    s.structure(1, |s| {
        s.uint(0, proposal.proposer.name.as_u64());
        s.uint(1, proposal.proposer.uid);
    });
}

/// Format: `docs/protocol/ipam.md#2-1-structure`.
fn write_ring(s: &mut proto::gob::StructWriter<'_>, peer: PeerName, ring: &Ring) {
    s.uint(0, ring.start.get().into());
    s.uint(1, ring.end.get().into());
    s.uint(2, peer.as_u64());
    s.slice(3, ring.entries.iter(), |w, entry| {
        w.structure(|s| {
            s.uint(0, entry.token.get().into());
            s.uint(1, entry.peer.as_u64());
            s.uint(2, entry.version.into());
            s.uint(3, entry.free.into());
        });
    });
    s.slice(4, ring.seeds.iter(), |w, seed| w.uint(seed.as_u64()));
}

/// Decodes a `gossipState`.
///
/// `known` is called with the ring's digest before the ring is decoded. If it returns true,
/// decoding stops there, at the cost of hashing the message.
///
/// Format: `docs/protocol/ipam.md#1-2-gossip-state`.
pub fn decode_state(
    message: &[u8],
    known: impl FnOnce(&RingDigest) -> bool,
) -> Result<Received, Error> {
    let mut out = Received::default();
    let mut known = Some(known);
    let mut decoder = Decoder::new(message);
    let result =
        decoder
            .value()?
            .structure(&["Now", "Nicknames", "Paxos", "Ring"], |field, value| {
                match field {
                    0 => out.state.now = value.int()?,
                    1 => out.state.nicknames = read_nicknames(value)?,
                    2 => out.state.election = Some(read_nodes(value)?),
                    _ => {
                        let ring = read_ring(value, |digest| {
                            out.digest = Some(*digest);
                            out.known = known.take().is_some_and(|known| known(digest));
                            out.known
                        })?;
                        out.state.ring = Some(ring);
                    }
                }
                Ok(())
            });
    match result {
        // The ring reader stops with an error where the known part begins.
        Err(_) if out.known => Ok(out),
        Err(error) => Err(error),
        Ok(()) => Ok(out),
    }
}

/// Decodes a ring alone, as Weave Net stores it, with the peer whose copy it claims to be.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn decode_ring(stream: &[u8]) -> Result<(PeerName, Ring), Error> {
    read_ring(Decoder::new(stream).value()?, |_| false)
}

fn read_peer(value: Value<'_, '_>) -> Result<PeerName, Error> {
    PeerName::from_u64(value.uint()?).ok_or(Error::Invalid("peer name"))
}

fn read_nicknames(value: Value<'_, '_>) -> Result<Vec<(PeerName, String)>, Error> {
    let mut out = Vec::new();
    value.map(read_peer, |peer, name| {
        let name = name.string()?;
        if out.len() < NICKNAMES_MAX {
            let name = name.get(..NICKNAME_BYTES_MAX).unwrap_or(name);
            out.push((peer, String::from_utf8_lossy(name).into_owned()));
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_nodes(value: Value<'_, '_>) -> Result<Nodes, Error> {
    let mut out = Nodes::new();
    let mut names = 0;
    value.map(read_node_id, |id, value| {
        let claims = read_claims(value)?;
        names += claims.value.value.len();
        if names > VALUE_NAMES_MAX {
            return Err(Error::Invalid("election: too many names"));
        }
        if out.len() < NODES_MAX {
            out.insert(id, claims);
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_node_id(value: Value<'_, '_>) -> Result<NodeId, Error> {
    let mut id = NodeId::default();
    value.structure(&["Name", "UID"], |field, value| {
        match field {
            0 => id.name = read_peer(value)?,
            _ => id.uid = value.uint()?,
        }
        Ok(())
    })?;
    Ok(id)
}

fn read_proposal(value: Value<'_, '_>) -> Result<ProposalId, Error> {
    let mut out = ProposalId::default();
    value.structure(&["Round", "Proposer"], |field, value| {
        match field {
            0 => out.round = value.uint()?,
            _ => out.proposer = read_node_id(value)?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_claims(value: Value<'_, '_>) -> Result<Claims, Error> {
    let mut out = Claims::default();
    value.structure(&["Promise", "Accepted", "AcceptedVal"], |field, value| {
        match field {
            0 => out.promise = read_proposal(value)?,
            1 => out.accepted = read_proposal(value)?,
            _ => out.value = read_accepted_value(value)?,
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_accepted_value(value: Value<'_, '_>) -> Result<AcceptedValue, Error> {
    let mut out = AcceptedValue::default();
    value.structure(&["Value", "Origin"], |field, value| {
        match field {
            0 => {
                value.slice(|name| {
                    out.value.push(read_peer(name)?);
                    if out.value.len() > VALUE_NAMES_MAX {
                        return Err(Error::Invalid("election: too many names"));
                    }
                    Ok(())
                })?;
            }
            _ => out.origin = read_proposal(value)?,
        }
        Ok(())
    })?;
    Ok(out)
}

/// Format: `docs/protocol/ipam.md#2-1-structure`.
fn read_ring(
    value: Value<'_, '_>,
    mut known: impl FnMut(&RingDigest) -> bool,
) -> Result<(PeerName, Ring), Error> {
    let mut ring = Ring::default();
    let mut peer = PeerName::UNKNOWN;
    let fields = ["Start", "End", "Peer", "Entries", "Seeds"];
    value.structure(&fields, |field, value| {
        match field {
            0 => ring.start = Address::new(value.uint32()?),
            1 => ring.end = Address::new(value.uint32()?),
            2 => peer = read_peer(value)?,
            3 => {
                if known(&digest(&ring, value.rest())) {
                    return Err(Error::Missing);
                }
                ring.entries = read_entries(value)?;
            }
            _ => {
                value.slice(|seed| {
                    ring.seeds.push(read_peer(seed)?);
                    if ring.seeds.len() > SEEDS_MAX {
                        return Err(Error::Invalid("ring: too many seeds"));
                    }
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    Ok((peer, ring))
}

/// Returns the digest of a ring's universe, entries and seeds. The last two are the end of the
/// message, and their bytes do not depend on the sender.
fn digest(ring: &Ring, rest: &[u8]) -> RingDigest {
    let mut hash = Sha256::new();
    hash.update(ring.start.get().to_be_bytes());
    hash.update(ring.end.get().to_be_bytes());
    hash.update(rest);
    hash.finalize().into()
}

fn read_entries(value: Value<'_, '_>) -> Result<Vec<Entry>, Error> {
    let mut entries = Vec::new();
    value.slice(|value| {
        if entries.len() >= ENTRIES_MAX {
            return Err(Error::Invalid("ring: too many entries"));
        }
        let mut entry = Entry {
            token: Address::default(),
            peer: PeerName::UNKNOWN,
            version: 0,
            free: 0,
        };
        value.structure(&["Token", "Peer", "Version", "Free"], |field, value| {
            match field {
                0 => entry.token = Address::new(value.uint32()?),
                1 => entry.peer = read_peer(value)?,
                2 => entry.version = value.uint32()?,
                _ => entry.free = value.uint32()?,
            }
            Ok(())
        })?;
        entries.push(entry);
        Ok(())
    })?;
    Ok(entries)
}

static RANGE: StructType = StructType {
    name: "Range",
    fields: &[("Start", Type::Uint), ("End", Type::Uint)],
};
static GOSSIP_STATE: StructType = StructType {
    name: "gossipState",
    fields: &[
        ("Now", Type::Int),
        ("Nicknames", Type::Map(&NICKNAMES)),
        ("Paxos", Type::Map(&NODES)),
        ("Ring", Type::Struct(&RING)),
    ],
};
static NICKNAMES: MapType = MapType {
    name: "map[mesh.PeerName]string",
    key: Type::Uint,
    elem: Type::String,
};
static NODES: MapType = MapType {
    name: "GossipState",
    key: Type::Struct(&NODE_ID),
    elem: Type::Struct(&CLAIMS),
};
static NODE_ID: StructType = StructType {
    name: "",
    fields: &[("Name", Type::Uint), ("UID", Type::Uint)],
};
static CLAIMS: StructType = StructType {
    name: "",
    fields: &[
        ("Promise", Type::Struct(&PROPOSAL_ID)),
        ("Accepted", Type::Struct(&PROPOSAL_ID)),
        ("AcceptedVal", Type::Struct(&ACCEPTED_VALUE)),
    ],
};
static PROPOSAL_ID: StructType = StructType {
    name: "ProposalID",
    fields: &[("Round", Type::Uint), ("Proposer", Type::Struct(&NODE_ID))],
};
static ACCEPTED_VALUE: StructType = StructType {
    name: "AcceptedValue",
    fields: &[
        ("Value", Type::Slice(&VALUE)),
        ("Origin", Type::Struct(&PROPOSAL_ID)),
    ],
};
static VALUE: SliceType = SliceType {
    name: "Value",
    elem: Type::Uint,
};
static RING: StructType = StructType {
    name: "Ring",
    fields: &[
        ("Start", Type::Uint),
        ("End", Type::Uint),
        ("Peer", Type::Uint),
        ("Entries", Type::Slice(&ENTRIES)),
        ("Seeds", Type::Slice(&SEEDS)),
    ],
};
static ENTRIES: SliceType = SliceType {
    name: "entries",
    elem: Type::Struct(&ENTRY),
};
static ENTRY: StructType = StructType {
    name: "",
    fields: &[
        ("Token", Type::Uint),
        ("Peer", Type::Uint),
        ("Version", Type::Uint),
        ("Free", Type::Uint),
    ],
};
static SEEDS: SliceType = SliceType {
    name: "[]mesh.PeerName",
    elem: Type::Uint,
};
