//! The host's network: devices, addresses, routes and namespaces.
//!
//! Everything here talks to the kernel directly; no helper program is run, so that the binary
//! works from an empty image.
//!
//! * [`netlink`] is one synchronous socket to one namespace; [`netns`] finds, makes and enters
//!   namespaces; [`sysctl`] reads and writes settings; [`arp`] announces addresses.
//! * [`bridge`], [`attach`] and [`expose`] are what the router does with them; [`resolver`] has
//!   containers ask it for names.
//! * [`lab`] makes hosts out of namespaces; [`pinger`] and [`throughput`] measure between them.
//!
//! Functions that do not take a [`netns::Namespace`] work in that of the calling thread.
//! Each device that we make carries an alias that starts with [`ALIAS`], by which it is found
//! again after a crash and told from devices of others.

pub mod attach;
pub mod bridge;
pub mod expose;
pub mod lab;
pub mod overlap;
pub mod pinger;
pub mod resolver;
pub mod rollback;
pub mod throughput;

/// What the alias of each device that we made starts with.
pub const ALIAS: &str = "weft";

/// Whether this alias says that we made the device.
pub fn is_ours(alias: Option<&str>) -> bool {
    alias.is_some_and(|alias| alias == ALIAS || alias.starts_with("weft "))
}
