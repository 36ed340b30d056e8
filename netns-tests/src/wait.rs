//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

/// What should be done in milliseconds may take this long on a machine that does other things.
pub const SOON: Duration = Duration::from_secs(15);
/// What waits for timers of the protocol (new attempts to connect, gossip).
pub const LATER: Duration = Duration::from_secs(40);
/// What waits until a silent peer is given up, which takes 60 s.
pub const TIMED_OUT: Duration = Duration::from_secs(100);

const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// Looks until there is an answer, and panics with `what` if there is none in time.
#[track_caller]
pub fn until<T>(what: &str, time: Duration, look: impl FnMut() -> Option<T>) -> T {
    match within(time, look) {
        Some(answer) => answer,
        None => panic!("waited {time:?} in vain: {what}"),
    }
}

/// Looks until something is true, and panics with `what` if it does not become so in time.
#[track_caller]
pub fn until_true(what: &str, time: Duration, mut look: impl FnMut() -> bool) {
    until(what, time, || look().then_some(()));
}

/// Looks until there is an answer, or the time is over.
pub fn within<T>(time: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = Instant::now() + time;
    loop {
        let late = Instant::now() >= deadline;
        match look() {
            None if late => return None,
            None => thread::sleep(POLL_INTERVAL),
            answer => return answer,
        }
    }
}

/// Makes sure that something stays true for a while.
#[track_caller]
pub fn stays_true(what: &str, time: Duration, mut look: impl FnMut() -> bool) {
    let deadline = Instant::now() + time;
    while Instant::now() < deadline {
        assert!(look(), "{what}");
        thread::sleep(POLL_INTERVAL);
    }
}
