//! Hosts made of network namespaces, and measurements between them.

pub mod host;
pub mod pinger;
pub mod throughput;
