//! Requests to /dev/net/tun: what turns an open file into a queue of a TAP device.

use std::ffi::c_int;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::fs::{Mode, OFlags};

/// Queues carry Ethernet frames (as opposed to IP packets).
pub const IFF_TAP: u16 = libc::IFF_TAP as u16;
/// No protocol word before each frame.
pub const IFF_NO_PI: u16 = libc::IFF_NO_PI as u16;
/// A virtio-net header before each frame, which carries checksum and segmentation offloads.
pub const IFF_VNET_HDR: u16 = libc::IFF_VNET_HDR as u16;
/// The device may have more than one queue.
pub const IFF_MULTI_QUEUE: u16 = libc::IFF_MULTI_QUEUE as u16;

/// The reader completes checksums.
pub const TUN_F_CSUM: u32 = libc::TUN_F_CSUM;
/// The reader splits TCP super-frames over IPv4.
pub const TUN_F_TSO4: u32 = libc::TUN_F_TSO4;
/// The reader splits TCP super-frames over IPv6.
pub const TUN_F_TSO6: u32 = libc::TUN_F_TSO6;
/// The reader splits TCP super-frames whose first segment alone carries CWR.
pub const TUN_F_TSO_ECN: u32 = libc::TUN_F_TSO_ECN;
/// The reader splits UDP super-frames over IPv4. Kernels take it only together with the next.
pub const TUN_F_USO4: u32 = libc::TUN_F_USO4;
/// The reader splits UDP super-frames over IPv6.
pub const TUN_F_USO6: u32 = libc::TUN_F_USO6;

/// Longest name of a network device, without the closing zero.
pub const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;

/// Opens /dev/net/tun: a descriptor that does not block and belongs to no device yet.
pub fn open_control() -> io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::open("/dev/net/tun", flags, Mode::empty())?)
}

/// Makes `fd` a queue of the device `name`, which is created if it does not exist.
///
/// `EINVAL` if a device of that name exists and is no TAP or differs in `IFF_MULTI_QUEUE`;
/// `EBUSY` if another process holds it; `EPERM` without `CAP_NET_ADMIN`.
pub fn attach(fd: impl AsFd, name: &str, flags: u16) -> io::Result<()> {
    let mut request = interface_request(name)?;
    request.ifr_ifru.ifru_flags = flags.cast_signed();
    // SAFETY: TUNSETIFF reads and writes one ifreq, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNSETIFF, &raw mut request) })
}

/// Whether the device outlives its last open queue.
pub fn set_persist(fd: impl AsFd, persist: bool) -> io::Result<()> {
    set_value(fd, libc::TUNSETPERSIST, libc::c_ulong::from(persist))
}

/// Tells the kernel which offloads the reader of the queues does. State of the device, not of the
/// queue: a device that is adopted has the mask of its last owner until it is set again.
pub fn set_offload(fd: impl AsFd, mask: u32) -> io::Result<()> {
    set_value(fd, libc::TUNSETOFFLOAD, libc::c_ulong::from(mask))
}

/// Sets how many bytes of virtio-net header go before each frame.
pub fn set_vnet_header_size(fd: impl AsFd, bytes: u16) -> io::Result<()> {
    let value = c_int::from(bytes);
    // SAFETY: TUNSETVNETHDRSZ reads one int, which `value` is and which outlives the call.
    check(unsafe {
        libc::ioctl(
            fd.as_fd().as_raw_fd(),
            libc::TUNSETVNETHDRSZ,
            &raw const value,
        )
    })
}

/// Returns the flags of the device that `fd` is a queue of.
pub fn flags(fd: impl AsFd) -> io::Result<u16> {
    let mut request = interface_request("")?;
    // SAFETY: TUNGETIFF writes one ifreq, which `request` is and which outlives the call.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), libc::TUNGETIFF, &raw mut request) })?;
    // SAFETY: every bit pattern is a valid short, and TUNGETIFF fills this member.
    Ok(unsafe { request.ifr_ifru.ifru_flags }.cast_unsigned())
}

fn set_value(fd: impl AsFd, request: libc::Ioctl, value: libc::c_ulong) -> io::Result<()> {
    // SAFETY: both requests passed here take their argument by value; no memory is touched.
    check(unsafe { libc::ioctl(fd.as_fd().as_raw_fd(), request, value) })
}

fn interface_request(name: &str) -> io::Result<libc::ifreq> {
    if name.len() > NAME_BYTES_MAX || name.bytes().any(|b| b == 0 || b == b'/') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    // SAFETY: an ifreq is made of integers, raw pointers and a union of such; zeros are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (slot, byte) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *slot = byte as libc::c_char;
    }
    Ok(request)
}

fn check(result: c_int) -> io::Result<()> {
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
