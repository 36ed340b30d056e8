//! Docker's networks: the plugin that its engine calls, and what we ask of its API.
//!
//! ```text
//! dockerd --plugin calls--> server --> driver, ipam --requests--> control
//!         <--API calls----- starting, watch             driver --> net
//! ```
//!
//! * `server` speaks the plugin protocol, `driver` and `ipam` do what it asks for.
//! * `bounds` says what may be asked for.
//! * `starting` and `identity` find out for whom an endpoint is.
//! * `costs` says how long it all took.
//! * `state` keeps networks and endpoints over restarts.
//! * `watch` follows Docker's events; `settle` puts right what was not known when an endpoint was
//!   made, and `sidecar` attaches containers that are on none of our networks.

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::net::UnixListener as StdListener;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;
use tokio::net::UnixListener;
use tokio::sync::Notify;

use crate::attribution::Seekers;
use crate::config::Config;
use crate::endpoint_locks::Turns;
use crate::engine::Docker;
use crate::latency::Costs;
use crate::networks::Registry;
use crate::plugin_server::Socket;
use crate::{driver, labelled, plugin_server};
use boundary::records::Record;
use control::client::Client;
use host::attach::endpoint::{self, FoundEndpoint};
use host::blocking::blocking;
use report::metrics::Metric;
use store::store::Store;
use web::endpoint::Endpoint;
use web::listener::open_unix;

/// Interval between checks whether Docker is available, while it is not.
const LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// Maximum time for Docker to say whether a container runs.
const ALIVE_TIME_MAX: Duration = Duration::from_secs(5);

/// The state that Docker's calls work on.
#[derive(Debug)]
pub(crate) struct Plugin {
    pub(crate) config: Config,
    pub(crate) client: Client,
    pub(crate) registry: Registry,
    pub(crate) docker: Option<Arc<Docker>>,
    pub(crate) turns: Turns,
    pub(crate) costs: Costs,
    /// Endpoints that are being made, by network.
    pub(crate) seekers: Seekers,
    /// The names of the drivers whose sockets are open.
    pub(crate) serving: Mutex<BTreeSet<String>>,
    /// The containers that were attached without any network of Docker's.
    pub(crate) sidecar: Mutex<BTreeMap<String, labelled::Attached>>,
    /// Those that could not be attached and are tried again.
    pub(crate) retrying: Mutex<BTreeSet<String>>,
    /// Whether Docker's events come in, so that it answers.
    pub(crate) following: AtomicBool,
    /// Told when something was left behind.
    pub(crate) untidy: Notify,
    /// The sockets that this process made, and removes when the host leaves the mesh.
    pub(crate) bound: Mutex<Vec<PathBuf>>,
    /// Held while networks are made.
    pub(crate) ensuring: tokio::sync::Mutex<()>,
}

/// Handle for requests to Docker's networks.
#[derive(Clone, Debug)]
pub struct Networks(Arc<Plugin>);

impl Networks {
    /// Returns what the store knows of them. Nothing is served until they are started.
    pub fn new(config: Config, client: Client, store: &Arc<Store>, records: &[Record]) -> Networks {
        let docker = config.api.clone();
        Networks(Arc::new(Plugin {
            config,
            client,
            registry: Registry::load(Arc::clone(store), records),
            docker: docker.map(|at| Arc::new(Docker::new(at))),
            turns: Turns::default(),
            costs: Costs::default(),
            seekers: Seekers::default(),
            serving: Mutex::default(),
            sidecar: Mutex::default(),
            retrying: Mutex::default(),
            following: AtomicBool::new(false),
            untidy: Notify::new(),
            bound: Mutex::default(),
            ensuring: tokio::sync::Mutex::default(),
        }))
    }

    /// Starts what the configuration wants of Docker. `activated` are the sockets that systemd
    /// opened.
    pub async fn start(&self, activated: Vec<StdListener>) {
        let plugin = &self.0;
        if let Err(error) = plugin.clean_up().await {
            tracing::warn!(%error, "what interrupted calls of Docker left was not cleaned up");
        }
        if plugin.config.plugin.legacy
            && let Ok(Some(range)) = plugin.range().await
        {
            tokio::spawn(Arc::clone(plugin).follow_range(range));
        }
        let mut activated: Vec<UnixListener> = activated
            .into_iter()
            .filter_map(|listener| UnixListener::from_std(listener).ok())
            .collect();
        for (socket, always) in plugin.sockets() {
            let given = activated
                .iter()
                .position(|listener| is_at(listener, &socket.path));
            match given.map(|position| activated.swap_remove(position)) {
                Some(listener) => {
                    tokio::spawn(Arc::clone(plugin).serve(listener, socket));
                }
                None if always => {
                    tokio::spawn(Arc::clone(plugin).listen(socket));
                }
                None => {
                    tokio::spawn(Arc::clone(plugin).listen_when_docker_is_there(socket));
                }
            }
        }
        if let Some(docker) = plugin.docker.clone() {
            tokio::spawn(Arc::clone(plugin).watch(docker));
        }
    }

    /// Removes the networks that weft makes by itself, and then the sockets of the plugin.
    /// Returns what became of them, one a line.
    pub async fn remove(&self) -> Vec<String> {
        let mut lines = self.0.remove_networks().await;
        lines.extend(self.0.remove_sockets());
        lines
    }

    /// Returns true if Docker says that there is no such container, or that it does not run.
    /// Without Docker's word it may run.
    pub async fn has_ended(&self, container: &str) -> bool {
        let Some(docker) = &self.0.docker else {
            return false;
        };
        match docker.container(container, ALIVE_TIME_MAX).await {
            Ok(found) => found.is_none_or(|container| !container.state.running),
            Err(error) => {
                tracing::warn!(container, %error, "it is not known whether a container runs");
                false
            }
        }
    }

    /// Returns what Docker's calls have taken, as JSON.
    pub fn costs(&self) -> Value {
        self.0.costs.facts()
    }

    /// The same as metrics.
    pub fn metrics(&self) -> Vec<Metric> {
        self.0.costs.metrics()
    }
}

fn is_at(listener: &UnixListener, path: &Path) -> bool {
    listener
        .local_addr()
        .is_ok_and(|address| address.as_pathname() == Some(path))
}

impl Plugin {
    /// Returns the drivers that are served, and whether also while Docker is not there.
    pub(crate) fn sockets(&self) -> Vec<(Socket, bool)> {
        let plugin = &self.config.plugin;
        let mut sockets = Vec::new();
        if let Some(path) = &plugin.weft_socket {
            sockets.push((Socket::weft(path), false));
        }
        if plugin.legacy || plugin.v2 {
            let global = plugin.socket.as_deref().map(Socket::weave);
            let local = plugin.mesh_socket.as_deref().map(Socket::weavemesh);
            sockets.extend(global.into_iter().chain(local).map(|socket| (socket, true)));
        }
        sockets
    }

    /// Opens a driver's socket when Docker is found, so that hosts without it are left alone.
    pub(crate) async fn listen_when_docker_is_there(self: Arc<Self>, socket: Socket) {
        let Some(docker) = &self.docker else { return };
        if let Endpoint::Unix(path) = docker.address() {
            while !path.exists() {
                tokio::time::sleep(LOOK_INTERVAL).await;
            }
        }
        self.listen(socket).await;
    }

    pub(crate) async fn listen(self: Arc<Self>, socket: Socket) {
        match open_unix(&socket.path).await {
            Ok(listener) => {
                self.bound().push(socket.path.clone());
                self.serve(listener, socket).await;
            }
            Err(error) => {
                let path = socket.path.display();
                tracing::warn!(
                    %path,
                    %error,
                    "Docker's network plugin is not served: its socket cannot be opened. Does \
                     another router serve it?"
                );
            }
        }
    }

    /// Serves a driver, and makes its network.
    pub(crate) async fn serve(self: Arc<Self>, listener: UnixListener, socket: Socket) {
        let path = socket.path.display();
        tracing::info!(driver = socket.name, %path, "serving Docker's network plugin");
        self.now_serving(&socket.name);
        let plugin = Arc::clone(&self);
        tokio::spawn(async move { plugin.ensure_networks().await });
        plugin_server::serve(listener, socket, self).await;
    }

    pub(crate) fn bound(&self) -> MutexGuard<'_, Vec<PathBuf>> {
        self.bound.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn remove_sockets(&self) -> Vec<String> {
        let mut bound = self.bound();
        let removed = bound.drain(..).filter_map(|path| {
            std::fs::remove_file(&path).ok()?;
            Some(format!("removed {}", path.display()))
        });
        removed.collect()
    }

    pub(crate) fn now_serving(&self, name: &str) {
        let mut serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.insert(name.to_owned());
    }

    /// Returns the names of the drivers whose sockets are open.
    pub(crate) fn serving(&self) -> Vec<String> {
        let serving = self.serving.lock().unwrap_or_else(PoisonError::into_inner);
        serving.iter().cloned().collect()
    }

    /// Removes what calls that were cut short have left: addresses and interfaces of endpoints
    /// that were never finished.
    pub(crate) async fn clean_up(&self) -> Result<(), String> {
        let endpoints = self.registry.endpoints();
        let names: Vec<String> = endpoints.keys().map(|id| driver::host_name(id)).collect();
        let found = blocking(move || {
            let found = endpoint::all(driver::HOST_PREFIX)?;
            for pair in &found {
                if !pair.taken && !names.contains(&pair.host_name) {
                    endpoint::delete(&pair.host_name)?;
                }
            }
            Ok::<_, kernel::error::NetError>(found)
        });
        let found = found.await?;
        for holder in self.strays(&found).await? {
            self.release_stray(&holder).await?;
        }
        Ok(())
    }

    /// Returns who has addresses without an endpoint: calls that are under way, and such as failed
    /// and could not give theirs back.
    pub(crate) async fn strays(&self, found: &[FoundEndpoint]) -> Result<BTreeSet<String>, String> {
        let holdings = self.holdings().await?;
        // What a container has is in use, whether or not there is a record of it.
        let taken = found.iter().filter(|pair| pair.taken);
        let mut known: BTreeSet<String> = taken.filter_map(|pair| pair.owner.clone()).collect();
        let endpoints = self.registry.endpoints();
        known.extend(endpoints.into_values().filter_map(|e| e.holder));
        let holders = holdings.into_iter().map(|(holder, _)| holder);
        Ok(holders
            .filter(|holder| driver::is_holder(holder) && !known.contains(holder))
            .collect())
    }

    pub(crate) async fn release_stray(&self, holder: &str) -> Result<(), String> {
        self.release(holder).await?;
        tracing::info!(
            holder,
            "released the address of an endpoint that was never made"
        );
        Ok(())
    }
}
