//! The flags of `weft launch`: those of Weave Net's router and launch script, with the same names
//! and meanings.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// The socket at which Docker looks for the plugin.
pub(crate) const PLUGIN_SOCKET: &str = "/run/docker/plugins/weft.sock";

/// Starts this host's router, joins the mesh, and runs until stopped.
///
/// Give the address of any router that is already in the mesh, or none on the first host. All hosts
/// need the same password. The router keeps its state in --db-prefix and continues from it at the
/// next launch.
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
    /// Check the flags and the files and addresses that they name, then exit
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
    /// Name of this peer, like 7a:9f:3c:0d:5e:11 [default: from the bridge, the database or the
    /// machine's ids]
    #[arg(long, help_heading = "Mesh")]
    pub name: Option<String>,
    /// Name of this peer in reports [default: the host name]
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
    /// Maximum number of connections, in and out; 0 = no limit
    #[arg(long, default_value_t = 200, help_heading = "Mesh")]
    pub conn_limit: usize,
    /// Subnets between which frames over sleeve are not encrypted, if both sides trust them
    #[arg(
        long,
        value_name = "CIDR,...",
        default_value = "",
        hide_default_value = true,
        help_heading = "Mesh"
    )]
    pub trusted_subnets: String,
    /// Refuse links that would carry frames unencrypted
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub require_encryption: bool,
    /// Let containers be routers for IPv6: their advertisements reach containers of all hosts
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub allow_router_advertisements: bool,
    /// Let containers be DHCP servers for containers of all hosts
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Mesh")]
    pub allow_dhcp_servers: bool,
    /// Oldest protocol version to accept: 1 or 2 [default: 2 with a password, 1 without]
    #[arg(long, value_name = "VERSION", help_heading = "Mesh")]
    pub min_protocol_version: Option<u8>,

    /// Range to allocate addresses from; empty = no allocation [default: 10.7.0.0/16]
    #[arg(
        long,
        visible_alias = "iprange",
        value_name = "CIDR",
        env = "IPALLOC_RANGE",
        help_heading = "Addresses"
    )]
    pub ipalloc_range: Option<String>,
    /// Subnet of containers for which none is given [default: the whole range]
    #[arg(
        long,
        value_name = "CIDR",
        default_value = "",
        hide_default_value = true,
        help_heading = "Addresses"
    )]
    pub ipalloc_default_subnet: String,
    /// How the address range is first divided: consensus[=COUNT], seed=NAME,... or observer
    #[arg(
        long,
        value_name = "MODE",
        default_value = "",
        env = "IPALLOC_INIT",
        hide_default_value = true,
        help_heading = "Addresses"
    )]
    pub ipalloc_init: String,
    /// Time for which an unused lease is kept, like 30d, 12h or 90m
    #[arg(
        long,
        value_name = "TIME",
        default_value = "30d",
        help_heading = "Addresses"
    )]
    pub lease_retention: String,
    /// Database of a Weave Net router to import; found automatically in the usual places
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
    /// Disable offloads, for diagnosis: gso, gro, tap, aes
    #[arg(
        long,
        value_name = "NAME,...",
        value_delimiter = ',',
        help_heading = "Frames"
    )]
    pub no_offload: Vec<String>,
    /// Queues of the TAP device, two threads each; 0 = chosen by the number of cores
    #[arg(long, default_value_t = 0, help_heading = "Frames")]
    pub queues: usize,
    /// Overlays to offer, best first
    #[arg(long, value_name = "NAME,...", value_delimiter = ',', hide = true)]
    pub overlays: Vec<String>,
    /// Replace native keys after this number of seconds
    #[arg(long, default_value_t = 3600, hide = true,
        value_parser = clap::value_parser!(u64).range(10..=3600))]
    pub rekey_seconds: u64,
    /// Replace native keys after this number of datagrams of one stream
    #[arg(long, default_value_t = 1 << 30, hide = true,
        value_parser = clap::value_parser!(u64).range(1000..=1 << 30))]
    pub rekey_datagrams: u64,

    /// Address or socket path to serve the control interface on; empty = none
    #[arg(
        long,
        env = "WEAVE_HTTP_ADDR",
        default_value = "127.0.0.1:6784",
        help_heading = "Interfaces"
    )]
    pub http_addr: String,
    /// Address or socket path to serve status and metrics on, read only; empty = none
    #[arg(
        long,
        env = "WEAVE_STATUS_ADDR",
        default_value = "127.0.0.1:6782",
        help_heading = "Interfaces"
    )]
    pub status_addr: String,
    /// Address or socket path to serve metrics alone on; empty = none
    #[arg(
        long,
        env = "WEAVE_METRICS_ADDR",
        default_value = "",
        hide_default_value = true,
        help_heading = "Interfaces"
    )]
    pub metrics_addr: String,
    /// Log level: debug, info, warning or error
    #[arg(
        long,
        default_value = "info",
        env = "LOG_LEVEL",
        help_heading = "Interfaces"
    )]
    pub log_level: String,
    /// Log format: text or json
    #[arg(long, default_value = "text", help_heading = "Interfaces")]
    pub log_format: String,
    /// Path prefix of the state files
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/var/lib/weft/",
        env = "DB_PREFIX",
        help_heading = "Interfaces"
    )]
    pub db_prefix: PathBuf,
    /// Path of the host's /proc
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/proc",
        help_heading = "Interfaces"
    )]
    pub proc_path: PathBuf,
    /// Path of the host's root file system, if the router runs in a container
    #[arg(
        long,
        value_name = "PATH",
        default_value = "",
        hide_default_value = true,
        help_heading = "Interfaces"
    )]
    pub host_root: String,
    /// Print the name that this peer would have, then exit
    #[arg(long, help_heading = "Interfaces")]
    pub print_peer_name: bool,

    /// Do not serve names
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Names")]
    pub no_dns: bool,
    /// Domain of the containers' names
    #[arg(long, default_value = "weave.local.", help_heading = "Names")]
    pub dns_domain: String,
    /// Address to answer DNS queries on
    #[arg(
        long,
        value_name = "ADDR",
        default_value = "0.0.0.0:53",
        help_heading = "Names"
    )]
    pub dns_listen_address: String,
    /// TTL of answers in seconds
    #[arg(
        long,
        value_name = "SECONDS",
        default_value_t = 1,
        help_heading = "Names"
    )]
    pub dns_ttl: u32,
    /// Time to wait for an answer of another server
    #[arg(
        long,
        value_name = "TIME",
        default_value = "5s",
        help_heading = "Names"
    )]
    pub dns_fallback_timeout: String,
    /// File that lists the servers for other domains [default: /etc/resolv.conf]
    #[arg(
        long,
        value_name = "FILE",
        default_value = "",
        hide_default_value = true,
        help_heading = "Names"
    )]
    pub resolv_conf: String,

    /// Endpoint of Docker's API; empty = none
    #[arg(
        long,
        value_name = "ENDPOINT",
        env = "DOCKER_HOST",
        default_value = "unix:///var/run/docker.sock",
        help_heading = "Docker"
    )]
    pub docker_api: String,
    /// Name of Docker's own bridge
    #[arg(
        long,
        value_name = "NAME",
        env = "DOCKER_BRIDGE",
        default_value = "",
        hide_default_value = true,
        help_heading = "Docker"
    )]
    pub docker_bridge: String,
    /// Socket to serve Docker's network plugin on, if Docker is found; empty = none
    #[arg(
        long,
        value_name = "PATH",
        default_value = PLUGIN_SOCKET,
        help_heading = "Docker"
    )]
    pub weft_plugin_socket: String,
    /// Also serve Docker's plugin under the names of Weave Net's drivers
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin: bool,
    /// Behave as Weave Net's managed plugin: serve both drivers, create no network
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin_v2: bool,
    /// Enable multicast on networks of the managed plugin
    #[arg(long, default_value = "false", default_missing_value = "true",
          value_name = "true|false", num_args = 0..=1, require_equals = true, action = ArgAction::Set, hide_default_value = true,
          hide_possible_values = true, help_heading = "Docker")]
    pub plugin_v2_multicast: bool,
    /// Socket of Weave Net's global driver
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/docker/plugins/weave.sock",
        help_heading = "Docker"
    )]
    pub plugin_socket: String,
    /// Socket of Weave Net's local driver
    #[arg(
        long,
        value_name = "PATH",
        default_value = "/run/docker/plugins/weavemesh.sock",
        help_heading = "Docker"
    )]
    pub plugin_mesh_socket: String,
    /// Docker containers to attach automatically: labels (those with weft.attach=true), all or none
    #[arg(
        long,
        value_name = "WHICH",
        default_value = "none",
        help_heading = "Docker"
    )]
    pub attach: String,
    /// Preserve source addresses of local clients (Kubernetes' externalTrafficPolicy: Local)
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

/// Flags of services that weft does not have: accepted, so that existing start scripts still work,
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
    /// Returns the flags that were given and change nothing.
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
