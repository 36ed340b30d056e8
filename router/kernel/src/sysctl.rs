//! Settings below `/proc/sys/net`.
//!
//! These files show the network namespace of the thread that opens them, whatever the mount
//! namespace is; so the functions here work on the namespace of the calling thread. (The files of
//! `/sys/class/net` show the namespace in which they were mounted; nothing here uses them.)
//!
//! In a container `/proc/sys` is often mounted read-only. A write then goes through a private,
//! writable instance of the file system, which takes the same privilege as entering a namespace.

use std::fs;
use std::io;

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{FsMountFlags, FsOpenFlags, MountAttrFlags};

use crate::error::NetError;

/// Reads the setting `key`, a path below `/proc/sys/net` such as `ipv4/ip_forward`. `None` if the
/// kernel has no such setting, as when IPv6 is disabled.
pub fn get(key: &str) -> Result<Option<String>, NetError> {
    match fs::read_to_string(path(key)) {
        Ok(value) => Ok(Some(value.trim().to_owned())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(NetError::io(format!("read sysctl {key}"), &e)),
    }
}

/// Writes the setting `key`, unless it has the value already.
pub fn set(key: &str, value: &str) -> Result<(), NetError> {
    if get(key)?.as_deref() == Some(value) {
        return Ok(());
    }
    let failed = |e: &io::Error| NetError::io(format!("set sysctl {key} to {value}"), e);
    match fs::write(path(key), value) {
        Err(e) if Errno::from_io_error(&e) == Some(Errno::ROFS) => {
            write_privately(key, value).map_err(|errno| failed(&errno.into()))
        }
        result => result.map_err(|e| failed(&e)),
    }
}

/// Writes the setting `key` if the kernel has it, and returns whether it has.
pub fn set_if_present(key: &str, value: &str) -> Result<bool, NetError> {
    if get(key)?.is_none() {
        return Ok(false);
    }
    set(key, value)?;
    Ok(true)
}

fn path(key: &str) -> String {
    format!("/proc/sys/net/{key}")
}

/// Writes through an instance of procfs that is mounted nowhere.
pub(super) fn write_privately(key: &str, value: &str) -> Result<(), Errno> {
    let context = rustix::mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC)?;
    rustix::mount::fsconfig_create(&context)?;
    let root = rustix::mount::fsmount(
        &context,
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = OFlags::WRONLY | OFlags::CLOEXEC;
    let file = rustix::fs::openat(root, format!("sys/net/{key}"), flags, Mode::empty())?;
    rustix::io::write(file, value.as_bytes())?;
    Ok(())
}
