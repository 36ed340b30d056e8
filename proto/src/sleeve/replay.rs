//! Replay protection of a sleeve link.
//!
//! Sequence numbers are divided into windows of 2^20. The numbers of the current window and of the
//! one before it are remembered; older ones are refused. A number beyond the next window makes all
//! earlier ones forgotten.

use super::wire::{COUNTER_DF, Channel};

/// Number of sequence numbers in a window.
pub const WINDOW: u64 = 1 << WINDOW_BITS;

const WINDOW_BITS: u32 = 20;
const WORDS: usize = (WINDOW / 64) as usize;

/// Replay state of one receiver of one link, for both channels.
///
/// Belongs to the thread that opens the link's packets. It uses no memory until the first encrypted
/// packet, then 128 KiB for each channel in use, and as much again once a channel has reached its
/// second window.
pub struct Replay {
    channels: [Sequence; 2],
}

impl Replay {
    /// Creates an empty state.
    pub const fn new() -> Replay {
        Replay {
            channels: [Sequence::new(), Sequence::new()],
        }
    }

    /// Returns true if a packet with `counter` is seen for the first time, and remembers it. Call
    /// this only after authentication.
    ///
    /// Rule: `docs/protocol/sleeve.md#2-5-replay`.
    #[inline]
    pub fn accept(&mut self, counter: u64) -> bool {
        self.channels[channel_of(counter).index()].accept(counter & !COUNTER_DF)
    }
}

impl Default for Replay {
    fn default() -> Replay {
        Replay::new()
    }
}

impl std::fmt::Debug for Replay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let [df, non_df] = &self.channels;
        f.debug_struct("Replay")
            .field("df_window", &df.window)
            .field("non_df_window", &non_df.window)
            .finish()
    }
}

/// Returns the channel that a counter names.
#[inline]
pub(super) const fn channel_of(counter: u64) -> Channel {
    if counter & COUNTER_DF != 0 {
        Channel::Df
    } else {
        Channel::NonDf
    }
}

/// What was seen of one sequence.
struct Sequence {
    window: u64,
    current: Set,
    previous: Set,
}

impl Sequence {
    const fn new() -> Sequence {
        Sequence {
            window: 0,
            current: Set::new(),
            previous: Set::new(),
        }
    }

    /// Rule: `docs/protocol/sleeve.md#2-5-replay`.
    #[inline]
    fn accept(&mut self, sequence: u64) -> bool {
        let window = sequence >> WINDOW_BITS;
        let offset = (sequence % WINDOW) as usize;
        if window == self.window {
            return self.current.insert(offset);
        }
        if window < self.window {
            return window + 1 == self.window && self.previous.insert(offset);
        }
        std::mem::swap(&mut self.current, &mut self.previous);
        self.current.clear();
        if window != self.window + 1 {
            self.previous.clear();
        }
        self.window = window;
        self.current.insert(offset)
    }
}

/// A set of numbers below [`WINDOW`].
struct Set {
    /// Empty until the first number comes.
    words: Vec<u64>,
    /// The words that may be other than zero: `low..high`.
    low: usize,
    high: usize,
}

impl Set {
    const fn new() -> Set {
        Set {
            words: Vec::new(),
            low: WORDS,
            high: 0,
        }
    }

    /// Adds `number`. Returns false if it was present.
    #[inline]
    fn insert(&mut self, number: usize) -> bool {
        if self.words.is_empty() {
            self.allocate();
        }
        let (index, bit) = (number / 64, 1 << (number % 64));
        let Some(word) = self.words.get_mut(index) else {
            return false;
        };
        let new = *word & bit == 0;
        *word |= bit;
        self.low = self.low.min(index);
        self.high = self.high.max(index + 1);
        new
    }

    #[cold]
    fn allocate(&mut self) {
        // Zeroed by the allocator, which leaves fresh pages untouched.
        self.words = vec![0; WORDS];
    }

    fn clear(&mut self) {
        if let Some(used) = self.words.get_mut(self.low..self.high) {
            used.fill(0);
        }
        self.low = WORDS;
        self.high = 0;
    }
}

#[cfg(test)]
mod tests;
