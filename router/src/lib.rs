//! The router's library: everything that touches the system.

pub mod firewall;
pub mod lock;
pub mod net;
pub mod sys;

#[cfg(test)]
mod testing;
