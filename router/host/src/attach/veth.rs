//! The veth pair between the bridge and a namespace.

use rustix::io::Errno;

use super::{AttachRequest, DetachRequest, OWNER_BYTES_MAX};
use crate::alias::{ALIAS, is_ours};
use crate::bridge::{self, Bridge};
use crate::undo::Rollback;
use kernel::error::NetError;
use kernel::netlink::{Link, LinkChange, Netlink, NewVeth, VethPeer};
use kernel::netns::{Namespace, NamespaceId};

/// A veth pair with one end on the bridge.
pub(super) struct Pair {
    /// The end on the bridge.
    pub host: Link,
    /// The end in the namespace.
    pub inside: Link,
    /// Whether this call made it.
    pub created: bool,
}

/// Returns the pair that the request names, made if it does not exist. Its host end is up; its
/// inner end is left as it was, down if new.
pub(super) fn ensure<'a>(
    host: &'a Netlink,
    inside: &Netlink,
    bridge: &Bridge,
    request: &AttachRequest<'_>,
    rollback: &mut Rollback<'a>,
) -> Result<Pair, NetError> {
    let mut created = false;
    if inside.link(request.interface)?.is_none()
        && let Some(name) = create(host, inside, bridge, request)?
    {
        created = true;
        rollback.on_failure(move || match host.link(&name)? {
            Some(link) => host.delete_link(&link).map(drop),
            None => Ok(()),
        });
    }
    let inner_end = inside.link_named(request.interface)?;
    let host_end = other_end(host, &inner_end, bridge, request)?;
    if created {
        bridge::no_host_traffic(&host_end.name)?;
    }
    // A pair that somebody else made stays theirs.
    let ours = created || is_ours(host_end.alias.as_deref());
    let alias = request.owner.filter(|_| ours).map(alias_of);
    let change = LinkChange {
        alias: alias.as_deref().or(created.then_some(ALIAS)),
        mtu: (host_end.mtu != bridge::PORT_MTU).then_some(bridge::PORT_MTU),
        master: (host_end.master.is_none()).then_some(Some(bridge.link.index)),
        up: Some(true),
        ..LinkChange::default()
    };
    host.change_link(&host_end, &change)?;
    host.set_hairpin(&host_end, request.hairpin)?;
    Ok(Pair {
        host: host_end,
        inside: inner_end,
        created,
    })
}

/// Returns the pair that leads from an interface of a namespace to the bridge, if there is one.
pub(super) fn find(
    host: &Netlink,
    inside: &Netlink,
    request: &DetachRequest<'_>,
) -> Result<Option<Pair>, NetError> {
    let Some(link) = inside.link(request.interface)? else {
        return Ok(None);
    };
    let foreign = || foreign(request.interface, request.target, request.bridge);
    let host_end = peer_on_host(host, &link, request.target)?.ok_or_else(foreign)?;
    let bridge = host.link(request.bridge)?;
    // A port of another bridge is somebody else's; one of none was left behind by a crash.
    if host_end.master.is_some() && host_end.master != bridge.map(|bridge| bridge.index) {
        return Err(foreign());
    }
    Ok(Some(Pair {
        host: host_end,
        inside: link,
        created: false,
    }))
}

/// Makes the pair under a name that is free, and returns that name; none if the interface was
/// made by somebody else at the same time.
fn create(
    host: &Netlink,
    inside: &Netlink,
    bridge: &Bridge,
    request: &AttachRequest<'_>,
) -> Result<Option<String>, NetError> {
    let mut attempt = 0;
    loop {
        let name = host_name(request, attempt);
        let result = host.create_veth(&NewVeth {
            name: &name,
            index: None,
            mtu: request.mtu.unwrap_or(bridge.link.mtu),
            master: Some(bridge.link.index),
            peer: VethPeer {
                name: request.interface,
                index: None,
                mac: request.mac,
                namespace: Some(std::os::fd::AsFd::as_fd(request.target)),
            },
        });
        match result {
            Ok(()) => return Ok(Some(name)),
            Err(error) if error.is(Errno::EXIST) => {
                if inside.link(request.interface)?.is_some() {
                    return Ok(None);
                }
                attempt += 1;
                if attempt == NAME_ATTEMPTS_MAX {
                    return Err(error);
                }
            }
            Err(error) => return Err(error),
        }
    }
}

/// Returns the end on the host of an interface that exists, which must be or become a port of the
/// bridge.
fn other_end(
    host: &Netlink,
    inside: &Link,
    bridge: &Bridge,
    request: &AttachRequest<'_>,
) -> Result<Link, NetError> {
    let foreign = || foreign(request.interface, request.target, request.bridge);
    let link = peer_on_host(host, inside, request.target)?.ok_or_else(foreign)?;
    if link.master.is_some() && link.master != Some(bridge.link.index) {
        return Err(foreign());
    }
    Ok(link)
}

/// Returns the other end of `inside`, if that is in the host's namespace. Numbers of links repeat
/// in each namespace, so both ends must name each other.
fn peer_on_host(
    host: &Netlink,
    inside: &Link,
    target: &Namespace,
) -> Result<Option<Link>, NetError> {
    let Some(peer) = inside.peer else {
        return Ok(None);
    };
    let Some(link) = host.link_at(peer.index)? else {
        return Ok(None);
    };
    let Some(back) = link.peer else {
        return Ok(None);
    };
    let number = host.namespace_number(std::os::fd::AsFd::as_fd(target))?;
    let same = back.index == inside.index && back.namespace.is_some() && back.namespace == number;
    Ok(same.then_some(link))
}

fn foreign(interface: &str, target: &Namespace, bridge: &str) -> NetError {
    NetError::ForeignInterface {
        name: interface.to_owned(),
        target: target.to_string(),
        bridge: bridge.to_owned(),
    }
}

/// `vethwepl` and the pid, as Weave names it. Without a pid, or when that name is taken (a
/// second interface, or a namespace that outlived its process whose number was given again), a
/// letter and six digits to the base 36 from a hash of what is attached.
fn host_name(request: &AttachRequest<'_>, attempt: u32) -> String {
    match request.pid {
        Some(pid) if attempt == 0 && pid <= PID_MAX => format!("{PREFIX}{pid}"),
        _ => hashed_name(request.target.id(), request.interface, attempt),
    }
}

fn hashed_name(namespace: NamespaceId, interface: &str, attempt: u32) -> String {
    // FNV-1a; only the spread matters.
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let inode = namespace.inode().to_be_bytes();
    for byte in inode
        .iter()
        .chain(interface.as_bytes())
        .chain(&attempt.to_be_bytes())
    {
        hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    }
    hash ^= hash >> 32;
    let digits = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut name = format!("{PREFIX}n");
    for _ in 0..6 {
        name.push(char::from(digits[(hash % 36) as usize]));
        hash /= 36;
    }
    name
}

pub(super) fn alias_of(owner: &str) -> String {
    let mut end = owner.len().min(OWNER_BYTES_MAX);
    while !owner.is_char_boundary(end) {
        end -= 1;
    }
    format!("{ALIAS} {}", &owner[..end])
}

/// What the names of ends on the bridge begin with, ours and Weave Net's.
pub(crate) const PREFIX: &str = "vethwepl";
/// The highest pid that fits the name: seven digits. The kernel's highest is 4194304.
const PID_MAX: u32 = 9_999_999;
/// Number of names that are tried before a collision is an error.
const NAME_ATTEMPTS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let namespace = Namespace::current().unwrap();
        let mut request = AttachRequest::new("weave", &namespace);
        let mut names: Vec<String> = (0..4).map(|n| host_name(&request, n)).collect();
        request.interface = "ethwe1";
        names.push(host_name(&request, 0));
        request.pid = Some(4_194_304);
        names.push(host_name(&request, 0));
        assert_eq!(names[5], "vethwepl4194304");
        assert!(names.iter().all(|name| name.len() == 15), "{names:?}");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), 6);
    }

    #[test]
    fn long_owners_are_cut_between_characters() {
        let alias = alias_of(&"é".repeat(OWNER_BYTES_MAX));
        assert_eq!(alias.len(), "weft ".len() + OWNER_BYTES_MAX);
        assert_eq!(alias_of("x"), "weft x");
    }
}
