//! Basic types of the mesh: names, addresses, ids and time.

use std::fmt;
use std::ops::{Add, AddAssign};
use std::str::FromStr;
use std::time::Duration;

/// An instant of a monotonic clock, in microseconds since a start that the caller chose.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Time(u64);

impl Time {
    /// The start of the clock.
    pub const ZERO: Time = Time(0);

    /// Creates the instant that lies `micros` microseconds after the start.
    pub const fn from_micros(micros: u64) -> Time {
        Time(micros)
    }

    /// Microseconds since the start.
    pub const fn as_micros(self) -> u64 {
        self.0
    }

    /// Returns the time since `earlier`, or zero if `earlier` is later than this.
    pub const fn since(self, earlier: Time) -> Duration {
        Duration::from_micros(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Time {
    type Output = Time;

    fn add(self, rhs: Duration) -> Time {
        Time(
            self.0
                .saturating_add(u64::try_from(rhs.as_micros()).unwrap_or(u64::MAX)),
        )
    }
}

impl AddAssign<Duration> for Time {
    fn add_assign(&mut self, rhs: Duration) {
        *self = *self + rhs;
    }
}

/// A text that is not a peer name or not a MAC address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected up to six groups of two hex digits separated by colons, like 7a:9f:3c:0d:5e:11")]
pub struct ParseNameError;

/// The 48-bit name of a peer, unique in its mesh. Ordered like the number.
///
/// Format: `docs/protocol/mesh.md#1-1-peer-names`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerName([u8; 6]);

impl PeerName {
    /// The all-zero name, which means "no peer".
    pub const UNKNOWN: PeerName = PeerName([0; 6]);

    /// Creates the name from its six bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> PeerName {
        PeerName(bytes)
    }

    /// Returns the six bytes in wire order.
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// Returns the name as the number that gob messages carry.
    pub const fn as_u64(self) -> u64 {
        let b = self.0;
        u64::from_be_bytes([0, 0, b[0], b[1], b[2], b[3], b[4], b[5]])
    }

    /// Creates the name from a number, or returns `None` if it needs more than 48 bits.
    pub const fn from_u64(value: u64) -> Option<PeerName> {
        if value >> 48 != 0 {
            return None;
        }
        let [_, _, a, b, c, d, e, f] = value.to_be_bytes();
        Some(PeerName([a, b, c, d, e, f]))
    }

    /// Returns the MAC address that is equal to this name, which the peer's bridge has.
    pub const fn to_mac(self) -> Mac {
        Mac(self.0)
    }
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_colons(&self.0, f)
    }
}

impl fmt::Debug for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_colons(&self.0, f)
    }
}

impl FromStr for PeerName {
    type Err = ParseNameError;

    /// Parses six groups of one or two hex digits; one run of zero groups may be written as `::`.
    fn from_str(text: &str) -> Result<PeerName, ParseNameError> {
        parse_colons(text).map(PeerName)
    }
}

/// An Ethernet address.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac([u8; 6]);

impl Mac {
    /// ff:ff:ff:ff:ff:ff.
    pub const BROADCAST: Mac = Mac([0xff; 6]);
    /// The all-zero address, which marks frames between routers.
    pub const ZERO: Mac = Mac([0; 6]);

    /// Creates the address from its six bytes.
    pub const fn from_bytes(bytes: [u8; 6]) -> Mac {
        Mac(bytes)
    }

    /// Returns the six bytes in wire order.
    pub const fn as_bytes(&self) -> &[u8; 6] {
        &self.0
    }

    /// Returns true if this is a group address (broadcast or multicast).
    pub const fn is_multicast(self) -> bool {
        self.0[0] & 1 != 0
    }

    /// Returns the address as a number of 48 bits.
    pub const fn as_u64(self) -> u64 {
        PeerName(self.0).as_u64()
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_colons(&self.0, f)
    }
}

impl fmt::Debug for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_colons(&self.0, f)
    }
}

impl FromStr for Mac {
    type Err = ParseNameError;

    /// Parses exactly six groups of two hex digits.
    fn from_str(text: &str) -> Result<Mac, ParseNameError> {
        if text.len() != 17 || text.starts_with(' ') || text.contains("::") {
            return Err(ParseNameError);
        }
        parse_colons(text).map(Mac)
    }
}

/// A number that distinguishes two starts of one peer. 0 marks a placeholder.
///
/// Rule: `docs/protocol/mesh.md#1-2-numbers`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PeerUid(pub u64);

/// The UID of a mesh connection, the same at both ends: the XOR of their connection ids.
///
/// Rule: `docs/protocol/mesh.md#3-5-connection-uid`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnUid(pub u64);

/// A short id: one of 4096 numbers that a peer claims.
///
/// Rule: `docs/protocol/mesh.md#6-5-short-ids`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShortId(u16);

impl ShortId {
    /// Number of short ids.
    pub const COUNT: u16 = 4096;

    /// Creates the short id, or returns `None` if `value` is not below [`ShortId::COUNT`].
    pub const fn new(value: u16) -> Option<ShortId> {
        if value < ShortId::COUNT {
            Some(ShortId(value))
        } else {
            None
        }
    }

    /// Returns the number, below [`ShortId::COUNT`].
    pub const fn get(self) -> u16 {
        self.0
    }
}

/// Handle of one TCP connection, shared by the state machine and its driver. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

fn write_colons(b: &[u8; 6], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    write!(
        f,
        "{:02x}:{:02x}:{:02x}:{:02x}:{:02x}:{:02x}",
        b[0], b[1], b[2], b[3], b[4], b[5]
    )
}

/// Reads six colon-separated groups of one or two hex digits, of which one run of at least two zero
/// groups may be written as `::`. A leading blank is accepted, as Weave Net does.
///
/// Format: `docs/protocol/mesh.md#1-1-peer-names`.
fn parse_colons(text: &str) -> Result<[u8; 6], ParseNameError> {
    let text = text.strip_prefix(' ').unwrap_or(text);
    let Some((head, tail)) = text.split_once("::") else {
        return <[u8; 6]>::try_from(groups(text)?).map_err(|_| ParseNameError);
    };
    let (head, tail) = (groups(head)?, groups(tail)?);
    let given = head.len() + tail.len();
    if given == 0 || given > 4 {
        return Err(ParseNameError);
    }
    let mut out = [0; 6];
    out[..head.len()].copy_from_slice(&head);
    out[6 - tail.len()..].copy_from_slice(&tail);
    Ok(out)
}

fn groups(text: &str) -> Result<Vec<u8>, ParseNameError> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    text.split(':')
        .map(|group| {
            let hex = group.bytes().all(|b| b.is_ascii_hexdigit());
            if !hex || group.is_empty() || group.len() > 2 {
                return Err(ParseNameError);
            }
            u8::from_str_radix(group, 16).map_err(|_| ParseNameError)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_is_strict() {
        assert_eq!(
            "02:00:00:00:00:01".parse(),
            Ok(Mac::from_bytes([2, 0, 0, 0, 0, 1]))
        );
        for bad in [
            "",
            "::1",
            "2:0:0:0:0:1",
            "02:00:00:00:00:0g",
            " 2:00:00:00:00:01",
        ] {
            assert_eq!(bad.parse::<Mac>(), Err(ParseNameError), "{bad:?}");
        }
    }

    #[test]
    fn names_order_as_numbers() {
        let low = PeerName::from_u64(0xff).unwrap();
        let high = PeerName::from_u64(0x0100_0000_0000).unwrap();
        assert!(low < high);
        assert_eq!(high.as_u64(), 0x0100_0000_0000);
        assert_eq!(PeerName::from_u64(1 << 48), None);
    }

    #[test]
    fn time_saturates() {
        let late = Time::from_micros(u64::MAX);
        assert_eq!(late + Duration::from_secs(1), late);
        assert_eq!(Time::ZERO.since(late), Duration::ZERO);
    }
}
