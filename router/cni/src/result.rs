//! The result of ADD, in the shape of each version.

use std::net::IpAddr;

use ipnet::IpNet;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};

use crate::conf::Version;
use crate::error::{CniError, Code};

/// A container's addresses and interfaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// The interfaces that were made, on the host and in the container.
    pub interfaces: Vec<Interface>,
    /// Its addresses.
    pub ips: Vec<Ip>,
    /// Its routes.
    pub routes: Vec<RouteEntry>,
    /// Its resolver configuration; copied from the network's.
    pub dns: Map<String, Value>,
}

/// An interface that was made.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name.
    pub name: String,
    /// Its MAC address.
    pub mac: String,
    /// Its MTU in bytes.
    pub mtu: Option<u32>,
    /// The namespace it is in; empty for the host's.
    pub sandbox: String,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Ip {
    /// The address with its subnet.
    #[serde(deserialize_with = "network")]
    pub address: IpNet,
    /// The way out of the subnet.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Which interface has it.
    #[serde(default)]
    pub interface: Option<usize>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct RouteEntry {
    /// Its destination.
    #[serde(deserialize_with = "network")]
    pub dst: IpNet,
    /// The next hop; that of the address if not given.
    #[serde(default)]
    pub gw: Option<IpAddr>,
}

impl Outcome {
    /// Reads a result of any version, as other plugins print it.
    pub fn read(value: &Value) -> Result<Outcome, CniError> {
        let bad = |error: serde_json::Error| CniError::new(Code::Decode, "invalid result", error);
        let list = |value: &Value| match value {
            Value::Null => Value::Array(Vec::new()),
            list => list.clone(),
        };
        let mut outcome = Outcome {
            interfaces: serde_json::from_value(list(&value["interfaces"])).map_err(bad)?,
            ips: serde_json::from_value(list(&value["ips"])).map_err(bad)?,
            routes: serde_json::from_value(list(&value["routes"])).map_err(bad)?,
            dns: value["dns"].as_object().cloned().unwrap_or_default(),
        };
        // Until 0.2.0 there is one address of each family.
        for family in ["ip4", "ip6"] {
            let old = &value[family];
            if old.is_null() {
                continue;
            }
            let mut ip = json!({ "address": old["ip"] });
            if old["gateway"].is_string() {
                ip["gateway"] = old["gateway"].clone();
            }
            outcome.ips.push(serde_json::from_value(ip).map_err(bad)?);
            let routes = serde_json::from_value::<Vec<RouteEntry>>(list(&old["routes"]));
            outcome.routes.extend(routes.map_err(bad)?);
        }
        Ok(outcome)
    }

    /// Writes it for a runtime that speaks `version`.
    pub fn to_json(&self, version: Version) -> Value {
        if version <= Version::V0_2_0 {
            return self.to_old_json(version);
        }
        let mut value = json!({ "cniVersion": version.text() });
        if !self.interfaces.is_empty() {
            let interfaces = self.interfaces.iter();
            value["interfaces"] = interfaces.map(|i| i.to_json(version)).collect();
        }
        value["ips"] = self.ips.iter().map(|ip| ip.to_json(version)).collect();
        if !self.routes.is_empty() {
            value["routes"] = self.routes.iter().map(RouteEntry::to_json).collect();
        }
        value["dns"] = Value::Object(self.dns.clone());
        value
    }

    fn to_old_json(&self, version: Version) -> Value {
        let mut value = json!({ "cniVersion": version.text() });
        for (key, is_v4) in [("ip4", true), ("ip6", false)] {
            let mut ips = self.ips.iter();
            let Some(ip) = ips.find(|ip| ip.address.addr().is_ipv4() == is_v4) else {
                continue;
            };
            let mut old = json!({ "ip": ip.address.to_string() });
            if let Some(gateway) = ip.gateway {
                old["gateway"] = gateway.to_string().into();
            }
            let routes = self.routes.iter();
            let routes = routes.filter(|route| route.dst.addr().is_ipv4() == is_v4);
            let routes: Vec<Value> = routes.map(RouteEntry::to_json).collect();
            if !routes.is_empty() {
                old["routes"] = routes.into();
            }
            value[key] = old;
        }
        value["dns"] = Value::Object(self.dns.clone());
        value
    }
}

impl Interface {
    fn to_json(&self, version: Version) -> Value {
        let mut value = json!({ "name": self.name });
        if !self.mac.is_empty() {
            value["mac"] = self.mac.clone().into();
        }
        if let Some(mtu) = self.mtu.filter(|_| version >= Version::V1_1_0) {
            value["mtu"] = mtu.into();
        }
        if !self.sandbox.is_empty() {
            value["sandbox"] = self.sandbox.clone().into();
        }
        value
    }
}

impl Ip {
    fn to_json(&self, version: Version) -> Value {
        let mut value = json!({});
        if version < Version::V1_0_0 {
            let family = if self.address.addr().is_ipv4() {
                "4"
            } else {
                "6"
            };
            value["version"] = family.into();
        }
        value["address"] = self.address.to_string().into();
        if let Some(gateway) = self.gateway {
            value["gateway"] = gateway.to_string().into();
        }
        if let Some(interface) = self.interface {
            value["interface"] = interface.into();
        }
        value
    }
}

impl RouteEntry {
    fn to_json(&self) -> Value {
        let mut value = json!({ "dst": self.dst.to_string() });
        if let Some(gw) = self.gw {
            value["gw"] = gw.to_string().into();
        }
        value
    }
}

fn network<'de, D: Deserializer<'de>>(deserializer: D) -> Result<IpNet, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse()
        .map_err(|_| D::Error::custom(format!("{text:?} is no address with a prefix")))
}
