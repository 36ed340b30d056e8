//! Raw Ethernet frames on one interface (`AF_PACKET`).

use std::io;
use std::mem::size_of;
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use rustix::net::sockopt::Timeout;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// A socket that sends and receives whole Ethernet frames on one interface.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
}

impl PacketSocket {
    /// Opens a socket on interface `index` of the calling thread's network namespace. With
    /// `receive`, every frame that passes the interface in either direction is queued from now
    /// on; without it the socket only sends.
    pub fn open(index: u32, receive: bool) -> io::Result<PacketSocket> {
        let fd = rustix::net::socket_with(
            AddressFamily::PACKET,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let protocol = if receive { libc::ETH_P_ALL as u16 } else { 0 };
        let address = libc::sockaddr_ll {
            sll_family: libc::AF_PACKET as u16,
            sll_protocol: protocol.to_be(),
            sll_ifindex: i32::try_from(index)
                .map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?,
            sll_hatype: 0,
            sll_pkttype: 0,
            sll_halen: 0,
            sll_addr: [0; 8],
        };
        // SAFETY: the pointer and length describe `address`, a complete sockaddr_ll that lives
        // until the call returns; the kernel only reads it.
        let result = unsafe {
            libc::bind(
                fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of::<libc::sockaddr_ll>() as libc::socklen_t,
            )
        };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(PacketSocket { fd })
    }

    /// Sends one frame, Ethernet header first.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        rustix::net::send(&self.fd, frame, SendFlags::empty())?;
        Ok(())
    }

    /// Receives one frame and returns its length, cut to the buffer's. Fails with
    /// [`io::ErrorKind::WouldBlock`] when none came in time.
    pub fn receive(&self, buffer: &mut [u8], timeout: Duration) -> io::Result<usize> {
        // A timeout of zero would mean to wait forever.
        let timeout = timeout.max(Duration::from_micros(1));
        rustix::net::sockopt::set_socket_timeout(&self.fd, Timeout::Recv, Some(timeout))?;
        let (length, _) = rustix::net::recv(&self.fd, buffer, RecvFlags::empty())?;
        Ok(length)
    }
}
