//! The plugin's operations on interfaces: creating, removing and inspecting them. All of them wait
//! for the kernel.

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;

use ipnet::{IpNet, Ipv4Net};
use proto::types::Mac;

use super::conf::NetConf;
use super::result::{Outcome, RouteEntry};
use crate::complaint::complain;
use host::alias::ALIAS;
use host::attach::{self, AttachRequest, Attached, DetachRequest};
use host::bridge::Bridge;
use kernel::error::NetError;
use kernel::netlink::{Netlink, Route};
use kernel::netns::Namespace;

fn only_ipv4(networks: Vec<IpNet>) -> Vec<Ipv4Net> {
    let v4 = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    networks.into_iter().filter_map(v4).collect()
}

pub(super) fn bridge_addresses(bridge: &str) -> Result<Vec<Ipv4Net>, NetError> {
    let netlink = Netlink::open()?;
    let bridge = Bridge::named(&netlink, bridge)?;
    Ok(only_ipv4(bridge.addresses(&netlink)?))
}

/// Returns the addresses of an interface of a namespace; none if it does not exist.
pub(super) fn addresses_of(target: &Namespace, interface: &str) -> Result<Vec<Ipv4Net>, NetError> {
    let netlink = target.netlink()?;
    match netlink.link(interface)? {
        Some(link) => Ok(only_ipv4(netlink.addresses_of(link.index)?)),
        None => Ok(Vec::new()),
    }
}

/// An interface to create.
pub(super) struct Plan {
    pub(super) conf: NetConf,
    pub(super) interface: String,
    pub(super) owner: String,
    pub(super) target: Namespace,
    pub(super) mac: Option<Mac>,
    pub(super) addresses: Vec<Ipv4Net>,
    pub(super) routes: Vec<RouteEntry>,
    pub(super) gateway: Option<IpAddr>,
}

impl Plan {
    /// Returns what was made, and the MTU of it.
    pub(super) fn carry_out(&self) -> Result<(Attached, u32), NetError> {
        let request = AttachRequest {
            interface: &self.interface,
            addresses: &self.addresses,
            owner: Some(&self.owner),
            mac: self.mac,
            mtu: self.conf.mtu,
            hairpin: self.conf.hairpin,
            multicast_route: false,
            ..AttachRequest::new(&self.conf.bridge, &self.target)
        };
        let attached = attach::attach(&request)?;
        match self.add_routes() {
            Ok(mtu) => Ok((attached, mtu)),
            Err(error) => {
                let addresses = (!attached.created).then_some(attached.added.as_slice());
                let undone = attach::detach(&DetachRequest {
                    bridge: &self.conf.bridge,
                    target: &self.target,
                    interface: &self.interface,
                    addresses,
                });
                undone?;
                Err(error)
            }
        }
    }

    fn add_routes(&self) -> Result<u32, NetError> {
        let netlink = self.target.netlink()?;
        let link = netlink.link_named(&self.interface)?;
        let on_link = |to: IpNet| {
            self.addresses
                .iter()
                .any(|net| IpNet::V4(*net).contains(&to))
        };
        if let Some(IpAddr::V4(gateway)) = self.gateway
            && !on_link(host_net(gateway))
        {
            netlink.add_route(&Route::on_link(host_net(gateway), link.index))?;
        }
        for route in &self.routes {
            let mut added = match route.gw.or(self.gateway) {
                Some(gateway) => Route::through(route.dst, gateway),
                None => Route::on_link(route.dst, link.index),
            };
            added.link = Some(link.index);
            netlink.add_route(&added)?;
        }
        Ok(link.mtu)
    }
}

fn host_net(address: Ipv4Addr) -> IpNet {
    IpNet::V4(Ipv4Net::from(address))
}

/// An interface to remove.
pub(super) struct Removal {
    pub(super) bridge: String,
    pub(super) netns: Option<PathBuf>,
    pub(super) interface: String,
    pub(super) owner: String,
}

/// What was removed with it.
pub(super) enum Removed {
    /// The container is gone, with all of its interfaces.
    NoNamespace,
    /// These addresses.
    Addresses(Vec<Ipv4Net>),
}

impl Removal {
    pub(super) fn carry_out(&self) -> Result<Removed, NetError> {
        let target = match self.netns.as_deref().map(Namespace::at) {
            None | Some(Err(NetError::NoNamespace { .. } | NetError::NotANamespace { .. })) => None,
            Some(target) => Some(target?),
        };
        let mut removed = Removed::NoNamespace;
        let mut deleted = false;
        if let Some(target) = &target {
            removed = Removed::Addresses(Vec::new());
            if *target != Namespace::current()? {
                let request = DetachRequest {
                    bridge: &self.bridge,
                    target,
                    interface: &self.interface,
                    addresses: None,
                };
                match attach::detach(&request) {
                    Ok(detached) => {
                        deleted = detached.deleted;
                        removed = Removed::Addresses(detached.removed);
                    }
                    Err(error @ NetError::ForeignInterface { .. }) => {
                        complain(&error.to_string());
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        if !deleted {
            // Its namespace may be kept alive by something that does not show.
            let alias = format!("{ALIAS} {}", self.owner);
            delete_host_ends(&|found| found == alias)?;
        }
        Ok(removed)
    }
}

/// Deletes the pairs whose end on the host has such an alias.
pub(super) fn delete_host_ends(is_meant: &dyn Fn(&str) -> bool) -> Result<(), NetError> {
    let netlink = Netlink::open()?;
    for link in netlink.links()? {
        if link.kind.as_deref() == Some("veth") && link.alias.as_deref().is_some_and(is_meant) {
            netlink.delete_link(&link)?;
        }
    }
    Ok(())
}

/// An interface to restore.
pub(super) struct Inspection {
    pub(super) bridge: String,
    pub(super) interface: String,
    pub(super) sandbox: Option<PathBuf>,
    pub(super) target: Namespace,
    pub(super) previous: Outcome,
}

impl Inspection {
    /// Returns what is not as it was, if anything.
    pub(super) fn carry_out(&self) -> Result<Option<String>, NetError> {
        let request = DetachRequest {
            bridge: &self.bridge,
            target: &self.target,
            interface: &self.interface,
            addresses: None,
        };
        let Some(found) = attach::find(&request)? else {
            return Ok(Some("it is gone".into()));
        };
        let sandbox = self.sandbox.as_ref().map(|path| path.display().to_string());
        let mut ours = None;
        for (index, interface) in self.previous.interfaces.iter().enumerate() {
            if interface.name == self.interface && Some(&interface.sandbox) == sandbox.as_ref() {
                ours = Some(index);
                let mac = found.mac.map(|mac| mac.to_string()).unwrap_or_default();
                if !interface.mac.is_empty() && !interface.mac.eq_ignore_ascii_case(&mac) {
                    let expected = &interface.mac;
                    return Ok(Some(format!("its MAC address is {mac}, not {expected}")));
                }
            }
        }
        let Some(ours) = ours else {
            return Ok(Some("prevResult does not name it".into()));
        };
        if !found.up {
            return Ok(Some("it is down".into()));
        }
        for ip in &self.previous.ips {
            let meant = ip.interface.is_none_or(|index| index == ours);
            if meant
                && !found
                    .addresses
                    .iter()
                    .any(|net| IpNet::V4(*net) == ip.address)
            {
                return Ok(Some(format!("it lacks the address {}", ip.address)));
            }
        }
        let routes = self.target.netlink()?.routes()?;
        for wanted in &self.previous.routes {
            if !routes
                .iter()
                .any(|route| route.destination == wanted.dst.trunc())
            {
                return Ok(Some(format!("the route to {} is gone", wanted.dst)));
            }
        }
        Ok(None)
    }
}
