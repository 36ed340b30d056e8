//! Time as this router saw it pass.
//!
//! What is to be forgotten after days must not be forgotten because somebody set the wall clock,
//! nor be kept for ever because it was once set to the future. So days are counted in seconds of
//! the monotonic clock, which stands still only while the router does; the sum is stored.

use proto::types::Time;

use crate::allocator::api::Clock;

/// So many seconds may pass before the time is saved along with something else ...
const SAVED_ALONG: u64 = 60;
/// ... and so many before it is saved by itself: a restart may lose as many.
const SAVED_ALONE: u64 = 3600;

#[derive(Debug)]
pub(crate) struct PassedTime {
    /// What had passed when we started.
    before: u64,
    started: Time,
    now: u64,
    /// What is stored.
    saved: u64,
}

impl PassedTime {
    /// Goes on from what was stored. A router that never counted begins with what the wall clock
    /// says, as the records that it may have are of that time.
    pub(super) fn new(stored: Option<u64>, clock: Clock) -> PassedTime {
        let before = stored.unwrap_or(clock.wall);
        PassedTime {
            before,
            started: clock.now,
            now: before,
            saved: stored.unwrap_or(0),
        }
    }

    pub(super) fn set(&mut self, clock: Clock) {
        let passed = clock
            .now
            .as_micros()
            .saturating_sub(self.started.as_micros());
        let now = self.before.saturating_add(passed / 1_000_000);
        self.now = self.now.max(now);
    }

    pub(super) fn now(&self) -> u64 {
        self.now
    }

    pub(super) fn saved(&self) -> u64 {
        self.saved
    }

    pub(super) fn set_saved(&mut self, saved: u64) {
        self.saved = saved;
    }

    /// Whether it is to be saved along with what changed.
    pub(super) fn is_unsaved(&self) -> bool {
        self.now.saturating_sub(self.saved) >= SAVED_ALONG
    }

    /// Whether it is to be saved even if nothing changed.
    pub(super) fn is_unsaved_for_long(&self) -> bool {
        self.now.saturating_sub(self.saved) >= SAVED_ALONE
    }
}
