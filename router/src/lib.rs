//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod cli;
pub mod config;
pub mod demo;
pub mod launch;
pub mod telemetry;
