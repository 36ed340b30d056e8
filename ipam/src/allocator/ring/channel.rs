//! The channel of the ring: what others say, and what we say.

use std::collections::BTreeMap;

use proto::types::PeerName;

use super::super::durable::Durable;
use super::super::members::Members;
use super::super::{
    Alarm, Allocator, Channel, DIGESTS_MAX, Delivery, Event, HeldLink, Incoming, LINK_HOLD, Output,
};
use crate::messages::{Received, Unicast, decode_state};
use crate::range::{Address, Range};
use crate::ring::{Contest, ContestKind, Decision, MergeError, Ring, Rules};

/// Where a ring came from.
#[derive(Clone, Copy, Debug)]
pub(in crate::allocator) struct Source {
    /// The peer that made the message; not known of gossip.
    pub(in crate::allocator) sender: Option<PeerName>,
    /// Whose state it carries: the sender of a unicast, else the neighbour that sent this hop.
    pub(in crate::allocator) via: PeerName,
}

impl Allocator {
    pub(in crate::allocator) fn on_ring_message(&mut self, message: &Incoming<'_>) {
        let via = message.via;
        match message.kind {
            Delivery::Unicast(from) => match Unicast::decode(message.payload) {
                Ok(Unicast::SpaceRequest(range)) => self.on_space_request(from, range),
                Ok(Unicast::SpaceDenied(range)) => self.on_space_denied(from, range),
                Ok(Unicast::RingUpdate(state)) => {
                    let source = Source {
                        sender: Some(from),
                        via: from,
                    };
                    self.on_state(source, state);
                    self.questions.space.answered(from);
                    self.note_kept_strays(from);
                    self.try_again();
                }
                Ok(Unicast::Unknown(kind)) => {
                    self.refuse(from, format!("unknown kind {kind} of message"));
                }
                Err(error) => self.refuse(from, error.to_string()),
            },
            Delivery::Broadcast(source) => {
                let relay = Output::Relay {
                    channel: Channel::Ring,
                    source,
                    payload: None,
                };
                let source = Source {
                    sender: Some(source),
                    via,
                };
                if self.on_state(source, message.payload) {
                    self.emit(relay);
                }
            }
            Delivery::Gossip => {
                self.release_links(|link| link.neighbour == via);
                let source = Source { sender: None, via };
                self.on_state(source, message.payload);
            }
        }
    }

    /// Takes a `gossipState`; whether nothing was wrong with it.
    pub(in crate::allocator) fn on_state(&mut self, source: Source, message: &[u8]) -> bool {
        let digests = &self.digests;
        let received = match decode_state(message, |digest| digests.contains(digest)) {
            Ok(received) => received,
            Err(error) => {
                self.refuse(source.via, error.to_string());
                return false;
            }
        };
        let Received {
            state,
            digest,
            known,
        } = received;
        for (peer, nickname) in state.nicknames {
            self.members.learn_nickname(peer, nickname);
        }
        if known {
            self.heard_ring(source);
            return true;
        }
        if let Some((_, ring)) = state.ring {
            let Some(changed) = self.merge_ring(source, &ring) else {
                return false;
            };
            if let (false, Some(digest)) = (changed, digest) {
                self.digests.truncate(DIGESTS_MAX - 1);
                self.digests.push_front(digest);
            }
            self.heard_ring(source);
        } else if !self.durable.ring().is_empty() {
            if let Some(sender) = source.sender {
                self.send_ring(sender);
            }
        } else if let Some(nodes) = state.election {
            self.on_election(&nodes);
        } else if self.elector.is_some() && source.sender.is_some() {
            // An observer that wants a ring: it gossips the same all the time, so only a
            // message that somebody made on purpose, whose sender is known, starts an election.
            self.establish();
        }
        true
    }

    /// Merges a ring. `None` if it was refused, else whether it changed anything.
    pub(in crate::allocator) fn merge_ring(
        &mut self,
        source: Source,
        theirs: &Ring,
    ) -> Option<bool> {
        if theirs.universe() != self.durable.ring().universe()
            && !self.yield_universe(source, theirs)
        {
            self.universe_differs(source.via, theirs.universe());
            return None;
        }
        let first = self.durable.ring().is_empty() && !theirs.is_empty();
        let mut rules = Referee::new(&self.durable, &self.members);
        let merged = match self.durable.try_merge(theirs, &mut rules) {
            Ok(merged) => merged,
            Err(failed) => {
                self.merge_failed(source, theirs, &failed.error);
                return None;
            }
        };
        let Referee { ties, taken_by, .. } = rules;
        if taken_by.is_empty()
            && let Some(error) = self.durable.loses_used(&merged)
        {
            self.merge_failed(source, theirs, &error);
            return None;
        }
        self.heard_well(source.via);
        let changed = !merged.changes.is_empty() || merged.seeds.is_some() || !ties.is_empty();
        let updated = merged.updated || first;
        if changed {
            let moved = self.durable.apply(merged);
            if first {
                self.event(Event::RingReceived(source.via));
                self.forgotten_ranges();
            }
            for (by, used) in taken_by {
                self.alarm(Alarm::TakenFromUs { by, used });
            }
            if updated {
                self.ring_updated(&moved);
            }
        }
        for (token, other) in ties {
            self.settle_tie(token, other);
        }
        Some(changed)
    }

    /// Two peers own one entry at one version: we and `other`. The entry whose version grows
    /// wins everywhere; the growth differs, so that two that do this at once do not tie again.
    fn settle_tie(&mut self, token: Address, other: PeerName) {
        self.alarm(Alarm::TwoOwners { token, other });
        let step = if self.durable.us() < other { 2 } else { 1 };
        self.durable
            .change_ring(|ring| ring.assert_entry(token, step));
        self.emit(Output::BroadcastState);
    }

    fn merge_failed(&mut self, source: Source, theirs: &Ring, error: &MergeError) {
        match error {
            MergeError::Seeds => {
                let alarm = Alarm::Seeds {
                    via: source.via,
                    theirs: self.members.describe_all(&theirs.seeds),
                    ours: self.members.describe_all(&self.durable.ring().seeds),
                };
                self.members.silence(source.via, alarm.clone());
                self.alarm(alarm);
            }
            MergeError::Invalid(_) | MergeError::Result(_) | MergeError::Universe => {
                self.refuse(source.via, error.to_string());
            }
            MergeError::EntryInMyRange { .. }
            | MergeError::Inconsistent { .. }
            | MergeError::NewerVersion { .. }
            | MergeError::InUse(_) => {
                let error = error.to_string();
                self.alarm(Alarm::Conflict {
                    via: source.via,
                    error,
                });
            }
        }
    }

    fn universe_differs(&mut self, via: PeerName, theirs: Range) {
        let ours = self.durable.ring().universe();
        let alarm = Alarm::Universe { via, theirs, ours };
        self.members.silence(via, alarm.clone());
        self.alarm(alarm);
    }

    /// A ring of this neighbour fitted ours.
    fn heard_well(&mut self, via: PeerName) {
        if let Some(alarm) = self.members.unsilence(via) {
            self.notices.end(|other| *other == alarm);
        }
        self.notices
            .end(|alarm| matches!(alarm, Alarm::Conflict { via: v, .. } if *v == via));
        self.notices.forgive(via);
    }

    /// Gives up a universe that was only a default, if nothing was allocated from it.
    fn yield_universe(&mut self, source: Source, theirs: &Ring) -> bool {
        let [theirs] = theirs.universe().cidrs()[..] else {
            return false;
        };
        self.adopt_universe(source.via, theirs)
    }

    pub(in crate::allocator) fn on_state_wanted(
        &mut self,
        channel: Channel,
        token: u64,
        neighbour: Option<PeerName>,
        new_link: bool,
    ) {
        if channel == Channel::Leases {
            let payload = Some(self.hello(false));
            self.emit(Output::State { token, payload });
            return;
        }
        if let (Some(neighbour), true) = (neighbour, new_link) {
            let until = self.clock.now + LINK_HOLD;
            self.links.insert(token, HeldLink { neighbour, until });
            return;
        }
        self.answer_state(token, neighbour);
    }

    fn answer_state(&mut self, token: u64, neighbour: Option<PeerName>) {
        let silent = neighbour.is_some_and(|neighbour| self.members.is_silent(neighbour));
        let payload = (!silent).then(|| self.ring_payload());
        self.emit(Output::State { token, payload });
    }

    /// Sends what was held back on new links.
    pub(in crate::allocator) fn release_links(&mut self, which: impl Fn(&HeldLink) -> bool) {
        let held = self.links.iter().filter(|(_, link)| which(link));
        let tokens: Vec<(u64, PeerName)> = held.map(|(t, link)| (*t, link.neighbour)).collect();
        for (token, neighbour) in tokens {
            self.links.remove(&token);
            self.answer_state(token, Some(neighbour));
        }
    }
}

/// Settles contests between our ring and another.
///
/// An entry of ours that appears with another owner and a higher version was taken over by an
/// administrator, who was told that we are gone. The mesh believes that, so insisting would only
/// keep the rings apart: we yield, and what is in use here is dealt with as a stray.
struct Referee<'a> {
    durable: &'a Durable,
    members: &'a Members,
    /// Entries that we keep against another owner with the same version.
    ties: Vec<(Address, PeerName)>,
    /// Who took how many used addresses from us.
    taken_by: BTreeMap<PeerName, u32>,
}

impl<'a> Referee<'a> {
    fn new(durable: &'a Durable, members: &'a Members) -> Referee<'a> {
        Referee {
            durable,
            members,
            ties: Vec::new(),
            taken_by: BTreeMap::new(),
        }
    }

    /// The addresses from our entry up to the next.
    fn interval(&self, contest: &Contest) -> Vec<Range> {
        self.durable
            .ring()
            .intervals()
            .filter(|(_, entry)| entry.token == contest.mine.token)
            .map(|(range, _)| range)
            .collect()
    }

    /// Of two peers that own one entry at one version, which goes before: one of the original,
    /// as it does not give way, and else the one with the lower name.
    fn goes_before(&self, a: PeerName, b: PeerName) -> bool {
        (self.members.is_weft(a), a) < (self.members.is_weft(b), b)
    }

    fn same_version(&mut self, contest: &Contest) -> Decision {
        let (us, other) = (self.durable.us(), contest.theirs.peer);
        let weft = self.members.is_weft(other);
        let held = self.durable.space().held_ranges();
        let mut ranges = self.interval(contest).into_iter();
        if contest.idle && ranges.any(|range| held.count(range) > 0) {
            // We took it over and wait to hear who else has a claim: this is one.
            return if weft && us < other {
                Decision::KeepMine
            } else {
                Decision::TakeTheirs
            };
        }
        if !weft {
            // The original does not settle ties, and dies when it must give up a range.
            return if contest.idle {
                Decision::TakeTheirs
            } else {
                Decision::AsOriginal
            };
        }
        self.ties.push((contest.mine.token, other));
        Decision::KeepMine
    }
}

impl Rules for Referee<'_> {
    fn is_idle(&self, range: Range) -> bool {
        self.durable.space().is_idle(range)
    }

    fn decide(&mut self, contest: &Contest) -> Decision {
        match contest.kind {
            ContestKind::Newer => {
                let ranges = self.interval(contest);
                let ours = self.durable.space().our_ranges();
                let used = ranges.iter().map(|range| ours.count(*range)).sum::<u32>();
                *self.taken_by.entry(contest.theirs.peer).or_default() += used;
                Decision::TakeTheirs
            }
            ContestKind::SameVersion => self.same_version(contest),
            ContestKind::Behind if contest.idle => Decision::TakeTheirs,
            ContestKind::Others if contest.mine.free != contest.theirs.free => Decision::AsOriginal,
            ContestKind::Others => {
                if self.goes_before(contest.theirs.peer, contest.mine.peer) {
                    Decision::TakeTheirs
                } else {
                    Decision::KeepMine
                }
            }
            ContestKind::Inside | ContestKind::Behind => Decision::AsOriginal,
        }
    }
}
