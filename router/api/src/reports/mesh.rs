//! The state of the router as reports and status pages show it.

use std::collections::BTreeMap;

use proto::connector::TargetState;
use proto::node::{ConnectionView, PeerLabel};
use proto::topology::{Connection, Peer};
use proto::types::{PeerName, Time};
use serde_json::Value;

use super::links::frames_are_encrypted;
use crate::sources::Sources;
use crate::status_page::Summary;
use boundary::counters::Count;
use control::view::TargetFacts;
use report::model::{
    BroadcastRoute, COMPATIBLE_VERSION, ConnectionReport, MacReport, PeerConnection, PeerReport,
    PluginReport, Report, RouterReport, UnicastRoute, VersionCheck,
};
use report::time::rfc3339;

impl Sources<'_> {
    /// Everything, in Weave Net's form.
    pub(crate) fn report(&self) -> Report {
        Report {
            ready: true,
            version: COMPATIBLE_VERSION,
            version_check: VersionCheck::OFF,
            router: RouterReport {
                peers: self.peer_reports(),
                unicast_routes: self.unicast_routes(),
                broadcast_routes: self.broadcast_routes(),
                macs: self.mac_reports(),
                ..self.router_report()
            },
            ipam: self.ipam_report(),
            dns: self.dns_report(),
            plugin: self.plugin_report(),
        }
    }

    /// Returns what the overview takes: counts in place of lists that grow with the mesh.
    pub(crate) fn summary(&self) -> (Report, Summary) {
        let peers = &self.view.mesh.peers;
        let all = || peers.values().flat_map(|peer| &peer.connections);
        let established = all().filter(|c| c.established).count();
        let summary = Summary {
            peers: peers.len(),
            established,
            pending: all().count() - established,
            names: self.view.names.as_ref().map_or(0, |names| names.alive),
        };
        let report = Report {
            ready: true,
            version: COMPATIBLE_VERSION,
            version_check: VersionCheck::OFF,
            router: self.router_report(),
            ipam: self.ipam_report(),
            dns: self.dns_summary(),
            plugin: self.plugin_report(),
        };
        (report, summary)
    }

    /// Returns the plugin under Weave Net's names; ours is no part of this report.
    fn plugin_report(&self) -> Option<PluginReport> {
        let mut plugin = self.config.plugin.clone()?;
        if let Some(addresses) = &self.view.addresses {
            plugin.config.default_subnet = addresses.status.default_subnet.to_string();
        }
        Some(plugin)
    }

    /// Returns the mesh without the lists that grow with it.
    fn router_report(&self) -> RouterReport {
        let config = &self.config;
        let mesh = &self.view.mesh;
        let totals = self.figures.counters();
        RouterReport {
            protocol: "weave",
            protocol_min_version: config.min_version,
            protocol_max_version: proto::wire::VERSION_MAX,
            encryption: config.encryption,
            peer_discovery: config.discovery,
            name: mesh.us.to_string(),
            nick_name: config.nickname.clone(),
            port: config.port,
            peers: Vec::new(),
            unicast_routes: Vec::new(),
            broadcast_routes: Vec::new(),
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
            macs: Vec::new(),
        }
    }

    fn peer_reports(&self) -> Vec<PeerReport> {
        let peers = self.view.mesh.peers.values();
        peers.map(|peer| self.peer_report(peer)).collect()
    }

    fn unicast_routes(&self) -> Vec<UnicastRoute> {
        let mesh = &self.view.mesh;
        let unicast = mesh.routes.unicast_table();
        let unicast = unicast.map(|(dest, via)| (dest, via.to_string()));
        let itself = (mesh.us, PeerName::UNKNOWN.to_string());
        let unicast: BTreeMap<PeerName, String> = unicast.chain([itself]).collect();
        let routes = unicast.into_iter().map(|(dest, via)| UnicastRoute {
            dest: dest.to_string(),
            via,
        });
        routes.collect()
    }

    fn broadcast_routes(&self) -> Vec<BroadcastRoute> {
        let routes = self.view.mesh.routes.broadcast_table();
        let routes = routes.map(|(source, via)| BroadcastRoute {
            source: source.to_string(),
            via: (!via.is_empty()).then(|| via.iter().map(PeerName::to_string).collect()),
        });
        routes.collect()
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

    /// Returns a time as Go prints it.
    fn go_time(&self, at: Time) -> String {
        rfc3339(self.view.wall(at))
            .replace('T', " ")
            .replace('Z', " +0000 UTC")
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
