//! Frames on their way out over a sleeve link, in Weave Net's own format.

use proto::ethernet::HEADER_BYTES;
use proto::sleeve::fragment::Fragments;
use proto::sleeve::{self, Channel, Choice, PacketBuilder, Tunnel};
use proto::switch::LinkIndex;

use super::frames::{Heading, OutFrames, Outcome};
use super::packer::{OpenSleeve, Packer};
use crate::context::Context;
use crate::ports::Datagrams;
use boundary::counters::{Count, DropReason};

/// Size in bytes up to which small frames fill a packet on a path that would take more. Larger
/// packets save little and delay their first frame.
const PACKED_BYTES_MAX: usize = 9000;
impl<D: Datagrams> Packer<D> {
    /// Stages frames for a sleeve link.
    pub(super) fn send_sleeve(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        tunnel: &Tunnel,
        frames: OutFrames<'_>,
    ) -> Outcome {
        // Segments differ in length only, and none is longer than the first.
        match sleeve::choose(tunnel, frames.first(), to.broadcast) {
            Choice::Send(channel) => match frames {
                OutFrames::Whole(frame) => {
                    if let Some(space) = self.space(cx, to, tunnel, channel, frame.len()) {
                        space.copy_from_slice(frame);
                    }
                }
                OutFrames::Open(frame) => {
                    let len = frame.bytes().len();
                    if let Some(space) = self.space(cx, to, tunnel, channel, len) {
                        frame.write_complete(space);
                    }
                }
                OutFrames::Super(split) => {
                    for index in 0..split.segments() {
                        let len = split.segment_len(index);
                        if let Some(space) = self.space(cx, to, tunnel, channel, len) {
                            split.write_segment(index, space);
                        }
                    }
                }
            },
            Choice::Fragment => {
                self.send_sleeve_fragments(cx, to, tunnel, (frames, tunnel.mtu()));
            }
            Choice::TooBig => {
                let cut = frames.as_super();
                if let Some(cut) = cut.and_then(|cut| cut.cut_to(tunnel.mtu() + HEADER_BYTES)) {
                    cx.counters
                        .add(Count::Made, cut.segments() - frames.count());
                    // What fits is not too big, so this comes here once.
                    return self.send_sleeve(cx, to, tunnel, OutFrames::Super(&cut));
                }
                cx.counters.drop(DropReason::TooBig, frames.count());
                return Outcome::TooBig(tunnel.mtu());
            }
            Choice::Drop(reason) => cx.counters.drop(reason.into(), frames.count()),
        }
        Outcome::Done
    }

    /// Stages fragments of IPv4 packets, each with at most `mtu` bytes.
    pub(super) fn send_sleeve_fragments(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        tunnel: &Tunnel,
        (frames, mtu): (OutFrames<'_>, usize),
    ) {
        let mut scratch = std::mem::take(&mut self.scratch);
        for index in 0..frames.count() {
            let frame = frames.complete(index, &mut scratch);
            match Fragments::new(frame, mtu) {
                Err(_) => cx.counters.drop(DropReason::Oversized, 1),
                Ok(fragments) => {
                    cx.counters.add(Count::Made, fragments.count() - 1);
                    for part in 0..fragments.count() {
                        let len = fragments.frame_len(part);
                        if let Some(space) = self.space(cx, to, tunnel, Channel::Df, len) {
                            fragments.write(part, space);
                        }
                    }
                }
            }
        }
        self.scratch = scratch;
    }

    /// Returns the place of a frame of `len` bytes in a packet of the link. None if there is no
    /// packet that it fits; the frame is then counted as dropped.
    #[inline]
    fn space(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        tunnel: &Tunnel,
        channel: Channel,
        len: usize,
    ) -> Option<&mut [u8]> {
        let fits = |open: &OpenSleeve| {
            open.builder.fits(len)
                && open.builder.len() + sleeve::wire::FRAME_HEADER_BYTES + len <= open.room
        };
        let lane = self.lane(to.link)?;
        if !lane.open[channel.index()].as_ref().is_some_and(fits) {
            self.close(cx, to.link, tunnel, channel);
            self.open(cx, to.link, tunnel, channel, len);
        }
        let (lane, arena) = self.lane_and_arena(to.link)?;
        let open = lane.open[channel.index()].as_mut()?;
        let buffer = arena.get_mut(open.start..open.start + open.room)?;
        let space = open.builder.append(buffer, to.source, to.dest, len);
        if space.is_none() {
            cx.counters.drop(DropReason::Oversized, 1);
        }
        space
    }

    /// Starts a packet that takes at least a frame of `len` bytes.
    fn open(
        &mut self,
        cx: &Context<'_>,
        link: LinkIndex,
        tunnel: &Tunnel,
        channel: Channel,
        len: usize,
    ) {
        let builder = PacketBuilder::new(tunnel, channel);
        let needed = builder.len() + sleeve::wire::FRAME_HEADER_BYTES + len;
        let room = needed.max(tunnel.max_payload().min(PACKED_BYTES_MAX));
        let start = self.reserve(cx, room);
        if let Some(lane) = self.busy_lane(link) {
            lane.open[channel.index()] = Some(OpenSleeve {
                builder,
                start,
                room,
            });
        }
    }
}
