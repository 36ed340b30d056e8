//! The HTTP interface: status pages, report, metrics and control.

pub mod client;
pub mod metrics;
pub mod report;
pub mod status;
pub mod template;
