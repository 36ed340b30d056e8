//! Metrics in Prometheus' text format 0.0.4.
//!
//! Those of Weave Net 2.8.1 keep their names, labels and help; our own stand beside them with
//! the prefix `weft_`.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::model::Report;

/// The kind of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process restarts.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// A named set of samples.
#[derive(Clone, Debug)]
pub struct Metric {
    name: &'static str,
    help: &'static str,
    kind: Kind,
    samples: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Metric {
    /// Creates a metric without samples; it is not shown until it has some.
    pub const fn new(name: &'static str, kind: Kind, help: &'static str) -> Metric {
        Metric {
            name,
            help,
            kind,
            samples: Vec::new(),
        }
    }

    /// Adds a sample without labels.
    #[must_use]
    pub fn value(self, value: impl Into<f64>) -> Metric {
        self.labelled([], value)
    }

    /// Adds a sample with labels.
    #[must_use]
    pub fn labelled<const N: usize>(
        mut self,
        labels: [(&'static str, &str); N],
        value: impl Into<f64>,
    ) -> Metric {
        let labels = labels
            .iter()
            .map(|(name, value)| (*name, (*value).to_owned()))
            .collect();
        self.samples.push((labels, value.into()));
        self
    }
}

/// Somebody who counts something.
pub trait MetricSource: Send + Sync {
    /// Returns what was counted so far. Cheap, and waits for nothing.
    fn metrics(&self) -> Vec<Metric>;
}

/// Writes metrics in the order of their names.
pub fn render(mut metrics: Vec<Metric>) -> String {
    metrics.retain(|metric| !metric.samples.is_empty());
    metrics.sort_by_key(|metric| metric.name);
    let mut out = String::new();
    for metric in &metrics {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let name = metric.name;
        _ = writeln!(out, "# HELP {name} {}\n# TYPE {name} {kind}", metric.help);
        for (labels, value) in &metric.samples {
            out.push_str(name);
            for (i, (label, text)) in labels.iter().enumerate() {
                let text = text
                    .replace('\\', "\\\\")
                    .replace('"', "\\\"")
                    .replace('\n', "\\n");
                _ = write!(out, "{}{label}=\"{text}\"", if i == 0 { '{' } else { ',' });
            }
            let close = if labels.is_empty() { "" } else { "}" };
            _ = writeln!(out, "{close} {value}");
        }
    }
    out
}

/// Returns the metrics of Weave Net, drawn from a report.
pub fn compatible(report: &Report) -> Vec<Metric> {
    use Kind::{Counter, Gauge};
    let router = &report.router;
    let mut out = vec![
        connections(report),
        Metric::new(
            "weave_connection_terminations_total",
            Counter,
            "Number of peer-to-peer connections terminated.",
        )
        .value(router.termination_count as f64),
    ];
    if let Some(dns) = &report.dns {
        let ours = |e: &&super::model::DnsEntryReport| e.tombstone == 0 && e.origin == router.name;
        let count = dns.entries.iter().flatten().filter(ours).count();
        out.push(
            Metric::new("weave_dns_entries", Gauge, "Number of DNS entries.").value(count as f64),
        );
    }
    let Some(ipam) = &report.ipam else { return out };
    let mut unreachable: BTreeMap<&str, u64> = BTreeMap::new();
    for entry in ipam
        .entries
        .iter()
        .flatten()
        .filter(|entry| !entry.is_known_peer)
    {
        *unreachable.entry(&entry.peer).or_default() += entry.size;
    }
    let lost: u64 = unreachable.values().sum();
    let waiting = |n: usize| n as f64;
    out.extend([
        Metric::new("weave_ips", Gauge, "Number of IP addresses.")
            .labelled([("state", "local-used")], ipam.active_ips as f64),
        Metric::new(
            "weave_max_ips",
            Gauge,
            "Size of IP address space used by allocator.",
        )
        .value(ipam.range_num_ips as f64),
        Metric::new(
            "weave_ipam_unreachable_count",
            Gauge,
            "Number of unreachable peers.",
        )
        .value(unreachable.len() as f64),
        Metric::new(
            "weave_ipam_unreachable_percentage",
            Gauge,
            "Percentage of IP addresses owned  by unreachable peers.",
        )
        .value(lost as f64 * 100.0 / ipam.range_num_ips.max(1) as f64),
        Metric::new(
            "weave_ipam_pending_allocates",
            Gauge,
            "Number of pending allocates.",
        )
        .value(waiting(ipam.pending_allocates.iter().flatten().count())),
        Metric::new(
            "weave_ipam_pending_claims",
            Gauge,
            "Number of pending claims.",
        )
        .value(waiting(ipam.pending_claims.iter().flatten().count())),
    ]);
    out
}

fn connections(report: &Report) -> Metric {
    let mut counts: BTreeMap<(bool, &str, &str), u32> = BTreeMap::new();
    for connection in &report.router.connections {
        let attr = |name| connection.attrs.as_ref().and_then(|attrs| attrs.get(name));
        let overlay = attr("name")
            .and_then(|name| name.as_str())
            .unwrap_or("unknown");
        let encrypted = attr("encrypted").and_then(serde_json::Value::as_bool) == Some(true);
        *counts
            .entry((encrypted, connection.state, overlay))
            .or_default() += 1;
        counts
            .entry((!encrypted, connection.state, overlay))
            .or_default();
    }
    let metric = Metric::new(
        "weave_connections",
        Kind::Gauge,
        "Number of peer-to-peer connections.",
    );
    counts
        .iter()
        .fold(metric, |metric, ((encrypted, state, overlay), count)| {
            let encryption = if *encrypted { "yes" } else { "" };
            let labels = [
                ("encryption", encryption),
                ("state", *state),
                ("type", *overlay),
            ];
            metric.labelled(labels, *count)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ConnectionReport;
    use crate::testing::recorded;

    #[test]
    fn weave_nets_metrics_are_byte_identical() {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/http.json");
        let text = std::fs::read_to_string(file).unwrap();
        let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
        let recorded_text = vectors
            .as_array()
            .unwrap()
            .iter()
            .find(|exchange| exchange["path"] == "/metrics")
            .and_then(|exchange| exchange["body"].as_str())
            .unwrap();
        let mut report = recorded();
        for address in ["10.77.1.50:6783", "10.77.1.50:7000"] {
            report.router.connections.push(ConnectionReport {
                address: address.into(),
                outbound: true,
                state: "connecting",
                info: String::new(),
                attrs: None,
            });
        }
        report.ipam.as_mut().unwrap().active_ips = 3;
        assert_eq!(
            render(compatible(&report)).trim_end(),
            recorded_text.trim_end()
        );
    }

    #[test]
    fn labels_are_escaped() {
        let metric = Metric::new("m", Kind::Counter, "h").labelled([("a", "x\"\\\n")], 1);
        assert_eq!(
            render(vec![metric]),
            "# HELP m h\n# TYPE m counter\nm{a=\"x\\\"\\\\\\n\"} 1\n"
        );
    }
}
