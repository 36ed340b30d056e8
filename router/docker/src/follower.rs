//! Events of Docker: containers that start and end, and networks.
//!
//! The stream of events is followed for as long as the router runs. Whenever it begins, after a
//! restart of Docker too, everything is looked at once: what was missed meanwhile is made up for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ipam::range::Cidr;
use ipnet::Ipv4Net;

use crate::driver;
use crate::engine::{ApiError, Docker, Event, Inspected, Listed, ListedNetwork, NewNetwork};
use crate::networks::Network;
use crate::plugin::Plugin;
use crate::plugin_server::Socket;
use control::request::ContainerEvent;
use host::attach::endpoint;
use host::blocking::blocking;

/// Maximum time for Docker to answer outside of its own calls of the plugin.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum time for which a removal waits for Docker's list.
const REMOVAL_TIME_MAX: Duration = Duration::from_secs(3);
/// Maximum time for Docker to create a network: it waits for the plugin first.
const NETWORK_TIME_MAX: Duration = Duration::from_secs(60);
/// First and longest pause before the stream of events is asked for again.
const RETRY_TIME_MIN: Duration = Duration::from_millis(250);
const RETRY_TIME_MAX: Duration = Duration::from_secs(1);
/// Time after which Docker has forgotten a container that it does not list.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(60);
/// Interval between checks whether the range has yielded, until it is settled.
const RANGE_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between checks for what was forgotten.
const TIDY_INTERVAL: Duration = Duration::from_secs(600);

impl Plugin {
    /// Follows Docker until the runtime ends.
    pub(crate) async fn watch(self: Arc<Self>, docker: Arc<Docker>) {
        let mut pause = RETRY_TIME_MIN;
        let mut told = false;
        loop {
            docker.forget_version();
            match docker.events(ANSWER_TIME_MAX).await {
                Ok(mut events) => {
                    tracing::info!(api = %docker.address(), "following Docker's events");
                    self.following.store(true, Ordering::Relaxed);
                    (pause, told) = (RETRY_TIME_MIN, false);
                    let plugin = Arc::clone(&self);
                    let resync = tokio::spawn(async move { plugin.resync().await });
                    while let Some(event) = events.next().await {
                        self.handle_event(event).await;
                    }
                    self.following.store(false, Ordering::Relaxed);
                    resync.abort();
                    tracing::info!("Docker's events ended; waiting for it to come back");
                }
                Err(error) if !told => {
                    if matches!(error, ApiError::Late(..)) {
                        tracing::warn!(api = %docker.address(), %error, "Docker does not answer");
                    } else {
                        tracing::debug!(%error, "Docker's events cannot be followed yet");
                    }
                    told = true;
                }
                Err(_) => {}
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(RETRY_TIME_MAX);
        }
    }

    async fn handle_event(self: &Arc<Self>, event: Event) {
        let actor = event.actor;
        let plugin = Arc::clone(self);
        // Each on its own: what concerns one container waits for its turn.
        match (event.kind.as_str(), event.action.as_str()) {
            ("container", "start") => {
                tokio::spawn(async move { plugin.container_started(&actor.id).await });
            }
            ("container", "rename") => {
                tokio::spawn(async move {
                    plugin.unname(&actor.id, None).await;
                    plugin.container_started(&actor.id).await;
                });
            }
            ("network", "connect") => {
                let container = actor.attributes.get("container").cloned();
                let container = container.unwrap_or_default();
                tokio::spawn(async move { plugin.container_started(&container).await });
            }
            ("container", "die") => {
                tokio::spawn(async move { plugin.container_died(&actor.id).await });
            }
            ("container", "destroy") => {
                self.tell(&actor.id, ContainerEvent::Destroyed).await;
            }
            _ => {}
        }
    }

    /// Looks at everything that Docker has.
    async fn resync(self: &Arc<Self>) {
        if let Err(error) = self.look_at_everything().await {
            tracing::warn!(%error, "what Docker has could not be looked at");
        }
        loop {
            if let Err(error) = self.forget_the_forgotten().await {
                tracing::warn!(%error, "what Docker has forgotten was not cleaned up");
            }
            // Without word of it something may be left all the same.
            let _ = tokio::time::timeout(TIDY_INTERVAL, self.untidy.notified()).await;
        }
    }

    async fn look_at_everything(self: &Arc<Self>) -> Result<(), String> {
        let Some(docker) = &self.docker else {
            return Ok(());
        };
        let networks = docker.networks(ANSWER_TIME_MAX).await;
        let networks = networks.map_err(|error| error.to_string())?;
        for network in &networks {
            self.learn_network(network).await?;
        }
        self.ensure_networks().await;
        let containers = docker.containers(ANSWER_TIME_MAX).await;
        let containers = containers.map_err(|error| error.to_string())?;
        let running = |c: &&Listed| ["running", "paused"].contains(&c.state.as_str());
        let running: BTreeSet<String> = containers
            .iter()
            .filter(running)
            .map(|container| container.id.clone())
            .collect();
        self.prune(running.clone()).await?;
        for id in &running {
            self.container_started(id).await;
        }
        Ok(())
    }

    /// Takes up what Docker knows of a network of ours: its name, and all else if our record of
    /// it was lost.
    async fn learn_network(&self, listed: &ListedNetwork) -> Result<(), String> {
        let sockets = self.sockets();
        let is_ours = |(socket, _): &&(Socket, bool)| socket.name == listed.driver;
        let Some((socket, _)) = sockets.iter().find(is_ours) else {
            return Ok(());
        };
        let name = Some(listed.name.clone());
        let network = match self.registry.network(&listed.id) {
            Some(known) => Network { name, ..known },
            None => {
                let found = driver::recover_network(socket, listed)?;
                tracing::warn!(
                    network = listed.name,
                    "took up a network of Docker that was not known"
                );
                Network { name, ..found }
            }
        };
        self.registry.put_network(&listed.id, network).await
    }

    /// Removes networks and endpoints that Docker does not know any more.
    async fn forget_the_forgotten(&self) -> Result<(), String> {
        let Some(docker) = &self.docker else {
            return Ok(());
        };
        let (before_networks, before) = (self.registry.networks(), self.registry.endpoints());
        let found = blocking(|| endpoint::all(driver::HOST_PREFIX)).await?;
        let strays = self.strays(&found).await?;
        tokio::time::sleep(FORGOTTEN_AFTER).await;
        let text = |error: ApiError| error.to_string();
        let networks = docker.networks(ANSWER_TIME_MAX).await.map_err(text)?;
        let networks: BTreeSet<&str> = networks.iter().map(|n| n.id.as_str()).collect();
        let containers = docker.containers(ANSWER_TIME_MAX).await.map_err(text)?;
        let places = containers
            .iter()
            .flat_map(|c| c.network_settings.networks.values());
        let known: BTreeSet<&str> = places.map(|place| place.endpoint.as_str()).collect();
        let found = blocking(|| endpoint::all(driver::HOST_PREFIX)).await?;
        let in_use = |id: &str| {
            let name = driver::host_name(id);
            found
                .iter()
                .any(|pair| pair.taken && pair.host_name == name)
        };
        for id in before.keys() {
            if !known.contains(id.as_str()) && !in_use(id) {
                tracing::info!(
                    endpoint = driver::short(id),
                    "Docker has forgotten an endpoint"
                );
                self.delete_endpoint(id).await?;
            }
        }
        // Longer than any call takes.
        for holder in self.strays(&found).await?.intersection(&strays) {
            let _turn = self.turns.take(holder).await;
            if self.strays(&found).await?.contains(holder) {
                self.release_stray(holder).await?;
            }
        }
        let mut left: BTreeMap<String, usize> = BTreeMap::new();
        for endpoint in self.registry.endpoints().into_values() {
            *left.entry(endpoint.network).or_default() += 1;
        }
        for id in before_networks.keys() {
            if !networks.contains(id.as_str()) && !left.contains_key(id) {
                self.registry.remove_network(id).await?;
            }
        }
        Ok(())
    }

    /// Makes the networks that users expect, where Docker does not have them.
    pub(crate) async fn ensure_networks(&self) {
        let Some(docker) = &self.docker else { return };
        let _turn = self.ensuring.lock().await;
        let networks = match docker.networks(ANSWER_TIME_MAX).await {
            Ok(networks) => networks,
            Err(error) => {
                tracing::debug!(%error, "Docker's networks cannot be listed");
                return;
            }
        };
        let subnet = match self.default_subnet().await {
            Ok(subnet) => subnet.to_string(),
            Err(_) => return,
        };
        for name in self.serving() {
            let Some(new) = expected_network(&self.config.plugin, &name, &subnet) else {
                continue;
            };
            let mut there = networks.iter().find(|network| network.name == new.name);
            if let Some(network) = there
                && self.is_outdated(network, &new).await
            {
                match docker.remove_network(&network.id, NETWORK_TIME_MAX).await {
                    Ok(()) => there = None,
                    Err(error) => tracing::warn!(
                        network = new.name,
                        %error,
                        "a network of Docker has addresses of another range than the mesh"
                    ),
                }
            }
            match there {
                Some(network) if network.driver == new.driver => {}
                Some(network) => tracing::warn!(
                    network = network.name,
                    driver = network.driver,
                    "Docker has a network of the name of ours, of another driver"
                ),
                None => match docker.create_network(new, NETWORK_TIME_MAX).await {
                    Ok(()) => tracing::info!(network = new.name, "made Docker's network"),
                    Err(error) => {
                        tracing::warn!(network = new.name, %error, "Docker made no network");
                    }
                },
            }
        }
    }

    /// Returns true if a network of ours was made when the range was another: it can have no
    /// containers.
    async fn is_outdated(&self, network: &ListedNetwork, new: &NewNetwork<'_>) -> bool {
        let Ok(Some(range)) = self.range().await else {
            return false;
        };
        let pool = network.ipam.config.first();
        let subnet = pool.and_then(|pool| pool.subnet.parse::<Cidr>().ok());
        !new.subnet.is_empty()
            && network.driver == new.driver
            && subnet.is_some_and(|subnet| !subnet.range().overlaps(&range.range()))
    }

    /// Makes networks again whose subnet is the range, if that was a default and yields to the
    /// mesh's. That happens at most once, before anybody has an address.
    pub(crate) async fn follow_range(self: Arc<Self>, first: Cidr) {
        loop {
            tokio::time::sleep(RANGE_INTERVAL).await;
            match self.client.ranges().await {
                Ok(Some(ranges)) if ranges.universe == first => {
                    if ranges.settled {
                        return;
                    }
                }
                Ok(_) => return self.ensure_networks().await,
                Err(_) => return,
            }
        }
    }

    /// Removes the networks that weft makes by itself. Returns what became of them, one a line.
    pub(crate) async fn remove_networks(&self) -> Vec<String> {
        let Some(docker) = &self.docker else {
            return Vec::new();
        };
        let turn = tokio::time::timeout(REMOVAL_TIME_MAX, self.ensuring.lock()).await;
        let Ok(_turn) = turn else {
            return Vec::new();
        };
        let networks = docker.networks(REMOVAL_TIME_MAX).await.unwrap_or_default();
        let mut lines = Vec::new();
        for driver in self.serving() {
            let Some(ours) = expected_network(&self.config.plugin, &driver, "") else {
                continue;
            };
            let is_ours = |n: &&ListedNetwork| n.name == ours.name && n.driver == ours.driver;
            let Some(network) = networks.iter().find(is_ours) else {
                continue;
            };
            lines.push(
                match docker.remove_network(&network.id, ANSWER_TIME_MAX).await {
                    Ok(()) => format!("removed Docker's network {}", network.name),
                    Err(error) => format!("Docker's network {} stays: {error}", network.name),
                },
            );
        }
        lines
    }

    /// A container runs: finds its endpoints, and puts right what could not be known before.
    async fn container_started(self: &Arc<Self>, id: &str) {
        if id.is_empty() {
            return;
        }
        let _turn = self.turns.take(id).await;
        let Some(container) = self.running(id).await else {
            return;
        };
        self.tell(id, ContainerEvent::Started).await;
        self.settle_endpoints(&container).await;
        self.attach_if_wanted(&container).await;
    }

    /// Tells the allocator what happened to a container.
    async fn tell(&self, id: &str, event: ContainerEvent) {
        // A loop that has ended needs to know nothing.
        let _ = self.client.container(id, event).await;
    }

    /// Returns a container, if it runs.
    pub(crate) async fn running(&self, id: &str) -> Option<Inspected> {
        let docker = self.docker.as_ref()?;
        match docker.container(id, ANSWER_TIME_MAX).await {
            Ok(container) => container.filter(|container| container.state.running),
            Err(error) => {
                tracing::debug!(container = driver::short(id), %error, "was not inspected");
                None
            }
        }
    }

    async fn settle_endpoints(&self, container: &Inspected) {
        for place in container.network_settings.networks.values() {
            if let Err(error) = self.settle(&place.endpoint, container).await {
                tracing::warn!(
                    endpoint = driver::short(&place.endpoint),
                    container = container.name(),
                    %error,
                    "a container keeps the address that it got before it was known who it is"
                );
            }
            // It may have another address by now.
            let Some(endpoint) = self.registry.endpoint(&place.endpoint) else {
                continue;
            };
            if let Ok(net) = endpoint.address.parse::<Ipv4Net>() {
                self.name(container, &place.aliases, net.addr()).await;
            }
        }
    }

    async fn container_died(self: &Arc<Self>, id: &str) {
        let _turn = self.turns.take(id).await;
        self.tell(id, ContainerEvent::Died).await;
        self.attached_died(id).await;
        // Whoever registered them.
        self.unname(id, None).await;
    }
}

/// Returns the network that users of a driver expect.
fn expected_network<'a>(
    config: &crate::config::PluginConfig,
    driver: &'a str,
    subnet: &'a str,
) -> Option<NewNetwork<'a>> {
    let is = |path: &std::path::Path| path.file_stem().is_some_and(|stem| stem == driver);
    if config.weft_socket.as_deref().is_some_and(is) {
        return Some(NewNetwork {
            name: driver,
            driver,
            ipam: "null",
            subnet: "",
            options: &[],
        });
    }
    // The managed plugin knows nothing of Docker.
    (config.legacy && !config.v2 && config.mesh_socket.as_deref().is_some_and(is)).then_some(
        NewNetwork {
            name: "weave",
            driver,
            ipam: driver,
            subnet,
            options: &[("works.weave.multicast", "true")],
        },
    )
}
