//! A data plane that carries nothing and notes what it was told.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::native::Report;
use proto::sleeve::{LinkId, Special, Tunnel};
use proto::switch::{MacEntry, PeerSlot};
use proto::types::Time;

use crate::counters::Totals;
use crate::forwarding::{Figures, Forwarding, ForwardingStatus, SendError};
use crate::snapshot::{NativeLink, Snapshot};

/// Calls recorded by a [`Recorder`]. All clones share them.
#[derive(Clone, Debug, Default)]
pub struct Recorded(Arc<Mutex<Told>>);

#[derive(Debug, Default)]
struct Told {
    snapshots: usize,
    specials: Vec<(LinkId, Special)>,
    reports: usize,
    forgotten: Vec<PeerSlot>,
    sweeps: usize,
    /// Whether everything that is to be sent is refused.
    refusing: bool,
}

/// The data plane.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Recorded);

impl Recorder {
    /// Returns what it was told.
    pub fn recorded(&self) -> Recorded {
        self.0.clone()
    }
}

impl Recorded {
    /// Returns how many snapshots were published.
    pub fn snapshots(&self) -> usize {
        self.told().snapshots
    }

    /// Returns the special frames that were sent, with their links.
    pub fn specials(&self) -> Vec<(LinkId, Special)> {
        self.told().specials.clone()
    }

    /// Returns how many reports were sent.
    pub fn reports(&self) -> usize {
        self.told().reports
    }

    /// Returns the peers whose MAC addresses were forgotten.
    pub fn forgotten(&self) -> Vec<PeerSlot> {
        self.told().forgotten.clone()
    }

    /// Returns how often old MAC addresses were swept out.
    pub fn sweeps(&self) -> usize {
        self.told().sweeps
    }

    /// Refuses everything that is to be sent from now on, or takes it again.
    pub fn set_refusing(&self, refusing: bool) {
        self.told().refusing = refusing;
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarding for Recorder {
    fn publish(&mut self, _: Snapshot) {
        self.0.told().snapshots += 1;
    }

    fn send_special(&mut self, tunnel: &Tunnel, special: Special) -> Result<(), SendError> {
        let mut told = self.0.told();
        if told.refusing {
            return Err(SendError::DoesNotFit);
        }
        told.specials.push((tunnel.id(), special));
        Ok(())
    }

    fn send_report(&mut self, _: &NativeLink, _: &Report, _: usize) -> Result<(), SendError> {
        let mut told = self.0.told();
        if told.refusing {
            return Err(SendError::DoesNotFit);
        }
        told.reports += 1;
        Ok(())
    }

    fn forget_peer(&mut self, peer: PeerSlot) {
        self.0.told().forgotten.push(peer);
    }

    fn expire(&mut self, _: Time) {
        self.0.told().sweeps += 1;
    }
}

impl Figures for Recorded {
    fn counters(&self) -> Totals {
        Totals::default()
    }

    fn status(&self) -> ForwardingStatus {
        ForwardingStatus::default()
    }

    fn macs(&self) -> Vec<MacEntry> {
        Vec::new()
    }
}
