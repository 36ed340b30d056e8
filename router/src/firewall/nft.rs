//! nf_tables over netlink: transactions that change tables, and lists that read them.
//!
//! A transaction is one datagram: BATCH_BEGIN, the changes, BATCH_END. The kernel takes all of
//! them or none. A rule is a list of expressions, which load a field of the packet into a
//! register, compare the register, count, and give a verdict. All numbers are big-endian. Layout:
//! linux/netfilter/nf_tables.h.

use ipnet::Ipv4Net;
use rustix::io::Errno;

use super::rules::{
    Base, COMMENT_BYTES_MAX, Chain, ChainKind, Hook, Match, Protocol, Rule, Table, Verdict,
};
use crate::net::NetError;
use crate::net::netlink::socket::Socket;
use crate::net::netlink::wire::{
    Attributes, NLM_F_APPEND, NLM_F_CREATE, Request, attributes, text,
};

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
        if found.base != base_numbers(chain) {
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

/// Whether this error says that the kernel has no nf_tables.
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
    /// Whether packets that reach its end are dropped.
    pub drops: bool,
    /// Its rules, in order.
    pub rules: Vec<FoundRule>,
}

/// A rule as it stands in the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundRule {
    /// What the kernel calls it; unique in its table.
    pub handle: u64,
    /// Its comment; empty if it has none.
    pub comment: String,
    /// The chain of its table that packets go to next, if it sends any to one.
    pub target: Option<String>,
}

impl FoundChain {
    /// Whether this is that chain: same place, same rules by their comments.
    pub fn is(&self, chain: &Chain) -> bool {
        let comments = chain.rules.iter().map(|rule| cut(&rule.comment));
        self.name == chain.name
            && self.base == base_numbers(chain)
            && self.rules.iter().map(|rule| &rule.comment).eq(comments)
    }
}

/// Reads the chains of a table. None if there is no table of this name, or no nf_tables.
pub fn read_table(name: &str) -> Result<Vec<FoundChain>, NetError> {
    let what = || format!("list packet filter table {name}");
    let socket = match Socket::netfilter() {
        Err(error) if error.is(Errno::PROTONOSUPPORT) => return Ok(Vec::new()),
        result => result?,
    };
    let list = |kind: u16, attribute: u16| {
        let request = message(kind, 0).text(attribute, name);
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
            chain.rules.push(FoundRule {
                handle: handle.unwrap_or_default(),
                comment: comment.unwrap_or_default(),
                target: target_of(found.nested(NFTA_RULE_EXPRESSIONS)),
            });
        }
    }
    Ok(chains)
}

/// The number of the kernel's rules: it changes with every change of any table. `None` if there
/// is no nf_tables.
pub fn generation() -> Result<Option<u32>, NetError> {
    let socket = match Socket::netfilter() {
        Err(error) if error.is(Errno::PROTONOSUPPORT) => return Ok(None),
        result => result?,
    };
    match socket.get(
        || "read the packet filter".into(),
        message(NFT_MSG_GETGEN, 0),
    ) {
        Err(error) if is_unsupported(&error) || error.is(Errno::INVAL) => Ok(None),
        Err(error) => Err(error),
        Ok(answer) => Ok(answer.attributes(HEADER_BYTES).be32(NFTA_GEN_ID)),
    }
}

/// The chain that a rule sends packets to.
fn target_of(expressions: Attributes<'_>) -> Option<String> {
    let verdicts = expressions.filter_map(|(_, expression)| {
        let expression = attributes(expression);
        if expression.text(NFTA_EXPR_NAME).as_deref() != Some("immediate") {
            return None;
        }
        let data = expression.nested(NFTA_EXPR_DATA);
        let verdict = data.nested(NFTA_IMMEDIATE_DATA).nested(NFTA_DATA_VERDICT);
        verdict.text(NFTA_VERDICT_CHAIN)
    });
    verdicts.last()
}

/// A place in a table of others, for one rule of ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The table.
    pub table: &'a str,
    /// The chain whose first rule ours is to be.
    pub chain: &'a str,
}

/// Makes a chain of ours in a table of others exactly this, and puts a rule that jumps there in
/// front of another chain, with `mark` as its comment. `old` are rules of ours in that table that
/// are to go. All in one step.
pub fn visit(
    place: Place<'_>,
    chain: &Chain,
    mark: &str,
    old: &[(String, u64)],
) -> Result<(), NetError> {
    let mut batch = Batch::new();
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
    batch.insert_rule(place.table, place.chain, &jump);
    batch.commit()
}

/// Takes rules and a chain of ours out of a table of others, in one step.
pub fn leave(table: &str, chain: Option<&str>, rules: &[(String, u64)]) -> Result<(), NetError> {
    let mut batch = Batch::new();
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
    steps: Vec<(String, Request)>,
}

impl Batch {
    const fn new() -> Batch {
        Batch { steps: Vec::new() }
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
        let request = message(NFT_MSG_NEWTABLE, NLM_F_CREATE)
            .text(NFTA_TABLE_NAME, name)
            .be32(NFTA_TABLE_FLAGS, 0);
        self.push(format!("add packet filter table {name}"), request);
    }

    fn delete_table(&mut self, name: &str) {
        let request = message(NFT_MSG_DELTABLE, 0).text(NFTA_TABLE_NAME, name);
        self.push(format!("delete packet filter table {name}"), request);
    }

    fn add_chain(&mut self, table: &str, chain: &Chain) {
        let request = message(NFT_MSG_NEWCHAIN, NLM_F_CREATE)
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
                    let kind = match kind {
                        ChainKind::Filter => "filter",
                        ChainKind::Nat => "nat",
                    };
                    r.nest(NFTA_CHAIN_HOOK, |r| {
                        r.be32(NFTA_HOOK_HOOKNUM, hook_number(hook))
                            .be32(NFTA_HOOK_PRIORITY, priority.cast_unsigned())
                    })
                    .be32(NFTA_CHAIN_POLICY, NF_ACCEPT)
                    .text(NFTA_CHAIN_TYPE, kind)
                },
            );
        self.push(format!("add packet filter chain {}", chain.name), request);
    }

    fn flush_chain(&mut self, table: &str, chain: &str) {
        let request = message(NFT_MSG_DELRULE, 0)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain);
        self.push(format!("flush packet filter chain {chain}"), request);
    }

    fn delete_chain(&mut self, table: &str, chain: &str) {
        let request = message(NFT_MSG_DELCHAIN, 0)
            .text(NFTA_CHAIN_TABLE, table)
            .text(NFTA_CHAIN_NAME, chain);
        self.push(format!("delete packet filter chain {chain}"), request);
    }

    fn add_rules(&mut self, table: &str, chain: &Chain) {
        for rule in &chain.rules {
            self.add_rule(table, &chain.name, rule, NLM_F_APPEND);
        }
    }

    /// Puts a rule in front of all others of a chain.
    fn insert_rule(&mut self, table: &str, chain: &str, rule: &Rule) {
        self.add_rule(table, chain, rule, 0);
    }

    fn add_rule(&mut self, table: &str, chain: &str, rule: &Rule, flags: u16) {
        let request = message(NFT_MSG_NEWRULE, NLM_F_CREATE | flags)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .nest(NFTA_RULE_EXPRESSIONS, |r| expressions(r, rule))
            .maybe(comment(&rule.comment), |r, comment| {
                r.bytes(NFTA_RULE_USERDATA, &comment)
            });
        let what = format!("add packet filter rule {:?}", rule.comment);
        self.push(what, request);
    }

    fn delete_rule(&mut self, table: &str, chain: &str, handle: u64) {
        let request = message(NFT_MSG_DELRULE, 0)
            .text(NFTA_RULE_TABLE, table)
            .text(NFTA_RULE_CHAIN, chain)
            .bytes(NFTA_RULE_HANDLE, &handle.to_be_bytes());
        self.push(format!("delete packet filter rule of {chain}"), request);
    }
}

/// `struct nfgenmsg`: family, version 0, resource id 0.
fn message(kind: u16, flags: u16) -> Request {
    let kind = u16::from(NFNL_SUBSYS_NFTABLES) << 8 | kind;
    Request::new(kind, flags, &[NFPROTO_IPV4, 0, 0, 0])
}

fn base_numbers(chain: &Chain) -> Option<(u32, i32)> {
    let base = chain.base?;
    Some((hook_number(base.hook), base.priority))
}

pub(super) const fn hook_number(hook: Hook) -> u32 {
    match hook {
        Hook::Prerouting => 0,
        Hook::Input => 1,
        Hook::Forward => 2,
        Hook::Output => 3,
        Hook::Postrouting => 4,
    }
}

fn expressions(request: Request, rule: &Rule) -> Request {
    let matched = rule.matches.iter().fold(request, match_expressions);
    let counted = expression(matched, "counter", |r| r);
    let (code, chain) = match &rule.verdict {
        Verdict::Masquerade => {
            return expression(counted, "masq", |r| {
                r.be32(NFTA_MASQ_FLAGS, NF_NAT_RANGE_PROTO_RANDOM_FULLY)
            });
        }
        Verdict::Accept => (NF_ACCEPT, None),
        Verdict::Drop => (NF_DROP, None),
        Verdict::Return => (NFT_RETURN, None),
        Verdict::Jump(chain) => (NFT_JUMP, Some(chain)),
    };
    expression(counted, "immediate", |r| {
        r.be32(NFTA_IMMEDIATE_DREG, NFT_REG_VERDICT)
            .nest(NFTA_IMMEDIATE_DATA, |r| {
                r.nest(NFTA_DATA_VERDICT, |r| {
                    r.be32(NFTA_VERDICT_CODE, code)
                        .maybe(chain, |r, chain| r.text(NFTA_VERDICT_CHAIN, chain))
                })
            })
    })
}

fn match_expressions(request: Request, matched: &Match) -> Request {
    match matched {
        Match::From(network) => network_match(request, SOURCE_OFFSET, *network, NFT_CMP_EQ),
        Match::NotFrom(network) => network_match(request, SOURCE_OFFSET, *network, NFT_CMP_NEQ),
        Match::To(network) => network_match(request, DESTINATION_OFFSET, *network, NFT_CMP_EQ),
        Match::NotTo(network) => network_match(request, DESTINATION_OFFSET, *network, NFT_CMP_NEQ),
        Match::CameBy(name) => interface_match(request, NFT_META_IIFNAME, name, NFT_CMP_EQ),
        Match::NotCameBy(name) => interface_match(request, NFT_META_IIFNAME, name, NFT_CMP_NEQ),
        Match::LeavesBy(name) => interface_match(request, NFT_META_OIFNAME, name, NFT_CMP_EQ),
        Match::Port { protocol, port } => port_match(request, *protocol, *port),
        Match::Chance { per_million } => {
            let drawn = expression(request, "numgen", |r| {
                r.be32(NFTA_NG_DREG, NFT_REG_1)
                    .be32(NFTA_NG_MODULUS, 1_000_000)
                    .be32(NFTA_NG_TYPE, NFT_NG_RANDOM)
            });
            // The draw is a number in the machine's order; comparing needs the network's.
            let ordered = expression(drawn, "byteorder", |r| {
                r.be32(NFTA_BYTEORDER_SREG, NFT_REG_1)
                    .be32(NFTA_BYTEORDER_DREG, NFT_REG_1)
                    .be32(NFTA_BYTEORDER_OP, NFT_BYTEORDER_HTON)
                    .be32(NFTA_BYTEORDER_LEN, 4)
                    .be32(NFTA_BYTEORDER_SIZE, 4)
            });
            compare(ordered, NFT_CMP_LT, &per_million.to_be_bytes())
        }
    }
}

/// Loads the four bytes at `offset` of the IPv4 header, masks them and compares.
fn network_match(request: Request, offset: u32, network: Ipv4Net, operator: u32) -> Request {
    let loaded = expression(request, "payload", |r| {
        r.be32(NFTA_PAYLOAD_DREG, NFT_REG_1)
            .be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_NETWORK_HEADER)
            .be32(NFTA_PAYLOAD_OFFSET, offset)
            .be32(NFTA_PAYLOAD_LEN, 4)
    });
    let masked = if network.prefix_len() == 32 {
        loaded
    } else {
        expression(loaded, "bitwise", |r| {
            r.be32(NFTA_BITWISE_SREG, NFT_REG_1)
                .be32(NFTA_BITWISE_DREG, NFT_REG_1)
                .be32(NFTA_BITWISE_LEN, 4)
                .nest(NFTA_BITWISE_MASK, |r| {
                    r.bytes(NFTA_DATA_VALUE, &network.netmask().octets())
                })
                .nest(NFTA_BITWISE_XOR, |r| r.be32(NFTA_DATA_VALUE, 0))
        })
    };
    compare(masked, operator, &network.network().octets())
}

/// Loads the transport protocol and compares it, then the port in the transport header.
fn port_match(request: Request, protocol: Protocol, port: u16) -> Request {
    let loaded = expression(request, "meta", |r| {
        r.be32(NFTA_META_DREG, NFT_REG_1)
            .be32(NFTA_META_KEY, NFT_META_L4PROTO)
    });
    let number = match protocol {
        Protocol::Tcp => 6,
        Protocol::Udp => 17,
    };
    let compared = compare(loaded, NFT_CMP_EQ, &[number]);
    let loaded = expression(compared, "payload", |r| {
        r.be32(NFTA_PAYLOAD_DREG, NFT_REG_1)
            .be32(NFTA_PAYLOAD_BASE, NFT_PAYLOAD_TRANSPORT_HEADER)
            .be32(NFTA_PAYLOAD_OFFSET, DESTINATION_PORT_OFFSET)
            .be32(NFTA_PAYLOAD_LEN, 2)
    });
    compare(loaded, NFT_CMP_EQ, &port.to_be_bytes())
}

fn interface_match(request: Request, key: u32, name: &str, operator: u32) -> Request {
    let loaded = expression(request, "meta", |r| {
        r.be32(NFTA_META_DREG, NFT_REG_1).be32(NFTA_META_KEY, key)
    });
    let mut padded = [0; IFNAMSIZ];
    for (to, from) in padded.iter_mut().zip(name.bytes()) {
        *to = from;
    }
    compare(loaded, operator, &padded)
}

fn compare(request: Request, operator: u32, value: &[u8]) -> Request {
    expression(request, "cmp", |r| {
        r.be32(NFTA_CMP_SREG, NFT_REG_1)
            .be32(NFTA_CMP_OP, operator)
            .nest(NFTA_CMP_DATA, |r| r.bytes(NFTA_DATA_VALUE, value))
    })
}

fn expression(request: Request, name: &str, data: impl FnOnce(Request) -> Request) -> Request {
    request.nest(NFTA_LIST_ELEM, |r| {
        r.text(NFTA_EXPR_NAME, name).nest(NFTA_EXPR_DATA, data)
    })
}

/// The comment in the form in which `nft` keeps it: type 0, length, text with a zero byte.
fn comment(comment: &str) -> Option<Vec<u8>> {
    if comment.is_empty() {
        return None;
    }
    let comment = cut(comment);
    let mut out = vec![UDATA_COMMENT, comment.len() as u8 + 1];
    out.extend_from_slice(comment.as_bytes());
    out.push(0);
    Some(out)
}

fn comment_of(mut userdata: &[u8]) -> Option<String> {
    while let [kind, length, rest @ ..] = userdata {
        let (value, rest) = rest.split_at_checked(usize::from(*length))?;
        if *kind == UDATA_COMMENT {
            return Some(text(value));
        }
        userdata = rest;
    }
    None
}

fn cut(comment: &str) -> &str {
    let mut end = comment.len().min(COMMENT_BYTES_MAX);
    while !comment.is_char_boundary(end) {
        end -= 1;
    }
    &comment[..end]
}

/// Offsets in the IPv4 header.
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
/// The offset in TCP and UDP headers.
const DESTINATION_PORT_OFFSET: u32 = 2;
const IFNAMSIZ: usize = 16;
const UDATA_COMMENT: u8 = 0;

const HEADER_BYTES: usize = 4;
const NFPROTO_IPV4: u8 = 2;
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
const NFTA_RULE_USERDATA: u16 = 7;
const NFTA_GEN_ID: u16 = 1;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_IMMEDIATE_DREG: u16 = 1;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_PAYLOAD_DREG: u16 = 1;
const NFTA_PAYLOAD_BASE: u16 = 2;
const NFTA_PAYLOAD_OFFSET: u16 = 3;
const NFTA_PAYLOAD_LEN: u16 = 4;
const NFTA_BITWISE_SREG: u16 = 1;
const NFTA_BITWISE_DREG: u16 = 2;
const NFTA_BITWISE_LEN: u16 = 3;
const NFTA_BITWISE_MASK: u16 = 4;
const NFTA_BITWISE_XOR: u16 = 5;
const NFTA_CMP_SREG: u16 = 1;
const NFTA_CMP_OP: u16 = 2;
const NFTA_CMP_DATA: u16 = 3;
const NFTA_META_DREG: u16 = 1;
const NFTA_META_KEY: u16 = 2;
const NFTA_MASQ_FLAGS: u16 = 1;
const NFTA_NG_DREG: u16 = 1;
const NFTA_NG_MODULUS: u16 = 2;
const NFTA_NG_TYPE: u16 = 3;
const NFTA_BYTEORDER_SREG: u16 = 1;
const NFTA_BYTEORDER_DREG: u16 = 2;
const NFTA_BYTEORDER_OP: u16 = 3;
const NFTA_BYTEORDER_LEN: u16 = 4;
const NFTA_BYTEORDER_SIZE: u16 = 5;

const NFT_REG_VERDICT: u32 = 0;
const NFT_REG_1: u32 = 1;
const NFT_PAYLOAD_NETWORK_HEADER: u32 = 1;
const NFT_PAYLOAD_TRANSPORT_HEADER: u32 = 2;
const NFT_CMP_EQ: u32 = 0;
const NFT_CMP_NEQ: u32 = 1;
const NFT_CMP_LT: u32 = 2;
const NFT_META_IIFNAME: u32 = 6;
const NFT_META_OIFNAME: u32 = 7;
const NFT_META_L4PROTO: u32 = 16;
const NFT_NG_RANDOM: u32 = 1;
const NFT_BYTEORDER_HTON: u32 = 1;
const NF_DROP: u32 = 0;
const NF_ACCEPT: u32 = 1;
const NFT_JUMP: u32 = -3i32 as u32;
const NFT_RETURN: u32 = -5i32 as u32;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
