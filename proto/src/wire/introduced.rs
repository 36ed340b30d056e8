//! What an end brings to an introduction, and what it led to.

use std::sync::Arc;

use crate::crypto::SessionKey;
use crate::features::Features;

/// Lowest supported version of the protocol.
pub const VERSION_MIN: u8 = 1;
/// Highest supported version of the protocol.
pub const VERSION_MAX: u8 = 2;

/// Returns the lowest version to accept unless a user says otherwise. With a password it is 2:
/// protocol 1 introduces both ends in the clear, so that whoever stands in between can change what
/// they say.
pub const fn version_min(has_password: bool) -> u8 {
    if has_password { 2 } else { VERSION_MIN }
}

/// Configuration of one end of a connection.
#[derive(Clone, Debug)]
pub struct WireConfig {
    /// Lowest version to accept.
    pub min_version: u8,
    /// Highest version to accept.
    pub max_version: u8,
    /// The password, if messages are to be encrypted. An empty password also encrypts.
    pub password: Option<Arc<[u8]>>,
    /// Our features for this connection.
    pub features: Features,
    /// What is said as it was recorded; nothing, unless a recording is played again.
    pub recorded: Recorded,
}

/// Non-deterministic parts of a recorded introduction, overridden in tests: the encoded features
/// with their order and type ids, and the session key where neither private key is known.
#[derive(Clone, Debug, Default)]
pub struct Recorded {
    /// The stream of our features.
    pub features: Option<Vec<u8>>,
    /// The key of the connection.
    pub session_key: Option<SessionKey>,
}

impl WireConfig {
    /// Creates a configuration that accepts every supported version.
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

/// Result of a completed introduction.
#[derive(Clone, Debug)]
pub struct Introduced {
    /// The features of the other end; with version 1 only the five that this version has.
    pub remote: Features,
    /// The version of the protocol that is used.
    pub version: u8,
    /// The key of the connection, if it is encrypted.
    pub session_key: Option<SessionKey>,
    /// Digest of everything that both ends have sent so far. It is the same at both ends unless
    /// something was changed on the way.
    pub transcript: [u8; 32],
}
