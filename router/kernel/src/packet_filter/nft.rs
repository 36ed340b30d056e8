//! nf_tables over netlink: transactions that change tables, and lists that read them.
//!
//! A transaction is one datagram: BATCH_BEGIN, the changes, BATCH_END. The kernel takes all of
//! them or none. All numbers are big-endian. Layout: linux/netfilter/nf_tables.h.

mod comment;
mod expression;

use rustix::io::Errno;

use comment::{comment, comment_of, cut};
use expression::{always_returns, do_the_same, expressions, target_of};

use super::rules::{Base, Chain, ChainKind, Family, Hook, Rule, Table, Verdict};
use crate::error::NetError;
use crate::netlink::socket::Socket;
use crate::netlink::wire::{NLM_F_APPEND, NLM_F_CREATE, Request, attributes};

/// Makes the table exactly this, in one step; one of the same name is replaced.
pub fn replace_table(table: &Table) -> Result<(), NetError> {
    let mut batch = Batch::new();
    batch.add_table(&table.name);
    batch.delete_table(&table.name);
    batch.add_table(&table.name);
    for chain in &table.chains {
        batch.add_chain(&table.name, chain);
    }
    for chain in &table.chains {
        batch.add_rules(&table.name, chain);
    }
    batch.commit()
}

/// Makes one chain of a table exactly this, in one step; other chains stay. The table is made if
/// it does not exist.
pub fn replace_chain(table: &str, chain: &Chain) -> Result<(), NetError> {
    let mut batch = Batch::new();
    batch.add_table(table);
    let found = read_table(table)?;
    if let Some(found) = found.iter().find(|found| found.name == chain.name) {
        batch.flush_chain(table, &chain.name);
        // The kernel does not move a chain.
        let kind = chain.base.map(|base| kind_name(base.kind));
        if found.base != base_numbers(chain) || found.kind.as_deref() != kind {
            batch.delete_chain(table, &chain.name);
        }
    }
    batch.add_chain(table, chain);
    batch.add_rules(table, chain);
    batch.commit()
}

/// Deletes a table with all that is in it. Returns whether it was there.
pub fn delete_table(name: &str) -> Result<bool, NetError> {
    let mut batch = Batch::new();
    batch.delete_table(name);
    absent_is_fine(batch.commit())
}

/// Deletes a chain with its rules. Returns whether it was there.
pub fn delete_chain(table: &str, chain: &str) -> Result<bool, NetError> {
    let mut batch = Batch::new();
    batch.flush_chain(table, chain);
    batch.delete_chain(table, chain);
    absent_is_fine(batch.commit())
}

/// Returns true if this error says that the kernel has no nf_tables.
pub fn is_unsupported(error: &NetError) -> bool {
    [Errno::OPNOTSUPP, Errno::PROTONOSUPPORT, Errno::AFNOSUPPORT]
        .iter()
        .any(|errno| error.is(*errno))
}

fn absent_is_fine(result: Result<(), NetError>) -> Result<bool, NetError> {
    match result {
        Ok(()) => Ok(true),
        Err(error) if error.is(Errno::NOENT) => Ok(false),
        Err(error) => Err(error),
    }
}

/// A chain as it stands in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundChain {
    /// Its name.
    pub name: String,
    /// The hook's number and the priority, if the kernel enters it.
    pub base: Option<(u32, i32)>,
    /// Its kind, by the kernel's name, if the kernel enters it.
    pub kind: Option<String>,
    /// Whether packets that reach its end are dropped.
    pub drops: bool,
    /// Its rules, in order.
    pub rules: Vec<FoundRule>,
}

/// A rule as it stands in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// The kernel's handle of it; unique in its table.
    pub handle: u64,
    /// Its comment; empty if it has none.
    pub comment: String,
    /// The chain of its table that packets go to next, if it sends any to one.
    pub target: Option<String>,
    /// Whether it sends each packet back to the chain that jumped here.
    pub always_returns: bool,
    /// Its expressions, as the kernel reports them.
    expressions: Vec<u8>,
}

impl FoundChain {
    /// Returns true if this is that chain: in the same place, with rules that do the same to each
    /// packet and say the same of it. A rule that somebody changed under its comment is another.
    pub fn is(&self, chain: &Chain) -> bool {
        self.name == chain.name
            && self.base == base_numbers(chain)
            && self.kind.as_deref() == chain.base.map(|base| kind_name(base.kind))
            && !self.drops
            && self.rules.len() == chain.rules.len()
            && self.rules.iter().zip(&chain.rules).all(|(f, w)| f.is(w))
    }
}

impl FoundRule {
    /// Returns true if this is that rule: with its comment, and doing the same.
    pub fn is(&self, rule: &Rule) -> bool {
        self.comment == cut(&rule.comment) && do_the_same(attributes(&self.expressions), rule)
    }
}

/// Reads the chains of a table for IPv4. None if there is no table of this name, or no nf_tables.
pub fn read_table(name: &str) -> Result<Vec<FoundChain>, NetError> {
    read_table_of(Family::V4, name)
}

/// As [`read_table`], of another family.
pub fn read_table_of(family: Family, name: &str) -> Result<Vec<FoundChain>, NetError> {
    let what = || format!("list packet filter table {name}");
    let socket = match Socket::netfilter() {
        Err(error) if error.is(Errno::PROTONOSUPPORT) => return Ok(Vec::new()),
        result => result?,
    };
    let list = |kind: u16, attribute: u16| {
        let request = message(family, kind, 0).text(attribute, name);
        match socket.list(what, &request) {
            // NOENT: no such table. INVAL: the kernel has no nf_tables.
            Err(error) if error.is(Errno::NOENT) || error.is(Errno::INVAL) => Ok(Vec::new()),
            result => result,
        }
    };
    let mut chains = Vec::new();
    for message in list(NFT_MSG_GETCHAIN, NFTA_CHAIN_TABLE)? {
        let found = message.attributes(HEADER_BYTES);
        if found.text(NFTA_CHAIN_TABLE).as_deref() != Some(name) {
            continue;
        }
        let hook = found.nested(NFTA_CHAIN_HOOK);
        let priority = hook.be32(NFTA_HOOK_PRIORITY).map(u32::cast_signed);
        chains.push(FoundChain {
            name: found.text(NFTA_CHAIN_NAME).unwrap_or_default(),
            base: hook.be32(NFTA_HOOK_HOOKNUM).zip(priority),
            kind: found.text(NFTA_CHAIN_TYPE),
            drops: found.be32(NFTA_CHAIN_POLICY) == Some(NF_DROP),
            rules: Vec::new(),
        });
    }
    for message in list(NFT_MSG_GETRULE, NFTA_RULE_TABLE)? {
        let found = message.attributes(HEADER_BYTES);
        if found.text(NFTA_RULE_TABLE).as_deref() != Some(name) {
            continue;
        }
        let chain = found.text(NFTA_RULE_CHAIN);
        if let Some(chain) = chains.iter_mut().find(|c| Some(&c.name) == chain.as_ref()) {
            let comment = found.get(NFTA_RULE_USERDATA).and_then(comment_of);
            let handle = found.array(NFTA_RULE_HANDLE).map(u64::from_be_bytes);
            let expressions = found.nested(NFTA_RULE_EXPRESSIONS);
            chain.rules.push(FoundRule {
                handle: handle.unwrap_or_default(),
                comment: comment.unwrap_or_default(),
                target: target_of(expressions.clone()),
                always_returns: always_returns(expressions),
                expressions: found
                    .get(NFTA_RULE_EXPRESSIONS)
                    .unwrap_or_default()
                    .to_vec(),
            });
        }
    }
    Ok(chains)
}

/// Returns the number of the kernel's rules: it changes with every change of any table. `None` if
/// there is no nf_tables.
pub fn generation() -> Result<Option<u32>, NetError> {
    let socket = match Socket::netfilter() {
        Err(error) if error.is(Errno::PROTONOSUPPORT) => return Ok(None),
        result => result?,
    };
    match socket.get(
        || "read the packet filter".into(),
        message(Family::V4, NFT_MSG_GETGEN, 0),
    ) {
        Err(error) if is_unsupported(&error) || error.is(Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
        Ok(answer) => Ok(answer.attributes(HEADER_BYTES).be32(NFTA_GEN_ID)),
    }
}

/// A place in a table of others, for one rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// Address family of the table's packets.
    pub family: Family,
    /// The table.
    pub table: &'a str,
    /// The chain that ours is to be in.
    pub chain: &'a str,
    /// Position in that chain.
    pub position: Position,
}

/// A place in a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Position {
    /// In front of all rules.
    First,
    /// In front of the rule with this handle.
    Before(u64),
    /// Behind all rules.
    Last,
}

/// Makes a chain of ours in a table of others exactly this, and puts a rule that jumps there into
/// another chain, with `mark` as its comment. `old` are rules of ours in that table that are to
/// go. All in one step.
pub fn visit(
    place: Place<'_>,
    chain: &Chain,
    mark: &str,
    old: &[(String, u64)],
) -> Result<(), NetError> {
    let mut batch = Batch::of(place.family);
    for (chain, handle) in old {
        batch.delete_rule(place.table, chain, *handle);
    }
    batch.add_chain(place.table, chain);
    batch.flush_chain(place.table, &chain.name);
    batch.add_rules(place.table, chain);
    let jump = Rule {
        matches: Vec::new(),
        verdict: Verdict::Jump(chain.name.clone()),
        comment: mark.to_owned(),
    };
    batch.place_rule(place, &jump);
    batch.commit()
}

/// Takes rules and a chain of ours out of a table of others, in one step.
pub fn leave(
    family: Family,
    table: &str,
    chain: Option<&str>,
    rules: &[(String, u64)],
) -> Result<(), NetError> {
    let mut batch = Batch::of(family);
    for (chain, handle) in rules {
        batch.delete_rule(table, chain, *handle);
    }
    if let Some(chain) = chain {
        batch.flush_chain(table, chain);
        batch.delete_chain(table, chain);
    }
    if batch.steps.is_empty() {
        return Ok(());
    }
    batch.commit()
}

/// Changes to be made in one step.
struct Batch {
    family: Family,
    steps: Vec<(String, Request)>,
}

impl Batch {
    /// Commands on our own tables, which are for IPv4.
    const fn new() -> Batch {
        Batch::of(Family::V4)
    }

    const fn of(family: Family) -> Batch {
        Batch {
            family,
            steps: Vec::new(),
        }
    }

    fn commit(self) -> Result<(), NetError> {
        let edge = |kind| Request::new(kind, 0, &[0, 0, 0, NFNL_SUBSYS_NFTABLES]);
        Socket::netfilter()?.batch(
            edge(NFNL_MSG_BATCH_BEGIN),
            self.steps,
            edge(NFNL_MSG_BATCH_END),
        )
    }

    fn push(&mut self, what: String, request: Request) {
        self.steps.push((what, request));
    }

    fn add_table(&mut self, name: &str) {
        let request = message(self.family, NFT_MSG_NEWTABLE, NLM_F_CREATE)
            .text(NFTA_TABLE_NAME, name)
            .be32(NFTA_TABLE_FLAGS, 0);
        self.push(format!("add packet filter table {name}"), request);
    }

    fn delete_table(&mut self, name: &str) {
        let request = message(self.family, NFT_MSG_DELTABLE, 0).text(NFTA_TABLE_NAME, name);
        self.push(format!("delete packet filter table {name}"), request);
    }

    fn add_chain(&mut self, table: &str, chain: &Chain) {
        let request = message(self.family, NFT_MSG_NEWCHAIN, NLM_F_CREATE)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, &chain.name)
            .maybe(
                chain.base,
                |r,
                 Base {
                     kind,
                     hook,
                     priority,
                 }| {
                    r.nest(NFTA_CHAIN_HOOK, |r| {
                        r.be32(NFTA_HOOK_HOOKNUM, hook_number(hook))
                            .be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned())
                    })
                    .be32(NFTA_CHAIN_POLICY, NF_ACCEPT)
                    .text(NFTA_CHAIN_TYPE, kind_name(kind))
                },
            );
        self.push(format!("add packet filter chain {}", chain.name), request);
    }

    fn flush_chain(&mut self, table: &str, chain: &str) {
        let request = message(self.family, NFT_MSG_DELRULE, 0)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain);
        self.push(format!("flush packet filter chain {chain}"), request);
    }

    fn delete_chain(&mut self, table: &str, chain: &str) {
        let request = message(self.family, NFT_MSG_DELCHAIN, 0)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, chain);
        self.push(format!("delete packet filter chain {chain}"), request);
    }

    fn add_rules(&mut self, table: &str, chain: &Chain) {
        for rule in &chain.rules {
            self.add_rule(table, &chain.name, rule, NLM_F_APPEND);
        }
    }

    fn place_rule(&mut self, place: Place<'_>, rule: &Rule) {
        let (flags, before) = match place.position {
            Position::First => (0, None),
            Position::Before(handle) => (0, Some(handle)),
            Position::Last => (NLM_F_APPEND, None),
        };
        self.put_rule(place.table, place.chain, rule, flags, before);
    }

    fn add_rule(&mut self, table: &str, chain: &str, rule: &Rule, flags: u16) {
        self.put_rule(table, chain, rule, flags, None);
    }

    fn put_rule(&mut self, table: &str, chain: &str, rule: &Rule, flags: u16, before: Option<u64>) {
        let request = message(self.family, NFT_MSG_NEWRULE, NLM_F_CREATE | flags)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .nest(NFTA_RULE_EXPRESSIONS, |r| expressions(r, rule))
            .maybe(before, |r, handle| {
                r.bytes(NFTA_RULE_POSITION, &handle.to_be_bytes())
            })
            .maybe(comment(&rule.comment), |r, comment| {
                r.bytes(NFTA_RULE_USERDATA, &comment)
            });
        let what = format!("add packet filter rule {:?}", rule.comment);
        self.push(what, request);
    }

    fn delete_rule(&mut self, table: &str, chain: &str, handle: u64) {
        let request = message(self.family, NFT_MSG_DELRULE, 0)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .bytes(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        self.push(format!("delete packet filter rule of {chain}"), request);
    }
}

/// `struct nfgenmsg`: family, version 0, resource id 0.
fn message(family: Family, kind: u16, flags: u16) -> Request {
    let kind = u16::from(NFNL_SUBSYS_NFTABLES) << 8 | kind;
    let family = match family {
        Family::V4 => NFPROTO_IPV4,
        Family::V6 => NFPROTO_IPV6,
    };
    Request::new(kind, flags, &[family, 0, 0, 0])
}

const fn kind_name(kind: ChainKind) -> &'static str {
    match kind {
        ChainKind::Filter => "filter",
        ChainKind::Nat => "nat",
    }
}

fn base_numbers(chain: &Chain) -> Option<(u32, i32)> {
    let base = chain.base?;
    Some((hook_number(base.hook), base.priority))
}

/// Returns the number by which the kernel knows the hook.
pub const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

const HEADER_BYTES: usize = 4;
const NFPROTO_IPV4: u8 = 2;
const NFPROTO_IPV6: u8 = 10;
const NFNL_SUBSYS_NFTABLES: u8 = 10;
const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;

const NFT_MSG_NEWTABLE: u16 = 0;
const NFT_MSG_DELTABLE: u16 = 2;
const NFT_MSG_NEWCHAIN: u16 = 3;
const NFT_MSG_GETCHAIN: u16 = 4;
const NFT_MSG_DELCHAIN: u16 = 5;
const NFT_MSG_NEWRULE: u16 = 6;
const NFT_MSG_GETRULE: u16 = 7;
const NFT_MSG_DELRULE: u16 = 8;
const NFT_MSG_GETGEN: u16 = 16;

const NFTA_TABLE_NAME: u16 = 1;
const NFTA_TABLE_FLAGS: u16 = 2;
const NFTA_CHAIN_TABLE: u16 = 1;
const NFTA_CHAIN_NAME: u16 = 3;
const NFTA_CHAIN_HOOK: u16 = 4;
const NFTA_CHAIN_POLICY: u16 = 5;
const NFTA_CHAIN_TYPE: u16 = 7;
const NFTA_HOOK_HOOKNUM: u16 = 1;
const NFTA_HOOK_PRIORITY: u16 = 2;
const NFTA_RULE_TABLE: u16 = 1;
const NFTA_RULE_CHAIN: u16 = 2;
const NFTA_RULE_HANDLE: u16 = 3;
const NFTA_RULE_EXPRESSIONS: u16 = 4;
const NFTA_RULE_POSITION: u16 = 6;
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_GEN_ID: u16 = 1;

const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
