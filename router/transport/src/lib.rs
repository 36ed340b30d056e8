//! The TCP connections of the mesh. What their bytes mean is not known here.

pub mod address;
pub mod tcp;
