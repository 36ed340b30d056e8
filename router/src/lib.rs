//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod cli;
pub mod config;
pub mod data;
pub mod firewall;
pub mod http;
pub mod lock;
pub mod net;
pub mod store;
pub mod sys;
pub mod tap;
pub mod telemetry;
pub mod udp;

#[cfg(test)]
mod testing;
