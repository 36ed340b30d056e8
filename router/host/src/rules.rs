//! Packet filter rules, in tables of our own.
//!
//! * [`kernel::packet_filter`] is the model of tables, chains and rules, and reads and writes them.
//! * [`HostRules`] is what the router wants on its host, [`multicast`] what it wants in containers.
//!
//! Rules of others are never touched: everything of ours is in a table of ours, but for one chain
//! with accepts and one rule that leads there ([`container`]), also in the older packet filter (`legacy`).

pub mod container;
pub mod host;
pub mod multicast;

pub use host::{DockerBridge, HostRules};
