//! Serves the calls of Docker's engine for networks, and follows its events.

mod addresses;
mod attach_request;
mod attribution;
pub mod config;
mod driver;
mod endpoint_locks;
mod engine;
mod follower;
mod identity;
mod ipam_driver;
mod labelled;
mod late_identity;
mod latency;
mod messages;
mod networks;
pub mod plugin;
mod plugin_server;
mod validate;
