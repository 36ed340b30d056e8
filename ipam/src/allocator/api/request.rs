//! Requests of users.

use std::collections::BTreeSet;

use super::proof::Proof;
use crate::leases::{Identity, LeaseKey};
use crate::range::{Address, Cidr};

/// The number of a request, chosen by the driver and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An address found in use on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its owner: a container's id, `weave:expose`, or `_`.
    pub id: String,
    /// The address, with the prefix length of its subnet.
    pub cidr: Cidr,
    /// Whether the id is that of a container.
    pub container: bool,
}

/// A request of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Wait until there is a ring.
    Prime,
    /// An address for `id` in a subnet.
    Allocate {
        /// The id that gets it; `_` if there is none.
        id: String,
        /// Subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// The identity to which the address belongs, on any host and in any container.
        identity: Option<Identity>,
        /// Whether `id` is that of a container, whose end will be reported.
        container: bool,
    },
    /// This address for `id`.
    Claim {
        /// The id that gets it; `_` if there is none.
        id: String,
        /// The address, with the prefix length of its subnet.
        cidr: Cidr,
        /// Owner of the address.
        identity: Option<Identity>,
        /// Whether `id` is that of a container.
        container: bool,
        /// Answer at once if the owner is unknown or cannot be reached, and keep trying.
        no_error_on_unknown: bool,
        /// Take it from an identity for which it is reserved and which is not up.
        force: bool,
    },
    /// The addresses of `id` in a subnet; `None` for the default one.
    Lookup {
        /// Whose.
        id: String,
        /// Where.
        subnet: Option<Cidr>,
    },
    /// All addresses in use.
    List,
    /// Release one address.
    Free {
        /// Whose.
        id: String,
        /// Which.
        address: Address,
    },
    /// Release all addresses of `id`, which gives them back.
    Delete {
        /// Whose.
        id: String,
    },
    /// Release all addresses of `id`, which is gone.
    Release {
        /// Whose.
        id: String,
        /// What shows that.
        proof: Proof,
    },
    /// Give an address that one id has to another, or to an identity, in one step: at no time
    /// can anybody else get it, and if that fails it stays where it is.
    Move {
        /// Who has it.
        from: String,
        /// Who gets it; may be the same.
        to: String,
        /// The address, with the prefix length of its subnet.
        cidr: Cidr,
        /// Whose address it is from now on.
        identity: Option<Identity>,
        /// Whether `to` is the id of a container.
        container: bool,
    },
    /// Take over the ranges of a peer that never comes back.
    RemovePeer {
        /// Its name or nickname.
        peer: String,
        /// Whether it was confirmed that its host never comes back.
        confirmed: bool,
    },
    /// Transfer all ranges to another peer and stop.
    Shutdown,
    /// Report addresses that are already in use on this host.
    Found {
        /// Them.
        addresses: Vec<Found>,
    },
    /// Report all running containers; addresses of others are released.
    Prune {
        /// Their ids.
        running: BTreeSet<String>,
    },
    /// All leases.
    Leases,
    /// Reserve an address for an identity that has not run yet.
    LeaseReserve {
        /// Whose.
        identity: Identity,
        /// Subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// Address; `None` for any.
        address: Option<Address>,
        /// Keep it forever.
        pinned: bool,
    },
    /// Keep a lease forever, or not any more.
    LeasePin {
        /// Which.
        key: LeaseKey,
        /// Whether to keep it.
        pinned: bool,
    },
    /// End a lease.
    LeaseRelease {
        /// Which.
        key: LeaseKey,
        /// Even if its holder cannot be reached.
        force: bool,
    },
    /// Status of the allocator.
    Status,
}
