//! The bridge that containers and the router's TAP device are ports of.
//!
//! The bridge outlives the router: local traffic goes on while it is away, and its next start
//! adopts what it finds. A bridge that somebody else made (a Weave Net router, the user) is used as
//! it is, with its ports, but stays theirs: only what carries our alias is ever deleted.

use std::path::Path;

use ipnet::IpNet;
use proto::types::Mac;

use super::attach;
use super::undo::{Failures, Rollback};
use crate::alias::{ALIAS, is_ours};
use kernel::arp::NeighbourTiming;
use kernel::error::NetError;
use kernel::netlink::{Link, LinkChange, LinkIndex, Netlink, NewBridge};
use kernel::sysctl;

/// Desired state of the bridge.
#[derive(Clone, Debug)]
pub struct BridgeConfig<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC address: the name of our peer.
    pub mac: Mac,
    /// Its MTU in bytes: that of what the host itself sends, and of new container interfaces. Its
    /// ports take larger frames.
    pub mtu: u32,
    /// Times after which the host doubts the addresses of containers.
    pub timing: NeighbourTiming,
}

/// Origin of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Made by this call.
    Created,
    /// Made by an earlier run of ours.
    Adopted,
    /// Made by somebody else.
    Foreign,
}

/// A bridge that is set up.
#[derive(Clone, Debug)]
pub struct Bridge {
    /// Its device.
    pub link: Link,
    /// Its origin.
    pub origin: Origin,
}

impl Bridge {
    /// Makes the bridge if there is none, and gives it the properties of `config`. Its addresses
    /// and ports stay. On failure a bridge that this call made is deleted.
    pub fn ensure(netlink: &Netlink, config: &BridgeConfig<'_>) -> Result<Bridge, NetError> {
        let mut rollback = Rollback::new();
        let found = Bridge::find(netlink, config.name)?;
        let created = found.is_none();
        let mut bridge = match found {
            Some(bridge) => bridge,
            None => {
                netlink.create_bridge(&NewBridge {
                    name: config.name,
                    mac: Some(config.mac),
                })?;
                let link = netlink.link_named(config.name)?;
                let undo = link.clone();
                rollback.on_failure(move || netlink.delete_link(&undo).map(drop));
                Bridge {
                    link,
                    origin: Origin::Created,
                }
            }
        };
        pin_mtu(netlink, &bridge.link, config.mtu)?;
        // The MAC is set also where it is the same, which keeps it from following the ports.
        let change = LinkChange {
            mac: Some(config.mac),
            alias: created.then_some(ALIAS),
            ..LinkChange::default()
        };
        netlink.change_link(&bridge.link, &change)?;
        // Without IPv6 there is no such setting.
        sysctl::set_if_present(&format!("ipv6/conf/{}/accept_ra", config.name), "0")?;
        bridge.keep_off_ipv6(netlink)?;
        config.timing.apply(config.name)?;
        netlink.set_up(&bridge.link, true)?;
        bridge.link = netlink.link_named(config.name)?;
        rollback.commit();
        Ok(bridge)
    }

    /// Gives the host no IPv6 address on the bridge unless somebody chose one. The kernel's own,
    /// which can be guessed from the MAC address, would lead containers of all hosts to whatever
    /// listens here, and the host would send its announcements into the mesh.
    fn keep_off_ipv6(&self, netlink: &Netlink) -> Result<(), NetError> {
        let chosen = |network: &IpNet| match network {
            IpNet::V6(network) => !network.addr().is_unicast_link_local(),
            IpNet::V4(_) => false,
        };
        if !self.addresses(netlink)?.iter().any(chosen) {
            let key = format!("ipv6/conf/{}/disable_ipv6", self.link.name);
            sysctl::set_if_present(&key, "1")?;
        }
        Ok(())
    }

    /// Returns the bridge of this name, if there is one. Another device of this name is an error.
    pub fn find(netlink: &Netlink, name: &str) -> Result<Option<Bridge>, NetError> {
        let Some(link) = netlink.link(name)? else {
            return Ok(None);
        };
        match link.kind.as_deref() {
            Some("bridge") => {}
            kind => {
                return Err(NetError::NotABridge {
                    name: name.to_owned(),
                    kind: kind.unwrap_or("physical device").to_owned(),
                });
            }
        }
        let origin = if is_ours(link.alias.as_deref()) {
            Origin::Adopted
        } else {
            Origin::Foreign
        };
        Ok(Some(Bridge { link, origin }))
    }

    /// Returns the bridge of this name; that there is none is an error that says what to do.
    pub fn named(netlink: &Netlink, name: &str) -> Result<Bridge, NetError> {
        Bridge::find(netlink, name)?.ok_or_else(|| NetError::NoDevice {
            name: name.to_owned(),
            hint: ": start the router first (weft launch)",
        })
    }

    /// Makes the router's TAP device a port of the bridge and switches it on. Done again, it
    /// changes nothing.
    ///
    /// It takes frames of any size: containers may have any MTU, and a frame that is too large
    /// for the overlay has to reach the router, which answers it; the bridge would drop it
    /// silently.
    pub fn add_tap(&self, netlink: &Netlink, tap: &str) -> Result<(), NetError> {
        let link = netlink.link_named(tap)?;
        no_host_traffic(tap)?;
        let change = LinkChange {
            alias: Some(ALIAS),
            mtu: Some(TAP_MTU_MAX),
            master: (link.master != Some(self.link.index)).then_some(Some(self.link.index)),
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.change_link(&link, &change)
    }

    /// Returns the ports of the bridge, ours and those of others.
    pub fn ports(&self, netlink: &Netlink) -> Result<Vec<Link>, NetError> {
        let mut links = netlink.links()?;
        links.retain(|link| link.master == Some(self.link.index));
        Ok(links)
    }

    /// Returns the addresses of the bridge itself.
    pub fn addresses(&self, netlink: &Netlink) -> Result<Vec<IpNet>, NetError> {
        netlink.addresses_of(self.link.index)
    }
}

/// Deletes everything that we made in the calling thread's namespace: rules in attached
/// containers, container interfaces, TAP devices and the bridge. A bridge that somebody else made
/// stays, with its other ports. Everything is tried; what was not there is no failure. Returns
/// the names of the devices that were deleted.
pub fn remove_all(netlink: &Netlink, proc: &Path) -> Result<Vec<String>, NetError> {
    let mut failures = Failures::default();
    let mut links = netlink.links()?;
    links.retain(|link| is_ours(link.alias.as_deref()));
    failures.collect(attach::remove_rules(netlink, &links, proc));
    // Together is fast, but one that cannot be deleted keeps the others.
    let together = netlink.delete_links(&links).is_ok();
    let mut removed = Vec::new();
    for link in links {
        if together || failures.collect(netlink.delete_link(&link)) == Some(true) {
            removed.push(link.name);
        }
    }
    failures.into_result()?;
    Ok(removed)
}

/// Keeps the host itself from talking through a port of the bridge: without this, IPv6 gives each
/// port an address and sends its announcements into the overlay.
pub(super) fn no_host_traffic(port: &str) -> Result<(), NetError> {
    sysctl::set_if_present(&format!("ipv6/conf/{port}/accept_ra"), "0")?;
    sysctl::set_if_present(&format!("ipv6/conf/{port}/disable_ipv6"), "1")?;
    Ok(())
}

/// Sets the MTU of a bridge so that it no longer follows its ports. The kernel remembers that
/// only when the MTU really changes (net/core/dev.c ignores a change to the same value).
fn pin_mtu(netlink: &Netlink, bridge: &Link, mtu: u32) -> Result<(), NetError> {
    let index: LinkIndex = bridge.index;
    let current = netlink.link_at(index)?.map_or(mtu, |link| link.mtu);
    let set = |mtu| {
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        netlink.change_link(bridge, &change)
    };
    if current == mtu {
        set(if mtu < MTU_MAX { mtu + 1 } else { mtu - 1 })?;
    }
    set(mtu)
}

/// The largest MTU of a bridge in bytes; a larger one is refused by the kernel.
pub const MTU_MAX: u32 = 65535;
/// The MTU of a container's end on the bridge: a frame of any size passes it, also of a container
/// whose own end got a larger MTU later.
pub(crate) const PORT_MTU: u32 = 65535;
/// The largest MTU of a TAP device in bytes: the Ethernet header counts there.
pub const TAP_MTU_MAX: u32 = 65535 - 14;

#[cfg(test)]
pub(super) mod tests;
