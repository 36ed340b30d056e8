//! Log lines on events of the mesh. A refused stranger is worth a line; a thousand of them are not
//! worth a thousand lines.

use std::time::Duration;

use proto::node::{Event, Level};
use proto::types::Time;

use super::control::Control;

/// Lines in a period; what comes after them is counted.
const LINES_MAX: u32 = 20;
const PERIOD: Duration = Duration::from_secs(60);

impl Control {
    pub(super) fn log(&mut self, event: &Event) {
        let is_stranger = matches!(
            event,
            Event::Closed {
                peer: None,
                outbound: false,
                ..
            }
        );
        match event.level() {
            Level::Warn if is_stranger => {
                let (logged, left_out) = self.strangers.refused(self.now());
                if left_out > 0 {
                    tracing::warn!(left_out, "more connections were refused before");
                }
                if logged {
                    tracing::warn!("{event}");
                } else {
                    tracing::debug!("{event}");
                }
            }
            Level::Warn => tracing::warn!("{event}"),
            Level::Info => tracing::info!("{event}"),
            Level::Debug => tracing::debug!("{event}"),
        }
    }
}

/// Lines that were logged in this period.
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
