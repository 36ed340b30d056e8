//! Topology updates on the wire: for each peer its summary, then the list of its connections.
//!
//! ```text
//! peerSummary{NameByte, NickName, UID, Version, ShortID, HasShortID}
//! []connectionSummary{NameByte, RemoteTCPAddr, Outbound, Established}
//! peerSummary ...                  (repeated until the end of the payload)
//! ```

use std::borrow::Cow;
use std::fmt;

use super::address::Address;
use super::limits::{ADDRESS_BYTES_MAX, CONNECTIONS_PER_PEER_MAX, NICKNAME_BYTES_MAX};
use crate::gob::{Decoder, Encoder, Error, SliceType, StructType, Type, Value};
use crate::types::{PeerName, PeerUid, ShortId};

/// A peer as the mesh knows it.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
#[derive(Clone, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Its nickname, as received: Go does not check that texts are UTF-8.
    pub nickname: Box<[u8]>,
    /// The UID of the peer's start that this entry describes; 0 for a placeholder.
    pub uid: PeerUid,
    /// The peer's count of its own changes; a higher one is newer.
    pub version: u64,
    /// Its claim on a short id.
    pub short_id: Option<ShortId>,
    /// All its connections, established or not.
    pub connections: Vec<Connection>,
}

/// A connection, as described by the peer at one of its ends.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
#[derive(Clone, PartialEq, Eq)]
pub struct Connection {
    /// The peer at the other end.
    pub remote: PeerName,
    /// The address of the other end, as seen from this end.
    pub address: Address,
    /// Whether this end dialled.
    pub outbound: bool,
    /// Whether an overlay carries frames over it.
    pub established: bool,
}

impl Peer {
    /// Returns true if this peer is known only as the remote end of a connection.
    pub fn is_placeholder(&self) -> bool {
        self.uid == PeerUid(0)
    }

    /// Returns the nickname as a text.
    pub fn nickname(&self) -> Cow<'_, str> {
        String::from_utf8_lossy(&self.nickname)
    }

    /// Returns the connection of the peer to `remote`. Applies only to lists in order of names, as
    /// a `Topology` keeps them.
    pub fn connection(&self, remote: PeerName) -> Option<&Connection> {
        let index = self.position(remote).ok()?;
        self.connections.get(index)
    }

    /// Returns the position of the connection to `remote`, or where it would be inserted.
    pub(super) fn position(&self, remote: PeerName) -> Result<usize, usize> {
        self.connections
            .binary_search_by_key(&remote, |connection| connection.remote)
    }

    /// Returns the fields that decide which of two entries is newer.
    pub(super) fn header(&self) -> Header {
        Header {
            name: self.name,
            uid: self.uid,
            version: self.version,
            has_short_id: self.short_id.is_some(),
        }
    }

    /// Returns the memory that depends on what the peer says about itself, in bytes.
    pub(super) fn extra_bytes(&self) -> usize {
        let texts: usize = self
            .connections
            .iter()
            .map(|connection| connection.address.extra_bytes())
            .sum();
        self.nickname.len() + texts + self.connections.len() * size_of::<Connection>()
    }

    /// Sorts connections by name. Of several to one peer, keeps the last one.
    pub(super) fn sort_connections(&mut self) {
        self.connections.sort_by_key(|connection| connection.remote);
        self.connections.dedup_by(|later, earlier| {
            let same = later.remote == earlier.remote;
            if same {
                std::mem::swap(later, earlier);
            }
            same
        });
    }
}

/// `NAME(NICKNAME)`.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}({})", self.name, self.nickname())
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let short_id = self.short_id.map(ShortId::get);
        let (uid, version) = (self.uid.0, self.version);
        write!(
            f,
            "{self} uid {uid} version {version} short id {short_id:?} "
        )?;
        f.debug_list().entries(&self.connections).finish()
    }
}

impl fmt::Debug for Connection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let arrow = if self.outbound { "->" } else { "<-" };
        let state = if self.established {
            "established"
        } else {
            "pending"
        };
        write!(f, "{arrow} {} {} {state}", self.remote, self.address)
    }
}

/// The fields that decide which of two entries of a peer is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) name: PeerName,
    pub(super) uid: PeerUid,
    pub(super) version: u64,
    pub(super) has_short_id: bool,
}

impl Header {
    /// Returns true if this entry replaces the `known` one.
    ///
    /// Rule: `docs/protocol/mesh.md#6-3-merge`.
    pub(super) fn is_newer_than(&self, known: &Header) -> bool {
        (self.version, self.uid) > (known.version, known.uid)
            || (self.version, self.uid) == (known.version, known.uid)
                && self.has_short_id
                && !known.has_short_id
    }
}

/// Reads the peers of an update one by one.
///
/// `wanted` is called for each peer; if it returns false, the peer's connections are not decoded.
/// `each` receives wanted peers with their connections in the order of the update, or `None` if
/// they exceed a limit. Peers and connections with the all-zero name are left out: Weave Net
/// routers pass on what a misbehaving member invented.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
pub(super) fn decode(
    update: &[u8],
    mut wanted: impl FnMut(&Header) -> bool,
    mut each: impl FnMut(Option<Peer>),
) -> Result<(), Error> {
    let mut decoder = Decoder::new(update);
    while let Some(value) = decoder.next_value()? {
        let summary = PeerSummary::read(value)?;
        let list = decoder.value()?;
        let header = summary.header();
        if header.name == PeerName::UNKNOWN || !wanted(&header) {
            list.discard()?;
            continue;
        }
        let mut fits = summary.nickname.len() <= NICKNAME_BYTES_MAX;
        let mut connections = Vec::new();
        list.slice(|value| {
            let summary = ConnectionSummary::read(value)?;
            fits = fits
                && summary.address.len() <= ADDRESS_BYTES_MAX
                && connections.len() < CONNECTIONS_PER_PEER_MAX;
            if fits && summary.name != PeerName::UNKNOWN {
                connections.push(summary.into_connection());
            }
            Ok(())
        })?;
        each(fits.then(|| summary.into_peer(connections)));
    }
    Ok(())
}

/// Decodes all peers of an update with their connections, in its order. Leaves out what exceeds a
/// limit or has no name.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
pub fn decode_update(update: &[u8]) -> Result<Vec<Peer>, Error> {
    let mut peers = Vec::new();
    decode(update, |_| true, |peer| peers.extend(peer))?;
    Ok(peers)
}

/// Encodes an update with the entries of `peers`.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
pub fn encode_update<'p>(peers: impl IntoIterator<Item = &'p Peer>) -> Vec<u8> {
    encode_update_with(Encoder::new(), peers)
}

/// Encodes an update with `encoder`, which may have the type ids of a recorded one.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
pub fn encode_update_with<'p>(
    mut encoder: Encoder,
    peers: impl IntoIterator<Item = &'p Peer>,
) -> Vec<u8> {
    for peer in peers {
        write_peer(&mut encoder, peer);
    }
    encoder.finish()
}

const PEER_FIELDS: [&str; 6] = [
    "NameByte",
    "NickName",
    "UID",
    "Version",
    "ShortID",
    "HasShortID",
];

static PEER_SUMMARY: StructType = StructType {
    name: "peerSummary",
    fields: &[
        (PEER_FIELDS[0], Type::Bytes),
        (PEER_FIELDS[1], Type::String),
        (PEER_FIELDS[2], Type::Uint),
        (PEER_FIELDS[3], Type::Uint),
        (PEER_FIELDS[4], Type::Uint),
        (PEER_FIELDS[5], Type::Bool),
    ],
};

const CONNECTION_FIELDS: [&str; 4] = ["NameByte", "RemoteTCPAddr", "Outbound", "Established"];

static CONNECTION_SUMMARY: StructType = StructType {
    name: "connectionSummary",
    fields: &[
        (CONNECTION_FIELDS[0], Type::Bytes),
        (CONNECTION_FIELDS[1], Type::String),
        (CONNECTION_FIELDS[2], Type::Bool),
        (CONNECTION_FIELDS[3], Type::Bool),
    ],
};

static CONNECTION_SUMMARIES: SliceType = SliceType {
    name: "",
    elem: Type::Struct(&CONNECTION_SUMMARY),
};

/// Writes the two values of one peer.
///
/// Format: `docs/protocol/mesh.md#6-1-payload`.
pub(super) fn write_peer(encoder: &mut Encoder, peer: &Peer) {
    encoder.value(Type::Struct(&PEER_SUMMARY), |w| {
        w.structure(|s| {
            s.bytes(0, peer.name.as_bytes());
            s.string(1, &peer.nickname);
            s.uint(2, peer.uid.0);
            s.uint(3, peer.version);
            s.uint(4, peer.short_id.map_or(0, |id| u64::from(id.get())));
            s.bool(5, peer.short_id.is_some());
        });
    });
    encoder.value(Type::Slice(&CONNECTION_SUMMARIES), |w| {
        w.slice(peer.connections.iter(), |w, connection| {
            w.structure(|s| {
                s.bytes(0, connection.remote.as_bytes());
                connection.address.with_text(|text| s.string(1, text));
                s.bool(2, connection.outbound);
                s.bool(3, connection.established);
            });
        });
    });
}

#[derive(Default)]
struct PeerSummary<'a> {
    name: PeerName,
    nickname: &'a [u8],
    uid: u64,
    version: u64,
    short_id: u16,
    has_short_id: bool,
}

impl<'a> PeerSummary<'a> {
    fn read(value: Value<'_, 'a>) -> Result<PeerSummary<'a>, Error> {
        let mut out = PeerSummary::default();
        value.structure(&PEER_FIELDS, |field, value| {
            match field {
                0 => out.name = read_name(value)?,
                1 => out.nickname = value.string()?,
                2 => out.uid = value.uint()?,
                3 => out.version = value.uint()?,
                4 => out.short_id = value.uint16()?,
                _ => out.has_short_id = value.bool()?,
            }
            Ok(())
        })?;
        Ok(out)
    }

    /// Returns the short id. Numbers out of range count as none, so that they are never passed on.
    fn short_id(&self) -> Option<ShortId> {
        ShortId::new(self.short_id).filter(|_| self.has_short_id)
    }

    fn header(&self) -> Header {
        Header {
            name: self.name,
            uid: PeerUid(self.uid),
            version: self.version,
            has_short_id: self.short_id().is_some(),
        }
    }

    fn into_peer(self, connections: Vec<Connection>) -> Peer {
        Peer {
            name: self.name,
            nickname: self.nickname.into(),
            uid: PeerUid(self.uid),
            version: self.version,
            short_id: self.short_id(),
            connections,
        }
    }
}

#[derive(Default)]
struct ConnectionSummary<'a> {
    name: PeerName,
    address: &'a [u8],
    outbound: bool,
    established: bool,
}

impl<'a> ConnectionSummary<'a> {
    fn read(value: Value<'_, 'a>) -> Result<ConnectionSummary<'a>, Error> {
        let mut out = ConnectionSummary::default();
        value.structure(&CONNECTION_FIELDS, |field, value| {
            match field {
                0 => out.name = read_name(value)?,
                1 => out.address = value.string()?,
                2 => out.outbound = value.bool()?,
                _ => out.established = value.bool()?,
            }
            Ok(())
        })?;
        Ok(out)
    }

    fn into_connection(self) -> Connection {
        Connection {
            remote: self.name,
            address: Address::from_text(self.address),
            outbound: self.outbound,
            established: self.established,
        }
    }
}

fn read_name(value: Value<'_, '_>) -> Result<PeerName, Error> {
    let bytes = value.bytes()?;
    let name = <[u8; 6]>::try_from(bytes).map_err(|_| Error::Invalid("length of a peer name"))?;
    Ok(PeerName::from_bytes(name))
}
