//! Reports, facts and metrics, made from a view of the control loop.

mod links;
mod mesh;
mod names;

pub use mesh::Sources;
