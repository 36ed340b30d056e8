//! Listing what is attached to a bridge.

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::AsFd;
use std::path::Path;

use ipnet::Ipv4Net;
use proto::types::Mac;

use super::ipv4_networks;
use crate::alias::ALIAS;
use crate::bridge::Bridge;
use kernel::error::NetError;
use kernel::netlink::{Link, NamespaceNumber, Netlink};
use kernel::netns::{self, FoundNamespace};

/// An interface that is attached to a bridge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttachedInterface {
    /// The end of its veth pair on the bridge.
    pub host_interface: String,
    /// Its name in its namespace.
    pub interface: String,
    /// Its MAC address.
    pub mac: Option<Mac>,
    /// Its IPv4 addresses.
    pub addresses: Vec<Ipv4Net>,
    /// Its owner; unknown if another program attached it.
    pub owner: Option<String>,
    /// Its namespace: the processes in it and its names. `None` if it has neither, so that
    /// nothing shows it.
    pub namespace: Option<FoundNamespace>,
}

/// Lists what is attached to a bridge in the calling thread's namespace, by us or by a Weave Net
/// router. `proc` is the host's `/proc` seen from here. No other namespace is entered.
///
/// What we attached counts also while it is no port of the bridge: somebody took it off, or
/// deleted the bridge, and the container still has its addresses.
pub fn attached(bridge: &str, proc: &Path) -> Result<Vec<AttachedInterface>, NetError> {
    let host = Netlink::open()?;
    let ports = ports(&host, bridge)?;
    let found = namespaces(&host, &ports, proc)?;
    let mut all = Vec::new();
    for port in ports {
        let Some((number, peer)) = outside_peer(&port) else {
            continue;
        };
        // What is deleted meanwhile is not attached any more.
        let Some(inside) = host.link_in(number, peer).ok().flatten() else {
            continue;
        };
        let addresses = host.addresses_in(number, inside.index).unwrap_or_default();
        let namespace = found.iter().find(|(_, n)| *n == number);
        all.push(AttachedInterface {
            host_interface: port.name,
            interface: inside.name,
            mac: inside.mac,
            addresses: ipv4_networks(&addresses),
            owner: port.alias.as_deref().and_then(owner_of),
            namespace: namespace.map(|(namespace, _)| namespace.clone()),
        });
    }
    Ok(all)
}

/// Returns the owners of the interfaces that are attached to a bridge in the calling thread's
/// namespace. Unlike [`attached`], this looks at the host's ends alone, so it costs little.
pub fn owners(bridge: &str) -> Result<BTreeSet<String>, NetError> {
    let host = Netlink::open()?;
    let ports = ports(&host, bridge)?;
    let aliases = ports.iter().filter_map(|port| port.alias.as_deref());
    Ok(aliases.filter_map(owner_of).collect())
}

/// Returns the ports of the bridge, and the ends of pairs of ours that should be.
fn ports(host: &Netlink, bridge: &str) -> Result<Vec<Link>, NetError> {
    let bridge = Bridge::find(host, bridge)?.map(|bridge| bridge.link.index);
    let mut links = host.links()?;
    links.retain(|link| {
        let is_port = bridge.is_some() && link.master == bridge;
        let owner = link.alias.as_deref().and_then(owner_of);
        is_port || (owner.is_some() && outside_peer(link).is_some())
    });
    Ok(links)
}

/// Returns the namespaces, as far as they can be found, that veth pairs among `links` lead to.
pub(super) fn namespaces(
    host: &Netlink,
    links: &[Link],
    proc: &Path,
) -> Result<Vec<(FoundNamespace, NamespaceNumber)>, NetError> {
    let mut wanted: BTreeMap<NamespaceNumber, Option<FoundNamespace>> = BTreeMap::new();
    for (number, _) in links.iter().filter_map(outside_peer) {
        wanted.insert(number, None);
    }
    if wanted.is_empty() {
        return Ok(Vec::new());
    }
    for namespace in netns::find_all(proc) {
        let Ok(open) = namespace.open(proc) else {
            continue;
        };
        let number = host.namespace_number(open.as_fd())?;
        if let Some(slot) = number.and_then(|number| wanted.get_mut(&number)) {
            *slot = Some(namespace);
        }
    }
    let pairs = wanted.into_iter();
    Ok(pairs
        .filter_map(|(number, found)| Some((found?, number)))
        .collect())
}

/// Returns where a veth pair leads, if that is another namespace.
pub(crate) fn outside_peer(link: &Link) -> Option<(NamespaceNumber, kernel::netlink::LinkIndex)> {
    let peer = link.peer?;
    Some((peer.namespace?, peer.index))
}

pub(crate) fn owner_of(alias: &str) -> Option<String> {
    let rest = alias.strip_prefix(ALIAS)?;
    rest.strip_prefix(' ').map(str::to_owned)
}
