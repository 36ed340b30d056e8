//! Reports, facts and metrics, made from a view of the control loop.

mod addresses;
mod facts;
mod links;
mod mesh;
mod metrics;
mod names;
