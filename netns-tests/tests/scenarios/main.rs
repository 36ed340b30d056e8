//! Meshes of real processes on hosts made of namespaces; see the crate's documentation.

mod discovery;
mod mtu;
mod pair;
mod refusal;
mod restart;
mod shape;
mod trust;
