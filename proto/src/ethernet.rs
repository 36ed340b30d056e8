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
//! A view checks lengths once, when it is made; what it answers afterwards cannot fail. Views
//! borrow the frame and copy nothing.

use crate::types::Mac;

/// Bytes of an Ethernet header without tags.
pub const HEADER_BYTES: usize = 14;
/// Bytes that one VLAN tag adds to the header.
pub const TAG_BYTES: usize = 4;
/// How many tags are looked through; a frame with more is carried, but not looked into.
pub const TAGS_MAX: usize = 2;
/// Bytes of an IPv4 header without options.
pub const IPV4_HEADER_BYTES: usize = 20;
/// Bytes of an IPv6 header without extension headers.
pub const IPV6_HEADER_BYTES: usize = 40;
/// Bytes of a TCP header without options.
pub const TCP_HEADER_BYTES: usize = 20;
/// Bytes of a UDP header.
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

/// How many IPv6 extension headers are walked; a packet with more has no known transport.
const EXTENSION_HEADERS_MAX: usize = 8;

/// A frame that ends before its Ethernet header does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("frame of {0} bytes is shorter than an Ethernet header")]
pub struct TooShort(pub usize);

/// Whether this is a frame between routers: its first 14 bytes are all zero. Such frames are
/// never switched.
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
    /// Looks at `bytes` as a frame. Fails only if there is no whole Ethernet header.
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

    /// The whole frame.
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The destination address.
    #[inline]
    pub const fn destination(&self) -> Mac {
        let h = self.header;
        Mac::from_bytes([h[0], h[1], h[2], h[3], h[4], h[5]])
    }

    /// The source address.
    #[inline]
    pub const fn source(&self) -> Mac {
        let h = self.header;
        Mac::from_bytes([h[6], h[7], h[8], h[9], h[10], h[11]])
    }

    /// The ethertype behind the tags that were looked through.
    pub const fn ethertype(&self) -> u16 {
        self.ethertype
    }

    /// Whether the frame carries at least one whole VLAN tag.
    pub const fn is_tagged(&self) -> bool {
        self.network != HEADER_BYTES
    }

    /// Where the network header starts: 14, or more with tags.
    pub const fn network_offset(&self) -> usize {
        self.network
    }

    /// What follows the Ethernet header and its tags.
    #[inline]
    pub fn network(&self) -> &'a [u8] {
        self.bytes.get(self.network..).unwrap_or_default()
    }

    /// The IPv4 header, if there is a well-formed one.
    #[inline]
    pub fn ipv4(&self) -> Option<Ipv4<'a>> {
        if self.ethertype != ETHERTYPE_IPV4 {
            return None;
        }
        Ipv4::parse(self.network())
    }

    /// The IPv6 header, if there is a well-formed one.
    #[inline]
    pub fn ipv6(&self) -> Option<Ipv6<'a>> {
        if self.ethertype != ETHERTYPE_IPV6 {
            return None;
        }
        Ipv6::parse(self.network())
    }

    /// Where the parts of a whole TCP segment or UDP datagram lie. None for anything else, for
    /// fragments, and where a length does not fit.
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

/// A transport protocol whose headers are understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// The protocol number.
    pub const fn number(self) -> u8 {
        match self {
            Protocol::Tcp => PROTOCOL_TCP,
            Protocol::Udp => PROTOCOL_UDP,
        }
    }

    /// Where the checksum lies in the transport header.
    pub const fn checksum_offset(self) -> usize {
        match self {
            Protocol::Tcp => 16,
            Protocol::Udp => 6,
        }
    }
}

/// Where the parts of a TCP segment or UDP datagram lie in its frame, as offsets from the start
/// of the frame: `network <= transport <= payload <= end <= frame length`. Bytes from `end` on
/// are padding.
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
    /// The layout of nothing.
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
    /// Looks at `packet` as an IPv4 packet, possibly followed by padding. None unless its header
    /// is there whole, options included, and the total length covers it.
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

    /// Bytes of the header with its options.
    pub const fn header_len(&self) -> usize {
        (self.header[0] & 0x0f) as usize * 4
    }

    /// The header with its options.
    pub fn header(&self) -> &'a [u8] {
        self.packet.get(..self.header_len()).unwrap_or_default()
    }

    /// The type of service: DSCP and ECN.
    pub const fn tos(&self) -> u8 {
        self.header[1]
    }

    /// Bytes of the packet as its header announces them.
    pub const fn total_len(&self) -> usize {
        u16::from_be_bytes([self.header[2], self.header[3]]) as usize
    }

    /// Whether the packet announces more bytes than there are.
    pub const fn is_truncated(&self) -> bool {
        self.total_len() > self.packet.len()
    }

    /// The identification.
    pub const fn id(&self) -> u16 {
        u16::from_be_bytes([self.header[4], self.header[5]])
    }

    /// The flags and the fragment offset as they stand in the header.
    pub const fn flags_and_offset(&self) -> u16 {
        u16::from_be_bytes([self.header[6], self.header[7]])
    }

    /// Whether routers must not fragment the packet.
    pub const fn dont_fragment(&self) -> bool {
        self.flags_and_offset() & 0x4000 != 0
    }

    /// Whether this is a part of a packet only.
    pub const fn is_fragment(&self) -> bool {
        self.flags_and_offset() & 0x3fff != 0
    }

    /// The protocol number of the payload.
    pub const fn protocol(&self) -> u8 {
        self.header[9]
    }

    /// The source address.
    pub const fn source(&self) -> [u8; 4] {
        let h = self.header;
        [h[12], h[13], h[14], h[15]]
    }

    /// The destination address.
    pub const fn destination(&self) -> [u8; 4] {
        let h = self.header;
        [h[16], h[17], h[18], h[19]]
    }

    /// What follows the header, without padding.
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
    /// Looks at `packet` as an IPv6 packet, possibly followed by padding. None unless its header
    /// and the extension headers before the payload are there whole.
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

    /// The traffic class.
    pub const fn traffic_class(&self) -> u8 {
        (self.header[0] << 4) | (self.header[1] >> 4)
    }

    /// Bytes of the packet, header included, as it announces them.
    pub const fn total_len(&self) -> usize {
        IPV6_HEADER_BYTES + u16::from_be_bytes([self.header[4], self.header[5]]) as usize
    }

    /// Whether the packet announces more bytes than there are.
    pub const fn is_truncated(&self) -> bool {
        self.total_len() > self.packet.len()
    }

    /// Whether this is a part of a packet only.
    pub const fn is_fragment(&self) -> bool {
        self.fragment
    }

    /// The protocol number behind the extension headers.
    pub const fn protocol(&self) -> u8 {
        self.protocol
    }

    /// Where the payload starts, behind the extension headers.
    pub const fn transport_offset(&self) -> usize {
        self.transport
    }

    /// The source address.
    pub fn source(&self) -> [u8; 16] {
        self.header[8..24].try_into().unwrap_or_default()
    }

    /// The destination address.
    pub fn destination(&self) -> [u8; 16] {
        self.header[24..40].try_into().unwrap_or_default()
    }

    /// What follows the extension headers, without padding.
    pub fn payload(&self) -> &'a [u8] {
        let end = self.total_len().min(self.packet.len());
        self.packet.get(self.transport..end).unwrap_or_default()
    }

    /// Steps over hop-by-hop options, routing, fragment, authentication and destination options
    /// headers. A fragment other than the first has no transport header behind it, so the walk
    /// ends there. None if a header is cut off or there are too many.
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
