//! How many refused connections are logged: that a stranger was refused is worth a line; what a
//! thousand strangers do is not worth a thousand.

use std::time::Duration;

use proto::types::Time;

/// Lines in a period; what comes after them is counted.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(60);

/// What was logged in this period.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    since: Option<Time>,
    lines: u32,
    left_out: u64,
}

impl Strangers {
    /// One more was refused. Returns whether to log it, and how many of the period before were
    /// left out.
    pub(super) fn refused(&mut self, now: Time) -> (bool, u64) {
        let mut left_out = 0;
        if self.since.is_none_or(|since| now >= since + PERIOD) {
            left_out = self.left_out;
            *self = Strangers {
                since: Some(now),
                ..Strangers::default()
            };
        }
        if self.lines < LINES_MAX {
            self.lines += 1;
            return (true, left_out);
        }
        self.left_out += 1;
        (false, left_out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_counted() {
        let mut strangers = Strangers::default();
        let start = Time::ZERO;
        let logged = (0..1000).filter(|_| strangers.refused(start).0).count();
        assert_eq!(logged, 20);
        assert_eq!(strangers.refused(start + PERIOD), (true, 980));
        assert_eq!(strangers.refused(start + PERIOD), (true, 0));
        assert_eq!(strangers.refused(start + PERIOD * 2), (true, 0));
    }
}
