//! Limits of templates, which untrusted clients may send.

use std::cell::Cell;
use std::time::{Duration, Instant};

use serde_json::Value;

/// Maximum amount of work for one template. A report of a mesh of 500 routers, each connected to
/// each, is some 2 million.
const WORK_MAX: u64 = 32 << 20;
/// Longest time for one template.
const TIME_MAX: Duration = Duration::from_secs(5);
/// Work between looks at the clock.
const LOOK_INTERVAL: u64 = 1 << 16;
/// Number of bytes of text that count as one value.
const BYTES_PER_VALUE: usize = 4;

/// The remaining work, in values inspected or copied.
#[derive(Debug)]
pub(super) struct Budget {
    left: Cell<u64>,
    looked: Cell<u64>,
    deadline: Instant,
}

impl Budget {
    /// Returns what a template gets.
    pub(super) fn full() -> Budget {
        Budget::of(WORK_MAX, TIME_MAX)
    }

    /// So much work, in so much time.
    pub(super) fn of(work: u64, time: Duration) -> Budget {
        Budget {
            left: Cell::new(work),
            looked: Cell::new(work),
            deadline: Instant::now() + time,
        }
    }

    /// Takes work from what is left. Returns false if it is not there, or the time is over.
    pub(super) fn take(&self, work: u64) -> bool {
        let Some(left) = self.left.get().checked_sub(work) else {
            return false;
        };
        self.left.set(left);
        if self.looked.get() - left >= LOOK_INTERVAL {
            self.looked.set(left);
            return Instant::now() < self.deadline;
        }
        true
    }

    /// As [`Budget::take`], for a value that is copied or written out.
    pub(super) fn take_value(&self, value: &Value) -> bool {
        let children = match value {
            Value::String(text) => return self.take(1 + (text.len() / BYTES_PER_VALUE) as u64),
            Value::Array(items) => items.iter().all(|item| self.take_value(item)),
            Value::Object(map) => map.values().all(|item| self.take_value(item)),
            _ => true,
        };
        children && self.take(1)
    }
}
