//! Packet filter rules, in tables of our own.
//!
//! * [`rules`] is the model: tables, chains, rules.
//! * [`nft`] writes and reads them by way of nf_tables' netlink interface, one transaction per
//!   change, so that there is never a moment with half of the rules.
//! * [`HostRules`] is what the router wants on its host, [`multicast`] what it wants in containers.
//!
//! Rules of others are never touched: everything of ours is in a table of ours, but for one chain
//! with accepts and one rule that leads there (`guest`), also in the older packet filter (`legacy`).

mod guest;
mod host;
pub mod multicast;

pub use host::{DockerBridge, HostRules};
