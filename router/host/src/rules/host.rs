//! The rules of the router's host: the table `weft`, and a chain in the table of iptables where
//! there is one that would stop our containers.
//!
//! Masquerading picks ports at random (`fully-random`): with ports in sequence two connections
//! that start at once can be given the same, and the second loses its first packet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::container::{self, VISIT};
use kernel::error::NetError;
use kernel::packet_filter::rules::{
    Base, Chain, ChainKind, Family, Hook, Match, PRIORITY_FILTER, PRIORITY_SOURCE_NAT, Protocol,
    Rule, Table, Verdict,
};
use kernel::packet_filter::{legacy, nft};

/// Desired effect of the host's rules.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// The bridge of the containers.
    pub bridge: String,
    /// The port of the mesh, which containers have no business with; the one above belongs to it.
    /// 0 if nothing is kept from them.
    pub mesh_port: u16,
    /// Whether the host has an address on the bridge.
    pub is_member: bool,
    /// Subnets whose traffic to and from the outside gets the host's addresses.
    pub masqueraded: BTreeSet<Ipv4Net>,
    /// Destinations that local clients reach under their own addresses, although their subnet is
    /// masqueraded.
    pub unmasqueraded: BTreeSet<Ipv4Net>,
    /// Whether containers may talk through the host; if not, others decide.
    pub forwards: bool,
    /// Subnets that the host leads to.
    pub exposed: BTreeSet<Ipv4Net>,
    /// TCP ports of the host's loopback addresses that nobody else may reach.
    pub private_ports: BTreeSet<u16>,
    /// Docker's bridge, if there is one.
    pub docker: Option<DockerBridge>,
}

/// A bridge whose containers are not ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DockerBridge {
    /// Its name.
    pub name: String,
    /// The host's addresses on it.
    pub addresses: Vec<Ipv4Addr>,
    /// The port of the mesh, which its containers have no business with; the one above belongs to
    /// it.
    pub mesh_port: u16,
}

impl HostRules {
    /// Returns the subnets that the rules in the kernel masquerade, whoever put them there.
    pub fn masqueraded_now() -> Result<BTreeSet<Ipv4Net>, NetError> {
        let chains = nft::read_table(TABLE)?;
        let rules = chains.iter().flat_map(|chain| &chain.rules);
        let subnets = rules.filter_map(|rule| rule.comment.strip_prefix(OUTWARD)?.parse().ok());
        Ok(subnets.collect())
    }

    /// Makes the rules in nf_tables these. Our own table changes in one step, the chains in those
    /// of others in another.
    pub fn apply(&self) -> Result<(), NetError> {
        let table = self.table();
        if !is_in_place(&table)? {
            if table.chains.is_empty() {
                remove_table()?;
            } else {
                nft::replace_table(&table)?;
            }
        }
        for (family, accepts) in self.accepts() {
            container::apply(family, &accepts)?;
        }
        Ok(())
    }

    /// Whether the rules in nf_tables are these; they are not after somebody flushed them.
    pub fn are_in_place(&self) -> Result<bool, NetError> {
        for (family, accepts) in self.accepts() {
            if !container::are_in_place(family, &accepts)? {
                return Ok(false);
            }
        }
        is_in_place(&self.table())
    }

    /// Lets containers pass the tables of iptables-legacy, where there are any. Returns whether
    /// that took a change.
    pub fn apply_to_legacy(&self) -> Result<bool, NetError> {
        collect(
            self.accepts()
                .map(|(family, accepts)| legacy::apply(family, &VISIT, &accepts)),
        )
    }

    /// Deletes all rules of ours. Returns whether there were any.
    pub fn remove() -> Result<bool, NetError> {
        collect([
            container::remove(Family::V4),
            container::remove(Family::V6),
            legacy::remove(Family::V4, &VISIT),
            legacy::remove(Family::V6, &VISIT),
            remove_table(),
        ])
    }

    fn table(&self) -> Table {
        let chains = [self.input(), self.forward(), self.postrouting()];
        Table {
            name: TABLE.into(),
            chains: chains
                .into_iter()
                .filter(|chain| !chain.rules.is_empty())
                .collect(),
        }
    }

    /// Keeps others from what is the host's own.
    fn input(&self) -> Chain {
        let mut rules = Vec::new();
        for port in &self.private_ports {
            let (protocol, port) = (Protocol::Tcp, *port);
            rules.push(Rule {
                matches: vec![
                    Match::NotCameBy("lo".into()),
                    Match::To(LOOPBACK),
                    Match::Port { protocol, port },
                ],
                verdict: Verdict::Drop,
                comment: format!("port {port} is for this host alone"),
            });
        }
        rules.extend(self.input_from_bridge());
        if let Some(docker) = &self.docker {
            for address in &docker.addresses {
                rules.extend(mesh_ports(docker.mesh_port).map(|(protocol, port)| Rule {
                    matches: vec![
                        Match::CameBy(docker.name.clone()),
                        Match::To((*address).into()),
                        Match::Port { protocol, port },
                    ],
                    verdict: Verdict::Drop,
                    comment: format!(
                        "{} port {port} of {address} is for the mesh",
                        name(protocol)
                    ),
                }));
            }
        }
        filter_chain("input", Hook::Input, rules)
    }

    /// Keeps containers from what they were not given: the whole host as long as it has no address
    /// among them, and otherwise the mesh itself. A container reaches each address of a host that
    /// it can send to, not only those of the bridge.
    fn input_from_bridge(&self) -> Vec<Rule> {
        let came = || Match::CameBy(self.bridge.clone());
        if self.mesh_port == 0 {
            return Vec::new();
        }
        if !self.is_member {
            return vec![Rule {
                matches: vec![came()],
                verdict: Verdict::Drop,
                comment: format!("this host has no address on {}", self.bridge),
            }];
        }
        let rules = mesh_ports(self.mesh_port).map(|(protocol, port)| Rule {
            matches: vec![came(), Match::Port { protocol, port }],
            verdict: Verdict::Drop,
            comment: format!("{} port {port} is for other hosts", name(protocol)),
        });
        rules.to_vec()
    }

    /// Keeps containers of Docker's bridge apart from ours.
    fn forward(&self) -> Chain {
        let docker = self.docker.iter().filter(|_| self.forwards);
        let rules = docker.map(|docker| Rule {
            matches: vec![
                Match::CameBy(docker.name.clone()),
                Match::LeavesBy(self.bridge.clone()),
            ],
            verdict: Verdict::Drop,
            comment: format!("{} and {} are apart", docker.name, self.bridge),
        });
        filter_chain("forward", Hook::Forward, rules.collect())
    }

    fn postrouting(&self) -> Chain {
        let mut rules = Vec::new();
        if !self.masqueraded.is_empty() {
            rules.extend(self.unmasqueraded.iter().map(|subnet| Rule {
                matches: vec![Match::To(*subnet)],
                verdict: Verdict::Return,
                comment: format!("local clients of {subnet} keep their addresses"),
            }));
        }
        for subnet in &self.masqueraded {
            let subnet = *subnet;
            rules.push(Rule {
                matches: vec![Match::From(subnet), Match::To(MULTICAST)],
                verdict: Verdict::Return,
                comment: format!("multicast of {subnet} keeps its source"),
            });
            rules.push(Rule {
                matches: vec![Match::To(subnet), Match::NotFrom(subnet)],
                verdict: Verdict::Masquerade,
                comment: format!("masquerade towards {subnet}"),
            });
            rules.push(Rule {
                matches: vec![Match::From(subnet), Match::NotTo(subnet)],
                verdict: Verdict::Masquerade,
                comment: format!("{OUTWARD}{subnet}"),
            });
        }
        Chain {
            name: "postrouting".into(),
            base: Some(Base {
                kind: ChainKind::Nat,
                hook: Hook::Postrouting,
                priority: PRIORITY_SOURCE_NAT,
            }),
            rules,
        }
    }

    /// Returns what the filters of others have to let through: what only passes the bridge, and for
    /// IPv4, which this host routes for containers, what is from or for subnets that it leads to.
    fn accepts(&self) -> [(Family, Vec<Rule>); 2] {
        if !self.forwards {
            return [(Family::V4, Vec::new()), (Family::V6, Vec::new())];
        }
        let bridge = &self.bridge;
        let outward = self.exposed.iter().map(|subnet| Rule {
            matches: vec![Match::CameBy(bridge.clone()), Match::From(*subnet)],
            verdict: Verdict::Accept,
            comment: format!("from {subnet} by {bridge}"),
        });
        let inward = self.exposed.iter().map(|subnet| Rule {
            matches: vec![Match::LeavesBy(bridge.clone()), Match::To(*subnet)],
            verdict: Verdict::Accept,
            comment: format!("to {subnet} by {bridge}"),
        });
        let within = Rule {
            matches: vec![
                Match::CameBy(bridge.clone()),
                Match::LeavesBy(bridge.clone()),
            ],
            verdict: Verdict::Accept,
            comment: format!("within {bridge}"),
        };
        let first = std::iter::once(within.clone());
        [
            (Family::V4, first.chain(outward).chain(inward).collect()),
            (Family::V6, vec![within]),
        ]
    }
}

/// Returns the ports of the mesh, of which this is the first.
fn mesh_ports(first: u16) -> [(Protocol, u16); 3] {
    [
        (Protocol::Tcp, first),
        (Protocol::Udp, first),
        (Protocol::Udp, first.saturating_add(1)),
    ]
}

const fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Udp => "UDP",
    }
}

/// Whether any of them is true; all that failed, if any did.
fn collect(results: impl IntoIterator<Item = Result<bool, NetError>>) -> Result<bool, NetError> {
    let (mut any, mut errors) = (false, Vec::new());
    for result in results {
        match result {
            Ok(one) => any |= one,
            Err(error) => errors.push(error),
        }
    }
    match errors.len() {
        0 => Ok(any),
        1 => Err(errors.remove(0)),
        _ => Err(NetError::Several(errors)),
    }
}

fn filter_chain(name: &str, hook: Hook, rules: Vec<Rule>) -> Chain {
    Chain {
        name: name.into(),
        base: Some(Base {
            kind: ChainKind::Filter,
            hook,
            priority: PRIORITY_FILTER,
        }),
        rules,
    }
}

fn is_in_place(table: &Table) -> Result<bool, NetError> {
    let found = nft::read_table(&table.name)?;
    let wanted = &table.chains;
    Ok(found.len() == wanted.len() && found.iter().zip(wanted).all(|(f, w)| f.is(w)))
}

fn remove_table() -> Result<bool, NetError> {
    match nft::delete_table(TABLE) {
        Err(error) if nft::is_unsupported(&error) => Ok(false),
        result => result,
    }
}

const TABLE: &str = "weft";
/// The comment by which a masqueraded subnet is found again.
const OUTWARD: &str = "masquerade out of ";
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);

#[cfg(test)]
mod tests;
