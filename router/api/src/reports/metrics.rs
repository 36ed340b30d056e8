//! Metrics of our own.

use boundary::counters::{Count, DropReason};
use report::metrics::{Kind, Metric};

use crate::sources::Sources;

impl Sources<'_> {
    /// Metrics of our own.
    pub(crate) fn metrics(&self) -> Vec<Metric> {
        let totals = self.figures.counters();
        let data = self.figures.status();
        let node = self.view.mesh.counters;
        let counter = |name, help| Metric::new(name, Kind::Counter, help);
        let gauge = |name, help| Metric::new(name, Kind::Gauge, help);
        let info = gauge("weft_info", "Version of the router.");
        let mut metrics = vec![
            info.labelled([("version", env!("CARGO_PKG_VERSION"))], 1),
            gauge("weft_uptime_seconds", "Seconds since the router started.")
                .value(self.view.uptime().as_secs_f64()),
            gauge("weft_peers", "Peers of the mesh, this one included.")
                .value(self.view.mesh.peers.len() as f64),
            gauge("weft_mac_entries", "Addresses in the MAC table.")
                .value(self.figures.macs().len() as f64),
            counter("weft_gossip_sent_bytes_total", "Bytes of gossip sent.")
                .value(node.gossip_sent_bytes as f64),
            counter(
                "weft_gossip_received_bytes_total",
                "Bytes of gossip received.",
            )
            .value(node.gossip_received_bytes as f64),
            counter("weft_gossip_dropped_total", "Gossip messages dropped.")
                .value(node.gossip_dropped as f64),
            counter(
                "weft_gossip_unclaimed_total",
                "Gossip messages of a topic that has no consumer here.",
            )
            .value(self.view.mesh.left_over.unclaimed as f64),
            counter(
                "weft_gossip_lost_total",
                "Gossip messages that their consumer had no room for.",
            )
            .value(self.view.mesh.left_over.lost as f64),
            counter(
                "weft_kernel_drops_total",
                "Datagrams lost in a full receive buffer.",
            )
            .value(data.kernel_drops as f64),
        ];
        let mut events = counter("weft_data_total", "What the data threads counted, by kind.");
        for (count, name) in Count::ALL {
            let value = totals.get(*count) as f64;
            events = events.labelled([("kind", *name)], value);
        }
        let mut drops = counter("weft_drops_total", "Frames and packets dropped, by reason.");
        for reason in DropReason::ALL {
            let value = totals.dropped(*reason) as f64;
            drops = drops.labelled([("reason", reason.as_str())], value);
        }
        let mut downgrades = counter(
            "weft_overlay_downgrades_total",
            "How often an overlay of a connection was left for another one, by reason.",
        );
        for (reason, count) in [
            ("unanswered", node.overlay_holds),
            ("failed", node.overlay_failures),
        ] {
            downgrades = downgrades.labelled([("reason", reason)], count as f64);
        }
        metrics.extend(self.loop_metrics());
        metrics.extend([events, drops, downgrades]);
        metrics.extend(self.dns_metrics());
        metrics
    }

    /// How busy the control loop is.
    fn loop_metrics(&self) -> [Metric; 3] {
        let time = self.view.loop_time;
        let counter = |name, help| Metric::new(name, Kind::Counter, help);
        let gauge = |name, help| Metric::new(name, Kind::Gauge, help);
        [
            counter("weft_loop_turns_total", "Turns of the control loop.").value(time.count as f64),
            counter(
                "weft_loop_busy_seconds_total",
                "Seconds that the control loop was busy.",
            )
            .value(time.busy.as_secs_f64()),
            gauge(
                "weft_loop_longest_turn_seconds",
                "Longest turn of the control loop since the start, in seconds.",
            )
            .value(time.longest.as_secs_f64()),
        ]
    }
}
