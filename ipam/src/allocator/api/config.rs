//! What an allocator is told at its start.

use proto::types::{PeerName, Time};

use crate::range::Cidr;

/// The time as the driver reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic.
    pub now: Time,
    /// Seconds since 1970; may jump.
    pub wall: u64,
}

/// What an allocator is told at its start.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our name.
    pub name: PeerName,
    /// Our nickname.
    pub nickname: String,
    /// The universe.
    pub universe: Cidr,
    /// Whether nobody asked for this universe, so that it may yield to the mesh's.
    pub universe_defaulted: bool,
    /// The subnet of requests that name none.
    pub default_subnet: Option<Cidr>,
    /// How the first ring comes about.
    pub init: Init,
    /// The number by which we take part in an election, unless an earlier one was stored.
    pub uid: u64,
    /// How long a lease outlives its container, in seconds.
    pub lease_retention: u64,
    /// Whether nothing is to be given out before [`Request::Found`] said which addresses are in
    /// use on this host already.
    pub await_found: bool,
    /// The seed of the random numbers.
    pub rng_seed: u64,
}

/// How the first ring comes about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Init {
    /// By an election among the routers that were launched: `Some(n)` says how many there are,
    /// `None` counts the peers we were told to connect to.
    Consensus(Option<usize>),
    /// Among these peers, without asking anyone. All of them must be given the same list.
    Seed(Vec<PeerName>),
    /// Others make it.
    Observer,
}

/// Where the state that an allocator starts with comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// From our own store, which need not be written again.
    Store,
    /// From elsewhere: it is written whole in the first batch.
    Import,
}

/// Why an allocator does not start with the state that it was given.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The state is another router's.
    #[error(
        "the stored addresses belong to peer {stored}, but this router is {name}: start it with \
         that name again, or give its addresses up with 'weft reset'"
    )]
    Name {
        /// Whose it is.
        stored: PeerName,
        /// Who we are.
        name: PeerName,
    },
    /// The state is about another universe.
    #[error(
        "the stored addresses are from {stored}, but the range given is {given}: start with the \
         stored range, or give the addresses up with 'weft reset'"
    )]
    Universe {
        /// That of the state.
        stored: Cidr,
        /// The one given.
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
