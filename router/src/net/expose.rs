//! Giving the host itself an address in the overlay, and masquerading between the two.
//!
//! An exposed address sits on the bridge. With masquerading, containers of its subnet reach the
//! world outside under the host's addresses, and what is not in the subnet reaches containers
//! under the exposed address. That takes forwarding, so `net.ipv4.ip_forward` is switched on if it
//! is off; it stays on afterwards, as others may have come to rely on it.
//!
//! Nothing is remembered here: the addresses of the bridge and the rules in the kernel are what
//! is exposed, so a router that starts again finds them.

use ipnet::Ipv4Net;

use super::attach::keep_secondaries;
use super::bridge::Bridge;
use super::netlink::Netlink;
use super::rollback::Rollback;
use super::{NetError, arp, sysctl};
use crate::firewall::HostRules;

/// An address of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The address with its subnet.
    pub address: Ipv4Net,
    /// Whether its subnet is masqueraded.
    pub masquerade: bool,
}

/// Gives the bridge an address, or changes whether the subnet of one it has is masqueraded.
/// Returns whether the address is new. On failure everything that this call did is undone.
pub fn expose(bridge: &str, address: Ipv4Net, masquerade: bool) -> Result<bool, NetError> {
    let netlink = Netlink::open()?;
    let bridge = Bridge::named(&netlink, bridge)?;
    let mut rollback = Rollback::new();
    let new = netlink.add_address(&bridge.link, address.into())?;
    if new {
        let (netlink, link) = (&netlink, &bridge.link);
        rollback.on_failure(move || netlink.delete_address(link, address.into()).map(drop));
    }
    let before = HostRules::read()?;
    let mut rules = before.clone();
    let subnet = address.trunc();
    let changed = if masquerade {
        rules.masqueraded.insert(subnet)
    } else {
        rules.masqueraded.remove(&subnet)
    };
    if changed {
        rules.apply()?;
        rollback.on_failure(move || before.apply());
    }
    if masquerade {
        sysctl::set(FORWARDING, "1")?;
    }
    arp::announce(&bridge.link, &[address.addr()])?;
    rollback.commit();
    Ok(new)
}

/// Takes addresses from the bridge: the given one, or all. Returns those that it had. The rules of
/// a subnet go with its last address.
pub fn hide(bridge: &str, address: Option<Ipv4Net>) -> Result<Vec<Ipv4Net>, NetError> {
    let netlink = Netlink::open()?;
    let mut rules = HostRules::read()?;
    let Some(bridge) = Bridge::find(&netlink, bridge)? else {
        rules.masqueraded.clear();
        rules.apply()?;
        return Ok(Vec::new());
    };
    keep_secondaries(&bridge.link.name)?;
    let mut hidden = Vec::new();
    let mut left = Vec::new();
    for network in ipv4_addresses(&netlink, &bridge)? {
        if address.is_none_or(|address| address.addr() == network.addr()) {
            netlink.delete_address(&bridge.link, network.into())?;
            hidden.push(network);
        } else {
            left.push(network.trunc());
        }
    }
    let before = rules.masqueraded.len();
    rules.masqueraded.retain(|subnet| left.contains(subnet));
    if rules.masqueraded.len() != before {
        rules.apply()?;
    }
    Ok(hidden)
}

/// What is exposed.
pub fn exposed(bridge: &str) -> Result<Vec<Exposed>, NetError> {
    let netlink = Netlink::open()?;
    let Some(bridge) = Bridge::find(&netlink, bridge)? else {
        return Ok(Vec::new());
    };
    let rules = HostRules::read()?;
    let addresses = ipv4_addresses(&netlink, &bridge)?.into_iter();
    Ok(addresses
        .map(|address| Exposed {
            address,
            masquerade: rules.masqueraded.contains(&address.trunc()),
        })
        .collect())
}

fn ipv4_addresses(netlink: &Netlink, bridge: &Bridge) -> Result<Vec<Ipv4Net>, NetError> {
    let addresses = bridge.addresses(netlink)?.into_iter();
    Ok(addresses
        .filter_map(|network| match network {
            ipnet::IpNet::V4(network) => Some(network),
            ipnet::IpNet::V6(_) => None,
        })
        .collect())
}

const FORWARDING: &str = "ipv4/ip_forward";

#[cfg(test)]
mod tests;
