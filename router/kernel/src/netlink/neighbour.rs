//! Neighbours: which MAC address an IP address has on a link.

use std::net::IpAddr;

use proto::types::Mac;
use rustix::io::Errno;

use super::address::ip;
use super::link::{Link, LinkIndex};
use super::wire::{self, Message, Request};
use super::{AF_INET, AF_INET6, Netlink};
use crate::error::NetError;

/// Neighbour entry of an address on a link.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Neighbour {
    /// The address.
    pub address: IpAddr,
    /// The link it is on.
    pub link: LinkIndex,
    /// Its MAC address, if it has answered.
    pub mac: Option<Mac>,
    /// Reachability state of the entry.
    pub state: NeighbourState,
}

/// Reachability state of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NeighbourState {
    /// Asked for, not answered yet.
    Incomplete,
    /// Confirmed lately.
    Reachable,
    /// Not confirmed lately; used, and asked for again when used.
    Stale,
    /// Being asked for again.
    Probing,
    /// Did not answer.
    Failed,
    /// Set by hand.
    Permanent,
    /// Something else, by the kernel's number.
    Other(u16),
}

impl Netlink {
    /// Returns the neighbours on all links, without those of multicast and local addresses.
    pub fn neighbours(&self) -> Result<Vec<Neighbour>, NetError> {
        let request = Request::new(RTM_GETNEIGH, 0, &[0; HEADER_BYTES]);
        let answer = self.socket.list(|| "list neighbours".into(), &request)?;
        let mut all: Vec<Neighbour> = answer.iter().filter_map(parse).collect();
        all.retain(|neighbour| neighbour.state != NeighbourState::Other(NUD_NOARP));
        Ok(all)
    }

    /// Sets the MAC address of a neighbour for good.
    pub fn set_neighbour(&self, link: &Link, address: IpAddr, mac: Mac) -> Result<(), NetError> {
        let flags = wire::NLM_F_CREATE | wire::NLM_F_REPLACE;
        let request = change(RTM_NEWNEIGH, flags, link, address, NUD_PERMANENT)
            .bytes(NDA_LLADDR, mac.as_bytes());
        let what = || format!("set neighbour {address} on link {}", link.name);
        self.socket.execute(what, request)
    }

    /// Forgets a neighbour. Returns whether it was known.
    pub fn delete_neighbour(&self, link: &Link, address: IpAddr) -> Result<bool, NetError> {
        let what = || format!("delete neighbour {address} on link {}", link.name);
        let request = change(RTM_DELNEIGH, 0, link, address, 0);
        match self.socket.execute(what, request) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::NOENT) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `struct ndmsg`: family, 3 bytes of padding, link index u32, state u16, flags, kind.
fn change(kind: u16, flags: u16, link: &Link, address: IpAddr, state: u16) -> Request {
    let mut header = [0; HEADER_BYTES];
    header[4..8].copy_from_slice(&link.index.0.to_ne_bytes());
    header[8..10].copy_from_slice(&state.to_ne_bytes());
    match address {
        IpAddr::V4(address) => {
            header[0] = AF_INET;
            Request::new(kind, flags, &header).bytes(NDA_DST, &address.octets())
        }
        IpAddr::V6(address) => {
            header[0] = AF_INET6;
            Request::new(kind, flags, &header).bytes(NDA_DST, &address.octets())
        }
    }
}

fn parse(message: &Message) -> Option<Neighbour> {
    let header = message.header::<HEADER_BYTES>()?;
    let attributes = message.attributes(HEADER_BYTES);
    Some(Neighbour {
        address: attributes.get(NDA_DST).and_then(ip)?,
        link: LinkIndex(wire::u32_at(header, 4)),
        mac: attributes.array(NDA_LLADDR).map(Mac::from_bytes),
        state: match u16::from_ne_bytes([header[8], header[9]]) {
            0x01 => NeighbourState::Incomplete,
            0x02 => NeighbourState::Reachable,
            0x04 => NeighbourState::Stale,
            0x08 | 0x10 => NeighbourState::Probing,
            0x20 => NeighbourState::Failed,
            NUD_PERMANENT => NeighbourState::Permanent,
            other => NeighbourState::Other(other),
        },
    })
}

const HEADER_BYTES: usize = 12;

const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;

const NDA_DST: u16 = 1;
const NDA_LLADDR: u16 = 2;

const NUD_NOARP: u16 = 0x40;
const NUD_PERMANENT: u16 = 0x80;
