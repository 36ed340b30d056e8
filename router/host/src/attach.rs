//! Attaching namespaces to the bridge, and what is attached.
//!
//! A namespace is attached by a veth pair: one end is a port of the bridge, the other is made
//! directly inside the namespace under its final name, so there is no moment at which a half-made
//! interface shows. Attaching again adds addresses; detaching the last address deletes the
//! interface. The interface keeps its offloads: the router's TAP device completes checksums and
//! cuts large segments.
//!
//! The host end carries an alias that says for whom it was made ([`AttachRequest::owner`]), so a
//! router that starts again knows whose addresses it finds.

pub mod endpoint;
pub mod life;
pub(crate) mod listing;
pub(crate) mod veth;

pub use listing::{AttachedInterface, attached, owners};

use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use ipnet::{IpNet, Ipv4Net};
use proto::types::Mac;

use super::bridge::Bridge;
use super::undo::{Failures, Rollback};
use crate::rules::multicast;
use kernel::arp::{self, NeighbourTiming};
use kernel::error::NetError;
use kernel::netlink::{Link, Netlink, PortState, Route};
use kernel::netns::Namespace;
use kernel::packet_filter::nft;
use kernel::sysctl;

/// The name that Weave gives interfaces in containers.
pub const INTERFACE: &str = "ethwe";

/// Returns the owner of what is attached for a namespace and nothing better: all names of one
/// namespace lead to the same.
pub fn namespace_owner(namespace: &Namespace) -> String {
    format!("{NAMESPACE_OWNER}{}", namespace.id().inode())
}

/// Returns true if an owner is one of [`namespace_owner`].
pub fn is_namespace_owner(owner: &str) -> bool {
    owner.starts_with(NAMESPACE_OWNER)
}

/// A request to attach: what, where, and how.
#[derive(Clone, Debug)]
pub struct AttachRequest<'a> {
    /// The bridge, in the calling thread's namespace.
    pub bridge: &'a str,
    /// The namespace to attach; not that of the host.
    pub target: &'a Namespace,
    /// The name of the interface in the namespace.
    pub interface: &'a str,
    /// Addresses that the interface shall have beside those it has.
    pub addresses: &'a [Ipv4Net],
    /// The process that the namespace belongs to; the host end is named after it.
    pub pid: Option<u32>,
    /// Owner of the attachment: a container's id, a process, a name. At most [`OWNER_BYTES_MAX`]
    /// bytes are kept.
    pub owner: Option<&'a str>,
    /// The MAC address of the interface; drawn by the kernel if not given. Only for a new one.
    pub mac: Option<Mac>,
    /// The MTU in bytes; that of the bridge if not given. Only for a new interface.
    pub mtu: Option<u32>,
    /// Whether the namespace gets back what it sends to itself by way of the bridge.
    pub hairpin: bool,
    /// Whether multicast leaves by this interface (a route to 224.0.0.0/4).
    pub multicast_route: bool,
    /// Whether multicast from subnets in which the interface has no address is dropped on
    /// arrival, which keeps subnets apart that share the overlay.
    pub multicast_filter: bool,
    /// Times after which addresses of neighbours are doubted.
    pub timing: NeighbourTiming,
}

impl<'a> AttachRequest<'a> {
    /// Creates a request with Weave Net's defaults and without addresses.
    pub fn new(bridge: &'a str, target: &'a Namespace) -> AttachRequest<'a> {
        AttachRequest {
            bridge,
            target,
            interface: INTERFACE,
            addresses: &[],
            pid: None,
            owner: None,
            mac: None,
            mtu: None,
            hairpin: true,
            multicast_route: true,
            multicast_filter: true,
            timing: NeighbourTiming::default(),
        }
    }
}

/// Result of attaching.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// The end of the pair on the bridge.
    pub host_interface: String,
    /// The MAC address of the interface in the namespace.
    pub mac: Option<Mac>,
    /// Whether the interface is new.
    pub created: bool,
    /// The addresses that are new.
    pub added: Vec<Ipv4Net>,
    /// Problems that are not worth failing for; for the log.
    pub warnings: Vec<String>,
}

/// Attaches a namespace to the bridge, or adds addresses to one that is attached. On failure
/// everything that this call did is undone.
pub fn attach(request: &AttachRequest<'_>) -> Result<Attached, NetError> {
    let target = request.target;
    if *target == Namespace::current()? {
        return Err(NetError::HostNamespace {
            target: target.to_string(),
        });
    }
    let host = Netlink::open()?;
    let bridge = Bridge::named(&host, request.bridge)?;
    let inside = target.netlink()?;
    let mut rollback = Rollback::new();
    let pair = veth::ensure(&host, &inside, &bridge, request, &mut rollback)?;

    let mut attached = Attached {
        host_interface: pair.host.name.clone(),
        mac: pair.inside.mac,
        created: pair.created,
        added: Vec::new(),
        warnings: Vec::new(),
    };
    // Each change of the namespace costs a thread, so all of this is done on one.
    target.run(|| {
        configure_inside(&inside, &pair.inside, request, &mut rollback, &mut attached)?;
        if !wait_for_forwarding(&host, &pair.host)? {
            attached.warnings.push(NOT_FORWARDING.into());
        }
        let added: Vec<_> = attached.added.iter().map(Ipv4Net::addr).collect();
        arp::announce(&pair.inside, &added)
    })??;
    rollback.commit();
    Ok(attached)
}

/// Everything that is done inside the namespace, on a thread that is in it.
fn configure_inside<'a>(
    netlink: &'a Netlink,
    link: &Link,
    request: &AttachRequest<'_>,
    rollback: &mut Rollback<'a>,
    attached: &mut Attached,
) -> Result<(), NetError> {
    request.timing.apply(request.interface)?;
    refuse_addresses_elsewhere(netlink, link, request)?;
    for network in request.addresses {
        let network = *network;
        if netlink.add_address(link, network.into())? {
            let link = link.clone();
            rollback.on_failure(move || netlink.delete_address(&link, network.into()).map(drop));
            attached.added.push(network);
        }
    }
    if request.multicast_filter {
        // Filtered before the interface can receive.
        let subnets = ipv4_networks(&netlink.addresses_of(link.index)?);
        match multicast::allow_only(request.interface, &subnets) {
            Err(error) if nft::is_unsupported(&error) => {
                attached
                    .warnings
                    .push(format!("multicast is not filtered: {error}"));
            }
            result => result?,
        }
    }
    netlink.set_up(link, true)?;
    if request.multicast_route {
        netlink.add_route(&Route::on_link(MULTICAST.into(), link.index))?;
    }
    Ok(())
}

fn refuse_addresses_elsewhere(
    netlink: &Netlink,
    link: &Link,
    request: &AttachRequest<'_>,
) -> Result<(), NetError> {
    for found in netlink.addresses()? {
        let wanted = |network: &&Ipv4Net| found.network.addr() == network.addr();
        let Some(network) = request.addresses.iter().find(wanted) else {
            continue;
        };
        if found.link != link.index {
            let other = netlink.link_at(found.link)?;
            return Err(NetError::AddressElsewhere {
                address: network.addr().to_string(),
                name: other.map_or_else(|| found.link.to_string(), |link| link.name),
                target: request.target.to_string(),
            });
        }
    }
    Ok(())
}

/// Waits until the bridge forwards to a port, which the kernel decides on a work queue after both
/// ends are up. Frames before that are lost. Returns whether it forwards.
fn wait_for_forwarding(netlink: &Netlink, port: &Link) -> Result<bool, NetError> {
    let deadline = Instant::now() + FORWARDING_WAIT_MAX;
    loop {
        let Some(link) = netlink.link_at(port.index)? else {
            return Ok(false);
        };
        if link.port.map(|port| port.state) == Some(PortState::Forwarding) {
            return Ok(true);
        }
        if Instant::now() >= deadline {
            return Ok(false);
        }
        thread::sleep(FORWARDING_POLL);
    }
}

/// A request to detach.
#[derive(Clone, Debug)]
pub struct DetachRequest<'a> {
    /// The bridge that the interface must lead to.
    pub bridge: &'a str,
    /// The namespace.
    pub target: &'a Namespace,
    /// The name of the interface in the namespace.
    pub interface: &'a str,
    /// The addresses to take away; all if not given. Prefix lengths do not matter.
    pub addresses: Option<&'a [Ipv4Net]>,
}

/// Result of detaching.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Detached {
    /// The addresses that were taken away.
    pub removed: Vec<Ipv4Net>,
    /// Whether the interface was deleted, because no address was left.
    pub deleted: bool,
}

/// Takes addresses from an attached namespace, and the interface with the last of them. What is
/// not there is no failure.
pub fn detach(request: &DetachRequest<'_>) -> Result<Detached, NetError> {
    let host = Netlink::open()?;
    let inside = request.target.netlink()?;
    let Some(pair) = veth::find(&host, &inside, request)? else {
        return Ok(Detached::default());
    };
    request
        .target
        .run(|| keep_secondaries(request.interface))??;
    let mut detached = Detached::default();
    let mut left = Vec::new();
    for network in ipv4_networks(&inside.addresses_of(pair.inside.index)?) {
        let wanted = |networks: &[Ipv4Net]| networks.iter().any(|n| n.addr() == network.addr());
        if request.addresses.is_none_or(wanted) {
            inside.delete_address(&pair.inside, network.into())?;
            detached.removed.push(network);
        } else {
            left.push(network);
        }
    }
    let rules = request.target.run(|| {
        if left.is_empty() {
            multicast::remove(request.interface)
        } else {
            multicast::narrow(request.interface, &left)
        }
    })?;
    if left.is_empty() {
        detached.deleted = host.delete_link(&pair.host)?;
    }
    match rules {
        Err(error) if !nft::is_unsupported(&error) => Err(error),
        _ => Ok(detached),
    }
}

/// An attachment to a namespace under one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundInterface {
    /// The end of the pair on the bridge.
    pub host_interface: String,
    /// The MAC address of the interface in the namespace.
    pub mac: Option<Mac>,
    /// Whether both ends are switched on.
    pub up: bool,
    /// Its addresses.
    pub addresses: Vec<Ipv4Net>,
}

/// Looks for the interface that [`detach`] would take away. One that leads elsewhere is an error.
pub fn find(request: &DetachRequest<'_>) -> Result<Option<FoundInterface>, NetError> {
    let host = Netlink::open()?;
    let inside = request.target.netlink()?;
    let Some(pair) = veth::find(&host, &inside, request)? else {
        return Ok(None);
    };
    Ok(Some(FoundInterface {
        host_interface: pair.host.name,
        mac: pair.inside.mac,
        up: pair.host.up && pair.inside.up,
        addresses: ipv4_networks(&inside.addresses_of(pair.inside.index)?),
    }))
}

/// Deleting the first address of a subnet deletes the others of that subnet too, unless this is
/// set.
pub(super) fn keep_secondaries(interface: &str) -> Result<(), NetError> {
    sysctl::set(&format!("ipv4/conf/{interface}/promote_secondaries"), "1")
}

/// Removes the rules that attaching left inside the namespaces which `links` lead to.
pub(super) fn remove_rules(host: &Netlink, links: &[Link], proc: &Path) -> Result<(), NetError> {
    let mut failures = Failures::default();
    for (namespace, _) in listing::namespaces(host, links, proc)? {
        // It may have ended since; its rules have then ended with it.
        let Ok(namespace) = namespace.open(proc) else {
            continue;
        };
        match namespace.run(multicast::remove_all).flatten() {
            Err(error) if nft::is_unsupported(&error) => {}
            result => {
                failures.collect(result);
            }
        }
    }
    failures.into_result()
}

fn ipv4_networks(networks: &[IpNet]) -> Vec<Ipv4Net> {
    let v4 = |network: &IpNet| match network {
        IpNet::V4(network) => Some(*network),
        IpNet::V6(_) => None,
    };
    networks.iter().filter_map(v4).collect()
}

/// Prefix of the owner of a namespace; the number of the namespace follows.
const NAMESPACE_OWNER: &str = "netns:";
/// All of IPv4 multicast: 224.0.0.0/4.
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(std::net::Ipv4Addr::new(224, 0, 0, 0), 4);
/// Number of bytes of an owner that are kept; a longer one is cut. The kernel takes 255 for an
/// alias.
pub const OWNER_BYTES_MAX: usize = 200;
/// Maximum time to wait for a port to forward. The kernel may take a second when interfaces change
/// often; if it takes longer, announcements may be lost, which is a warning.
const FORWARDING_WAIT_MAX: Duration = Duration::from_millis(1500);
const NOT_FORWARDING: &str =
    "the bridge does not forward to it yet: its addresses may be unknown to others for a while";
const FORWARDING_POLL: Duration = Duration::from_micros(500);

#[cfg(test)]
mod tests;
