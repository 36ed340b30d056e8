//! `/status/weft` for programs.

use std::collections::BTreeMap;

use boundary::counters::{Count, DropReason};
use serde_json::{Value, json};

use crate::sources::Sources;

impl Sources<'_> {
    /// Returns what this router knows beyond Weave Net's report, as JSON.
    pub(crate) fn weft_status(&self) -> Value {
        let report = self.report();
        let mesh = &self.view.mesh;
        let totals = self.figures.counters();
        let counts: BTreeMap<&str, u64> = Count::ALL
            .iter()
            .map(|(count, name)| (*name, totals.get(*count)))
            .collect();
        let drops: BTreeMap<&str, u64> = DropReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), totals.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let data = self.figures.status();
        let node = self.view.mesh.counters;
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": { "min": self.config.min_version, "max": proto::wire::VERSION_MAX },
            "name": mesh.us.to_string(),
            "nickname": self.config.nickname,
            "uptime_seconds": self.view.uptime().as_secs(),
            "bridge": self.config.bridge,
            "mtu": self.config.mtu,
            "encryption": self.config.encryption,
            "targets": report.router.targets,
            "peers": report.router.peers,
            "connections": self.connection_facts(),
            "ipam": self.ipam_facts(),
            "dns": self.dns_facts(),
            "docker": self.docker,
            "data": {
                "interface": self.config.interface,
                "queues": data.queues,
                "tap_offload": data.tap_offload,
                "udp_gso": data.udp_gso,
                "udp_gro": data.udp_gro,
                "join": data.join,
                "receive_buffer_bytes": data.receive_buffer,
                "kernel_drops": data.kernel_drops,
                "macs": report.router.macs.len(),
                "counters": counts,
                "drops": drops,
            },
            "gossip": {
                "sent": node.gossip_sent,
                "sent_bytes": node.gossip_sent_bytes,
                "received": node.gossip_received,
                "received_bytes": node.gossip_received_bytes,
                "dropped": node.gossip_dropped,
                "route_calculations": node.route_calculations,
            },
            "downgrades": {
                "unanswered": node.overlay_holds,
                "failed": node.overlay_failures,
            },
            "introductions": mesh.introductions,
            "introductions_dropped": node.strangers_dropped,
        })
    }
}
