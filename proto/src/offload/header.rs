//! The header before each frame of a TAP device with `IFF_VNET_HDR`, in both directions.
//!
//! ```text
//!  0 flags          1: the checksum at csum_start + csum_offset is partial; 2: known to be right
//!  1 gso type       0 none, 1 TCP over IPv4, 4 TCP over IPv6, 5 UDP; 0x80: with CWR
//!  2 header length  bytes before the payload. On frames from the kernel it is the length of
//!                   whatever lay in the first buffer, so nothing is decided by it
//!  4 gso size       payload bytes per segment
//!  6 csum start     where the checksummed part starts: the TCP or UDP header
//!  8 csum offset    where the checksum lies behind csum start
//! 10 buffers        only in the variant of 12 bytes; zero
//! ```
//!
//! Numbers are in the byte order of the machine (Linux `tun`, unless told otherwise by
//! `TUNSETVNETLE` or `TUNSETVNETBE`).

/// Size of the header in bytes.
pub const VNET_BYTES: usize = 10;
/// Size of the header's longer variant in bytes, which `TUNSETVNETHDRSZ` selects.
pub const VNET_MERGED_BYTES: usize = 12;

/// Flag: the checksum is partial, to be completed from `csum_start` on.
pub const FLAG_NEEDS_CSUM: u8 = 1;
/// Flag: the checksum was verified.
pub const FLAG_DATA_VALID: u8 = 2;

/// Not a super-frame.
pub const GSO_NONE: u8 = 0;
/// A super-frame of TCP segments over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// A super-frame of TCP segments over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// A super-frame of UDP datagrams over IPv4 or IPv6.
pub const GSO_UDP_L4: u8 = 5;
/// Added to a TCP type: the first segment has CWR set, the others must not.
pub const GSO_ECN: u8 = 0x80;

/// The vnet header of one frame.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// `FLAG_*`.
    pub flags: u8,
    /// `GSO_*`, possibly with [`GSO_ECN`].
    pub gso_type: u8,
    /// Bytes of all headers. Untrusted on frames from the kernel.
    pub header_len: u16,
    /// Payload bytes per segment.
    pub gso_size: u16,
    /// Where the checksummed part starts.
    pub csum_start: u16,
    /// Where the checksum lies behind `csum_start`.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// The header of a complete frame.
    pub const PLAIN: VnetHeader = VnetHeader {
        flags: 0,
        gso_type: GSO_NONE,
        header_len: 0,
        gso_size: 0,
        csum_start: 0,
        csum_offset: 0,
    };

    /// Reads the header; in the longer variant these are its first bytes.
    #[inline]
    pub const fn decode(bytes: &[u8; VNET_BYTES]) -> VnetHeader {
        let b = bytes;
        VnetHeader {
            flags: b[0],
            gso_type: b[1],
            header_len: u16::from_ne_bytes([b[2], b[3]]),
            gso_size: u16::from_ne_bytes([b[4], b[5]]),
            csum_start: u16::from_ne_bytes([b[6], b[7]]),
            csum_offset: u16::from_ne_bytes([b[8], b[9]]),
        }
    }

    /// Returns the bytes of the header; the longer variant has two zero bytes behind them.
    #[inline]
    pub const fn encode(&self) -> [u8; VNET_BYTES] {
        let [a, b] = self.header_len.to_ne_bytes();
        let [c, d] = self.gso_size.to_ne_bytes();
        let [e, f] = self.csum_start.to_ne_bytes();
        let [g, h] = self.csum_offset.to_ne_bytes();
        [self.flags, self.gso_type, a, b, c, d, e, f, g, h]
    }

    /// Returns true if the frame's checksum is partial.
    pub const fn needs_csum(&self) -> bool {
        self.flags & FLAG_NEEDS_CSUM != 0
    }

    /// Returns true if the frame stands for several segments.
    pub const fn is_super(&self) -> bool {
        self.gso_type & !GSO_ECN != GSO_NONE
    }
}
