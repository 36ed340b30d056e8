//! What reports, status pages and metrics are made from.
//!
//! Larger than the habit: each report is a function of the same view, in a file of its own.

use boundary::forwarding::Figures;
use control::view::View;
use serde_json::Value;

use super::config::Config;
use super::services::{NameServerStatus, Services};

/// The view from which reports, status pages and metrics are made.
pub(crate) struct Sources<'a> {
    /// The state of the loop.
    pub(crate) view: &'a View,
    /// The router's configuration.
    pub(crate) config: &'a Config,
    /// Counters of the data plane.
    pub(crate) figures: &'a dyn Figures,
    /// Status of the server for names; `None` if names are off.
    pub(crate) name_server: Option<NameServerStatus>,
    /// Times of Docker's calls.
    pub(crate) docker: Value,
}

impl<'a> Sources<'a> {
    /// Returns all of them.
    pub(crate) fn of(services: &'a Services, view: &'a View) -> Sources<'a> {
        let server = services.name_server.as_ref();
        Sources {
            view,
            config: &services.config,
            figures: &*services.figures,
            name_server: server.map(|server| server.status()),
            docker: services.docker.latency(),
        }
    }
}
