//! The address text of a connection, kept small.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};

/// The remote address of a connection, as the peer that has the connection wrote it.
///
/// A mesh of a thousand peers has up to a million of these, so the common form, an IPv4 address
/// with a port, needs no allocation. Any other text is kept and sent on unchanged.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// `a.b.c.d:port`, without leading zeros.
    V4(SocketAddrV4),
    /// Any other text: IPv6, empty, or invalid.
    Text(Box<[u8]>),
}

impl Address {
    /// Creates an address from its text.
    pub fn from_text(text: &[u8]) -> Address {
        parse_v4(text).map_or_else(|| Address::Text(text.into()), Address::V4)
    }

    /// Returns the socket address, or `None` if the text is not one.
    pub fn socket_addr(&self) -> Option<SocketAddr> {
        match self {
            Address::V4(addr) => Some(SocketAddr::V4(*addr)),
            Address::Text(text) => std::str::from_utf8(text).ok()?.parse().ok(),
        }
    }

    /// Calls `write` with the text.
    pub(super) fn with_text<T>(&self, write: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Address::Text(text) => write(text),
            Address::V4(addr) => {
                let mut text = Text::default();
                for (index, byte) in addr.ip().octets().into_iter().enumerate() {
                    if index > 0 {
                        text.push(b'.');
                    }
                    text.push_number(u16::from(byte));
                }
                text.push(b':');
                text.push_number(addr.port());
                write(&text.bytes[..text.len])
            }
        }
    }

    /// Returns the size of the memory allocated besides the value itself, in bytes.
    pub(super) fn extra_bytes(&self) -> usize {
        match self {
            Address::V4(_) => 0,
            Address::Text(text) => text.len(),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(addr: SocketAddr) -> Address {
        match addr {
            SocketAddr::V4(addr) => Address::V4(addr),
            SocketAddr::V6(addr) => Address::Text(addr.to_string().into_bytes().into()),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Address::V4(addr) => addr.fmt(f),
            Address::Text(text) => f.pad(&String::from_utf8_lossy(text)),
        }
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `255.255.255.255:65535`.
const V4_TEXT_MAX: usize = 21;

#[derive(Default)]
struct Text {
    bytes: [u8; V4_TEXT_MAX],
    len: usize,
}

impl Text {
    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    fn push_number(&mut self, value: u16) {
        let mut unit = 10_000;
        while unit > 1 && value < unit {
            unit /= 10;
        }
        while unit > 0 {
            self.push(b'0' + (value / unit % 10) as u8);
            unit /= 10;
        }
    }
}

/// Parses `a.b.c.d:port`, only in the spelling in which it would be written.
fn parse_v4(text: &[u8]) -> Option<SocketAddrV4> {
    let mut rest = text;
    let mut octets = [0; 4];
    for octet in octets.iter_mut().take(3) {
        *octet = u8::try_from(number(&mut rest, Some(b'.'))?).ok()?;
    }
    octets[3] = u8::try_from(number(&mut rest, Some(b':'))?).ok()?;
    let port = u16::try_from(number(&mut rest, None)?).ok()?;
    Some(SocketAddrV4::new(Ipv4Addr::from(octets), port))
}

/// Parses a number of at most five digits without leading zeros, and the byte after it.
fn number(rest: &mut &[u8], end: Option<u8>) -> Option<u32> {
    let (first, mut value) = (*rest.first()?, 0);
    for count in 0.. {
        match rest.split_first() {
            Some((digit, tail)) if digit.is_ascii_digit() && count < 5 => {
                value = value * 10 + u32::from(digit - b'0');
                *rest = tail;
            }
            byte => {
                let canonical = count > 0 && (count == 1 || first != b'0');
                let ended = byte.map(|(byte, _)| *byte) == end;
                *rest = byte.map_or(&[], |(_, tail)| tail);
                return (canonical && ended).then_some(value);
            }
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plain_spelling_is_packed() {
        for good in [
            "0.0.0.0:0",
            "10.0.0.2:6783",
            "255.255.255.255:65535",
            "1.20.99.100:10000",
        ] {
            let address = Address::from_text(good.as_bytes());
            assert!(matches!(address, Address::V4(_)), "{good}");
            assert_eq!(address.to_string(), good);
            assert_eq!(address.socket_addr(), good.parse().ok());
        }
        for odd in [
            "",
            "1.2.3.4",
            "1.2.3.4:",
            "1.2.3:4",
            "1.2.3.4.5:6",
            "01.2.3.4:5",
            "1.2.3.4:05",
            "1.2.3.4:65536",
            "1.2.3.4:100000",
            "256.2.3.4:5",
            "1.2.3.4:5 ",
            "a.b.c.d:e",
            "[::1]:6783",
            ":6783",
            "1..2.3:4",
        ] {
            let address = Address::from_text(odd.as_bytes());
            assert_eq!(address, Address::Text(odd.as_bytes().into()), "{odd}");
        }
    }

    #[test]
    fn every_text_goes_out_as_it_came() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..20_000 {
            let text: Vec<u8> = (0..rng.usize(..24))
                .map(|_| b"0123456789.:"[rng.usize(..12)])
                .collect();
            assert_eq!(Address::from_text(&text).with_text(<[u8]>::to_vec), text);
        }
        for _ in 0..20_000 {
            let addr = SocketAddrV4::new(Ipv4Addr::from(rng.u32(..)), rng.u16(..));
            let address = Address::V4(addr);
            let text = address.with_text(<[u8]>::to_vec);
            assert_eq!(text, addr.to_string().into_bytes());
            assert_eq!(Address::from_text(&text), address);
        }
    }

    #[test]
    fn ipv6_is_understood() {
        let addr: SocketAddr = "[2001:db8::1]:6783".parse().unwrap();
        assert_eq!(Address::from(addr).socket_addr(), Some(addr));
    }
}
