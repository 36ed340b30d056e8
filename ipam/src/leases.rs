//! Leases: which address an identity has, independent of the host on which it runs.
//!
//! A lease binds an [`Identity`] to an address in one subnet. All weft routers keep a copy of every
//! lease. One of them, the *holder*, is where the identity last ran, and only the holder changes
//! the lease. Each change raises its version, and the higher version wins everywhere, so copies can
//! be sent in any order and repeatedly.
//!
//! A lease says which address to *choose*. The ring alone ensures that an address is used only
//! once, whatever leases say: a router gives an address to a container only if its own ring says
//! that it owns it.

mod lease;
mod mac;
mod table;
pub mod wire;

pub use lease::{
    CHANNEL, CONTAINER_BYTES_MAX, HOLDER_LEASES_MAX, IDENTITY_BYTES_MAX, Identity, IdentityError,
    IdentityKind, LEASE_VERSION_MAX, LEASES_MAX, LEASES_RESERVED, Lease, LeaseEntry, LeaseKey,
    LeaseState, Scope,
};
pub use mac::mac;
pub use table::LeaseTable;
pub(crate) use table::key_hash;
pub use wire::BUCKETS;
