//! Time and chance, from the system.

use std::time::{Instant, SystemTime};

use boundary::clock::{Clock, Random, RandomError};
use proto::types::Time;

/// The system's clocks.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemClock {
    /// The start of the core's clock.
    pub(super) epoch: Instant,
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time::ZERO + self.epoch.elapsed()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// The system's random bytes.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemRandom;

impl Random for SystemRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        getrandom::fill(out).map_err(|error| RandomError(error.to_string()))
    }
}
