//! Checks whether the user of an address is gone.
//!
//! Absence of evidence is not an end. An interface may have left the bridge for a while, its alias
//! may have been rewritten, the bridge may have been deleted: whoever has an address in a living
//! namespace still uses it. An address may go to somebody else only when nobody can have it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::AsFd;
use std::path::Path;

use super::NAMESPACE_OWNER;
use super::listing::{outside_peer, owner_of};
use super::veth::PREFIX;
use kernel::error::NetError;
use kernel::netlink::{Link, NamespaceNumber, Netlink};
use kernel::netns::{self, Namespace};

/// Returns those of `users` who are gone for certain, with their addresses: the namespace ended, or
/// it lives and neither an interface that we made leads there nor has any interface one of the
/// addresses. Users are named as by [`super::namespace_owner`]; of others nothing is known here.
/// `bridge` is where they were attached, `proc` the host's `/proc` seen from here.
pub fn ended(
    users: &BTreeMap<String, BTreeSet<Ipv4Addr>>,
    bridge: &str,
    proc: &Path,
) -> Result<BTreeSet<String>, NetError> {
    let host = Netlink::open()?;
    let bridge = host.link(bridge)?.map(|bridge| bridge.index);
    // Namespaces are looked for first: one whose interface ends meanwhile is taken for living.
    let mut living = BTreeMap::new();
    for found in netns::find_all(proc) {
        let Ok(namespace) = found.open(proc) else {
            continue;
        };
        let number = host.namespace_number(namespace.as_fd())?;
        living.insert(found.id.inode(), (namespace, number));
    }
    let mut links = host.links()?;
    links.retain(|link| {
        let is_port = bridge.is_some() && link.master == bridge;
        let is_ours = link.alias.as_deref().and_then(owner_of).is_some();
        let may_be = is_port || is_ours || link.name.starts_with(PREFIX);
        may_be && outside_peer(link).is_some()
    });
    let seen = Seen { living, links };
    let mut gone = BTreeSet::new();
    for (user, addresses) in users {
        if seen.has_ended(user, addresses)? {
            gone.insert(user.clone());
        }
    }
    Ok(gone)
}

/// Parts of the router that live on the host.
struct Seen {
    /// Namespaces by their inodes, with the host's numbers for those that it has a pair with.
    living: BTreeMap<u64, (Namespace, Option<NamespaceNumber>)>,
    /// The ends of pairs that we may have made, and that lead to other namespaces.
    links: Vec<Link>,
}

impl Seen {
    fn has_ended(&self, user: &str, addresses: &BTreeSet<Ipv4Addr>) -> Result<bool, NetError> {
        let inode = user.strip_prefix(NAMESPACE_OWNER);
        let Some(inode) = inode.and_then(|inode| inode.parse::<u64>().ok()) else {
            return Ok(false);
        };
        let is_for =
            |link: &Link| link.alias.as_deref().and_then(owner_of).as_deref() == Some(user);
        if self.links.iter().any(is_for) {
            return Ok(false);
        }
        match self.living.get(&inode) {
            Some((namespace, number)) => {
                let leads_there =
                    |link: &Link| number.is_some() && outside_peer(link).map(|p| p.0) == *number;
                let used = self.links.iter().any(leads_there) || has_one(namespace, addresses)?;
                Ok(!used)
            }
            // It may be one that no process and no name shows, behind a pair that says no more
            // whose it is.
            None => Ok(!self
                .links
                .iter()
                .any(|link| self.leads_to_the_unknown(link))),
        }
    }

    fn leads_to_the_unknown(&self, link: &Link) -> bool {
        let number = outside_peer(link).map(|(number, _)| number);
        let is_known = self.living.values().any(|(_, known)| *known == number);
        !is_known && link.alias.as_deref().and_then(owner_of).is_none()
    }
}

/// Whether an interface of the namespace has one of these addresses.
fn has_one(namespace: &Namespace, addresses: &BTreeSet<Ipv4Addr>) -> Result<bool, NetError> {
    let netlink = match namespace.netlink() {
        Ok(netlink) => netlink,
        Err(error) => {
            tracing::debug!(%error, "a namespace cannot be looked into");
            return Ok(true);
        }
    };
    for link in netlink.links()? {
        for network in netlink.addresses_of(link.index)? {
            if let std::net::IpAddr::V4(address) = network.addr()
                && addresses.contains(&address)
            {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attach::{AttachRequest, attach, namespace_owner};
    use crate::bridge::tests::{NAME, ensure};
    use kernel::netlink::LinkChange;
    use testbed::root::{in_new_namespace, needs_root};

    fn gone(user: &str, address: &str) -> bool {
        let addresses = BTreeSet::from([address.parse().unwrap()]);
        let users = BTreeMap::from([(user.to_owned(), addresses)]);
        let ended = ended(&users, NAME, Path::new("/proc")).unwrap();
        !ended.is_empty()
    }

    /// Nothing but its end proves the end of a container.
    #[test]
    fn who_lives_is_not_gone() {
        needs_root!();
        in_new_namespace(|| {
            let netlink = Netlink::open().unwrap();
            let bridge = ensure(&netlink);
            // No process is in it, so that nothing but its interface shows it.
            let hidden = Namespace::new().unwrap();
            let shown = Namespace::new().unwrap();
            let mut sleep = std::process::Command::new("sleep");
            let mut process = shown.spawn(sleep.arg("1000")).unwrap();
            let both = [(&hidden, "10.7.0.5"), (&shown, "10.7.0.6")];
            for (namespace, address) in both {
                let owner = namespace_owner(namespace);
                let addresses = [format!("{address}/16").parse().unwrap()];
                let request = AttachRequest {
                    addresses: &addresses,
                    owner: Some(&owner),
                    ..AttachRequest::new(NAME, namespace)
                };
                let port = attach(&request).unwrap().host_interface;
                let port = netlink.link_named(&port).unwrap();
                let change = |change: LinkChange<'_>| netlink.change_link(&port, &change).unwrap();
                assert!(!gone(&owner, address));
                change(LinkChange {
                    master: Some(None),
                    ..LinkChange::default()
                });
                assert!(!gone(&owner, address), "off the bridge");
                change(LinkChange {
                    alias: Some("something"),
                    ..LinkChange::default()
                });
                assert!(!gone(&owner, address), "under another alias");
            }
            assert!(netlink.delete_link(&bridge.link).unwrap());
            for (namespace, address) in both {
                assert!(!gone(&namespace_owner(namespace), address), "no bridge");
            }

            let owner = namespace_owner(&hidden);
            drop(hidden);
            let end = std::time::Instant::now() + std::time::Duration::from_secs(20);
            while !gone(&owner, "10.7.0.5") {
                assert!(std::time::Instant::now() < end, "it has ended");
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            // The interface was deleted inside, and the namespace lives.
            let owner = namespace_owner(&shown);
            assert!(!gone(&owner, "10.7.0.6"));
            let inside = shown.netlink().unwrap();
            let interface = inside.link_named("ethwe").unwrap();
            inside.delete_link(&interface).unwrap();
            assert!(gone(&owner, "10.7.0.6"));
            process.kill().unwrap();
            process.wait().unwrap();
        });
    }

    #[test]
    fn of_others_nothing_is_known() {
        needs_root!();
        in_new_namespace(|| {
            assert!(!gone("0123456789ab", "10.7.0.5"));
            assert!(!gone("netns:x", "10.7.0.5"));
            assert!(gone("netns:1", "10.7.0.5"));
        });
    }
}
