//! A clock that is set by hand, and chance that repeats.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use proto::types::Time;

use crate::clock::{Clock, Random, RandomError};

/// Seconds of the wall clock at the start.
const WALL_START: u64 = 1_700_000_000;

/// A clock that all clones share.
#[derive(Clone, Debug, Default)]
pub struct ManualClock(Arc<AtomicU64>);

impl ManualClock {
    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        let micros = u64::try_from(by.as_micros()).unwrap_or(u64::MAX);
        self.0.fetch_add(micros, Relaxed);
    }

    fn since(&self) -> Duration {
        Duration::from_micros(self.0.load(Relaxed))
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        Time::ZERO + self.since()
    }

    fn wall(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(WALL_START) + self.since()
    }
}

/// Bytes that depend on a seed alone. All clones share them.
#[derive(Clone, Debug)]
pub struct SeededRandom {
    state: Arc<AtomicU64>,
    is_empty: Arc<AtomicBool>,
}

impl SeededRandom {
    /// Bytes from a seed.
    pub fn new(seed: u64) -> SeededRandom {
        SeededRandom {
            state: Arc::new(AtomicU64::new(seed)),
            is_empty: Arc::default(),
        }
    }

    /// Gives no bytes from now on, or some again.
    pub fn set_empty(&self, is_empty: bool) {
        self.is_empty.store(is_empty, Relaxed);
    }
}

impl Random for SeededRandom {
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError> {
        if self.is_empty.load(Relaxed) {
            return Err(RandomError("none is left".to_owned()));
        }
        for byte in out {
            // SplitMix64.
            let step = 0x9E37_79B9_7F4A_7C15;
            let mut mixed = self.state.fetch_add(step, Relaxed).wrapping_add(step);
            mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
            *byte = (mixed >> 56) as u8;
        }
        Ok(())
    }
}
