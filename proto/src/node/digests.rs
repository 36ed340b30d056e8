//! How routers of our kind see that they know the same of the mesh, without telling all of it.
//!
//! ```text
//! A: digest ------> B    now and then, and on a new connection
//!    <------- want       B knows something else
//!    entries ------>     all that A knows, as every router tells it
//!    <----- digest       B still knows something else, so more than A: now A wants it
//! ```
//!
//! After that both know what either knew. Who says the same as we do gets no answer, so a mesh in
//! which all know the same falls silent. News travel beside this as they do everywhere.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::topology::{DIGEST_BYTES, Digest};
use crate::types::{ConnId, Time};

/// From a digest that differs to the question for more: news may be on their way already.
///
/// Rule: `docs/protocol/mesh.md#10-1-digests`.
const WANT_DELAY: Duration = Duration::from_millis(20);
/// From one question to the next at least; doubled with each, since while much changes all differ
/// all the time, and news come by themselves.
const WANT_AGAIN: Duration = Duration::from_millis(250);
const WANT_AGAIN_MAX: Duration = Duration::from_secs(4);
/// Who has not asked for so long asks as soon as at first.
const PATIENCE_TIME: Duration = Duration::from_secs(10);
/// A neighbour that has not answered by then is not waited for.
///
/// Rule: `docs/protocol/mesh.md#10-1-digests`.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(2);
/// A neighbour is told everything once in this time at most.
const ANSWER_INTERVAL: Duration = Duration::from_secs(1);
/// How many neighbours are told our digest from time to time.
///
/// Rule: `docs/protocol/mesh.md#10-1-digests`.
const TOLD_AT_ONCE: usize = 2;
/// From the last change to the digest that tells of what came out of it.
const SETTLE_DELAY: Duration = Duration::from_secs(1);

/// A message of the exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Exchange {
    /// What the sender knows.
    Digest(Digest),
    /// The sender wants to be told everything.
    Want,
}

impl Exchange {
    /// Reads a message; `None` if it is of a kind that is not known here, or too short.
    ///
    /// Format: `docs/protocol/mesh.md#10-1-digests`.
    pub(super) fn decode(kind: u8, body: &[u8]) -> Option<Exchange> {
        match kind {
            KIND_DIGEST => Some(Exchange::Digest(*body.first_chunk::<DIGEST_BYTES>()?)),
            KIND_WANT => Some(Exchange::Want),
            _ => None,
        }
    }

    /// Returns the kind of the message.
    pub(super) const fn kind(self) -> u8 {
        match self {
            Exchange::Digest(_) => KIND_DIGEST,
            Exchange::Want => KIND_WANT,
        }
    }

    /// Returns the body of the message.
    ///
    /// Format: `docs/protocol/mesh.md#10-1-digests`.
    pub(super) fn body(&self) -> &[u8] {
        match self {
            Exchange::Digest(digest) => digest,
            Exchange::Want => &[],
        }
    }
}

/// What is to be done for a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Task {
    /// Ask it for everything.
    Want(ConnId),
    /// Tell it everything.
    TellAll(ConnId),
    /// Tell it our digest.
    TellDigest(ConnId),
    /// Tell some neighbours our digest, since it changed and changes no more.
    Settled,
}

/// The state of the exchange with all neighbours.
#[derive(Debug)]
pub(super) struct Digests {
    rng: fastrand::Rng,
    /// What neighbours said last, as far as it was not seen to.
    theirs: BTreeMap<ConnId, Digest>,
    /// When the digests of neighbours are to be looked at.
    review_at: Option<Time>,
    pull: Option<Pull>,
    /// When we asked last, and how long we wait from then on.
    asked: Option<(Time, Duration)>,
    answers: BTreeMap<ConnId, Answered>,
    settled_at: Option<Time>,
}

/// An answer that is awaited.
#[derive(Debug)]
struct Pull {
    conn: ConnId,
    digest: Digest,
    until: Time,
}

/// From when on a neighbour may be told everything, and whether it wants that.
#[derive(Debug)]
struct Answered {
    again_at: Time,
    owed: bool,
}

impl Digests {
    /// Returns what is left to chance is drawn from `rng`.
    pub(super) fn new(rng: fastrand::Rng) -> Digests {
        Digests {
            rng,
            theirs: BTreeMap::new(),
            review_at: None,
            pull: None,
            asked: None,
            answers: BTreeMap::new(),
            settled_at: None,
        }
    }

    /// Draws those of `neighbours` that are told our digest now.
    pub(super) fn draw(&mut self, mut neighbours: Vec<ConnId>) -> Vec<ConnId> {
        let count = neighbours.len().min(TOLD_AT_ONCE);
        for index in 0..count {
            let other = self.rng.usize(index..neighbours.len());
            neighbours.swap(index, other);
        }
        neighbours.truncate(count);
        neighbours
    }

    /// Returns when [`Digests::next`] has something.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        let owed = self.answers.values().filter(|answered| answered.owed);
        let owed = owed.map(|answered| answered.again_at).min();
        let times = [self.review_at, owed, self.settled_at];
        let pull = self.pull.as_ref().map(|pull| pull.until);
        times.into_iter().chain([pull]).flatten().min()
    }

    /// A neighbour says what it knows.
    pub(super) fn handle_digest(&mut self, now: Time, conn: ConnId, theirs: Digest, ours: Digest) {
        if theirs == ours {
            self.theirs.remove(&conn);
            return;
        }
        self.theirs.insert(conn, theirs);
        let again = self.asked.map(|(at, wait)| at + wait);
        let soon = now + WANT_DELAY;
        self.review_at
            .get_or_insert(soon.max(again.unwrap_or(soon)));
    }

    /// A neighbour wants to be told everything.
    pub(super) fn handle_want(&mut self, now: Time, conn: ConnId) {
        let never = Answered {
            again_at: now,
            owed: false,
        };
        self.answers.entry(conn).or_insert(never).owed = true;
    }

    /// Entries came from a neighbour. If they were asked for, others may be asked.
    pub(super) fn handle_entries(&mut self, now: Time, conn: ConnId) {
        if let Some(pull) = self.pull.as_mut().filter(|pull| pull.conn == conn) {
            // More of the same may follow.
            pull.until = now + WANT_DELAY;
        }
    }

    /// What we know changed.
    pub(super) fn note_change(&mut self, now: Time) {
        self.settled_at = Some(now + SETTLE_DELAY);
    }

    /// A connection is over.
    pub(super) fn forget(&mut self, conn: ConnId) {
        self.theirs.remove(&conn);
        self.answers.remove(&conn);
        self.pull.take_if(|pull| pull.conn == conn);
    }

    /// Returns how long to wait after a question that is asked now.
    fn next_wait(&self, now: Time) -> Duration {
        match self.asked {
            Some((at, wait)) if now < at + PATIENCE_TIME => (wait * 2).min(WANT_AGAIN_MAX),
            _ => WANT_AGAIN,
        }
    }

    /// Returns the next thing to do; `ours` is the digest of what we know.
    pub(super) fn next(&mut self, now: Time, ours: impl FnOnce() -> Digest) -> Option<Task> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let mut answers = self.answers.iter_mut();
        let owed = answers.find(|(_, answered)| answered.owed && answered.again_at <= now);
        if let Some((conn, answered)) = owed {
            (answered.again_at, answered.owed) = (now + ANSWER_INTERVAL, false);
            return Some(Task::TellAll(*conn));
        }
        let ours = ours();
        if let Some(pull) = self.pull.take_if(|pull| pull.until <= now) {
            let again = self.asked.map_or(now, |(at, wait)| at + wait);
            self.review_at.get_or_insert(again.max(now));
            // We have taken in what it knows, so we know more.
            if pull.digest != ours {
                return Some(Task::TellDigest(pull.conn));
            }
        }
        if self.review_at.take_if(|at| *at <= now).is_some() {
            self.theirs.retain(|_, theirs| *theirs != ours);
            if self.pull.is_some() {
                self.review_at = Some(now + WANT_AGAIN);
            } else if let Some((conn, digest)) = self.theirs.pop_first() {
                self.pull = Some(Pull {
                    conn,
                    digest,
                    until: now + ANSWER_TIME_MAX,
                });
                self.asked = Some((now, self.next_wait(now)));
                return Some(Task::Want(conn));
            }
        }
        self.settled_at.take_if(|at| *at <= now)?;
        Some(Task::Settled)
    }
}

/// Format: `docs/protocol/mesh.md#10-1-digests`.
const KIND_DIGEST: u8 = 5;
const KIND_WANT: u8 = 6;

#[cfg(test)]
mod tests;
