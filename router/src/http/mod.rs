//! The HTTP interface: status pages, report, metrics and control.

pub mod client;
mod expose;
mod ip;
mod leases;
pub mod metrics;
pub mod report;
pub mod server;
pub mod status;
pub mod template;
mod weft_page;
