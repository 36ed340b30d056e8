//! Views of Ethernet frames: addresses, VLAN tags, IP headers, TCP and UDP.
//!
//! ```text
//!  0            6            12     14                 14 + 4 per tag
//! +------------+------------+------+- - - - - - - - - +------------------
//! | destination| source     | type | up to two tags   | network header ...
//! +------------+------------+------+- - - - - - - - - +------------------
//!                             0x8100 or 0x88a8: a tag (2) and the next type (2) follow
//! ```
//!
//! A view checks lengths once, when it is created; its accessors cannot fail. Views borrow the
//! frame and copy nothing.

use crate::types::Mac;

/// Size in bytes of an Ethernet header without tags.
pub const HEADER_BYTES: usize = 14;
/// Number of bytes that one VLAN tag adds to the header.
pub const TAG_BYTES: usize = 4;
/// Maximum number of tags that are parsed. A frame with more is carried without being parsed.
pub const TAGS_MAX: usize = 2;
/// Size in bytes of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;
/// Size in bytes of an IPv6 header without extension headers.
pub const IPV6_HEADER_BYTES: usize = 40;
/// Size in bytes of a TCP header without options.
pub const TCP_HEADER_BYTES: usize = 20;
/// Size of a UDP header in bytes.
pub const UDP_HEADER_BYTES: usize = 8;

/// The ethertype of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// The ethertype of ARP.
pub const ETHERTYPE_ARP: u16 = 0x0806;
/// The ethertype of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86dd;
/// The ethertype of a VLAN tag (802.1Q).
pub const ETHERTYPE_VLAN: u16 = 0x8100;
/// The ethertype of an outer VLAN tag (802.1ad).
pub const ETHERTYPE_QINQ: u16 = 0x88a8;

/// The protocol number of ICMP.
pub const PROTOCOL_ICMP: u8 = 1;
/// The protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// The protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// The protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;

/// Maximum number of IPv6 extension headers that are parsed. A packet with more has no known
/// transport.
const EXTENSION_HEADERS_MAX: usize = 8;

/// A frame that ends before its Ethernet header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {0} bytes is shorter than an Ethernet header")]
pub struct TooShort(pub usize);

/// Returns true if this is a frame between routers: its first 14 bytes are all zero. Such frames
/// are never switched.
pub fn is_special(frame: &[u8]) -> bool {
    frame
        .first_chunk::<HEADER_BYTES>()
        .is_some_and(|header| *header == [0; HEADER_BYTES])
}

/// An Ethernet frame, without preamble and checksum.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    bytes: &'a [u8],
    header: &'a [u8; HEADER_BYTES],
    ethertype: u16,
    network: usize,
}

impl<'a> Frame<'a> {
    /// Parses `bytes` as a frame. Returns an error only if the Ethernet header is incomplete.
    #[inline]
    pub fn parse(bytes: &'a [u8]) -> Result<Frame<'a>, TooShort> {
        let header = bytes
            .first_chunk::<HEADER_BYTES>()
            .ok_or(TooShort(bytes.len()))?;
        let mut ethertype = u16::from_be_bytes([header[12], header[13]]);
        let mut network = HEADER_BYTES;
        for _ in 0..TAGS_MAX {
            if ethertype != ETHERTYPE_VLAN && ethertype != ETHERTYPE_QINQ {
                break;
            }
            let Some(&[_, _, high, low]) = bytes.get(network..network + TAG_BYTES) else {
                break;
            };
            ethertype = u16::from_be_bytes([high, low]);
            network += TAG_BYTES;
        }
        Ok(Frame {
            bytes,
            header,
            ethertype,
            network,
        })
    }

    /// Returns the whole frame.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Returns the destination address.
    #[inline]
    pub const fn destination(&self) -> Mac {
        let h = self.header;
        Mac::from_bytes([h[0], h[1], h[2], h[3], h[4], h[5]])
    }

    /// Returns the source address.
    #[inline]
    pub const fn source(&self) -> Mac {
        let h = self.header;
        Mac::from_bytes([h[6], h[7], h[8], h[9], h[10], h[11]])
    }

    /// Returns the ethertype after the parsed tags.
    pub const fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Returns true if the frame has at least one complete VLAN tag.
    pub const fn is_tagged(&self) -> bool {
        self.network != HEADER_BYTES
    }

    /// Returns the offset of the network header: 14, or more with tags.
    pub const fn network_offset(&self) -> usize {
        self.network
    }

    /// Returns what follows the Ethernet header and its tags.
    #[inline]
    pub fn network(&self) -> &'a [u8] {
        self.bytes.get(self.network..).unwrap_or_default()
    }

    /// Returns the IPv4 header, if there is a well-formed one.
    #[inline]
    pub fn ipv4(&self) -> Option<Ipv4<'a>> {
        if self.ethertype != ETHERTYPE_IPV4 {
            return None;
        }
        Ipv4::parse(self.network())
    }

    /// Returns the IPv6 header, if there is a well-formed one.
    #[inline]
    pub fn ipv6(&self) -> Option<Ipv6<'a>> {
        if self.ethertype != ETHERTYPE_IPV6 {
            return None;
        }
        Ipv6::parse(self.network())
    }

    /// Returns the offsets of the parts of a complete TCP segment or UDP datagram, or `None` for
    /// anything else, for fragments, and if a length does not fit.
    #[inline]
    pub fn layout(&self) -> Option<Layout> {
        let (ip, protocol, transport, end) = match self.ethertype {
            ETHERTYPE_IPV4 => {
                let ip = self.ipv4()?;
                if ip.is_fragment() || ip.is_truncated() {
                    return None;
                }
                (Ip::V4, ip.protocol(), ip.header_len(), ip.total_len())
            }
            ETHERTYPE_IPV6 => {
                let ip = self.ipv6()?;
                if ip.is_fragment() || ip.is_truncated() {
                    return None;
                }
                (Ip::V6, ip.protocol(), ip.transport_offset(), ip.total_len())
            }
            _ => return None,
        };
        let segment = self.network().get(transport..end)?;
        let (protocol, header_len) = match protocol {
            PROTOCOL_TCP => {
                let header = segment.first_chunk::<TCP_HEADER_BYTES>()?;
                let header_len = usize::from(header[12] >> 4) * 4;
                if header_len < TCP_HEADER_BYTES || header_len > segment.len() {
                    return None;
                }
                (Protocol::Tcp, header_len)
            }
            PROTOCOL_UDP => {
                let header = segment.first_chunk::<UDP_HEADER_BYTES>()?;
                let announced = u16::from_be_bytes([header[4], header[5]]);
                if usize::from(announced) != segment.len() {
                    return None;
                }
                (Protocol::Udp, UDP_HEADER_BYTES)
            }
            _ => return None,
        };
        Some(Layout {
            ip,
            protocol,
            network: self.network,
            transport: self.network + transport,
            payload: self.network + transport + header_len,
            end: self.network + end,
        })
    }
}

/// A version of IP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ip {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A transport protocol whose headers are parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Returns the protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => PROTOCOL_TCP,
            Protocol::Udp => PROTOCOL_UDP,
        }
    }

    /// Returns the offset of the checksum in the transport header.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }
}

/// Offsets of the parts of a TCP segment or UDP datagram, from the start of its frame: `network <=
/// transport <= payload <= end <= frame length`. Bytes from `end` on are padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// The version of IP.
    pub ip: Ip,
    /// The transport protocol.
    pub protocol: Protocol,
    /// Start of the IP header.
    pub network: usize,
    /// Start of the TCP or UDP header.
    pub transport: usize,
    /// Start of the payload, behind TCP options.
    pub payload: usize,
    /// End of the payload.
    pub end: usize,
}

impl Layout {
    /// An empty layout.
    pub(crate) const EMPTY: Layout = Layout {
        ip: Ip::V4,
        protocol: Protocol::Tcp,
        network: 0,
        transport: 0,
        payload: 0,
        end: 0,
    };
}

/// An IPv4 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv4<'a> {
    packet: &'a [u8],
    header: &'a [u8; IPV4_HEADER_BYTES],
}

impl<'a> Ipv4<'a> {
    /// Parses `packet` as an IPv4 packet, possibly followed by padding. Returns `None` unless its
    /// header, options included, is complete and covered by the total length.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Option<Ipv4<'a>> {
        let header = packet.first_chunk::<IPV4_HEADER_BYTES>()?;
        let view = Ipv4 { packet, header };
        let header_len = view.header_len();
        if header[0] >> 4 != 4
            || header_len < IPV4_HEADER_BYTES
            || header_len > packet.len()
            || view.total_len() < header_len
        {
            return None;
        }
        Some(view)
    }

    /// Returns the length of the header with its options, in bytes.
    pub const fn header_len(&self) -> usize {
        (self.header[0] & 0x0f) as usize * 4
    }

    /// Returns the header with its options.
    pub fn header(&self) -> &'a [u8] {
        self.packet.get(..self.header_len()).unwrap_or_default()
    }

    /// Returns the type of service: DSCP and ECN.
    pub const fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Returns the length of the packet in bytes, as its header announces it.
    pub const fn total_len(&self) -> usize {
        u16::from_be_bytes([self.header[2], self.header[3]]) as usize
    }

    /// Returns true if the packet announces more bytes than there are.
    pub const fn is_truncated(&self) -> bool {
        self.total_len() > self.packet.len()
    }

    /// Returns the identification.
    pub const fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// Returns the flags and the fragment offset as they stand in the header.
    pub const fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// Returns true if routers must not fragment the packet.
    pub const fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & 0x4000 != 0
    }

    /// Returns true if this is a fragment.
    pub const fn is_fragment(&self) -> bool {
        self.flags_and_offset() & 0x3fff != 0
    }

    /// Returns the protocol number of the payload.
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// Returns the source address.
    pub const fn source(&self) -> [u8; 4] {
        let h = self.header;
        [h[12], h[13], h[14], h[15]]
    }

    /// Returns the destination address.
    pub const fn destination(&self) -> [u8; 4] {
        let h = self.header;
        [h[16], h[17], h[18], h[19]]
    }

    /// Returns what follows the header, without padding.
    pub fn payload(&self) -> &'a [u8] {
        let end = self.total_len().min(self.packet.len());
        self.packet.get(self.header_len()..end).unwrap_or_default()
    }
}

/// An IPv6 packet.
#[derive(Clone, Copy, Debug)]
pub struct Ipv6<'a> {
    packet: &'a [u8],
    header: &'a [u8; IPV6_HEADER_BYTES],
    protocol: u8,
    transport: usize,
    fragment: bool,
}

impl<'a> Ipv6<'a> {
    /// Parses `packet` as an IPv6 packet, possibly followed by padding. Returns `None` unless its
    /// header and the extension headers before the payload are complete.
    #[inline]
    pub fn parse(packet: &'a [u8]) -> Option<Ipv6<'a>> {
        let header = packet.first_chunk::<IPV6_HEADER_BYTES>()?;
        if header[0] >> 4 != 6 {
            return None;
        }
        let mut view = Ipv6 {
            packet,
            header,
            protocol: header[6],
            transport: IPV6_HEADER_BYTES,
            fragment: false,
        };
        if !matches!(view.protocol, PROTOCOL_TCP | PROTOCOL_UDP) {
            view.walk_extensions()?;
        }
        Some(view)
    }

    /// Returns the traffic class.
    pub const fn traffic_class(&self) -> u8 {
        (self.header[0] << 4) | (self.header[1] >> 4)
    }

    /// Returns the length of the packet in bytes, header included, as its header announces it.
    pub const fn total_len(&self) -> usize {
        IPV6_HEADER_BYTES + u16::from_be_bytes([self.header[4], self.header[5]]) as usize
    }

    /// Returns true if the packet announces more bytes than there are.
    pub const fn is_truncated(&self) -> bool {
        self.total_len() > self.packet.len()
    }

    /// Returns true if this is a fragment.
    pub const fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// Returns the protocol number after the extension headers.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Returns the offset of the payload, after the extension headers.
    pub const fn transport_offset(&self) -> usize {
        self.transport
    }

    /// Returns the source address.
    pub fn source(&self) -> [u8; 16] {
        self.header[8..24].try_into().unwrap_or_default()
    }

    /// Returns the destination address.
    pub fn destination(&self) -> [u8; 16] {
        self.header[24..40].try_into().unwrap_or_default()
    }

    /// Returns what follows the extension headers, without padding.
    pub fn payload(&self) -> &'a [u8] {
        let end = self.total_len().min(self.packet.len());
        self.packet.get(self.transport..end).unwrap_or_default()
    }

    /// Skips hop-by-hop options, routing, fragment, authentication and destination options headers.
    /// A fragment other than the first has no transport header, so parsing ends there. Returns
    /// `None` if a header is incomplete or there are too many.
    fn walk_extensions(&mut self) -> Option<()> {
        const HOP_BY_HOP: u8 = 0;
        const ROUTING: u8 = 43;
        const FRAGMENT: u8 = 44;
        const AUTHENTICATION: u8 = 51;
        const DESTINATION: u8 = 60;

        for _ in 0..=EXTENSION_HEADERS_MAX {
            let rest = self.packet.get(self.transport..)?;
            let len = match self.protocol {
                HOP_BY_HOP | ROUTING | DESTINATION => 8 + 8 * usize::from(*rest.get(1)?),
                AUTHENTICATION => 8 + 4 * usize::from(*rest.get(1)?),
                FRAGMENT => {
                    let &[_, _, high, low] = rest.first_chunk::<4>()?;
                    self.fragment = true;
                    if u16::from_be_bytes([high, low]) & 0xfff8 != 0 {
                        return Some(());
                    }
                    8
                }
                _ => return Some(()),
            };
            if len > rest.len() {
                return None;
            }
            self.protocol = *rest.first()?;
            self.transport += len;
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
