//! Answers questions for names, and forwards what it does not know to the host's servers.

mod allowed_clients;
pub mod client;
mod forward;
mod limit;
pub mod listen;
pub mod metrics;
pub mod resolv;
pub mod server;
mod shared;
pub mod status;
mod tcp;
mod udp;
