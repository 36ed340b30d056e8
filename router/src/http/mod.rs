//! The HTTP interface: status pages, report, metrics and control.

mod bench;
pub mod config;
mod expose;
pub(crate) mod ip;
mod leases;
mod names;
pub mod reports;
pub mod server;
pub mod services;
pub mod status;
pub mod template;
mod weft_page;
