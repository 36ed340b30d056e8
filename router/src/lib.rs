//! The weft router: everything that touches sockets, devices, clocks and disks.

pub mod http;
