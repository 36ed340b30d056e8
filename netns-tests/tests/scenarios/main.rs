//! Meshes of real processes on hosts made of namespaces; see the crate's documentation.

mod pair;
