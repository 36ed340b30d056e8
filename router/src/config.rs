//! Flags and environment, checked and resolved into one [`Config`].

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipam::range::Cidr;
use ipnet::Ipv4Net;
use proto::names::Domain;
use proto::native::KeyLife;
use proto::overlay::Overlay;
use proto::types::PeerName;
use report::time::duration;
use transport::address::check_peer;

use docker::config::{AttachWhich, PluginConfig};
use host::paths::{path, prefixed};
use web::endpoint::Endpoint;

use crate::flags::LaunchFlags;
use dataplane::guard::GuardRules;

/// Range of addresses when none is given.
pub const DEFAULT_RANGE: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(10, 7, 0, 0), 16);
/// MTU of bridge and containers when none is given.
pub const DEFAULT_MTU: u32 = 1376;
/// Largest MTU of a bridge.
const MTU_MAX: u32 = 65535;
/// Smallest MTU that IPv4 allows on a link with any purpose.
const MTU_MIN: u32 = 576;
/// A range smaller than this has no address for a container.
const RANGE_PREFIX_MAX: u8 = 30;

/// Configuration of the router: every default filled in, every combination checked.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address to listen on.
    pub host: IpAddr,
    /// TCP and UDP port of the mesh.
    pub port: u16,
    /// Our name, if the user chose it.
    pub name: Option<PeerName>,
    /// Our name for people.
    pub nickname: String,
    /// The password of the mesh.
    pub password: Option<Vec<u8>>,
    /// Whether one was given that is empty, and so is none.
    pub password_empty: bool,
    /// Whether links without encryption are refused.
    pub require_encryption: bool,
    /// Rules for frames from containers.
    pub guard: GuardRules,
    /// Oldest protocol version accepted.
    pub min_version: u8,
    /// Maximum number of connections; `None` = no limit.
    pub conn_limit: Option<usize>,
    /// Whether peers of peers are dialled.
    pub discovery: bool,
    /// Subnets between which sleeve goes unencrypted.
    pub trusted_subnets: Vec<Ipv4Net>,
    /// Initial peers, as given.
    pub peers: Vec<String>,
    /// Whether the peers of the last run replace those given.
    pub resume: bool,
    /// Overlays to offer, best first.
    pub overlays: Vec<Overlay>,
    /// Limits on the use of a key of the native overlay.
    pub key_life: KeyLife,

    /// Address allocation, unless it is off.
    pub ipam: Option<IpamConfig>,
    /// Names, unless they are off.
    pub dns: Option<DnsConfig>,

    /// The bridge.
    pub bridge: String,
    /// MTU of bridge and containers.
    pub mtu: u32,
    /// Queues of the TAP device; 0 = by the number of cores.
    pub queues: usize,
    /// Offloads to leave out.
    pub offload_off: OffloadOff,

    /// Control interface.
    pub http_addr: Option<Endpoint>,
    /// Status and metrics.
    pub status_addr: Option<Endpoint>,
    /// Metrics alone.
    pub metrics_addr: Option<Endpoint>,
    /// Prefix of the files that keep state.
    pub db_prefix: PathBuf,
    /// The host's /proc.
    pub proc_path: PathBuf,
    /// The host's root.
    pub host_root: PathBuf,
    /// A data base to take over.
    pub import: Option<PathBuf>,

    /// Docker's API.
    pub docker_api: Option<Endpoint>,
    /// Docker's bridge.
    pub docker_bridge: String,
    /// Plugins for Docker.
    pub plugin: PluginConfig,
    /// Containers to attach by themselves.
    pub attach: AttachWhich,
    /// Whether local clients keep their addresses.
    pub no_masq_local: bool,
    /// Whether a network policy controller filters.
    pub expect_npc: bool,
    /// Flags that were given and change nothing.
    pub ignored: Vec<&'static str>,
}

/// Address allocation.
#[derive(Clone, Debug)]
pub struct IpamConfig {
    /// All addresses.
    pub range: Ipv4Net,
    /// Whether the user chose the range.
    pub range_given: bool,
    /// Why the range or the default subnet cannot be used. A router that has given out addresses
    /// of it before goes on.
    pub unusable: Option<String>,
    /// Subnet of addresses unless another is named.
    pub default_subnet: Ipv4Net,
    /// Ways to make the first ring.
    pub init: Init,
    /// Time for which an unused lease is kept.
    pub lease_retention: Duration,
}

/// Ways to make the first ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// By election among the routers launched, or this many.
    Consensus(Option<usize>),
    /// By these peers, without election.
    Seed(Vec<PeerName>),
    /// By others.
    Observer,
}

/// Names.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// The domain, with a trailing dot.
    pub domain: String,
    /// Addresses that queries are answered on.
    pub listen: SocketAddr,
    /// Seconds that an answer may be kept.
    pub ttl: u32,
    /// Maximum time to wait for another server.
    pub fallback_timeout: Duration,
    /// Names the other servers.
    pub resolv_conf: PathBuf,
}

/// Offloads that are left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OffloadOff {
    /// Several datagrams in one send.
    pub gso: bool,
    /// Several datagrams in one receive.
    pub gro: bool,
    /// Super-frames from and to the TAP device.
    pub tap: bool,
    /// The processor's instructions for AES, without which another cipher is used.
    pub aes: bool,
}

/// All problems of the flags, one per line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub Vec<String>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .enumerate()
            .try_for_each(|(i, problem)| write!(f, "{}{problem}", if i == 0 { "" } else { "\n" }))
    }
}

impl std::error::Error for ConfigErrors {}

/// Collects problems, so that the user sees them all at once.
#[derive(Default)]
struct Problems(Vec<String>);

impl Problems {
    fn take<T>(&mut self, flag: &str, result: Result<T, String>) -> Option<T> {
        result
            .map_err(|problem| self.0.push(format!("{flag}: {problem}")))
            .ok()
    }
}

impl Config {
    /// Checks the flags. Reads the password file, and nothing else.
    pub fn resolve(flags: &LaunchFlags, hostname: &str) -> Result<Config, ConfigErrors> {
        let mut bad = Problems::default();
        let ipam = ipam(flags, &mut bad);
        let dns = dns(flags, &mut bad);
        let host = match flags.host.as_str() {
            "" => Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)),
            text => bad.take("--host", text.parse().map_err(|_| not_an("address", text))),
        };
        let name = flags.name.as_deref().and_then(|text| {
            let parsed = text.parse::<PeerName>().map_err(|error| error.to_string());
            bad.take("--name", parsed.and_then(own_name))
        });
        let trusted = bad.take("--trusted-subnets", subnets(&flags.trusted_subnets));
        let password = bad.take("--password-file", password(flags)).flatten();
        let offload_off = bad.take("--no-offload", offloads(&flags.no_offload));
        let mut listen = |flag, text: &str| bad.take(flag, Endpoint::parse(text)).flatten();
        let http_addr = listen("--http-addr", &flags.http_addr);
        let status_addr = listen("--status-addr", &flags.status_addr);
        let metrics_addr = listen("--metrics-addr", &flags.metrics_addr);
        let docker_api = listen("--docker-api", &flags.docker_api);
        let attach = match flags.attach.as_str() {
            "none" => Ok(AttachWhich::None),
            "labels" => Ok(AttachWhich::Labels),
            "all" => Ok(AttachWhich::All),
            other => Err(format!("{other:?} is none of labels, all, none")),
        };
        let attach = bad.take("--attach", attach);
        let mtu = if flags.mtu == 0 {
            DEFAULT_MTU
        } else {
            flags.mtu
        };
        let overlays = overlays(&flags.overlays, &mut bad);
        cross_checks(flags, mtu, password.is_some(), &mut bad);
        let (Some(host), Some(trusted_subnets), Some(offload_off), Some(attach), [], Some(dns)) =
            (host, trusted, offload_off, attach, bad.0.as_slice(), dns)
        else {
            return Err(ConfigErrors(bad.0));
        };
        let least = proto::wire::version_min(password.is_some());
        let min_version = flags.min_protocol_version.unwrap_or(least);
        Ok(Config {
            host,
            port: flags.port,
            name,
            nickname: flags
                .nickname
                .clone()
                .unwrap_or_else(|| hostname.to_owned()),
            password_empty: password.is_none() && flags.password.is_some(),
            password,
            require_encryption: flags.require_encryption,
            guard: GuardRules {
                allow_router_advertisements: flags.allow_router_advertisements,
                allow_dhcp_servers: flags.allow_dhcp_servers,
                ..GuardRules::default()
            },
            min_version,
            conn_limit: (flags.conn_limit != 0).then_some(flags.conn_limit),
            discovery: !flags.no_discovery,
            trusted_subnets,
            peers: flags.peers.clone(),
            resume: flags.resume,
            overlays,
            key_life: KeyLife {
                time: Duration::from_secs(flags.rekey_seconds),
                datagrams: flags.rekey_datagrams,
            },
            ipam,
            dns,
            bridge: flags.weave_bridge.clone(),
            mtu,
            queues: flags.queues,
            offload_off,
            http_addr,
            status_addr,
            metrics_addr,
            db_prefix: flags.db_prefix.clone(),
            proc_path: flags.proc_path.clone(),
            host_root: Path::new("/").join(&flags.host_root),
            import: flags.import.clone(),
            docker_api,
            docker_bridge: flags.docker_bridge.clone(),
            plugin: PluginConfig {
                weft_socket: path(&flags.weft_plugin_socket),
                legacy: flags.plugin,
                v2: flags.plugin_v2,
                v2_multicast: flags.plugin_v2_multicast,
                socket: path(&flags.plugin_socket),
                mesh_socket: path(&flags.plugin_mesh_socket),
            },
            attach,
            no_masq_local: flags.no_masq_local,
            expect_npc: flags.expect_npc,
            ignored: flags.ignored.given(),
        })
    }

    /// Returns the path of a file that keeps state: the prefix with `name` appended.
    pub fn state_file(&self, name: &str) -> PathBuf {
        prefixed(&self.db_prefix, name)
    }
}

fn cross_checks(flags: &LaunchFlags, mtu: u32, has_password: bool, bad: &mut Problems) {
    if flags.resume && !flags.peers.is_empty() {
        bad.0
            .push("--resume: give either --resume or peers to connect to, not both".into());
    }
    if flags
        .min_protocol_version
        .is_some_and(|version| !(1..=2).contains(&version))
    {
        bad.0.push("--min-protocol-version: must be 1 or 2".into());
    }
    if !(MTU_MIN..=MTU_MAX).contains(&mtu) {
        bad.0
            .push(format!("--mtu: must be between {MTU_MIN} and {MTU_MAX}"));
    }
    if flags.port == 0 {
        bad.0
            .push("--port: must not be 0, as peers have to know it".into());
    }
    let bridge = &flags.weave_bridge;
    let odd = |c: char| c == '/' || c.is_whitespace();
    if bridge.is_empty() || bridge.len() > 10 || bridge.contains(odd) {
        bad.0
            .push("--weave-bridge: must be a device name of 1 to 10 characters".into());
    }
    // The native overlay encrypts with and without a password, sleeve only with one.
    let offers_weft = flags.overlays.is_empty() || flags.overlays.iter().any(|name| name == "weft");
    if flags.require_encryption && !has_password && !offers_weft {
        bad.0.push(
            "--require-encryption: without weft among the overlays it needs a password".into(),
        );
    }
    if flags.nickname.as_ref().is_some_and(|name| name.len() > 255) {
        bad.0
            .push("--nickname: must not be longer than 255 bytes".into());
    }
    for peer in &flags.peers {
        if let Err(problem) = check_peer(peer) {
            bad.0.push(problem);
        }
    }
}

/// Returns the overlays that these names choose; all without any. Their order is always the same,
/// since both ends of a connection number them by it.
fn overlays(names: &[String], bad: &mut Problems) -> Vec<Overlay> {
    for name in names {
        if Overlay::from_name(name).is_none() {
            bad.0.push(format!(
                "--overlays: there is no overlay {name:?}, only weft and sleeve"
            ));
        }
    }
    let is_chosen =
        |overlay: &Overlay| names.is_empty() || names.iter().any(|name| name == overlay.name());
    Overlay::ALL.into_iter().filter(is_chosen).collect()
}

fn ipam(flags: &LaunchFlags, bad: &mut Problems) -> Option<IpamConfig> {
    let given = flags.ipalloc_range.as_deref();
    let range = match given {
        Some("") => {
            if !flags.ipalloc_init.is_empty() {
                bad.0.push("--ipalloc-init: needs --ipalloc-range".into());
            }
            if !flags.ipalloc_default_subnet.is_empty() {
                bad.0
                    .push("--ipalloc-default-subnet: needs --ipalloc-range".into());
            }
            return None;
        }
        Some(text) => bad.take("--ipalloc-range", subnet(text))?,
        None => DEFAULT_RANGE,
    };
    if range.prefix_len() > RANGE_PREFIX_MAX {
        bad.0.push(format!(
            "--ipalloc-range: {range} is too small, it needs at least 4 addresses"
        ));
    }
    let default_subnet = match flags.ipalloc_default_subnet.as_str() {
        "" => range,
        text => bad.take("--ipalloc-default-subnet", subnet(text))?,
    };
    if !default_subnet.contains(&range) && !range.contains(&default_subnet) {
        bad.0.push(format!(
            "--ipalloc-default-subnet: {default_subnet} does not overlap --ipalloc-range {range}"
        ));
    }
    let unusable = [
        ("--ipalloc-range", range),
        ("--ipalloc-default-subnet", default_subnet),
    ];
    let unusable = unusable.iter().find_map(|(flag, net)| {
        let checked = Cidr::parse_address(&net.to_string());
        checked.err().map(|error| format!("{flag}: {error}"))
    });
    let init = bad.take("--ipalloc-init", init(&flags.ipalloc_init))?;
    let lease_retention = bad.take("--lease-retention", duration(&flags.lease_retention))?;
    Some(IpamConfig {
        range,
        range_given: given.is_some(),
        unusable,
        default_subnet,
        init,
        lease_retention,
    })
}

fn dns(flags: &LaunchFlags, bad: &mut Problems) -> Option<Option<DnsConfig>> {
    if flags.no_dns {
        return Some(None);
    }
    let text = &flags.dns_listen_address;
    let address = if text.starts_with(':') {
        format!("0.0.0.0{text}")
    } else {
        text.clone()
    };
    let listen = address
        .parse()
        .map_err(|_| not_an("address like 0.0.0.0:53", text));
    let listen = bad.take("--dns-listen-address", listen);
    let timeout = bad.take(
        "--dns-fallback-timeout",
        duration(&flags.dns_fallback_timeout),
    );
    let mut domain = flags.dns_domain.trim_start_matches('.').to_owned();
    if !domain.ends_with('.') {
        domain.push('.');
    }
    if domain.len() > 200 || domain.parse::<Domain>().is_err() {
        bad.0
            .push(format!("--dns-domain: {:?} is no domain", flags.dns_domain));
    }
    let resolv_conf = match flags.resolv_conf.as_str() {
        "" => Path::new("/")
            .join(&flags.host_root)
            .join("etc/resolv.conf"),
        file => PathBuf::from(file),
    };
    let ttl = flags.dns_ttl;
    Some(Some(DnsConfig {
        domain,
        listen: listen?,
        ttl,
        fallback_timeout: timeout?,
        resolv_conf,
    }))
}

fn not_an(what: &str, text: &str) -> String {
    format!("{text:?} is no {what}")
}

fn not_unknown(name: PeerName) -> Result<PeerName, String> {
    if name == PeerName::UNKNOWN {
        Err("the all-zero name means 'no peer'".into())
    } else {
        Ok(name)
    }
}

/// Returns our own name is the MAC address of the bridge as well.
fn own_name(name: PeerName) -> Result<PeerName, String> {
    let name = not_unknown(name)?;
    if name.as_bytes()[0] & 1 == 1 {
        return Err(format!(
            "{name} is a multicast address, which no device can have; the second digit must be even"
        ));
    }
    Ok(name)
}

fn subnet(text: &str) -> Result<Ipv4Net, String> {
    let net: Ipv4Net = text
        .parse()
        .map_err(|_| format!("invalid CIDR address: {text}"))?;
    if net.trunc() == net {
        Ok(net)
    } else {
        Err(format!(
            "{net} has bits set after its prefix: {} is meant?",
            net.trunc()
        ))
    }
}

fn subnets(list: &str) -> Result<Vec<Ipv4Net>, String> {
    list.split(',')
        .map(str::trim)
        .filter(|text| !text.is_empty())
        .map(subnet)
        .collect()
}

fn password(flags: &LaunchFlags) -> Result<Option<Vec<u8>>, String> {
    let Some(file) = &flags.password_file else {
        let given = flags
            .password
            .as_deref()
            .filter(|password| !password.is_empty());
        return Ok(given.map(|password| password.as_bytes().to_vec()));
    };
    let text = std::fs::read(file).map_err(|error| format!("{}: {error}", file.display()))?;
    let line = text.split(|b| *b == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let other = flags.password.as_deref().unwrap_or_default().as_bytes();
    if !other.is_empty() && other != line {
        return Err("its password is another than that of --password or WEAVE_PASSWORD".into());
    }
    if line.is_empty() {
        return Err(format!(
            "{} has no password on its first line",
            file.display()
        ));
    }
    Ok(Some(line.to_vec()))
}

fn offloads(names: &[String]) -> Result<OffloadOff, String> {
    let mut off = OffloadOff::default();
    for name in names {
        match name.as_str() {
            "gso" => off.gso = true,
            "gro" => off.gro = true,
            "tap" => off.tap = true,
            "aes" => off.aes = true,
            other => return Err(format!("{other:?} is none of gso, gro, tap, aes")),
        }
    }
    Ok(off)
}

fn init(text: &str) -> Result<Init, String> {
    let (mode, value) = match text.split_once('=') {
        Some((mode, value)) => (mode, Some(value)),
        None => (text, None),
    };
    match (mode, value) {
        ("" | "consensus", None) => Ok(Init::Consensus(None)),
        ("consensus", Some(count)) => {
            let count = count
                .parse()
                .map_err(|_| not_an("number of routers", count))?;
            Ok(Init::Consensus((count != 0).then_some(count)))
        }
        ("seed", Some(names)) => {
            let parse = |name: &str| {
                name.parse()
                    .map_err(|_| not_an("peer name", name))
                    .and_then(not_unknown)
            };
            names
                .split(',')
                .map(parse)
                .collect::<Result<_, _>>()
                .map(Init::Seed)
        }
        ("observer", None) => Ok(Init::Observer),
        _ => Err(format!(
            "{text:?} is none of consensus[=COUNT], seed=NAME,..., observer"
        )),
    }
}

#[cfg(test)]
mod tests;
