//! One super-frame being joined: which segments it accepts, and its final headers.

use super::joined::{
    Checksums, Joined, Part, SUPER_BYTES_MAX, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX, complete, pass,
    write_super_headers,
};
use crate::ethernet::{HEADER_BYTES, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Ip, Layout, Protocol};
use crate::offload::checksum;
use crate::offload::split::{TCP_CWR, TCP_FIN, TCP_PSH};

const TCP_ACK: u8 = 0x10;
const TCP_ECE: u8 = 0x40;

/// Returns a number that two frames of one flow share, never 0. Others may share it too.
#[inline]
pub(super) fn flow_key(frame: &[u8], layout: &Layout) -> u64 {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let addresses = addresses(frame, layout);
    let (words, _) = addresses.as_chunks::<8>();
    let ports = ports(frame, layout);
    let mut key = u64::from(u32::from_ne_bytes(ports)) << 8 | u64::from(layout.protocol.number());
    for word in words {
        key = (key.rotate_left(29) ^ u64::from_ne_bytes(*word)).wrapping_mul(ODD);
    }
    key | 1
}

#[inline]
pub(super) fn addresses<'f>(frame: &'f [u8], layout: &Layout) -> &'f [u8] {
    let range = match layout.ip {
        Ip::V4 => layout.network + 12..layout.network + 20,
        Ip::V6 => layout.network + 8..layout.network + 40,
    };
    frame.get(range).unwrap_or_default()
}

#[inline]
pub(super) fn ports(frame: &[u8], layout: &Layout) -> [u8; 4] {
    let header = frame.get(layout.transport..).unwrap_or_default();
    header.first_chunk::<4>().copied().unwrap_or_default()
}

/// What counts up from segment to segment, and what ends a super-frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Segment {
    payload: usize,
    sequence: u32,
    id: u16,
    dont_fragment: bool,
    /// TCP flags; 0 for UDP.
    flags: u8,
    checksums: Checksums,
}

impl Segment {
    /// None if such a segment is never part of a super-frame.
    #[inline]
    pub(super) fn new(frame: &[u8], layout: &Layout, checksums: Checksums) -> Option<Segment> {
        let ip = frame.get(layout.network..layout.transport)?;
        let header = frame.get(layout.transport..layout.payload)?;
        let payload = layout.end - layout.payload;
        let bare = match layout.ip {
            Ip::V4 => IPV4_HEADER_BYTES,
            Ip::V6 => IPV6_HEADER_BYTES,
        };
        if ip.len() != bare || payload == 0 {
            return None;
        }
        let (id, dont_fragment) = match layout.ip {
            Ip::V4 => (u16::from_be_bytes([ip[4], ip[5]]), ip[6] & 0x40 != 0),
            Ip::V6 => (0, true),
        };
        let (sequence, flags) = match layout.protocol {
            Protocol::Tcp => (
                u32::from_be_bytes([header[4], header[5], header[6], header[7]]),
                header[13],
            ),
            Protocol::Udp => (0, 0),
        };
        let allowed = TCP_ACK | TCP_PSH | TCP_FIN | TCP_CWR | TCP_ECE;
        let joinable = match layout.protocol {
            Protocol::Tcp => flags & TCP_ACK != 0 && flags & !allowed == 0,
            Protocol::Udp => true,
        };
        joinable.then_some(Segment {
            payload,
            sequence,
            id,
            dont_fragment,
            flags,
            checksums,
        })
    }

    pub(super) const fn is_last(&self) -> bool {
        self.flags & (TCP_PSH | TCP_FIN) != 0
    }
}

/// A super-frame that is being made: the first segment, and the places of all.
#[derive(Clone, Debug)]
pub(super) struct Flow {
    pub(super) opened: u64,
    /// The first frame, padding included.
    whole: Part,
    layout: Layout,
    first: Segment,
    /// Whether the checksum of the first segment was found right.
    verified: bool,
    /// PSH and FIN of the last segment.
    closing: u8,
    payload: usize,
    count: usize,
    parts: [Part; TCP_SEGMENTS_MAX],
}

impl Flow {
    pub(super) const EMPTY: Flow = Flow {
        opened: 0,
        whole: Part { start: 0, len: 0 },
        layout: Layout::EMPTY,
        first: Segment {
            payload: 0,
            sequence: 0,
            id: 0,
            dont_fragment: false,
            flags: 0,
            checksums: Checksums::Present,
        },
        verified: false,
        closing: 0,
        payload: 0,
        count: 0,
        parts: [Part { start: 0, len: 0 }; TCP_SEGMENTS_MAX],
    };

    /// Starts over with this segment. Places of earlier segments stay behind, unused.
    #[inline]
    pub(super) fn start(&mut self, whole: Part, layout: Layout, segment: Segment, opened: u64) {
        self.opened = opened;
        self.whole = whole;
        self.layout = layout;
        self.first = segment;
        self.verified = segment.checksums == Checksums::Absent;
        self.closing = segment.flags & (TCP_PSH | TCP_FIN);
        self.payload = segment.payload;
        self.count = 1;
        self.parts[0] = Part {
            start: whole.start,
            len: layout.end as u32,
        };
    }

    /// Returns true if the frame has the Ethernet header, addresses and ports of the flow.
    #[inline]
    pub(super) fn is_same(&self, slab: &[u8], frame: &[u8], layout: &Layout) -> bool {
        let first = self.whole.of(slab);
        let (ours, network) = (&self.layout, layout.network);
        (ours.ip, ours.protocol, ours.network) == (layout.ip, layout.protocol, network)
            && same::<HEADER_BYTES>(first, frame, 0)
            && (network == HEADER_BYTES
                || first.get(HEADER_BYTES..network) == frame.get(HEADER_BYTES..network))
            && match layout.ip {
                Ip::V4 => same::<8>(first, frame, network + 12),
                Ip::V6 => same::<32>(first, frame, network + 8),
            }
            && ports(first, ours) == ports(frame, layout)
    }

    /// Returns true if the segment, which belongs to the flow, is the next of the super-frame.
    #[inline]
    pub(super) fn takes(
        &mut self,
        slab: &[u8],
        frame: &[u8],
        layout: &Layout,
        next: &Segment,
    ) -> bool {
        let first = &self.first;
        let counts_up = match layout.protocol {
            Protocol::Tcp => next.sequence == first.sequence.wrapping_add(self.payload as u32),
            Protocol::Udp => true,
        };
        let ids_count_up =
            next.dont_fragment || next.id == first.id.wrapping_add(self.count as u16);
        let segments_max = match layout.protocol {
            Protocol::Tcp => TCP_SEGMENTS_MAX,
            Protocol::Udp => UDP_SEGMENTS_MAX,
        };
        let len = layout.payload - layout.network + self.payload + next.payload;
        if !counts_up
            || !ids_count_up
            || next.payload > first.payload
            || next.flags & TCP_CWR != 0
            || (next.flags ^ first.flags) & !(TCP_PSH | TCP_FIN | TCP_CWR) != 0
            || next.checksums != first.checksums
            || self.count >= segments_max
            || len > SUPER_BYTES_MAX
            || self.layout.payload != layout.payload
        {
            return false;
        }
        let first_frame = self.whole.of(slab);
        if !same_headers(first_frame, frame, layout) {
            return false;
        }
        self.verified = self.verified || checksum::verify(first_frame, &self.layout);
        self.verified && (next.checksums == Checksums::Absent || checksum::verify(frame, layout))
    }

    /// Adds a segment that the flow takes; true if it is the last of the super-frame.
    #[inline]
    pub(super) fn append(&mut self, start: usize, layout: &Layout, segment: &Segment) -> bool {
        if let Some(part) = self.parts.get_mut(self.count) {
            *part = Part {
                start: (start + layout.payload) as u32,
                len: segment.payload as u32,
            };
            self.count += 1;
            self.payload += segment.payload;
            self.closing |= segment.flags & (TCP_PSH | TCP_FIN);
        }
        segment.is_last() || segment.payload < self.first.payload
    }

    #[inline]
    pub(super) fn emit(&self, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) {
        if self.count == 1 {
            return match self.first.checksums {
                Checksums::Present => pass(slab, self.whole, sink),
                Checksums::Absent => complete(slab, self.whole, &self.layout, sink),
            };
        }
        let start = self.whole.start as usize;
        let Some(headers) = slab.get_mut(start..start + self.layout.payload) else {
            return;
        };
        if self.layout.protocol == Protocol::Tcp
            && let Some(flags) = headers.get_mut(self.layout.transport + 13)
        {
            *flags |= self.closing;
        }
        let header = write_super_headers(headers, &self.layout, self.payload, self.first.payload);
        let parts = self.parts.get(..self.count).unwrap_or_default();
        sink(&Joined::new(header, slab, parts, self.count));
    }
}

/// Returns true if two frames of one flow and one layout have the same headers, apart from lengths,
/// ids, checksums, sequence numbers and flags.
#[inline]
fn same_headers(a: &[u8], b: &[u8], layout: &Layout) -> bool {
    let (network, transport) = (layout.network, layout.transport);
    let same_ip = match layout.ip {
        // Version, header length, TOS; flags, offset, TTL, protocol.
        Ip::V4 => same::<2>(a, b, network) && same::<4>(a, b, network + 6),
        // Version, traffic class, flow label; next header, hop limit.
        Ip::V6 => same::<4>(a, b, network) && same::<2>(a, b, network + 6),
    };
    let same_transport = match layout.protocol {
        // Acknowledgement; data offset; window; urgent pointer and options.
        Protocol::Tcp => {
            same::<4>(a, b, transport + 8)
                && same::<1>(a, b, transport + 12)
                && same::<2>(a, b, transport + 14)
                && a.get(transport + 18..layout.payload) == b.get(transport + 18..layout.payload)
        }
        Protocol::Udp => true,
    };
    same_ip && same_transport
}

/// Returns true if both have the same `N` bytes at `at`; known lengths compare without a call.
#[inline]
fn same<const N: usize>(a: &[u8], b: &[u8], at: usize) -> bool {
    let bytes = |frame: &[u8]| {
        let rest = frame.get(at..)?;
        rest.first_chunk::<N>().copied()
    };
    bytes(a) == bytes(b)
}
