//! Notifications of the kernel that devices appeared, changed or disappeared.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType};

use crate::error::{KernelError, NetError};

/// A socket that hears when a device of its namespace changes. What changed is not told: whoever
/// waits looks for itself.
#[derive(Debug)]
pub struct LinkMonitor {
    fd: OwnedFd,
}

impl LinkMonitor {
    /// Watches the calling thread's namespace from now on.
    pub fn open() -> Result<LinkMonitor, NetError> {
        let failed = |errno| KernelError::new("open a netlink socket", errno);
        let fd = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE is number 0.
        )
        .map_err(failed)?;
        rustix::net::bind(&fd, &SocketAddrNetlink::new(0, RTMGRP_LINK)).map_err(failed)?;
        Ok(LinkMonitor { fd })
    }

    /// Waits until something has changed since the last call.
    pub fn wait(&self) -> Result<(), NetError> {
        let mut some = false;
        // Messages need not be read whole, as nothing is read of them.
        let mut buffer = [0; 16];
        loop {
            let more = if some {
                RecvFlags::DONTWAIT
            } else {
                RecvFlags::empty()
            };
            match rustix::net::recv(&self.fd, &mut buffer, more) {
                // Lost messages are messages as well.
                Ok(_) | Err(Errno::NOBUFS) => some = true,
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(errno) => return Err(KernelError::new("watch devices", errno).into()),
            }
        }
    }
}

/// Messages about devices (linux/rtnetlink.h).
const RTMGRP_LINK: u32 = 1;
