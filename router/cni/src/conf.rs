//! The network's configuration, as it stands in a conflist and as the runtime completes it.

use std::net::Ipv4Addr;
use std::path::PathBuf;

use ipnet::Ipv4Net;
use proto::types::Mac;
use serde::Deserialize;
use serde_json::Value;

use super::result::RouteEntry;
use crate::error::{CniError, Code};
use crate::invocation::{Call, Command};
use web::endpoint::Endpoint;

/// The bridge, unless the configuration names another.
const BRIDGE: &str = "weave";
/// Default folder for addresses that could not be given back.
const STATE_DIR: &str = "/var/lib/weft/cni";
/// Default address of the router's control interface.
const HTTP_ADDR: &str = "127.0.0.1:6784";
/// Longest name of a network, in bytes; a longer one is refused.
const NAME_BYTES_MAX: usize = 75;

/// A version of the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Version {
    /// 0.1.0
    V0_1_0,
    /// 0.2.0
    V0_2_0,
    /// 0.3.0: several addresses, interfaces.
    V0_3_0,
    /// 0.3.1
    V0_3_1,
    /// 0.4.0: CHECK.
    V0_4_0,
    /// 1.0.0: no IP version in results.
    V1_0_0,
    /// 1.1.0: GC and STATUS.
    V1_1_0,
}

impl Version {
    /// All that this version knows.
    pub const ALL: [Version; 7] = [
        Version::V0_1_0,
        Version::V0_2_0,
        Version::V0_3_0,
        Version::V0_3_1,
        Version::V0_4_0,
        Version::V1_0_0,
        Version::V1_1_0,
    ];
    /// The newest that we know.
    pub const NEWEST: Version = Version::V1_1_0;

    /// As configurations write it.
    pub const fn text(self) -> &'static str {
        match self {
            Version::V0_1_0 => "0.1.0",
            Version::V0_2_0 => "0.2.0",
            Version::V0_3_0 => "0.3.0",
            Version::V0_3_1 => "0.3.1",
            Version::V0_4_0 => "0.4.0",
            Version::V1_0_0 => "1.0.0",
            Version::V1_1_0 => "1.1.0",
        }
    }

    /// Returns the version of this name. None named is the first.
    pub fn named(text: &str) -> Option<Version> {
        if text.is_empty() {
            return Some(Version::V0_1_0);
        }
        Version::ALL
            .into_iter()
            .find(|version| version.text() == text)
    }

    /// Refuses commands that this version does not have.
    pub(super) fn check_knows(self, command: Command) -> Result<(), CniError> {
        let since = match command {
            Command::Check => Version::V0_4_0,
            Command::Gc | Command::Status => Version::V1_1_0,
            Command::Add | Command::Del | Command::Version => Version::V0_1_0,
        };
        if self >= since {
            return Ok(());
        }
        Err(CniError::new(
            Code::Version,
            format!("config version does not allow {}", command.name()),
            format!("{} has it, {} does not", since.text(), self.text()),
        ))
    }
}

impl Command {
    /// As the environment writes it.
    pub const fn name(self) -> &'static str {
        match self {
            Command::Add => "ADD",
            Command::Del => "DEL",
            Command::Check => "CHECK",
            Command::Gc => "GC",
            Command::Status => "STATUS",
            Command::Version => "VERSION",
        }
    }
}

/// The configuration, with every default filled in.
#[derive(Clone, Debug)]
pub struct NetConf {
    /// Its version, which results have as well.
    pub version: Version,
    /// The network's name.
    pub name: String,
    /// The bridge.
    pub bridge: String,
    /// The MTU of container interfaces in bytes; that of the bridge if not given.
    pub mtu: Option<u32>,
    /// Whether a container gets back what it sends to itself by way of the bridge.
    pub hairpin: bool,
    /// Whether the network wants the plugin to be a gateway; it is not.
    pub is_gateway: bool,
    /// Whether the network wants the plugin to masquerade; it does not.
    pub ip_masq: bool,
    /// The source of addresses.
    pub ipam: IpamConf,
    /// Copied to the result.
    pub dns: Value,
    /// Whether a pod has the same address wherever it runs next.
    pub sticky: bool,
    /// Address of the router's control interface.
    pub http_addr: Endpoint,
    /// Folder for addresses that could not be released.
    pub state_dir: PathBuf,
    /// The addresses that the runtime wants the container to have.
    pub wanted: Vec<Wanted>,
    /// The MAC address that the runtime wants the interface to have.
    pub mac: Option<Mac>,
    /// The result of ADD, for CHECK and DEL.
    pub previous: Option<Value>,
    /// The attachments that exist, for GC.
    pub attachments: Option<Vec<Attachment>>,
}

/// An address that a runtime asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its subnet's prefix; that of the network's subnet if not given.
    pub prefix: Option<u8>,
}

/// The source of addresses.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IpamConf {
    /// The plugin that gives them; `None` is the router.
    pub delegate: Option<String>,
    /// The subnet; the router's default if not given.
    pub subnet: Option<Ipv4Net>,
    /// The gateway of the container.
    pub gateway: Option<std::net::IpAddr>,
    /// Its routes.
    pub routes: Vec<RouteEntry>,
}

/// An interface of a container, by its names.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// The container.
    #[serde(rename = "containerID")]
    pub container: String,
    /// The interface in it.
    #[serde(rename = "ifname")]
    pub interface: String,
}

/// The keys as they stand in the text.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Keys {
    name: String,
    bridge: String,
    mtu: u32,
    hairpin_mode: bool,
    is_gateway: bool,
    ip_masq: bool,
    ipam: IpamKeys,
    dns: serde_json::Map<String, Value>,
    sticky: bool,
    http_addr: String,
    state_dir: PathBuf,
    runtime_config: RuntimeKeys,
    prev_result: Option<Value>,
    #[serde(rename = "cni.dev/valid-attachments")]
    valid_attachments: Option<Vec<Attachment>>,
    #[serde(rename = "cni.dev/attachments")]
    attachments: Option<Vec<Attachment>>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct IpamKeys {
    r#type: String,
    subnet: String,
    gateway: String,
    routes: Vec<RouteEntry>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct RuntimeKeys {
    ips: Vec<String>,
    mac: String,
}

impl Default for Keys {
    fn default() -> Keys {
        let http_addr = std::env::var("WEAVE_HTTP_ADDR").unwrap_or_default();
        Keys {
            name: String::new(),
            bridge: BRIDGE.into(),
            mtu: 0,
            hairpin_mode: true,
            is_gateway: false,
            ip_masq: false,
            ipam: IpamKeys::default(),
            dns: serde_json::Map::new(),
            sticky: false,
            http_addr: Some(http_addr)
                .filter(|address| !address.is_empty())
                .unwrap_or_else(|| HTTP_ADDR.into()),
            state_dir: STATE_DIR.into(),
            runtime_config: RuntimeKeys::default(),
            prev_result: None,
            valid_attachments: None,
            attachments: None,
        }
    }
}

impl NetConf {
    /// Returns the version of a configuration.
    pub fn version_of(text: &str) -> Result<Version, CniError> {
        let value = parse(text)?;
        let version = match &value["cniVersion"] {
            Value::Null => "",
            Value::String(version) => version,
            other => {
                return Err(CniError::new(
                    Code::Decode,
                    "failed to load netconf",
                    format!("cniVersion is {other}, not a text"),
                ));
            }
        };
        Version::named(version).ok_or_else(|| {
            let known = Version::ALL.map(Version::text).join(", ");
            CniError::new(
                Code::Version,
                "incompatible CNI versions",
                format!("config is {version:?}, plugin supports {known}"),
            )
        })
    }

    /// Reads a configuration. Keys that are not ours are passed over.
    pub fn read(text: &str) -> Result<NetConf, CniError> {
        let version = NetConf::version_of(text)?;
        let value = parse(text)?;
        // A list in place of an object would be taken for its values in order.
        for key in ["ipam", "runtimeConfig"] {
            if value.get(key).is_some_and(|value| !value.is_object()) {
                let why = format!("{key} is no object");
                return Err(CniError::new(Code::Decode, "failed to load netconf", why));
            }
        }
        let keys: Keys = serde_json::from_value(value)
            .map_err(|error| CniError::new(Code::Decode, "failed to load netconf", error))?;
        check_name(&keys.name)?;
        kernel::netlink::check_name(&keys.bridge).map_err(|e| wrong("bridge", e))?;
        let http_addr = Endpoint::parse(&keys.http_addr)
            .and_then(|address| address.ok_or_else(|| "must not be empty".to_owned()))
            .map_err(|error| wrong("httpAddr", error))?;
        let ips = keys.runtime_config.ips.iter();
        let mac = keys.runtime_config.mac;
        Ok(NetConf {
            version,
            name: keys.name,
            bridge: keys.bridge,
            mtu: (keys.mtu != 0).then_some(keys.mtu),
            hairpin: keys.hairpin_mode,
            is_gateway: keys.is_gateway,
            ip_masq: keys.ip_masq,
            ipam: keys.ipam.check()?,
            dns: Value::Object(keys.dns),
            sticky: keys.sticky,
            http_addr,
            state_dir: keys.state_dir,
            wanted: ips
                .map(|ip| address(ip).map_err(|why| wrong("runtimeConfig.ips", why)))
                .collect::<Result<_, _>>()?,
            mac: match mac.as_str() {
                "" => None,
                text => Some(hardware(text).map_err(|why| wrong("runtimeConfig.mac", why))?),
            },
            previous: keys.prev_result,
            attachments: keys.valid_attachments.or(keys.attachments),
        })
    }

    /// Takes up what a runtime asks for by `CNI_ARGS` (`IP`, `MAC`), as podman does, where its
    /// `runtimeConfig` does not say.
    pub fn hear(&mut self, call: &Call) -> Result<(), CniError> {
        let get = |name: &str| call.arguments.get(name).filter(|text| !text.is_empty());
        let wrong = |why: String| CniError::new(Code::Environment, "invalid CNI_ARGS", why);
        if let Some(text) = get("IP").filter(|_| self.wanted.is_empty()) {
            self.wanted.push(address(text).map_err(wrong)?);
        }
        if let Some(text) = get("MAC").filter(|_| self.mac.is_none()) {
            self.mac = Some(hardware(text).map_err(wrong)?);
        }
        Ok(())
    }
}

impl IpamKeys {
    fn check(self) -> Result<IpamConf, CniError> {
        let delegate = match self.r#type.as_str() {
            "" | "weft-ipam" | "weave-ipam" => None,
            name if name.contains('/') || name == ".." => {
                return Err(wrong(
                    "ipam.type",
                    format!("{name:?} is no name of a plugin"),
                ));
            }
            name => Some(name.to_owned()),
        };
        // What another plugin makes of its keys is its own affair.
        if delegate.is_some() {
            return Ok(IpamConf {
                delegate,
                ..IpamConf::default()
            });
        }
        let subnet = match self.subnet.as_str() {
            "" => None,
            text => {
                let subnet: Ipv4Net = text
                    .parse()
                    .map_err(|_| wrong("ipam.subnet", format!("{text:?} is no IPv4 subnet")))?;
                if subnet != subnet.trunc() {
                    let meant = subnet.trunc();
                    return Err(wrong(
                        "ipam.subnet",
                        format!("{subnet} has bits set after its prefix: {meant} is meant?"),
                    ));
                }
                Some(subnet)
            }
        };
        let gateway = match self.gateway.as_str() {
            "" => None,
            text => Some(
                text.parse()
                    .map_err(|_| wrong("ipam.gateway", format!("{text:?} is no address")))?,
            ),
        };
        Ok(IpamConf {
            delegate,
            subnet,
            gateway,
            routes: self.routes,
        })
    }
}

/// JSON without the keys that have no value: writing `null` is the same as writing nothing.
fn parse(text: &str) -> Result<Value, CniError> {
    let mut value: Value = serde_json::from_str(text)
        .map_err(|error| CniError::new(Code::Decode, "failed to load netconf", error))?;
    if !value.is_object() {
        return Err(CniError::new(
            Code::Decode,
            "failed to load netconf",
            "it is no JSON object",
        ));
    }
    drop_nulls(&mut value);
    Ok(value)
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            map.values_mut().for_each(drop_nulls);
        }
        Value::Array(list) => list.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

fn wrong(key: &str, why: impl std::fmt::Display) -> CniError {
    CniError::new(Code::Config, format!("invalid {key}"), why)
}

/// Returns a letter or digit, then also `_`, `.` and `-`.
fn check_name(name: &str) -> Result<(), CniError> {
    let starts = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    if name.is_empty() {
        return Err(wrong("name", "missing network name"));
    }
    if !starts || !name.chars().all(goes_on) || name.len() > NAME_BYTES_MAX {
        return Err(wrong("name", format!("{name:?} is no name of a network")));
    }
    Ok(())
}

fn address(text: &str) -> Result<Wanted, String> {
    let (address, prefix) = match text.split_once('/') {
        Some(_) => {
            let net = text.parse::<Ipv4Net>().ok();
            net.map(|net| (net.addr(), Some(net.prefix_len())))
        }
        None => text.parse().ok().map(|address| (address, None)),
    }
    .ok_or_else(|| format!("{text:?} is no IPv4 address, like 10.7.0.5 or 10.7.0.5/16"))?;
    Ok(Wanted { address, prefix })
}

fn hardware(text: &str) -> Result<Mac, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is no MAC address"))
}
