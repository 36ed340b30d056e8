//! The state of the router as reports and status pages show it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use proto::connector::{TargetState, TargetView};
use proto::node::{ConnectionView, PeerLabel};
use proto::topology::{Connection, Peer};
use proto::types::{PeerName, Time};
use serde_json::{Value, json};

use super::Control;
use super::facts::frames_are_encrypted;
use crate::docker::Networks;
use boundary::counters::{Count, DropReason};
use report::metrics::{Kind, Metric};
use report::model::{
    BroadcastRoute, COMPATIBLE_VERSION, ConnectionReport, IpamReport, MacReport, PaxosReport,
    PeerConnection, PeerReport, PendingCidr, PendingClaim, PluginConfig, PluginReport, Report,
    RingEntryReport, RouterReport, UnicastRoute, VersionCheck,
};
use report::time::rfc3339;

impl Control {
    /// Everything, in the original's form.
    pub fn report(&self) -> Report {
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

    /// The plugin under the original's names; ours is no part of the original's report.
    fn plugin_report(&self) -> Option<PluginReport> {
        let plugin = &self.config.plugin;
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
        let subnet = self.default_subnet();
        Some(PluginReport {
            config: PluginConfig {
                socket: text(&plugin.socket),
                mesh_socket: text(&plugin.mesh_socket),
                enable: plugin.legacy,
                enable_v2: plugin.v2,
                enable_v2_multicast: plugin.v2_multicast,
                dns: self.config.dns.is_some(),
                default_subnet: subnet.map_or_else(String::new, |subnet| subnet.to_string()),
                proc_path: self.config.proc_path.display().to_string(),
            },
            driver_name: name(&plugin.socket),
            mesh_driver_name: name(&plugin.mesh_socket),
        })
    }

    fn router_report(&self) -> RouterReport {
        let config = &self.config;
        let topology = self.node.topology();
        let routes = self.node.routes();
        let us = self.node.us();
        let unicast = routes
            .unicast_table()
            .map(|(dest, via)| (dest, via.to_string()));
        let itself = (us, PeerName::UNKNOWN.to_string());
        let unicast: BTreeMap<PeerName, String> = unicast.chain([itself]).collect();
        let totals = self.data.counters();
        let mut targets: Vec<String> = self
            .node
            .direct_targets()
            .map(|target| target.text.clone())
            .collect();
        targets.extend(self.targets.unresolved().map(str::to_owned));
        RouterReport {
            protocol: "weave",
            protocol_min_version: config.min_version,
            protocol_max_version: proto::wire::VERSION_MAX,
            encryption: config.password.is_some(),
            peer_discovery: config.discovery,
            name: us.to_string(),
            nick_name: config.nickname.clone(),
            port: config.port,
            peers: topology
                .peers()
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
            termination_count: self.node.counters().terminations,
            targets,
            overlay_diagnostics: BTreeMap::from([("sleeve".to_owned(), Value::Null)]),
            trusted_subnets: config
                .trusted_subnets
                .iter()
                .map(ToString::to_string)
                .collect(),
            interface: format!("{} (via tap)", self.tap_name),
            capture_stats: BTreeMap::from([
                ("PacketsReceived".to_owned(), totals.get(Count::Captured)),
                ("PacketsDropped".to_owned(), 0),
                ("PacketsIfDropped".to_owned(), 0),
            ]),
            macs: self.mac_reports(),
        }
    }

    fn ipam_report(&self) -> Option<IpamReport> {
        let status = self.addresses.as_ref()?.allocator.status();
        let owned = |text: Vec<_>| (!text.is_empty()).then_some(text);
        Some(IpamReport {
            paxos: status.election.map(|election| PaxosReport {
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
        let Some(addresses) = &self.addresses else {
            return Value::Null;
        };
        let status = addresses.allocator.status();
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

    pub(super) fn nickname(&self, name: PeerName) -> String {
        let peer = self.node.topology().peer(name);
        peer.map(|peer| text(&peer.nickname)).unwrap_or_default()
    }

    fn peer_report(&self, peer: &Peer) -> PeerReport {
        let connection = |c: &Connection| PeerConnection {
            name: c.remote.to_string(),
            nick_name: self.nickname(c.remote),
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
        let password = self.config.password.is_some();
        let connections = self
            .node
            .connections()
            .map(|c| connection_report(&c, password));
        let targets = self
            .node
            .targets()
            .filter_map(|target| self.target_report(&target));
        connections.chain(targets).collect()
    }

    pub(super) fn target_report(&self, target: &TargetView<'_>) -> Option<ConnectionReport> {
        let until = || {
            target
                .next_try
                .map_or_else(|| "never".to_owned(), |at| self.go_time(at))
        };
        let (state, info) = match (target.state, target.error) {
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
        let mut entries: Vec<_> = self.data.macs().entries().collect();
        entries.sort();
        let names = self.links.names();
        let reports = entries.iter().filter_map(|entry| {
            let name = *names.get(&entry.at)?;
            Some(MacReport {
                mac: entry.mac.to_string(),
                name: name.to_string(),
                nick_name: self.nickname(name),
                last_seen: rfc3339(self.wall(entry.last_seen)),
            })
        });
        reports.collect()
    }

    /// What the wall clock showed, or will show, at a time of the core.
    pub(super) fn wall(&self, at: Time) -> SystemTime {
        let (now, wall) = (self.now(), SystemTime::now());
        if at <= now {
            wall - now.since(at)
        } else {
            wall + at.since(now)
        }
    }

    /// A time as Go prints it.
    fn go_time(&self, at: Time) -> String {
        rfc3339(self.wall(at))
            .replace('T', " ")
            .replace('Z', " +0000 UTC")
    }

    /// What this router knows beyond the original's report, as JSON.
    pub fn weft_status(&self) -> Value {
        let report = self.report();
        let totals = self.data.counters();
        let counts: BTreeMap<&str, u64> = Count::ALL
            .iter()
            .map(|(count, name)| (*name, totals.get(*count)))
            .collect();
        let drops: BTreeMap<&str, u64> = DropReason::ALL
            .iter()
            .map(|reason| (reason.as_str(), totals.dropped(*reason)))
            .filter(|(_, count)| *count > 0)
            .collect();
        let data = self.data.status();
        let node = self.node.counters();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "protocol": { "min": self.config.min_version, "max": proto::wire::VERSION_MAX },
            "name": self.node.us().to_string(),
            "nickname": self.config.nickname,
            "uptime_seconds": self.epoch.elapsed().as_secs(),
            "bridge": self.config.bridge,
            "mtu": self.config.mtu,
            "encryption": self.config.password.is_some(),
            "targets": report.router.targets,
            "peers": report.router.peers,
            "connections": self.connection_facts(),
            "ipam": self.ipam_facts(),
            "dns": self.dns_facts(),
            "docker": self.docker.as_ref().map(Networks::costs),
            "data": {
                "interface": self.tap_name,
                "queues": data.queues,
                "tap_offload": data.tap.offload.to_string(),
                "udp_gso": data.udp.gso.to_string(),
                "udp_gro": data.udp.gro.to_string(),
                "join": data.join.to_string(),
                "receive_buffer_bytes": data.udp.receive_buffer,
                "kernel_drops": data.udp.kernel_drops,
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
            "introductions": self.node.introductions(),
            "introductions_dropped": node.strangers_dropped,
        })
    }

    /// Metrics of our own.
    pub fn metrics(&self) -> Vec<Metric> {
        let totals = self.data.counters();
        let data = self.data.status();
        let node = self.node.counters();
        let counter = |name, help| Metric::new(name, Kind::Counter, help);
        let gauge = |name, help| Metric::new(name, Kind::Gauge, help);
        let info = gauge("weft_info", "Version of the router.");
        let mut metrics = vec![
            info.labelled([("version", env!("CARGO_PKG_VERSION"))], 1),
            gauge("weft_uptime_seconds", "Seconds since the router started.")
                .value(self.epoch.elapsed().as_secs_f64()),
            gauge("weft_peers", "Peers of the mesh, this one included.")
                .value(self.node.topology().peers().len() as f64),
            gauge("weft_mac_entries", "Addresses in the MAC table.")
                .value(self.data.macs().entries().count() as f64),
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
                "weft_kernel_drops_total",
                "Datagrams lost in a full receive buffer.",
            )
            .value(data.udp.kernel_drops as f64),
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
        metrics.extend(self.docker.iter().flat_map(Networks::metrics));
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
