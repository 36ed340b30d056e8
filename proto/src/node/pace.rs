//! Rate limit for work that many events request: soon, but not too often.

use std::time::Duration;

use crate::types::Time;

/// A token bucket. A request is due after a short delay, so that requests that come together count
/// as one. Once the tokens are used up, each further request takes an interval.
#[derive(Debug)]
pub(super) struct Pace {
    delay: Duration,
    interval: Duration,
    burst: u32,
    permits: u32,
    /// When the number of permits was last updated.
    counted: Time,
    due: Option<Time>,
}

impl Pace {
    pub(super) fn new(delay: Duration, interval: Duration, burst: u32) -> Pace {
        Pace {
            delay,
            interval,
            burst,
            permits: burst,
            counted: Time::ZERO,
            due: None,
        }
    }

    /// Requests the work.
    pub(super) fn request(&mut self, now: Time) {
        if self.due.is_some() {
            return;
        }
        self.count(now);
        let soon = now + self.delay;
        self.due = Some(match self.permits {
            0 => soon.max(self.counted + self.interval),
            _ => soon,
        });
    }

    /// Returns true if the work is requested.
    pub(super) fn is_requested(&self) -> bool {
        self.due.is_some()
    }

    /// Returns the time at which the work is due.
    pub(super) fn poll_timeout(&self) -> Option<Time> {
        self.due
    }

    /// Returns true if the work is due now; it then counts as done.
    pub(super) fn is_due(&mut self, now: Time) -> bool {
        if self.due.is_none_or(|due| due > now) {
            return false;
        }
        self.done(now);
        true
    }

    /// Records that the work was done.
    pub(super) fn done(&mut self, now: Time) {
        self.count(now);
        self.permits = self.permits.saturating_sub(1);
        self.due = None;
    }

    fn count(&mut self, now: Time) {
        if self.permits >= self.burst {
            self.counted = now;
        }
        while self.permits < self.burst && self.counted + self.interval <= now {
            self.permits += 1;
            self.counted += self.interval;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Time {
        Time::from_micros(ms * 1000)
    }

    #[test]
    fn a_burst_is_quick_and_a_storm_is_not() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(50), ms(1000), 3);
        let mut done = Vec::new();
        for t in 0..5000 {
            pace.request(at(t));
            if pace.is_due(at(t)) {
                done.push(t);
            }
        }
        assert_eq!(done, [50, 101, 152, 1050, 2050, 3050, 4050]);
    }

    #[test]
    fn permits_come_back() {
        let ms = Duration::from_millis;
        let mut pace = Pace::new(ms(10), ms(100), 2);
        for start in [0, 10_000, 20_000] {
            for t in [start, start + 20] {
                pace.request(at(t));
                pace.request(at(t + 5));
                assert!(!pace.is_due(at(t + 9)));
                assert_eq!(pace.poll_timeout(), Some(at(t + 10)));
                assert!(pace.is_due(at(t + 10)));
                assert!(!pace.is_requested());
            }
        }
    }
}
