//! What a joiner hands out: a frame in parts, with the header that the device wants before it.

use std::ops::Range;

use crate::ethernet::{IPV6_HEADER_BYTES, Ip, Layout, Protocol};
use crate::offload::checksum;
use crate::offload::header::{
    FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader,
};
use crate::offload::split::TCP_CWR;

/// Maximum number of TCP segments in a super-frame. The next one starts another.
pub const TCP_SEGMENTS_MAX: usize = 128;
/// Maximum number of UDP datagrams in a super-frame, as Linux splits on sending. The next one
/// starts another.
pub const UDP_SEGMENTS_MAX: usize = 64;
/// Maximum size of a super-frame from its IP header on, in bytes.
pub const SUPER_BYTES_MAX: usize = 65535;

/// State of the checksums in a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// The sender's checksums, right or wrong. They are verified before the frame is joined.
    Present,
    /// The checksums are absent, as [`crate::offload::split::Split::write_chunk`] leaves them:
    /// another protection has shown that the frame is unchanged. The device is told to complete
    /// them. Applies only to whole TCP segments and UDP datagrams; others pass as they are.
    Absent,
}

/// Where a piece of a frame lies in the slab.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Part {
    pub(super) start: u32,
    pub(super) len: u32,
}

impl Part {
    pub(crate) fn new(range: &Range<usize>) -> Option<Part> {
        Some(Part {
            start: u32::try_from(range.start).ok()?,
            len: u32::try_from(range.len()).ok()?,
        })
    }

    #[inline]
    pub(super) fn of(self, slab: &[u8]) -> &[u8] {
        let start = self.start as usize;
        slab.get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

/// A frame for the device: its vnet header, and its parts in the slab.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// The header that goes before the frame.
    pub header: VnetHeader,
    slab: &'a [u8],
    parts: &'a [Part],
    segments: usize,
}

impl<'a> Joined<'a> {
    pub(crate) const fn new(
        header: VnetHeader,
        slab: &'a [u8],
        parts: &'a [Part],
        segments: usize,
    ) -> Joined<'a> {
        Joined {
            header,
            slab,
            parts,
            segments,
        }
    }

    /// Returns the parts of the frame in order: the first segment with all headers, then the
    /// payload of each further one. At least one, at most [`TCP_SEGMENTS_MAX`].
    #[inline]
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let slab = self.slab;
        self.parts.iter().map(move |part| part.of(slab))
    }

    /// Returns the number of segments that the frame represents.
    pub const fn segments(&self) -> usize {
        self.segments
    }

    /// Returns the number of parts.
    pub const fn parts_len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the length of the frame in bytes.
    pub fn frame_len(&self) -> usize {
        self.parts.iter().map(|part| part.len as usize).sum()
    }

    /// Copies the frame to the start of `out` as one piece. Returns `None` if there is no room.
    pub fn copy_to<'b>(&self, out: &'b mut [u8]) -> Option<&'b mut [u8]> {
        let mut at = 0;
        for part in self.parts() {
            let end = at + part.len();
            out.get_mut(at..end)?.copy_from_slice(part);
            at = end;
        }
        out.get_mut(..at)
    }
}

/// Hands out one frame as it is.
#[inline]
pub(super) fn pass(slab: &[u8], whole: Part, sink: &mut impl FnMut(&Joined<'_>)) {
    sink(&Joined {
        header: VnetHeader::PLAIN,
        slab,
        parts: &[whole],
        segments: 1,
    });
}

/// Hands out one frame whose checksums were absent.
#[inline]
pub(super) fn complete(
    slab: &mut [u8],
    whole: Part,
    layout: &Layout,
    sink: &mut impl FnMut(&Joined<'_>),
) {
    let start = whole.start as usize;
    if let Some(headers) = slab.get_mut(start..start + layout.payload) {
        let header = write_super_headers(headers, layout, layout.end - layout.payload, 0);
        sink(&Joined {
            header,
            slab,
            parts: &[whole],
            segments: 1,
        });
    }
}

/// Makes the headers of a first segment those of a super-frame with `payload_len` bytes of
/// payload: IP and UDP lengths, IPv4 checksum, and in place of the TCP or UDP checksum the sum of
/// the pseudo header. Returns the vnet header that goes with it; with `gso_size` 0 it is that of
/// a single segment whose checksum is to be completed. `frame` starts with headers of this
/// layout.
pub fn write_super_headers(
    frame: &mut [u8],
    layout: &Layout,
    payload_len: usize,
    gso_size: usize,
) -> VnetHeader {
    let Layout {
        ip,
        protocol,
        network,
        transport,
        payload,
        ..
    } = *layout;
    let Some((ip_header, header)) = frame
        .get_mut(network..payload)
        .and_then(|headers| headers.split_at_mut_checked(transport - network))
    else {
        return VnetHeader::PLAIN;
    };
    let segment_len = header.len() + payload_len;
    match ip {
        Ip::V4 => {
            let len = (ip_header.len() + segment_len) as u16;
            ip_header[2..4].copy_from_slice(&len.to_be_bytes());
            checksum::fill_ipv4(ip_header);
        }
        Ip::V6 => {
            let len = (ip_header.len() - IPV6_HEADER_BYTES + segment_len) as u16;
            ip_header[4..6].copy_from_slice(&len.to_be_bytes());
        }
    }
    let pseudo = checksum::pseudo_header(ip, ip_header, protocol.number(), segment_len).fold();
    let csum_offset = protocol.checksum_offset();
    header[csum_offset..csum_offset + 2].copy_from_slice(&pseudo.to_be_bytes());
    let gso_type = match (protocol, ip) {
        _ if gso_size == 0 => GSO_NONE,
        (Protocol::Udp, _) => GSO_UDP_L4,
        (Protocol::Tcp, Ip::V4) => GSO_TCPV4 | ecn(header),
        (Protocol::Tcp, Ip::V6) => GSO_TCPV6 | ecn(header),
    };
    if protocol == Protocol::Udp {
        header[4..6].copy_from_slice(&(segment_len as u16).to_be_bytes());
    }
    VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type,
        header_len: payload as u16,
        gso_size: gso_size as u16,
        csum_start: transport as u16,
        csum_offset: csum_offset as u16,
    }
}

const fn ecn(tcp: &[u8]) -> u8 {
    if tcp[13] & TCP_CWR != 0 { GSO_ECN } else { 0 }
}
