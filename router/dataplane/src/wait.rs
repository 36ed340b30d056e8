//! Waiting for a descriptor of the kernel.

use std::os::fd::BorrowedFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Waits until `fd` or `stop` can be read, or for `limit`. An interrupted wait is as good as one
/// that ended.
pub(crate) fn readable(fd: BorrowedFd<'_>, stop: BorrowedFd<'_>, limit: Option<Duration>) {
    let limit = limit.and_then(|limit| Timespec::try_from(limit).ok());
    let mut fds = [
        PollFd::new(&fd, PollFlags::IN),
        PollFd::new(&stop, PollFlags::IN),
    ];
    let _ = poll(&mut fds, limit.as_ref());
}
