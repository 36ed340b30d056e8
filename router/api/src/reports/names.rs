//! The names as reports, status pages and metrics show them.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::sources::Sources;
use report::metrics::{Kind, Metric};
use report::model::{DnsEntryReport, DnsReport};

impl Sources<'_> {
    /// Names in Weave Net's form.
    pub(super) fn dns_report(&self) -> Option<DnsReport> {
        let names = self.view.names.as_ref()?;
        let entry = |(key, state): &(Arc<proto::names::Key>, proto::names::State)| DnsEntryReport {
            hostname: key.hostname.to_string(),
            origin: key.origin.to_string(),
            container_id: key.container.to_string(),
            address: key.addr.to_string(),
            version: i64::from(state.version),
            tombstone: state.tombstone.0,
        };
        let entries: Vec<DnsEntryReport> = names.entries.iter().map(entry).collect();
        Some(DnsReport {
            entries: (!entries.is_empty()).then_some(entries),
            ..self.dns_summary()?
        })
    }

    /// The same without the names themselves.
    pub(super) fn dns_summary(&self) -> Option<DnsReport> {
        let config = self.config.names.as_ref()?;
        let server = self.name_server.as_ref()?;
        Some(DnsReport {
            domain: config.domain.clone(),
            upstream: server.upstreams.clone(),
            address: server.address.to_string(),
            ttl: config.ttl,
            entries: None,
            warnings: self.dns_warnings(),
        })
    }

    /// Returns what keeps questions from being answered rightly, in words for people.
    fn dns_warnings(&self) -> Vec<String> {
        let server = self.name_server.iter().flat_map(|s| s.warnings.clone());
        let clocks = self.view.names.iter().flat_map(|names| &names.clocks_off);
        let clocks =
            clocks.map(|(peer, ahead)| format!("the clock of {peer} is {ahead} s ahead of ours"));
        server.chain(clocks).collect()
    }

    /// Returns what programs are told of names beyond Weave Net's report.
    pub(super) fn dns_facts(&self) -> Value {
        let (Some(names), Some(config), Some(server)) =
            (&self.view.names, &self.config.names, &self.name_server)
        else {
            return Value::Null;
        };
        let entries = names.entries.iter().filter(|(_, state)| state.is_alive());
        let entries = entries.map(|(key, state)| {
            json!({
                "hostname": key.hostname,
                "address": key.addr.to_string(),
                "container": key.container,
                "origin": key.origin.to_string(),
                "nickname": self.view.mesh.nickname(key.origin),
                "version": state.version,
            })
        });
        let counts = names.counters;
        json!({
            "domain": config.domain,
            "ttl_seconds": config.ttl,
            "upstream": server.upstreams,
            "udp": server.udp,
            "tcp": server.tcp,
            "entries": entries.collect::<Vec<_>>(),
            "dead": names.entries.len() - names.alive,
            "waiting_for_their_peer": names.waiting,
            "gossip": {
                "received": counts.received,
                "news": counts.news,
                "overridden": counts.overridden,
                "bad": counts.bad,
                "stale": counts.stale,
                "full": counts.full,
                "not_held": counts.not_held,
            },
            "warnings": self.dns_warnings(),
        })
    }

    /// Metrics of our own.
    pub(super) fn dns_metrics(&self) -> Vec<Metric> {
        let Some(names) = &self.view.names else {
            return Vec::new();
        };
        let by_label = |name, help, label: &'static str, samples: &[(&str, u64)]| {
            let metric = Metric::new(name, Kind::Counter, help);
            samples.iter().fold(metric, |metric, (value, count)| {
                metric.labelled([(label, *value)], *count as f64)
            })
        };
        let gossip = names.counters;
        vec![
            Metric::new(
                "weft_dns_names",
                Kind::Gauge,
                "Names of the mesh that are alive.",
            )
            .value(names.alive as f64),
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
