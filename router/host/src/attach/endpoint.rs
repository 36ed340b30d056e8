//! Interfaces that somebody else moves into a container, as Docker does.
//!
//! The veth pair is made with both ends on the host; the engine takes the inner end away, names
//! it and gives it its addresses. What it does not do follows when the interface has arrived.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;
use proto::types::Mac;
use rustix::io::Errno;

use super::listing::owner_of;
use super::{ipv4_networks, keep_secondaries, wait_for_forwarding};
use crate::alias::is_ours;
use crate::bridge::{self, Bridge};
use crate::rules::multicast;
use crate::undo::Rollback;
use kernel::arp::{self, NeighbourTiming};
use kernel::error::NetError;
use kernel::netlink::{Link, LinkChange, Netlink, NewVeth, VethPeer};
use kernel::netns::Namespace;
use kernel::packet_filter::nft;

/// A pair to create.
#[derive(Clone, Copy, Debug)]
pub struct NewEndpoint<'a> {
    /// The bridge, in the calling thread's namespace.
    pub bridge: &'a str,
    /// The end on the bridge.
    pub host_name: &'a str,
    /// The end that will be taken away.
    pub inner_name: &'a str,
    /// The MAC address of that end; drawn by the kernel if not given.
    pub mac: Option<Mac>,
    /// The MTU in bytes; that of the bridge if not given.
    pub mtu: Option<u32>,
    /// Owner by which the address is found again.
    pub owner: &'a str,
}

/// Makes a pair, and returns the MAC address of its inner end. One of ours that is there under
/// the same name, left by a crash, is replaced.
pub fn create(new: &NewEndpoint<'_>) -> Result<Mac, NetError> {
    let host = Netlink::open()?;
    let bridge = Bridge::named(&host, new.bridge)?;
    let veth = NewVeth {
        name: new.host_name,
        index: None,
        mtu: new.mtu.unwrap_or(bridge.link.mtu),
        master: Some(bridge.link.index),
        peer: VethPeer {
            name: new.inner_name,
            index: None,
            mac: new.mac,
            namespace: None,
        },
    };
    match host.create_veth(&veth) {
        Err(error) if error.is(Errno::EXIST) && delete(new.host_name)? => {
            host.create_veth(&veth)?;
        }
        result => result?,
    }
    let mut rollback = Rollback::new();
    rollback.on_failure(|| delete(new.host_name).map(drop));
    let link = host.link_named(new.host_name)?;
    let inner = host.link_named(new.inner_name)?;
    let alias = super::veth::alias_of(new.owner);
    bridge::no_host_traffic(new.host_name)?;
    let change = LinkChange {
        alias: Some(&alias),
        mtu: Some(bridge::PORT_MTU),
        up: Some(true),
        ..LinkChange::default()
    };
    host.change_link(&link, &change)?;
    host.set_hairpin(&link, true)?;
    let mac = inner.mac.ok_or_else(|| NetError::NoDevice {
        name: new.inner_name.to_owned(),
        hint: "",
    })?;
    rollback.commit();
    Ok(mac)
}

/// Deletes the pair with this end on the bridge. Returns whether there was one; one that is not
/// ours stays.
pub fn delete(host_name: &str) -> Result<bool, NetError> {
    let host = Netlink::open()?;
    match host.link(host_name)? {
        Some(link) if is_ours(link.alias.as_deref()) || link.alias.is_none() => {
            host.delete_link(&link)
        }
        _ => Ok(false),
    }
}

/// Writes down that a pair is for somebody else.
pub fn set_owner(host_name: &str, owner: &str) -> Result<(), NetError> {
    let host = Netlink::open()?;
    let alias = super::veth::alias_of(owner);
    let change = LinkChange {
        alias: Some(&alias),
        ..LinkChange::default()
    };
    host.change_link(&host.link_named(host_name)?, &change)
}

/// Whether there is a pair with this end on the bridge.
pub fn exists(host_name: &str) -> Result<bool, NetError> {
    Ok(Netlink::open()?.link(host_name)?.is_some())
}

/// A pair of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundEndpoint {
    /// The end on the bridge.
    pub host_name: String,
    /// Its owner.
    pub owner: Option<String>,
    /// Whether the inner end was taken away.
    pub taken: bool,
}

/// Returns all our pairs whose names begin like this.
pub fn all(prefix: &str) -> Result<Vec<FoundEndpoint>, NetError> {
    let links = Netlink::open()?.links()?;
    let ours = links
        .into_iter()
        .filter(|link| link.name.starts_with(prefix) && is_ours(link.alias.as_deref()));
    Ok(ours
        .map(|link| FoundEndpoint {
            owner: link.alias.as_deref().and_then(owner_of),
            taken: link.peer.is_some_and(|peer| peer.namespace.is_some()),
            host_name: link.name,
        })
        .collect())
}

/// The inner end of a pair in a namespace.
struct Arrived {
    host: Netlink,
    host_link: Link,
    inside: Netlink,
    link: Link,
}

fn find(host_name: &str, target: &Namespace) -> Result<Option<Arrived>, NetError> {
    let host = Netlink::open()?;
    let host_link = host.link_named(host_name)?;
    let Some(peer) = host_link.peer else {
        return Ok(None);
    };
    let inside = target.netlink()?;
    let Some(link) = inside.link_at(peer.index)? else {
        return Ok(None);
    };
    // Numbers of links repeat in each namespace, so both ends must name each other.
    let number = host.namespace_number(std::os::fd::AsFd::as_fd(target))?;
    let same = peer.namespace.is_some() && peer.namespace == number;
    let back = link.peer.is_some_and(|back| back.index == host_link.index);
    Ok((same && back).then_some(Arrived {
        host,
        host_link,
        inside,
        link,
    }))
}

/// Does what the engine leaves undone, once it has set the interface up: how soon neighbours are
/// doubted, which multicast comes in, and the announcement of the addresses. Returns `false` as
/// long as the interface has not arrived. Also returns what is worth a warning.
pub fn finish(
    host_name: &str,
    target: &Namespace,
    timing: NeighbourTiming,
) -> Result<Option<Vec<String>>, NetError> {
    let Some(found) = find(host_name, target)? else {
        return Ok(None);
    };
    let addresses = ipv4_networks(&found.inside.addresses_of(found.link.index)?);
    if addresses.is_empty() || !found.link.carrier {
        return Ok(None);
    }
    let mut warnings = Vec::new();
    target.run(|| {
        timing.apply(&found.link.name)?;
        match multicast::allow_only(&found.link.name, &addresses) {
            Err(error) if nft::is_unsupported(&error) => {
                warnings.push(format!("multicast is not filtered: {error}"));
            }
            result => result?,
        }
        if !wait_for_forwarding(&found.host, &found.host_link)? {
            warnings.push(super::NOT_FORWARDING.to_owned());
        }
        let addresses: Vec<Ipv4Addr> = addresses.iter().map(Ipv4Net::addr).collect();
        arp::announce(&found.link, &addresses)
    })??;
    Ok(Some(warnings))
}

/// Gives an interface another address in place of one that it has, and its MAC address. Returns
/// whether the interface was there.
pub fn readdress(
    host_name: &str,
    target: &Namespace,
    old: Ipv4Net,
    new: Ipv4Net,
    mac: Mac,
) -> Result<bool, NetError> {
    let Some(found) = find(host_name, target)? else {
        return Ok(false);
    };
    target.run(|| {
        keep_secondaries(&found.link.name)?;
        found.inside.add_address(&found.link, new.into())?;
        found.inside.delete_address(&found.link, old.into())?;
        let change = LinkChange {
            mac: Some(mac),
            ..LinkChange::default()
        };
        found.inside.change_link(&found.link, &change)?;
        let link = Link {
            mac: Some(mac),
            ..found.link.clone()
        };
        arp::announce(&link, &[new.addr()])
    })??;
    Ok(true)
}
