//! Frames on their way out over a native link.
//!
//! Small frames are packed into one datagram, as long as they concern the same two peers. A
//! super-frame becomes a train of datagrams of equal size, written and sealed one after the other
//! where they will be sent from.

use proto::native::choice::{Choice, choose};
use proto::native::chunk::Chunks;
use proto::native::tunnel::records_room;
use proto::native::wire::{
    HEADER_BYTES, Kind, NAMES_BYTES, Names, RECORD_BYTES, TAG_BYTES, encode_frame,
};
use proto::sleeve::fragment::Fragments;

use super::frames::{Heading, OutFrames, Outcome};
use super::packer::{OpenNative, Packer, Packet};
use crate::context::Context;
use crate::ports::Datagrams;
use crate::udp::way::Way;
use boundary::counters::{Count, DropReason};
use boundary::snapshot::NativeLink;

/// Size in bytes up to which small frames fill a datagram on a path that would take more. Larger
/// datagrams save little and delay their first frame.
const PACKED_BYTES_MAX: usize = 9000;

impl<D: Datagrams> Packer<D> {
    /// Stages frames for a native link.
    #[inline]
    pub(super) fn send_native(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        frames: OutFrames<'_>,
    ) -> Outcome {
        let max_payload = link.tunnel.max_payload();
        let (bytes, is_open) = match frames {
            OutFrames::Whole(frame) => (frame, false),
            OutFrames::Open(frame) => (frame.bytes(), true),
            OutFrames::Super(split) => {
                if let Some(chunks) = Chunks::new(split, max_payload) {
                    self.send_chunks(cx, to, link, &chunks);
                    return Outcome::Done;
                }
                return self.send_segments(cx, to, link, frames);
            }
        };
        match choose(max_payload, bytes, to.broadcast) {
            Choice::Fits => {
                self.pack(cx, to, link, bytes, is_open);
                Outcome::Done
            }
            choice => self.send_too_large(cx, to, link, frames, choice),
        }
    }

    /// Stages the segments of a super-frame that cannot be cut into chunks.
    fn send_segments(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        frames: OutFrames<'_>,
    ) -> Outcome {
        let choice = choose(link.tunnel.max_payload(), frames.first(), to.broadcast);
        if choice == Choice::TooBig {
            cx.counters.drop(DropReason::TooBig, frames.count());
            return Outcome::TooBig(link.tunnel.mtu());
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..frames.count() {
            let frame = OutFrames::Whole(frames.complete(index, &mut scratch));
            // Segments are not longer than the first, so none is too big.
            let _ = self.send_native(cx, to, link, frame);
        }
        self.scratch = scratch;
        Outcome::Done
    }

    /// Deals with a frame that does not fit a datagram.
    #[cold]
    fn send_too_large(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        frames: OutFrames<'_>,
        choice: Choice,
    ) -> Outcome {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut outcome = Outcome::Done;
        match choice {
            Choice::Fits => {}
            Choice::Chunks => {
                let split = frames.as_super();
                let chunks = split
                    .as_ref()
                    .and_then(|split| Chunks::new(split, link.tunnel.max_payload()));
                match chunks {
                    Some(chunks) => self.send_chunks(cx, to, link, &chunks),
                    None => {
                        let frame = frames.complete(0, &mut scratch);
                        self.send_oversize(cx, to, link, frame);
                    }
                }
            }
            Choice::Oversize => {
                let frame = frames.complete(0, &mut scratch);
                self.send_oversize(cx, to, link, frame);
            }
            Choice::Fragment => {
                let frame = frames.complete(0, &mut scratch);
                self.fragment_native(cx, to, link, (frame, link.tunnel.mtu()));
            }
            Choice::TooBig => {
                cx.counters.drop(DropReason::TooBig, 1);
                outcome = Outcome::TooBig(link.tunnel.mtu());
            }
            Choice::DropBroadcast => cx.counters.drop(DropReason::TooBigBroadcast, 1),
            Choice::Drop => cx.counters.drop(DropReason::Oversized, 1),
        }
        self.scratch = scratch;
        outcome
    }

    /// Stages fragments of IPv4 packets, each with at most `mtu` bytes.
    pub(super) fn send_native_fragments(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        (frames, mtu): (OutFrames<'_>, usize),
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..frames.count() {
            let frame = frames.complete(index, &mut scratch);
            self.fragment_native(cx, to, link, (frame, mtu));
        }
        self.scratch = scratch;
    }

    /// Stages the fragments of an IPv4 packet, each with at most `mtu` bytes.
    fn fragment_native(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        (frame, mtu): (&[u8], usize),
    ) {
        let Ok(fragments) = Fragments::new(frame, mtu) else {
            return cx.counters.drop(DropReason::Oversized, 1);
        };
        cx.counters.add(Count::Made, fragments.count() - 1);
        for part in 0..fragments.count() {
            let len = fragments.frame_len(part);
            if let Some(space) = self.native_space(cx, to, link, len, false) {
                fragments.write(part, space);
            }
        }
    }

    /// Adds a frame to the datagram that is being filled.
    #[inline]
    fn pack(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        frame: &[u8],
        is_open: bool,
    ) {
        if let Some(space) = self.native_space(cx, to, link, frame.len(), is_open) {
            space.copy_from_slice(frame);
        }
    }

    /// Returns the place of a frame of `len` bytes in a datagram of the link. None if it does not
    /// fit, and then it is counted as dropped.
    #[inline]
    fn native_space(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        len: usize,
        is_open: bool,
    ) -> Option<&mut [u8]> {
        let names = names(to);
        let needed = RECORD_BYTES + len;
        let fits =
            |open: &OpenNative| open.names == names && open.len + needed + TAG_BYTES <= open.room;
        let is_ready = self.lane(to.link)?.native.as_ref().is_some_and(fits);
        if !is_ready {
            let max_payload = link.tunnel.max_payload();
            let record_len = u16::try_from(len).ok();
            if record_len.is_none() || needed > records_room(max_payload) {
                cx.counters.drop(DropReason::Oversized, 1);
                return None;
            }
            self.close_native(cx, to.link, link);
            let room = max_payload
                .min(PACKED_BYTES_MAX)
                .max(HEADER_BYTES + NAMES_BYTES + needed + TAG_BYTES);
            let start = self.reserve(cx, room);
            self.busy_lane(to.link)?.native = Some(OpenNative {
                names,
                start,
                room,
                len: HEADER_BYTES + NAMES_BYTES,
                frames: 0,
            });
        }
        let open = self.lane(to.link)?.native.as_mut()?;
        let start = open.start + open.len;
        open.len += needed;
        open.frames += 1;
        let space = self.reserved(start, needed);
        let (record, space) = space.split_at_mut_checked(RECORD_BYTES)?;
        record.copy_from_slice(&encode_frame(len as u16, is_open));
        Some(space)
    }

    /// Stages a train of chunks, after whatever was packed for the link before.
    fn send_chunks(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &NativeLink,
        chunks: &Chunks<'_>,
    ) {
        self.close_native(cx, to.link, link);
        let segments = || {
            (0..chunks.count())
                .map(|index| chunks.segments(index))
                .sum()
        };
        let Some(remote) = link.tunnel.remote() else {
            return cx.counters.drop(DropReason::NoAddress, segments());
        };
        let stream = self.stream;
        let Some(first) = link.key.draw(stream, chunks.count() as u32) else {
            return cx.counters.drop(DropReason::KeyWorn, segments());
        };
        let names = names(to);
        for (index, counter) in (0..chunks.count()).zip(first..=u32::MAX) {
            let len = chunks.datagram_len(index);
            let frames = chunks.segments(index);
            let start = self.reserve(cx, len);
            let datagram = self.reserved(start, len);
            if !chunks.write(index, &names, datagram)
                || !link.key.seal(Kind::Frames, stream, counter, datagram)
            {
                cx.counters.drop(DropReason::Oversized, frames);
                continue;
            }
            let packet = Packet {
                link: to.link,
                start,
                len,
                frames,
                segmentable: true,
            };
            self.stage(cx, Way::Native, remote, packet);
        }
    }

    /// Stages a frame in a datagram of its own, which the kernel may fragment.
    fn send_oversize(&mut self, cx: &Context<'_>, to: Heading, link: &NativeLink, frame: &[u8]) {
        self.close_native(cx, to.link, link);
        let Ok(record_len) = u16::try_from(frame.len()) else {
            return cx.counters.drop(DropReason::Oversized, 1);
        };
        let Some(remote) = link.tunnel.remote() else {
            return cx.counters.drop(DropReason::NoAddress, 1);
        };
        let stream = self.stream;
        let Some(counter) = link.key.draw(stream, 1) else {
            return cx.counters.drop(DropReason::KeyWorn, 1);
        };
        let len = HEADER_BYTES + NAMES_BYTES + RECORD_BYTES + frame.len() + TAG_BYTES;
        let start = self.reserve(cx, len);
        let datagram = self.reserved(start, len);
        let record = encode_frame(record_len, false);
        let mut at = HEADER_BYTES;
        for piece in [&names(to)[..], &record, frame] {
            if let Some(space) = datagram.get_mut(at..at + piece.len()) {
                space.copy_from_slice(piece);
            }
            at += piece.len();
        }
        if !link.key.seal(Kind::Frames, stream, counter, datagram) {
            return cx.counters.drop(DropReason::Oversized, 1);
        }
        let packet = Packet {
            link: to.link,
            start,
            len,
            frames: 1,
            segmentable: false,
        };
        self.stage(cx, Way::NonDf, remote, packet);
    }
}

fn names(to: Heading) -> [u8; NAMES_BYTES] {
    Names {
        source: to.source,
        destination: to.dest,
    }
    .encode()
}
