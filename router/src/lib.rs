//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod cli;
pub mod config;
pub mod firewall;
pub mod http;
pub mod lock;
pub mod net;
pub mod store;
pub mod sys;
pub mod telemetry;

#[cfg(test)]
mod testing;
