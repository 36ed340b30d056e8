//! The router's state as `/report` shows it. The status pages and metrics are drawn from it too.
//!
//! Names, nesting and order of the fields are those of Weave Net 2.8.1, so that scripts and
//! templates written for it go on working. A list that is `None` is printed as `null`, a service
//! that is `None` is left out.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::Value;

/// The version that scripts for Weave Net look for in `/report` and `/status`.
pub const COMPATIBLE_VERSION: &str = "2.8.1";

/// Everything.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct Report {
    /// Whether every service has started; `/status` answers 503 until then.
    pub ready: bool,
    /// The version of the protocol's reference.
    pub version: &'static str,
    /// Always disabled: nothing is asked about versions.
    pub version_check: VersionCheck,
    /// The mesh.
    pub router: RouterReport,
    /// Address allocation, unless it is off.
    #[serde(rename = "IPAM", skip_serializing_if = "Option::is_none")]
    pub ipam: Option<IpamReport>,
    /// Names, unless they are off.
    #[serde(rename = "DNS", skip_serializing_if = "Option::is_none")]
    pub dns: Option<DnsReport>,
    /// The Docker plugin, if it is on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub plugin: Option<PluginReport>,
}

/// Weave Net's check for newer versions, which does not exist here.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct VersionCheck {
    enabled: bool,
    success: bool,
    new_version: &'static str,
    next_check_at: &'static str,
}

impl VersionCheck {
    /// The answer of a router that never checks.
    pub const OFF: VersionCheck = VersionCheck {
        enabled: false,
        success: false,
        new_version: "",
        next_check_at: "0001-01-01T00:00:00Z",
    };
}

/// The mesh as this router sees it.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RouterReport {
    /// Always `weave`.
    pub protocol: &'static str,
    /// Lowest protocol version accepted.
    pub protocol_min_version: u8,
    /// Highest protocol version spoken.
    pub protocol_max_version: u8,
    /// Whether a password is set.
    pub encryption: bool,
    /// Whether peers of peers are dialled.
    pub peer_discovery: bool,
    /// Our name.
    pub name: String,
    /// Our nickname.
    pub nick_name: String,
    /// TCP and UDP port of the mesh.
    pub port: u16,
    /// All known peers, ourself included.
    pub peers: Vec<PeerReport>,
    /// Next hop to each peer.
    pub unicast_routes: Vec<UnicastRoute>,
    /// Neighbours that get broadcasts of each peer from us.
    pub broadcast_routes: Vec<BroadcastRoute>,
    /// Our connections, and the attempts at making some.
    pub connections: Vec<ConnectionReport>,
    /// Connections ended since the start.
    pub termination_count: u64,
    /// Peers that the user asked to connect to.
    pub targets: Vec<String>,
    /// Per overlay, what it has to say.
    pub overlay_diagnostics: BTreeMap<String, Value>,
    /// Subnets whose links need no encryption.
    pub trusted_subnets: Vec<String>,
    /// The device that frames come from.
    pub interface: String,
    /// Counters of the device.
    pub capture_stats: BTreeMap<String, u64>,
    /// The MAC table.
    #[serde(rename = "MACs")]
    pub macs: Vec<MacReport>,
}

/// A peer and its connections.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// Its nickname.
    pub nick_name: String,
    /// Tells its starts apart. A number of 64 bits, which some JSON readers round.
    #[serde(rename = "UID")]
    pub uid: u64,
    /// Its short id, 0 if it has none.
    #[serde(rename = "ShortID")]
    pub short_id: u16,
    /// Version of this entry.
    pub version: u64,
    /// The connections it lists.
    pub connections: Option<Vec<PeerConnection>>,
}

/// A connection that a peer lists.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PeerConnection {
    /// The peer at the other end.
    pub name: String,
    /// Its nickname.
    pub nick_name: String,
    /// Its TCP address as the listing peer sees it.
    pub address: String,
    /// Whether the listing peer dialled.
    pub outbound: bool,
    /// Whether data can flow.
    pub established: bool,
}

/// The next hop to a peer.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct UnicastRoute {
    /// The peer.
    pub dest: String,
    /// The neighbour; all zeros for ourself.
    pub via: String,
}

/// The next hops of a peer's broadcasts.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct BroadcastRoute {
    /// The peer.
    pub source: String,
    /// Our neighbours.
    pub via: Option<Vec<String>>,
}

/// A connection of ours, or an attempt.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ConnectionReport {
    /// TCP address of the other end.
    pub address: String,
    /// Whether we dialled.
    pub outbound: bool,
    /// `established`, `pending`, `retrying`, `failed`, `connecting` or `waiting`.
    pub state: &'static str,
    /// Overlay and peer, or what went wrong.
    pub info: String,
    /// Facts about the overlay, by name.
    pub attrs: Option<BTreeMap<&'static str, Value>>,
}

/// An entry of the MAC table.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct MacReport {
    /// The address.
    pub mac: String,
    /// The peer behind which it lives.
    pub name: String,
    /// That peer's nickname.
    pub nick_name: String,
    /// Time of its last frame, RFC 3339.
    pub last_seen: String,
}

/// Address allocation.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct IpamReport {
    /// The election of the first ring, while it goes on.
    pub paxos: Option<PaxosReport>,
    /// All addresses.
    pub range: String,
    /// Their number.
    #[serde(rename = "RangeNumIPs")]
    pub range_num_ips: u64,
    /// Addresses in use here.
    #[serde(rename = "ActiveIPs")]
    pub active_ips: u64,
    /// Subnet of addresses unless another is named.
    pub default_subnet: String,
    /// Owners and their ranges.
    pub entries: Option<Vec<RingEntryReport>>,
    /// Claims that wait.
    pub pending_claims: Option<Vec<PendingClaim>>,
    /// Allocations that wait: `id subnet`.
    pub pending_allocates: Option<Vec<String>>,
}

/// The election of the first ring.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PaxosReport {
    /// Whether we vote.
    pub elector: bool,
    /// Peers heard of.
    pub known_nodes: usize,
    /// Votes needed.
    pub quorum: usize,
}

/// An interval of addresses.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct RingEntryReport {
    /// Its first address.
    pub token: String,
    /// Number of its addresses.
    pub size: u64,
    /// Its owner.
    pub peer: String,
    /// The owner's nickname.
    pub nickname: String,
    /// Whether the owner is in the mesh.
    pub is_known_peer: bool,
    /// Version of the entry.
    pub version: u32,
}

/// A claim that waits.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PendingClaim {
    /// The claiming owner.
    pub ident: String,
    /// The claimed address.
    #[serde(rename = "CIDR")]
    pub cidr: PendingCidr,
}

/// An address with its prefix length.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PendingCidr {
    /// The address.
    pub addr: String,
    /// The length of its network's prefix.
    pub prefix_len: u8,
}

/// Names.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DnsReport {
    /// The domain of our names, with a trailing dot.
    pub domain: String,
    /// Servers asked about other names.
    pub upstream: Vec<String>,
    /// Addresses that queries are answered on.
    pub address: String,
    /// Seconds that an answer may be kept.
    #[serde(rename = "TTL")]
    pub ttl: u32,
    /// All names.
    pub entries: Option<Vec<DnsEntryReport>>,
    /// Obstacles to answering queries.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}

/// A name.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct DnsEntryReport {
    /// The name, with a trailing dot.
    pub hostname: String,
    /// The peer that registered it.
    pub origin: String,
    /// The container it belongs to.
    #[serde(rename = "ContainerID")]
    pub container_id: String,
    /// Its address.
    pub address: String,
    /// Version of the entry.
    pub version: i64,
    /// Time of its deletion in Unix seconds; 0 = alive.
    pub tombstone: i64,
}

/// The Docker plugin.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PluginReport {
    /// The options that it was started with.
    pub config: PluginConfig,
    /// Name of the global driver.
    pub driver_name: String,
    /// Name of the local driver.
    pub mesh_driver_name: String,
}

/// The options with which the plugin was started.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct PluginConfig {
    /// Socket of the global driver.
    pub socket: String,
    /// Socket of the local driver.
    pub mesh_socket: String,
    /// `--plugin`.
    pub enable: bool,
    /// `--plugin-v2`.
    pub enable_v2: bool,
    /// `--plugin-v2-multicast`.
    #[serde(rename = "EnableV2Multicast")]
    pub enable_v2_multicast: bool,
    /// Whether names are registered.
    #[serde(rename = "DNS")]
    pub dns: bool,
    /// Subnet of the default network.
    pub default_subnet: String,
    /// Path of /proc.
    pub proc_path: String,
}

#[cfg(test)]
mod tests {
    use crate::testing::recorded;

    #[test]
    fn json_has_the_names_and_order_of_weave_net() {
        let json = serde_json::to_string(&recorded()).unwrap();
        let keys = [
            "Ready",
            "Version",
            "VersionCheck",
            "NextCheckAt",
            "Router",
            "Protocol",
            "ProtocolMinVersion",
            "ProtocolMaxVersion",
            "Encryption",
            "PeerDiscovery",
            "Name",
            "NickName",
            "Port",
            "Peers",
            "UID",
            "ShortID",
            "UnicastRoutes",
            "BroadcastRoutes",
            "Connections\":[{\"Address",
            "Attrs",
            "TerminationCount",
            "Targets",
            "OverlayDiagnostics",
            "TrustedSubnets",
            "Interface",
            "CaptureStats",
            "MACs",
            "IPAM",
            "Paxos",
            "RangeNumIPs",
            "ActiveIPs",
            "DefaultSubnet",
            "Entries",
            "Token",
            "Size",
            "Nickname",
            "IsKnownPeer",
            "PendingClaims",
            "PendingAllocates",
            "DNS",
            "Domain",
            "Upstream",
            "TTL",
            "ContainerID",
            "Tombstone",
        ];
        let mut at = 0;
        for key in keys {
            let found = json[at..].find(&format!("\"{key}\""));
            at += found.unwrap_or_else(|| panic!("{key} is missing or misplaced in {json}"));
        }
        assert!(!json.contains("Plugin"));
    }
}
