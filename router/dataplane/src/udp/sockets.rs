//! The UDP sockets of the overlays, all on the one port of the mesh.
//!
//! Whether a datagram may be fragmented is a property of the socket that sends it, so there are three
//! kinds ([`Way`]). The kernel spreads what arrives over all sockets of a port, so a small program
//! steers it to the receiving ones only: all sleeve packets of one sender to the same one, since
//! that thread alone knows which of them were seen before, and native datagrams by their streams,
//! so that their order is kept.

use super::feature::{Feature, FeatureState};
use super::steering;
use super::way::Way;
use crate::ports::Datagrams;
use crate::wait;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rustix::net::sockopt;
use rustix::net::{AddressFamily, SocketFlags, SocketType};

use kernel::sys::batch as sys;
use kernel::sys::batch::{ReceiveBatch, SendBatch};

/// The receive buffer that is asked for, in bytes. What exceeds it is lost while a data thread is
/// busy with a train of super-frames.
pub const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// The send buffer that is asked for, in bytes.
pub const SEND_BUFFER_BYTES: usize = 4 << 20;

/// Options for opening the sockets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpConfig {
    /// Address and port to bind to.
    pub local: SocketAddrV4,
    /// Number of receiving sockets.
    pub queues: u16,
    /// Whether the kernel may cut runs of equal datagrams (UDP_SEGMENT).
    pub gso: bool,
    /// Whether the kernel may put received datagrams together (UDP_GRO).
    pub gro: bool,
}

/// Why the sockets cannot be opened, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum UdpError {
    /// The port is taken.
    #[error(
        "UDP port {0} is in use by another process (another router?); stop it, or choose another \
         port with --port on all hosts"
    )]
    PortTaken(u16),
    /// The kernel refused for another reason.
    #[error("cannot {what} UDP socket on {local}: {error}")]
    Refused {
        /// The operation that was tried.
        what: &'static str,
        /// The address.
        local: SocketAddrV4,
        /// The kernel's error.
        error: io::Error,
    },
}

/// The open sockets, shared by the data threads and by whoever sends special frames.
#[derive(Debug)]
pub struct Sockets {
    receiving: Vec<OwnedFd>,
    non_df: OwnedFd,
    /// One for each data thread pair; these only send.
    native: Vec<OwnedFd>,
    /// Connected to one destination after the other, to ask for their path MTU. In the same
    /// network namespace as the others, whichever thread asks.
    prober: Mutex<OwnedFd>,
    local: SocketAddrV4,
    /// Whether runs of datagrams are cut by the kernel. Given up by the first sender that finds it
    /// does not work.
    pub gso: Feature,
    /// Whether the kernel puts received datagrams together.
    pub gro: Feature,
    receive_buffer: usize,
}

/// Result of opening the sockets, and what was given up since.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpStatus {
    /// Cutting by the kernel.
    pub gso: FeatureState,
    /// Putting together by the kernel.
    pub gro: FeatureState,
    /// Bytes of the receive buffer in force.
    pub receive_buffer: usize,
    /// Datagrams that the kernel dropped because a receive buffer was full.
    pub kernel_drops: u64,
}

impl Sockets {
    /// Opens and binds all sockets.
    pub fn open(config: &UdpConfig) -> Result<Sockets, UdpError> {
        let mut local = config.local;
        let refused = |what| {
            let local = config.local;
            move |error| UdpError::Refused { what, local, error }
        };
        // The first is bound without sharing the port, so that it finds another router there.
        let first = open_socket().map_err(refused("open"))?;
        bind(&first, local)?;
        local.set_port(local_port(&first).map_err(refused("look at"))?);
        sys::set_reuse_port(&first, true).map_err(refused("share the port of"))?;
        let mut receiving = vec![first];
        while receiving.len() < usize::from(config.queues.max(1)) {
            receiving.push(open_sharing(local).map_err(refused("open"))?);
        }
        let non_df = open_sharing(local).map_err(refused("open"))?;
        let native = receiving.iter().map(|_| {
            let socket = open_sharing(local)?;
            sys::set_mtu_discover(&socket, sys::MtuDiscover::Probe)?;
            set_buffers(&socket);
            Ok(socket)
        });
        let native = native.collect::<io::Result<_>>().map_err(refused("open"))?;
        for socket in &receiving {
            sys::set_mtu_discover(socket, sys::MtuDiscover::Do).map_err(refused("set up"))?;
        }
        sys::set_mtu_discover(&non_df, sys::MtuDiscover::Dont).map_err(refused("set up"))?;

        let program = steering::program(receiving.len());
        sys::attach_reuse_port_program(&non_df, &program).map_err(refused("steer"))?;
        let receive_buffer = receiving.iter().map(set_buffers).min().unwrap_or_default();
        set_buffers(&non_df);
        if receive_buffer < RECEIVE_BUFFER_BYTES {
            tracing::warn!(
                bytes = receive_buffer,
                "receive buffer is small and bursts may be lost; raise it with \
                 sysctl -w net.core.rmem_max={RECEIVE_BUFFER_BYTES}"
            );
        }
        let gso = Feature::probe("udp segmentation offload", config.gso, || {
            sys::probe_segmentation(&non_df)
        });
        let gro = Feature::probe("udp receive offload", config.gro, || {
            receiving
                .iter()
                .try_for_each(|socket| sys::set_gro(socket, true))
        });
        Ok(Sockets {
            receiving,
            non_df,
            native,
            prober: Mutex::new(open_socket().map_err(refused("open"))?),
            local,
            gso,
            gro,
            receive_buffer,
        })
    }

    /// Returns the address and port in use.
    pub const fn local(&self) -> SocketAddrV4 {
        self.local
    }

    /// Returns the socket that a data thread pair receives on and sends on with "don't fragment".
    pub fn df(&self, queue: usize) -> BorrowedFd<'_> {
        self.receiving[queue % self.receiving.len()].as_fd()
    }

    /// Returns the socket for datagrams that may be fragmented.
    pub fn non_df(&self) -> BorrowedFd<'_> {
        self.non_df.as_fd()
    }

    /// Returns the socket of a data thread pair for datagrams of the native overlay.
    pub fn native(&self, queue: usize) -> BorrowedFd<'_> {
        self.native[queue % self.native.len()].as_fd()
    }

    /// Returns the socket for datagrams that leave this way from a data thread pair.
    pub fn sending(&self, way: Way, queue: usize) -> BorrowedFd<'_> {
        match way {
            Way::Df => self.df(queue),
            Way::NonDf => self.non_df(),
            Way::Native => self.native(queue),
        }
    }

    /// Returns how many sockets receive.
    pub fn queues(&self) -> usize {
        self.receiving.len()
    }

    /// Sends one datagram at once, without waiting for room in the send buffer. `Refused` errors
    /// are the kernel's; `EMSGSIZE` means that it exceeds the known path MTU.
    pub fn send_one(&self, way: impl Into<Way>, to: SocketAddrV4, bytes: &[u8]) -> io::Result<()> {
        use rustix::net::{SendFlags, sendto};
        let socket = self.sending(way.into(), 0);
        sendto(socket, bytes, SendFlags::DONTWAIT, &to)?;
        Ok(())
    }

    /// Returns the path MTU that the kernel knows towards `to`, in bytes of IP packet.
    pub fn path_mtu(&self, to: SocketAddrV4) -> io::Result<u32> {
        let socket = self.prober.lock().unwrap_or_else(PoisonError::into_inner);
        rustix::net::connect(&*socket, &to)?;
        sys::path_mtu(&*socket)
    }

    /// Returns what is in force.
    pub fn status(&self) -> UdpStatus {
        let drops = self.receiving.iter().map(|s| sys::drops(s).unwrap_or(0));
        UdpStatus {
            gso: self.gso.state(),
            gro: self.gro.state(),
            receive_buffer: self.receive_buffer,
            kernel_drops: drops.map(u64::from).sum(),
        }
    }
}

impl Datagrams for Sockets {
    fn receive(&self, queue: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.receive(self.df(queue))
    }

    fn send(
        &self,
        (way, queue): (Way, usize),
        batch: &mut SendBatch,
        buffer: &[u8],
        from: usize,
    ) -> io::Result<usize> {
        batch.send(self.sending(way, queue), buffer, from)
    }

    fn send_one(&self, way: Way, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
        Sockets::send_one(self, way, to, datagram)
    }

    fn path_mtu(&self, to: SocketAddrV4) -> io::Result<u32> {
        Sockets::path_mtu(self, to)
    }

    fn wait(&self, queue: usize, stop: BorrowedFd<'_>, limit: Option<Duration>) {
        wait::readable(self.df(queue), stop, limit);
    }

    fn cuts(&self) -> bool {
        self.gso.is_on()
    }

    fn stop_cutting(&self, error: &io::Error) {
        self.gso.give_up(error);
    }

    fn joins(&self) -> bool {
        self.gro.is_on()
    }
}

fn open_socket() -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::INET, SocketType::DGRAM);
    Ok(rustix::net::socket_with(
        family,
        kind,
        SocketFlags::CLOEXEC,
        None,
    )?)
}

fn open_sharing(local: SocketAddrV4) -> io::Result<OwnedFd> {
    let socket = open_socket()?;
    sys::set_reuse_port(&socket, true)?;
    rustix::net::bind(&socket, &local)?;
    Ok(socket)
}

fn bind(socket: &OwnedFd, local: SocketAddrV4) -> Result<(), UdpError> {
    rustix::net::bind(socket, &local).map_err(|error| match error {
        rustix::io::Errno::ADDRINUSE => UdpError::PortTaken(local.port()),
        error => UdpError::Refused {
            what: "bind",
            local,
            error: error.into(),
        },
    })
}

fn local_port(socket: &OwnedFd) -> io::Result<u16> {
    let address = rustix::net::getsockname(socket)?;
    let address = SocketAddrV4::try_from(address)?;
    Ok(address.port())
}

/// Asks for large buffers, beyond the system's limit if we may; returns the bytes of receive
/// buffer granted.
fn set_buffers(socket: &OwnedFd) -> usize {
    // Sending works with any size; a small one only makes the sender wait more often.
    let _ = sockopt::set_socket_send_buffer_size_force(socket, SEND_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER_BYTES));
    let _ = sockopt::set_socket_recv_buffer_size_force(socket, RECEIVE_BUFFER_BYTES)
        .or_else(|_| sockopt::set_socket_recv_buffer_size(socket, RECEIVE_BUFFER_BYTES));
    // The kernel doubles what it is asked for, to account for its own bookkeeping.
    sockopt::socket_recv_buffer_size(socket).unwrap_or_default() / 2
}

/// The address that stands for "this host, whichever interface".
pub const ANY: Ipv4Addr = Ipv4Addr::UNSPECIFIED;

#[cfg(test)]
mod tests;
