//! What a node is told once, and the limits it keeps.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::crypto::Secret;
use crate::native::{Ciphers, KeyLife};
use crate::overlay::Overlay;
use crate::types::{PeerName, PeerUid, ShortId};
use crate::wire::{VERSION_MAX, VERSION_MIN};

/// A connection must be introduced within this time, or it is closed.
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
pub const INTRODUCTION_TIME_MAX: Duration = Duration::from_secs(10);
/// A connection that completes no message for this long is closed.
///
/// Rule: `docs/protocol/mesh.md#5-1-heartbeats`.
pub const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// A connection of whose outgoing bytes none left the driver for this long is closed.
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// How long a peer may take to answer on a connection that another one is to take the place of.
/// Who does not is taken for an earlier start, which is over.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes that are taken from a connection while it waits for such an answer.
pub(super) const WAITING_BYTES_MAX: usize = 16 << 20;
/// Between heartbeats on a connection.
///
/// Rule: `docs/protocol/mesh.md#5-1-heartbeats`.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// Between the times at which the complete state of every channel is gossiped.
///
/// Rule: `docs/protocol/mesh.md#5-4-relaying`.
pub const GOSSIP_INTERVAL: Duration = Duration::from_secs(30);
/// Between a topology update and the removal of peers that it put out of reach.
///
/// Rule: `docs/protocol/mesh.md#6-4-garbage`.
pub const GARBAGE_DELAY: Duration = Duration::from_secs(1);
/// How long a change of a peer's entry is news for a new neighbour that could be reached in
/// another way before: as long as a dead connection may have kept it from hearing of it.
///
/// Rule: `docs/protocol/mesh.md#10-weft`.
pub(super) const RECENT_TIME: Duration = Duration::from_secs(90);
/// How many of such entries it is told, the latest.
pub(super) const RECENT_MAX: usize = 16;
/// Accepted connections that may be without introduction at the same time. When one more comes,
/// the oldest of the address that has most of them is closed.
pub const INTRODUCTIONS_MAX: usize = 512;
/// Peers of which entries are put into topology messages in one go.
pub(super) const PEERS_PER_TURN_MAX: usize = 256;
/// Bytes at which a topology message is ended and the next one begun.
pub(super) const TOPOLOGY_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes beyond the window that overlays may use for their control messages on a connection that
/// is not read from. Further messages are dropped.
pub(super) const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// What a node is told once.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Our name, unique in the mesh.
    pub name: PeerName,
    /// Our nickname, for people.
    pub nickname: String,
    /// Which start of our peer this is: random, not 0.
    pub uid: PeerUid,
    /// The short id to claim; a random one if there is none.
    pub short_id: Option<ShortId>,
    /// The port that we listen on, and assume others to listen on.
    pub port: u16,
    /// The password of the mesh, if it has one.
    pub password: Option<Arc<[u8]>>,
    /// Most connections; 0 for no limit.
    pub connection_limit: usize,
    /// Whether to dial addresses that other peers tell of.
    pub discovery: bool,
    /// Where peers need no encryption of frames, if both ends say so.
    pub trusted_subnets: Vec<IpNet>,
    /// Lowest version of the protocol to accept.
    pub min_version: u8,
    /// Highest version of the protocol to offer.
    pub max_version: u8,
    /// The overlays to offer, in order of preference.
    pub overlays: Vec<Overlay>,
    /// The ciphers that we take for native datagrams.
    pub ciphers: Ciphers,
    /// How long a key for native datagrams is used.
    pub key_life: KeyLife,
    /// Whether no frame may travel in the clear: no subnet is trusted, and overlays that do not
    /// encrypt are not used.
    pub require_encryption: bool,
    /// Whether to do with others of our kind what only they understand.
    pub abilities: bool,
    /// The gossip channels that the driver handles.
    pub channels: Vec<String>,
    /// The seed of everything that is left to chance.
    pub seed: u64,
}

impl NodeConfig {
    /// A node without password, targets and channels, on the usual port.
    pub fn new(name: PeerName, nickname: &str, uid: PeerUid, seed: u64) -> NodeConfig {
        NodeConfig {
            name,
            nickname: nickname.to_owned(),
            uid,
            short_id: None,
            port: 6783,
            password: None,
            connection_limit: 200,
            discovery: true,
            trusted_subnets: Vec::new(),
            min_version: VERSION_MIN,
            max_version: VERSION_MAX,
            overlays: Overlay::ALL.to_vec(),
            ciphers: Ciphers::PORTABLE,
            key_life: KeyLife::MAX,
            require_encryption: false,
            abilities: true,
            channels: Vec::new(),
            seed,
        }
    }
}

/// What is fresh and secret about one connection; the driver draws it.
#[derive(Debug)]
pub struct ConnSecret {
    /// What the private key is made of.
    pub key: Secret,
    /// What the first key pair for native datagrams is made of.
    pub native: Secret,
    /// Our half of the connection's number.
    pub conn_id: u64,
}
