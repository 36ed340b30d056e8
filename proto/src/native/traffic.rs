//! Round trip time and losses of a link, measured from the reports of both ends.

use std::collections::VecDeque;
use std::time::Duration;

use crate::types::Time;

/// Maximum number of our reports that may still be answered; older ones are forgotten.
const REPORTS_MAX: usize = 32;
/// Minimum number of datagrams for which losses are computed.
const SAMPLE_MIN: u64 = 4;

/// An answer that waited longer says nothing of the round trip.
const WAIT_MAX: Duration = Duration::from_secs(1);

/// So many datagrams may be missing from a report and be none the less on their way.
const LATE_MAX: u64 = 2;

/// The measurements.
#[derive(Debug, Default)]
pub(super) struct Traffic {
    rtt: Option<Duration>,
    /// When our latest reports were sent, and how many datagrams were sent before.
    reports: VecDeque<(Time, u64)>,
    outward: Loss,
    inward: Loss,
}

/// Losses in one direction.
#[derive(Debug, Default)]
struct Loss {
    /// What was sent and received when it was first compared.
    first: Option<(u64, u64)>,
    /// What was sent when it was last compared.
    compared: u64,
    /// What was missing then.
    missing: u64,
    /// What was counted as lost so far.
    counted: u64,
    /// The lost fraction in units of 1/2^16, as a moving average.
    average: Option<u32>,
}

/// Result of one comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) sent: u64,
    pub(super) lost: u64,
}

impl Traffic {
    /// Records that a report is sent.
    pub(super) fn note_report(&mut self, now: Time, sent: u64) {
        if self.reports.len() >= REPORTS_MAX {
            self.reports.pop_front();
        }
        self.reports.push_back((now, sent));
    }

    /// Handles the answer to a report. Returns the outgoing losses since the report answered
    /// before.
    pub(super) fn note_answer(
        &mut self,
        now: Time,
        sent_at: Time,
        waited: Duration,
        received: u64,
    ) -> Option<Sample> {
        // Over a long wait the two clocks drift apart by more than a short round trip takes.
        if waited <= WAIT_MAX {
            let took = now.since(sent_at).saturating_sub(waited);
            self.rtt = Some(match self.rtt {
                None => took,
                Some(rtt) => (rtt * 7 + took) / 8,
            });
        }
        let index = self.reports.iter().position(|(at, _)| *at == sent_at)?;
        let (_, sent) = self.reports.drain(..=index).next_back()?;
        self.outward.compare(sent, received)
    }

    /// Handles how many datagrams the other end has sent, compared with how many arrived.
    pub(super) fn note_sent(&mut self, sent: u64, received: u64) {
        self.inward.compare(sent, received);
    }

    /// Returns the smoothed round trip time.
    pub(super) fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// Returns the lost fractions of outgoing and of incoming datagrams, 0 to 1.
    pub(super) fn loss(&self) -> (Option<f64>, Option<f64>) {
        (self.outward.part(), self.inward.part())
    }
}

impl Loss {
    fn compare(&mut self, sent: u64, received: u64) -> Option<Sample> {
        let Some((sent_first, received_first)) = self.first else {
            self.first = Some((sent, received));
            self.compared = sent;
            return None;
        };
        let sent_since = sent.saturating_sub(self.compared);
        if sent_since < SAMPLE_MIN {
            return None;
        }
        self.compared = sent;
        let missing = sent.saturating_sub(sent_first);
        let missing = missing.saturating_sub(received.saturating_sub(received_first));
        // A report may know of some that are still on their way, or that the other end has not
        // counted yet. They are lost if the next report misses them, too.
        let settled = missing.min(self.missing.max(missing.saturating_sub(LATE_MAX)));
        self.missing = missing;
        let lost = settled.saturating_sub(self.counted).min(sent_since);
        self.counted = self.counted.max(settled);
        let part = (lost << 16).checked_div(sent_since).unwrap_or_default() as u32;
        self.average = Some(match self.average {
            None => part,
            Some(average) => (average * 7 + part) / 8,
        });
        Some(Sample {
            sent: sent_since,
            lost,
        })
    }

    fn part(&self) -> Option<f64> {
        self.average.map(|average| f64::from(average) / 65536.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn round_trips_leave_out_the_wait_at_the_other_end() {
        let mut traffic = Traffic::default();
        traffic.note_report(at(0), 0);
        traffic.note_answer(at(110), at(0), Duration::from_millis(10), 0);
        assert_eq!(traffic.rtt(), Some(Duration::from_millis(100)));
        traffic.note_report(at(200), 0);
        traffic.note_answer(at(220), at(200), Duration::ZERO, 0);
        assert_eq!(traffic.rtt(), Some(Duration::from_millis(90)));
        // A wait that is longer than the round trip is a lie, and must not panic.
        traffic.note_answer(at(230), at(200), Duration::from_secs(1), 0);
        let before = traffic.rtt();
        traffic.note_answer(at(9900), at(200), Duration::from_secs(9), 0);
        assert_eq!(traffic.rtt(), before, "nothing is told by so long a wait");
    }

    #[test]
    fn losses_are_told_between_answers() {
        let mut traffic = Traffic::default();
        for (ms, sent) in [(0, 0), (10, 100), (20, 101), (30, 200)] {
            traffic.note_report(at(ms), sent);
        }
        let mut answer =
            |ms, received| traffic.note_answer(at(ms + 5), at(ms), Duration::ZERO, received);
        assert_eq!(answer(0, 0), None);
        let sample = |sent, lost| Some(Sample { sent, lost });
        assert_eq!(answer(10, 90), sample(100, 8), "two may be late");
        assert_eq!(answer(20, 90), None, "too few to tell");
        assert_eq!(answer(30, 300), sample(100, 0));
        assert_eq!(answer(30, 300), None, "answered before");
        let (outward, inward) = traffic.loss();
        assert!(outward.is_some_and(|part| part > 0.06 && part < 0.1));
        assert_eq!(inward, None);
        traffic.note_sent(0, 0);
        traffic.note_sent(1000, 500);
        assert!(
            traffic
                .loss()
                .1
                .is_some_and(|part| (part - 0.5).abs() < 0.01)
        );
        traffic.note_sent(0, 0);
    }

    /// On a link that carries reports alone each comparison is of few datagrams, so that one that
    /// is counted too early or too late would be many in a hundred.
    #[test]
    fn what_is_only_late_is_not_lost() {
        let mut traffic = Traffic::default();
        let mut rng = fastrand::Rng::with_seed(1);
        for sent in 0..1000 {
            let (late, early) = (rng.u64(..2), rng.u64(..2));
            traffic.note_sent(sent, (sent + early).saturating_sub(late));
        }
        assert!(traffic.loss().1.unwrap() < 0.001);
        for sent in 1000..2000 {
            // From here on one in ten is lost.
            traffic.note_sent(sent, sent - (sent - 1000) / 10);
        }
        let loss = traffic.loss().1.unwrap();
        assert!((0.07..0.13).contains(&loss), "{loss}");
    }
}
