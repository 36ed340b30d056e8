//! The HTTP interface: status pages, report, metrics and control.

mod bench;
mod expose;
pub(crate) mod ip;
mod leases;
mod names;
pub mod server;
pub mod status;
pub mod template;
mod weft_page;
