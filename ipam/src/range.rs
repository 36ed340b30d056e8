//! IPv4 addresses as numbers, half-open ranges, and subnets.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The smallest subnet that can be allocated from: network, two hosts, broadcast.
pub const SUBNET_ADDRESSES_MIN: u32 = 4;

/// An IPv4 address. Ordered like its number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u32);

impl Address {
    /// Creates the address from its number, first octet most significant.
    pub const fn new(value: u32) -> Address {
        Address(value)
    }

    /// Returns the number.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the address `count` higher, at most the last one.
    pub const fn plus(self, count: u32) -> Address {
        Address(self.0.saturating_add(count))
    }

    /// Returns how far `self` is above `other`, or zero if it is below.
    pub const fn above(self, other: Address) -> u32 {
        self.0.saturating_sub(other.0)
    }
}

impl From<Ipv4Addr> for Address {
    fn from(addr: Ipv4Addr) -> Address {
        Address(addr.to_bits())
    }
}

impl From<Address> for Ipv4Addr {
    fn from(address: Address) -> Ipv4Addr {
        Ipv4Addr::from_bits(address.0)
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d] = self.0.to_be_bytes();
        write!(f, "{a}.{b}.{c}.{d}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is not an IPv4 address in dotted form.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("invalid IP Address: {0}")]
pub struct ParseAddressError(pub String);

impl FromStr for Address {
    type Err = ParseAddressError;

    fn from_str(text: &str) -> Result<Address, ParseAddressError> {
        text.parse::<Ipv4Addr>()
            .map(Address::from)
            .map_err(|_| ParseAddressError(text.to_owned()))
    }
}

/// The addresses from `start` up to, but not including, `end`.
///
/// 255.255.255.255 cannot be in a range, because the end would have no number.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Range {
    /// The first address.
    pub start: Address,
    /// The address after the last.
    pub end: Address,
}

impl Range {
    /// Creates the range between two addresses. It is empty if `end` is not above `start`.
    pub const fn new(start: Address, end: Address) -> Range {
        Range { start, end }
    }

    /// Creates the range of one address.
    pub const fn single(address: Address) -> Range {
        Range::new(address, address.plus(1))
    }

    /// Returns the number of addresses.
    pub const fn size(&self) -> u32 {
        self.end.above(self.start)
    }

    /// Returns true if the range has no address.
    pub const fn is_empty(&self) -> bool {
        self.end.0 <= self.start.0
    }

    /// Returns true if `address` lies in it.
    pub const fn contains(&self, address: Address) -> bool {
        self.start.0 <= address.0 && address.0 < self.end.0
    }

    /// Returns true if the ranges have an address in common.
    pub fn overlaps(&self, other: &Range) -> bool {
        !self.intersect(other).is_empty()
    }

    /// Returns the addresses that both ranges have.
    pub fn intersect(&self, other: &Range) -> Range {
        Range::new(self.start.max(other.start), self.end.min(other.end))
    }

    /// Returns the largest aligned block in the range: its size is a power of two, and its start is
    /// a multiple of it (or, if there is none of the full size, of half the size).
    ///
    /// The choice is part of the protocol: every router gives away the same block.
    ///
    /// Rule: `docs/protocol/ipam.md#4-3-aligned-block`.
    #[must_use]
    pub fn biggest_block(&self) -> Range {
        let n = self.size();
        let Some(exponent) = n.checked_ilog2() else {
            return *self;
        };
        let size = 1u32 << exponent;
        let rest = n - size;
        let offset = self.start.0 % size;
        let block = |skip, size| {
            let start = self.start.plus(skip);
            Range::new(start, start.plus(size))
        };
        if offset == 0 {
            return block(0, size);
        }
        if size - offset <= rest {
            return block(size - offset, size);
        }
        let half = size / 2;
        if half >= offset {
            block(half - offset, half)
        } else {
            block(size - offset, half)
        }
    }

    /// Returns the fewest subnets that together are this range, in order.
    pub fn cidrs(&self) -> Vec<Cidr> {
        let mut out = Vec::new();
        let mut start = self.start;
        while start < self.end {
            let aligned = start.0.trailing_zeros();
            let fits = self.end.above(start).ilog2();
            let bits = aligned.min(fits);
            out.push(Cidr {
                address: start,
                len: 32 - bits as u8,
            });
            start = start.plus(1 << bits);
        }
        out
    }

    /// Returns the range as people write it: with a prefix length if its size is a power of two,
    /// else first and last address.
    pub fn as_cidr_text(&self) -> String {
        let size = self.size();
        if size.is_power_of_two() {
            let len = 32 - size.ilog2();
            return format!("{}/{len}", self.start);
        }
        format!("{}-{}", self.start, Address(self.end.0.wrapping_sub(1)))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{}, {})", self.start, self.end)
    }
}

impl fmt::Debug for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// An address with the length of its network's prefix.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Cidr {
    /// The address, of a host or of the network itself.
    pub address: Address,
    /// Length of the network prefix in bits; at most 32.
    pub len: u8,
}

/// A text that is not a subnet to allocate from, or not an address with a prefix length.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseCidrError {
    /// Not of the form `a.b.c.d/n`.
    #[error("invalid CIDR address: {0}")]
    Syntax(String),
    /// IPv6.
    #[error("invalid Non-IPv4 address not supported: {0}")]
    NotIpv4(String),
    /// The address names a host, not a network.
    #[error("invalid subnet - bits after network prefix are not all zero: {0}")]
    HostBits(String),
    /// The subnet has no room for hosts.
    #[error("invalid subnet - smaller than minimum size {min}: {0}", min = SUBNET_ADDRESSES_MIN)]
    TooSmall(String),
    /// The range reaches the last IPv4 address, for which the ring has no number.
    #[error("invalid range - must end below 255.255.255.255: {0}")]
    TooHigh(String),
    /// No host can have some of its addresses.
    #[error(transparent)]
    NotForHosts(#[from] NotForHosts),
}

/// A network with addresses that no host can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "{network} cannot be used: {reserved} is for {purpose}. Any other addresses can, such as \
     10.32.0.0/12"
)]
pub struct NotForHosts {
    /// What was given.
    pub network: Cidr,
    /// The reserved network that has addresses of it.
    pub reserved: Cidr,
    /// What that is for.
    pub purpose: &'static str,
}

/// What is not for hosts (RFC 6890, RFC 5771): the network, and what it is for. An interface that
/// has such an address answers nobody, or takes away what the host needs for itself.
const RESERVED: [(Cidr, &str); 5] = [
    (Cidr::of([0, 0, 0, 0], 8), "hosts that have no address yet"),
    (Cidr::of([127, 0, 0, 0], 8), "what a host sends to itself"),
    (
        Cidr::of([169, 254, 0, 0], 16),
        "addresses that hosts choose by themselves on one link",
    ),
    (Cidr::of([224, 0, 0, 0], 4), "multicast"),
    (Cidr::of([240, 0, 0, 0], 4), "later use and broadcasts"),
];

impl Cidr {
    const fn of([a, b, c, d]: [u8; 4], len: u8) -> Cidr {
        Cidr {
            address: Address(u32::from_be_bytes([a, b, c, d])),
            len,
        }
    }

    /// Refuses a network with addresses that no host can have. Each range, subnet and address that
    /// a user gives goes through here.
    pub fn check(&self) -> Result<(), NotForHosts> {
        let shared = |reserved: &Cidr| {
            let mask = self.mask() & reserved.mask();
            (self.address.0 ^ reserved.address.0) & mask == 0
        };
        match RESERVED.iter().find(|(reserved, _)| shared(reserved)) {
            None => Ok(()),
            Some((reserved, purpose)) => Err(NotForHosts {
                network: *self,
                reserved: *reserved,
                purpose,
            }),
        }
    }

    /// Returns the addresses of the network.
    pub const fn range(&self) -> Range {
        let start = Address(self.address.0 & self.mask());
        let last = Address(start.0 | !self.mask());
        Range::new(start, last.plus(1))
    }

    /// Returns the addresses that hosts can have: all except the first and the last.
    pub const fn host_range(&self) -> Range {
        let range = self.range();
        Range::new(range.start.plus(1), Address(range.end.0.saturating_sub(1)))
    }

    /// Returns the network of the address.
    pub const fn network(&self) -> Cidr {
        Cidr {
            address: Address(self.address.0 & self.mask()),
            len: self.len,
        }
    }

    /// Returns another address with the same prefix length.
    pub const fn with_address(&self, address: Address) -> Cidr {
        Cidr {
            address,
            len: self.len,
        }
    }

    /// Parses a subnet from which addresses can be allocated.
    pub fn parse_subnet(text: &str) -> Result<Cidr, ParseCidrError> {
        let cidr: Cidr = text.parse()?;
        // The whole of IPv4 counts as size zero, because its size does not fit 32 bits.
        let size = 1u32.checked_shl(32 - u32::from(cidr.len)).unwrap_or(0);
        if size < SUBNET_ADDRESSES_MIN {
            return Err(ParseCidrError::TooSmall(text.to_owned()));
        }
        if cidr.network() != cidr {
            return Err(ParseCidrError::HostBits(text.to_owned()));
        }
        cidr.check()?;
        Ok(cidr)
    }

    /// Reads an address that a host can have, with the length of its network's prefix.
    pub fn parse_address(text: &str) -> Result<Cidr, ParseCidrError> {
        let cidr: Cidr = text.parse()?;
        cidr.check()?;
        Ok(cidr)
    }

    const fn mask(&self) -> u32 {
        match u32::MAX.checked_shl(32 - self.len as u32) {
            Some(mask) => mask,
            None => 0,
        }
    }
}

impl FromStr for Cidr {
    type Err = ParseCidrError;

    fn from_str(text: &str) -> Result<Cidr, ParseCidrError> {
        let syntax = || ParseCidrError::Syntax(text.to_owned());
        let (address, len) = text.split_once('/').ok_or_else(syntax)?;
        let digits = !len.is_empty() && len.len() <= 3 && len.bytes().all(|b| b.is_ascii_digit());
        let len = if digits { len.parse::<u8>().ok() } else { None };
        let len = len.ok_or_else(syntax)?;
        let Ok(address) = address.parse::<Ipv4Addr>() else {
            return Err(match address.parse::<std::net::Ipv6Addr>() {
                Ok(_) if len <= 128 => ParseCidrError::NotIpv4(text.to_owned()),
                _ => syntax(),
            });
        };
        if len > 32 {
            return Err(syntax());
        }
        Ok(Cidr {
            address: address.into(),
            len,
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_for_hosts_is_refused() {
        for text in [
            "255.255.0.0/16",
            "224.0.0.0/4",
            "239.1.2.0/24",
            "127.0.0.0/8",
            "127.3.0.0/16",
            "0.0.0.0/1",
            "128.0.0.0/1",
            "0.1.0.0/16",
            "169.254.0.0/16",
            "169.254.8.0/24",
            "168.0.0.0/6",
            "240.0.0.0/8",
        ] {
            let error = Cidr::parse_subnet(text).unwrap_err();
            assert!(matches!(error, ParseCidrError::NotForHosts(_)), "{text}");
            assert_eq!(Cidr::parse_address(text), Err(error));
        }
        // Worded as by Weave Net.
        assert!(Cidr::parse_subnet("0.0.0.0/0").is_err());
        let error = Cidr::parse_address("169.254.8.1/24").unwrap_err();
        assert_eq!(
            error.to_string(),
            "169.254.8.1/24 cannot be used: 169.254.0.0/16 is for addresses that hosts choose by \
             themselves on one link. Any other addresses can, such as 10.32.0.0/12"
        );
    }

    #[test]
    fn all_else_can_be_used() {
        for text in [
            "10.32.0.0/12",
            "1.0.0.0/8",
            "8.8.8.0/24",
            "100.64.0.0/10",
            "126.0.0.0/8",
            "128.0.0.0/8",
            "169.253.0.0/16",
            "169.255.0.0/16",
            "192.0.2.0/24",
            "223.255.255.0/24",
        ] {
            assert_eq!(Cidr::parse_subnet(text).unwrap().to_string(), text);
        }
        assert!(Cidr::parse_address("10.32.0.5/12").is_ok());
    }
}
