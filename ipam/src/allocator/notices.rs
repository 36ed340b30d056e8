//! What people have been told, so that each thing is told once.

use std::collections::BTreeSet;

use proto::types::PeerName;

use super::api::Alarm;

/// Most alarms and refused messages that are remembered so as to tell each only once; beyond,
/// they are forgotten and may be told again.
const NOTICES_MAX: usize = 1024;

/// The alarms that last, and the messages that were refused.
#[derive(Debug, Default)]
pub(super) struct Notices {
    alarms: BTreeSet<Alarm>,
    refused: BTreeSet<(PeerName, String)>,
    /// Why the store did not take what was last to be saved.
    pub(super) store_error: Option<String>,
}

impl Notices {
    /// The alarms that last.
    pub(super) fn alarms(&self) -> impl Iterator<Item = &Alarm> {
        self.alarms.iter()
    }

    /// Notes an alarm. Returns true if it is new.
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

    /// Notes that a message of a peer was refused. Returns true if that mistake of it is new.
    pub(super) fn refuse(&mut self, from: PeerName, error: &str) -> bool {
        if self.refused.len() >= NOTICES_MAX {
            self.refused.clear();
        }
        self.refused.insert((from, error.to_owned()))
    }

    /// Forgets the mistakes of a peer.
    pub(super) fn forgive(&mut self, peer: PeerName) {
        self.refused.retain(|(from, _)| *from != peer);
    }
}
