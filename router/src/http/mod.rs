//! The HTTP interface: status pages, report, metrics and control.

mod bench;
pub mod client;
mod expose;
pub(crate) mod ip;
mod leases;
pub mod metrics;
mod names;
pub mod report;
pub mod server;
pub mod services;
pub mod status;
pub mod template;
mod weft_page;
