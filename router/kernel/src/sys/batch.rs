//! Batches of datagrams: `sendmmsg` and `recvmmsg` with segmentation offload, and the socket
//! options that the safe crates lack.

use std::ffi::{c_int, c_void};
use std::io;
use std::mem::{size_of, zeroed};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::sockopt;

/// Maximum number of segments that the kernel takes in one send. Newer kernels take 128; all that
/// have the feature take 64.
pub const SEGMENTS_MAX: usize = 64;

/// Words that hold the control message of one datagram, on 32-bit and 64-bit machines.
const CONTROL_WORDS: usize = 8;
type Control = [u64; CONTROL_WORDS];

const _: () = assert!(control_space::<c_int>() <= size_of::<Control>());

const fn control_space<T>() -> usize {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

/// One message for [`SendBatch::push`]: a span of the buffer given to [`SendBatch::send`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Its destination.
    pub to: SocketAddrV4,
    /// Its first byte in the buffer.
    pub start: usize,
    /// Its size in bytes.
    pub len: usize,
    /// Zero for one datagram; else the bytes of each of the datagrams that the kernel cuts the
    /// span into (the last may be shorter), at most [`SEGMENTS_MAX`] of them.
    pub segment: u16,
}

/// Messages that leave in one system call. Made once, filled and sent again and again.
pub struct SendBatch {
    messages: Vec<Outgoing>,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are written and used within one call of `send`, always towards
// memory that the batch owns or borrows during that call.
unsafe impl Send for SendBatch {}

impl SendBatch {
    /// Creates a batch for at most `capacity` messages.
    pub fn new(capacity: usize) -> SendBatch {
        let mut batch = SendBatch {
            messages: Vec::with_capacity(capacity),
            headers: zeros(capacity),
            vectors: zeros(capacity),
            addresses: zeros(capacity),
            controls: vec![[0; CONTROL_WORDS]; capacity].into(),
        };
        for (control, address) in batch.controls.iter_mut().zip(&mut batch.addresses) {
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            write_segment_size(control, 0);
        }
        batch
    }

    /// Returns the messages, in the order in which they leave.
    pub fn messages(&self) -> &[Outgoing] {
        &self.messages
    }

    /// Returns true if no further message fits.
    pub fn is_full(&self) -> bool {
        self.messages.len() == self.headers.len()
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.messages.clear();
    }

    /// Adds a message; `false` if the batch is full.
    pub fn push(&mut self, message: Outgoing) -> bool {
        if self.is_full() {
            return false;
        }
        self.messages.push(message);
        true
    }

    /// Returns the message added last, to be lengthened.
    pub fn last_mut(&mut self) -> Option<&mut Outgoing> {
        self.messages.last_mut()
    }

    /// Sends the messages from index `from` on, whose spans lie in `buffer`. Returns how many the
    /// kernel took; the error is the one of message `from`.
    pub fn send(&mut self, fd: impl AsFd, buffer: &[u8], from: usize) -> io::Result<usize> {
        let count = self.messages.len().saturating_sub(from);
        for index in from..self.messages.len() {
            self.prepare(index, buffer)?;
        }
        let Some(headers) = self.headers.get_mut(from..from + count) else {
            return Ok(0);
        };
        // SAFETY: `prepare` has pointed each of the `count` headers at an address, a vector, a
        // control message of this batch and at a span inside `buffer`; the kernel reads them
        // during the call only and writes nothing but `msg_len` of each header.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as _,
                0,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }

    fn prepare(&mut self, index: usize, buffer: &[u8]) -> io::Result<()> {
        let message = self.messages[index];
        let Some(span) = buffer
            .get(message.start..)
            .and_then(|rest| rest.get(..message.len))
        else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        let vector = &mut self.vectors[index];
        vector.iov_base = span.as_ptr().cast::<c_void>().cast_mut();
        vector.iov_len = span.len();
        let address = &mut self.addresses[index];
        address.sin_port = message.to.port().to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes(message.to.ip().octets());
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = ptr::from_mut(address).cast();
        header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        if message.segment == 0 {
            header.msg_control = ptr::null_mut();
            header.msg_controllen = 0;
        } else {
            let control = &mut self.controls[index];
            write_segment_size(control, message.segment);
            header.msg_control = ptr::from_mut(control).cast();
            header.msg_controllen = control_space::<u16>() as _;
        }
        Ok(())
    }
}

/// Writes a UDP_SEGMENT control message.
fn write_segment_size(control: &mut Control, bytes: u16) {
    let header = ptr::from_mut(control).cast::<libc::cmsghdr>();
    // SAFETY: a `Control` is aligned for a cmsghdr (whose members are at most 8 bytes wide) and,
    // as asserted above, large enough for it and for two bytes of data after it.
    unsafe {
        (*header).cmsg_level = libc::SOL_UDP;
        (*header).cmsg_type = libc::UDP_SEGMENT;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<u16>() as u32) as _;
        libc::CMSG_DATA(header).cast::<u16>().write_unaligned(bytes);
    }
}

/// One received message: a datagram, or several of one flow that the kernel put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// Its origin.
    pub from: SocketAddrV4,
    /// Its first byte in the slab.
    pub start: usize,
    /// Its size in bytes.
    pub len: usize,
    /// The bytes of each datagram in it, at least 1; the last may be shorter.
    pub stride: usize,
    /// Whether there was no room for all of it; the rest is lost.
    pub truncated: bool,
}

/// Buffers for messages that arrive in one system call. Made once.
pub struct ReceiveBatch {
    slab: Box<[u8]>,
    buffer_bytes: usize,
    filled: usize,
    headers: Box<[libc::mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[libc::sockaddr_in]>,
    controls: Box<[Control]>,
}

// SAFETY: the raw pointers inside are written and used within one call of `receive`, always
// towards memory that the batch owns.
unsafe impl Send for ReceiveBatch {}

impl ReceiveBatch {
    /// `count` buffers of `buffer_bytes` each. Pages that no message reaches cost no memory.
    pub fn new(count: usize, buffer_bytes: usize) -> ReceiveBatch {
        ReceiveBatch {
            slab: vec![0; count * buffer_bytes].into(),
            buffer_bytes,
            filled: 0,
            headers: zeros(count),
            vectors: zeros(count),
            addresses: zeros(count),
            controls: vec![[0; CONTROL_WORDS]; count].into(),
        }
    }

    /// Returns how many messages one call may return.
    pub fn capacity(&self) -> usize {
        self.headers.len()
    }

    /// Takes what waits at the socket, without waiting itself: replaces the messages held so far
    /// and returns how many there are. `WouldBlock` if nothing waits.
    pub fn receive(&mut self, fd: impl AsFd) -> io::Result<usize> {
        self.filled = 0;
        for (index, buffer) in self.slab.chunks_exact_mut(self.buffer_bytes).enumerate() {
            let vector = &mut self.vectors[index];
            vector.iov_base = buffer.as_mut_ptr().cast();
            vector.iov_len = buffer.len();
            let header = &mut self.headers[index].msg_hdr;
            header.msg_name = (&raw mut self.addresses[index]).cast();
            header.msg_namelen = size_of::<libc::sockaddr_in>() as libc::socklen_t;
            header.msg_iov = vector;
            header.msg_iovlen = 1;
            header.msg_control = (&raw mut self.controls[index]).cast();
            header.msg_controllen = size_of::<Control>() as _;
            header.msg_flags = 0;
        }
        // SAFETY: the loop above has pointed every header at an address, a vector, a control
        // buffer and a data buffer of this batch, with their sizes; nothing else refers to them
        // during the call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                self.headers.as_mut_ptr(),
                self.headers.len() as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// Forgets all messages.
    pub fn clear(&mut self) {
        self.filled = 0;
    }

    /// Adds a message that came from somewhere else than a socket. Returns false if there is no
    /// room for it.
    pub fn place(&mut self, from: SocketAddrV4, bytes: &[u8]) -> bool {
        let index = self.filled;
        let buffers = &mut self.slab.chunks_exact_mut(self.buffer_bytes);
        let (Some(buffer), Some(header), Some(address)) = (
            buffers
                .nth(index)
                .and_then(|buffer| buffer.get_mut(..bytes.len())),
            self.headers.get_mut(index),
            self.addresses.get_mut(index),
        ) else {
            return false;
        };
        buffer.copy_from_slice(bytes);
        header.msg_len = bytes.len() as u32;
        header.msg_hdr.msg_controllen = 0;
        header.msg_hdr.msg_flags = 0;
        address.sin_port = from.port().to_be();
        address.sin_addr.s_addr = u32::from_ne_bytes(from.ip().octets());
        self.filled += 1;
        true
    }

    /// Message `index` of the last [`receive`](ReceiveBatch::receive).
    pub fn message(&self, index: usize) -> Option<Incoming> {
        if index >= self.filled {
            return None;
        }
        let (header, address) = (&self.headers[index], &self.addresses[index]);
        let len = (header.msg_len as usize).min(self.buffer_bytes);
        let from = SocketAddrV4::new(
            Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes()),
            u16::from_be(address.sin_port),
        );
        Some(Incoming {
            from,
            start: index * self.buffer_bytes,
            len,
            stride: gro_size(&header.msg_hdr).unwrap_or(len).max(1),
            truncated: header.msg_hdr.msg_flags & libc::MSG_TRUNC != 0,
        })
    }

    /// Returns the one buffer that all messages lie in.
    pub fn slab_mut(&mut self) -> &mut [u8] {
        &mut self.slab
    }
}

/// Returns the size in the UDP_GRO control message of a received message, if there is one.
fn gro_size(header: &libc::msghdr) -> Option<usize> {
    // SAFETY: `msg_control` and `msg_controllen` are what the kernel left in a control buffer of
    // the batch, so the CMSG macros stay inside it; the data of UDP_GRO is an int.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            if message.cmsg_level == libc::SOL_UDP && message.cmsg_type == libc::UDP_GRO {
                let value = libc::CMSG_DATA(control).cast::<c_int>().read_unaligned();
                return usize::try_from(value).ok();
            }
            control = libc::CMSG_NXTHDR(header, control);
        }
    }
    None
}

/// Fragmentation of a socket's datagrams: `IP_MTU_DISCOVER`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MtuDiscover {
    /// Never set "don't fragment"; the kernel fragments what the path does not take.
    Dont,
    /// Set "don't fragment" and refuse (`EMSGSIZE`) what exceeds the known path MTU.
    Do,
    /// Set "don't fragment", refuse what exceeds the MTU of the device, and do not heed what is
    /// known of the path beyond it.
    Probe,
}

/// Sets `IP_MTU_DISCOVER`.
pub fn set_mtu_discover(fd: impl AsFd, mode: MtuDiscover) -> io::Result<()> {
    let value = match mode {
        MtuDiscover::Dont => libc::IP_PMTUDISC_DONT,
        MtuDiscover::Do => libc::IP_PMTUDISC_DO,
        MtuDiscover::Probe => libc::IP_PMTUDISC_PROBE,
    };
    sockopt::set(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, value)
}

/// Returns the path MTU that the kernel knows for the destination of a connected socket: `IP_MTU`.
pub fn path_mtu(fd: impl AsFd) -> io::Result<u32> {
    let value: c_int = get_option(fd, libc::IPPROTO_IP, libc::IP_MTU)?;
    u32::try_from(value).map_err(|_| io::ErrorKind::InvalidData.into())
}

/// Lets the kernel put received datagrams of one flow together: `UDP_GRO`.
pub fn set_gro(fd: impl AsFd, on: bool) -> io::Result<()> {
    sockopt::set(fd, libc::SOL_UDP, libc::UDP_GRO, i32::from(on))
}

/// Asks whether the kernel knows `UDP_SEGMENT`, without using it for whole sockets.
pub fn probe_segmentation(fd: impl AsFd) -> io::Result<()> {
    sockopt::set(fd, libc::SOL_UDP, libc::UDP_SEGMENT, 0)
}

/// Returns how many datagrams the kernel has dropped at this socket since it was made, above all
/// for want of buffer space.
pub fn drops(fd: impl AsFd) -> io::Result<u32> {
    const SO_MEMINFO: c_int = 55;
    const DROPS: usize = 8;
    let values: [u32; DROPS + 1] = get_option(fd, libc::SOL_SOCKET, SO_MEMINFO)?;
    Ok(values[DROPS])
}

/// Whether several sockets may share a port: `SO_REUSEPORT`.
pub fn set_reuse_port(fd: impl AsFd, on: bool) -> io::Result<()> {
    sockopt::set(fd, libc::SOL_SOCKET, libc::SO_REUSEPORT, i32::from(on))
}

/// An instruction of classic BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Instruction {
    /// Advice for the user.
    pub code: u16,
    /// Number of instructions to skip if a test holds.
    pub jump_true: u8,
    /// Number of instructions to skip if it does not.
    pub jump_false: u8,
    /// The operand.
    pub operand: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());

/// Gives the group of sockets that share the port of `fd` a program that returns, for each
/// arriving datagram, the index of the socket to receive it (in the order in which they were
/// bound). Its packet starts at the payload.
pub fn attach_reuse_port_program(fd: impl AsFd, program: &[Instruction]) -> io::Result<()> {
    let Ok(len) = u16::try_from(program.len()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let description = libc::sock_fprog {
        len,
        filter: program.as_ptr().cast::<libc::sock_filter>().cast_mut(),
    };
    // SAFETY: the kernel reads a sock_fprog at `description` and, through it, `len` instructions at
    // `program`; both are borrowed until the call returns.
    let result = unsafe {
        libc::setsockopt(
            fd.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const description).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// A type of which every bit pattern is a value.
///
/// # Safety
///
/// It must be made of integers and raw pointers only.
unsafe trait Plain: Copy {}
// SAFETY: an integer.
unsafe impl Plain for c_int {}
// SAFETY: integers.
unsafe impl<const N: usize> Plain for [u32; N] {}
// SAFETY: integers and raw pointers.
unsafe impl Plain for libc::mmsghdr {}
// SAFETY: an integer and a raw pointer.
unsafe impl Plain for libc::iovec {}
// SAFETY: integers.
unsafe impl Plain for libc::sockaddr_in {}

fn zeros<T: Plain>(count: usize) -> Box<[T]> {
    // SAFETY: zeros are a value of every `Plain`.
    vec![unsafe { zeroed() }; count].into()
}

/// Gets an option whose value is `T`; what the kernel leaves out stays zero.
fn get_option<T: Plain>(fd: impl AsFd, level: c_int, name: c_int) -> io::Result<T> {
    // SAFETY: zeros are a value of every `Plain`.
    let mut value: T = unsafe { zeroed() };
    let mut len = size_of::<T>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes at `value`, any of which are valid.
    let result = unsafe {
        libc::getsockopt(
            fd.as_fd().as_raw_fd(),
            level,
            name,
            (&raw mut value).cast(),
            &raw mut len,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value)
}
