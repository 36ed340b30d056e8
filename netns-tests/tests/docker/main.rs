//! Docker's engines on hosts made of namespaces, with our router as their network plugin.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print what they measured"
)]

mod activation;
mod basics;
mod filter;
mod image;
mod names;
mod networks;
mod protocol;
mod sidecar;
mod starts;
mod support;
mod three;
