//! The features by which both ends of a connection introduce themselves.
//!
//! On the wire they are a gob map from string to string, which [`Features`] represents. Unknown
//! keys are kept in [`Features::extra`]; other routers ignore keys that they do not know.

use std::collections::BTreeMap;

use crate::gob;
use crate::identity::{InvalidPeerName, parse_peer_name};
use crate::types::{ConnUid, PeerName, PeerUid, ShortId};

/// The features of one end of a connection.
///
/// Format: `docs/protocol/mesh.md#3-4-features`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Features {
    /// The name of the peer.
    pub name: PeerName,
    /// The nickname of the peer, for people.
    pub nickname: String,
    /// The UID of the peer, new at each start. Never 0.
    pub uid: PeerUid,
    /// A random number that this end chose for this connection.
    pub conn_id: u64,
    /// The peer's short id, if it has one.
    pub short_id: Option<ShortId>,
    /// Whether this end trusts the subnet in which it sees the other.
    pub trusted: bool,
    /// The offered overlays, in order of preference; `None` for a peer that only knows sleeve and
    /// controls it in legacy mode.
    pub overlays: Option<Vec<String>>,
    /// All other features, by key. Keys of the fields above are ignored here.
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
    /// To confirm the introduction under the key of the connection before anything else.
    Confirm,
    /// To answer whether the other end of a connection is there.
    Ask,
    /// To tell whether frames come over sleeve.
    Sleeve,
}

impl Ability {
    /// All of them.
    pub const ALL: [Ability; 5] = [
        Ability::Quiet,
        Ability::Digests,
        Ability::Confirm,
        Ability::Ask,
        Ability::Sleeve,
    ];

    const fn name(self) -> &'static str {
        match self {
            Ability::Quiet => "quiet1",
            Ability::Digests => "topo1",
            Ability::Confirm => "confirm",
            Ability::Ask => "ask",
            Ability::Sleeve => "sleeve",
        }
    }
}

/// Why features were refused. The sender is always responsible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FeaturesError {
    /// Not a gob map from string to string.
    #[error("no feature map: {0}")]
    Gob(#[from] gob::Error),
    /// A required key is missing.
    #[error("feature {0} is missing")]
    Missing(&'static str),
    /// The peer uses another form of peer names.
    #[error("peer name flavour mismatch (ours: 'mac', theirs: {0:?})")]
    Flavour(String),
    /// The name is not a peer name.
    #[error(transparent)]
    Name(#[from] InvalidPeerName),
    /// The name or the UID is zero, which means "no peer".
    #[error("feature {0} must not be zero")]
    Zero(&'static str),
    /// The value is not a decimal number in range.
    #[error("feature {key} is {value:?}, which is no number in range")]
    Number {
        /// The key.
        key: &'static str,
        /// The beginning of its value.
        value: String,
    },
    /// The value is neither true nor false.
    #[error("feature Trusted is {0:?}, which is neither true nor false")]
    Trusted(String),
}

impl Features {
    /// Reads features from a stream that consists of one feature map.
    ///
    /// Format: `docs/protocol/mesh.md#3-4-features`.
    pub fn decode(stream: &[u8]) -> Result<Features, FeaturesError> {
        Features::from_map(decode_map(stream)?)
    }

    /// Encodes these features as protocol 2 sends them.
    ///
    /// Format: `docs/protocol/mesh.md#3-4-features`.
    pub fn encode(&self) -> Vec<u8> {
        encode_map(&self.to_map())
    }

    /// Interprets a feature map. The error is the first one in Weave Net's order of checks.
    ///
    /// Rule: `docs/protocol/mesh.md#3-4-features`.
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

    /// Returns true if this end says that it can do something beyond what all routers can.
    pub fn can(&self, ability: Ability) -> bool {
        let list = self.extra.get(ABILITIES);
        list.is_some_and(|list| list.split(' ').any(|name| name == ability.name()))
    }

    /// Says that this end can do these.
    pub fn add_abilities(&mut self, abilities: &[Ability]) {
        let names: Vec<&str> = abilities.iter().map(|ability| ability.name()).collect();
        self.extra.insert(ABILITIES.to_owned(), names.join(" "));
    }

    /// Returns the features as the map that is sent.
    ///
    /// Format: `docs/protocol/mesh.md#3-4-features`.
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

    /// Returns the UID of the connection between the ends with these features; both ends compute
    /// the same.
    ///
    /// Rule: `docs/protocol/mesh.md#3-5-connection-uid`.
    pub const fn conn_uid(&self, other: &Features) -> ConnUid {
        ConnUid(self.conn_id ^ other.conn_id)
    }
}

/// Reads a stream that consists of one map from string to string.
///
/// Format: `docs/protocol/gob.md#5-types`.
pub(crate) fn decode_map(stream: &[u8]) -> Result<BTreeMap<String, String>, FeaturesError> {
    let mut decoder = gob::Decoder::new(stream);
    let map = read_map(decoder.value()?)?;
    if decoder.next_value()?.is_some() {
        return Err(gob::Error::Invalid("features: a second value after them").into());
    }
    Ok(map)
}

/// Reads a gob map from string to string. If a key occurs twice, the last value counts.
///
/// Format: `docs/protocol/gob.md#5-types`.
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

/// Encodes a map from string to string.
///
/// Format: `docs/protocol/gob.md#5-types`.
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

/// Feature keys of protocol 1.
///
/// Rule: `docs/protocol/mesh.md#3-3-version-1`.
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

/// Accepts digits only: Rust would also accept a plus sign, Go does not.
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

/// Accepts the spellings that Go accepts.
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
/// Protocol 1 with a password only: the sender's public key in hex.
pub(crate) const PUBLIC_KEY: &str = "PublicKey";

const VERSION_1_KEYS: [&str; 5] = [CONN_ID, NAME, NICKNAME, FLAVOUR, UID];

/// Maximum number of characters of an invalid value that an error message repeats.
const QUOTE_CHARS_MAX: usize = 64;

static STRINGS: gob::MapType = gob::MapType {
    name: "",
    key: gob::Type::String,
    elem: gob::Type::String,
};

#[cfg(test)]
pub(crate) mod tests;
