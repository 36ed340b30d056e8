//! What the HTTP interface reaches beside the control loop. Each is filled in at launch, so that
//! pages and routes build without what is behind them.

use std::future::Future;
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::Value;

use super::config::Config;
use boundary::forwarding::Figures;
use control::client::Client;
use report::metrics::Metric;

/// An answer that takes time.
pub type Later<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything that routes work on.
#[derive(Clone)]
pub struct Services {
    /// The way to the control loop.
    pub client: Client,
    /// How the router runs.
    pub config: Arc<Config>,
    /// What the data plane counts.
    pub figures: Arc<dyn Figures>,
    /// The host's own addresses.
    pub gateway: Arc<dyn Gateway>,
    /// Docker's networks.
    pub docker: Arc<dyn DockerNetworks>,
    /// Measurements over the mesh.
    pub measure: Arc<dyn Measure>,
    /// The server that answers questions for names; `None` if names are off.
    pub name_server: Option<Arc<dyn NameServer>>,
}

/// Gives the host addresses of the network, and takes them.
pub trait Gateway: Send + Sync {
    /// Gives the host an address, and saves that.
    fn expose(&self, address: Ipv4Net, masquerade: bool) -> Later<'_, Result<(), String>>;

    /// Takes an address from the host, or all, and saves that. Returns those that it had.
    fn hide(&self, address: Option<Ipv4Net>) -> Later<'_, Result<Vec<Ipv4Net>, String>>;
}

/// What is asked of Docker's networks.
pub trait DockerNetworks: Send + Sync {
    /// Returns true if Docker says that there is no such container, or that it does not run.
    fn has_ended<'a>(&'a self, container: &'a str) -> Later<'a, bool>;

    /// Removes the networks that weft makes by itself. Returns what became of them, one a line.
    fn remove(&self) -> Later<'_, Vec<String>>;

    /// What Docker's calls have taken, as JSON.
    fn latency(&self) -> Value;

    /// The same as metrics.
    fn metrics(&self) -> Vec<Metric>;
}

/// Measures how fast frames get to other routers.
pub trait Measure: Send + Sync {
    /// What is being measured at the moment; null if nothing is.
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
    /// How it does.
    fn status(&self) -> NameServerStatus;

    /// Addresses of this host at which containers can ask on the usual port; none if nobody
    /// listens there.
    fn resolvers(&self) -> Later<'_, Result<Vec<Ipv4Addr>, String>>;

    /// What it counts.
    fn metrics(&self) -> Vec<Metric>;
}

/// How the server for names does.
#[derive(Clone, Debug)]
pub struct NameServerStatus {
    /// Where questions are taken, or would be if nobody else had the port.
    pub address: SocketAddr,
    /// The host's servers; the usual port is left out, as in the file that names them.
    pub upstreams: Vec<String>,
    /// How it listens on UDP, as JSON.
    pub udp: Value,
    /// How it listens on TCP, as JSON.
    pub tcp: Value,
    /// What keeps questions from being answered, in words for people.
    pub warnings: Vec<String>,
}
