//! Sockets that systemd opened and handed over.

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, RawFd};
use std::os::unix::net::UnixListener;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::net::{AddressFamily, SocketType, sockopt};

/// The first descriptor that is handed over (sd_listen_fds(3)).
const FIRST: RawFd = 3;
/// Descriptors that are looked at; more are left alone.
const LISTENERS_MAX: RawFd = 64;

/// Returns the listening unix sockets that this process was given at its start. Only the first call
/// gets them.
pub fn listeners() -> Vec<UnixListener> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let number = |name| std::env::var(name).ok()?.parse::<i64>().ok();
    let ours = number("LISTEN_PID") == Some(i64::from(std::process::id()));
    let count = number("LISTEN_FDS").unwrap_or(0);
    if !ours || count <= 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Vec::new();
    }
    let count = RawFd::try_from(count).map_or(LISTENERS_MAX, |count| count.min(LISTENERS_MAX));
    (FIRST..FIRST + count).filter_map(take).collect()
}

/// Takes a descriptor if it is a listening unix socket.
fn take(number: RawFd) -> Option<UnixListener> {
    // SAFETY: the descriptor is only looked at; one that is not open gives an error.
    let looked = unsafe { BorrowedFd::borrow_raw(number) };
    let is_unix = sockopt::socket_domain(looked) == Ok(AddressFamily::UNIX)
        && sockopt::socket_type(looked) == Ok(SocketType::STREAM)
        && sockopt::socket_acceptconn(looked) == Ok(true);
    if !is_unix {
        return None;
    }
    // SAFETY: systemd opened this descriptor for this process alone, nothing else here knows its
    // number, and `listeners` takes each only once.
    let listener = unsafe { UnixListener::from_raw_fd(number) };
    let prepare = || -> io::Result<()> {
        rustix::io::fcntl_setfd(&listener, rustix::io::FdFlags::CLOEXEC)?;
        listener.set_nonblocking(true)
    };
    prepare().ok().map(|()| listener)
}
