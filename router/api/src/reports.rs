//! Reports, facts and metrics, made from a view of the control loop.

mod links;
mod mesh;
mod names;

pub(crate) use mesh::Sources;
