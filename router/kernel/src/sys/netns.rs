//! Namespaces of the calling thread.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

use rustix::thread::{LinkNameSpaceType, UnshareFlags};

/// Moves the calling thread into the network namespace behind `namespace`. Other threads of the
/// process stay where they are.
pub fn enter(namespace: BorrowedFd<'_>) -> io::Result<()> {
    rustix::thread::move_into_link_name_space(namespace, Some(LinkNameSpaceType::Network))?;
    Ok(())
}

/// Moves the calling thread into the host-name namespace behind `namespace`.
pub fn enter_uts(namespace: BorrowedFd<'_>) -> io::Result<()> {
    let kind = LinkNameSpaceType::HostNameAndNISDomainName;
    rustix::thread::move_into_link_name_space(namespace, Some(kind))?;
    Ok(())
}

/// Moves the calling thread into a new, empty network namespace.
pub fn unshare() -> io::Result<()> {
    // SAFETY: the hazard of this call is CLONE_FILES, which would give this thread a descriptor
    // table of its own; only CLONE_NEWNET is passed.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }?;
    Ok(())
}

/// Returns true if an open file is a network namespace.
pub fn is_network_namespace(file: BorrowedFd<'_>) -> bool {
    // SAFETY: the descriptor is open while borrowed, and this request takes no argument: it
    // returns the kind of a namespace (linux/nsfs.h), or an error for any other file.
    let kind = unsafe { libc::ioctl(file.as_raw_fd(), NS_GET_NSTYPE as libc::Ioctl) };
    kind == libc::CLONE_NEWNET
}

const NS_GET_NSTYPE: u32 = 0xb703;
