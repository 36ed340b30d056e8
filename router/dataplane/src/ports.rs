//! The ports between the threads that carry frames and the kernel.
//!
//! The threads are generic over both traits, so that a call costs nothing over a direct one, and
//! run in tests without devices and sockets.

use std::io::{self, IoSlice};
use std::net::SocketAddrV4;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use kernel::sys::batch::{ReceiveBatch, SendBatch};

use crate::udp::way::Way;

/// One queue of a device that gives and takes Ethernet frames, each with a virtio-net header
/// before it. Nothing but [`wait`](Frames::wait) blocks.
pub trait Frames: Send + Sync {
    /// Reads one frame. Returns its bytes, header included; `WouldBlock` if none waits.
    fn read(&self, into: &mut [u8]) -> io::Result<usize>;

    /// Writes one frame given in pieces. `EIO` if the device is down, `EINVAL` if the header does
    /// not fit the frame or the device takes no such super-frames.
    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()>;

    /// Waits until there may be a frame to read, until `stop` can be read, or for `limit`.
    fn wait(&self, stop: BorrowedFd<'_>, limit: Option<Duration>);
}

/// The sockets of the overlays; `queue` names the pair of data threads that uses them. Nothing but
/// [`wait`](Datagrams::wait) blocks.
pub trait Datagrams: Send + Sync {
    /// Replaces the messages of `batch` by those that wait, and returns how many there are;
    /// `WouldBlock` if there are none.
    fn receive(&self, queue: usize, batch: &mut ReceiveBatch) -> io::Result<usize>;

    /// Sends the messages of `batch` from index `from` on, whose spans lie in `buffer`, this way
    /// and for this queue. Returns how many were taken; the error is that of message `from`.
    fn send(
        &self,
        by: (Way, usize),
        batch: &mut SendBatch,
        buffer: &[u8],
        from: usize,
    ) -> io::Result<usize>;

    /// Sends one datagram at once. `EMSGSIZE` if it exceeds what `way` allows.
    fn send_one(&self, way: Way, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()>;

    /// Returns the path MTU that is known towards `to`, in bytes of IP packet.
    fn path_mtu(&self, to: SocketAddrV4) -> io::Result<u32>;

    /// Waits until there may be a message to receive, until `stop` can be read, or for `limit`.
    fn wait(&self, queue: usize, stop: BorrowedFd<'_>, limit: Option<Duration>);

    /// Returns true if a run of datagrams of equal size may be sent as one message.
    fn cuts(&self) -> bool;

    /// Reports that a run was refused with this error and its datagrams were taken one by one.
    fn stop_cutting(&self, error: &io::Error);

    /// Returns true if a message may hold several datagrams that came one after the other.
    fn joins(&self) -> bool;
}
