//! Importing addresses and peers from Weave Net's data base.

use std::collections::BTreeMap;

use proto::gob::{Decoder, Encoder, Error, MapType, SliceType, StructType, Type, Value};
use proto::types::PeerName;

use crate::bolt::{self, BoltError};
use crate::messages::decode_ring;
use crate::range::{Address, Cidr};
use crate::ring::{Ring, RingError};

/// The part of Weave Net's data base that is imported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeaveState {
    /// The name of the router. Ours must be the same, or its ranges are not ours.
    pub name: Option<PeerName>,
    /// Its ring; `None` if it had none yet.
    pub ring: Option<Ring>,
    /// The addresses that it had given out, by container.
    pub owned: BTreeMap<String, OwnedAddresses>,
    /// The peers that it was told to connect to.
    pub targets: Vec<String>,
}

/// The addresses of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedAddresses {
    /// Whether the id is that of a container, whose end can be detected.
    pub is_container: bool,
    /// The addresses, each with the prefix length of its subnet.
    pub cidrs: Vec<Cidr>,
}

/// Why a data base could not be imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The file is damaged or not a database.
    #[error(transparent)]
    File(#[from] BoltError),
    /// The database is of another major version.
    #[error("database version {0} is not supported")]
    Version(u8),
    /// A value cannot be read.
    #[error("bad value of {key}: {error}")]
    Value {
        /// Its key.
        key: &'static str,
        /// What is wrong.
        error: Error,
    },
    /// The ring breaks its rules.
    #[error("bad ring: {0}")]
    Ring(#[from] RingError),
}

impl WeaveState {
    /// Reads a data base of Weave Net from the content of its file.
    ///
    /// Format: `docs/protocol/ipam.md#10-1-keys`.
    pub fn from_file(file: &[u8]) -> Result<WeaveState, ImportError> {
        let top = bolt::read_bucket(file, b"top")?;
        if let Some([major, ..]) = top.get(&b"version"[..])
            && *major != 1
        {
            return Err(ImportError::Version(*major));
        }
        let mut out = WeaveState::default();
        if let Some(name) = top.get(&b"peername"[..]) {
            out.name = Some(decode_name(name).map_err(bad("peername"))?);
        }
        if let Some(stream) = top.get(&b"ring"[..]) {
            // The peer inside may be wrong or missing in old files, so it is ignored.
            let (_, ring) = decode_ring(stream).map_err(bad("ring"))?;
            ring.check()?;
            out.ring = (!ring.is_empty()).then_some(ring);
        }
        if let Some(stream) = top.get(&b"ownedAddresses"[..]) {
            out.owned = decode_owned(stream).map_err(bad("ownedAddresses"))?;
        }
        if let Some(stream) = top.get(&b"directPeers"[..]) {
            out.targets = decode_targets(stream).map_err(bad("directPeers"))?;
        }
        Ok(out)
    }
}

fn bad(key: &'static str) -> impl Fn(Error) -> ImportError {
    move |error| ImportError::Value { key, error }
}

/// Decodes a stored peer name.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn decode_name(stream: &[u8]) -> Result<PeerName, Error> {
    let number = Decoder::new(stream).value()?.uint()?;
    PeerName::from_u64(number).ok_or(Error::Invalid("peer name"))
}

/// Decodes the stored table of addresses by container.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn decode_owned(stream: &[u8]) -> Result<BTreeMap<String, OwnedAddresses>, Error> {
    let mut out = BTreeMap::new();
    Decoder::new(stream).value()?.map(
        |id| id.text(),
        |id, value| {
            out.insert(id, read_owned(value)?);
            Ok(())
        },
    )?;
    Ok(out)
}

fn read_owned(value: Value<'_, '_>) -> Result<OwnedAddresses, Error> {
    let mut out = OwnedAddresses::default();
    value.structure(&["IsContainer", "Cidrs"], |field, value| {
        match field {
            0 => out.is_container = value.bool()?,
            _ => {
                value.slice(|cidr| {
                    out.cidrs.push(read_cidr(cidr)?);
                    Ok(())
                })?;
            }
        }
        Ok(())
    })?;
    Ok(out)
}

fn read_cidr(value: Value<'_, '_>) -> Result<Cidr, Error> {
    let (mut address, mut len) = (Address::default(), 0);
    value.structure(&["Addr", "PrefixLen"], |field, value| {
        match field {
            0 => address = Address::new(value.uint32()?),
            _ => {
                let number = value.int()?;
                let valid = u8::try_from(number).ok().filter(|len| *len <= 32);
                len = valid.ok_or(Error::Invalid("prefix length"))?;
            }
        }
        Ok(())
    })?;
    Ok(Cidr { address, len })
}

/// Decodes the stored list of peers to connect to.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn decode_targets(stream: &[u8]) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    Decoder::new(stream).value()?.slice(|target| {
        out.push(target.text()?);
        Ok(())
    })?;
    Ok(out)
}

/// Encodes a peer name as Weave Net stores it.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn encode_name(mut encoder: Encoder, name: PeerName) -> Vec<u8> {
    encoder.value(Type::Uint, |w| w.uint(name.as_u64()));
    encoder.finish()
}

/// Encodes a table of addresses as Weave Net stores it.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn encode_owned(mut encoder: Encoder, owned: &BTreeMap<String, OwnedAddresses>) -> Vec<u8> {
    encoder.value(Type::Map(&OWNED), |w| {
        w.map(owned.iter(), |w, (id, addresses)| {
            w.bytes(id.as_bytes());
            w.structure(|s| {
                s.bool(0, addresses.is_container);
                s.slice(1, addresses.cidrs.iter(), |w, cidr| {
                    w.structure(|s| {
                        s.uint(0, cidr.address.get().into());
                        s.int(1, cidr.len.into());
                    });
                });
            });
        });
    });
    encoder.finish()
}

/// Encodes a list of peers as Weave Net stores it.
///
/// Format: `docs/protocol/ipam.md#10-1-keys`.
pub fn encode_targets(mut encoder: Encoder, targets: &[String]) -> Vec<u8> {
    encoder.value(Type::Slice(&STRINGS), |w| {
        w.slice(targets.iter(), |w, target| w.bytes(target.as_bytes()));
    });
    encoder.finish()
}

static OWNED: MapType = MapType {
    name: "",
    key: Type::String,
    elem: Type::Struct(&OWNED_DATA),
};
static OWNED_DATA: StructType = StructType {
    name: "",
    fields: &[("IsContainer", Type::Bool), ("Cidrs", Type::Slice(&CIDRS))],
};
static CIDRS: SliceType = SliceType {
    name: "[]address.CIDR",
    elem: Type::Struct(&CIDR),
};
static CIDR: StructType = StructType {
    name: "CIDR",
    fields: &[("Addr", Type::Uint), ("PrefixLen", Type::Int)],
};
static STRINGS: SliceType = SliceType {
    name: "",
    elem: Type::String,
};
