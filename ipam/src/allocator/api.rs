//! What goes into the allocator and what comes out of it, as data.

use std::collections::BTreeSet;

use proto::types::{Mac, PeerName, Time};

use crate::leases::{Identity, Lease, LeaseKey};
use crate::persist::Batch;
use crate::range::{Address, Cidr};

use super::notice::{Alarm, Event};

/// The time as the driver reads it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Clock {
    /// Monotonic.
    pub now: Time,
    /// Seconds since 1970; may jump.
    pub wall: u64,
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

/// A message from another router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming<'a> {
    /// The channel it came by.
    pub channel: Channel,
    /// How it came.
    pub kind: Delivery,
    /// The neighbour that sent this hop of it.
    pub via: PeerName,
    /// Its bytes.
    pub payload: &'a [u8],
}

/// The channels that the allocator serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Channel {
    /// `IPallocation`, which all routers speak.
    Ring,
    /// `weft-leases`, which only weft routers speak and others relay.
    Leases,
}

impl Channel {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Channel::Ring => crate::messages::CHANNEL,
            Channel::Leases => crate::leases::CHANNEL,
        }
    }
}

/// How a message came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// To us alone, from this peer.
    Unicast(PeerName),
    /// To everyone, from this peer.
    Broadcast(PeerName),
    /// To neighbours.
    Gossip,
}

/// A peer of the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its name.
    pub name: PeerName,
    /// Its nickname.
    pub nickname: String,
    /// Whether a message can be sent to it.
    pub reachable: bool,
}

/// The number of a request, chosen by the driver, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// An address found in use on this host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Who has it: a container's id, `weave:expose`, or `_`.
    pub id: String,
    /// The address, with the prefix length of its subnet.
    pub cidr: Cidr,
    /// Whether the id is that of a container.
    pub container: bool,
}

/// A wish of a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// Wait until there is a ring.
    Prime,
    /// An address for `id` in a subnet.
    Allocate {
        /// Who gets it; `_` if there is no id.
        id: String,
        /// From which subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// Whose address it is, wherever and as whatever container it runs.
        identity: Option<Identity>,
        /// Whether `id` is that of a container, whose end will be told.
        container: bool,
    },
    /// This address for `id`.
    Claim {
        /// Who gets it; `_` if there is no id.
        id: String,
        /// The address, with the prefix length of its subnet.
        cidr: Cidr,
        /// Whose address it is.
        identity: Option<Identity>,
        /// Whether `id` is that of a container.
        container: bool,
        /// Answer at once if the owner is not known or cannot be reached, and keep trying.
        no_error_on_unknown: bool,
        /// Take it from an identity that has it and is not up.
        force: bool,
    },
    /// The addresses of `id` in a subnet; `None` for the default one.
    Lookup {
        /// Whose.
        id: String,
        /// Where.
        subnet: Option<Cidr>,
    },
    /// All addresses in use.
    List,
    /// Release one address.
    Free {
        /// Whose.
        id: String,
        /// Which.
        address: Address,
    },
    /// Release all addresses of `id`.
    Delete {
        /// Whose.
        id: String,
    },
    /// Take over the ranges of a peer that never comes back.
    RemovePeer {
        /// Its name or nickname.
        peer: String,
        /// Whether somebody confirmed that its host never comes back.
        confirmed: bool,
    },
    /// Give all ranges away and stop.
    Shutdown,
    /// These addresses are in use on this host already.
    Found {
        /// Them.
        addresses: Vec<Found>,
    },
    /// Only these containers run; addresses of others are released.
    Prune {
        /// Their ids.
        running: BTreeSet<String>,
    },
    /// All leases.
    Leases,
    /// Reserve an address for an identity that has not run yet.
    LeaseReserve {
        /// Whose.
        identity: Identity,
        /// In which subnet; `None` for the default one.
        subnet: Option<Cidr>,
        /// Which address; `None` for any.
        address: Option<Address>,
        /// Keep it for ever.
        pinned: bool,
    },
    /// Keep a lease for ever, or not any more.
    LeasePin {
        /// Which.
        key: LeaseKey,
        /// Whether to keep it.
        pinned: bool,
    },
    /// End a lease.
    LeaseRelease {
        /// Which.
        key: LeaseKey,
        /// Also if its holder cannot be reached.
        force: bool,
    },
    /// How everything is.
    Status,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Response {
    /// It is done.
    Done,
    /// The address.
    Address {
        /// With the prefix length of its subnet.
        cidr: Cidr,
        /// The MAC address that goes with it, if it is of a lease.
        mac: Option<Mac>,
    },
    /// Addresses, in the order in which they were asked for or of their numbers.
    Addresses(Vec<Cidr>),
    /// Addresses by id.
    Owned(Vec<(String, Vec<Cidr>)>),
    /// How many addresses were taken over.
    TakenOver(u32),
    /// Leases.
    Leases(Vec<LeaseInfo>),
    /// How everything is.
    Status(Box<super::Status>),
}

/// A lease as it is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeaseInfo {
    /// What it is for.
    pub key: LeaseKey,
    /// What it says.
    pub lease: Lease,
    /// The MAC address that goes with it.
    pub mac: Mac,
    /// The nickname of its holder, if known.
    pub holder_nickname: Option<String>,
    /// Whether its holder can be reached, or is us.
    pub holder_reachable: bool,
}

/// Why a request failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RequestError {
    /// The subnet lies outside the universe.
    #[error("range {subnet} out of bounds: {universe}")]
    OutOfBounds {
        /// The subnet.
        subnet: Cidr,
        /// The universe.
        universe: Cidr,
    },
    /// Another id has the address.
    #[error("address {cidr} is already owned by {id}")]
    AlreadyOwned {
        /// The address.
        cidr: Cidr,
        /// Who has it.
        id: String,
    },
    /// Somebody without an id has the address.
    #[error("address {0} already in use")]
    AlreadyInUse(Cidr),
    /// Another id has the address, which lies outside the universe.
    #[error("address {cidr} already in use by {id}")]
    AlreadyInUseBy {
        /// The address.
        cidr: Cidr,
        /// Who has it.
        id: String,
    },
    /// Another router owns the address and does not give it.
    #[error("address {cidr} is owned by other peer {peer}{reason}")]
    OwnedByPeer {
        /// The address.
        cidr: Cidr,
        /// The router.
        peer: PeerName,
        /// Its nickname in brackets, and why.
        reason: String,
    },
    /// The address is kept for an identity that is not up.
    #[error(
        "address {cidr} is kept for identity {lease}; claim it with that identity, or with force"
    )]
    Leased {
        /// The address.
        cidr: Cidr,
        /// The identity.
        lease: String,
    },
    /// The identity is up elsewhere.
    #[error(
        "identity {identity} is up with address {address} on host {host} (container {container}): \
         stop it there first"
    )]
    IdentityInUse {
        /// The identity.
        identity: String,
        /// Its address.
        address: Address,
        /// Where: peer name, and nickname in brackets.
        host: String,
        /// Its container.
        container: String,
    },
    /// The identity has another address already.
    #[error("identity {identity} has address {address} already, on host {host}")]
    HasAddress {
        /// The identity.
        identity: String,
        /// Its address.
        address: Address,
        /// Its holder.
        host: String,
    },
    /// Nothing of this kind exists.
    #[error("no lease for {0}")]
    NoLease(String),
    /// The id does not have the address.
    #[error("Free: address {address} not found for {id}")]
    NotFound {
        /// The id.
        id: String,
        /// The address.
        address: Address,
    },
    /// The id has no address.
    #[error("Delete: no addresses for {0}")]
    NoAddresses(String),
    /// The caller gave up, or the router stops.
    #[error("{kind} request for {id} cancelled")]
    Cancelled {
        /// What was asked.
        kind: &'static str,
        /// For whom.
        id: String,
    },
    /// The caller's deadline came.
    #[error("timed out: {0}")]
    Deadline(Waiting),
    /// The store does not take what would have been answered.
    #[error("{0}")]
    Store(String),
    /// The peer is alive.
    #[error("peer {0} can be reached: its addresses are in use and cannot be taken over")]
    Reachable(String),
    /// Somebody must confirm.
    #[error(
        "peer {peer} owns {addresses} addresses. If its host, or one that is cut off with it, \
         ever comes back, addresses will be in use twice. Confirm that it never does (--yes)"
    )]
    Unconfirmed {
        /// The peer, with its nickname.
        peer: String,
        /// How many addresses it owns.
        addresses: u32,
    },
    /// Another router takes the peer over.
    #[error(
        "peer {taker} is taking over what {peer} owns already ('weft rmpeer' of that one first, if \
         it is gone for ever as well)"
    )]
    TakenByOther {
        /// The lost peer.
        peer: String,
        /// Who takes it over.
        taker: String,
    },
    /// There is no more room for waiting requests, or for leases.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// The request makes no sense.
    #[error("{0}")]
    Invalid(String),
}

/// What a request waits for.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Waiting {
    /// The addresses in use on this host.
    #[error("the addresses in use on this host are not known yet")]
    Found,
    /// An election.
    #[error(
        "the routers have not agreed yet who owns which addresses: {known} of them are known, \
         {quorum} are needed (see --ipalloc-init)"
    )]
    Consensus {
        /// How many are needed.
        quorum: usize,
        /// How many are known.
        known: usize,
    },
    /// Somebody else's ring.
    #[error("no router has told us yet who owns which addresses")]
    Observer,
    /// A free address.
    #[error("no router that can be reached has a free address in {subnet}{unreachable}")]
    Space {
        /// Where.
        subnet: Cidr,
        /// Who owns addresses there, but cannot be reached.
        unreachable: String,
    },
    /// The owner of an address.
    #[error("address {address} is owned by {owner}, which {why}")]
    Owner {
        /// The address.
        address: Address,
        /// Its owner, with its nickname.
        owner: String,
        /// What is the matter with it.
        why: &'static str,
    },
    /// The holder of a lease.
    #[error(
        "identity {identity} has address {address} on host {holder}, which {why}. Wait for that \
         host; or, if it never comes back, run 'weft rmpeer {name}'; or give the address up with \
         'weft lease release --force'"
    )]
    Holder {
        /// The identity.
        identity: String,
        /// Its address.
        address: Address,
        /// The holder, with its nickname.
        holder: String,
        /// The holder.
        name: PeerName,
        /// What is the matter with it.
        why: &'static str,
    },
    /// Other routers, which may know what was granted before our store was lost.
    #[error(
        "address {address} is held back, as this router has lost its store: not heard yet: \
         {waiting}"
    )]
    HeldBack {
        /// The address.
        address: Address,
        /// Who, with nicknames.
        waiting: String,
    },
    /// Other routers, which may know what a lost peer granted at the end.
    #[error(
        "what {peer} owns is taken over as soon as everyone has been heard; not heard yet: \
         {waiting} ('weft rmpeer' if they are gone for ever as well)"
    )]
    Takeover {
        /// The lost peer.
        peer: String,
        /// Who, with nicknames.
        waiting: String,
    },
    /// The leases of other routers.
    #[error("the leases of the other routers are not known yet")]
    Leases,
}

/// What is to be done.
#[derive(Clone, Debug, PartialEq)]
pub enum Output {
    /// Store these records, whole or not at all, after those of all batches before; then call
    /// [`super::Allocator::handle_persisted`]. Several batches may be stored at once.
    Persist(Batch),
    /// Answer a request.
    Reply {
        /// Which.
        request: RequestId,
        /// With this.
        result: Result<Response, RequestError>,
    },
    /// Send to one peer.
    Unicast {
        /// By which channel.
        channel: Channel,
        /// To whom.
        to: PeerName,
        /// What.
        payload: Vec<u8>,
    },
    /// Send our state of the channel [`Channel::Ring`] to everyone, as it is when it is sent: the
    /// driver asks for it with [`super::Allocator::handle_state_wanted`].
    BroadcastState,
    /// Send to everyone.
    Broadcast {
        /// By which channel.
        channel: Channel,
        /// What.
        payload: Vec<u8>,
    },
    /// Send a broadcast on along the route of its source.
    Relay {
        /// By which channel.
        channel: Channel,
        /// Who made it.
        source: PeerName,
        /// What it carries; `None` for our own state, as with [`Output::BroadcastState`].
        payload: Option<Vec<u8>>,
    },
    /// The state that was asked for.
    State {
        /// What the driver named its question.
        token: u64,
        /// The state; `None` if nothing is to be sent.
        payload: Option<Vec<u8>>,
    },
    /// A person should look at this.
    Alarm(Alarm),
    /// Something happened that is worth a line in the log.
    Event(Event),
}
