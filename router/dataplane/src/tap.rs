//! The TAP device by which the router is a port of the local bridge.
//!
//! Every frame goes with a virtio-net header, so that checksums may be left open and one frame may
//! stand for many segments. The device outlives the router; the next start adopts it. Bridge, MTU
//! and addresses are not decided here.

use std::fmt;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use proto::offload::vnet::VNET_BYTES;
use rustix::io::Errno;

use crate::ports::Frames;
use crate::wait;
use kernel::sys::tap as sys;

/// Maximum number of queues that a device is opened with.
pub const QUEUES_MAX: u16 = 16;

/// Options for opening a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TapConfig {
    /// Its name.
    pub name: String,
    /// Number of queues, at most [`QUEUES_MAX`].
    pub queues: u16,
    /// Whether the kernel may hand us super-frames and open checksums.
    pub offload: bool,
}

/// Why a device cannot be opened or removed, and what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// The kernel has no TUN driver, or hides it.
    #[error(
        "cannot open /dev/net/tun: {0}; load the driver (modprobe tun) or, inside a container, \
         pass the device on (--device /dev/net/tun)"
    )]
    NoDriver(io::Error),
    /// The process lacks `CAP_NET_ADMIN`.
    #[error("not allowed to open TAP device {0}; run as root or with CAP_NET_ADMIN")]
    NotPermitted(String),
    /// Another process holds the device.
    #[error("TAP device {0} is in use by another process; stop it first")]
    Busy(String),
    /// There is a device of that name that is no TAP.
    #[error("device {0} exists but is no TAP device; remove it (ip link delete {0})")]
    NotTap(String),
    /// The kernel refused for another reason.
    #[error("cannot {what} TAP device {name}: {error}")]
    Refused {
        /// The name of the device.
        name: String,
        /// The operation that was tried.
        what: &'static str,
        /// The kernel's error.
        error: io::Error,
    },
}

/// Which offloads the kernel leaves to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offload(u32);

impl Offload {
    /// None: every frame is complete and no longer than the MTU.
    pub const NONE: Offload = Offload(0);

    /// From the best to the least. Kernels before 6.2 do not know UDP segmentation.
    const LADDER: [Offload; 4] = [
        Offload(
            sys::TUN_F_CSUM
                | sys::TUN_F_TSO4
                | sys::TUN_F_TSO6
                | sys::TUN_F_TSO_ECN
                | sys::TUN_F_USO4
                | sys::TUN_F_USO6,
        ),
        Offload(sys::TUN_F_CSUM | sys::TUN_F_TSO4 | sys::TUN_F_TSO6 | sys::TUN_F_TSO_ECN),
        Offload(sys::TUN_F_CSUM),
        Offload::NONE,
    ];

    /// Returns true if super-frames of TCP come.
    pub const fn tcp(self) -> bool {
        self.0 & sys::TUN_F_TSO4 != 0
    }

    /// Returns true if super-frames of UDP come.
    pub const fn udp(self) -> bool {
        self.0 & sys::TUN_F_USO4 != 0
    }
}

impl fmt::Display for Offload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match (self.0, self.tcp(), self.udp()) {
            (0, ..) => "off",
            (_, _, true) => "checksum, tcp, udp",
            (_, true, _) => "checksum, tcp",
            _ => "checksum",
        })
    }
}

/// Result of opening a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TapStatus {
    /// The device existed and goes on as it was: it has kept its place on the bridge.
    pub adopted: bool,
    /// Number of its queues.
    pub queues: usize,
    /// The offloads in force.
    pub offload: Offload,
}

/// An open TAP device.
#[derive(Debug)]
pub struct Tap {
    name: String,
    queues: Vec<TapQueue>,
    status: TapStatus,
}

impl Tap {
    /// Creates the device or adopts one that an earlier process left. One whose kind of queues
    /// differs is made again, and is then on no bridge and down.
    pub fn open(config: &TapConfig) -> Result<Tap, TapError> {
        let name = &config.name;
        let wanted = config.queues.clamp(1, QUEUES_MAX);
        let flags = flags_for(wanted > 1);
        let existed = exists(name)?;
        let (first, adopted) = match attach(name, flags) {
            Ok(fd) => (fd, existed),
            Err(TapError::NotTap(_)) if existed => {
                tracing::info!(device = name, "made TAP device again, its flags differed");
                remove(name)?;
                (attach(name, flags)?, false)
            }
            Err(error) => return Err(error),
        };
        let refused = |what| {
            move |error: io::Error| TapError::Refused {
                name: name.clone(),
                what,
                error,
            }
        };
        sys::set_vnet_header_size(&first, VNET_BYTES as u16)
            .map_err(refused("set the header size of"))?;
        sys::set_persist(&first, true).map_err(refused("keep"))?;
        let offload = set_offload(&first, config);
        let mut queues = vec![TapQueue(first)];
        while queues.len() < usize::from(wanted) {
            match attach(name, flags) {
                Ok(fd) => queues.push(TapQueue(fd)),
                Err(error) => {
                    let queues = queues.len();
                    tracing::info!(device = name, queues, %error, "opened fewer queues");
                    break;
                }
            }
        }
        let status = TapStatus {
            adopted,
            queues: queues.len(),
            offload,
        };
        Ok(Tap {
            name: name.clone(),
            queues,
            status,
        })
    }

    /// Returns the name of the device.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns what opening it came to.
    pub const fn status(&self) -> TapStatus {
        self.status
    }

    /// Returns the queues, for one data thread each. The device stays open as long as one of them
    /// does.
    pub fn into_queues(self) -> Vec<TapQueue> {
        self.queues
    }
}

/// Removes a TAP device whether it has one queue or several. Returns whether there was one.
pub fn remove(name: &str) -> Result<bool, TapError> {
    if !exists(name)? {
        return Ok(false);
    }
    let fd = match attach(name, flags_for(false)) {
        Err(TapError::NotTap(_)) => attach(name, flags_for(true))?,
        result => result?,
    };
    // A device that does not persist goes with its last queue.
    sys::set_persist(&fd, false).map_err(|error| TapError::Refused {
        name: name.to_owned(),
        what: "remove",
        error,
    })?;
    Ok(true)
}

const fn flags_for(multi_queue: bool) -> u16 {
    let flags = sys::IFF_TAP | sys::IFF_NO_PI | sys::IFF_VNET_HDR;
    if multi_queue {
        flags | sys::IFF_MULTI_QUEUE
    } else {
        flags
    }
}

fn attach(name: &str, flags: u16) -> Result<OwnedFd, TapError> {
    let fd = sys::open_control().map_err(|error| match error.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => TapError::NotPermitted(name.to_owned()),
        _ => TapError::NoDriver(error),
    })?;
    sys::attach(&fd, name, flags).map_err(|error| match error.raw_os_error() {
        Some(libc::EPERM) => TapError::NotPermitted(name.to_owned()),
        Some(libc::EBUSY) => TapError::Busy(name.to_owned()),
        Some(libc::EINVAL) => TapError::NotTap(name.to_owned()),
        _ => TapError::Refused {
            name: name.to_owned(),
            what: "open",
            error,
        },
    })?;
    Ok(fd)
}

/// Whether a network device of that name exists, whatever it is.
fn exists(name: &str) -> Result<bool, TapError> {
    let refused = |error: Errno| TapError::Refused {
        name: name.to_owned(),
        what: "look for",
        error: error.into(),
    };
    use rustix::net::{AddressFamily, SocketType, netdevice, socket};
    let any = socket(AddressFamily::INET, SocketType::DGRAM, None).map_err(refused)?;
    match netdevice::name_to_index(&any, name) {
        Ok(_) => Ok(true),
        Err(Errno::NODEV | Errno::NXIO) => Ok(false),
        Err(error) => Err(refused(error)),
    }
}

/// Sets the best offload mask that the kernel takes; always, since an adopted device has that of
/// its last owner.
fn set_offload(fd: &OwnedFd, config: &TapConfig) -> Offload {
    let ladder: &[Offload] = match config.offload {
        true => &Offload::LADDER,
        false => &[Offload::NONE],
    };
    for (step, &offload) in ladder.iter().enumerate() {
        match sys::set_offload(fd, offload.0) {
            Ok(()) if step == 0 => return offload,
            Ok(()) => {
                tracing::info!(device = config.name, %offload, "kernel knows fewer TAP offloads");
                return offload;
            }
            Err(_) => {}
        }
    }
    tracing::warn!(device = config.name, "kernel refuses to set TAP offloads");
    Offload::NONE
}

/// One queue of a TAP device. Reading and writing never block.
#[derive(Debug)]
pub struct TapQueue(OwnedFd);

impl Frames for TapQueue {
    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::read(&self.0, into)?)
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        rustix::io::writev(&self.0, pieces)?;
        Ok(())
    }

    fn wait(&self, stop: BorrowedFd<'_>, limit: Option<Duration>) {
        wait::readable(self.0.as_fd(), stop, limit);
    }
}
