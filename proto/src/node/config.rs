//! Configuration of a node, and its limits.

use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;

use crate::crypto::Secret;
use crate::native::{Ciphers, KeyLife};
use crate::overlay::Overlay;
use crate::types::{PeerName, PeerUid, ShortId};
use crate::wire::{VERSION_MAX, VERSION_MIN};

/// Time within which a connection must be introduced. Otherwise it is closed.
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
pub const INTRODUCTION_TIME_MAX: Duration = Duration::from_secs(10);
/// Time after which a connection that received no complete message is closed.
///
/// Rule: `docs/protocol/mesh.md#5-1-heartbeats`.
pub const READ_TIME_MAX: Duration = Duration::from_secs(60);
/// Time after which a connection is closed whose outgoing bytes the driver could not send.
///
/// Rule: `docs/protocol/mesh.md#9-timers`.
pub const WRITE_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum time for a peer to answer on a connection that another one is to replace. A peer that
/// does not answer counts as an earlier start, which has ended.
pub(super) const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Maximum number of bytes that are read from a connection while it waits for such an answer.
pub(super) const WAITING_BYTES_MAX: usize = 16 << 20;
/// Interval between heartbeats on a connection.
///
/// Rule: `docs/protocol/mesh.md#5-1-heartbeats`.
pub const HEARTBEAT_INTERVAL: Duration = Duration::from_secs(30);
/// Interval of gossip of the complete state of every channel.
///
/// Rule: `docs/protocol/mesh.md#5-4-relaying`.
pub const GOSSIP_INTERVAL: Duration = Duration::from_secs(30);
/// Delay between a topology update and the removal of unreachable peers.
///
/// Rule: `docs/protocol/mesh.md#6-4-garbage`.
pub const GARBAGE_DELAY: Duration = Duration::from_secs(1);
/// How long a change of a peer's entry counts as recent for a new neighbour that was reachable
/// before: as long as a dead connection may have kept the change from it.
///
/// Rule: `docs/protocol/mesh.md#10-weft`.
pub(super) const RECENT_TIME: Duration = Duration::from_secs(90);
/// Maximum number of such entries that are sent; the latest ones are chosen.
pub(super) const RECENT_MAX: usize = 16;
/// Maximum number of accepted connections without introduction. For another one, the oldest of the
/// address with most of them is closed.
pub const INTRODUCTIONS_MAX: usize = 512;
/// Number of peers whose entries are encoded at a time.
pub(super) const PEERS_PER_TURN_MAX: usize = 256;
/// Size at which a topology message ends and the next one begins, in bytes.
pub(super) const TOPOLOGY_MESSAGE_BYTES: usize = 1024 * 1024;
/// Bytes beyond the window for control messages of overlays on a connection that does not read.
/// Further messages are dropped.
pub(super) const CONTROL_BYTES_MAX: usize = 64 * 1024;

/// Configuration of a node.
#[derive(Clone, Debug)]
pub struct NodeConfig {
    /// Our name, unique in the mesh.
    pub name: PeerName,
    /// Our nickname, for people.
    pub nickname: String,
    /// UID of this start of our peer: random, not 0.
    pub uid: PeerUid,
    /// The short id to claim; a random one if there is none.
    pub short_id: Option<ShortId>,
    /// The port that we listen on, and assume others to listen on.
    pub port: u16,
    /// The password of the mesh, if it has one.
    pub password: Option<Arc<[u8]>>,
    /// Maximum number of connections; 0 for no limit.
    pub connection_limit: usize,
    /// Whether to dial addresses learned from other peers.
    pub discovery: bool,
    /// Subnets in which frames need no encryption, if both ends agree.
    pub trusted_subnets: Vec<IpNet>,
    /// Lowest version of the protocol to accept.
    pub min_version: u8,
    /// Highest version of the protocol to offer.
    pub max_version: u8,
    /// The overlays to offer, in order of preference.
    pub overlays: Vec<Overlay>,
    /// The ciphers that we accept for native datagrams.
    pub ciphers: Ciphers,
    /// Limits on the use of a key for native datagrams.
    pub key_life: KeyLife,
    /// Whether no frame may travel in the clear: no subnet is trusted, and overlays that do not
    /// encrypt are not used.
    pub require_encryption: bool,
    /// Whether to do with others of our kind what only they understand.
    pub abilities: bool,
    /// The gossip channels that the driver handles.
    pub channels: Vec<String>,
    /// Seed of the random number generator.
    pub seed: u64,
}

impl NodeConfig {
    /// Creates a configuration without password, targets and channels, on the default port.
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

/// Fresh random values of one connection, drawn by the driver.
#[derive(Debug)]
pub struct ConnSecret {
    /// Secret of the private key.
    pub key: Secret,
    /// Secret of the first key pair for native datagrams.
    pub native: Secret,
    /// Our half of the connection's number.
    pub conn_id: u64,
}
