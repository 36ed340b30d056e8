//! Progress of an operation.

use std::time::Duration;

use proto::types::Time;

use super::api::{RequestError, Response, Waiting};

/// Time after which a router that did not answer is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// Time after which no message can still be under way.
pub(super) const MESSAGE_LIFETIME: Duration = Duration::from_secs(60);

/// Progress of an operation.
pub(super) enum Progress {
    /// It is over.
    Done(Result<Response, RequestError>),
    /// It continues when something changes, or at this time.
    Wait(Waiting, Time),
}

/// Why something is not available yet, and when to try again.
pub(super) type NotYet = (Waiting, Time);

impl From<NotYet> for Progress {
    fn from((waiting, wake): NotYet) -> Progress {
        Progress::Wait(waiting, wake)
    }
}
