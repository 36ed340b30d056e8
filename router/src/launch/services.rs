//! What the HTTP interface reaches, as this process has it.

use std::sync::Arc;

use ipnet::Ipv4Net;
use serde_json::{Value, json};

use super::gateway::KeptGateway;
use crate::bench::session::{BenchError, Benches};
use crate::docker::Networks;
use crate::http::services::{DockerNetworks, Gateway, Later, Measure, MeasureError};
use report::metrics::Metric;

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
