//! Datagrams in batches, with the local address that each was sent to.
//!
//! A server that listens on all addresses must answer from the one that was asked, or the client
//! takes the answer for somebody else's. The kernel tells and takes that address in control
//! messages (`ip(7)`, `IP_PKTINFO`; `ipv6(7)`, `IPV6_PKTINFO`).

use std::io;
use std::mem::{size_of, zeroed};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd};
use std::ptr;

use super::sockopt;
use libc::{c_int, cmsghdr, in_pktinfo, in6_pktinfo, mmsghdr, msghdr, sockaddr_in, sockaddr_in6};

/// The two ends of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Path {
    /// The other end.
    pub remote: SocketAddr,
    /// Our address, if the socket was asked to tell.
    pub local: Option<IpAddr>,
    /// The interface, for addresses that mean nothing without; else 0.
    pub scope: u32,
}

/// Makes a socket tell the local address of each datagram.
pub fn set_local_address_told(fd: impl AsFd, ipv6: bool) -> io::Result<()> {
    let (level, name) = match ipv6 {
        false => (libc::IPPROTO_IP, libc::IP_PKTINFO),
        true => (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO),
    };
    sockopt::set(fd, level, name, 1)
}

/// Room for an address of either family.
type Address = sockaddr_in6;
/// Room for a control message with either kind of local address, aligned for its header.
type Control = [u64; 8];

const _: () = assert!(size_of::<sockaddr_in>() <= size_of::<Address>());
const _: () = assert!(control_space::<in_pktinfo>() <= size_of::<Control>());
const _: () = assert!(control_space::<in6_pktinfo>() <= size_of::<Control>());

const fn control_space<T>() -> usize {
    // SAFETY: CMSG_SPACE is arithmetic on its argument.
    unsafe { libc::CMSG_SPACE(size_of::<T>() as u32) as usize }
}

/// The kernel's record for each message of a batch.
struct Slots {
    headers: Box<[mmsghdr]>,
    vectors: Box<[libc::iovec]>,
    addresses: Box<[Address]>,
    controls: Box<[Control]>,
}

impl Slots {
    fn new(count: usize) -> Slots {
        // SAFETY: integers, and raw pointers inside; zeros are valid.
        let header: mmsghdr = unsafe { zeroed() };
        // SAFETY: a raw pointer and an integer; zeros are valid.
        let vector: libc::iovec = unsafe { zeroed() };
        // SAFETY: integers; zeros are valid.
        let address: Address = unsafe { zeroed() };
        Slots {
            headers: vec![header; count].into(),
            vectors: vec![vector; count].into(),
            addresses: vec![address; count].into(),
            controls: vec![[0; 8]; count].into(),
        }
    }

    /// Points the header of a slot at the rest of it and at `data`.
    fn point(&mut self, index: usize, data: *mut u8, len: usize) -> &mut msghdr {
        let vector = &mut self.vectors[index];
        vector.iov_base = data.cast();
        vector.iov_len = len;
        let header = &mut self.headers[index].msg_hdr;
        header.msg_name = ptr::from_mut(&mut self.addresses[index]).cast();
        header.msg_namelen = size_of::<Address>() as libc::socklen_t;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_control = ptr::from_mut(&mut self.controls[index]).cast();
        header.msg_controllen = size_of::<Control>() as _;
        header.msg_flags = 0;
        header
    }
}

/// Received datagrams. Made once, filled again and again.
pub struct Inbox {
    slots: Slots,
    buffers: Box<[u8]>,
    buffer_bytes: usize,
    filled: usize,
}

// SAFETY: the raw pointers inside are written and used within one call of `receive`, always
// towards memory that the inbox owns.
unsafe impl Send for Inbox {}

impl Inbox {
    /// Room for `count` datagrams of `buffer_bytes` each.
    pub fn new(count: usize, buffer_bytes: usize) -> Inbox {
        Inbox {
            slots: Slots::new(count),
            buffers: vec![0; count * buffer_bytes].into(),
            buffer_bytes,
            filled: 0,
        }
    }

    /// Takes what waits at the socket, in place of what was taken before. Returns how many
    /// datagrams there are; `WouldBlock` if nothing waits.
    pub fn receive(&mut self, fd: impl AsFd) -> io::Result<usize> {
        self.filled = 0;
        let buffers = self.buffers.chunks_exact_mut(self.buffer_bytes);
        for (index, buffer) in buffers.enumerate() {
            self.slots.point(index, buffer.as_mut_ptr(), buffer.len());
        }
        let headers = &mut self.slots.headers;
        // SAFETY: `point` has pointed every header at an address, a vector, a control buffer and
        // a data buffer of this inbox, with their sizes; nothing else refers to them during the
        // call.
        let received = unsafe {
            libc::recvmmsg(
                fd.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as _,
                libc::MSG_DONTWAIT as _,
                ptr::null_mut(),
            )
        };
        self.filled = usize::try_from(received).map_err(|_| io::Error::last_os_error())?;
        Ok(self.filled)
    }

    /// Returns the datagrams. Those too long for their buffer and those of unknown origin are left
    /// out.
    pub fn datagrams(&self) -> impl Iterator<Item = (Path, &[u8])> {
        let buffers = self.buffers.chunks_exact(self.buffer_bytes);
        let headers = self.slots.headers[..self.filled].iter();
        let slots = headers.zip(&self.slots.addresses).zip(buffers);
        slots.filter_map(|((header, address), buffer)| {
            let data = buffer.get(..header.msg_len as usize)?;
            let header = &header.msg_hdr;
            if header.msg_flags & libc::MSG_TRUNC != 0 {
                return None;
            }
            let remote = read_address(address)?;
            let (local, interface) = read_local(header).unzip();
            let scope = match local {
                Some(IpAddr::V6(local)) if local.is_unicast_link_local() => interface,
                _ => None,
            };
            let path = Path {
                remote,
                local,
                scope: scope.unwrap_or(0),
            };
            Some((path, data))
        })
    }
}

/// Datagrams to be sent. Made once, filled and sent again and again.
pub struct Outbox {
    slots: Slots,
    bytes: Vec<u8>,
    /// Destination of each datagram, and its end in `bytes`.
    waiting: Vec<(Path, usize)>,
}

// SAFETY: the raw pointers inside are written and used within one call of `send`, always towards
// memory that the outbox owns.
unsafe impl Send for Outbox {}

impl Outbox {
    /// Room for `count` datagrams.
    pub fn new(count: usize) -> Outbox {
        Outbox {
            slots: Slots::new(count),
            bytes: Vec::new(),
            waiting: Vec::with_capacity(count),
        }
    }

    /// Adds a datagram; `false` if there is no room.
    pub fn push(&mut self, path: Path, data: &[u8]) -> bool {
        if self.waiting.len() == self.slots.headers.len() {
            return false;
        }
        self.bytes.extend_from_slice(data);
        self.waiting.push((path, self.bytes.len()));
        true
    }

    /// Returns how many datagrams there are.
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Returns true if there are none.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Forgets all datagrams.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.waiting.clear();
    }

    /// Sends the datagrams from number `from` on. Returns how many the kernel took, at least one;
    /// the error is that of datagram `from`.
    pub fn send(&mut self, fd: impl AsFd, from: usize) -> io::Result<usize> {
        let Some(count) = self.waiting.len().checked_sub(from).filter(|n| *n > 0) else {
            return Ok(0);
        };
        for index in from..self.waiting.len() {
            let start = match index.checked_sub(1) {
                Some(before) => self.waiting[before].1,
                None => 0,
            };
            let (path, end) = self.waiting[index];
            let name_bytes = write_address(path.remote, &mut self.slots.addresses[index]);
            let control = &mut self.slots.controls[index];
            let control_bytes = path
                .local
                .map_or(0, |ip| write_local(ip, path.scope, control));
            let data = &mut self.bytes[start..end];
            let header = self.slots.point(index, data.as_mut_ptr(), data.len());
            header.msg_namelen = name_bytes;
            header.msg_controllen = control_bytes as _;
        }
        let headers = &mut self.slots.headers[from..from + count];
        // SAFETY: the loop has pointed each of the headers at an address, a vector, a control
        // message and bytes of this outbox; the kernel reads them during the call and writes
        // nothing but `msg_len` of each header.
        let sent = unsafe {
            libc::sendmmsg(
                fd.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                headers.len() as _,
                libc::MSG_DONTWAIT as _,
            )
        };
        usize::try_from(sent).map_err(|_| io::Error::last_os_error())
    }
}

fn read_address(address: &Address) -> Option<SocketAddr> {
    match c_int::from(address.sin6_family) {
        libc::AF_INET => {
            // SAFETY: an address of this family is a sockaddr_in, which is no larger, no more
            // strictly aligned, and of which all bit patterns are valid.
            let address = unsafe { ptr::from_ref(address).cast::<sockaddr_in>().read() };
            let ip = Ipv4Addr::from(address.sin_addr.s_addr.to_ne_bytes());
            Some(SocketAddrV4::new(ip, u16::from_be(address.sin_port)).into())
        }
        libc::AF_INET6 => {
            let ip = Ipv6Addr::from(address.sin6_addr.s6_addr);
            let port = u16::from_be(address.sin6_port);
            Some(SocketAddrV6::new(ip, port, 0, address.sin6_scope_id).into())
        }
        _ => None,
    }
}

/// Writes an address; returns its length.
fn write_address(from: SocketAddr, to: &mut Address) -> libc::socklen_t {
    match from {
        SocketAddr::V4(from) => {
            let place = ptr::from_mut(to).cast::<sockaddr_in>();
            // SAFETY: a sockaddr_in is no larger and no more strictly aligned than the place, and
            // zeros are valid in both.
            let address = unsafe {
                place.write(zeroed());
                &mut *place
            };
            address.sin_family = libc::AF_INET as libc::sa_family_t;
            address.sin_port = from.port().to_be();
            address.sin_addr.s_addr = u32::from_ne_bytes(from.ip().octets());
            size_of::<sockaddr_in>() as libc::socklen_t
        }
        SocketAddr::V6(from) => {
            to.sin6_family = libc::AF_INET6 as libc::sa_family_t;
            to.sin6_port = from.port().to_be();
            to.sin6_flowinfo = 0;
            to.sin6_addr.s6_addr = from.ip().octets();
            to.sin6_scope_id = from.scope_id();
            size_of::<sockaddr_in6>() as libc::socklen_t
        }
    }
}

/// Returns the local address and the interface in the control messages of a received datagram.
fn read_local(header: &msghdr) -> Option<(IpAddr, u32)> {
    // SAFETY: `msg_control` and `msg_controllen` are what the kernel left in a control buffer of
    // the inbox, so the CMSG macros stay inside it, and data of these types is what the kernel
    // writes under these numbers.
    unsafe {
        let mut control = libc::CMSG_FIRSTHDR(header);
        while let Some(message) = control.as_ref() {
            match (message.cmsg_level, message.cmsg_type) {
                (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                    let info = libc::CMSG_DATA(control)
                        .cast::<in_pktinfo>()
                        .read_unaligned();
                    let local = Ipv4Addr::from(info.ipi_spec_dst.s_addr.to_ne_bytes());
                    return Some((local.into(), info.ipi_ifindex.cast_unsigned()));
                }
                (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                    let info = libc::CMSG_DATA(control)
                        .cast::<in6_pktinfo>()
                        .read_unaligned();
                    let local = Ipv6Addr::from(info.ipi6_addr.s6_addr);
                    return Some((local.into(), info.ipi6_ifindex as u32));
                }
                _ => control = libc::CMSG_NXTHDR(header, control),
            }
        }
    }
    None
}

/// Writes the control message that chooses the local address; returns its length.
fn write_local(local: IpAddr, scope: u32, control: &mut Control) -> usize {
    match local {
        IpAddr::V4(local) => {
            let info = in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr {
                    s_addr: u32::from_ne_bytes(local.octets()),
                },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            write_control(libc::IPPROTO_IP, libc::IP_PKTINFO, info, control)
        }
        IpAddr::V6(local) => {
            let info = in6_pktinfo {
                ipi6_addr: libc::in6_addr {
                    s6_addr: local.octets(),
                },
                ipi6_ifindex: scope as _,
            };
            write_control(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, info, control)
        }
    }
}

fn write_control<T>(level: c_int, kind: c_int, data: T, control: &mut Control) -> usize {
    const { assert!(control_space::<T>() <= size_of::<Control>()) };
    *control = [0; 8];
    let header = ptr::from_mut(control).cast::<cmsghdr>();
    // SAFETY: a `Control` is aligned for a cmsghdr, whose members are at most 8 bytes wide, and
    // as asserted above large enough for it and for `data` after it.
    unsafe {
        (*header).cmsg_level = level;
        (*header).cmsg_type = kind;
        (*header).cmsg_len = libc::CMSG_LEN(size_of::<T>() as u32) as _;
        libc::CMSG_DATA(header).cast::<T>().write_unaligned(data);
    }
    control_space::<T>()
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    /// Sends two datagrams to `to` through a server on all addresses and returns the origin of
    /// what comes back, with the paths that the server saw.
    fn exchange(any: &str, to: IpAddr) -> (Vec<SocketAddr>, Vec<Path>) {
        let server = UdpSocket::bind(any).unwrap();
        set_local_address_told(&server, to.is_ipv6()).unwrap();
        let client = UdpSocket::bind(any).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(5)))
            .unwrap();
        let target = SocketAddr::new(to, server.local_addr().unwrap().port());
        for text in ["one", "two"] {
            client.send_to(text.as_bytes(), target).unwrap();
        }
        let (mut inbox, mut outbox) = (Inbox::new(4, 16), Outbox::new(4));
        assert_eq!(inbox.receive(&server).unwrap(), 2);
        let paths = inbox.datagrams().map(|(path, _)| path).collect();
        for (path, data) in inbox.datagrams() {
            assert!(outbox.push(path, data));
        }
        assert_eq!(outbox.send(&server, 0).unwrap(), 2);
        let mut buffer = [0; 16];
        let origins = ["one", "two"].map(|text| {
            let (len, from) = client.recv_from(&mut buffer).unwrap();
            assert_eq!(&buffer[..len], text.as_bytes());
            assert_eq!(from, target);
            from
        });
        (origins.into(), paths)
    }

    #[test]
    fn answers_leave_from_the_address_that_was_asked() {
        // Any address of 127.0.0.0/8 is ours, but only 127.0.0.1 would be chosen by itself.
        let asked = IpAddr::from([127, 0, 3, 4]);
        let (origins, paths) = exchange("0.0.0.0:0", asked);
        assert!(origins.iter().all(|origin| origin.ip() == asked));
        assert!(
            paths
                .iter()
                .all(|path| path.local == Some(asked) && path.scope == 0)
        );
    }

    #[test]
    fn answers_leave_from_the_ipv6_address_that_was_asked() {
        if let Err(error) = UdpSocket::bind("[::1]:0") {
            let needs = format!("the address ::1 ({error})");
            return testbed::skips::skip("answers_leave_from_the_ipv6_address", &needs);
        }
        let asked = IpAddr::from(Ipv6Addr::LOCALHOST);
        let (origins, paths) = exchange("[::]:0", asked);
        assert!(origins.iter().all(|origin| origin.ip() == asked));
        assert_eq!(paths.len(), 2);
        assert!(paths.iter().all(|path| path.local == Some(asked)));
    }

    #[test]
    fn what_is_too_long_is_left_out() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let target = server.local_addr().unwrap();
        for len in [17, 16, 0] {
            client.send_to(&[7; 17][..len], target).unwrap();
        }
        let mut inbox = Inbox::new(4, 16);
        assert_eq!(inbox.receive(&server).unwrap(), 3);
        let seen: Vec<_> = inbox
            .datagrams()
            .map(|(path, data)| (path.local, data.len()))
            .collect();
        assert_eq!(seen, [(None, 16), (None, 0)]);
        let empty = inbox.receive(&server).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
        assert_eq!(inbox.datagrams().count(), 0);
    }

    #[test]
    fn an_error_belongs_to_the_first_datagram() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        let path = |remote| Path {
            remote,
            local: None,
            scope: 0,
        };
        let good = path(client.local_addr().unwrap());
        let bad = path("127.0.0.1:0".parse().unwrap());
        let mut outbox = Outbox::new(3);
        for path in [good, bad, good] {
            assert!(outbox.push(path, b"x"));
        }
        assert!(!outbox.push(good, b"x"));
        assert_eq!(outbox.send(&server, 0).unwrap(), 1);
        assert!(outbox.send(&server, 1).is_err());
        assert_eq!(outbox.send(&server, 2).unwrap(), 1);
        assert_eq!(outbox.send(&server, 3).unwrap(), 0);
        outbox.clear();
        assert!(outbox.is_empty() && outbox.push(good, b"y") && outbox.len() == 1);
    }
}
