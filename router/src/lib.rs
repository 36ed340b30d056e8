//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod cli;
pub mod config;
pub mod http;
pub mod store;
pub mod telemetry;
