//! The host's own addresses and rules at the start of the router.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::LaunchError;
use crate::config::Config;
use crate::control::{Handle, stored_exposures, watch_gateway};
use boundary::records::Record;
use host::gateway::{Exposures, Gateway, GatewayConfig};
use kernel::packet_filter::nft;
use web::endpoint::Endpoint;

/// Docker's bridge, unless the user names another.
const DOCKER_BRIDGE: &str = "docker0";

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

/// Saves what is exposed, and watches over it from now on.
pub(super) async fn keep(
    handle: &Handle,
    gateway: &Arc<Gateway>,
    exposures: Exposures,
) -> Result<(), LaunchError> {
    let saved = handle
        .call(move |control| control.save_exposures(&exposures))
        .await;
    let saved = saved.map_err(LaunchError::new)?.await;
    if let Ok(Err(error)) = saved {
        return Err(LaunchError::new(error));
    }
    tokio::spawn(watch_gateway(handle.clone(), Arc::clone(gateway)));
    Ok(())
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
