//! A chain of ours in the table of others.
//!
//! Each table's chains see a packet, and one drop is final: an accept in our own table cannot undo
//! what the table `filter` of iptables does, where Docker sets the policy of forwarding to drop.
//! That also stops what only passes the bridge, wherever the bridge asks iptables
//! (`bridge-nf-call-iptables`, which Docker switches on). So a chain of ours goes into that table,
//! and one marked rule leads there: in `DOCKER-USER`, the chain that Docker keeps free for this,
//! behind the rules that the user has there, or where there is none in `FORWARD` itself. If nothing stands in `FORWARD`, neither do we. So
//! also for ip6tables: containers may speak IPv6 to each other, and `bridge-nf-call-ip6tables` is on
//! wherever the other is.
//!
//! Rules here use no more than iptables can show, or it would refuse to list the table at all.

use kernel::error::NetError;
use kernel::packet_filter::nft::{self, FoundChain, FoundRule, Place, Position};
use kernel::packet_filter::rules::{Chain, Family, Hook, Rule, Verdict, Visit};

/// Our chain among those of iptables.
pub(super) const VISIT: Visit = Visit {
    table: "filter",
    chain: "WEFT-FORWARD",
    mark: "weft: its containers may pass",
    from: "FORWARD",
    reserved: "DOCKER-USER",
};
const TABLE: &str = VISIT.table;
const CHAIN: &str = VISIT.chain;
const MARK: &str = VISIT.mark;

/// Makes the chain these rules, and has packets sent there. Without rules nothing of ours stays.
pub(super) fn apply(family: Family, rules: &[Rule]) -> Result<(), NetError> {
    let found = nft::read_table_of(family, TABLE)?;
    let Some(place) = place(family, &found).filter(|_| !rules.is_empty()) else {
        return leave(family, &found).map(drop);
    };
    if is_in_place(&found, place, rules) {
        return Ok(());
    }
    nft::visit(place, &chain(rules), MARK, &marked(&found))
}

/// Whether the chain is these rules, and packets are sent there.
pub(super) fn are_in_place(family: Family, rules: &[Rule]) -> Result<bool, NetError> {
    let found = nft::read_table_of(family, TABLE)?;
    Ok(match place(family, &found).filter(|_| !rules.is_empty()) {
        Some(place) => is_in_place(&found, place, rules),
        None => marked(&found).is_empty() && own(&found).is_none(),
    })
}

/// Removes what is ours. Returns whether there was anything.
pub(super) fn remove(family: Family) -> Result<bool, NetError> {
    leave(family, &nft::read_table_of(family, TABLE)?)
}

fn leave(family: Family, found: &[FoundChain]) -> Result<bool, NetError> {
    let (chain, rules) = (own(found).map(|_| CHAIN), marked(found));
    nft::leave(family, TABLE, chain, &rules)?;
    Ok(chain.is_some() || !rules.is_empty())
}

/// Returns where the rule that leads to us belongs, if forwarding is filtered at all.
fn place(family: Family, found: &[FoundChain]) -> Option<Place<'static>> {
    let hook = Some(nft::hook_number(Hook::Forward));
    let forward = found
        .iter()
        .find(|chain| chain.name == VISIT.from && chain.base.map(|(hook, _)| hook) == hook)?;
    let of_others = |chain: &FoundChain| chain.rules.iter().any(|rule| rule.comment != MARK);
    if !forward.drops && !of_others(forward) {
        return None;
    }
    // It may have lost the way there in a flush.
    let mut targets = forward
        .rules
        .iter()
        .filter_map(|rule| rule.target.as_deref());
    let leads_there = targets.any(|target| target == VISIT.reserved);
    let reserved = found.iter().find(|chain| chain.name == VISIT.reserved);
    let (chain, position) = match reserved.filter(|_| leads_there) {
        Some(reserved) => (VISIT.reserved, end(&reserved.rules)),
        None => (VISIT.from, Position::First),
    };
    Some(Place {
        family,
        table: TABLE,
        chain,
        position,
    })
}

/// Returns the place behind all rules that a packet can reach: those before the first that always
/// returns.
fn end(rules: &[FoundRule]) -> Position {
    match rules.iter().find(|rule| rule.always_returns) {
        Some(first) => Position::Before(first.handle),
        None => Position::Last,
    }
}

fn is_in_place(found: &[FoundChain], place: Place<'_>, rules: &[Rule]) -> bool {
    let marked = marked(found);
    let leads_here = matches!(marked.as_slice(), [(chain, _)] if chain == place.chain);
    leads_here
        && (place.position == Position::First || is_last(found, place.chain))
        && jumps_here(found)
        && own(found).is_some_and(|own| own.is(&chain(rules)))
}

/// Returns true if our rule in this chain is the last that is reached.
fn is_last(found: &[FoundChain], chain: &str) -> bool {
    let rules = found.iter().filter(|found| found.name == chain);
    let rules = rules.flat_map(|chain| &chain.rules);
    let last = rules.take_while(|rule| !rule.always_returns).last();
    last.is_some_and(|rule| rule.comment == MARK)
}

/// Returns true if each of our rules in chains of others jumps to ours, and all packets with it.
fn jumps_here(found: &[FoundChain]) -> bool {
    let jump = Rule {
        matches: Vec::new(),
        verdict: Verdict::Jump(CHAIN.to_owned()),
        comment: MARK.to_owned(),
    };
    let mut rules = found.iter().flat_map(|chain| &chain.rules);
    rules.all(|rule| rule.comment != MARK || rule.is(&jump))
}

fn own(found: &[FoundChain]) -> Option<&FoundChain> {
    found.iter().find(|chain| chain.name == CHAIN)
}

/// Returns our rules in chains of others: chain and handle.
fn marked(found: &[FoundChain]) -> Vec<(String, u64)> {
    let rules = found.iter().flat_map(|chain| {
        let marked = chain.rules.iter().filter(|rule| rule.comment == MARK);
        marked.map(|rule| (chain.name.clone(), rule.handle))
    });
    rules.collect()
}

fn chain(rules: &[Rule]) -> Chain {
    Chain {
        name: CHAIN.into(),
        base: None,
        rules: rules.to_vec(),
    }
}

#[cfg(test)]
mod tests;
