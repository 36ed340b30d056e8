//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod bench;
pub mod cli;
pub mod config;
pub mod demo;
pub mod docker;
pub mod launch;
pub mod telemetry;
