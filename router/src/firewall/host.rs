//! The rules of the router's host: the table `weft`.
//!
//! Masquerading picks ports at random (`fully-random`): with ports in sequence two connections
//! that start at once can be given the same, and the second loses its first packet.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use super::nft;
use super::rules::{
    Base, Chain, ChainKind, Hook, Match, PRIORITY_SOURCE_NAT, Rule, Table, Verdict,
};
use crate::net::NetError;

/// What the host's rules shall do. The kernel keeps it: [`HostRules::read`] finds what the last
/// [`HostRules::apply`] left, whoever did that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HostRules {
    /// Subnets whose traffic to and from the outside gets the host's addresses.
    pub masqueraded: BTreeSet<Ipv4Net>,
}

impl HostRules {
    /// What the rules in the kernel do.
    pub fn read() -> Result<HostRules, NetError> {
        let mut rules = HostRules::default();
        for chain in nft::read_table(TABLE)? {
            let subnets = chain
                .comments
                .iter()
                .filter_map(|c| c.strip_prefix(OUTWARD));
            rules
                .masqueraded
                .extend(subnets.filter_map(|s| s.parse::<Ipv4Net>().ok()));
        }
        Ok(rules)
    }

    /// Makes the kernel's rules these, in one step.
    pub fn apply(&self) -> Result<(), NetError> {
        let table = self.table();
        if table.chains.is_empty() {
            HostRules::remove()?;
            return Ok(());
        }
        nft::replace_table(&table)
    }

    /// Whether the kernel's rules are these; they are not after somebody flushed them.
    pub fn are_in_place(&self) -> Result<bool, NetError> {
        let found = nft::read_table(TABLE)?;
        let wanted = self.table().chains;
        Ok(found.len() == wanted.len() && found.iter().zip(&wanted).all(|(f, w)| f.is(w)))
    }

    /// Deletes all rules of ours. Returns whether there were any.
    pub fn remove() -> Result<bool, NetError> {
        match nft::delete_table(TABLE) {
            Err(error) if nft::is_unsupported(&error) => Ok(false),
            result => result,
        }
    }

    fn table(&self) -> Table {
        let mut chains = Vec::new();
        if !self.masqueraded.is_empty() {
            chains.push(self.postrouting());
        }
        Table {
            name: TABLE.into(),
            chains,
        }
    }

    fn postrouting(&self) -> Chain {
        let mut rules = Vec::new();
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
}

const TABLE: &str = "weft";
/// The comment by which a masqueraded subnet is found again.
const OUTWARD: &str = "masquerade out of ";
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);

#[cfg(test)]
mod tests;
