//! How far an operation came.

use std::time::Duration;

use proto::types::Time;

use super::api::{RequestError, Response, Waiting};

/// After this time without an answer a router is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(2);

/// After this time no message is still under way: whoever sent it may be gone for so long.
pub(super) const MESSAGE_LIFETIME: Duration = Duration::from_secs(60);

/// How far an operation came.
pub(super) enum Progress {
    /// It is over.
    Done(Result<Response, RequestError>),
    /// It goes on when something changes, or at this time.
    Wait(Waiting, Time),
}

/// Why something cannot be had yet, and when to look again.
pub(super) type NotYet = (Waiting, Time);

impl From<NotYet> for Progress {
    fn from((waiting, wake): NotYet) -> Progress {
        Progress::Wait(waiting, wake)
    }
}
