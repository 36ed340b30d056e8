//! What a lease is, and for whom.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use proto::types::PeerName;

use crate::range::{Address, Cidr};

/// Name of the channel on which weft routers exchange leases. Other routers relay it.
pub const CHANNEL: &str = "weft-leases";
/// Maximum length of an identity's name, in bytes. A longer one is refused.
///
/// Rule: `docs/protocol/ipam.md#9-2-entry`.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// Maximum length of a container id as sent to other routers, in bytes. A longer one is cut.
pub const CONTAINER_BYTES_MAX: usize = 255;
/// Maximum number of leases, including ended ones. A further one is refused.
pub const LEASES_MAX: usize = 1 << 18;
/// Maximum number of of them with one holder, as far as other routers tell of them; further ones
/// are ignored.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
pub const HOLDER_LEASES_MAX: usize = LEASES_MAX / 4;
/// How many of them are kept free for those that we make ourselves.
pub const LEASES_RESERVED: usize = LEASES_MAX / 4;
/// The highest version of a lease that is taken from another router: none gets there by counting,
/// and from there nobody could outdo it.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
pub const LEASE_VERSION_MAX: u64 = 1 << 62;

/// The identity of a container, as opposed to its id, which is new each time it is created.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Origin of the name.
    pub kind: IdentityKind,
    /// The name: any text of 1 to [`IDENTITY_BYTES_MAX`] bytes.
    name: String,
}

/// Origin of an identity's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// Given by the user. It is unique in the whole mesh and cannot be up twice.
    Explicit,
    /// Derived from the container's name. Such names are unique only per host, so one that is up
    /// elsewhere gets a lease for this host alone.
    Derived,
}

/// A text that cannot name an identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an identity must have 1 to {max} bytes, none of them control characters",
    max = IDENTITY_BYTES_MAX
)]
pub struct IdentityError;

impl Identity {
    /// Creates an identity of this kind and name.
    pub fn new(kind: IdentityKind, name: &str) -> Result<Identity, IdentityError> {
        let controls = name.contains(char::is_control);
        if name.is_empty() || name.len() > IDENTITY_BYTES_MAX || controls {
            return Err(IdentityError);
        }
        Ok(Identity {
            kind,
            name: name.to_owned(),
        })
    }

    /// Returns its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the key of its lease for the whole mesh.
    pub fn key(&self, subnet: Cidr) -> LeaseKey {
        let scope = match self.kind {
            IdentityKind::Explicit => Scope::Explicit,
            IdentityKind::Derived => Scope::Derived,
        };
        LeaseKey {
            scope,
            name: self.name.clone(),
            subnet,
        }
    }

    /// Returns the key of its lease for one host alone.
    pub fn host_key(&self, subnet: Cidr, host: PeerName) -> LeaseKey {
        LeaseKey {
            scope: Scope::Host(host),
            ..self.key(subnet)
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Scope in which a lease's name is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// The mesh; the name was given by the user.
    Explicit,
    /// The mesh; the name was derived from a container's name.
    Derived,
    /// One host; the name was derived from a container's name.
    Host(PeerName),
}

/// Key of a lease.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// Scope in which the name is unique.
    pub scope: Scope,
    /// The name of the identity.
    pub name: String,
    /// The subnet that the address is from.
    pub subnet: Cidr,
}

impl fmt::Display for LeaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.scope {
            Scope::Explicit | Scope::Derived => write!(f, "{} in {}", self.name, self.subnet),
            Scope::Host(host) => write!(f, "{} of host {host} in {}", self.name, self.subnet),
        }
    }
}

/// Whether an address of a lease is in use.
///
/// Rule: `docs/protocol/ipam.md#9-2-entry`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// The lease has ended. It is remembered for a while, so that old copies do not revive it.
    Gone,
    /// The address is not in use, and kept for the identity.
    Unused,
    /// A container with this id uses the address.
    Used(String),
}

/// The address of an identity.
///
/// Format: `docs/protocol/ipam.md#9-2-entry`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Increases with each change.
    pub version: u64,
    /// The router that may change it.
    pub holder: PeerName,
    /// The address.
    pub address: Address,
    /// Whether it is in use.
    pub state: LeaseState,
    /// Whether it is kept forever, even if addresses run short.
    pub pinned: bool,
    /// When `state` last changed, in seconds since 1970 by the holder's clock.
    pub since: u64,
}

impl Lease {
    /// Returns true if the lease has not ended.
    pub fn is_live(&self) -> bool {
        self.state != LeaseState::Gone
    }

    /// Returns true if the address is kept for the identity but not in use.
    pub fn is_unused(&self) -> bool {
        self.state == LeaseState::Unused
    }

    /// Returns true if the lease may be ended to make room.
    pub fn is_reclaimable(&self) -> bool {
        self.is_unused() && !self.pinned
    }

    /// Returns true if this copy replaces `other`. Any two different leases have the same order
    /// everywhere, even if two groups of routers made them independently.
    ///
    /// Rule: `docs/protocol/ipam.md#9-3-order`.
    pub fn beats(&self, other: &Lease) -> bool {
        self.rank() > other.rank()
    }

    fn rank(&self) -> impl Ord + '_ {
        (
            self.version,
            &self.state,
            Reverse(self.address),
            Reverse(self.holder),
            self.pinned,
            self.since,
        )
    }
}

/// A key and its lease.
pub type LeaseEntry = (Arc<LeaseKey>, Lease);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_fit_a_line() {
        let new = |name: &str| Identity::new(IdentityKind::Explicit, name).is_ok();
        for good in [
            "web-1",
            "shop/db 0",
            "größe",
            &"x".repeat(IDENTITY_BYTES_MAX),
        ] {
            assert!(new(good), "{good}");
        }
        for bad in [
            "",
            "a\nb",
            "\0",
            "\u{1b}[2J",
            &"x".repeat(IDENTITY_BYTES_MAX + 1),
        ] {
            assert!(!new(bad), "{bad:?}");
        }
    }
}
