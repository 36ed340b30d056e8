//! The state of the router as reports and status pages show it.

use std::collections::BTreeMap;

use proto::connector::TargetState;
use proto::node::{ConnectionView, PeerLabel};
use proto::topology::{Connection, Peer};
use proto::types::{PeerName, Time};
use serde_json::{Value, json};

use super::links::frames_are_encrypted;
use crate::config::Config;
use crate::services::NameServerStatus;
use boundary::counters::{Count, DropReason};
use boundary::forwarding::Figures;
use control::view::{TargetFacts, View};
use report::metrics::{Kind, Metric};
use report::model::{
    BroadcastRoute, COMPATIBLE_VERSION, ConnectionReport, IpamReport, MacReport, PaxosReport,
    PeerConnection, PeerReport, PendingCidr, PendingClaim, PluginReport, Report, RingEntryReport,
    RouterReport, UnicastRoute, VersionCheck,
};
use report::time::rfc3339;

/// What reports, status pages and metrics are made from.
pub(crate) struct Sources<'a> {
    /// The state of the loop.
    pub(crate) view: &'a View,
    /// How the router runs.
    pub(crate) config: &'a Config,
    /// What the data plane counts.
    pub(crate) figures: &'a dyn Figures,
    /// What the server for names says of itself; `None` if names are off.
    pub(crate) name_server: Option<NameServerStatus>,
    /// What Docker's calls have taken.
    pub(crate) docker: Value,
}

impl Sources<'_> {
    /// Everything, in the original's form.
    pub(crate) fn report(&self) -> Report {
        Report {
            ready: true,
            version: COMPATIBLE_VERSION,
            version_check: VersionCheck::OFF,
            router: self.router_report(),
            ipam: self.ipam_report(),
            dns: self.dns_report(),
            plugin: self.plugin_report(),
        }
    }

    /// The plugin under Weave Net's names; ours is no part of this report.
    fn plugin_report(&self) -> Option<PluginReport> {
        let mut plugin = self.config.plugin.clone()?;
        if let Some(addresses) = &self.view.addresses {
            plugin.config.default_subnet = addresses.status.default_subnet.to_string();
        }
        Some(plugin)
    }

    fn router_report(&self) -> RouterReport {
        let config = &self.config;
        let mesh = &self.view.mesh;
        let (us, routes) = (mesh.us, &mesh.routes);
        let unicast = routes
            .unicast_table()
            .map(|(dest, via)| (dest, via.to_string()));
        let itself = (us, PeerName::UNKNOWN.to_string());
        let unicast: BTreeMap<PeerName, String> = unicast.chain([itself]).collect();
        let totals = self.figures.counters();
        RouterReport {
            protocol: "weave",
            protocol_min_version: config.min_version,
            protocol_max_version: proto::wire::VERSION_MAX,
            encryption: config.encryption,
            peer_discovery: config.discovery,
            name: us.to_string(),
            nick_name: config.nickname.clone(),
            port: config.port,
            peers: mesh
                .peers
                .values()
                .map(|peer| self.peer_report(peer))
                .collect(),
            unicast_routes: unicast
                .into_iter()
                .map(|(dest, via)| UnicastRoute {
                    dest: dest.to_string(),
                    via,
                })
                .collect(),
            broadcast_routes: routes
                .broadcast_table()
                .map(|(source, via)| BroadcastRoute {
                    source: source.to_string(),
                    via: (!via.is_empty()).then(|| via.iter().map(PeerName::to_string).collect()),
                })
                .collect(),
            connections: self.connection_reports(),
            termination_count: mesh.counters.terminations,
            targets: mesh.named_targets.clone(),
            overlay_diagnostics: BTreeMap::from([("sleeve".to_owned(), Value::Null)]),
            trusted_subnets: config
                .trusted_subnets
                .iter()
                .map(ToString::to_string)
                .collect(),
            interface: format!("{} (via tap)", self.config.interface),
            capture_stats: BTreeMap::from([
                ("PacketsReceived".to_owned(), totals.get(Count::Captured)),
                ("PacketsDropped".to_owned(), 0),
                ("PacketsIfDropped".to_owned(), 0),
            ]),
            macs: self.mac_reports(),
        }
    }

    fn ipam_report(&self) -> Option<IpamReport> {
        let status = &self.view.addresses.as_ref()?.status;
        let owned = |text: Vec<_>| (!text.is_empty()).then_some(text);
        Some(IpamReport {
            paxos: status.election.as_ref().map(|election| PaxosReport {
                elector: election.elector,
                known_nodes: election.known,
                quorum: election.quorum,
            }),
            range: status.universe.to_string(),
            range_num_ips: u64::from(status.universe.range().size()),
            active_ips: u64::from(status.active),
            default_subnet: status.default_subnet.to_string(),
            entries: owned(
                status
                    .entries
                    .iter()
                    .map(|entry| RingEntryReport {
                        token: entry.token.to_string(),
                        size: u64::from(entry.size),
                        peer: entry.peer.to_string(),
                        nickname: entry.nickname.clone(),
                        is_known_peer: entry.known,
                        version: entry.version,
                    })
                    .collect(),
            ),
            pending_claims: {
                let claims = status
                    .pending_claims
                    .iter()
                    .map(|(ident, cidr, _)| PendingClaim {
                        ident: ident.clone(),
                        cidr: PendingCidr {
                            addr: cidr.address.to_string(),
                            prefix_len: cidr.len,
                        },
                    });
                let claims: Vec<_> = claims.collect();
                (!claims.is_empty()).then_some(claims)
            },
            pending_allocates: {
                let waiting: Vec<String> = status
                    .pending_allocates
                    .iter()
                    .map(|(id, net, _)| format!("{id} {net}"))
                    .collect();
                (!waiting.is_empty()).then_some(waiting)
            },
        })
    }

    /// What programs are told of the allocator beyond the original's report.
    fn ipam_facts(&self) -> Value {
        let Some(addresses) = &self.view.addresses else {
            return Value::Null;
        };
        let status = &addresses.status;
        let waiting = |list: &[(String, ipam::range::Cidr, ipam::allocator::Waiting)]| {
            let facts = list.iter().map(|(id, what, why)| {
                json!({ "id": id, "address": what.to_string(), "waits_for": why.to_string() })
            });
            Value::from(facts.collect::<Vec<_>>())
        };
        let owners = self
            .ipam_report()
            .and_then(|report| report.entries)
            .unwrap_or_default();
        json!({
            "health": format!("{:?}", status.health),
            "range": status.universe.to_string(),
            "default_subnet": status.default_subnet.to_string(),
            "active": status.active,
            "used": status.used,
            "free": status.free,
            "held_back": status.held_back,
            "leases": status.leases,
            "leases_unused": status.leases_unused,
            "ring": owners,
            "pending_claims": waiting(&status.pending_claims),
            "pending_allocates": waiting(&status.pending_allocates),
            "takeovers": status.takeovers.iter().map(|t| json!({
                "peer": t.peer.to_string(),
                "nickname": t.nickname,
                "addresses": t.addresses,
                "waiting": t.waiting.iter().map(ToString::to_string).collect::<Vec<_>>(),
            })).collect::<Vec<_>>(),
            "alarms": status.alarms.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "store_error": status.store_error,
        })
    }

    fn peer_report(&self, peer: &Peer) -> PeerReport {
        let connection = |c: &Connection| PeerConnection {
            name: c.remote.to_string(),
            nick_name: self.view.mesh.nickname(c.remote),
            address: c.address.to_string(),
            outbound: c.outbound,
            established: c.established,
        };
        let connections: Vec<_> = peer.connections.iter().map(connection).collect();
        PeerReport {
            name: peer.name.to_string(),
            nick_name: text(&peer.nickname),
            uid: peer.uid.0,
            short_id: peer.short_id.map_or(0, |id| id.get()),
            version: peer.version,
            connections: (!connections.is_empty()).then_some(connections),
        }
    }

    fn connection_reports(&self) -> Vec<ConnectionReport> {
        let password = self.config.encryption;
        let mesh = &self.view.mesh;
        let connections = mesh
            .connections
            .iter()
            .map(|c| connection_report(c, password));
        let targets = mesh
            .targets
            .iter()
            .filter_map(|target| self.target_report(target));
        connections.chain(targets).collect()
    }

    pub(super) fn target_report(&self, target: &TargetFacts) -> Option<ConnectionReport> {
        let until = || {
            target
                .next_try
                .map_or_else(|| "never".to_owned(), |at| self.go_time(at))
        };
        let (state, info) = match (target.state, target.error.as_deref()) {
            (TargetState::Waiting, _) => ("waiting", format!("until: {}", until())),
            (TargetState::Failed, error) => (
                "failed",
                format!("{}, retry: {}", error.unwrap_or_default(), until()),
            ),
            (TargetState::Connecting, _) => ("connecting", String::new()),
            (TargetState::Retrying, error) => ("retrying", error.unwrap_or_default().to_owned()),
            (TargetState::Suspended | TargetState::Connected, _) => return None,
        };
        let address = target.address.to_string();
        Some(ConnectionReport {
            address,
            outbound: true,
            state,
            info,
            attrs: None,
        })
    }

    fn mac_reports(&self) -> Vec<MacReport> {
        let mut entries = self.figures.macs();
        entries.sort();
        let names = &self.view.mesh.slots;
        let reports = entries.iter().filter_map(|entry| {
            let name = *names.get(&entry.at)?;
            Some(MacReport {
                mac: entry.mac.to_string(),
                name: name.to_string(),
                nick_name: self.view.mesh.nickname(name),
                last_seen: rfc3339(self.view.wall(entry.last_seen)),
            })
        });
        reports.collect()
    }

    /// A time as Go prints it.
    fn go_time(&self, at: Time) -> String {
        rfc3339(self.view.wall(at))
            .replace('T', " ")
            .replace('Z', " +0000 UTC")
    }

    /// What this router knows beyond the original's report, as JSON.
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
        metrics.extend([events, drops, downgrades]);
        metrics.extend(self.dns_metrics());
        metrics
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn connection_report(c: &ConnectionView, password: bool) -> ConnectionReport {
    let overlay = c
        .active
        .as_ref()
        .map_or("none", |active| active.overlay.name());
    let PeerLabel { name, nickname } = &c.peer;
    let mut info = format!("{overlay:<6} {name}({nickname})");
    let mut attrs = c.active.as_ref().map(|active| {
        let mtu = active.path.map_or(0, |path| path.mtu);
        BTreeMap::from([("name", Value::from(overlay)), ("mtu", Value::from(mtu))])
    });
    let encrypted = frames_are_encrypted(c);
    if password {
        let word = if encrypted {
            "encrypted"
        } else {
            "unencrypted"
        };
        info = format!("{word:<11} {info}");
    }
    if let Some(attrs) = attrs.as_mut().filter(|_| encrypted) {
        attrs.insert("encrypted", Value::from(true));
    }
    ConnectionReport {
        address: c.address.to_string(),
        outbound: c.outbound,
        state: if c.established {
            "established"
        } else {
            "pending"
        },
        info,
        attrs,
    }
}
