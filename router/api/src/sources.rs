//! What reports, status pages and metrics are made from.

use boundary::forwarding::Figures;
use control::view::View;
use serde_json::Value;

use super::config::Config;
use super::services::NameServerStatus;

/// What reports, status pages and metrics are made from.
pub(crate) struct Sources<'a> {
    /// The state of the loop.
    pub(crate) view: &'a View,
    /// How the router runs.
    pub(crate) config: &'a Config,
    /// What the data plane counts.
    pub(crate) figures: &'a dyn Figures,
    /// What the server for names says of itself; `None` if names are off.
    pub(crate) name_server: Option<NameServerStatus>,
    /// What Docker's calls have taken.
    pub(crate) docker: Value,
}
