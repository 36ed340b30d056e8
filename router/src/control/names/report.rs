//! The names as reports, status pages and metrics show them.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::control::Control;
use dns::status::Listening;
use report::metrics::{Kind, Metric};
use report::model::{DnsEntryReport, DnsReport};

impl Control {
    /// Names in the original's form.
    pub(in crate::control) fn dns_report(&self) -> Option<DnsReport> {
        let (naming, config) = (self.naming.as_ref()?, self.config.dns.as_ref()?);
        let entry = |(key, state): (&proto::names::Key, proto::names::State)| DnsEntryReport {
            hostname: key.hostname.to_string(),
            origin: key.origin.to_string(),
            container_id: key.container.to_string(),
            address: key.addr.to_string(),
            version: i64::from(state.version),
            tombstone: state.tombstone.0,
        };
        let entries: Vec<DnsEntryReport> = naming.names.entries().map(entry).collect();
        Some(DnsReport {
            domain: config.domain.clone(),
            upstream: self.upstreams(),
            address: self.dns_address()?.to_string(),
            ttl: config.ttl,
            entries: (!entries.is_empty()).then_some(entries),
            warnings: self.dns_troubles(),
        })
    }

    /// The host's servers; the usual port is left out, as in the file that names them.
    fn upstreams(&self) -> Vec<String> {
        let short = |address: SocketAddr| match address.port() {
            53 => address.ip().to_string(),
            _ => address.to_string(),
        };
        let upstreams = self.naming.iter().flat_map(|n| n.server.upstreams());
        upstreams.map(short).collect()
    }

    /// What programs are told of names beyond the original's report.
    pub(in crate::control) fn dns_facts(&self) -> Value {
        let (Some(naming), Some(config)) = (&self.naming, &self.config.dns) else {
            return Value::Null;
        };
        let status = naming.server.status();
        let status = status.borrow().clone();
        let listening = |listening: &Listening| match listening {
            Listening::Starting => json!({ "state": "starting" }),
            Listening::On(address) => json!({ "state": "on", "address": address.to_string() }),
            Listening::OnSome(addresses, error) => json!({
                "state": "on some",
                "addresses": addresses,
                "error": error,
            }),
            Listening::Failed(error) => json!({ "state": "failed", "error": error }),
        };
        let names = &naming.names;
        let entries = names.entries().filter(|(_, state)| state.is_alive());
        let entries = entries.map(|(key, state)| {
            json!({
                "hostname": key.hostname,
                "address": key.addr.to_string(),
                "container": key.container,
                "origin": key.origin.to_string(),
                "nickname": self.nickname(key.origin),
                "version": state.version,
            })
        });
        let counts = names.counters();
        json!({
            "domain": config.domain,
            "ttl_seconds": config.ttl,
            "upstream": self.upstreams(),
            "udp": listening(&status.udp),
            "tcp": listening(&status.tcp),
            "entries": entries.collect::<Vec<_>>(),
            "dead": names.table().len() - names.table().alive(),
            "waiting_for_their_peer": names.held(),
            "gossip": {
                "received": counts.received,
                "news": counts.news,
                "overridden": counts.overridden,
                "bad": counts.bad,
                "stale": counts.stale,
                "full": counts.full,
                "not_held": counts.not_held,
            },
            "warnings": self.dns_troubles(),
        })
    }

    /// Metrics of our own.
    pub(in crate::control) fn dns_metrics(&self) -> Vec<Metric> {
        let Some(naming) = &self.naming else {
            return Vec::new();
        };
        let (names, counts) = (&naming.names, naming.server.counts());
        let by_label = |name, help, label: &'static str, samples: &[(&str, u64)]| {
            let metric = Metric::new(name, Kind::Counter, help);
            samples.iter().fold(metric, |metric, (value, count)| {
                metric.labelled([(label, *value)], *count as f64)
            })
        };
        let table = names.table();
        let gossip = names.counters();
        vec![
            Metric::new(
                "weft_dns_names",
                Kind::Gauge,
                "Names of the mesh that are alive.",
            )
            .value(table.alive() as f64),
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
            by_label(
                "weft_dns_gossip_entries_total",
                "Entries received from other routers.",
                "result",
                &[
                    ("received", gossip.received),
                    ("news", gossip.news),
                    ("overridden", gossip.overridden),
                    ("bad", gossip.bad),
                    ("stale", gossip.stale),
                    ("full", gossip.full),
                    ("not_held", gossip.not_held),
                ],
            ),
        ]
    }
}
