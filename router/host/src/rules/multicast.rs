//! Keeping subnets apart in containers: multicast of foreign subnets is dropped on arrival.
//!
//! All subnets share one overlay, and multicast reaches every host of it. Each attached interface
//! gets a chain in the table `weft-attach` of its container's namespace; a container that runs a
//! router of its own has that one's table `weft` beside it.
//!
//! Functions here work in the namespace of the calling thread.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use kernel::error::NetError;
use kernel::packet_filter::nft;
use kernel::packet_filter::rules::{
    Base, Chain, ChainKind, Hook, Match, PRIORITY_FILTER, Rule, Verdict,
};

/// Lets multicast in by `interface` only if it comes from one of `subnets`.
pub fn allow_only(interface: &str, subnets: &[Ipv4Net]) -> Result<(), NetError> {
    let came = || Match::CameBy(interface.to_owned());
    let mut rules = Vec::new();
    for subnet in subnets.iter().map(Ipv4Net::trunc).collect::<BTreeSet<_>>() {
        rules.push(Rule {
            matches: vec![came(), Match::From(subnet), Match::To(MULTICAST)],
            verdict: Verdict::Accept,
            comment: format!("multicast of {subnet} on {interface}"),
        });
    }
    rules.push(Rule {
        matches: vec![came(), Match::To(MULTICAST)],
        verdict: Verdict::Drop,
        comment: format!("multicast of other subnets on {interface}"),
    });
    let base = Base {
        kind: ChainKind::Filter,
        hook: Hook::Input,
        priority: PRIORITY_FILTER,
    };
    let chain = Chain {
        name: chain_name(interface),
        base: Some(base),
        rules,
    };
    nft::replace_chain(TABLE, &chain)
}

/// As [`allow_only`], if multicast on `interface` is filtered at all.
pub fn narrow(interface: &str, subnets: &[Ipv4Net]) -> Result<(), NetError> {
    let name = chain_name(interface);
    if nft::read_table(TABLE)?
        .iter()
        .any(|chain| chain.name == name)
    {
        allow_only(interface, subnets)?;
    }
    Ok(())
}

/// Removes the filter of one interface, and the table with the last of them.
pub fn remove(interface: &str) -> Result<(), NetError> {
    let name = chain_name(interface);
    let chains = nft::read_table(TABLE)?;
    if chains.iter().all(|chain| chain.name == name) {
        return remove_all();
    }
    nft::delete_chain(TABLE, &name).map(drop)
}

/// Removes the filters of all interfaces.
pub fn remove_all() -> Result<(), NetError> {
    nft::delete_table(TABLE).map(drop)
}

fn chain_name(interface: &str) -> String {
    format!("multicast-{interface}")
}

const TABLE: &str = "weft-attach";
const MULTICAST: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(224, 0, 0, 0), 4);
