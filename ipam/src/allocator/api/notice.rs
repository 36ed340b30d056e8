//! Alarms, and events for the log.

use proto::types::PeerName;

use crate::range::{Address, Cidr, Range};

/// A condition that needs attention. Reported once; it stays in the status while it lasts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Alarm {
    /// An address is in use here, but the ring gives it to another peer.
    #[error("address {address} is in use here by {id}, but peer {owner} owns it")]
    Stray {
        /// The address.
        address: Address,
        /// The id that has it.
        id: String,
        /// The peer.
        owner: PeerName,
    },
    /// That peer does not give it to us, so it may be in use there as well.
    #[error(
        "address {address} is in use here by {id}, and peer {owner} does not give it up: it may \
         be in use twice. Start {id} again with another address"
    )]
    Duplicate {
        /// The address.
        address: Address,
        /// The id that has it.
        id: String,
        /// The peer.
        owner: PeerName,
    },
    /// Another peer took over ranges of ours.
    #[error(
        "peer {by} has taken over addresses of ours, {used} of which are in use: was this host \
         removed from the mesh ('rmpeer') while it was away?"
    )]
    TakenFromUs {
        /// Who.
        by: PeerName,
        /// Number of those in use.
        used: u32,
    },
    /// Two peers own the same addresses.
    #[error(
        "we and peer {other} both own the addresses from {token}: was a peer removed ('rmpeer') \
         on two hosts?"
    )]
    TwoOwners {
        /// First address of the range.
        token: Address,
        /// The other.
        other: PeerName,
    },
    /// A ring was refused because it assigns addresses to others that are in use here.
    #[error("a ring that came by way of {via} was refused: {error}")]
    Conflict {
        /// Sender.
        via: PeerName,
        /// Why.
        error: String,
    },
    /// A peer whose ranges we took over is back.
    #[error("peer {0}, whose addresses were taken over, is back: some may be in use twice")]
    RemovedPeerBack(PeerName),
    /// The mesh behind a neighbour has different seeds.
    #[error(
        "peer {via} is of a mesh that began elsewhere: its addresses were first divided among \
         {theirs}, ours among {ours}. Both may use the same addresses. Reset ('weft reset') one \
         of the two sides. Until then we say nothing about addresses to it"
    )]
    Seeds {
        /// The neighbour.
        via: PeerName,
        /// Its seeds.
        theirs: String,
        /// Ours.
        ours: String,
    },
    /// A neighbour allocates from another range.
    #[error(
        "peer {via} allocates from {theirs}, but we from {ours}: give one of the two another \
         --ipalloc-range. Until then we say nothing about addresses to it"
    )]
    Universe {
        /// The neighbour.
        via: PeerName,
        /// Its universe.
        theirs: Range,
        /// Ours.
        ours: Range,
    },
    /// An identity could not keep its address.
    #[error(
        "identity {identity} could not keep address {address}, which {owner} has given to \
         another container: it has {fresh}"
    )]
    LeaseMoved {
        /// The identity.
        identity: String,
        /// The address it had.
        address: Address,
        /// The id that has that.
        owner: String,
        /// The address it has.
        fresh: Address,
    },
    /// An identity runs here although another router holds its lease.
    #[error(
        "identity {identity} runs here with {here}, but its lease is {address} of {holder}: it \
         keeps its address until it stops"
    )]
    LeaseLost {
        /// The identity.
        identity: String,
        /// The address it has here.
        here: Address,
        /// The address of its lease.
        address: Address,
        /// The holder.
        holder: PeerName,
    },
    /// Another router makes a false statement about a lease of ours.
    #[error(
        "peer {by} says that identity {identity} does not have {address} here, which it has: is \
         {by} a copy of this host, or are addresses owned twice?"
    )]
    LeaseDisputed {
        /// The identity.
        identity: String,
        /// The address it has here.
        address: Address,
        /// The router that says so.
        by: PeerName,
    },
    /// The version of an entry cannot increase any more.
    #[error("the ring's entry at {0} has reached the highest version: it can change no more")]
    VersionEnd(Address),
}

/// An event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Event {
    /// The first ring was made.
    #[error("the first ring was made for {0:?}")]
    RingMade(Vec<PeerName>),
    /// The first ring came from a peer.
    #[error("the ring was received by way of {0}")]
    RingReceived(PeerName),
    /// Our default universe yielded to the mesh's.
    #[error("the default range {ours} yields to {theirs}, from which peer {via} allocates")]
    UniverseYielded {
        /// Its earlier value.
        ours: Cidr,
        /// What it is.
        theirs: Cidr,
        /// The other router.
        via: PeerName,
    },
    /// A peer was given space.
    #[error("gave {range} to peer {to}")]
    Granted {
        /// The subject.
        range: Range,
        /// Receiver of the message.
        to: PeerName,
    },
    /// We came to own addresses.
    #[error("received {0} addresses")]
    Gained(u32),
    /// A message was refused.
    #[error("refused a message of peer {from}: {error}")]
    Refused {
        /// Whose.
        from: PeerName,
        /// Why.
        error: String,
    },
    /// The ranges of a peer were taken over.
    #[error("took over {addresses} addresses of peer {peer}")]
    TakenOver {
        /// Whose.
        peer: PeerName,
        /// Their number.
        addresses: u32,
    },
    /// Addresses that were taken over can be used.
    #[error("everyone has been heard about peer {0}: its addresses can be used")]
    TakeoverDone(PeerName),
    /// All our ranges were given away.
    #[error("handed all addresses over to peer {0}")]
    HandedOver(PeerName),
    /// An identity has an address.
    #[error("identity {identity} has {address}")]
    LeaseMade {
        /// Who.
        identity: String,
        /// Which.
        address: Address,
    },
    /// A lease went to another host.
    #[error("the lease {address} of identity {identity} went to peer {to}")]
    LeaseGiven {
        /// Whose.
        identity: String,
        /// Which.
        address: Address,
        /// Receiver of the message.
        to: PeerName,
    },
    /// A lease ended because it was unused for too long, or because addresses ran short.
    #[error("the lease {address} of identity {identity} ended: {why}")]
    LeaseEnded {
        /// Whose.
        identity: String,
        /// Which.
        address: Address,
        /// Why.
        why: &'static str,
    },
    /// A dead container's addresses were released.
    #[error("released the addresses of {0}, which has ended")]
    Released(String),
    /// The store failed. Nothing of the unsaved steps was answered or sent.
    #[error("{0}")]
    StoreFailed(String),
    /// The store works again.
    #[error("can save again")]
    StoreRecovered,
}
