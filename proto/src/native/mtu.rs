//! The search for the path MTU by probing (RFC 8899). Sizes are those of IP packets.
//!
//! ```text
//!          +--> Look: a few sizes at once --nothing or not the largest--> all usual sizes at once
//!          |                                                                  |
//!   start -+        Rest <--bounds meet-- Narrow: half way between <----------+
//!          |         |  ^
//!          |         |  +--answered-- Check: the size in use --3 times unanswered--> all usual sizes
//!          +--device |                  ^
//!           refused  +--many lost-------+
//!                    +--from time to time--> Raise: larger sizes
//! ```
//!
//! ICMP reports of routers are ignored, also by the kernel for the socket that sends probes. What a
//! local device refuses is a fact.

use std::time::Duration;

use crate::types::Time;

/// The largest IP packet.
pub(super) const SIZE_MAX: usize = 65535;
/// A size that nearly every path takes.
const SIZE_BASE: usize = 1280;
/// Sizes that are tried. Smaller ones are useless.
const USUAL_SIZES: [usize; 19] = [
    SIZE_MAX, 9000, 8166, 4352, 2002, 1500, 1492, 1480, 1472, 1460, 1450, 1420, 1400, 1380, 1340,
    1300, SIZE_BASE, 1000, 576,
];
/// The search ends when its bounds are this close, in bytes.
const PRECISION: usize = 8;
/// Number of unanswered probes after which a size counts as too large.
const TRIES_MAX: u32 = 3;
/// Bounds of the time to wait for an answer, which is three round trips.
const WAIT_MIN: Duration = Duration::from_millis(60);
const WAIT_MAX: Duration = Duration::from_secs(1);
/// Intervals between searches for a larger size. The first ones are shorter, because losses may
/// have affected the first search.
const RAISE_INTERVALS: [Duration; 3] = [
    Duration::from_secs(10),
    Duration::from_secs(60),
    Duration::from_secs(600),
];
/// Number of larger sizes tried in one search.
const RAISE_SIZES: usize = 3;

/// The state of the search on one path.
///
/// Rule: `docs/native.md#link-quality-and-path-mtu`.
#[derive(Debug)]
pub(super) struct MtuSearch {
    /// The size in use.
    size: Option<usize>,
    /// The largest size that was answered since the search began anew.
    proven: Option<usize>,
    /// The largest size that was sent since then.
    sent: usize,
    /// Answers to probes sent before this are ignored.
    since: Time,
    /// The limit of the local device.
    device: usize,
    phase: Phase,
    raises: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No probe was requested yet.
    Off,
    Look {
        round: u32,
        until: Time,
    },
    Narrow {
        bad: usize,
        candidate: usize,
        tries: u32,
        until: Time,
    },
    Rest {
        raise_at: Time,
    },
    Check {
        tries: u32,
        until: Time,
    },
    Raise {
        tries: u32,
        until: Time,
    },
}

impl MtuSearch {
    pub(super) fn new() -> MtuSearch {
        MtuSearch {
            size: None,
            proven: None,
            sent: 0,
            since: Time::ZERO,
            device: SIZE_MAX,
            phase: Phase::Off,
            raises: 0,
        }
    }

    /// Returns the size in use, or `None` until one was found.
    pub(super) fn size(&self) -> Option<usize> {
        self.size
    }

    /// Returns true if nothing was tested yet.
    pub(super) fn is_off(&self) -> bool {
        self.phase == Phase::Off
    }

    /// Returns true if a first size is still being looked for.
    pub(super) fn is_looking(&self) -> bool {
        matches!(self.phase, Phase::Look { .. })
    }

    /// Returns the time at which `handle_timeout` is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        match self.phase {
            Phase::Off => None,
            Phase::Look { until, .. }
            | Phase::Narrow { until, .. }
            | Phase::Check { until, .. }
            | Phase::Raise { until, .. } => Some(until),
            Phase::Rest { raise_at } => Some(raise_at),
        }
    }

    /// Restarts the search, as on an unknown path. The size in use is kept until there is a result.
    /// Returns the sizes to send.
    pub(super) fn start(&mut self, now: Time, rtt: Duration) -> Vec<usize> {
        self.proven = None;
        self.sent = 0;
        self.since = now;
        self.raises = 0;
        self.look(now, rtt, 0)
    }

    /// Reports that a local device only accepts packets of `size` bytes. Returns the sizes to send.
    pub(super) fn handle_too_big(&mut self, now: Time, rtt: Duration, size: usize) -> Vec<usize> {
        let size = size.clamp(USUAL_SIZES[USUAL_SIZES.len() - 1], SIZE_MAX);
        if size == self.device && self.size.is_none_or(|used| used <= size) {
            return Vec::new();
        }
        self.device = size;
        match self.phase {
            Phase::Off => Vec::new(),
            Phase::Raise { .. } | Phase::Rest { .. } if self.size.is_some_and(|s| s <= size) => {
                Vec::new()
            }
            _ => {
                self.size = self.size.map(|used| used.min(size));
                self.start(now, rtt)
            }
        }
    }

    /// Reports that a datagram of `size` bytes, sent at `sent_at`, arrived. Returns the sizes to
    /// send.
    pub(super) fn handle_arrived(
        &mut self,
        now: Time,
        rtt: Duration,
        sent_at: Time,
        size: usize,
    ) -> Vec<usize> {
        if sent_at < self.since || size > self.sent {
            return Vec::new();
        }
        self.proven = self.proven.max(Some(size));
        match self.phase {
            Phase::Look { .. } if size >= self.device => self.rest(now),
            Phase::Check { .. } if Some(size) >= self.size => self.rest(now),
            Phase::Narrow { bad, candidate, .. } if size >= candidate => {
                // A usual size that was tried once more has nothing to narrow in on.
                if size + 1 >= bad {
                    return self.narrow_or_rest(now, rtt);
                }
                return self.narrow(now, rtt, bad);
            }
            Phase::Raise { .. } if Some(size) > self.size => {
                self.size = Some(size);
                return self.narrow_or_rest(now, rtt);
            }
            _ => {}
        }
        Vec::new()
    }

    /// Reports heavy losses: checks that datagrams of the size in use still arrive. Returns the
    /// sizes to send.
    pub(super) fn suspect(&mut self, now: Time, rtt: Duration) -> Vec<usize> {
        match (self.phase, self.size) {
            (Phase::Rest { .. }, Some(size)) => {
                self.since = now;
                self.phase = Phase::Check {
                    tries: 1,
                    until: now + wait(rtt),
                };
                self.send([size])
            }
            _ => Vec::new(),
        }
    }

    /// Does what is due at `now`. Returns the sizes to send.
    pub(super) fn handle_timeout(&mut self, now: Time, rtt: Duration) -> Vec<usize> {
        if self.poll_timeout().is_none_or(|at| at > now) {
            return Vec::new();
        }
        match self.phase {
            Phase::Off => Vec::new(),
            Phase::Look { round, .. } => match self.proven {
                Some(_) if round > 0 => self.narrow_or_rest(now, rtt),
                _ => self.look(now, rtt, round + 1),
            },
            Phase::Narrow {
                bad,
                candidate,
                tries,
                ..
            } => {
                if tries < TRIES_MAX {
                    return self.test(now, rtt, (bad, candidate), tries + 1);
                }
                self.narrow(now, rtt, candidate)
            }
            Phase::Rest { .. } => self.raise(now, rtt, 1),
            Phase::Check { tries, .. } => match self.size {
                Some(size) if tries < TRIES_MAX => {
                    self.phase = Phase::Check {
                        tries: tries + 1,
                        until: now + wait(rtt),
                    };
                    self.send([size])
                }
                _ => {
                    self.proven = None;
                    self.since = now;
                    self.raises = 0;
                    self.look(now, rtt, 1)
                }
            },
            Phase::Raise { tries, .. } if tries < TRIES_MAX => self.raise(now, rtt, tries + 1),
            Phase::Raise { .. } => {
                self.rest(now);
                Vec::new()
            }
        }
    }

    /// Probes the most likely sizes first, and all usual sizes if these do not suffice.
    fn look(&mut self, now: Time, rtt: Duration, round: u32) -> Vec<usize> {
        let wait = (wait(rtt) * 2_u32.saturating_pow(round.min(4))).min(WAIT_MAX);
        self.phase = Phase::Look {
            round,
            until: now + wait,
        };
        let device = self.device;
        if round == 0 {
            return self.send([device, SIZE_BASE.min(device)]);
        }
        let smaller = USUAL_SIZES.into_iter().filter(move |size| *size < device);
        self.send([device].into_iter().chain(smaller))
    }

    /// Continues from what the search found: up to the next usual size, or the device's.
    fn narrow_or_rest(&mut self, now: Time, rtt: Duration) -> Vec<usize> {
        let good = self.proven.unwrap_or_default();
        let device = self.device;
        let above = USUAL_SIZES
            .into_iter()
            .rev()
            .chain([SIZE_MAX])
            .map(|size| size.min(device))
            .find(|size| *size > good);
        match above {
            // It may have been lost by chance, so it is tried once more itself.
            Some(bad) => self.test(now, rtt, (bad + 1, bad), 1),
            None => {
                self.rest(now);
                Vec::new()
            }
        }
    }

    /// Probes half way between the bounds.
    fn narrow(&mut self, now: Time, rtt: Duration, bad: usize) -> Vec<usize> {
        let good = self.proven.unwrap_or_default();
        if bad <= good + PRECISION {
            self.rest(now);
            return Vec::new();
        }
        self.test(now, rtt, (bad, usize::midpoint(good, bad)), 1)
    }

    fn test(
        &mut self,
        now: Time,
        rtt: Duration,
        (bad, candidate): (usize, usize),
        tries: u32,
    ) -> Vec<usize> {
        // Uses what was found so far.
        self.size = self.proven.or(self.size);
        self.phase = Phase::Narrow {
            bad,
            candidate,
            tries,
            until: now + wait(rtt),
        };
        self.send([candidate])
    }

    fn raise(&mut self, now: Time, rtt: Duration, tries: u32) -> Vec<usize> {
        let used = self.size.unwrap_or_default();
        let larger: Vec<usize> = USUAL_SIZES
            .into_iter()
            .rev()
            .filter(|size| *size > used && *size < SIZE_MAX)
            .take(RAISE_SIZES)
            .collect();
        if larger.is_empty() {
            self.rest(now);
            return Vec::new();
        }
        self.phase = Phase::Raise {
            tries,
            until: now + wait(rtt),
        };
        // The device may take more by now; if not, it says so.
        self.device = SIZE_MAX;
        self.send(larger)
    }

    fn rest(&mut self, now: Time) {
        self.size = self.proven.or(self.size);
        let last = RAISE_INTERVALS.len() - 1;
        let interval = RAISE_INTERVALS[self.raises.min(last)];
        self.raises = self.raises.saturating_add(1);
        self.phase = Phase::Rest {
            raise_at: now + interval,
        };
    }

    fn send(&mut self, sizes: impl IntoIterator<Item = usize>) -> Vec<usize> {
        let mut sizes: Vec<usize> = sizes.into_iter().collect();
        sizes.dedup();
        let largest = sizes.iter().copied().max().unwrap_or_default();
        self.sent = self.sent.max(largest);
        sizes
    }
}

fn wait(rtt: Duration) -> Duration {
    (rtt * 3).clamp(WAIT_MIN, WAIT_MAX)
}

#[cfg(test)]
mod tests;
