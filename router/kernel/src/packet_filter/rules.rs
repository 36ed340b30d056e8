//! Tables, chains and rules as data.

use ipnet::Ipv4Net;

pub use crate::sys::xtables::Family;

/// A table for IPv4 packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: String,
    /// Its chains. One that a rule jumps to stands before the chain with that rule.
    pub chains: Vec<Chain>,
}

/// A list of rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chain {
    /// Its name, unique in its table.
    pub name: String,
    /// Hook at which the kernel enters it; `None` if other chains jump to it.
    pub base: Option<Base>,
    /// Its rules, in order.
    pub rules: Vec<Rule>,
}

/// The hook at which the kernel enters a chain. A packet that reaches the chain's end goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Base {
    /// Kind of the chain.
    pub kind: ChainKind,
    /// The place on a packet's way.
    pub hook: Hook,
    /// The order among the chains of that place, lowest first; 0 is where filters usually are.
    pub priority: i32,
}

/// The kind of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChainKind {
    /// Sees each packet.
    Filter,
    /// Sees the first packet of a connection and rewrites its addresses.
    Nat,
}

/// A place on a packet's way through the host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hook {
    /// Arrived, not routed yet.
    Prerouting,
    /// For the host itself.
    Input,
    /// For somebody else.
    Forward,
    /// From the host itself.
    Output,
    /// About to leave.
    Postrouting,
}

/// A rule: its verdict applies to packets that fulfil all matches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// The conditions.
    pub matches: Vec<Match>,
    /// The events.
    pub verdict: Verdict,
    /// Why; stands beside the rule in listings, and tells us our rules. At most
    /// [`COMMENT_BYTES_MAX`] bytes are kept.
    pub comment: String,
}

/// A condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Match {
    /// The source address is in the network.
    From(Ipv4Net),
    /// The source address is not in the network.
    NotFrom(Ipv4Net),
    /// The destination address is in the network.
    To(Ipv4Net),
    /// The destination address is not in the network.
    NotTo(Ipv4Net),
    /// The packet came in by the interface of this name.
    CameBy(String),
    /// The packet did not come in by the interface of this name.
    NotCameBy(String),
    /// The packet leaves by the interface of this name.
    LeavesBy(String),
    /// The packet is for this port.
    Port {
        /// Of this protocol.
        protocol: Protocol,
        /// Its number.
        port: u16,
    },
    /// A random draw; for tests of what loss does.
    Chance {
        /// So many packets in a million.
        per_million: u32,
    },
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

/// The verdict on a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It passes; chains of other tables still see it.
    Accept,
    /// It is gone.
    Drop,
    /// Back to the chain that jumped here; at the top, accepted.
    Return,
    /// On to another chain of the table, and back.
    Jump(String),
    /// The connection gets the address of the interface it leaves by, and a random port.
    Masquerade,
}

/// A chain of ours in a table of others, and how packets get there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Visit {
    /// The table.
    pub table: &'static str,
    /// Our chain in it.
    pub chain: &'static str,
    /// The comment of the rule that jumps there.
    pub mark: &'static str,
    /// The chain of the kernel's whose packets are meant.
    pub from: &'static str,
    /// A chain that is kept free for rules of others. The jump is in it if `from` leads there, the
    /// last of its rules that can be reached: what a user has there comes before. Otherwise it is
    /// the first rule of `from`.
    pub reserved: &'static str,
}

/// Number of bytes of a comment that are kept; a longer one is cut. `nft` cannot show more.
pub const COMMENT_BYTES_MAX: usize = 127;

/// The priority of chains that rewrite sources (`srcnat`).
pub const PRIORITY_SOURCE_NAT: i32 = 100;
/// The priority of chains that filter (`filter`).
pub const PRIORITY_FILTER: i32 = 0;
/// The priority before connection tracking (`raw`).
pub const PRIORITY_RAW: i32 = -300;
