//! Time and chance, as control takes them.

use std::time::SystemTime;

use proto::types::Time;

/// Says what time it is.
pub trait Clock: Send {
    /// Returns the time as the core counts it. Never goes back.
    fn now(&self) -> Time;

    /// Returns what the wall clock shows, which may jump.
    fn wall(&self) -> SystemTime;
}

/// Gives random bytes.
pub trait Random: Send {
    /// Fills `out` with bytes that nobody can guess.
    fn fill(&mut self, out: &mut [u8]) -> Result<(), RandomError>;
}

/// There are no random bytes, for this reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the system gives no random bytes: {0}")]
pub struct RandomError(pub String);
