//! Answers to users.

use proto::types::Mac;

use super::status::Status;
use crate::leases::{Lease, LeaseKey};
use crate::range::Cidr;

/// Answer to a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// It is done.
    Done,
    /// The address.
    Address {
        /// With the prefix length of its subnet.
        cidr: Cidr,
        /// Its MAC address, if it belongs to a lease.
        mac: Option<Mac>,
    },
    /// Addresses, in the order of their allocation or sorted.
    Addresses(Vec<Cidr>),
    /// Addresses by id.
    Owned(Vec<(String, Vec<Cidr>)>),
    /// Number of addresses that were taken over.
    TakenOver(u32),
    /// Leases.
    Leases(Vec<LeaseInfo>),
    /// Status of the allocator.
    Status(Box<Status>),
}

/// A lease, for display.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// Its key.
    pub key: LeaseKey,
    /// The lease.
    pub lease: Lease,
    /// Its MAC address.
    pub mac: Mac,
    /// The nickname of its holder, if known.
    pub holder_nickname: Option<String>,
    /// Whether its holder can be reached, or is us.
    pub holder_reachable: bool,
}
