//! The host as a member of the overlay: its addresses there, and the rules beside them.
//!
//! An exposed address sits on the bridge. With masquerading, containers of its subnet reach the
//! world outside under the host's addresses, and what is not in the subnet reaches containers
//! under the exposed address. That takes forwarding, so `net.ipv4.ip_forward` is switched on if it
//! is off; it stays on afterwards, as others may have come to rely on it.
//!
//! What is exposed is kept by whoever owns the [`Gateway`], as [`Exposures`], so that it is there
//! again after a restart of the host. While the router runs, [`Gateway::reconcile`] puts back what
//! others remove.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use ipnet::{IpNet, Ipv4Net};

use super::attach::keep_secondaries;
use super::bridge::Bridge;
use super::undo::Rollback;
use crate::rules::{DockerBridge, HostRules};
use kernel::error::NetError;
use kernel::netlink::Netlink;
use kernel::packet_filter::nft;
use kernel::{arp, sysctl};

/// An address of the bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Exposed {
    /// The address with its subnet.
    pub address: Ipv4Net,
    /// Whether its subnet is masqueraded.
    pub masquerade: bool,
}

/// All that is exposed, and the number of changes that led there: of two, the later counts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposures {
    /// Number of changes.
    pub revision: u64,
    /// The exposed addresses.
    pub all: Vec<Exposed>,
}

/// Inputs of the host's rules, beside what is exposed.
#[derive(Clone, Debug, Default)]
pub struct GatewayConfig {
    /// The bridge of the containers.
    pub bridge: String,
    /// Docker's bridge, which need not exist.
    pub docker_bridge: String,
    /// The port of the mesh.
    pub mesh_port: u16,
    /// TCP ports of loopback addresses that only this host may reach.
    pub private_ports: BTreeSet<u16>,
    /// Whether a network policy controller decides what is forwarded.
    pub expects_controller: bool,
}

/// The host's addresses on the bridge, and its rules. Calls wait for the kernel and for each
/// other.
#[derive(Debug)]
pub struct Gateway {
    config: GatewayConfig,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    exposed: BTreeMap<Ipv4Net, bool>,
    unmasqueraded: BTreeSet<Ipv4Net>,
    revision: u64,
    closed: bool,
    /// The rules that were in place when the kernel's rules had this generation.
    seen: Option<(u32, HostRules)>,
}

impl State {
    fn exposures(&self) -> Exposures {
        let all = self.exposed.iter();
        Exposures {
            revision: self.revision,
            all: all
                .map(|(address, masquerade)| Exposed {
                    address: *address,
                    masquerade: *masquerade,
                })
                .collect(),
        }
    }
}

impl Gateway {
    /// Creates a gateway that has done nothing yet.
    pub fn new(config: GatewayConfig) -> Gateway {
        Gateway {
            config,
            state: Mutex::default(),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // What a panic left behind is put right by the next call that succeeds.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Exposes what was exposed before: what is `stored`, and what the bridge has. Without a
    /// record, the addresses of a bridge without rules of ours are a Weave Net router's, which
    /// masqueraded all of them.
    pub fn restore(&self, stored: Option<Vec<Exposed>>) -> Result<Exposures, NetError> {
        let mut state = self.state();
        let masqueraded = HostRules::masqueraded_now()?;
        let foreign = stored.is_none() && masqueraded.is_empty();
        for found in exposed(&self.config.bridge)? {
            let masquerade = found.masquerade || foreign;
            state.exposed.insert(found.address, masquerade);
        }
        for one in stored.into_iter().flatten() {
            state.exposed.insert(one.address, one.masquerade);
        }
        let rules = self.rules(&state)?;
        pass_legacy(&rules);
        self.put_back(&mut state)?;
        Ok(state.exposures())
    }

    /// Gives the bridge an address, or changes whether the subnet of one it has is masqueraded.
    /// Returns whether the address is new. On failure everything that this call did is undone.
    pub fn expose(
        &self,
        address: Ipv4Net,
        masquerade: bool,
    ) -> Result<(bool, Exposures), NetError> {
        if !can_be_exposed(address) {
            return Err(NetError::NoHostAddress {
                address: address.to_string(),
            });
        }
        let mut state = self.state();
        let netlink = Netlink::open()?;
        let bridge = Bridge::named(&netlink, &self.config.bridge)?;
        let before = self.rules(&state)?;
        let mut rollback = Rollback::new();
        let new = netlink.add_address(&bridge.link, address.into())?;
        if new {
            let (netlink, link) = (&netlink, &bridge.link);
            rollback.on_failure(move || netlink.delete_address(link, address.into()).map(drop));
        }
        let mut exposed = state.exposed.clone();
        exposed.insert(address, masquerade);
        // A subnet is masqueraded or it is not.
        let same = |other: &Ipv4Net| other.trunc() == address.trunc();
        exposed
            .iter_mut()
            .filter(|(other, _)| same(other))
            .for_each(|(_, other)| *other = masquerade);
        let rules = self.rules_for(&exposed, &state.unmasqueraded)?;
        match rules.apply() {
            // Without nf_tables only masquerading is impossible.
            Err(error) if nft::is_unsupported(&error) && !masquerade => {}
            result => result?,
        }
        rollback.on_failure(move || before.apply());
        if masquerade {
            sysctl::set(FORWARDING, "1")?;
        }
        arp::announce(&bridge.link, &[address.addr()])?;
        rollback.commit();
        pass_legacy(&rules);
        state.exposed = exposed;
        state.revision += 1;
        state.seen = None;
        Ok((new, state.exposures()))
    }

    /// Takes addresses from the bridge: the given one, or all. Returns those that it had. The
    /// rules of a subnet go with its last address.
    pub fn hide(&self, address: Option<Ipv4Net>) -> Result<(Vec<Ipv4Net>, Exposures), NetError> {
        let mut state = self.state();
        let netlink = Netlink::open()?;
        let wanted = |net: &Ipv4Net| address.is_none_or(|address| address.addr() == net.addr());
        let mut hidden = Vec::new();
        if let Some(bridge) = Bridge::find(&netlink, &self.config.bridge)? {
            keep_secondaries(&bridge.link.name)?;
            for network in ipv4_addresses(&netlink, &bridge)? {
                if wanted(&network) {
                    netlink.delete_address(&bridge.link, network.into())?;
                    hidden.push(network);
                }
            }
        }
        let before = state.exposed.len();
        state.exposed.retain(|network, _| !wanted(network));
        state.revision += u64::from(before != state.exposed.len());
        state.seen = None;
        let rules = self.rules(&state)?;
        match rules.apply() {
            Err(error) if nft::is_unsupported(&error) => {}
            result => result?,
        }
        pass_legacy(&rules);
        Ok((hidden, state.exposures()))
    }

    /// Returns what is exposed.
    pub fn exposures(&self) -> Exposures {
        self.state().exposures()
    }

    /// Puts back what is not as it should be. Returns what that was, for the log.
    /// `unmasqueraded` are destinations that local clients reach under their own addresses.
    pub fn reconcile(
        &self,
        unmasqueraded: BTreeSet<Ipv4Net>,
    ) -> Result<Vec<&'static str>, NetError> {
        let mut state = self.state();
        state.unmasqueraded = unmasqueraded;
        if state.closed {
            return Ok(Vec::new());
        }
        // It has no number that changes with its rules, so it is read each time.
        let legacy = self.rules(&state)?.apply_to_legacy();
        let mut changed = self.put_back(&mut state)?;
        if legacy? {
            changed.push("rules in iptables-legacy");
        }
        Ok(changed)
    }

    /// Changes nothing from here on. Whoever removes rules afterwards will not find them back.
    pub fn close(&self) {
        self.state().closed = true;
    }

    fn put_back(&self, state: &mut State) -> Result<Vec<&'static str>, NetError> {
        let mut changed = Vec::new();
        if self.put_back_addresses(state)? {
            changed.push("exposed addresses");
        }
        if state.exposed.values().any(|masquerade| *masquerade) {
            sysctl::set(FORWARDING, "1")?;
        }
        let rules = self.rules(state)?;
        // Read first: what changes from here on is looked at next time.
        let generation = nft::generation()?;
        let now = generation.map(|generation| (generation, rules.clone()));
        if now.is_none() || now == state.seen {
            return Ok(changed);
        }
        if rules.are_in_place()? {
            state.seen = now;
        } else {
            rules.apply()?;
            changed.push("packet filter rules");
        }
        Ok(changed)
    }

    fn put_back_addresses(&self, state: &State) -> Result<bool, NetError> {
        if state.exposed.is_empty() {
            return Ok(false);
        }
        let netlink = Netlink::open()?;
        let Some(bridge) = Bridge::find(&netlink, &self.config.bridge)? else {
            return Ok(false);
        };
        let there = ipv4_addresses(&netlink, &bridge)?;
        let missing = state.exposed.keys().filter(|net| !there.contains(net));
        let mut added = Vec::new();
        for network in missing {
            if netlink.add_address(&bridge.link, (*network).into())? {
                added.push(network.addr());
            }
        }
        arp::announce(&bridge.link, &added)?;
        Ok(!added.is_empty())
    }

    fn rules(&self, state: &State) -> Result<HostRules, NetError> {
        self.rules_for(&state.exposed, &state.unmasqueraded)
    }

    fn rules_for(
        &self,
        exposed: &BTreeMap<Ipv4Net, bool>,
        unmasqueraded: &BTreeSet<Ipv4Net>,
    ) -> Result<HostRules, NetError> {
        let config = &self.config;
        let masqueraded = exposed.iter().filter(|(_, masquerade)| **masquerade);
        Ok(HostRules {
            bridge: config.bridge.clone(),
            mesh_port: config.mesh_port,
            is_member: !exposed.is_empty() || self.has_address()?,
            masqueraded: masqueraded.map(|(address, _)| address.trunc()).collect(),
            unmasqueraded: unmasqueraded.clone(),
            forwards: !config.expects_controller,
            exposed: exposed.keys().map(Ipv4Net::trunc).collect(),
            private_ports: config.private_ports.clone(),
            docker: self.docker()?,
        })
    }

    /// Whether the bridge has an address, whoever gave it one.
    fn has_address(&self) -> Result<bool, NetError> {
        let netlink = Netlink::open()?;
        match Bridge::find(&netlink, &self.config.bridge)? {
            Some(bridge) => Ok(!ipv4_addresses(&netlink, &bridge)?.is_empty()),
            None => Ok(false),
        }
    }

    fn docker(&self) -> Result<Option<DockerBridge>, NetError> {
        let name = &self.config.docker_bridge;
        if name.is_empty() || *name == self.config.bridge {
            return Ok(None);
        }
        let netlink = Netlink::open()?;
        let Some(link) = netlink.link(name)? else {
            return Ok(None);
        };
        let addresses = only_ipv4(netlink.addresses_of(link.index)?);
        Ok(Some(DockerBridge {
            name: name.clone(),
            addresses: addresses.iter().map(Ipv4Net::addr).collect(),
            mesh_port: self.config.mesh_port,
        }))
    }
}

/// Returns true if the kernel would take it for an address of a host, and leave the way to all
/// others as it is.
fn can_be_exposed(net: Ipv4Net) -> bool {
    let address = net.addr();
    let special = address.is_unspecified()
        || address.is_loopback()
        || address.is_multicast()
        || address.is_broadcast();
    let edge = net.prefix_len() < 31 && (address == net.network() || address == net.broadcast());
    !special && !edge && net.prefix_len() > 0
}

/// Lets containers pass the older packet filter. Nothing else depends on it, and the next look
/// tries again.
fn pass_legacy(rules: &HostRules) {
    if let Err(error) = rules.apply_to_legacy() {
        tracing::warn!(%error, "rules of iptables-legacy may stop containers");
    }
}

/// Returns what is exposed, as the kernel has it.
pub fn exposed(bridge: &str) -> Result<Vec<Exposed>, NetError> {
    let netlink = Netlink::open()?;
    let Some(bridge) = Bridge::find(&netlink, bridge)? else {
        return Ok(Vec::new());
    };
    let masqueraded = HostRules::masqueraded_now()?;
    let addresses = ipv4_addresses(&netlink, &bridge)?.into_iter();
    Ok(addresses
        .map(|address| Exposed {
            address,
            masquerade: masqueraded.contains(&address.trunc()),
        })
        .collect())
}

fn ipv4_addresses(netlink: &Netlink, bridge: &Bridge) -> Result<Vec<Ipv4Net>, NetError> {
    Ok(only_ipv4(bridge.addresses(netlink)?))
}

fn only_ipv4(networks: Vec<IpNet>) -> Vec<Ipv4Net> {
    let v4 = |network: IpNet| match network {
        IpNet::V4(network) => Some(network),
        IpNet::V6(_) => None,
    };
    networks.into_iter().filter_map(v4).collect()
}

const FORWARDING: &str = "ipv4/ip_forward";

#[cfg(test)]
mod tests;
