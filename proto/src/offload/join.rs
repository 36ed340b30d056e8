//! Joining consecutive segments of a flow into super-frames, for a device that accepts them.
//!
//! ```text
//! slab   ..| hdr | payload 0 |..| hdr | payload 1 |..| hdr | payload 2 |..
//! joined    [ first frame   ]        [ payload 1 ]        [ payload 2 ]      parts, in place
//! ```
//!
//! Frames stay where they were received, in one buffer that the caller owns (the slab). The
//! [`Joiner`] keeps their ranges, and returns a super-frame as the list of its parts, which one
//! gathering write passes to the device: payload is not copied. Only the headers of the first
//! segment are changed, when the super-frame is complete.
//!
//! Segments are joined if a kernel that splits the super-frame again would produce the same
//! segments: the same headers apart from counters, contiguous sequence numbers, and equal sizes
//! except for a shorter last one. Everything else passes unchanged, after what came before it in
//! the same flow. A wrong checksum is never repaired: such a segment passes alone.
//!
//! Nothing may be kept while the caller waits for more input: call [`Joiner::flush`] after each
//! batch.

use std::ops::Range;

use self::flow::{Flow, Segment, flow_key};
use self::joined::{complete, pass};
use crate::ethernet::{self, Frame, Ip, Layout, Protocol};

pub(crate) use self::joined::Part;
pub use self::joined::{
    Checksums, Joined, SUPER_BYTES_MAX, TCP_SEGMENTS_MAX, UDP_SEGMENTS_MAX, write_super_headers,
};

mod flow;
mod joined;

/// Maximum number of open flows. Another one flushes the oldest.
pub const FLOWS_MAX: usize = 16;
/// The kinds of super-frames that the device accepts.
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
    /// Creates a joiner that makes super-frames of these kinds.
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

    /// Returns true if nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.keys.iter().all(|key| *key == 0)
    }

    /// Adds the frame at `range` in `slab`. `sink` receives complete frames: at once a frame that
    /// cannot be joined, otherwise when a later segment, [`FLOWS_MAX`] or a flush ends the flow's
    /// super-frame. The slab must not change until the flush. A range outside of the slab is
    /// ignored.
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

    /// Passes everything that was kept to `sink`, oldest first.
    pub fn flush(&mut self, slab: &mut [u8], sink: &mut impl FnMut(&Joined<'_>)) {
        while let Some(index) = self.oldest() {
            self.emit(index, slab, sink);
        }
    }

    /// Returns the open flow that this frame belongs to.
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

    /// Returns a free place, if necessary that of the oldest flow.
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

/// Returns true if a frame without a readable TCP or UDP header may still belong to a TCP or UDP
/// flow: fragments, and malformed packets.
fn may_carry_flow(view: &Frame<'_>) -> bool {
    let protocol = match (view.ipv4(), view.ipv6()) {
        (Some(ip), _) => ip.protocol(),
        (_, Some(ip)) if ip.is_fragment() => return true,
        (_, Some(ip)) => ip.protocol(),
        _ => return false,
    };
    matches!(protocol, ethernet::PROTOCOL_TCP | ethernet::PROTOCOL_UDP)
}

#[cfg(test)]
mod tests;
