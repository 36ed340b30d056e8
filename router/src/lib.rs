//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod bench;
pub mod cli;
pub mod cni;
pub mod config;
pub mod control;
pub mod data;
pub mod demo;
pub mod dns;
pub mod docker;
pub mod http;
pub mod launch;
pub mod store;
pub mod tap;
pub mod tcp;
pub mod telemetry;
pub mod udp;
