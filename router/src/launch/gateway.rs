//! The host's own addresses and rules: made at the start of the router, saved and watched.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ipam::range::Cidr;
use ipnet::Ipv4Net;
use tokio::time::MissedTickBehavior;

use super::LaunchError;
use super::exposures::{self, EXPOSED_KEY, stored_exposures};
use crate::config::Config;
use boundary::records::{Record, StoreError};
use control::client::Client;
use control::errors::Stopped;
use host::blocking::blocking;
use host::gateway::{Exposures, Gateway, GatewayConfig};
use kernel::packet_filter::nft;
use web::endpoint::Endpoint;

/// Docker's bridge, unless the user names another.
const DOCKER_BRIDGE: &str = "docker0";

/// Interval between checks whether others removed rules or addresses of ours.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// Exposes what was exposed before, and makes the rules.
pub(super) fn restore(
    config: &Config,
    records: &[Record],
) -> Result<(Arc<Gateway>, Exposures), LaunchError> {
    let gateway = Gateway::new(gateway_config(config));
    let exposures = gateway.restore(stored_exposures(records));
    let exposures = exposures.map_err(LaunchError::new)?;
    if nft::generation().map_err(LaunchError::new)?.is_none() {
        tracing::warn!(
            "this kernel has no nf_tables: nothing is masqueraded, and the control interface is \
             not kept from others"
        );
    }
    Ok((Arc::new(gateway), exposures))
}

/// The host's addresses and rules, of which what is exposed is saved.
#[derive(Clone, Debug)]
pub(super) struct KeptGateway {
    gateway: Arc<Gateway>,
    client: Client,
    /// Whether local clients keep their addresses.
    no_masq_local: bool,
}

impl KeptGateway {
    pub(super) fn new(gateway: Arc<Gateway>, client: Client, config: &Config) -> KeptGateway {
        KeptGateway {
            gateway,
            client,
            no_masq_local: config.no_masq_local,
        }
    }

    /// Gives the host an address, and saves that.
    pub(super) async fn expose(&self, address: Ipv4Net, masquerade: bool) -> Result<(), String> {
        let gateway = Arc::clone(&self.gateway);
        let (_, exposures) = blocking(move || gateway.expose(address, masquerade))
            .await
            .map_err(|error| format!("unable to expose: {error}"))?;
        let saved = self.save(&exposures).await;
        saved.map_err(|error| {
            format!("it is exposed now, but would not be after a restart: {error}")
        })
    }

    /// Takes an address from the host, or all, and saves that. Returns those that it had.
    pub(super) async fn hide(&self, address: Option<Ipv4Net>) -> Result<Vec<Ipv4Net>, String> {
        let gateway = Arc::clone(&self.gateway);
        let (hidden, exposures) = blocking(move || gateway.hide(address))
            .await
            .map_err(|error| format!("unable to hide: {error}"))?;
        let saved = self.save(&exposures).await;
        saved.map_err(|error| {
            format!("it is hidden now, but would be exposed after a restart: {error}")
        })?;
        Ok(hidden)
    }

    /// Saves what is exposed, unless something later was saved already.
    pub(super) async fn save(&self, exposures: &Exposures) -> Result<(), StoreError> {
        let record = exposures::record(exposures);
        self.client
            .save_record(EXPOSED_KEY, record, exposures.revision)
            .await
    }

    /// Puts back, for as long as the loop runs, what others remove of our rules and addresses.
    pub(super) async fn watch(self) {
        let mut ticks = tokio::time::interval(WATCH_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut told = None;
        loop {
            ticks.tick().await;
            let Ok(unmasqueraded) = self.unmasqueraded().await else {
                return;
            };
            let gateway = Arc::clone(&self.gateway);
            match blocking(move || gateway.reconcile(unmasqueraded)).await {
                Ok(changed) => {
                    told = None;
                    for what in changed {
                        tracing::info!("put back {what}, which somebody had removed or changed");
                    }
                }
                Err(error) if told.as_ref() != Some(&error) => {
                    tracing::warn!(%error, "the rules of this host are not as they should be");
                    told = Some(error);
                }
                Err(_) => {}
            }
        }
    }

    /// Returns the subnets that we give addresses from, if local clients are to reach them under
    /// their own addresses.
    async fn unmasqueraded(&self) -> Result<BTreeSet<Ipv4Net>, Stopped> {
        let ranges = self.client.ranges().await?;
        let owned = ranges
            .filter(|_| self.no_masq_local)
            .map(|ranges| ranges.owned);
        let net = |cidr: Cidr| Ipv4Net::new(cidr.address.into(), cidr.len).ok();
        Ok(owned.into_iter().flatten().filter_map(net).collect())
    }
}

fn gateway_config(config: &Config) -> GatewayConfig {
    let listeners = [&config.http_addr, &config.status_addr, &config.metrics_addr];
    let ports = listeners.into_iter().filter_map(|listener| match listener {
        Some(Endpoint::Tcp(address)) if address.ip().is_loopback() => Some(address.port()),
        _ => None,
    });
    let docker = match config.docker_bridge.as_str() {
        "" => DOCKER_BRIDGE,
        name => name,
    };
    GatewayConfig {
        bridge: config.bridge.clone(),
        docker_bridge: docker.to_owned(),
        mesh_port: config.port,
        private_ports: ports.collect::<BTreeSet<_>>(),
        expects_controller: config.expect_npc,
    }
}
