//! What a lease is, and for whom.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use proto::types::PeerName;

use crate::range::{Address, Cidr};

/// The name of the channel on which weft routers speak of leases. Other routers relay it.
pub const CHANNEL: &str = "weft-leases";
/// Longest name of an identity, in bytes; a longer one is refused.
pub const IDENTITY_BYTES_MAX: usize = 255;
/// Longest container id that is told to other routers, in bytes; a longer one is cut.
pub const CONTAINER_BYTES_MAX: usize = 255;
/// Most leases that are kept, dead ones included; a further one is refused.
pub const LEASES_MAX: usize = 1 << 18;

/// Who a container is, apart from its id, which is new each time it is made.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// Where the name comes from.
    pub kind: IdentityKind,
    /// The name: any text of 1 to [`IDENTITY_BYTES_MAX`] bytes.
    name: String,
}

/// Where the name of an identity comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum IdentityKind {
    /// The user gave it, so it is one in the whole mesh: it cannot be up twice.
    Explicit,
    /// It was made from the container's name. Such names are unique per host only, so one that
    /// is up elsewhere gets a lease for this host alone.
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
    /// The identity of this kind and name.
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

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The key of its lease for the whole mesh.
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

    /// The key of its lease for one host alone.
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

/// Where a lease's name is unique.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// In the mesh, by the user's word.
    Explicit,
    /// In the mesh, derived from a container's name.
    Derived,
    /// On one host, derived from a container's name.
    Host(PeerName),
}

/// What a lease is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LeaseKey {
    /// Where the name is unique.
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
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LeaseState {
    /// The lease is no more; it is remembered for a while so that old copies do not revive it.
    Gone,
    /// Nobody uses the address; it is kept for the identity.
    Unused,
    /// A container has it.
    Used(String),
}

/// The address of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Grows with each change.
    pub version: u64,
    /// The router that may change it.
    pub holder: PeerName,
    /// The address.
    pub address: Address,
    /// Whether it is in use.
    pub state: LeaseState,
    /// Whether it is kept for ever, however short of space everyone is.
    pub pinned: bool,
    /// When `state` became what it is: seconds since 1970 by the holder's clock.
    pub since: u64,
}

impl Lease {
    /// Whether the lease exists, as opposed to being remembered as gone.
    pub fn is_live(&self) -> bool {
        self.state != LeaseState::Gone
    }

    /// Whether the address is kept for the identity although nobody uses it.
    pub fn is_unused(&self) -> bool {
        self.state == LeaseState::Unused
    }

    /// Whether it may be ended to make room.
    pub fn is_reclaimable(&self) -> bool {
        self.is_unused() && !self.pinned
    }

    /// Whether this copy replaces `other`. Any two different leases are ordered one way round, the
    /// same everywhere, also if two groups of routers made them without knowing of each other.
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
