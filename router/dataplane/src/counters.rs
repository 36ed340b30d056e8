//! Counters of the data threads. Each thread has its own counters and is the only one to write
//! them, so counting takes no locked instruction; readers sum over the threads.
//!
//! Frames are those of the wire: a super-frame counts as the segments it stands for. All threads
//! together satisfy, whenever nothing is on the way inside them,
//!
//! ```text
//! captured + received + made = injected + sent + specials + all drops
//! ```
//!
//! where `made` counts copies for further neighbours, further fragments, and answers.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use boundary::counters::{COUNTS, Count, DROPS, DropReason, Totals};

/// The counters of one thread.
#[repr(align(128))]
#[derive(Debug)]
pub(crate) struct Counters {
    counts: [AtomicU64; COUNTS],
    drops: [AtomicU64; DROPS],
}

impl Counters {
    pub(crate) const fn new() -> Counters {
        Counters {
            counts: [const { AtomicU64::new(0) }; COUNTS],
            drops: [const { AtomicU64::new(0) }; DROPS],
        }
    }

    /// Adds to a counter. Only for the thread that owns these counters.
    #[inline]
    pub(crate) fn add(&self, count: Count, by: usize) {
        bump(&self.counts[count as usize], by);
    }

    /// Takes back what was counted too early. Only for the thread that owns these counters.
    pub(crate) fn take_back(&self, count: Count, by: usize) {
        let counter = &self.counts[count as usize];
        counter.store(counter.load(Relaxed).saturating_sub(by as u64), Relaxed);
    }

    /// Counts `frames` dropped for `reason`. Only for the thread that owns these counters.
    #[inline]
    pub(crate) fn drop(&self, reason: DropReason, frames: usize) {
        bump(&self.drops[reason as usize], frames);
    }
}

#[inline]
fn bump(counter: &AtomicU64, by: usize) {
    counter.store(counter.load(Relaxed) + by as u64, Relaxed);
}

/// Sums the counters of all threads.
pub(crate) fn sum<'a>(threads: impl IntoIterator<Item = &'a Counters>) -> Totals {
    let mut totals = Totals::default();
    for thread in threads {
        for (index, counter) in thread.counts.iter().enumerate() {
            totals.add(index, counter.load(Relaxed));
        }
        for (index, counter) in thread.drops.iter().enumerate() {
            totals.add_drops(index, counter.load(Relaxed));
        }
    }
    totals
}
