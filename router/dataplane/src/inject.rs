//! Frames on their way into the device.

use std::io::{self, IoSlice};

use proto::offload::join::{Joined, TCP_SEGMENTS_MAX};
use proto::offload::split::Split;
use proto::offload::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader};

use crate::context::{Context, FRAME_BYTES_MAX};
use crate::ports::Frames;
use boundary::counters::{Count, DropReason};

/// The output of frames for the local bridge.
pub(crate) struct Sink<'a, F> {
    pub(crate) cx: &'a Context<'a>,
    pub(crate) tap: &'a F,
    /// Room for two of the largest frames.
    pub(crate) scratch: &'a mut [u8],
}

impl<F: Frames> Sink<'_, F> {
    /// Writes one frame or super-frame to the device.
    pub(crate) fn inject(&mut self, frame: &Joined<'_>) {
        let header = frame.header.encode();
        let written = if frame.parts_len() == 1 && !frame.header.is_super() {
            let mut parts = frame.parts();
            let only = parts.next().unwrap_or_default();
            self.tap.write(&[IoSlice::new(&header), IoSlice::new(only)])
        } else if frame.header.is_super() && !self.takes(&frame.header) {
            return self.inject_segments(frame);
        } else {
            let mut pieces = [IoSlice::new(&[]); TCP_SEGMENTS_MAX + 1];
            pieces[0] = IoSlice::new(&header);
            for (piece, part) in pieces[1..].iter_mut().zip(frame.parts()) {
                *piece = IoSlice::new(part);
            }
            self.tap.write(&pieces[..=frame.parts_len()])
        };
        match written {
            Ok(()) => count(self.cx, frame.segments(), frame.frame_len()),
            Err(error) if frame.header.is_super() && is_refusal(&error) => {
                self.cx.shared.join.give_up(&error);
                self.inject_segments(frame);
            }
            Err(_) => fail(self.cx, frame.segments()),
        }
    }

    /// Returns true if the device takes such super-frames.
    fn takes(&self, header: &VnetHeader) -> bool {
        let kinds = self.cx.shared.join_kinds();
        match header.gso_type & !GSO_ECN {
            GSO_TCPV4 => kinds.tcp4,
            GSO_TCPV6 => kinds.tcp6,
            GSO_UDP_L4 => kinds.udp,
            _ => true,
        }
    }

    /// Writes the segments of a super-frame that the device does not take one by one.
    fn inject_segments(&mut self, frame: &Joined<'_>) {
        let (whole, segment) = self.scratch.split_at_mut(FRAME_BYTES_MAX);
        let copy = frame.copy_to(whole);
        let Some(Ok(split)) = copy.map(|copy| Split::new(frame.header, copy)) else {
            return fail(self.cx, frame.segments());
        };
        let header = VnetHeader::PLAIN.encode();
        for index in 0..split.segments() {
            let len = split.write_segment(index, segment);
            let pieces = [IoSlice::new(&header), IoSlice::new(&segment[..len])];
            match self.tap.write(&pieces) {
                Ok(()) => count(self.cx, 1, len),
                Err(_) => fail(self.cx, 1),
            }
        }
    }
}

fn count(cx: &Context<'_>, frames: usize, bytes: usize) {
    cx.counters.add(Count::TapWrites, 1);
    cx.counters.add(Count::Injected, frames);
    cx.counters.add(Count::InjectedBytes, bytes);
}

fn fail(cx: &Context<'_>, frames: usize) {
    cx.counters.drop(DropReason::TapFailed, frames);
}

/// Returns true if the device says that it takes no such super-frames, rather than that it is down
/// or full.
fn is_refusal(error: &io::Error) -> bool {
    error.raw_os_error() == Some(libc::EINVAL)
}
