//! What users ask for.

use std::collections::BTreeSet;

use super::proof::Proof;
use crate::leases::{Identity, LeaseKey};
use crate::range::{Address, Cidr};

/// The number of a request, chosen by the driver, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An address found in use on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who has it: a container's id, `weave:expose`, or `_`.
    pub id: String,
    /// The address, with the prefix length of its subnet.
    pub cidr: Cidr,
    /// Whether the id is that of a container.
    pub container: bool,
}

/// A wish of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Wait until there is a ring.
    Prime,
    /// An address for `id` in a subnet.
    Allocate {
        /// Who gets it; `_` if there is no id.
        id: String,
        /// From which subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// Whose address it is, wherever and as whatever container it runs.
        identity: Option<Identity>,
        /// Whether `id` is that of a container, whose end will be told.
        container: bool,
    },
    /// This address for `id`.
    Claim {
        /// Who gets it; `_` if there is no id.
        id: String,
        /// The address, with the prefix length of its subnet.
        cidr: Cidr,
        /// Whose address it is.
        identity: Option<Identity>,
        /// Whether `id` is that of a container.
        container: bool,
        /// Answer at once if the owner is not known or cannot be reached, and keep trying.
        no_error_on_unknown: bool,
        /// Take it from an identity that has it and is not up.
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
        /// Whether somebody confirmed that its host never comes back.
        confirmed: bool,
    },
    /// Give all ranges away and stop.
    Shutdown,
    /// These addresses are in use on this host already.
    Found {
        /// Them.
        addresses: Vec<Found>,
    },
    /// Only these containers run; addresses of others are released.
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
        /// In which subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// Which address; `None` for any.
        address: Option<Address>,
        /// Keep it for ever.
        pinned: bool,
    },
    /// Keep a lease for ever, or not any more.
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
        /// Also if its holder cannot be reached.
        force: bool,
    },
    /// How everything is.
    Status,
}
