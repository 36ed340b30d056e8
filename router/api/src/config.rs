//! The router's configuration, as far as pages show it.

use ipnet::Ipv4Net;
use report::model::PluginReport;

/// Facts for pages that do not change while the router runs.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name for people.
    pub nickname: String,
    /// TCP and UDP port of the mesh.
    pub port: u16,
    /// Whether the mesh has a password.
    pub encryption: bool,
    /// Oldest version of the protocol that is accepted.
    pub min_version: u8,
    /// Whether peers of peers are dialled.
    pub discovery: bool,
    /// Subnets between which frames need no encryption.
    pub trusted_subnets: Vec<Ipv4Net>,
    /// The bridge.
    pub bridge: String,
    /// MTU of bridge and containers, in bytes.
    pub mtu: u32,
    /// The device that frames come from.
    pub interface: String,
    /// Whether addresses are allocated.
    pub allocates: bool,
    /// Names; `None` if they are off.
    pub names: Option<NamesConfig>,
    /// The plugin under Weave Net's names, without its subnet; `None` if it is off.
    pub plugin: Option<PluginReport>,
}

/// Configuration of names.
#[derive(Clone, Debug)]
pub struct NamesConfig {
    /// The domain, with a trailing dot.
    pub domain: String,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
}
