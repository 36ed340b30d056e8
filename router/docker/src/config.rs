//! Settings for Docker.

use std::path::PathBuf;

use web::endpoint::Endpoint;

/// Configuration of the Docker plugin.
#[derive(Clone, Debug)]
pub struct Config {
    /// Docker's API; without one nothing is asked of it.
    pub api: Option<Endpoint>,
    /// Which plugins are served, and where.
    pub plugin: PluginConfig,
    /// Containers to attach by themselves.
    pub attach: AttachWhich,
    /// The bridge.
    pub bridge: String,
    /// The host's /proc.
    pub proc_path: PathBuf,
    /// The host's root.
    pub host_root: PathBuf,
    /// The domain of names, with a trailing dot; none where names are off.
    pub domain: Option<String>,
}

/// Docker's network plugins.
#[derive(Clone, Debug)]
pub struct PluginConfig {
    /// Socket of our own driver.
    pub weft_socket: Option<PathBuf>,
    /// Under Weave Net's names.
    pub legacy: bool,
    /// As managed plugin.
    pub v2: bool,
    /// Multicast on its networks.
    pub v2_multicast: bool,
    /// Socket of Weave Net's global driver.
    pub socket: Option<PathBuf>,
    /// Socket of Weave Net's local driver.
    pub mesh_socket: Option<PathBuf>,
}

/// Containers that are attached by themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttachWhich {
    /// None.
    None,
    /// Those that a label or `WEAVE_CIDR` names.
    Labels,
    /// All.
    All,
}
