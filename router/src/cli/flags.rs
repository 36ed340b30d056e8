//! The flags of `weft launch`: those of the original router and its launch script, with the same
//! names and meanings.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Where Docker looks for our plugin.
pub(super) const PLUGIN_SOCKET: &str = "/run/docker/plugins/weft.sock";

/// Adds this host's router to the mesh and runs until it is stopped.
///
/// Give the address of any router that is already in the mesh, or none to be the first. The
/// same `--password` is needed on every host. The router keeps its state in `--db-prefix`, so a
/// second launch on this host goes on where the first ended.
#[derive(Args, Clone, Debug)]
#[command(after_help = "EXAMPLES:
  weft launch                                  first host
  weft launch 192.168.0.11 192.168.0.12:6799   join a mesh
  weft launch --password-file /etc/weft/password 192.168.0.11
  weft launch --ipalloc-range 10.32.0.0/12 --resume")]
pub struct LaunchFlags {
    /// Peers to connect to: HOST or HOST:PORT
    #[arg(value_name = "PEER")]
    pub peers: Vec<String>,
    /// Check the flags and what they name, start nothing
    #[arg(long)]
    pub check: bool,

    /// Password of the mesh; turns encryption on
    #[arg(
        long,
        env = "WEAVE_PASSWORD",
        hide_env_values = true,
        hide_default_value = true,
        help_heading = "Mesh"
    )]
    pub password: Option<String>,
    /// File whose first line is the password; not shown in the process list
    #[arg(long, value_name = "FILE", help_heading = "Mesh")]
    pub password_file: Option<PathBuf>,
    /// TCP and UDP port of the mesh
    #[arg(
        long,
        env = "WEAVE_PORT",
        default_value_t = 6783,
        help_heading = "Mesh"
    )]
    pub port: u16,
    /// Address to listen on [default: all]
    #[arg(
        long,
        default_value = "",
        hide_default_value = true,
        help_heading = "Mesh"
    )]
    pub host: String,
    /// Name of this peer, like 7a:9f:3c:0d:5e:11 [default: from the bridge, the data base or the
    /// machine's ids]
    #[arg(long, help_heading = "Mesh")]
    pub name: Option<String>,
    /// Name for people [default: the host name]
    #[arg(long, help_heading = "Mesh")]
    pub nickname: Option<String>,
    /// Do not dial peers of peers
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub no_discovery: bool,
    /// Connect to the peers of the last run
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub resume: bool,
    /// Most connections, in and out; 0 = no limit
    #[arg(long, default_value_t = 200, help_heading = "Mesh")]
    pub conn_limit: usize,
    /// Subnets between which sleeve needs no encryption, if both sides say so
    #[arg(
        long,
        value_name = "CIDR,...",
        default_value = "",
        hide_default_value = true,
        help_heading = "Mesh"
    )]
    pub trusted_subnets: String,
    /// Refuse links whose frames would travel unencrypted
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub require_encryption: bool,
    /// Oldest protocol version to accept: 1 or 2
    #[arg(long, default_value_t = 1, help_heading = "Mesh")]
    pub min_protocol_version: u8,

    /// Addresses to allocate from; empty = no allocation [default: 10.7.0.0/16]
    #[arg(
        long,
        visible_alias = "iprange",
        value_name = "CIDR",
        env = "IPALLOC_RANGE",
        help_heading = "Addresses"
    )]
    pub ipalloc_range: Option<String>,
    /// Subnet of containers that name none [default: the whole range]
    #[arg(
        long,
        value_name = "CIDR",
        default_value = "",
        hide_default_value = true,
        help_heading = "Addresses"
    )]
    pub ipalloc_default_subnet: String,
    /// How the first router starts: consensus[=COUNT], seed=NAME,... or observer
    #[arg(
        long,
        value_name = "MODE",
        default_value = "",
        env = "IPALLOC_INIT",
        hide_default_value = true,
        help_heading = "Addresses"
    )]
    pub ipalloc_init: String,
    /// How long an unused lease is kept, like 30d, 12h or 90m
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30d",
        help_heading = "Addresses"
    )]
    pub lease_retention: String,
    /// Data base of a Weave Net router to take over; found by itself in the usual places
    #[arg(long, value_name = "FILE", help_heading = "Addresses")]
    pub import: Option<PathBuf>,

    /// Bridge that containers are attached to
    #[arg(
        long,
        value_name = "NAME",
        default_value = "weave",
        help_heading = "Frames"
    )]
    pub weave_bridge: String,
    /// MTU of the bridge and of containers; 0 = 1376
    #[arg(long, env = "WEAVE_MTU", default_value_t = 0, help_heading = "Frames")]
    pub mtu: u32,
    /// Leave an offload out: gso, gro, tap, aes, or several with commas (for diagnosis)
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Frames"
    )]
    pub no_offload: Vec<String>,
    /// Queues of the TAP device, each with two threads; 0 = by the number of cores
    #[arg(long, default_value_t = 0, help_heading = "Frames")]
    pub queues: usize,
    /// Overlays to offer, best first
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', hide = true)]
    pub overlays: Vec<String>,
    /// Replace native keys after so many seconds
    #[arg(long, default_value_t = 3600, hide = true,
        value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub rekey_seconds: u64,
    /// Replace native keys after so many datagrams of one stream
    #[arg(long, default_value_t = 1 << 30, hide = true,
        value_parser = clap::value_parser!(u64).range(1000..=1 << 30))]
    pub rekey_datagrams: u64,

    /// Address or socket path of the control interface; empty = none
    #[arg(
        long,
        env = "WEAVE_HTTP_ADDR",
        default_value = "127.0.0.1:6784",
        help_heading = "Interfaces"
    )]
    pub http_addr: String,
    /// Address or socket path of status and metrics, read only; empty = none
    #[arg(
        long,
        env = "WEAVE_STATUS_ADDR",
        default_value = "127.0.0.1:6782",
        help_heading = "Interfaces"
    )]
    pub status_addr: String,
    /// Address or socket path of metrics alone; empty = none
    #[arg(
        long,
        env = "WEAVE_METRICS_ADDR",
        default_value = "",
        hide_default_value = true,
        help_heading = "Interfaces"
    )]
    pub metrics_addr: String,
    /// debug, info, warning or error
    #[arg(
        long,
        default_value = "info",
        env = "LOG_LEVEL",
        help_heading = "Interfaces"
    )]
    pub log_level: String,
    /// text or json
    #[arg(long, default_value = "text", help_heading = "Interfaces")]
    pub log_format: String,
    /// Prefix of the files that keep state
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/weft/",
        env = "DB_PREFIX",
        help_heading = "Interfaces"
    )]
    pub db_prefix: PathBuf,
    /// Where the host's /proc is
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/proc",
        help_heading = "Interfaces"
    )]
    pub proc_path: PathBuf,
    /// Where the host's root file system is, when this runs in a container
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true,
        help_heading = "Interfaces"
    )]
    pub host_root: String,
    /// Print the name that this peer would have, and exit
    #[arg(long, help_heading = "Interfaces")]
    pub print_peer_name: bool,

    /// Turn names off
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Names")]
    pub no_dns: bool,
    /// Domain of container names
    #[arg(long, default_value = "weave.local.", help_heading = "Names")]
    pub dns_domain: String,
    /// Where questions are taken
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:53",
        help_heading = "Names"
    )]
    pub dns_listen_address: String,
    /// Seconds that an answer may be kept
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        help_heading = "Names"
    )]
    pub dns_ttl: u32,
    /// How long another server is waited for
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        help_heading = "Names"
    )]
    pub dns_fallback_timeout: String,
    /// File that names the servers for other names [default: /etc/resolv.conf]
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        help_heading = "Names"
    )]
    pub resolv_conf: String,

    /// Docker's API; empty = none
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock",
        help_heading = "Docker"
    )]
    pub docker_api: String,
    /// Docker's own bridge
    #[arg(
        long,
        value_name = "NAME",
        env = "DOCKER_BRIDGE",
        default_value = "",
        hide_default_value = true,
        help_heading = "Docker"
    )]
    pub docker_bridge: String,
    /// Socket of Docker's network plugin, served where Docker is; empty = none
    #[arg(
        long,
        value_name = "PATH",
        default_value = PLUGIN_SOCKET,
        help_heading = "Docker"
    )]
    pub weft_plugin_socket: String,
    /// Serve it under the original's names too
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin: bool,
    /// Serve it as a managed plugin
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin_v2: bool,
    /// Multicast on networks of the managed plugin
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin_v2_multicast: bool,
    /// Socket of the original's global driver
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/docker/plugins/weave.sock",
        help_heading = "Docker"
    )]
    pub plugin_socket: String,
    /// Socket of the original's local driver
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/docker/plugins/weavemesh.sock",
        help_heading = "Docker"
    )]
    pub plugin_mesh_socket: String,
    /// Containers to attach by themselves: labels, all or none
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "none",
        help_heading = "Docker"
    )]
    pub attach: String,
    /// Keep source addresses of local clients (Kubernetes' externalTrafficPolicy: Local)
    #[arg(long, default_value = "false", default_missing_value = "true", env = "NO_MASQ_LOCAL",
          num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub no_masq_local: bool,
    /// Leave filtering to a network policy controller
    #[arg(long, default_value = "false", default_missing_value = "true", env = "EXPECT_NPC",
          num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub expect_npc: bool,

    #[command(flatten)]
    pub(crate) ignored: IgnoredFlags,
}

/// Flags of services that do not exist here: accepted, so that old start scripts go on working,
/// and named in one warning.
#[derive(Args, Clone, Debug)]
pub(crate) struct IgnoredFlags {
    #[arg(long, hide = true)]
    token: Option<String>,
    #[arg(long, hide = true)]
    peer_discovery_url: Option<String>,
    #[arg(long, hide = true)]
    advertise_address: Option<String>,
    #[arg(long, hide = true)]
    bufsz: Option<String>,
    #[arg(long, hide = true)]
    datapath: Option<String>,
    #[arg(long, hide = true)]
    profile: Option<String>,
    #[arg(short = 'H', hide = true)]
    proxy_address: Vec<String>,
    #[arg(long, hide = true)]
    hostname_from_label: Option<String>,
    #[arg(long, hide = true)]
    hostname_match: Option<String>,
    #[arg(long, hide = true)]
    hostname_replacement: Option<String>,
    #[arg(long, hide = true)]
    tlscacert: Option<String>,
    #[arg(long, hide = true)]
    tlscert: Option<String>,
    #[arg(long, hide = true)]
    tlskey: Option<String>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    awsvpc: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    pkt_debug: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    proxy: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    rewrite_inspect: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_default_ipalloc: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_rewrite_hosts: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    without_dns: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_multicast_route: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    tls: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    tlsverify: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_detect_tls: Option<bool>,
    /// Always so: there is no kernel data path to leave out.
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_fastdp: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_bridged_fastdp: Option<bool>,
    #[arg(long, hide = true, default_missing_value = "true", value_name = "true|false", num_args = 0..=1,
          require_equals = true)]
    no_restart: Option<bool>,
}

impl IgnoredFlags {
    /// The flags that were given and change nothing.
    pub(crate) fn given(&self) -> Vec<&'static str> {
        let text = [
            ("--token", &self.token),
            ("--peer-discovery-url", &self.peer_discovery_url),
            ("--advertise-address", &self.advertise_address),
            ("--bufsz", &self.bufsz),
            ("--datapath", &self.datapath),
            ("--profile", &self.profile),
            ("--hostname-from-label", &self.hostname_from_label),
            ("--hostname-match", &self.hostname_match),
            ("--hostname-replacement", &self.hostname_replacement),
            ("--tlscacert", &self.tlscacert),
            ("--tlscert", &self.tlscert),
            ("--tlskey", &self.tlskey),
        ];
        let switches = [
            ("--awsvpc", self.awsvpc),
            ("--pkt-debug", self.pkt_debug),
            ("--proxy", self.proxy),
            ("--rewrite-inspect", self.rewrite_inspect),
            ("--no-default-ipalloc", self.no_default_ipalloc),
            ("--no-rewrite-hosts", self.no_rewrite_hosts),
            ("--without-dns", self.without_dns),
            ("--no-multicast-route", self.no_multicast_route),
            ("--tls", self.tls),
            ("--tlsverify", self.tlsverify),
            ("--no-detect-tls", self.no_detect_tls),
        ];
        let text = text
            .iter()
            .filter(|(_, value)| value.as_deref().is_some_and(|v| !v.is_empty()));
        let switches = switches.iter().filter(|(_, value)| *value == Some(true));
        let proxy = self.proxy_address.iter().take(1).map(|_| "-H");
        text.map(|(name, _)| *name)
            .chain(switches.map(|(name, _)| *name))
            .chain(proxy)
            .collect()
    }
}
