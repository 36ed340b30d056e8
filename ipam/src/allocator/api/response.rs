//! What is answered to users.

use proto::types::Mac;

use super::status::Status;
use crate::leases::{Lease, LeaseKey};
use crate::range::Cidr;

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// It is done.
    Done,
    /// The address.
    Address {
        /// With the prefix length of its subnet.
        cidr: Cidr,
        /// The MAC address that goes with it, if it is of a lease.
        mac: Option<Mac>,
    },
    /// Addresses, in the order in which they were asked for or of their numbers.
    Addresses(Vec<Cidr>),
    /// Addresses by id.
    Owned(Vec<(String, Vec<Cidr>)>),
    /// How many addresses were taken over.
    TakenOver(u32),
    /// Leases.
    Leases(Vec<LeaseInfo>),
    /// How everything is.
    Status(Box<Status>),
}

/// A lease as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// What it is for.
    pub key: LeaseKey,
    /// What it says.
    pub lease: Lease,
    /// The MAC address that goes with it.
    pub mac: Mac,
    /// The nickname of its holder, if known.
    pub holder_nickname: Option<String>,
    /// Whether its holder can be reached, or is us.
    pub holder_reachable: bool,
}
