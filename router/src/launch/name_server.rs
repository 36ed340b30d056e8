//! The server for names as status pages and metrics show it.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use serde_json::{Value, json};

use crate::config::{Config, DnsConfig};
use api::services::{Later, NameServer, NameServerStatus};
use dns::server::DnsServer;
use dns::status::Listening;
use host::blocking::blocking;
use host::resolv_conf;
use report::metrics::{Kind, Metric, MetricSource};

/// The running server, with what its status takes.
#[derive(Debug)]
pub(super) struct LocalNameServer {
    server: DnsServer,
    listen: SocketAddr,
    config: Arc<Config>,
}

impl LocalNameServer {
    /// Shows `server`, which was started as `dns` says.
    pub(super) fn new(server: DnsServer, dns: &DnsConfig, config: &Arc<Config>) -> LocalNameServer {
        LocalNameServer {
            server,
            listen: dns.listen,
            config: Arc::clone(config),
        }
    }
}

impl NameServer for LocalNameServer {
    fn status(&self) -> NameServerStatus {
        let status = self.server.status().borrow().clone();
        let address = match &status.udp {
            Listening::On(address) => *address,
            _ => self.listen,
        };
        let short = |address: SocketAddr| match address.port() {
            53 => address.ip().to_string(),
            _ => address.to_string(),
        };
        let transports = [("UDP", &status.udp), ("TCP", &status.tcp)];
        let warnings = transports
            .into_iter()
            .filter_map(|(transport, listening)| warning(address, transport, listening));
        NameServerStatus {
            address,
            upstreams: self.server.upstreams().into_iter().map(short).collect(),
            udp: facts(&status.udp),
            tcp: facts(&status.tcp),
            warnings: warnings.collect(),
        }
    }

    fn resolvers(&self) -> Later<'_, Result<Vec<Ipv4Addr>, String>> {
        let listening = self.server.status().borrow().udp.clone();
        let config = Arc::clone(&self.config);
        Box::pin(async move {
            let on = match listening {
                Listening::On(address) => vec![address],
                // Those of the bridges, in their order.
                Listening::OnSome(addresses, _) => addresses,
                Listening::Starting | Listening::Failed(_) => return Ok(Vec::new()),
            };
            blocking(move || resolv_conf::addresses(&on, &config.bridge, &config.docker_bridge))
                .await
        })
    }
}

impl MetricSource for LocalNameServer {
    fn metrics(&self) -> Vec<Metric> {
        let counts = self.server.counts();
        let by_label = |name, help, label: &'static str, samples: &[(&str, u64)]| {
            let metric = Metric::new(name, Kind::Counter, help);
            samples.iter().fold(metric, |metric, (value, count)| {
                metric.labelled([(label, *value)], *count as f64)
            })
        };
        vec![
            by_label(
                "weft_dns_queries_total",
                "Questions taken, by transport.",
                "transport",
                &[("udp", counts.queries_udp), ("tcp", counts.queries_tcp)],
            ),
            by_label(
                "weft_dns_responses_total",
                "What became of questions.",
                "result",
                &[
                    ("answered", counts.answered),
                    ("no_such_name", counts.name_errors),
                    ("refused", counts.refused),
                    ("ignored", counts.ignored),
                    ("forwarded", counts.forwarded),
                    ("forward_rejected", counts.forward_rejected),
                    ("forward_failed", counts.forward_failed),
                    ("send_failed", counts.send_failed),
                    ("connection_rejected", counts.connections_rejected),
                ],
            ),
            by_label(
                "weft_dns_upstream_total",
                "What happened with the host's servers.",
                "event",
                &[
                    ("failed", counts.upstream_failed),
                    ("mismatched", counts.upstream_mismatched),
                    ("asked_over_tcp", counts.upstream_tcp),
                ],
            ),
        ]
    }
}

/// Why a transport does not work; `None` if it does.
fn warning(address: SocketAddr, transport: &str, listening: &Listening) -> Option<String> {
    const WAY: &str = "--dns-listen-address chooses an address";
    match listening {
        Listening::Failed(error) => Some(format!(
            "not listening on {address} ({transport}): {error}; trying again. {WAY}"
        )),
        Listening::OnSome(on, error) => {
            let on: Vec<String> = on.iter().map(SocketAddr::to_string).collect();
            Some(format!(
                "not listening on {address} ({transport}), only on {}: {error}. {WAY}",
                on.join(", ")
            ))
        }
        Listening::Starting | Listening::On(_) => None,
    }
}

fn facts(listening: &Listening) -> Value {
    match listening {
        Listening::Starting => json!({ "state": "starting" }),
        Listening::On(address) => json!({ "state": "on", "address": address.to_string() }),
        Listening::OnSome(addresses, error) => json!({
            "state": "on some",
            "addresses": addresses,
            "error": error,
        }),
        Listening::Failed(error) => json!({ "state": "failed", "error": error }),
    }
}
