//! The HTTP interface: status pages, report, metrics and control.

mod addresses;
mod answer;
mod bench;
pub mod config;
mod drawing;
pub mod drawing_slots;
mod expose;
mod form;
mod leases;
mod names;
mod reports;
pub mod routes;
pub mod services;
mod sources;
mod status_page;
mod template;
mod weft_page;
