//! The search for the path MTU of a sleeve link.
//!
//! A packet that the kernel reports as too big gives the first candidate. A candidate is verified
//! by an answer or refuted by eight unanswered tests, and a binary search follows, as in Weave Net:
//!
//! ```text
//! too big (path MTU P) --> candidate = P - overhead, good = 552, bad = candidate + 1
//! candidate verified   --> good = candidate --+--> good + 1 >= bad: done, mtu = good
//! 8 tests unanswered   --> bad = candidate  --+--> else candidate = (good + bad) / 2, next test
//! ```
//!
//! It differs from Weave Net in three ways, which the other end notices only by the sizes of tests:
//!
//! * Frames do not use a candidate that stays unanswered. After a few tests several usual sizes are
//!   tried at once, and frames use the largest verified size.
//! * A path too narrow for the lower bound is searched below it.
//! * The result is verified again periodically, and larger sizes are tried.

use std::time::Duration;

use super::wire::MTU_UNKNOWN;
use crate::types::Time;

/// The MTU while the kernel has not reported any packet as too big.
pub(super) const MTU_UNLIMITED: usize = MTU_UNKNOWN;
/// The lower bound of a search. It is tested only if nothing larger passes.
const MTU_FLOOR: u16 = 552;
/// The minimum IPv4 MTU. Nothing smaller is tried.
const MTU_MIN: u16 = 68;
/// The maximum path MTU of IPv4.
const PATH_MTU_MAX: usize = 65535;
/// Number of unanswered tests after which a size counts as too big.
const TESTS_MAX: u32 = 8;
/// The same for sizes above one that works.
const TESTS_UPWARD_MAX: u32 = 3;
/// Number of unanswered tests after which frames stop using an unverified size.
const TESTS_TRUSTED: u32 = 4;
/// Time to wait for an answer to the first test; it doubles with each further test.
const TEST_WAIT: Duration = Duration::from_millis(10);
/// Delay before a search that verified nothing is repeated.
const RETRY_WAIT: Duration = Duration::from_secs(30);
/// Common path MTUs, from which the sizes to try are derived.
const USUAL_PATH_MTUS: [usize; 16] = [
    8166, 4352, 2002, 1500, 1492, 1480, 1454, 1420, 1400, 1380, 1340, 1300, 1200, 1100, 1000, 800,
];

/// The state of the search on one path.
///
/// Rule: `docs/protocol/sleeve.md#6-path-mtu`.
#[derive(Debug)]
pub(super) struct MtuSearch {
    /// Number of bytes by which an IP packet exceeds the MTU of its frame.
    overhead: usize,
    /// The limit given by the kernel's last report; `None` if there was none.
    ceiling: Option<u16>,
    /// The largest size verified since the path was last found to be smaller.
    proven: Option<u16>,
    /// Whether frames do not use the ceiling, although it is not refuted yet.
    doubted: bool,
    round: Option<Round>,
    retry: Option<Time>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim {
    /// Finding the largest size that passes.
    Search,
    /// Checking that the size in use still passes.
    Check,
    /// Looking for a larger size than the one in use.
    Upward,
}

#[derive(Debug)]
struct Round {
    aim: Aim,
    candidate: u16,
    good: u16,
    bad: u16,
    tests: u32,
    deadline: Time,
    /// The largest other size verified in this round.
    other: u16,
}

impl MtuSearch {
    /// Creates the search on a new path whose packets exceed the MTU of their frame by `overhead`
    /// bytes.
    pub(super) fn new(overhead: usize) -> MtuSearch {
        MtuSearch {
            overhead,
            ceiling: None,
            proven: None,
            doubted: false,
            round: None,
            retry: None,
        }
    }

    /// Returns the MTU for frames.
    pub(super) fn mtu(&self) -> usize {
        let mtu = match (self.ceiling, self.proven) {
            (None, _) => return MTU_UNLIMITED,
            (_, Some(proven)) => proven,
            (Some(ceiling), None) if self.doubted => ceiling.min(MTU_FLOOR),
            (Some(ceiling), None) => ceiling,
        };
        usize::from(mtu)
    }

    /// Returns true if the other end verified the MTU.
    pub(super) fn is_verified(&self) -> bool {
        self.ceiling.is_some() && self.proven.is_some()
    }

    /// Returns the size under test.
    pub(super) fn candidate(&self) -> Option<u16> {
        self.round.as_ref().map(|round| round.candidate)
    }

    /// Returns the time at which `handle_timeout` is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.round.as_ref().map(|r| r.deadline).or(self.retry)
    }

    /// Reports that the kernel refused a packet on a path of `path_mtu` bytes. Returns the sizes to
    /// test.
    ///
    /// Rule: `docs/protocol/sleeve.md#6-1-search`.
    pub(super) fn handle_too_big(&mut self, now: Time, path_mtu: usize) -> Vec<u16> {
        let path_mtu = path_mtu.min(PATH_MTU_MAX);
        let allowed = path_mtu.saturating_sub(self.overhead);
        let allowed = u16::try_from(allowed).unwrap_or(u16::MAX).max(MTU_MIN);
        self.ceiling = Some(allowed);
        if self
            .candidate()
            .is_some_and(|candidate| allowed >= candidate)
        {
            return Vec::new();
        }
        self.proven = self.proven.filter(|proven| *proven <= allowed);
        if self.proven == Some(allowed) {
            self.round = None;
            return Vec::new();
        }
        let aim = if self.proven.is_some() {
            Aim::Upward
        } else {
            Aim::Search
        };
        self.doubted = false;
        self.start(now, aim, allowed)
    }

    /// Reports that the other end received a test of `size`. Returns the sizes to test.
    ///
    /// Rule: `docs/protocol/sleeve.md#6-1-search`.
    pub(super) fn handle_verified(&mut self, now: Time, size: u16) -> Vec<u16> {
        let Some(ceiling) = self.ceiling else {
            return Vec::new();
        };
        if !(MTU_MIN..=ceiling).contains(&size) {
            return Vec::new();
        }
        let Some(round) = &mut self.round else {
            return Vec::new();
        };
        if round.aim != Aim::Check {
            self.proven = self.proven.max(Some(size));
        }
        if size != round.candidate {
            if size < round.candidate {
                round.other = round.other.max(size);
            }
            return Vec::new();
        }
        round.good = size;
        self.advance(now)
    }

    /// Does what is due at `now`. Returns the sizes to test.
    ///
    /// Rule: `docs/protocol/sleeve.md#6-1-search`.
    pub(super) fn handle_timeout(&mut self, now: Time) -> Vec<u16> {
        if let (Some(retry), None) = (self.retry, &self.round)
            && retry <= now
        {
            return match self.ceiling {
                Some(ceiling) => self.start(now, Aim::Search, ceiling),
                None => Vec::new(),
            };
        }
        let Some(round) = self.round.as_mut().filter(|round| round.deadline <= now) else {
            return Vec::new();
        };
        let tests_max = match round.aim {
            Aim::Search | Aim::Check => TESTS_MAX,
            Aim::Upward => TESTS_UPWARD_MAX,
        };
        if round.tests < tests_max {
            let candidate = round.candidate;
            let mut sizes = self.test(now);
            let doubt = self.round.as_ref().is_some_and(|r| {
                r.tests == TESTS_TRUSTED + 1 && r.other == 0 && r.aim != Aim::Upward
            });
            if doubt && (self.proven.is_none() || self.proven == Some(candidate)) {
                self.doubted = true;
                sizes.extend(self.usual_sizes(candidate));
            }
            return sizes;
        }
        round.bad = round.candidate;
        if round.aim == Aim::Check {
            return self.check_failed(now);
        }
        self.advance(now)
    }

    /// Verifies the size in use again, and then looks for a larger one. Returns the sizes to test.
    ///
    /// Rule: `docs/protocol/sleeve.md#6-2-search-in-weft`.
    pub(super) fn recheck(&mut self, now: Time) -> Vec<u16> {
        match (self.proven, &self.round) {
            (Some(proven), None) => self.start(now, Aim::Check, proven),
            _ => Vec::new(),
        }
    }

    fn start(&mut self, now: Time, aim: Aim, candidate: u16) -> Vec<u16> {
        let floor = if candidate > MTU_FLOOR {
            MTU_FLOOR
        } else {
            MTU_MIN - 1
        };
        let good = match aim {
            Aim::Upward | Aim::Search => self.proven.unwrap_or(floor),
            Aim::Check => floor,
        };
        self.retry = None;
        self.round = Some(Round {
            aim,
            candidate,
            good,
            bad: candidate + 1,
            tests: 0,
            deadline: now,
            other: 0,
        });
        self.test(now)
    }

    /// Rule: `docs/protocol/sleeve.md#6-1-search`.
    fn test(&mut self, now: Time) -> Vec<u16> {
        let Some(round) = &mut self.round else {
            return Vec::new();
        };
        round.deadline = now + TEST_WAIT * (1 << round.tests);
        round.tests += 1;
        vec![round.candidate]
    }

    /// Rule: `docs/protocol/sleeve.md#6-1-search`.
    fn advance(&mut self, now: Time) -> Vec<u16> {
        let Some(round) = &mut self.round else {
            return Vec::new();
        };
        if round.good + 1 < round.bad {
            round.candidate = u16::midpoint(round.good, round.bad);
            round.tests = 0;
            return self.test(now);
        }
        let (aim, good) = (round.aim, round.good);
        self.round = None;
        match (aim, self.proven, self.ceiling) {
            // The lower bound was only assumed and never tested.
            (Aim::Search, None, _) if good == MTU_FLOOR => self.start(now, Aim::Search, MTU_FLOOR),
            (_, None, _) => {
                self.retry = Some(now + RETRY_WAIT);
                Vec::new()
            }
            (Aim::Check, Some(proven), Some(ceiling)) if proven < ceiling => {
                self.start(now, Aim::Upward, ceiling)
            }
            _ => Vec::new(),
        }
    }

    /// Handles that the size in use does not pass any more. If a smaller one does, the path became
    /// narrower; if none does, nothing can be concluded.
    ///
    /// Rule: `docs/protocol/sleeve.md#6-2-search-in-weft`.
    fn check_failed(&mut self, now: Time) -> Vec<u16> {
        let other = self.round.take().map_or(0, |round| round.other);
        self.doubted = false;
        let Some(failed) = self.proven.filter(|_| other != 0) else {
            return Vec::new();
        };
        self.proven = Some(other);
        if failed <= other + 1 {
            return Vec::new();
        }
        self.start(now, Aim::Search, failed - 1)
    }

    /// Rule: `docs/protocol/sleeve.md#6-2-search-in-weft`.
    fn usual_sizes(&self, below: u16) -> impl Iterator<Item = u16> {
        let overhead = self.overhead;
        USUAL_PATH_MTUS
            .into_iter()
            .filter_map(move |path| u16::try_from(path.saturating_sub(overhead)).ok())
            .filter(move |size| (MTU_FLOOR + 1..below).contains(size))
            .chain((below > MTU_FLOOR).then_some(MTU_FLOOR))
    }
}

#[cfg(test)]
mod tests;
