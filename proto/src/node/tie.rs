//! Two connections to one peer.

use super::connection::Member;
use super::connections::Connections;
use super::event::CloseReason;
use crate::types::{ConnId, PeerName};

/// There is another connection to the same peer: which, and the decision on both.
#[derive(Debug)]
pub(super) struct Tie {
    pub(super) other: ConnId,
    /// Reason why the other one is closed, if it is.
    pub(super) other_ends: Option<CloseReason>,
    /// Reason why the new one is closed, if it is.
    pub(super) new_ends: Option<CloseReason>,
}

impl Connections {
    /// Of two connections to one peer, the one with the lower UID stays; both ends come to the same
    /// result. A connection to an earlier start of the peer is dead, whatever its UID.
    pub(super) fn tie(&self, us: PeerName, new: &Member) -> Option<Tie> {
        let other = self.of_peer(new.peer)?;
        let member = self.conns.get(&other)?.member.as_ref()?;
        if member.peer_uid != new.peer_uid {
            return Some(Tie {
                other,
                other_ends: Some(CloseReason::Restarted(new.peer)),
                new_ends: None,
            });
        }
        let duplicate = || CloseReason::Duplicate(new.peer, us);
        Some(Tie {
            other,
            other_ends: (new.uid <= member.uid).then(duplicate),
            new_ends: (new.uid >= member.uid).then(duplicate),
        })
    }
}
