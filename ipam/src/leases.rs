//! Leases: which address an identity has, on whatever host it runs.
//!
//! A lease ties an [`Identity`] to an address in one subnet. All weft routers keep a copy of
//! every lease; one of them, the *holder*, is where the identity last ran, and only the holder
//! changes the lease. Each change raises its version, and the higher version wins everywhere, so
//! copies can be sent in any order, any number of times.
//!
//! A lease says which address to *choose*. That the address is in use only once is the ring's
//! doing, whatever the leases say: a router gives an address to a container only if its own ring
//! says that it owns it.

mod lease;
mod mac;
mod table;
pub mod wire;

pub use lease::{
    CHANNEL, CONTAINER_BYTES_MAX, IDENTITY_BYTES_MAX, Identity, IdentityError, IdentityKind,
    LEASES_MAX, Lease, LeaseEntry, LeaseKey, LeaseState, Scope,
};
pub use mac::mac;
pub use table::LeaseTable;
pub(crate) use table::key_hash;
pub use wire::BUCKETS;
