//! Meshes of real processes on hosts made of namespaces; see the crate's documentation.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    reason = "tests fail by panicking, and print what they measured"
)]

mod addresses;
mod cni;
mod commands;
mod containerd;
mod demo;
mod discovery;
mod fallback;
mod figures;
mod host;
mod hostile;
mod mixed_addresses;
mod mtu;
mod names;
mod native;
mod native_path;
mod pages;
mod pair;
mod podman;
mod refusal;
mod restart;
mod rules;
mod service;
mod shape;
mod trust;
