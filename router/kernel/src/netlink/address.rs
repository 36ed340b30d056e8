//! Addresses of links.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;
use rustix::io::Errno;

use super::link::{Link, LinkIndex, NamespaceNumber};
use super::wire::{self, Message, Request};
use super::{AF_INET, AF_INET6, AF_UNSPEC, Netlink};
use crate::error::NetError;

/// An address of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The link.
    pub link: LinkIndex,
    /// The address with the length of its network's prefix.
    pub network: IpNet,
}

impl Netlink {
    /// Returns all addresses of the namespace, both families.
    pub fn addresses(&self) -> Result<Vec<Address>, NetError> {
        let request = Request::new(RTM_GETADDR, 0, &header(AF_UNSPEC, 0, 0));
        let answer = self.socket.list(|| "list addresses".into(), &request)?;
        Ok(answer.iter().filter_map(parse).collect())
    }

    /// Returns the addresses of one link.
    pub fn addresses_of(&self, link: LinkIndex) -> Result<Vec<IpNet>, NetError> {
        let mut all = self.addresses()?;
        all.retain(|address| address.link == link);
        Ok(all.into_iter().map(|address| address.network).collect())
    }

    /// Returns the addresses of one link in another namespace, without entering that.
    pub fn addresses_in(
        &self,
        namespace: NamespaceNumber,
        link: LinkIndex,
    ) -> Result<Vec<IpNet>, NetError> {
        let request = Request::new(RTM_GETADDR, 0, &header(AF_UNSPEC, 0, 0))
            .bytes(IFA_TARGET_NETNSID, &namespace.0.to_ne_bytes());
        let mut answer = self.socket.list(|| "list addresses".into(), &request)?;
        // A kernel that does not know the attribute lists the addresses of this namespace.
        answer.retain(|message| is_of(message, HEADER_BYTES, IFA_TARGET_NETNSID, namespace));
        let mut all: Vec<Address> = answer.iter().filter_map(parse).collect();
        all.retain(|address| address.link == link);
        Ok(all.into_iter().map(|address| address.network).collect())
    }

    /// Gives a link an address. Returns whether it is new.
    pub fn add_address(&self, link: &Link, network: IpNet) -> Result<bool, NetError> {
        let flags = wire::NLM_F_CREATE | wire::NLM_F_EXCL;
        let what = || format!("add address {network} to link {}", link.name);
        let request = change(RTM_NEWADDR, flags, link.index, network);
        match self.socket.execute(what, request) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Takes an address from a link. Returns whether the link had it.
    pub fn delete_address(&self, link: &Link, network: IpNet) -> Result<bool, NetError> {
        let what = || format!("delete address {network} of link {}", link.name);
        let request = change(RTM_DELADDR, 0, link.index, network);
        match self.socket.execute(what, request) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::ADDRNOTAVAIL) || error.is(Errno::NODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

fn change(kind: u16, flags: u16, link: LinkIndex, network: IpNet) -> Request {
    match network {
        IpNet::V4(network) => {
            let header = header(AF_INET, network.prefix_len(), link.0);
            let octets = network.addr().octets();
            Request::new(kind, flags, &header)
                .bytes(IFA_LOCAL, &octets)
                .bytes(IFA_ADDRESS, &octets)
        }
        IpNet::V6(network) => {
            let header = header(AF_INET6, network.prefix_len(), link.0);
            // Detection of duplicates would keep the address unusable for a second.
            Request::new(kind, flags, &header)
                .bytes(IFA_ADDRESS, &network.addr().octets())
                .u32(IFA_FLAGS, IFA_F_NODAD)
        }
    }
}

/// `struct ifaddrmsg`: family, prefix length, flags, scope (0 = everywhere), link index u32.
fn header(family: u8, prefix: u8, link: u32) -> [u8; HEADER_BYTES] {
    let [a, b, c, d] = link.to_ne_bytes();
    [family, prefix, 0, 0, a, b, c, d]
}

fn parse(message: &Message) -> Option<Address> {
    let header = message.header::<HEADER_BYTES>()?;
    let attributes = message.attributes(HEADER_BYTES);
    // On a point-to-point link ADDRESS is the other end; IPv6 has no LOCAL otherwise.
    let value = attributes
        .get(IFA_LOCAL)
        .or_else(|| attributes.get(IFA_ADDRESS))?;
    Some(Address {
        link: LinkIndex(wire::u32_at(header, 4)),
        network: IpNet::new(ip(value)?, header[1]).ok()?,
    })
}

/// Returns true if an answer says that it is about that namespace.
pub(super) fn is_of(
    message: &Message,
    header_bytes: usize,
    attribute: u16,
    namespace: NamespaceNumber,
) -> bool {
    let number = message.attributes(header_bytes).array(attribute);
    number.map(i32::from_ne_bytes) == Some(namespace.0)
}

/// Returns the address of 4 or 16 bytes.
pub(super) fn ip(bytes: &[u8]) -> Option<IpAddr> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    let bytes = <[u8; 16]>::try_from(bytes).ok()?;
    Some(Ipv6Addr::from(bytes).into())
}

const HEADER_BYTES: usize = 8;

const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_FLAGS: u16 = 8;
const IFA_TARGET_NETNSID: u16 = 10;
const IFA_F_NODAD: u32 = 0x02;
