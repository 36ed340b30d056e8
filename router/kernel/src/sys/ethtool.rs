//! Offloads of an interface (`SIOCETHTOOL`, the commands with one value).

use std::ffi::{c_char, c_void};
use std::io;
use std::os::fd::AsRawFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};

/// One of the offloads that can be switched by a command of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offload {
    /// The device completes checksums of frames that are sent.
    TxChecksum,
    /// The device vouches for checksums of frames that are received.
    RxChecksum,
    /// The device cuts large TCP segments.
    TcpSegmentation,
    /// The stack hands large segments down to the device.
    GenericSegmentation,
    /// The stack joins received segments.
    GenericReceive,
}

impl Offload {
    const fn get_command(self) -> u32 {
        match self {
            Offload::TxChecksum => 0x16,
            Offload::RxChecksum => 0x14,
            Offload::TcpSegmentation => 0x1e,
            Offload::GenericSegmentation => 0x23,
            Offload::GenericReceive => 0x2b,
        }
    }

    const fn set_command(self) -> u32 {
        self.get_command() + 1
    }
}

/// Returns true if the offload of interface `name` in the calling thread's namespace is on.
pub fn offload(name: &str, offload: Offload) -> io::Result<bool> {
    Ok(command(name, offload.get_command(), 0)? != 0)
}

/// Switches an offload of interface `name` in the calling thread's namespace.
pub fn set_offload(name: &str, offload: Offload, on: bool) -> io::Result<()> {
    command(name, offload.set_command(), u32::from(on))?;
    Ok(())
}

/// `struct ethtool_value`.
#[repr(C)]
struct Value {
    command: u32,
    data: u32,
}

/// `struct ifreq` with the pointer member of its union; padded to the size of the whole.
#[repr(C)]
struct Request {
    name: [c_char; libc::IFNAMSIZ],
    data: *mut c_void,
    padding: [u8; 24 - size_of::<*mut c_void>()],
}

fn command(name: &str, command: u32, data: u32) -> io::Result<u32> {
    if name.len() >= libc::IFNAMSIZ {
        return Err(io::Error::from_raw_os_error(libc::ENAMETOOLONG));
    }
    let socket = rustix::net::socket_with(
        AddressFamily::INET,
        SocketType::DGRAM,
        SocketFlags::CLOEXEC,
        None,
    )?;
    let mut value = Value { command, data };
    let mut request = Request {
        name: [0; libc::IFNAMSIZ],
        data: (&raw mut value).cast(),
        padding: [0; 24 - size_of::<*mut c_void>()],
    };
    for (to, from) in request.name.iter_mut().zip(name.bytes()) {
        *to = from as c_char;
    }
    // SAFETY: `request` has the layout and at least the size of struct ifreq, its name ends with a zero
    // byte, and its pointer leads to a struct ethtool_value, which is all that the commands of
    // `Offload` read and write; both outlive the call.
    let result = unsafe {
        libc::ioctl(
            socket.as_raw_fd(),
            SIOCETHTOOL as libc::Ioctl,
            &raw mut request,
        )
    };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(value.data)
}

const SIOCETHTOOL: u32 = 0x8946;
