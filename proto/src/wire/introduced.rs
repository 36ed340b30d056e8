//! What an end brings to an introduction, and what it led to.

use std::sync::Arc;

use crate::crypto::SessionKey;
use crate::features::Features;

/// Lowest version of the protocol that is spoken here.
pub const VERSION_MIN: u8 = 1;
/// Highest version of the protocol that is spoken here.
pub const VERSION_MAX: u8 = 2;

/// What one end brings to a connection.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// Lowest version to accept.
    pub min_version: u8,
    /// Highest version to accept.
    pub max_version: u8,
    /// The password, if messages are to be encrypted. An empty one encrypts too.
    pub password: Option<Arc<[u8]>>,
    /// Our features for this connection.
    pub features: Features,
    /// What is said as it was recorded; nothing, unless a recording is played again.
    pub recorded: Recorded,
}

/// What of a recorded introduction would come out otherwise in another run: the features with
/// their order and type ids, and a session key where neither private key is known.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The stream of our features.
    pub features: Option<Vec<u8>>,
    /// The key of the connection.
    pub session_key: Option<SessionKey>,
}

impl WireConfig {
    /// All versions that are spoken here.
    pub fn new(features: Features, password: Option<Arc<[u8]>>) -> WireConfig {
        WireConfig {
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            password,
            features,
            recorded: Recorded::default(),
        }
    }
}

/// How an introduction ended.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// The features of the other end; with version 1 only those that it has.
    pub remote: Features,
    /// The version of the protocol that is used.
    pub version: u8,
    /// The key of the connection, if it is encrypted.
    pub session_key: Option<SessionKey>,
    /// A digest of everything that both ends sent up to here, the same at both unless something
    /// was changed on the way.
    pub transcript: [u8; 32],
}
