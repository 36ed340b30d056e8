//! A rule as the kernel takes it: a list of expressions, which load a field of the packet into a
//! register, compare the register, count, and give a verdict.

use ipnet::Ipv4Net;

use super::super::rules::{Match, Protocol, Rule, Verdict};
use super::{NF_ACCEPT, NF_DROP};
use crate::netlink::wire::{Attributes, Request, attributes};

pub(super) fn expressions(request: Request, rule: &Rule) -> Request {
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

/// Returns true if these expressions of the kernel do what the rule says, whatever they counted.
pub(super) fn do_the_same(found: Attributes<'_>, rule: &Rule) -> bool {
    let wanted = expressions(Request::bare(), rule).into_attributes();
    let wanted = significant(attributes(&wanted));
    let found = significant(found);
    found.len() == wanted.len()
        && found.iter().zip(&wanted).all(|(found, wanted)| {
            let (name, data) = found;
            *name == wanted.0 && is_same(name, data.clone(), wanted.1.clone())
        })
}

/// Returns the expressions by name with their data, but for counters, which do nothing to a packet.
fn significant(list: Attributes<'_>) -> Vec<(String, Attributes<'_>)> {
    let named = list.map(|(_, expression)| {
        let expression = attributes(expression);
        let name = expression.text(NFTA_EXPR_NAME).unwrap_or_default();
        (name, expression.nested(NFTA_EXPR_DATA))
    });
    named.filter(|(name, _)| name != "counter").collect()
}

/// Returns true if what the kernel shows is what we ask for, in any order. What it shows beside
/// that may only be zero: a default that it did not need to be told.
fn is_same(name: &str, found: Attributes<'_>, wanted: Attributes<'_>) -> bool {
    let asked_for = wanted.clone().all(|(kind, wanted)| match found.get(kind) {
        Some(found) if is_nested(name, kind) => {
            let inner = if name == "immediate" { VERDICT } else { "" };
            is_same(inner, attributes(found), attributes(wanted))
        }
        Some(found) => found == wanted,
        None => false,
    });
    let mut beside = found.filter(|(kind, _)| wanted.get(*kind).is_none());
    asked_for && beside.all(|(_, value)| value.iter().all(|byte| *byte == 0))
}

/// Returns true if an attribute of this expression holds attributes.
fn is_nested(name: &str, kind: u16) -> bool {
    match name {
        "immediate" => kind == NFTA_IMMEDIATE_DATA,
        VERDICT => kind == NFTA_DATA_VERDICT,
        "cmp" => kind == NFTA_CMP_DATA,
        "bitwise" => kind == NFTA_BITWISE_MASK || kind == NFTA_BITWISE_XOR,
        _ => false,
    }
}

/// Returns true if these expressions send each packet back to the chain that jumped here.
pub(super) fn always_returns(found: Attributes<'_>) -> bool {
    let rule = Rule {
        matches: Vec::new(),
        verdict: Verdict::Return,
        comment: String::new(),
    };
    do_the_same(found, &rule)
}

/// Returns the chain that a rule sends packets to.
pub(super) fn target_of(expressions: Attributes<'_>) -> Option<String> {
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

/// The data of an immediate expression, whose attributes are not those of an expression.
const VERDICT: &str = "verdict";

/// Offsets in the IPv4 header.
const SOURCE_OFFSET: u32 = 12;
const DESTINATION_OFFSET: u32 = 16;
/// The offset in TCP and UDP headers.
const DESTINATION_PORT_OFFSET: u32 = 2;
const IFNAMSIZ: usize = 16;
const NFTA_LIST_ELEM: u16 = 1;
const NFTA_EXPR_NAME: u16 = 1;
const NFTA_EXPR_DATA: u16 = 2;
const NFTA_DATA_VERDICT: u16 = 2;
const NFTA_VERDICT_CHAIN: u16 = 2;
const NFTA_IMMEDIATE_DATA: u16 = 2;
const NFTA_DATA_VALUE: u16 = 1;
const NFTA_VERDICT_CODE: u16 = 1;
const NFTA_IMMEDIATE_DREG: u16 = 1;
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
const NFT_JUMP: u32 = -3i32 as u32;
const NFT_RETURN: u32 = -5i32 as u32;
const NF_NAT_RANGE_PROTO_RANDOM_FULLY: u32 = 1 << 4;
