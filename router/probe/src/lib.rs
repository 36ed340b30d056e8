//! Measurements over the mesh.

pub mod bench;
