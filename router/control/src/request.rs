//! Requests to the control loop: one variant each, with the channel for its answer.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Arc;
use std::time::Duration;

use ipam::allocator::{self, Response};
use proto::types::PeerName;
use tokio::sync::oneshot;

use super::errors::{ConnectError, NamesError, RequestError};
use super::names::SavedName;
use super::view::{Ranges, View};
use boundary::records::StoreError;

/// A request to the loop. Requests are carried out in the order in which they arrive.
#[derive(Debug)]
pub enum Request {
    /// A request to the allocator.
    Address {
        /// The request.
        request: allocator::Request,
        /// Time after which the request fails; `None` if it may wait for as long as its caller.
        time_max: Option<Duration>,
        /// Channel for the answer. Dropping the other end cancels the request; without a reply it
        /// is carried out although nobody waits.
        reply: Option<Reply<Result<Response, RequestError>>>,
    },
    /// Something happened to a container that may have addresses.
    Container {
        /// The container's id.
        id: String,
        /// The event.
        event: ContainerEvent,
    },
    /// Registers names of a container for one of its addresses, and tells the mesh.
    RegisterNames {
        /// The container's id.
        container: String,
        /// The address.
        address: Ipv4Addr,
        /// The names: relative to the domain, or fully qualified with a dot at the end.
        names: Vec<String>,
        /// Answered at once. Refused names are in the error; the others are registered.
        reply: Reply<Result<(), NamesError>>,
    },
    /// Removes those of our names that match, and tells the mesh.
    RemoveNames {
        /// Which names.
        filter: NameFilter,
        /// Answered at once with the number of names removed.
        reply: Reply<Result<usize, NamesError>>,
    },
    /// Forgets names that the store has and nobody registered again.
    ForgetSavedNames(Vec<SavedName>),
    /// Names peers to be connected to, each as `HOST[:PORT]`.
    Connect {
        /// The peers.
        peers: Vec<String>,
        /// Whether they replace all that were named before.
        replace: bool,
        /// Answered once all of them are resolved. Those that cannot be are in the error; the
        /// others are connected to.
        reply: Reply<Result<(), ConnectError>>,
    },
    /// Names peers to be connected to as soon as their names can be resolved.
    ConnectInBackground(Vec<String>),
    /// Forgets peers, by the texts that named them.
    Forget {
        /// The texts.
        peers: Vec<String>,
        /// Answered at once.
        reply: Reply<()>,
    },
    /// Saves a record, unless a later revision of it was handed in before.
    SaveRecord {
        /// The record's key.
        key: Vec<u8>,
        /// Its new value.
        value: Vec<u8>,
        /// Number that grows with each value of this key.
        revision: u64,
        /// Answered when the record is on disk, or cannot be put there.
        reply: Reply<Result<(), StoreError>>,
    },
    /// Sends gossip to one peer.
    SendGossip {
        /// The topic.
        topic: &'static str,
        /// The peer.
        to: PeerName,
        /// The message.
        payload: Vec<u8>,
        /// Answered at once: whether there is a way to the peer.
        reply: Reply<bool>,
    },
    /// Asks for a copy of everything that others may read.
    View(Reply<Arc<View>>),
    /// Asks for the ranges that addresses come from; `None` if they are not allocated.
    Ranges(Reply<Option<Ranges>>),
    /// Asks which containers have names here.
    NamedContainers(Reply<BTreeSet<String>>),
    /// Ends the loop.
    Stop(Reply<()>),
}

/// An event of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContainerEvent {
    /// It runs.
    Started,
    /// It has ended; its addresses are kept for a while.
    Died,
    /// It was removed.
    Destroyed,
}

/// Selects names of ours; fields that are empty or `None` match all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// The container's id.
    pub container: Option<String>,
    /// The address.
    pub address: Option<Ipv4Addr>,
    /// Names that are fully qualified.
    pub hostnames: Vec<String>,
    /// Names relative to the domain.
    pub relative: Vec<String>,
}

/// The channel for one answer.
#[derive(Debug)]
pub struct Reply<T>(oneshot::Sender<T>);

impl<T> Reply<T> {
    /// Creates a reply, and where its answer comes out.
    pub fn new() -> (Reply<T>, oneshot::Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Reply(sender), receiver)
    }

    /// Answers. A caller that has gone away needs no answer.
    pub fn send(self, answer: T) {
        let _ = self.0.send(answer);
    }

    /// Returns true if the caller has gone away.
    pub fn is_abandoned(&self) -> bool {
        self.0.is_closed()
    }
}
