//! The channel of the ring.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use proto::types::{PeerName, Time};

use super::super::api::{Alarm, Event, Output};
use super::super::cx::Cx;
use super::super::effects::Effect;
use super::referee::Referee;
use crate::consensus::Nodes;
use crate::messages::{Received, RingDigest, decode_state};
use crate::range::{Address, Range};
use crate::ring::{MergeError, Ring, VERSION_MAX};

/// How long our state is held back on a new link until the neighbour's arrives.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
const LINK_HOLD: Duration = Duration::from_secs(1);
/// Number of received rings without news that are remembered by their digest.
const DIGESTS_MAX: usize = 16;

/// Source of a ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Source {
    /// The peer that made the message; unknown for gossip.
    pub(crate) sender: Option<PeerName>,
    /// The peer whose state it carries: the sender of a unicast, else the neighbour that sent this
    /// hop.
    pub(crate) via: PeerName,
}

impl Source {
    /// Returns a state that this peer sent us and made.
    pub(crate) fn made_by(peer: PeerName) -> Source {
        Source {
            sender: Some(peer),
            via: peer,
        }
    }
}

/// The parts of a message about the ring that other machines act on.
pub(crate) enum Heard {
    /// Nothing.
    Nothing,
    /// It was of no use.
    Refused,
    /// Messages of electors.
    Election(Nodes),
    /// Its sender asks for a ring.
    RingWanted,
}

#[derive(Debug)]
struct HeldLink {
    neighbour: PeerName,
    until: Time,
}

/// Peers that were heard, and messages that are held back.
#[derive(Debug, Default)]
pub(crate) struct RingChannel {
    /// Digests of rings that brought nothing new.
    digests: VecDeque<RingDigest>,
    /// States that wait for the neighbour's on a new link.
    links: BTreeMap<u64, HeldLink>,
}

impl RingChannel {
    pub(crate) fn next_wake(&self) -> Option<Time> {
        self.links.values().map(|link| link.until).min()
    }

    /// Forgets which rings brought nothing new, as ours is another one.
    pub(crate) fn forget_digests(&mut self) {
        self.digests.clear();
    }

    /// Sends what was held back for too long.
    pub(crate) fn timeout(&mut self, cx: &mut Cx) {
        let now = cx.clock.now;
        self.release_links(cx, |link| link.until <= now);
    }

    /// Sends what was held back until the neighbour's state came.
    pub(crate) fn release(&mut self, cx: &mut Cx, neighbour: PeerName) {
        self.release_links(cx, |link| link.neighbour == neighbour);
    }

    /// Takes a `gossipState`.
    ///
    /// Rule: `docs/protocol/ipam.md#6-3-state`.
    pub(crate) fn hear(&mut self, cx: &mut Cx, source: Source, message: &[u8]) -> Heard {
        let digests = &self.digests;
        let received = match decode_state(message, |digest| digests.contains(digest)) {
            Ok(received) => received,
            Err(error) => {
                cx.refuse(source.via, error.to_string());
                return Heard::Refused;
            }
        };
        let Received {
            state,
            digest,
            known,
        } = received;
        for (peer, nickname) in state.nicknames {
            cx.members.hear_nickname(peer, nickname);
        }
        if known {
            cx.effect(Effect::HeardRing(source.via));
            return Heard::Nothing;
        }
        if let Some((_, ring)) = state.ring {
            let Some(changed) = self.merge_ring(cx, source, &ring) else {
                return Heard::Refused;
            };
            if let (false, Some(digest)) = (changed, digest) {
                self.digests.truncate(DIGESTS_MAX - 1);
                self.digests.push_front(digest);
            }
            cx.effect(Effect::HeardRing(source.via));
        } else if !cx.durable.ring().is_empty() {
            if let Some(sender) = source.sender {
                cx.send_ring(sender);
            }
        } else if let Some(nodes) = state.election {
            return Heard::Election(nodes);
        } else if cx.elector.is_some() && source.sender.is_some() {
            // The sender is an observer that needs a ring. Observers gossip the same state all the
            // time, so only a deliberate message, whose sender is known, starts an election.
            return Heard::RingWanted;
        }
        Heard::Nothing
    }

    /// Merges a ring. Returns `None` if it was refused, or else whether it changed anything.
    ///
    /// Rule: `docs/protocol/ipam.md#3-merge`.
    fn merge_ring(&mut self, cx: &mut Cx, source: Source, theirs: &Ring) -> Option<bool> {
        if theirs.universe() != cx.durable.ring().universe() && !yield_universe(cx, source, theirs)
        {
            universe_differs(cx, source.via, theirs.universe());
            return None;
        }
        if let Some(entry) = theirs.entries.iter().find(|e| e.version > VERSION_MAX) {
            let (token, version) = (entry.token, entry.version);
            cx.refuse(
                source.via,
                format!("version {version} of the entry at {token}"),
            );
            return None;
        }
        let first = cx.durable.ring().is_empty() && !theirs.is_empty();
        let mut rules = Referee::new(&cx.durable, &cx.members);
        let merged = match cx.durable.try_merge(theirs, &mut rules) {
            Ok(merged) => merged,
            Err(failed) => {
                merge_failed(cx, source, theirs, &failed.error);
                return None;
            }
        };
        let Referee { ties, taken_by, .. } = rules;
        if taken_by.is_empty()
            && let Some(error) = cx.durable.loses_used(&merged)
        {
            merge_failed(cx, source, theirs, &error);
            return None;
        }
        heard_well(cx, source.via);
        let changed = !merged.changes.is_empty() || merged.seeds.is_some() || !ties.is_empty();
        let updated = merged.updated || first;
        if changed {
            let moved = cx.durable.apply(merged);
            if first {
                cx.event(Event::RingReceived(source.via));
                cx.hold_back_forgotten();
            }
            for (by, used) in taken_by {
                cx.alarm(Alarm::TakenFromUs { by, used });
            }
            if updated {
                cx.ring_changed(&moved);
            }
        }
        for (token, other) in ties {
            settle_tie(cx, token, other);
        }
        Some(changed)
    }

    pub(crate) fn state_wanted(
        &mut self,
        cx: &mut Cx,
        token: u64,
        neighbour: Option<PeerName>,
        new_link: bool,
    ) {
        if let (Some(neighbour), true) = (neighbour, new_link) {
            let until = cx.clock.now + LINK_HOLD;
            self.links.insert(token, HeldLink { neighbour, until });
            return;
        }
        answer_state(cx, token, neighbour);
    }

    /// Sends the states that were held back on new links.
    fn release_links(&mut self, cx: &mut Cx, which: impl Fn(&HeldLink) -> bool) {
        let held = self.links.iter().filter(|(_, link)| which(link));
        let tokens: Vec<(u64, PeerName)> = held.map(|(t, link)| (*t, link.neighbour)).collect();
        for (token, neighbour) in tokens {
            self.links.remove(&token);
            answer_state(cx, token, Some(neighbour));
        }
    }
}

/// Handles that we and `other` own one entry at the same version. The entry whose version is raised
/// wins everywhere; the increments differ, so that two routers that do this at once do not tie
/// again.
///
/// Rule: `docs/protocol/ipam.md#3-4-contests`.
fn settle_tie(cx: &mut Cx, token: Address, other: PeerName) {
    cx.alarm(Alarm::TwoOwners { token, other });
    let step = if cx.durable.us() < other { 2 } else { 1 };
    cx.durable
        .change_ring(|ring| ring.assert_entry(token, step));
    cx.emit(Output::BroadcastState);
}

/// Rule: `docs/protocol/ipam.md#11-weft`.
fn merge_failed(cx: &mut Cx, source: Source, theirs: &Ring, error: &MergeError) {
    match error {
        MergeError::Seeds => {
            let alarm = Alarm::Seeds {
                via: source.via,
                theirs: cx.members.describe_all(&theirs.seeds),
                ours: cx.members.describe_all(&cx.durable.ring().seeds),
            };
            cx.members.silence(source.via, alarm.clone());
            cx.alarm(alarm);
        }
        MergeError::Invalid(_) | MergeError::Result(_) | MergeError::Universe => {
            cx.refuse(source.via, error.to_string());
        }
        MergeError::EntryInMyRange { .. }
        | MergeError::Inconsistent { .. }
        | MergeError::NewerVersion { .. }
        | MergeError::InUse(_) => {
            let error = error.to_string();
            cx.alarm(Alarm::Conflict {
                via: source.via,
                error,
            });
        }
    }
}

/// Rule: `docs/protocol/ipam.md#11-weft`.
fn universe_differs(cx: &mut Cx, via: PeerName, theirs: Range) {
    let ours = cx.durable.ring().universe();
    let alarm = Alarm::Universe { via, theirs, ours };
    cx.members.silence(via, alarm.clone());
    cx.alarm(alarm);
}

/// Handles that a ring of this neighbour was merged.
fn heard_well(cx: &mut Cx, via: PeerName) {
    if let Some(alarm) = cx.members.unsilence(via) {
        cx.notices.end(|other| *other == alarm);
    }
    cx.notices
        .end(|alarm| matches!(alarm, Alarm::Conflict { via: v, .. } if *v == via));
    cx.notices.forgive(via);
}

/// Replaces a universe that was only a default, if nothing was allocated from it.
///
/// Rule: `docs/protocol/ipam.md#11-weft`.
fn yield_universe(cx: &mut Cx, source: Source, theirs: &Ring) -> bool {
    let [theirs] = theirs.universe().cidrs()[..] else {
        return false;
    };
    cx.adopt_universe(source.via, theirs)
}

/// Rule: `docs/protocol/ipam.md#6-3-state`.
fn answer_state(cx: &mut Cx, token: u64, neighbour: Option<PeerName>) {
    let silent = neighbour.is_some_and(|neighbour| cx.members.is_silent(neighbour));
    let payload = (!silent).then(|| cx.ring_payload());
    cx.emit(Output::State { token, payload });
}
