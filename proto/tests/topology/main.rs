//! Topology and routes: against what the real implementation did, and by their laws.

mod laws;
mod routes;
mod support;
mod updates;
