//! Services that the HTTP interface reaches beside the control loop. They are filled in at launch,
//! so that pages and routes build without their implementations.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::config::Config;
use super::drawing_slots::DrawingSlots;
use boundary::forwarding::Figures;
use control::client::Client;
use report::metrics::MetricSource;

/// An answer that takes time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The state that routes work on.
#[derive(Clone)]
pub struct Services {
    /// The way to the control loop.
    pub client: Client,
    /// The router's configuration.
    pub config: Arc<Config>,
    /// Counters of the data plane.
    pub figures: Arc<dyn Figures>,
    /// The host's own addresses.
    pub gateway: Arc<dyn Gateway>,
    /// Docker's networks.
    pub docker: Arc<dyn DockerNetworks>,
    /// Measurements over the mesh.
    pub measure: Arc<dyn Measure>,
    /// The server that answers questions for names; `None` if names are off.
    pub name_server: Option<Arc<dyn NameServer>>,
    /// Others who count something.
    pub metrics: Arc<[Arc<dyn MetricSource>]>,
    /// Who may draw pages at the moment.
    pub drawing: DrawingSlots,
}

/// Gives the host addresses of the network, and takes them.
pub trait Gateway: Send + Sync {
    /// Gives the host an address, and saves that.
    fn expose(&self, address: Ipv4Net, masquerade: bool) -> Later<'_, Result<(), String>>;

    /// Takes an address from the host, or all, and saves that. Returns those that it had.
    fn hide(&self, address: Option<Ipv4Net>) -> Later<'_, Result<Vec<Ipv4Net>, String>>;
}

/// Requests to Docker's networks.
pub trait DockerNetworks: Send + Sync {
    /// Returns true if Docker says that there is no such container, or that it does not run.
    fn has_ended<'a>(&'a self, container: &'a str) -> Later<'a, bool>;

    /// Removes the networks that weft makes by itself. Returns what became of them, one a line.
    fn remove(&self) -> Later<'_, Vec<String>>;

    /// Returns what Docker's calls have taken, as JSON.
    fn latency(&self) -> Value;
}

/// Measures how fast frames get to other routers.
pub trait Measure: Send + Sync {
    /// Returns what is being measured at the moment; null if nothing is.
    fn step(&self) -> Value;

    /// Measures towards a peer, given by name or nickname, and returns the figures. `seconds` is
    /// the time for each figure. Dropping the future ends the measurement.
    fn measure(&self, peer: String, seconds: u32) -> Later<'_, Result<Value, MeasureError>>;
}

/// Why there are no figures.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MeasureError {
    /// The measurement cannot be had as it was asked for.
    #[error("{0}")]
    Refused(String),
    /// It began and came to nothing.
    #[error("{0}")]
    Failed(String),
}

/// The server that answers questions for names.
pub trait NameServer: Send + Sync {
    /// Returns how it does.
    fn status(&self) -> NameServerStatus;

    /// Addresses of this host at which containers can ask on the usual port; none if nobody
    /// listens there.
    fn resolvers(&self) -> Later<'_, Result<Vec<Ipv4Addr>, String>>;
}

/// Status of the server for names.
#[derive(Clone, Debug)]
pub struct NameServerStatus {
    /// Addresses that queries are answered on, or would be if no other program had the port.
    pub address: SocketAddr,
    /// The host's servers; the usual port is left out, as in the file that names them.
    pub upstreams: Vec<String>,
    /// Its UDP listener's state, as JSON.
    pub udp: Value,
    /// Its TCP listener's state, as JSON.
    pub tcp: Value,
    /// Obstacles to answering queries, in words for people.
    pub warnings: Vec<String>,
}
