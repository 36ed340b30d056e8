//! The CNI plugin: one call of a container runtime.

mod address;
mod complaint;
pub mod conf;
mod delegate;
pub mod error;
pub mod invocation;
mod ipam;
mod net;
mod pending_releases;
pub mod plugin;
pub mod result;
pub mod setup;
mod wiring;
