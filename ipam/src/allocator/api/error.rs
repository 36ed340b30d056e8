//! Reasons of failures, and what requests wait for.

use proto::types::PeerName;

use crate::range::{Address, Cidr};

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
        /// The id that has it.
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
        /// The id that has it.
        id: String,
    },
    /// Another router owns the address and does not give it away.
    #[error("address {cidr} is owned by other peer {peer}{reason}")]
    OwnedByPeer {
        /// The address.
        cidr: Cidr,
        /// The router.
        peer: PeerName,
        /// Its nickname in brackets, and why.
        reason: String,
    },
    /// The address is reserved for an identity that is not up.
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
        /// The peer where it is: name, and nickname in brackets.
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
        /// The question.
        kind: &'static str,
        /// Id or identity that the request is for.
        id: String,
    },
    /// The caller's deadline has passed.
    #[error("timed out: {0}")]
    Deadline(Waiting),
    /// The store failed.
    #[error("{0}")]
    Store(String),
    /// The peer can be reached.
    #[error("peer {0} can be reached: its addresses are in use and cannot be taken over")]
    Reachable(String),
    /// The removal must be confirmed.
    #[error(
        "peer {peer} owns {addresses} addresses. If its host, or one that is cut off with it, \
         ever comes back, addresses will be in use twice. Confirm that it never does (--yes)"
    )]
    Unconfirmed {
        /// The peer, with its nickname.
        peer: String,
        /// Number of addresses that it owns.
        addresses: u32,
    },
    /// Another router is taking the peer over.
    #[error(
        "peer {taker} is taking over what {peer} owns already ('weft rmpeer' of that one first, if \
         it is gone for ever as well)"
    )]
    TakenByOther {
        /// The lost peer.
        peer: String,
        /// The router that takes it over.
        taker: String,
    },
    /// There are too many waiting requests, or leases.
    #[error("too many {0}")]
    TooMany(&'static str),
    /// The request is invalid.
    #[error("{0}")]
    Invalid(String),
}

/// The event that a request waits for.
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
        /// Number of electors that are needed.
        quorum: usize,
        /// Number of known peers.
        known: usize,
    },
    /// The ring of another peer.
    #[error("no router has told us yet who owns which addresses")]
    Observer,
    /// A free address.
    #[error("no router that can be reached has a free address in {subnet}{unreachable}")]
    Space {
        /// Where.
        subnet: Cidr,
        /// Owners of addresses there that cannot be reached.
        unreachable: String,
    },
    /// The owner of an address.
    #[error("address {address} is owned by {owner}, which {why}")]
    Owner {
        /// The address.
        address: Address,
        /// Its owner, with its nickname.
        owner: String,
        /// Why it is waited for.
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
        /// Why it is waited for.
        why: &'static str,
    },
    /// Other routers that may know what was granted before our store was lost.
    #[error(
        "address {address} is held back, as this router has lost its store: not heard yet: \
         {waiting}"
    )]
    HeldBack {
        /// The address.
        address: Address,
        /// The peers, with nicknames.
        waiting: String,
    },
    /// Other routers that may know what a lost peer granted at the end.
    #[error(
        "what {peer} owns is taken over as soon as everyone has been heard; not heard yet: \
         {waiting} ('weft rmpeer' if they are gone for ever as well)"
    )]
    Takeover {
        /// The lost peer.
        peer: String,
        /// The peers, with nicknames.
        waiting: String,
    },
    /// The leases of other routers.
    #[error("the leases of the other routers are not known yet")]
    Leases,
}
