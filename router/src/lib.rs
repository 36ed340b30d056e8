//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod commands;
pub mod config;
pub mod demo;
pub mod flags;
pub mod launch;
pub mod logging;
