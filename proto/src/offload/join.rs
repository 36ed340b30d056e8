//! Joining consecutive segments of a flow into super-frames, for a device that takes them.
//!
//! ```text
//! slab   ..| hdr | payload 0 |..| hdr | payload 1 |..| hdr | payload 2 |..
//! joined    [ first frame   ]        [ payload 1 ]        [ payload 2 ]      parts, in place
//! ```
//!
//! Frames stay where they were received, in one buffer that the caller owns (the slab). The
//! [`Joiner`] keeps their places, and hands out a super-frame as the list of its parts, which one
//! gathering write gives to the device: payload is not copied. Only the headers of the first
//! segment are changed, when the super-frame is complete.
//!
//! Segments are joined if a kernel that cuts the super-frame again makes the same segments of
//! it: the same headers apart from what counts up, contiguous sequence numbers, equal sizes
//! except for a shorter last one. Anything else passes unchanged, and after whatever of the same
//! flow came before it. A wrong checksum is never repaired: such a segment passes alone.
//!
//! Nothing may stay when the caller waits for more: [`Joiner::flush`] ends each batch.

use std::ops::Range;

use super::checksum;
use super::split::{TCP_CWR, TCP_FIN, TCP_PSH};
use super::vnet::{
    FLAG_NEEDS_CSUM, GSO_ECN, GSO_NONE, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader,
};
use crate::ethernet::{self, Frame, IPV4_HEADER_BYTES, IPV6_HEADER_BYTES, Ip, Layout, Protocol};

/// How many flows are open at a time. One more makes the oldest leave.
pub const FLOWS_MAX: usize = 16;
/// The most TCP segments in a super-frame; the next one starts another.
pub const TCP_SEGMENTS_MAX: usize = 128;
/// The most UDP datagrams in a super-frame, as Linux cuts on sending; the next starts another.
pub const UDP_SEGMENTS_MAX: usize = 64;
/// The most bytes of a super-frame from its IP header on.
pub const SUPER_BYTES_MAX: usize = 65535;

const TCP_ACK: u8 = 0x10;
const TCP_ECE: u8 = 0x40;

/// Which super-frames the device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JoinKinds {
    /// TCP over IPv4.
    pub tcp4: bool,
    /// TCP over IPv6.
    pub tcp6: bool,
    /// UDP over both.
    pub udp: bool,
}

impl JoinKinds {
    /// All that there are.
    pub const ALL: JoinKinds = JoinKinds {
        tcp4: true,
        tcp6: true,
        udp: true,
    };
    /// None: every frame passes as it is.
    pub const NONE: JoinKinds = JoinKinds {
        tcp4: false,
        tcp6: false,
        udp: false,
    };

    const fn allow(&self, layout: &Layout) -> bool {
        match (layout.protocol, layout.ip) {
            (Protocol::Tcp, Ip::V4) => self.tcp4,
            (Protocol::Tcp, Ip::V6) => self.tcp6,
            (Protocol::Udp, _) => self.udp,
        }
    }
}

/// What the checksums in a frame are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Checksums {
    /// Those of its sender, right or wrong: verified before the frame is joined.
    Present,
    /// Still to be filled in, as [`super::split::Split::write_chunk`] leaves them: another
    /// protection has shown that the frame is what it was. The device is told to complete them.
    /// Only for whole TCP segments and UDP datagrams; others pass as they are.
    Absent,
}

/// Joins segments; see the module.
#[derive(Debug)]
pub struct Joiner {
    kinds: JoinKinds,
    /// Key of each open flow; 0 where none is.
    keys: [u64; FLOWS_MAX],
    flows: Box<[Flow]>,
    /// The flow that the last segment went to.
    recent: usize,
    opened: u64,
}

impl Joiner {
    /// A joiner that makes super-frames of these kinds.
    pub fn new(kinds: JoinKinds) -> Joiner {
        Joiner {
            kinds,
            keys: [0; FLOWS_MAX],
            flows: vec![Flow::EMPTY; FLOWS_MAX].into_boxed_slice(),
            recent: 0,
            opened: 0,
        }
    }

    /// Makes super-frames of these kinds from the next flow on.
    pub fn set_kinds(&mut self, kinds: JoinKinds) {
        self.kinds = kinds;
    }

    /// Whether nothing is kept back.
    pub fn is_empty(&self) -> bool {
        self.keys.iter().all(|key| *key == 0)
    }

    /// Takes the frame that lies at `range` in `slab`. `sink` gets what is complete: at once for
    /// a frame that cannot be joined, else when a later segment, [`FLOWS_MAX`] or a flush ends
    /// the flow's super-frame. The slab must stay the same until the flush. A range outside of
    /// the slab is no frame.
    #[inline]
    pub fn push(
        &mut self,
        slab: &mut [u8],
        range: Range<usize>,
        checksums: Checksums,
        sink: &mut impl FnMut(&Joined<'_>),
    ) {
        let (Some(frame), Some(whole)) = (slab.get(range.clone()), Part::new(&range)) else {
            return;
        };
        let view = Frame::parse(frame);
        let Some(layout) = view.as_ref().ok().and_then(Frame::layout) else {
            if view.is_ok_and(|view| may_carry_flow(&view)) {
                self.flush(slab, sink);
            }
            return pass(slab, whole, sink);
        };
        let key = flow_key(frame, &layout);
        let segment = Segment::new(frame, &layout, checksums);
        let joinable = segment.is_some() && self.kinds.allow(&layout);
        if let Some(index) = self.find(slab, key, frame, &layout) {
            if let (true, Some(segment), Some(flow)) =
                (joinable, &segment, self.flows.get_mut(index))
                && flow.takes(slab, frame, &layout, segment)
            {
                if flow.append(range.start, &layout, segment) {
                    self.emit(index, slab, sink);
                }
                return;
            }
            self.emit(index, slab, sink);
        }
        match segment {
            Some(segment) if joinable && !segment.is_last() => {
                let index = self.vacate(slab, sink);
                self.open(index, key, whole, layout, segment);
            }
            _ if checksums == Checksums::Absent => complete(slab, whole, &layout, sink),
            _ => pass(slab, whole, sink),
        }
    }

    /// Gives everything that was kept back to `sink`, oldest first.
    pub fn flush(&mut self, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) {
        while let Some(index) = self.oldest() {
            self.emit(index, slab, sink);
        }
    }

    /// The open flow that this frame belongs to.
    #[inline]
    fn find(&mut self, slab: &[u8], key: u64, frame: &[u8], layout: &Layout) -> Option<usize> {
        let is = |index: usize| {
            self.keys.get(index) == Some(&key)
                && self
                    .flows
                    .get(index)
                    .is_some_and(|flow| flow.is_same(slab, frame, layout))
        };
        if !is(self.recent) {
            self.recent = (0..FLOWS_MAX).find(|index| is(*index))?;
        }
        Some(self.recent)
    }

    /// A free place, if need be that of the oldest flow.
    #[inline]
    fn vacate(&mut self, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) -> usize {
        if let Some(free) = self.keys.iter().position(|key| *key == 0) {
            return free;
        }
        let oldest = self.oldest().unwrap_or_default();
        self.emit(oldest, slab, sink);
        oldest
    }

    fn oldest(&self) -> Option<usize> {
        let open = self.keys.iter().zip(&self.flows).enumerate();
        open.filter(|(_, (key, _))| **key != 0)
            .min_by_key(|(_, (_, flow))| flow.opened)
            .map(|(index, _)| index)
    }

    #[inline]
    fn open(&mut self, index: usize, key: u64, whole: Part, layout: Layout, segment: Segment) {
        let (Some(slot), Some(flow)) = (self.keys.get_mut(index), self.flows.get_mut(index)) else {
            return;
        };
        self.opened += 1;
        *slot = key;
        self.recent = index;
        flow.start(whole, layout, segment, self.opened);
    }

    #[inline]
    fn emit(&mut self, index: usize, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) {
        if let (Some(key), Some(flow)) = (self.keys.get_mut(index), self.flows.get(index)) {
            *key = 0;
            flow.emit(slab, sink);
        }
    }
}

/// A frame for the device: its vnet header and its parts in the slab.
#[derive(Clone, Copy, Debug)]
pub struct Joined<'a> {
    /// The header that goes before the frame.
    pub header: VnetHeader,
    slab: &'a [u8],
    parts: &'a [Part],
}

impl<'a> Joined<'a> {
    /// The parts of the frame in order: the first segment with all headers, then the payload of
    /// each further one. At least one, at most [`TCP_SEGMENTS_MAX`].
    #[inline]
    pub fn parts(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let slab = self.slab;
        self.parts.iter().map(move |part| part.of(slab))
    }

    /// How many segments the frame stands for.
    pub const fn segments(&self) -> usize {
        self.parts.len()
    }

    /// Bytes of the frame.
    pub fn frame_len(&self) -> usize {
        self.parts.iter().map(|part| part.len as usize).sum()
    }

    /// The frame as one piece, for those that need it whole: copied to the start of `out`. None
    /// if there is no room.
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

/// Hands out one frame as it is.
#[inline]
fn pass(slab: &[u8], whole: Part, sink: &mut impl FnMut(&Joined<'_>)) {
    sink(&Joined {
        header: VnetHeader::PLAIN,
        slab,
        parts: &[whole],
    });
}

/// Hands out one frame whose checksums were absent.
#[inline]
fn complete(slab: &mut [u8], whole: Part, layout: &Layout, sink: &mut impl FnMut(&Joined<'_>)) {
    let start = whole.start as usize;
    if let Some(headers) = slab.get_mut(start..start + layout.payload) {
        let header = write_super_headers(headers, layout, layout.end - layout.payload, 0);
        sink(&Joined {
            header,
            slab,
            parts: &[whole],
        });
    }
}

/// Whether a frame without a TCP or UDP header that can be read may belong to a TCP or UDP flow
/// all the same: fragments, and what is malformed.
fn may_carry_flow(view: &Frame<'_>) -> bool {
    let protocol = match (view.ipv4(), view.ipv6()) {
        (Some(ip), _) => ip.protocol(),
        (_, Some(ip)) if ip.is_fragment() => return true,
        (_, Some(ip)) => ip.protocol(),
        _ => return false,
    };
    matches!(protocol, ethernet::PROTOCOL_TCP | ethernet::PROTOCOL_UDP)
}

/// A number that two frames of one flow share, never 0. Others may share it too.
#[inline]
fn flow_key(frame: &[u8], layout: &Layout) -> u64 {
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
fn addresses<'f>(frame: &'f [u8], layout: &Layout) -> &'f [u8] {
    let range = match layout.ip {
        Ip::V4 => layout.network + 12..layout.network + 20,
        Ip::V6 => layout.network + 8..layout.network + 40,
    };
    frame.get(range).unwrap_or_default()
}

#[inline]
fn ports(frame: &[u8], layout: &Layout) -> [u8; 4] {
    let header = frame.get(layout.transport..).unwrap_or_default();
    header.first_chunk::<4>().copied().unwrap_or_default()
}

/// Where a piece of a frame lies in the slab.
#[derive(Clone, Copy, Debug, Default)]
struct Part {
    start: u32,
    len: u32,
}

impl Part {
    fn new(range: &Range<usize>) -> Option<Part> {
        Some(Part {
            start: u32::try_from(range.start).ok()?,
            len: u32::try_from(range.len()).ok()?,
        })
    }

    #[inline]
    fn of(self, slab: &[u8]) -> &[u8] {
        let start = self.start as usize;
        slab.get(start..start + self.len as usize)
            .unwrap_or_default()
    }
}

/// What counts up from segment to segment, and what ends a super-frame.
#[derive(Clone, Copy, Debug)]
struct Segment {
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
    fn new(frame: &[u8], layout: &Layout, checksums: Checksums) -> Option<Segment> {
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

    const fn is_last(&self) -> bool {
        self.flags & (TCP_PSH | TCP_FIN) != 0
    }
}

/// A super-frame that is being made: the first segment, and the places of all.
#[derive(Clone, Debug)]
struct Flow {
    opened: u64,
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
    const EMPTY: Flow = Flow {
        opened: 0,
        whole: Part { start: 0, len: 0 },
        layout: Layout {
            ip: Ip::V4,
            protocol: Protocol::Tcp,
            network: 0,
            transport: 0,
            payload: 0,
            end: 0,
        },
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
    fn start(&mut self, whole: Part, layout: Layout, segment: Segment, opened: u64) {
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

    #[inline]
    fn is_same(&self, slab: &[u8], frame: &[u8], layout: &Layout) -> bool {
        let first = self.whole.of(slab);
        let ours = &self.layout;
        (ours.ip, ours.protocol, ours.network) == (layout.ip, layout.protocol, layout.network)
            && first.get(..ours.network) == frame.get(..layout.network)
            && addresses(first, ours) == addresses(frame, layout)
            && ports(first, ours) == ports(frame, layout)
    }

    /// Whether the segment, which belongs to the flow, is the next of the super-frame.
    #[inline]
    fn takes(&mut self, slab: &[u8], frame: &[u8], layout: &Layout, next: &Segment) -> bool {
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
    fn append(&mut self, start: usize, layout: &Layout, segment: &Segment) -> bool {
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
    fn emit(&self, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) {
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
        sink(&Joined {
            header,
            slab,
            parts: self.parts.get(..self.count).unwrap_or_default(),
        });
    }
}

/// Whether two frames of one flow and one layout have the same headers, apart from lengths, ids,
/// checksums, sequence numbers and flags.
#[inline]
fn same_headers(a: &[u8], b: &[u8], layout: &Layout) -> bool {
    let same = |range: Range<usize>| a.get(range.clone()) == b.get(range);
    let (network, transport) = (layout.network, layout.transport);
    let same_ip = match layout.ip {
        // Version, header length, TOS; DF; TTL, protocol.
        Ip::V4 => same(network..network + 2) && same(network + 6..network + 10),
        // Version, traffic class, flow label; next header, hop limit.
        Ip::V6 => same(network..network + 4) && same(network + 6..network + 8),
    };
    let same_transport = match layout.protocol {
        // Acknowledgement and data offset; window; urgent pointer and options.
        Protocol::Tcp => {
            same(transport + 8..transport + 13)
                && same(transport + 14..transport + 16)
                && same(transport + 18..layout.payload)
        }
        Protocol::Udp => true,
    };
    same_ip && same_transport
}

#[cfg(test)]
mod tests;
