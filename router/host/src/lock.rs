//! One router per network namespace.
//!
//! The lock is a socket with a name in the abstract namespace of unix sockets. Such names belong
//! to a network namespace, are taken by one socket at a time, need no file system that two
//! containers would have to share, and are free again when the process ends, however it ends.
//! A second name tells the process that holds the lock.

use std::fmt;
use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::thread;
use std::time::Duration;

/// The right to be the router of a network namespace, held until it is dropped.
#[derive(Debug)]
pub struct RouterLock {
    _lock: UnixDatagram,
    _holder: UnixDatagram,
}

/// Why there is no lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another router has it.
    #[error(
        "a router is already running in this network namespace ({0}): stop it first (weft stop)"
    )]
    Held(Holder),
    /// The system refused.
    #[error("cannot take the lock of this network namespace: {0}")]
    Io(#[from] io::Error),
}

/// The process that holds the lock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holder {
    /// Its id, in its own pid namespace.
    pub pid: Option<u32>,
    /// Its command, if a process with this id is seen from here and is in this network namespace.
    pub command: Option<String>,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.pid, &self.command) {
            (Some(pid), Some(command)) => write!(f, "{command}, process {pid}"),
            (Some(pid), None) => write!(f, "process {pid} of another container"),
            (None, _) => f.write_str("process unknown"),
        }
    }
}

impl RouterLock {
    /// Takes the lock of the calling thread's network namespace. Never waits.
    pub fn acquire() -> Result<RouterLock, LockError> {
        let lock = match bind(LOCK_NAME) {
            Ok(lock) => lock,
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                return Err(LockError::Held(holder()?.unwrap_or_default()));
            }
            Err(error) => return Err(error.into()),
        };
        let holder = bind(&format!("{HOLDER_PREFIX}{}", std::process::id()))?;
        Ok(RouterLock {
            _lock: lock,
            _holder: holder,
        })
    }
}

/// Returns who holds the lock of the calling thread's network namespace; `None` if it is free.
pub fn holder() -> io::Result<Option<Holder>> {
    for _ in 0..HOLDER_ATTEMPTS_MAX {
        let (held, pid) = read_names()?;
        if !held {
            return Ok(None);
        }
        if let Some(pid) = pid {
            return Ok(Some(Holder {
                pid: Some(pid),
                command: command_of(pid),
            }));
        }
        // Between its two names.
        thread::sleep(Duration::from_millis(5));
    }
    Ok(Some(Holder::default()))
}

/// Returns true if the lock is held, and the pid that the second name tells. The names stand at the
/// ends of lines, with '@' for the zero byte that starts an abstract name.
fn read_names() -> io::Result<(bool, Option<u32>)> {
    let sockets = fs::read_to_string("/proc/thread-self/net/unix")?;
    let mut held = false;
    let mut pid = None;
    for line in sockets.lines() {
        let name = line.rsplit_once(" @").map_or("", |(_, name)| name);
        held |= name == LOCK_NAME;
        if let Some(digits) = name.strip_prefix(HOLDER_PREFIX) {
            pid = digits.parse().ok();
        }
    }
    Ok((held, pid))
}

fn command_of(pid: u32) -> Option<String> {
    let here = fs::read_link("/proc/thread-self/ns/net").ok()?;
    let there = fs::read_link(format!("/proc/{pid}/ns/net")).ok()?;
    if here != there {
        return None;
    }
    let command = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
    Some(command.trim_end().to_owned())
}

fn bind(name: &str) -> io::Result<UnixDatagram> {
    UnixDatagram::bind_addr(&SocketAddr::from_abstract_name(name)?)
}

const LOCK_NAME: &str = "weft-router";
const HOLDER_PREFIX: &str = "weft-router-of-process-";
/// Number of attempts to find the holder's second name before the holder counts as unknown.
const HOLDER_ATTEMPTS_MAX: u32 = 10;

#[cfg(test)]
mod tests;
