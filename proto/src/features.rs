//! The features by which both ends of a connection introduce themselves.
//!
//! On the wire they are a gob map from string to string. [`Features`] is its meaning; keys that
//! are unknown here are kept in [`Features::extra`], and such keys of ours are ignored by others.

use std::collections::BTreeMap;

use crate::gob;
use crate::identity::{InvalidPeerName, parse_peer_name};
use crate::types::{ConnUid, PeerName, PeerUid, ShortId};

/// What one end of a connection says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The name of the peer.
    pub name: PeerName,
    /// The nickname of the peer, for people.
    pub nickname: String,
    /// Which start of the peer this is. Never 0.
    pub uid: PeerUid,
    /// A random number that this end drew for this connection.
    pub conn_id: u64,
    /// The peer's short id, if it has one.
    pub short_id: Option<ShortId>,
    /// Whether this end trusts the subnet in which it sees the other.
    pub trusted: bool,
    /// The overlays on offer, in order of preference; `None` for a peer that knows sleeve only
    /// and controls it the old way.
    pub overlays: Option<Vec<String>>,
    /// Any other features, by key. A key of the fields above is ignored here.
    pub extra: BTreeMap<String, String>,
}

/// Something that routers do with each other only if both say that they can. Protocol 1 carries
/// no word of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ability {
    /// To say nothing over sleeve while the native overlay does well.
    Quiet,
    /// To compare digests of the topology in place of telling all of it.
    Digests,
}

impl Ability {
    /// All of them.
    pub const ALL: [Ability; 2] = [Ability::Quiet, Ability::Digests];

    const fn name(self) -> &'static str {
        match self {
            Ability::Quiet => "quiet1",
            Ability::Digests => "topo1",
        }
    }
}

/// Why features were refused. The sender's fault, always.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    /// They are no gob map from string to string.
    #[error("no feature map: {0}")]
    Gob(#[from] gob::Error),
    /// A key that everybody must send.
    #[error("feature {0} is missing")]
    Missing(&'static str),
    /// The peer names its peers in another way.
    #[error("peer name flavour mismatch (ours: 'mac', theirs: {0:?})")]
    Flavour(String),
    /// The name is none.
    #[error(transparent)]
    Name(#[from] InvalidPeerName),
    /// The name or the UID is zero, which stands for "no peer".
    #[error("feature {0} must not be zero")]
    Zero(&'static str),
    /// Something else than a decimal number that fits.
    #[error("feature {key} is {value:?}, which is no number in range")]
    Number {
        /// The key.
        key: &'static str,
        /// The beginning of what came with it.
        value: String,
    },
    /// Something else than true or false.
    #[error("feature Trusted is {0:?}, which is neither true nor false")]
    Trusted(String),
}

impl Features {
    /// Reads a stream that holds a feature map and nothing else.
    pub fn decode(stream: &[u8]) -> Result<Features, FeaturesError> {
        Features::from_map(decode_map(stream)?)
    }

    /// The stream of these features, as protocol 2 sends it.
    pub fn encode(&self) -> Vec<u8> {
        encode_map(&self.to_map())
    }

    /// Takes the meaning out of a map. What is wrong first, in the original's order of checks,
    /// is the error.
    pub fn from_map(mut map: BTreeMap<String, String>) -> Result<Features, FeaturesError> {
        let mut required = |key| map.remove(key).ok_or(FeaturesError::Missing(key));
        let flavour = required(FLAVOUR)?;
        let name = required(NAME)?;
        let nickname = required(NICKNAME)?;
        let uid = required(UID)?;
        let conn_id = required(CONN_ID)?;

        if flavour != FLAVOUR_MAC {
            return Err(FeaturesError::Flavour(quote(&flavour)));
        }
        let name = parse_peer_name(&name)?;
        if name == PeerName::UNKNOWN {
            return Err(FeaturesError::Zero(NAME));
        }
        let short_id = match map.remove(SHORT_ID) {
            Some(text) => Some(parse_short_id(&text)?),
            None => None,
        };
        let trusted = match map.remove(TRUSTED) {
            Some(text) => parse_bool(&text)?,
            None => false,
        };
        let uid = PeerUid(parse_number(UID, &uid)?);
        if uid == PeerUid(0) {
            return Err(FeaturesError::Zero(UID));
        }
        Ok(Features {
            name,
            nickname,
            uid,
            conn_id: parse_number(CONN_ID, &conn_id)?,
            short_id,
            trusted,
            overlays: map.remove(OVERLAYS).map(|text| split_overlays(&text)),
            extra: map,
        })
    }

    /// Whether this end says that it can do something beyond what all routers can.
    pub fn can(&self, ability: Ability) -> bool {
        let list = self.extra.get(ABILITIES);
        list.is_some_and(|list| list.split(' ').any(|name| name == ability.name()))
    }

    /// Says that this end can do these.
    pub fn add_abilities(&mut self, abilities: &[Ability]) {
        let names: Vec<&str> = abilities.iter().map(|ability| ability.name()).collect();
        self.extra.insert(ABILITIES.to_owned(), names.join(" "));
    }

    /// The features as they are sent.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        let mut map = self.extra.clone();
        map.remove(SHORT_ID);
        map.remove(OVERLAYS);
        let mut set = |key: &str, value: String| map.insert(key.to_owned(), value);
        set(FLAVOUR, FLAVOUR_MAC.to_owned());
        set(NAME, self.name.to_string());
        set(NICKNAME, self.nickname.clone());
        set(UID, self.uid.0.to_string());
        set(CONN_ID, self.conn_id.to_string());
        set(TRUSTED, self.trusted.to_string());
        if let Some(short_id) = self.short_id {
            set(SHORT_ID, short_id.get().to_string());
        }
        if let Some(overlays) = &self.overlays {
            set(OVERLAYS, overlays.join(" "));
        }
        map
    }

    /// The number of the connection between the ends with these features; the same at both.
    pub const fn conn_uid(&self, other: &Features) -> ConnUid {
        ConnUid(self.conn_id ^ other.conn_id)
    }
}

/// Reads a stream that holds a map from string to string and nothing else.
pub(crate) fn decode_map(stream: &[u8]) -> Result<BTreeMap<String, String>, FeaturesError> {
    let mut decoder = gob::Decoder::new(stream);
    let map = read_map(decoder.value()?)?;
    if decoder.next_value()?.is_some() {
        return Err(gob::Error::Invalid("features: a second value after them").into());
    }
    Ok(map)
}

/// Reads a gob map from string to string. Of a key that comes twice, the last value counts.
pub(crate) fn read_map(value: gob::Value<'_, '_>) -> Result<BTreeMap<String, String>, gob::Error> {
    let mut map = BTreeMap::new();
    value.map(
        |key| key.text(),
        |key, value| {
            map.insert(key, value.text()?);
            Ok(())
        },
    )?;
    Ok(map)
}

/// The stream of a map from string to string.
pub(crate) fn encode_map(map: &BTreeMap<String, String>) -> Vec<u8> {
    let mut encoder = gob::Encoder::new();
    encoder.value(gob::Type::Map(&STRINGS), |w| {
        w.map(map.iter(), |w, (key, value)| {
            w.bytes(key.as_bytes());
            w.bytes(value.as_bytes());
        });
    });
    encoder.finish()
}

/// What of a map protocol 1 sends in the clear, and heeds when it is received.
pub(crate) fn version_1_subset(mut map: BTreeMap<String, String>) -> BTreeMap<String, String> {
    map.retain(|key, _| VERSION_1_KEYS.contains(&key.as_str()));
    map
}

fn parse_short_id(text: &str) -> Result<ShortId, FeaturesError> {
    u16::try_from(parse_number(SHORT_ID, text)?)
        .ok()
        .and_then(ShortId::new)
        .ok_or_else(|| number_error(SHORT_ID, text))
}

/// Digits only: Rust would take a plus sign, Go does not.
fn parse_number(key: &'static str, text: &str) -> Result<u64, FeaturesError> {
    Some(text)
        .filter(|text| text.bytes().all(|b| b.is_ascii_digit()))
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| number_error(key, text))
}

fn number_error(key: &'static str, text: &str) -> FeaturesError {
    FeaturesError::Number {
        key,
        value: quote(text),
    }
}

/// The spellings that Go takes.
fn parse_bool(text: &str) -> Result<bool, FeaturesError> {
    match text {
        "1" | "t" | "T" | "TRUE" | "true" | "True" => Ok(true),
        "0" | "f" | "F" | "FALSE" | "false" | "False" => Ok(false),
        _ => Err(FeaturesError::Trusted(quote(text))),
    }
}

fn split_overlays(text: &str) -> Vec<String> {
    text.split(' ')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

fn quote(text: &str) -> String {
    text.chars().take(QUOTE_CHARS_MAX).collect()
}

const FLAVOUR: &str = "PeerNameFlavour";
const FLAVOUR_MAC: &str = "mac";
const NAME: &str = "Name";
const NICKNAME: &str = "NickName";
const UID: &str = "UID";
const CONN_ID: &str = "ConnID";
const SHORT_ID: &str = "ShortID";
const TRUSTED: &str = "Trusted";
const OVERLAYS: &str = "Overlays";
const ABILITIES: &str = "Weft";
/// Only in protocol 1, and only beside a password: the sender's public key in hex.
pub(crate) const PUBLIC_KEY: &str = "PublicKey";

const VERSION_1_KEYS: [&str; 5] = [CONN_ID, NAME, NICKNAME, FLAVOUR, UID];

/// How much of a bad value an error repeats, in characters; the rest is left out.
const QUOTE_CHARS_MAX: usize = 64;

static STRINGS: gob::MapType = gob::MapType {
    name: "",
    key: gob::Type::String,
    elem: gob::Type::String,
};

#[cfg(test)]
pub(crate) mod tests;
