//! The status pages, in the exact form of Weave Net 2.8.1.

use std::collections::BTreeMap;
use std::fmt::Write;

use report::model::{ConnectionReport, IpamReport, PluginReport, Report, RouterReport};

/// A page below `/status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Page {
    /// `/status`
    Overview,
    /// `/status/targets`
    Targets,
    /// `/status/connections`
    Connections,
    /// `/status/peers`
    Peers,
    /// `/status/dns`
    Dns,
    /// `/status/ipam`
    Ipam,
}

impl Page {
    /// Returns the page of this name.
    pub(crate) fn named(name: &str) -> Option<Page> {
        Some(match name {
            "" => Page::Overview,
            "targets" => Page::Targets,
            "connections" => Page::Connections,
            "peers" => Page::Peers,
            "dns" => Page::Dns,
            "ipam" => Page::Ipam,
            _ => return None,
        })
    }
}

/// Counts of what the overview does not list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Peers of the mesh.
    pub(crate) peers: usize,
    /// Connections of all peers that carry frames.
    pub(crate) established: usize,
    /// Connections of all peers that do not.
    pub(crate) pending: usize,
    /// Names that are alive.
    pub(crate) names: usize,
}

impl Summary {
    fn of(report: &Report) -> Summary {
        let peers = &report.router.peers;
        let all = || {
            peers
                .iter()
                .flat_map(|peer| peer.connections.iter().flatten())
        };
        let established = all().filter(|c| c.established).count();
        let names = report
            .dns
            .iter()
            .flat_map(|dns| dns.entries.iter().flatten());
        Summary {
            peers: peers.len(),
            established,
            pending: all().count() - established,
            names: names.filter(|entry| entry.tombstone == 0).count(),
        }
    }
}

/// Draws the overview.
pub(crate) fn overview(report: &Report, summary: &Summary) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = write_overview(&mut out, report, summary);
    out
}

/// Draws a page.
pub(crate) fn render(page: Page, report: &Report) -> String {
    let mut out = String::new();
    // Writing to a String cannot fail.
    let _ = match page {
        Page::Overview => write_overview(&mut out, report, &Summary::of(report)),
        Page::Targets => report
            .router
            .targets
            .iter()
            .try_for_each(|t| writeln!(out, "{t}")),
        Page::Connections => connections(&mut out, &report.router),
        Page::Peers => peers(&mut out, &report.router),
        Page::Dns => dns(&mut out, report),
        Page::Ipam => report
            .ipam
            .as_ref()
            .map_or(Ok(()), |i| ipam(&mut out, i, &report.router)),
    };
    out
}

fn write_overview(out: &mut String, report: &Report, summary: &Summary) -> std::fmt::Result {
    let router = &report.router;
    let on = |on| if on { "enabled" } else { "disabled" };
    writeln!(
        out,
        "        Version: {} (version check update disabled)",
        report.version
    )?;
    writeln!(out, "\n        Service: router")?;
    let (min, max) = (router.protocol_min_version, router.protocol_max_version);
    let versions = if min == max {
        max.to_string()
    } else {
        format!("{min}..{max}")
    };
    writeln!(out, "       Protocol: {} {versions}", router.protocol)?;
    writeln!(
        out,
        "           Name: {}({})",
        router.name, router.nick_name
    )?;
    writeln!(out, "     Encryption: {}", on(router.encryption))?;
    writeln!(out, "  PeerDiscovery: {}", on(router.peer_discovery))?;
    writeln!(out, "        Targets: {}", router.targets.len())?;
    let total = router.connections.len();
    writeln!(
        out,
        "    Connections: {total}{}",
        in_brackets(&connection_counts(router))
    )?;
    writeln!(
        out,
        "          Peers: {}{}",
        summary.peers,
        peer_counts(summary)
    )?;
    let trusted = match router.trusted_subnets.as_slice() {
        [] => "none".to_owned(),
        subnets => subnets.join(", "),
    };
    writeln!(out, " TrustedSubnets: {trusted}")?;
    if let Some(ipam) = &report.ipam {
        writeln!(out, "\n        Service: ipam")?;
        writeln!(out, "         Status: {}", ipam_status(ipam))?;
        writeln!(out, "          Range: {}", ipam.range)?;
        writeln!(out, "  DefaultSubnet: {}", ipam.default_subnet)?;
    }
    if let Some(dns) = &report.dns {
        let upstream = match dns.upstream.as_slice() {
            [] => "none".to_owned(),
            servers => servers.join(", "),
        };
        writeln!(out, "\n        Service: dns")?;
        writeln!(out, "         Domain: {}", dns.domain)?;
        writeln!(out, "       Upstream: {upstream}")?;
        writeln!(out, "            TTL: {}", dns.ttl)?;
        writeln!(out, "        Entries: {}", summary.names)?;
        for warning in &dns.warnings {
            writeln!(out, "        Warning: {warning}")?;
        }
    }
    report.plugin.as_ref().map_or(Ok(()), |p| plugin(out, p))
}

fn plugin(out: &mut String, plugin: &PluginReport) -> std::fmt::Result {
    if plugin.config.enable_v2 {
        return writeln!(out, "\n        Service: plugin (v2)");
    }
    writeln!(out, "\n        Service: plugin (legacy)")?;
    writeln!(out, "     DriverName: {}", plugin.driver_name)
}

/// States in the order in which the overview lists them.
const STATES: [&str; 5] = ["established", "pending", "retrying", "failed", "connecting"];

fn connection_counts(router: &RouterReport) -> Vec<String> {
    let count = |state| {
        router
            .connections
            .iter()
            .filter(|c| c.state == state)
            .count()
    };
    let counts = STATES.iter().map(|state| (count(*state), state));
    counts
        .filter(|(n, _)| *n > 0)
        .map(|(n, state)| format!("{n} {state}"))
        .collect()
}

fn peer_counts(summary: &Summary) -> String {
    let Summary {
        established,
        pending,
        ..
    } = *summary;
    let mut words = Vec::new();
    if established > 0 {
        words.push(format!("{established} established"));
    }
    if pending > 0 {
        words.push(format!("{pending} pending"));
    }
    match words.as_slice() {
        [] => String::new(),
        words => format!(" (with {} connections)", words.join(", ")),
    }
}

fn in_brackets(words: &[String]) -> String {
    if words.is_empty() {
        String::new()
    } else {
        format!(" ({})", words.join(", "))
    }
}

/// Returns what the overview says about address allocation.
pub(crate) fn ipam_status(ipam: &IpamReport) -> String {
    let entries = ipam.entries.as_deref().unwrap_or_default();
    if !entries.is_empty() {
        return if entries
            .iter()
            .all(|entry| entry.size == 0 || !entry.is_known_peer)
        {
            "all IP ranges owned by unreachable peers - use 'rmpeer' if they are dead"
        } else if ipam.pending_allocates.iter().flatten().next().is_some() {
            "waiting for IP(s) to become available"
        } else {
            "ready"
        }
        .to_owned();
    }
    match &ipam.paxos {
        Some(paxos) if paxos.elector => {
            let (quorum, known) = (paxos.quorum, paxos.known_nodes);
            format!("awaiting consensus (quorum: {quorum}, known: {known})")
        }
        Some(_) => "priming".to_owned(),
        None => "idle".to_owned(),
    }
}

fn arrow(outbound: bool) -> &'static str {
    if outbound { "->" } else { "<-" }
}

fn connections(out: &mut String, router: &RouterReport) -> std::fmt::Result {
    for connection in &router.connections {
        let ConnectionReport {
            address,
            outbound,
            state,
            info,
            attrs,
        } = connection;
        write!(
            out,
            "{} {address:<21} {state:<11} {info} ",
            arrow(*outbound)
        )?;
        for (key, value) in attrs.iter().flatten().filter(|(key, _)| **key != "name") {
            write!(out, "{key}={value}")?;
        }
        out.push('\n');
    }
    Ok(())
}

fn peers(out: &mut String, router: &RouterReport) -> std::fmt::Result {
    for peer in &router.peers {
        writeln!(out, "{}({})", peer.name, peer.nick_name)?;
        for connection in peer.connections.iter().flatten() {
            let name = format!("{}({})", connection.name, connection.nick_name);
            let state = if connection.established {
                "established"
            } else {
                "pending"
            };
            let (arrow, address) = (arrow(connection.outbound), &connection.address);
            writeln!(out, "   {arrow} {address:<21} {name:<37} {state}")?;
        }
    }
    Ok(())
}

fn dns(out: &mut String, report: &Report) -> std::fmt::Result {
    let Some(dns) = &report.dns else {
        return Ok(());
    };
    let suffix = format!(".{}", dns.domain);
    for entry in dns
        .entries
        .iter()
        .flatten()
        .filter(|entry| entry.tombstone == 0)
    {
        let host = entry
            .hostname
            .strip_suffix(&suffix)
            .unwrap_or(&entry.hostname);
        let id: String = entry.container_id.chars().take(12).collect();
        writeln!(
            out,
            "{host:<12} {:<15} {id:>12} {}",
            entry.address, entry.origin
        )?;
    }
    Ok(())
}

fn ipam(out: &mut String, ipam: &IpamReport, router: &RouterReport) -> std::fmt::Result {
    struct Owner<'a> {
        nickname: &'a str,
        known: bool,
        addresses: u64,
    }
    let mut owners: BTreeMap<&str, Owner<'_>> = BTreeMap::new();
    for entry in ipam.entries.iter().flatten() {
        let owner = owners.entry(&entry.peer).or_insert(Owner {
            nickname: &entry.nickname,
            known: entry.is_known_peer,
            addresses: 0,
        });
        owner.addresses += entry.size;
    }
    let mut line = |name: &str, owner: &Owner<'_>, ours: bool| {
        let full = format!("{name}({})", owner.nickname);
        let share = 100.0 * owner.addresses as f64 / ipam.range_num_ips.max(1) as f64;
        write!(
            out,
            "{full:<37} {:>8} IPs ({share:04.1}% of total) ",
            owner.addresses
        )?;
        match (ours, owner.known) {
            (true, _) => writeln!(out, "({} active)", ipam.active_ips),
            (false, true) => writeln!(out),
            (false, false) => writeln!(out, "- unreachable!"),
        }
    };
    if let Some(owner) = owners.remove(router.name.as_str()) {
        line(&router.name, &owner, true)?;
    }
    owners
        .iter()
        .try_for_each(|(name, owner)| line(name, owner, false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use report::model::{PaxosReport, PluginConfig};
    use report::testing::recorded;

    #[test]
    fn pages_are_those_of_a_recorded_router() {
        let file = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../report/tests/vectors/http.json"
        );
        let text = std::fs::read_to_string(file).unwrap();
        let vectors: serde_json::Value = serde_json::from_str(&text).unwrap();
        let mut report = recorded();
        if let Some(entries) = report.dns.as_mut().and_then(|dns| dns.entries.as_mut()) {
            entries.clear();
        }
        let mut seen = Vec::new();
        for exchange in vectors.as_array().unwrap() {
            let path = exchange["path"].as_str().unwrap();
            let Some(name) = path.strip_prefix("/status") else {
                continue;
            };
            let Some(page) = Page::named(name.trim_start_matches('/')) else {
                continue;
            };
            if seen.contains(&page) {
                continue;
            }
            seen.push(page);
            assert_eq!(
                render(page, &report),
                exchange["body"].as_str().unwrap(),
                "{path}"
            );
        }
        assert_eq!(seen.len(), 6);
    }

    #[test]
    fn dead_names_are_not_shown() {
        let expected = "foo          10.7.0.5        0123456789ab 00:00:00:00:00:01\n";
        assert_eq!(render(Page::Dns, &recorded()), expected);
    }

    #[test]
    fn the_overview_leaves_out_what_is_off() {
        let mut report = recorded();
        report.ipam = None;
        report.dns = None;
        report.router.connections.clear();
        report
            .router
            .peers
            .iter_mut()
            .for_each(|peer| peer.connections = None);
        report.router.trusted_subnets = vec!["10.0.0.0/8".into(), "192.168.0.0/16".into()];
        report.router.protocol_min_version = 2;
        let config = PluginConfig {
            socket: String::new(),
            mesh_socket: String::new(),
            enable: true,
            enable_v2: false,
            enable_v2_multicast: false,
            dns: true,
            default_subnet: String::new(),
            proc_path: String::new(),
        };
        let names = ("weave".to_owned(), "weavemesh".to_owned());
        report.plugin = Some(PluginReport {
            config,
            driver_name: names.0,
            mesh_driver_name: names.1,
        });
        let text = render(Page::Overview, &report);
        let tail = "       Protocol: weave 2\n           Name: 00:00:00:00:00:01(h1)\n     \
                    Encryption: enabled\n  PeerDiscovery: enabled\n        Targets: 0\n    \
                    Connections: 0\n          Peers: 2\n TrustedSubnets: 10.0.0.0/8, \
                    192.168.0.0/16\n\n        Service: plugin (legacy)\n     DriverName: weave\n";
        assert!(text.ends_with(tail), "{text}");
    }

    #[test]
    fn every_state_of_the_allocator_has_its_words() {
        let mut ipam = recorded().ipam.unwrap();
        ipam.pending_allocates = Some(vec!["c 10.7.0.0/16".into()]);
        assert_eq!(ipam_status(&ipam), "waiting for IP(s) to become available");
        for entry in ipam.entries.as_mut().unwrap() {
            entry.is_known_peer = false;
        }
        assert!(ipam_status(&ipam).starts_with("all IP ranges owned by unreachable peers"));
        ipam.entries = None;
        ipam.paxos = Some(PaxosReport {
            elector: true,
            known_nodes: 1,
            quorum: 2,
        });
        assert_eq!(
            ipam_status(&ipam),
            "awaiting consensus (quorum: 2, known: 1)"
        );
        ipam.paxos = Some(PaxosReport {
            elector: false,
            known_nodes: 0,
            quorum: 0,
        });
        assert_eq!(ipam_status(&ipam), "priming");
    }
}
