//! The port between control and the data plane, and what pages read of it.

use std::io;

use proto::native::Report;
use proto::sleeve::{Special, Tunnel};
use proto::switch::{MacEntry, PeerSlot};
use proto::types::Time;

use crate::counters::Totals;
use crate::snapshot::{NativeLink, Snapshot};

/// Carries frames as it is told. Nothing here waits for a frame.
pub trait Forwarding: Send {
    /// Makes the data threads use another snapshot from their next batch on.
    fn publish(&mut self, snapshot: Snapshot);

    /// Sends a special frame at once, down the tunnel of a sleeve link.
    fn send_special(&mut self, tunnel: &Tunnel, special: Special) -> Result<(), SendError>;

    /// Sends a report at once over a native link, in a datagram of `bytes` bytes.
    fn send_report(
        &mut self,
        link: &NativeLink,
        report: &Report,
        bytes: usize,
    ) -> Result<(), SendError>;

    /// Forgets the MAC addresses behind a peer that is gone.
    fn forget_peer(&mut self, peer: PeerSlot);

    /// Forgets MAC addresses that were not seen for long.
    fn expire(&mut self, now: Time);
}

/// Why a special frame or a report was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    /// The neighbour's address is not known yet.
    #[error("address of the neighbour is not known yet")]
    NoAddress,
    /// It is larger than packets of this link may be.
    #[error("frame does not fit the link")]
    DoesNotFit,
    /// It exceeds the path MTU that the kernel knows, which is given.
    #[error("packet exceeds the path MTU of {0}")]
    TooBig(u32),
    /// The kernel did not take it.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

/// Readable state of the data plane: read from its atomics, at no cost to the threads that carry
/// frames.
pub trait Figures: Send + Sync {
    /// Returns the counters of all threads, summed.
    fn counters(&self) -> Totals;

    /// Returns what is in force.
    fn status(&self) -> ForwardingStatus;

    /// Returns the MAC table, in no order.
    fn macs(&self) -> Vec<MacEntry>;
}

/// Features in force in the data plane, in words for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ForwardingStatus {
    /// Pairs of threads.
    pub queues: usize,
    /// Offloads of the TAP device.
    pub tap_offload: String,
    /// Cutting of sent datagrams by the kernel.
    pub udp_gso: String,
    /// Putting together of received datagrams by the kernel.
    pub udp_gro: String,
    /// Joining of received segments.
    pub join: String,
    /// Bytes of the receive buffer in force.
    pub receive_buffer: usize,
    /// Datagrams that the kernel dropped because a receive buffer was full.
    pub kernel_drops: u64,
}
