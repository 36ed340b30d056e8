//! The HTTP interface: status pages, report, metrics and control.

mod addresses;
mod bench;
pub mod config;
mod expose;
mod leases;
mod names;
mod reports;
pub mod routes;
pub mod services;
mod status_page;
mod template;
mod weft_page;
