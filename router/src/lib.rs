//! The router's library: everything that touches the system.

pub mod data;
pub mod firewall;
pub mod lock;
pub mod net;
pub mod sys;
pub mod tap;
pub mod udp;

#[cfg(test)]
mod testing;
