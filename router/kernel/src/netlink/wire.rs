//! Netlink messages as bytes: a builder for requests and a reader for answers.
//!
//! ```text
//! 0        4      6       8          12        16
//! +--------+------+-------+----------+---------+---------------+--------------+
//! | length | type | flags | sequence | port id | family header | attributes.. |
//! +--------+------+-------+----------+---------+---------------+--------------+
//! attribute:  length u16 | type u16 | value | padding to a multiple of 4
//! ```
//!
//! Numbers are in the byte order of the machine, except where a value is documented to be
//! big-endian (all of nf_tables). Layout: linux/netlink.h.

/// A request under construction. Attributes follow each other in the order of the calls.
#[derive(Clone, Debug)]
pub struct Request {
    buffer: Vec<u8>,
}

impl Request {
    /// Creates a request of this message type with its fixed family header.
    pub fn new(kind: u16, flags: u16, header: &[u8]) -> Request {
        let mut buffer = Vec::with_capacity(256);
        buffer.extend_from_slice(&[0; 4]);
        buffer.extend_from_slice(&kind.to_ne_bytes());
        buffer.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        buffer.extend_from_slice(&[0; 8]);
        buffer.extend_from_slice(header);
        Request { buffer }.padded()
    }

    /// Attributes without a message around them, to be compared.
    pub const fn bare() -> Request {
        Request { buffer: Vec::new() }
    }

    /// Returns the attributes of [`Request::bare`].
    pub fn into_attributes(self) -> Vec<u8> {
        self.buffer
    }

    /// Returns an attribute with this value.
    #[must_use]
    pub fn bytes(mut self, kind: u16, value: &[u8]) -> Request {
        let start = self.start_attribute(kind);
        self.buffer.extend_from_slice(value);
        self.end_attribute(start);
        self.padded()
    }

    /// Returns a text attribute, ended by a zero byte.
    #[must_use]
    pub fn text(mut self, kind: u16, value: &str) -> Request {
        let start = self.start_attribute(kind);
        self.buffer.extend_from_slice(value.as_bytes());
        self.buffer.push(0);
        self.end_attribute(start);
        self.padded()
    }

    /// Returns a byte.
    #[must_use]
    pub fn u8(self, kind: u16, value: u8) -> Request {
        self.bytes(kind, &[value])
    }

    /// Returns a 32-bit number in the machine's byte order.
    #[must_use]
    pub fn u32(self, kind: u16, value: u32) -> Request {
        self.bytes(kind, &value.to_ne_bytes())
    }

    /// Returns a 32-bit number in network byte order.
    #[must_use]
    pub fn be32(self, kind: u16, value: u32) -> Request {
        self.bytes(kind, &value.to_be_bytes())
    }

    /// Returns an attribute that holds the attributes that `fill` adds.
    #[must_use]
    pub fn nest(self, kind: u16, fill: impl FnOnce(Request) -> Request) -> Request {
        self.nest_after(kind, &[], fill)
    }

    /// Returns an attribute that holds a fixed header and then the attributes that `fill` adds.
    #[must_use]
    pub fn nest_after(
        mut self,
        kind: u16,
        header: &[u8],
        fill: impl FnOnce(Request) -> Request,
    ) -> Request {
        let start = self.start_attribute(kind | NLA_F_NESTED);
        self.buffer.extend_from_slice(header);
        let mut filled = fill(self.padded());
        filled.end_attribute(start);
        filled
    }

    /// Applies `add` if there is a value; reads better than a broken chain of calls.
    #[must_use]
    pub fn maybe<T>(self, value: Option<T>, add: impl FnOnce(Request, T) -> Request) -> Request {
        match value {
            Some(value) => add(self, value),
            None => self,
        }
    }

    /// Returns the message with its length, sequence number and further flags filled in.
    pub fn finish(mut self, sequence: u32, more_flags: u16) -> Vec<u8> {
        let length = u32::try_from(self.buffer.len()).unwrap_or(u32::MAX);
        self.buffer[..4].copy_from_slice(&length.to_ne_bytes());
        let flags = u16::from_ne_bytes([self.buffer[6], self.buffer[7]]) | more_flags;
        self.buffer[6..8].copy_from_slice(&flags.to_ne_bytes());
        self.buffer[8..12].copy_from_slice(&sequence.to_ne_bytes());
        self.buffer
    }

    fn start_attribute(&mut self, kind: u16) -> usize {
        let start = self.buffer.len();
        self.buffer.extend_from_slice(&[0; 2]);
        self.buffer.extend_from_slice(&kind.to_ne_bytes());
        start
    }

    /// The length of an attribute excludes its own padding but includes that of what is in it.
    fn end_attribute(&mut self, start: usize) {
        let length = u16::try_from(self.buffer.len() - start).unwrap_or(u16::MAX);
        self.buffer[start..start + 2].copy_from_slice(&length.to_ne_bytes());
    }

    fn padded(mut self) -> Request {
        self.buffer.resize(align(self.buffer.len()), 0);
        self
    }
}

/// One message of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The message type.
    pub kind: u16,
    /// The header's flags.
    pub flags: u16,
    /// The number of the request that this answers.
    pub sequence: u32,
    /// Family header and attributes.
    pub payload: Vec<u8>,
}

impl Message {
    /// Returns the attributes behind a family header of `header` bytes.
    pub fn attributes(&self, header: usize) -> Attributes<'_> {
        attributes(self.payload.get(align(header)..).unwrap_or_default())
    }

    /// Returns the family header, if the message has all of it.
    pub fn header<const N: usize>(&self) -> Option<&[u8; N]> {
        self.payload.first_chunk::<N>()
    }
}

/// Cuts a datagram into its messages. Ends at the first that is not whole.
pub fn messages(mut datagram: &[u8]) -> Vec<Message> {
    let mut out = Vec::new();
    while let Some(header) = datagram.first_chunk::<HEADER_BYTES>() {
        let length = u32_at(header, 0) as usize;
        let Some(message) = datagram.get(HEADER_BYTES..length) else {
            break;
        };
        out.push(Message {
            kind: u16::from_ne_bytes([header[4], header[5]]),
            flags: u16::from_ne_bytes([header[6], header[7]]),
            sequence: u32_at(header, 8),
            payload: message.to_vec(),
        });
        datagram = datagram.get(align(length)..).unwrap_or_default();
    }
    out
}

/// Returns the attributes in `bytes`.
pub const fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

/// Iterates over attributes as (type without flags, value). Ends at the first that is not whole.
#[derive(Clone, Debug)]
pub struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Attributes<'a> {
    /// Returns the value of the first attribute of this type.
    pub fn get(&self, kind: u16) -> Option<&'a [u8]> {
        self.clone()
            .find(|(found, _)| *found == kind)
            .map(|(_, value)| value)
    }

    /// Returns the attributes inside the first attribute of this type; none if it is absent.
    pub fn nested(&self, kind: u16) -> Attributes<'a> {
        attributes(self.get(kind).unwrap_or_default())
    }

    /// Returns a text attribute, without the zero byte that ends it.
    pub fn text(&self, kind: u16) -> Option<String> {
        self.get(kind).map(text)
    }

    /// Returns a 32-bit number in the machine's byte order.
    pub fn u32(&self, kind: u16) -> Option<u32> {
        self.array(kind).map(u32::from_ne_bytes)
    }

    /// Returns a 32-bit number in network byte order.
    pub fn be32(&self, kind: u16) -> Option<u32> {
        self.array(kind).map(u32::from_be_bytes)
    }

    /// Returns a byte.
    pub fn u8(&self, kind: u16) -> Option<u8> {
        self.array::<1>(kind).map(|[byte]| byte)
    }

    /// Returns a value of exactly `N` bytes.
    pub fn array<const N: usize>(&self, kind: u16) -> Option<[u8; N]> {
        self.get(kind)?.try_into().ok()
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<(u16, &'a [u8])> {
        let header = self.rest.first_chunk::<4>()?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let value = self.rest.get(4..length)?;
        self.rest = self.rest.get(align(length)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// Returns the text before the first zero byte.
pub fn text(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Returns the number in the machine's byte order at `offset`; zero if `bytes` ends before.
pub fn u32_at(bytes: &[u8], offset: usize) -> u32 {
    bytes
        .get(offset..)
        .and_then(|b| b.first_chunk())
        .map_or(0, |b| u32::from_ne_bytes(*b))
}

const fn align(length: usize) -> usize {
    length.div_ceil(4) * 4
}

/// Size in bytes of the header that starts each message.
pub const HEADER_BYTES: usize = 16;

/// The message is a request.
pub const NLM_F_REQUEST: u16 = 0x1;
/// An acknowledgement is wanted.
pub const NLM_F_ACK: u16 = 0x4;
/// In an answer: what is listed changed meanwhile.
pub const NLM_F_DUMP_INTR: u16 = 0x10;
/// Replace what exists.
pub const NLM_F_REPLACE: u16 = 0x100;
/// Fail if it exists.
pub const NLM_F_EXCL: u16 = 0x200;
/// Create it if it does not exist.
pub const NLM_F_CREATE: u16 = 0x400;
/// Add at the end of a list.
pub const NLM_F_APPEND: u16 = 0x800;
/// List everything that matches.
pub const NLM_F_DUMP: u16 = 0x300;
/// In an error: the request is not repeated in full.
pub const NLM_F_CAPPED: u16 = 0x100;
/// In an error: attributes explain it.
pub const NLM_F_ACK_TLVS: u16 = 0x200;

/// The attribute holds attributes.
pub const NLA_F_NESTED: u16 = 0x8000;
const NLA_TYPE_MASK: u16 = 0x3fff;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nested_attributes_round_trip() {
        let bytes = Request::new(16, NLM_F_CREATE, &[1, 2, 3, 4, 5])
            .text(3, "weave")
            .nest(18, |r| {
                r.text(1, "veth")
                    .nest_after(2, &[9; 16], |r| r.u32(4, 1376).u8(5, 7))
            })
            .maybe(None::<u32>, |r, v| r.u32(9, v))
            .be32(6, 1)
            .finish(77, NLM_F_ACK);
        assert_eq!(bytes.len() % 4, 0);
        let messages = messages(&bytes);
        assert_eq!(messages.len(), 1);
        let message = &messages[0];
        assert_eq!(message.kind, 16);
        assert_eq!(message.flags, NLM_F_CREATE | NLM_F_REQUEST | NLM_F_ACK);
        assert_eq!(message.sequence, 77);
        assert_eq!(message.header::<5>(), Some(&[1, 2, 3, 4, 5]));
        let outer = message.attributes(5);
        assert_eq!(outer.text(3).as_deref(), Some("weave"));
        assert_eq!(outer.be32(6), Some(1));
        assert_eq!(outer.get(9), None);
        let info = outer.nested(18);
        assert_eq!(info.text(1).as_deref(), Some("veth"));
        let peer = info.get(2).unwrap();
        assert_eq!(peer[..16], [9; 16]);
        assert_eq!(attributes(&peer[16..]).u32(4), Some(1376));
        assert_eq!(attributes(&peer[16..]).u8(5), Some(7));
        assert_eq!(outer.count(), 3);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for message in messages(&bytes) {
                prop_assert!(message.payload.len() <= bytes.len());
                for (_, value) in message.attributes(4) {
                    prop_assert!(attributes(value).count() <= value.len());
                }
            }
            prop_assert!(attributes(&bytes).count() <= bytes.len() / 4);
        }
    }
}
