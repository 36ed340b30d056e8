//! Implementations of the services that the HTTP interface reaches.

use std::path::PathBuf;
use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::gateway::KeptGateway;
use crate::config::Config;
use api::config::NamesConfig;
use api::services::{DockerNetworks, Gateway, Later, Measure, MeasureError};
use docker::plugin::Networks;
use probe::bench::session::{BenchError, Benches};
use report::metrics::{Metric, MetricSource};
use report::model::{PluginConfig, PluginReport};

impl Gateway for KeptGateway {
    fn expose(&self, address: Ipv4Net, masquerade: bool) -> Later<'_, Result<(), String>> {
        Box::pin(self.expose(address, masquerade))
    }

    fn hide(&self, address: Option<Ipv4Net>) -> Later<'_, Result<Vec<Ipv4Net>, String>> {
        Box::pin(self.hide(address))
    }
}

/// Docker's networks.
pub(super) struct LocalDocker(pub(super) Networks);

impl DockerNetworks for LocalDocker {
    fn has_ended<'a>(&'a self, container: &'a str) -> Later<'a, bool> {
        Box::pin(self.0.has_ended(container))
    }

    fn remove(&self) -> Later<'_, Vec<String>> {
        Box::pin(self.0.remove())
    }

    fn latency(&self) -> Value {
        self.0.costs()
    }
}

impl MetricSource for LocalDocker {
    fn metrics(&self) -> Vec<Metric> {
        self.0.metrics()
    }
}

/// Measurements from and towards this router.
pub(super) struct LocalMeasure(pub(super) Arc<Benches>);

impl Measure for LocalMeasure {
    fn step(&self) -> Value {
        json!(self.0.step())
    }

    fn measure(&self, peer: String, seconds: u32) -> Later<'_, Result<Value, MeasureError>> {
        Box::pin(async move {
            let figures = self.0.measure(&peer, seconds).await;
            figures
                .map(|figures| json!(figures))
                .map_err(|error| match error {
                    BenchError::Refused(reason) => MeasureError::Refused(reason),
                    BenchError::Failed(reason) => MeasureError::Failed(reason),
                })
        })
    }
}

/// Returns what pages show of how the router runs.
pub(super) fn config(config: &Config, interface: &str) -> api::config::Config {
    api::config::Config {
        nickname: config.nickname.clone(),
        port: config.port,
        encryption: config.password.is_some(),
        min_version: config.min_version,
        discovery: config.discovery,
        trusted_subnets: config.trusted_subnets.clone(),
        bridge: config.bridge.clone(),
        mtu: config.mtu,
        interface: interface.to_owned(),
        allocates: config.ipam.is_some(),
        names: config.dns.as_ref().map(|dns| NamesConfig {
            domain: dns.domain.clone(),
            ttl: dns.ttl,
        }),
        plugin: plugin(config),
    }
}

/// Returns the plugin under Weave Net's names; ours is no part of its report.
fn plugin(config: &Config) -> Option<PluginReport> {
    let plugin = &config.plugin;
    if !plugin.legacy && !plugin.v2 {
        return None;
    }
    let text = |path: &Option<PathBuf>| {
        let shown = path.as_ref().map(|path| path.display().to_string());
        shown.unwrap_or_default()
    };
    let name = |path: &Option<PathBuf>| match plugin.v2 {
        true => "net-plugin".to_owned(),
        false => {
            let stem = path.as_ref().and_then(|path| path.file_stem());
            stem.map_or_else(String::new, |stem| stem.to_string_lossy().into_owned())
        }
    };
    Some(PluginReport {
        config: PluginConfig {
            socket: text(&plugin.socket),
            mesh_socket: text(&plugin.mesh_socket),
            enable: plugin.legacy,
            enable_v2: plugin.v2,
            enable_v2_multicast: plugin.v2_multicast,
            dns: config.dns.is_some(),
            default_subnet: String::new(),
            proc_path: config.proc_path.display().to_string(),
        },
        driver_name: name(&plugin.socket),
        mesh_driver_name: name(&plugin.mesh_socket),
    })
}

/// Returns what Docker's networks need of the configuration.
pub(super) fn docker(config: &Config) -> docker::config::Config {
    docker::config::Config {
        api: config.docker_api.clone(),
        plugin: config.plugin.clone(),
        attach: config.attach,
        bridge: config.bridge.clone(),
        proc_path: config.proc_path.clone(),
        host_root: config.host_root.clone(),
        domain: config.dns.as_ref().map(|dns| dns.domain.clone()),
    }
}
