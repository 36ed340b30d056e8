//! Packet filter rules.
//!
//! * [`rules`] is the model: tables, chains, rules.
//! * [`nft`] writes and reads them by way of nf_tables' netlink interface, one transaction per
//!   change, so that there is never a moment with half of the rules.
//! * [`legacy`] edits the tables of iptables-legacy, the older packet filter of the kernel.

pub mod legacy;
pub mod nft;
pub mod rules;
