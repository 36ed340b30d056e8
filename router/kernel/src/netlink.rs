//! Links, addresses, routes and neighbours of one network namespace, over rtnetlink.
//!
//! [`Netlink`] is a synchronous socket that belongs to the namespace in which it was opened. Each
//! call is one request and waits for the kernel's answer; nothing is cached. Lists are complete
//! and consistent: one that changed while it was written is read again.

mod address;
mod link;
mod monitor;
mod neighbour;
mod route;
pub mod socket;
pub mod wire;

pub use address::Address;
pub use link::{
    BridgePort, Link, LinkChange, LinkIndex, NamespaceNumber, NewBridge, NewVeth, NewVxlan,
    PeerLink, PortState, VethPeer, check_name,
};
pub use monitor::LinkMonitor;
pub use neighbour::{Neighbour, NeighbourState};
pub use route::{Route, RouteKind, RouteScope};

use std::os::fd::{AsRawFd, BorrowedFd};

use self::socket::Socket;
use self::wire::Request;
use crate::error::NetError;

/// A socket to the routing tables and devices of one network namespace.
#[derive(Debug)]
pub struct Netlink {
    socket: Socket,
}

impl Netlink {
    /// Opens a socket to the namespace of the calling thread. It stays with that namespace, from
    /// whichever thread it is used.
    pub fn open() -> Result<Netlink, NetError> {
        Ok(Netlink {
            socket: Socket::route()?,
        })
    }

    /// Returns the number by which the kernel names `namespace` in answers on this socket, if it
    /// has one: it gets one when a device of this namespace has its peer there.
    pub fn namespace_number(
        &self,
        namespace: BorrowedFd<'_>,
    ) -> Result<Option<NamespaceNumber>, NetError> {
        let fd = u32::try_from(namespace.as_raw_fd()).unwrap_or(u32::MAX);
        let what = || "look up a network namespace".to_owned();
        let request = Request::new(RTM_GETNSID, 0, &[0; 4]).u32(NETNSA_FD, fd);
        let answer = self.socket.get(what, request)?;
        let number = answer.attributes(4).array(NETNSA_NSID);
        // NETNSA_NSID_NOT_ASSIGNED is -1.
        Ok(number
            .map(i32::from_ne_bytes)
            .filter(|number| *number >= 0)
            .map(NamespaceNumber))
    }
}

const RTM_GETNSID: u16 = 90;
const NETNSA_NSID: u16 = 1;
const NETNSA_FD: u16 = 3;

const AF_UNSPEC: u8 = 0;
const AF_INET: u8 = 2;
const AF_INET6: u8 = 10;

#[cfg(test)]
mod tests;
