//! Meshes of real processes on hosts made of namespaces; see the crate's documentation.

mod commands;
mod demo;
mod discovery;
mod fallback;
mod figures;
mod host;
mod hostile;
mod mtu;
mod pages;
mod pair;
mod refusal;
mod restart;
mod shape;
mod trust;
