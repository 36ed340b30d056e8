//! Frames on their way out of one thread, by whatever overlay their link speaks.

mod fit;
mod frames;
mod native;
mod packer;
mod sleeve;

use std::sync::Arc;

use proto::ethernet::HEADER_BYTES;
use proto::switch::Flood;
use proto::types::{PeerName, Time};

use crate::context::Context;
use crate::ports::Datagrams;
use boundary::counters::DropReason;
use boundary::snapshot::{Encap, Link};
use fit::Fit;
pub(crate) use frames::{Heading, OutFrames, Outcome};
use packer::Packer;

/// The output of one thread.
pub(crate) struct Output<D>(Packer<D>);

impl<D: Datagrams> Output<D> {
    /// Creates a way out by these sockets. `stream` is that of the thread on native links.
    pub(crate) fn new(datagrams: Arc<D>, stream: u8) -> Output<D> {
        Output(Packer::new(datagrams, stream))
    }

    /// Takes over the links of another snapshot. Nothing may be staged.
    pub(crate) fn reset(&mut self, cx: &Context<'_>) {
        self.0.reset(cx);
    }

    /// Returns when something that waits may leave.
    pub(crate) fn due(&self) -> Option<Time> {
        self.0.due()
    }

    /// Sends what has waited long enough.
    pub(crate) fn release(&mut self, cx: &Context<'_>) {
        self.0.release(cx);
    }

    /// Returns true if enough is staged to be sent although more input waits.
    pub(crate) fn is_filled(&self) -> bool {
        self.0.is_filled()
    }

    /// Sends everything that is staged.
    pub(crate) fn flush(&mut self, cx: &Context<'_>) {
        self.0.flush(cx);
    }

    /// Stages frames for a link.
    #[inline]
    pub(crate) fn send(&mut self, cx: &Context<'_>, to: Heading, frames: OutFrames<'_>) -> Outcome {
        let Some(link) = cx.snapshot.link(to.link) else {
            cx.counters.drop(DropReason::NoLink, frames.count());
            return Outcome::Done;
        };
        if frames.first().len() > cx.shared.frame_bytes_max
            && let Some(outcome) = self.send_large(cx, to, link, frames)
        {
            return outcome;
        }
        match &link.encap {
            Encap::Sleeve(tunnel) => self.0.send_sleeve(cx, to, tunnel, frames),
            Encap::Native(native) => self.0.send_native(cx, to, native, frames),
        }
    }

    /// Stages frames that are larger than containers of other hosts are sure to take. None if they
    /// are to leave as they are.
    #[cold]
    fn send_large(
        &mut self,
        cx: &Context<'_>,
        to: Heading,
        link: &Link,
        frames: OutFrames<'_>,
    ) -> Option<Outcome> {
        let link_mtu = match &link.encap {
            Encap::Sleeve(tunnel) => tunnel.mtu(),
            Encap::Native(native) => native.tunnel.mtu(),
        };
        let mtu = link_mtu.min(cx.shared.frame_bytes_max - HEADER_BYTES);
        match fit::choose(&frames, mtu, to.broadcast) {
            Fit::AsItIs => return None,
            Fit::TooBig => {
                cx.counters.drop(DropReason::TooBig, frames.count());
                return Some(Outcome::TooBig(mtu));
            }
            Fit::Fragment => {}
        }
        match &link.encap {
            Encap::Sleeve(tunnel) => {
                self.0.send_sleeve_fragments(cx, to, tunnel, (frames, mtu));
            }
            Encap::Native(native) => {
                self.0.send_native_fragments(cx, to, native, (frames, mtu));
            }
        }
        Some(Outcome::Done)
    }

    /// Stages a copy of frames that were captured at `source` for each neighbour of a flood.
    pub(crate) fn flood(
        &mut self,
        cx: &Context<'_>,
        source: PeerName,
        flood: Flood<'_>,
        frames: OutFrames<'_>,
    ) {
        for (dest, link) in flood.targets() {
            let Some(link) = link else {
                cx.counters.drop(DropReason::NoLink, frames.count());
                continue;
            };
            let heading = Heading {
                link,
                source,
                dest,
                broadcast: true,
            };
            if let Outcome::TooBig(_) = self.send(cx, heading, frames) {
                // Nobody is told of what goes to all.
            }
        }
    }
}
