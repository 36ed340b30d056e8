//! Outputs that collect in a node until its driver takes them.

use std::collections::VecDeque;

use super::event::Event;
use super::output::Output;

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Connections that ended, introduced or not.
    pub terminations: u64,
    /// Accepted connections that were closed to make room for others.
    pub strangers_dropped: u64,
    /// How often an overlay was put on hold.
    pub overlay_holds: u64,
    /// How often an overlay failed while its connection continued.
    pub overlay_failures: u64,
    /// Gossip messages sent, relayed unicasts aside.
    pub gossip_sent: u64,
    /// Bytes of their payloads.
    pub gossip_sent_bytes: u64,
    /// Gossip messages received for us.
    pub gossip_received: u64,
    /// Bytes of their payloads.
    pub gossip_received_bytes: u64,
    /// Payloads that were dropped because too much waited, or because there were too many channels.
    pub gossip_dropped: u64,
    /// Unicasts that were dropped without a route or without room.
    pub unicasts_dropped: u64,
    /// Messages that had no meaning on their connection.
    pub messages_ignored: u64,
    /// Entries of topology updates that exceeded limits.
    pub topology_ignored: u64,
    /// Entries of our own peer that somebody forged, and that were replaced by ours.
    pub forgeries: u64,
    /// Number of calculations of routes.
    pub route_calculations: u64,
}

/// Outputs, in order, and counts that collect until the driver takes them.
#[derive(Debug, Default)]
pub(super) struct Sink {
    pub(super) outputs: VecDeque<Output>,
    pub(super) counters: Counters,
}

impl Sink {
    pub(super) fn push(&mut self, output: Output) {
        self.outputs.push_back(output);
    }

    pub(super) fn event(&mut self, event: Event) {
        self.push(Output::Event(event));
    }
}
