//! Alarms and refused messages that were reported, so that each is reported once.

use std::collections::BTreeSet;

use proto::types::PeerName;

use super::api::Alarm;

/// Maximum number of alarms and refused messages that are remembered. Beyond it, they are forgotten
/// and may be reported again.
const NOTICES_MAX: usize = 1024;

/// The current alarms, and the refused messages.
#[derive(Debug, Default)]
pub(super) struct Notices {
    alarms: BTreeSet<Alarm>,
    refused: BTreeSet<(PeerName, String)>,
    /// Why the store failed last.
    pub(super) store_error: Option<String>,
}

impl Notices {
    /// Returns the current alarms.
    pub(super) fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.iter()
    }

    /// Records an alarm. Returns true if it is new.
    pub(super) fn raise(&mut self, alarm: &Alarm) -> bool {
        if self.alarms.len() >= NOTICES_MAX {
            self.alarms.clear();
        }
        self.alarms.insert(alarm.clone())
    }

    /// Ends the alarms that are over.
    pub(super) fn end(&mut self, over: impl Fn(&Alarm) -> bool) {
        self.alarms.retain(|alarm| !over(alarm));
    }

    /// Records that a message of a peer was refused. Returns true if this error of the peer is new.
    pub(super) fn refuse(&mut self, from: PeerName, error: &str) -> bool {
        if self.refused.len() >= NOTICES_MAX {
            self.refused.clear();
        }
        self.refused.insert((from, error.to_owned()))
    }

    /// Forgets the errors of a peer.
    pub(super) fn forgive(&mut self, peer: PeerName) {
        self.refused.retain(|(from, _)| *from != peer);
    }
}
