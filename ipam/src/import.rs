//! Taking over from the original router: what its database says of addresses and peers.

use std::collections::BTreeMap;

use proto::gob::{Decoder, Encoder, Error, MapType, SliceType, StructType, Type, Value};
use proto::types::PeerName;

use crate::bolt::{self, BoltError};
use crate::messages::decode_ring;
use crate::range::{Address, Cidr};
use crate::ring::{Ring, RingError};

/// What the database of the original router holds that is worth keeping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WeaveState {
    /// The name the router had; ours must be the same, or its ranges are not ours.
    pub name: Option<PeerName>,
    /// Its ring; `None` if it had none yet.
    pub ring: Option<Ring>,
    /// The addresses it had given out, by container.
    pub owned: BTreeMap<String, OwnedAddresses>,
    /// The peers it was told to connect to.
    pub targets: Vec<String>,
}

/// The addresses of one container.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OwnedAddresses {
    /// Whether the id is that of a container, whose end can be noticed.
    pub is_container: bool,
    /// The addresses, each with the prefix length of its subnet.
    pub cidrs: Vec<Cidr>,
}

/// Why a database could not be imported.
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
    /// Reads the database file of the original router, given whole.
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
            // The peer inside may be wrong or missing in old files, so it is not looked at.
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

/// Reads a stored peer name.
pub fn decode_name(stream: &[u8]) -> Result<PeerName, Error> {
    let number = Decoder::new(stream).value()?.uint()?;
    PeerName::from_u64(number).ok_or(Error::Invalid("peer name"))
}

/// Reads the stored table of addresses by container.
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

/// Reads the stored list of peers to connect to.
pub fn decode_targets(stream: &[u8]) -> Result<Vec<String>, Error> {
    let mut out = Vec::new();
    Decoder::new(stream).value()?.slice(|target| {
        out.push(target.text()?);
        Ok(())
    })?;
    Ok(out)
}

/// Writes a peer name as the original stores it.
pub fn encode_name(mut encoder: Encoder, name: PeerName) -> Vec<u8> {
    encoder.value(Type::Uint, |w| w.uint(name.as_u64()));
    encoder.finish()
}

/// Writes a table of addresses as the original stores it.
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

/// Writes a list of peers as the original stores it.
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
