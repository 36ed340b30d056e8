//! Faults of a network: cut links, partitions, blocked pairs, loss, small MTUs.

use std::collections::{BTreeMap, BTreeSet};

use ipnet::Ipv4Net;

use crate::host::{Host, Lab, Place};
use kernel::error::NetError;
use kernel::netlink::{LinkChange, LinkIndex, NewBridge};
use kernel::packet_filter::nft;
use kernel::packet_filter::rules::{
    Base, Chain, ChainKind, Hook, Match, PRIORITY_RAW, PRIORITY_SOURCE_NAT, Rule, Table, Verdict,
};
use kernel::sys::ethtool::{self, Offload};

/// The faults that are packet filter rules on hosts.
#[derive(Debug, Default)]
pub(super) struct Faults {
    /// Hosts that do not hear each other; each pair stands in both orders.
    blocked: BTreeSet<(usize, usize)>,
    /// Number of packets in a million to a host that are lost.
    loss: BTreeMap<usize, u32>,
}

impl Lab {
    /// Switches the link of a host on or off at the switch, as pulling the cable does.
    pub fn set_link(&self, host: usize, up: bool) -> Result<(), NetError> {
        self.switch_netlink.set_up(&self.hosts[host].port, up)?;
        if up {
            self.wait_until_ready(host)?;
        }
        Ok(())
    }

    /// Sets the MTU of a host's link, at both ends.
    pub fn set_mtu(&self, host: usize, mtu: u32) -> Result<(), NetError> {
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        let host = &self.hosts[host];
        let inside = host.namespace.netlink()?;
        inside.change_link(&inside.link_named("eth0")?, &change)?;
        self.switch_netlink.change_link(&host.port, &change)
    }

    /// Sets the MTU of the switch's end of a host's link only: what is larger towards the host is
    /// dropped; silently on the switch, with an ICMP message behind a router.
    pub fn set_port_mtu(&self, host: usize, mtu: u32) -> Result<(), NetError> {
        let change = LinkChange {
            mtu: Some(mtu),
            ..LinkChange::default()
        };
        let port = &self.hosts[host].port;
        self.switch_netlink.change_link(port, &change)
    }

    /// Splits the switch so that only hosts of the same group reach each other; a host in no group
    /// reaches nobody. Hosts behind routers cannot be grouped.
    pub fn partition(&self, groups: &[&[usize]]) -> Result<(), NetError> {
        let mut homes = BTreeMap::new();
        for (number, group) in groups.iter().enumerate() {
            let index = self.group_bridge(number)?;
            homes.extend(group.iter().map(|host| (*host, index)));
        }
        for (number, host) in self.hosts.iter().enumerate() {
            if host.place == Place::Switch {
                self.move_port(number, host, homes.get(&number).copied())?;
            }
        }
        Ok(())
    }

    /// Puts all hosts back on one switch, unblocks all pairs and ends all loss.
    pub fn heal(&mut self) -> Result<(), NetError> {
        for (number, host) in self.hosts.iter().enumerate() {
            if host.place == Place::Switch {
                self.move_port(number, host, Some(self.switch_link.index))?;
            }
        }
        let mut touched: BTreeSet<usize> = self.faults.loss.keys().copied().collect();
        touched.extend(self.faults.blocked.iter().map(|(host, _)| *host));
        self.faults = Faults::default();
        touched
            .into_iter()
            .try_for_each(|host| self.apply_faults(host))
    }

    /// Keeps two hosts from hearing each other, silently; others reach both.
    pub fn block(&mut self, a: usize, b: usize) -> Result<(), NetError> {
        self.faults.blocked.extend([(a, b), (b, a)]);
        self.apply_faults(a)?;
        self.apply_faults(b)
    }

    /// Undoes [`Lab::block`].
    pub fn unblock(&mut self, a: usize, b: usize) -> Result<(), NetError> {
        self.faults.blocked.remove(&(a, b));
        self.faults.blocked.remove(&(b, a));
        self.apply_faults(a)?;
        self.apply_faults(b)
    }

    /// Loses so many of a million packets that arrive at a host.
    pub fn set_loss(&mut self, host: usize, per_million: u32) -> Result<(), NetError> {
        self.faults.loss.insert(host, per_million);
        self.apply_faults(host)
    }

    /// Switches an offload of a host's link, at both ends. Without segmentation offloads each
    /// packet on the link is as small as on a real wire.
    pub fn set_offload(&self, host: usize, offload: Offload, on: bool) -> Result<(), NetError> {
        let host = &self.hosts[host];
        let failed = |e| NetError::io(format!("set {offload:?} of a link"), &e);
        let inside = || ethtool::set_offload("eth0", offload, on);
        host.namespace.run(inside)?.map_err(failed)?;
        let outside = || ethtool::set_offload(&host.port.name, offload, on);
        self.switch.run(outside)?.map_err(failed)
    }

    /// Rewrites the source of what hosts behind address translation send to the switch.
    pub(super) fn apply_nat(&self) -> Result<(), NetError> {
        let hidden = self.hosts.iter().filter(|host| host.place == Place::Nat);
        let rule = |host: &Host| Rule {
            matches: vec![
                Match::From(host.address.into()),
                Match::LeavesBy("switch".into()),
            ],
            verdict: Verdict::Masquerade,
            comment: format!("translate {}", host.address),
        };
        let base = Base {
            kind: ChainKind::Nat,
            hook: Hook::Postrouting,
            priority: PRIORITY_SOURCE_NAT,
        };
        let table = one_chain("postrouting", base, hidden.map(rule).collect());
        self.switch.run(|| nft::replace_table(&table))?
    }

    fn apply_faults(&self, host: usize) -> Result<(), NetError> {
        let drop = |matched, comment| Rule {
            matches: vec![matched],
            verdict: Verdict::Drop,
            comment,
        };
        let pairs = self.faults.blocked.iter().filter(|(at, _)| *at == host);
        let mut rules: Vec<Rule> = pairs
            .map(|(_, from)| {
                let from: Ipv4Net = self.hosts[*from].address.into();
                drop(Match::From(from), format!("blocked from {from}"))
            })
            .collect();
        if let Some(per_million) = self.faults.loss.get(&host).copied() {
            rules.push(drop(Match::Chance { per_million }, "loss".into()));
        }
        let base = Base {
            kind: ChainKind::Filter,
            hook: Hook::Prerouting,
            priority: PRIORITY_RAW,
        };
        let table = one_chain("prerouting", base, rules);
        let namespace = &self.hosts[host].namespace;
        namespace.run(|| nft::replace_table(&table))?
    }

    fn group_bridge(&self, number: usize) -> Result<LinkIndex, NetError> {
        let name = format!("group{number}");
        let link = match self.switch_netlink.link(&name)? {
            Some(link) => link,
            None => {
                let new = NewBridge {
                    name: &name,
                    mac: None,
                };
                self.switch_netlink.create_bridge(&new)?;
                self.switch_netlink.link_named(&name)?
            }
        };
        self.switch_netlink.set_up(&link, true)?;
        Ok(link.index)
    }

    fn move_port(&self, number: usize, host: &Host, to: Option<LinkIndex>) -> Result<(), NetError> {
        let now = self.switch_netlink.link_at(host.port.index)?;
        if now.is_some_and(|link| link.master == to) {
            return Ok(());
        }
        let change = LinkChange {
            master: Some(to),
            ..LinkChange::default()
        };
        self.switch_netlink.change_link(&host.port, &change)?;
        self.wait_until_ready(number)
    }
}

fn one_chain(name: &str, base: Base, rules: Vec<Rule>) -> Table {
    let name = name.to_owned();
    let base = Some(base);
    Table {
        name: TABLE.into(),
        chains: vec![Chain { name, base, rules }],
    }
}

/// Beside the table of a router that runs on the host.
const TABLE: &str = "weft-lab";
