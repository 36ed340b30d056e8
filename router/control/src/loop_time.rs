//! Duration of the turns of the loop.

use std::time::Duration;

use proto::types::Time;

/// The turns so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoopTime {
    /// How many there were.
    pub count: u64,
    /// Their total duration.
    pub busy: Duration,
    /// Duration of the longest.
    pub longest: Duration,
    began: Option<Time>,
}

impl LoopTime {
    /// A turn begins, unless one is under way.
    pub(super) fn begin(&mut self, now: Time) {
        self.began.get_or_insert(now);
    }

    /// The turn that is under way ends.
    pub(super) fn end(&mut self, now: Time) {
        let Some(began) = self.began.take() else {
            return;
        };
        let took = now.since(began);
        self.count += 1;
        self.busy += took;
        self.longest = self.longest.max(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_turn_is_kept() {
        let at = |millis| Time::ZERO + Duration::from_millis(millis);
        let mut time = LoopTime::default();
        time.end(at(5));
        assert_eq!(time, LoopTime::default(), "none was under way");
        for (begin, end) in [(10, 11), (20, 50), (60, 62)] {
            time.begin(at(begin));
            time.begin(at(begin + 1));
            time.end(at(end));
        }
        assert_eq!((time.count, time.longest.as_millis()), (3, 30));
        assert_eq!(time.busy.as_millis(), 33);
    }
}
