//! Topology and routes: against what the real implementation did, and by their laws.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

mod laws;
mod routes;
mod support;
mod updates;
