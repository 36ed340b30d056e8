//! Configuration of an allocator.

use proto::types::{PeerName, Time};

use crate::range::Cidr;

/// The clocks, as read by the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// The monotonic clock.
    pub now: Time,
    /// The wall clock in seconds since 1970, which may jump.
    pub wall: u64,
}

/// Configuration of an allocator.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name.
    pub name: PeerName,
    /// Our nickname.
    pub nickname: String,
    /// The universe.
    pub universe: Cidr,
    /// Whether the universe is only a default, so that it may yield to the mesh's.
    pub universe_defaulted: bool,
    /// The subnet of requests that name none.
    pub default_subnet: Option<Cidr>,
    /// How the first ring is made.
    pub init: Init,
    /// The number under which we take part in an election, unless an earlier one was stored.
    pub uid: u64,
    /// Time for which a lease outlives its container, in seconds.
    pub lease_retention: u64,
    /// Whether nothing is given out before `Request::Found` reports which addresses are already
    /// in use on this host.
    pub await_found: bool,
    /// Seed of the random number generator.
    pub rng_seed: u64,
}

/// How the first ring is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// By an election among the initial routers: `Some(n)` is their number, `None` counts the peers
    /// to which we were told to connect.
    Consensus(Option<usize>),
    /// Divided among these peers at once. All of them must be given the same list.
    Seed(Vec<PeerName>),
    /// By others.
    Observer,
}

/// Origin of an allocator's initial state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Our own store, which need not be written again.
    Store,
    /// Elsewhere: it is written completely in the first batch.
    Import,
}

/// Why an allocator refuses its initial state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The state belongs to another router.
    #[error(
        "the stored addresses belong to peer {stored}, but this router is {name}: start it with \
         that name again, or give its addresses up with 'weft reset'"
    )]
    Name {
        /// The other router.
        stored: PeerName,
        /// Our name.
        name: PeerName,
    },
    /// The state has another universe.
    #[error(
        "the stored addresses are from {stored}, but the range given is {given}: start with the \
         stored range, or give the addresses up with 'weft reset'"
    )]
    Universe {
        /// The universe of the state.
        stored: Cidr,
        /// The configured universe.
        given: Cidr,
    },
    /// Everything was handed over to other peers.
    #[error(
        "this router has handed its addresses over to others and left: 'weft reset' with the same \
         --db-prefix removes its store, for a new start"
    )]
    Left,
    /// The state contradicts itself.
    #[error("the stored addresses contradict each other: {0}")]
    Broken(String),
    /// The default subnet lies outside the universe.
    #[error("the default subnet {subnet} lies outside the range {universe}")]
    Subnet {
        /// The subnet.
        subnet: Cidr,
        /// The universe.
        universe: Cidr,
    },
}
