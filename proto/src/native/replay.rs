//! Replay protection of a native stream.
//!
//! ```text
//! counter    block (27 bits) | bit (5 bits)
//! cell       block (32 bits) | which of its 32 counters were seen (32 bits)
//! ```
//!
//! Each block of counters has one cell, which it shares with the blocks that lie a window before
//! and after it. A later block takes the cell over; earlier ones are refused from then on. So no
//! counter is accepted twice, and one that is less than [`WINDOW`] behind the newest is accepted
//! once. Cells are independent, so any number of threads may check counters at once.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering::Relaxed};

/// How far a datagram may be behind the newest of its stream and still be accepted.
pub const WINDOW: u32 = ((CELLS - 1) * BLOCK) as u32;

const CELLS: usize = 512;
const BLOCK: usize = 32;

/// Replay state of one stream.
#[derive(Debug)]
pub(super) struct Window {
    cells: [AtomicU64; CELLS],
    newest: AtomicU32,
}

/// A datagram that is seen for the first time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Accepted {
    /// Whether all that were seen before are older.
    pub(super) is_newest: bool,
}

impl Window {
    pub(super) fn new() -> Window {
        Window {
            cells: [const { AtomicU64::new(0) }; CELLS],
            newest: AtomicU32::new(0),
        }
    }

    /// Records a datagram. Returns `None` if it was seen before, or is too old to tell. Call this
    /// only after authentication.
    ///
    /// Rule: `docs/native.md#what-an-attacker-can-do`.
    #[inline]
    pub(super) fn accept(&self, counter: u32) -> Option<Accepted> {
        let block = u64::from(counter) / BLOCK as u64;
        let bit = 1_u64 << (counter as usize % BLOCK);
        let cell = &self.cells[block as usize % CELLS];
        let mut old = cell.load(Relaxed);
        loop {
            let held = old >> 32;
            let new = if held == block && old & bit == 0 {
                old | bit
            } else if held < block {
                block << 32 | bit
            } else {
                return None;
            };
            match cell.compare_exchange_weak(old, new, Relaxed, Relaxed) {
                Ok(_) => break,
                Err(now) => old = now,
            }
        }
        let newest = self.newest.load(Relaxed);
        let is_newest = counter >= newest;
        if is_newest {
            // If two threads arrive here at once, the older datagram may win. Then one more counts
            // as newest, which only affects the peer's address.
            self.newest.store(counter, Relaxed);
        }
        Some(Accepted { is_newest })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn accepts(window: &Window, counter: u32) -> bool {
        window.accept(counter).is_some()
    }

    #[test]
    fn each_counter_counts_once() {
        let window = Window::new();
        for counter in [0, 1, 2, 31, 32, 33, 5, 63, 1000, 999] {
            assert!(accepts(&window, counter), "{counter}");
            assert!(!accepts(&window, counter), "{counter}");
        }
    }

    #[test]
    fn newest_is_told() {
        let window = Window::new();
        let newest = |counter| window.accept(counter).map(|a| a.is_newest);
        assert_eq!(newest(0), Some(true));
        assert_eq!(newest(7), Some(true));
        assert_eq!(newest(3), Some(false));
        assert_eq!(newest(7), None);
        assert_eq!(newest(u32::MAX), Some(true));
    }

    #[test]
    fn a_window_behind_the_newest_is_still_taken() {
        for newest in [WINDOW, 100_000, u32::MAX - 5, u32::MAX] {
            let window = Window::new();
            assert!(accepts(&window, newest));
            for behind in [1, 2, 31, 32, 8191, 8192, WINDOW - 1, WINDOW] {
                assert!(accepts(&window, newest - behind), "{newest} - {behind}");
            }
            if let Some(too_old) = newest.checked_sub(WINDOW + 32) {
                assert!(!accepts(&window, too_old), "{newest}");
            }
        }
    }

    #[test]
    fn any_order_is_taken_once() {
        let mut rng = fastrand::Rng::with_seed(1);
        for _ in 0..50 {
            let window = Window::new();
            let mut seen = BTreeSet::new();
            let mut newest = 0;
            for _ in 0..2000 {
                let counter = match rng.u32(..10) {
                    0 => newest + rng.u32(..3 * WINDOW),
                    1 => rng.u32(..=newest),
                    _ => (newest + 3).saturating_sub(rng.u32(..200)),
                };
                let fresh = !seen.contains(&counter);
                let taken = accepts(&window, counter);
                assert!(!taken || fresh, "{counter} twice");
                assert!(
                    taken || !fresh || counter + WINDOW < newest,
                    "{counter} of {newest}"
                );
                if taken {
                    seen.insert(counter);
                    newest = newest.max(counter);
                }
            }
        }
    }

    #[test]
    fn many_threads_take_each_counter_once() {
        // As many as there are places for, so that no thread ever brings what is too old.
        let counters = (CELLS * BLOCK) as u32;
        for _ in 0..10 {
            let window = Window::new();
            let mut taken: Vec<u32> = std::thread::scope(|scope| {
                let run = |start: u32| {
                    let all = (0..counters).map(move |counter| (counter + start) % counters);
                    all.filter(|counter| accepts(&window, *counter))
                        .collect::<Vec<_>>()
                };
                let starts = [0, 1, 7, counters / 2];
                let threads = starts.map(|start| scope.spawn(move || run(start)));
                threads
                    .into_iter()
                    .flat_map(|t| t.join().unwrap())
                    .collect()
            });
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..counters));
        }
    }
}
