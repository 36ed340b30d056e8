//! Links: devices, their kinds and their properties.

use std::fmt;
use std::net::Ipv4Addr;
use std::os::fd::{AsRawFd, BorrowedFd};

use proto::types::Mac;
use rustix::io::Errno;

use super::address::is_of;
use super::wire::{self, Attributes, Message, Request};
use super::{AF_UNSPEC, Netlink};
use crate::error::NetError;

/// The number of a device in its namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkIndex(pub u32);

impl fmt::Display for LinkIndex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A number that one namespace has for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NamespaceNumber(pub i32);

/// A device as the kernel describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: LinkIndex,
    /// Its name.
    pub name: String,
    /// Its MAC address, if it is an Ethernet device.
    pub mac: Option<Mac>,
    /// Its MTU in bytes.
    pub mtu: u32,
    /// Whether it is switched on.
    pub up: bool,
    /// Whether it also has a carrier.
    pub carrier: bool,
    /// Its kind: `bridge`, `veth`, `tun`; physical devices have none.
    pub kind: Option<String>,
    /// A free text that stays with the device.
    pub alias: Option<String>,
    /// The bridge it is a port of.
    pub master: Option<LinkIndex>,
    /// The other end of a veth pair.
    pub peer: Option<PeerLink>,
    /// Its state as a port of a bridge.
    pub port: Option<BridgePort>,
}

/// Location of the other end of a veth pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PeerLink {
    /// Its number in its own namespace.
    pub index: LinkIndex,
    /// Its namespace, if that is another one.
    pub namespace: Option<NamespaceNumber>,
}

/// A device as a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BridgePort {
    /// Whether frames pass it.
    pub state: PortState,
    /// Whether a frame may leave by the port it came in.
    pub hairpin: bool,
}

/// State of a port of a bridge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PortState {
    /// No frames: the device is down or has no carrier.
    Disabled,
    /// Frames pass.
    Forwarding,
    /// One of the states between, which only the spanning tree protocol uses.
    Other(u8),
}

/// A bridge to create.
#[derive(Clone, Debug)]
pub struct NewBridge<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its MAC address; drawn by the kernel if not given, and then that of the lowest port.
    pub mac: Option<Mac>,
}

/// A veth pair to create.
#[derive(Clone, Debug)]
pub struct NewVeth<'a> {
    /// The end in the socket's namespace.
    pub name: &'a str,
    /// The number of that end; chosen by the kernel if not given.
    pub index: Option<LinkIndex>,
    /// MTU of both ends in bytes.
    pub mtu: u32,
    /// The bridge that this end becomes a port of.
    pub master: Option<LinkIndex>,
    /// The other end.
    pub peer: VethPeer<'a>,
}

/// The other end of a veth pair to create.
#[derive(Clone, Debug)]
pub struct VethPeer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its number; chosen by the kernel if not given.
    pub index: Option<LinkIndex>,
    /// Its MAC address; drawn by the kernel if not given.
    pub mac: Option<Mac>,
    /// The namespace it is made in, that of the socket if not given. It never appears anywhere
    /// else, so no temporary name is needed.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// A VXLAN device to be made: the kernel's own overlay, which benchmarks compare with.
#[derive(Clone, Debug)]
pub struct NewVxlan<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its network number, 24 bits.
    pub number: u32,
    /// Our address.
    pub local: Ipv4Addr,
    /// The address that all frames go to.
    pub remote: Ipv4Addr,
    /// The UDP port, at both ends.
    pub port: u16,
}

/// Properties of a device to be changed; those that are `None` stay.
#[derive(Clone, Debug, Default)]
pub struct LinkChange<'a> {
    /// Switch it on or off.
    pub up: Option<bool>,
    /// MTU in bytes.
    pub mtu: Option<u32>,
    /// MAC address.
    pub mac: Option<Mac>,
    /// Name; the device must be down (or the kernel newer than 6.4).
    pub name: Option<&'a str>,
    /// Free text.
    pub alias: Option<&'a str>,
    /// Bridge to become a port of; `Some(None)` leaves the one it is a port of.
    pub master: Option<Option<LinkIndex>>,
    /// Namespace to move to.
    pub namespace: Option<BorrowedFd<'a>>,
}

impl Netlink {
    /// Returns all devices of the namespace.
    pub fn links(&self) -> Result<Vec<Link>, NetError> {
        let request = Request::new(RTM_GETLINK, 0, &header(None));
        let answer = self.socket.list(|| "list links".into(), &request)?;
        answer.iter().map(parse).collect()
    }

    /// Returns the device of this name, if there is one.
    pub fn link(&self, name: &str) -> Result<Option<Link>, NetError> {
        check_name(name)?;
        let request = Request::new(RTM_GETLINK, 0, &header(None)).text(IFLA_IFNAME, name);
        self.one_link(name, request)
    }

    /// Returns the device of this number, if there is one.
    pub fn link_at(&self, index: LinkIndex) -> Result<Option<Link>, NetError> {
        let request = Request::new(RTM_GETLINK, 0, &header(Some(index)));
        self.one_link(&index.to_string(), request)
    }

    /// Returns the device of this number in another namespace, without entering that.
    pub fn link_in(
        &self,
        namespace: NamespaceNumber,
        index: LinkIndex,
    ) -> Result<Option<Link>, NetError> {
        let request = Request::new(RTM_GETLINK, 0, &header(Some(index)))
            .bytes(IFLA_TARGET_NETNSID, &namespace.0.to_ne_bytes());
        let what = || format!("get link {index} of another namespace");
        match self.socket.get(what, request) {
            // A kernel that does not know the attribute answers for this namespace.
            Ok(answer) if is_of(&answer, HEADER_BYTES, IFLA_TARGET_NETNSID, namespace) => {
                parse(&answer).map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) if error.is(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns the device of this name; that there is none is an error.
    pub fn link_named(&self, name: &str) -> Result<Link, NetError> {
        self.link(name)?.ok_or_else(|| NetError::NoDevice {
            name: name.to_owned(),
            hint: "",
        })
    }

    fn one_link(&self, name: &str, request: Request) -> Result<Option<Link>, NetError> {
        match self.socket.get(|| format!("get link {name}"), request) {
            Ok(answer) => parse(&answer).map(Some),
            Err(error) if error.is(Errno::NODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a bridge, down, without ports.
    pub fn create_bridge(&self, new: &NewBridge<'_>) -> Result<(), NetError> {
        check_name(new.name)?;
        let request = create(None)
            .text(IFLA_IFNAME, new.name)
            .maybe(new.mac, |r, mac| r.bytes(IFLA_ADDRESS, mac.as_bytes()))
            .nest(IFLA_LINKINFO, |r| {
                r.text(IFLA_INFO_KIND, "bridge")
                    .nest(IFLA_INFO_DATA, |r| r.u32(IFLA_BR_STP_STATE, 0))
            });
        let what = || format!("create bridge {}", new.name);
        self.socket.execute(what, request)
    }

    /// Makes a veth pair, both ends down.
    pub fn create_veth(&self, new: &NewVeth<'_>) -> Result<(), NetError> {
        let peer = &new.peer;
        check_name(new.name)?;
        check_name(peer.name)?;
        let request = create(new.index)
            .text(IFLA_IFNAME, new.name)
            .u32(IFLA_MTU, new.mtu)
            .maybe(new.master, |r, master| r.u32(IFLA_MASTER, master.0))
            .nest(IFLA_LINKINFO, |r| {
                r.text(IFLA_INFO_KIND, "veth").nest(IFLA_INFO_DATA, |r| {
                    r.nest_after(VETH_INFO_PEER, &header(peer.index), |r| {
                        r.text(IFLA_IFNAME, peer.name)
                            .u32(IFLA_MTU, new.mtu)
                            .maybe(peer.mac, |r, mac| r.bytes(IFLA_ADDRESS, mac.as_bytes()))
                            .maybe(peer.namespace, |r, fd| r.u32(IFLA_NET_NS_FD, number(fd)))
                    })
                })
            });
        let what = || format!("create veth pair {} and {}", new.name, peer.name);
        self.socket.execute(what, request)
    }

    /// Makes a VXLAN device, down.
    pub fn create_vxlan(&self, new: &NewVxlan<'_>) -> Result<(), NetError> {
        check_name(new.name)?;
        let request = create(None)
            .text(IFLA_IFNAME, new.name)
            .nest(IFLA_LINKINFO, |r| {
                r.text(IFLA_INFO_KIND, "vxlan").nest(IFLA_INFO_DATA, |r| {
                    r.u32(IFLA_VXLAN_ID, new.number)
                        .bytes(IFLA_VXLAN_GROUP, &new.remote.octets())
                        .bytes(IFLA_VXLAN_LOCAL, &new.local.octets())
                        .bytes(IFLA_VXLAN_PORT, &new.port.to_be_bytes())
                })
            });
        let what = || format!("create vxlan {}", new.name);
        self.socket.execute(what, request)
    }

    /// Changes properties of a device, in the order: namespace, MTU, MAC, name, alias, bridge,
    /// on or off. What was changed before a failure stays changed.
    pub fn change_link(&self, link: &Link, change: &LinkChange<'_>) -> Result<(), NetError> {
        if let Some(name) = change.name {
            check_name(name)?;
        }
        let mut header = header(Some(link.index));
        if let Some(up) = change.up {
            header[8..12].copy_from_slice(&(if up { IFF_UP } else { 0 }).to_ne_bytes());
            header[12..16].copy_from_slice(&IFF_UP.to_ne_bytes());
        }
        let request = Request::new(RTM_NEWLINK, 0, &header)
            .maybe(change.namespace, |r, fd| r.u32(IFLA_NET_NS_FD, number(fd)))
            .maybe(change.mtu, |r, mtu| r.u32(IFLA_MTU, mtu))
            .maybe(change.mac, |r, mac| r.bytes(IFLA_ADDRESS, mac.as_bytes()))
            .maybe(change.name, |r, name| r.text(IFLA_IFNAME, name))
            .maybe(change.alias, |r, alias| {
                r.bytes(IFLA_IFALIAS, alias.as_bytes())
            })
            .maybe(change.master, |r, master| {
                r.u32(IFLA_MASTER, master.map_or(0, |master| master.0))
            });
        let what = || format!("change link {} ({})", link.name, change.description());
        self.socket.execute(what, request)
    }

    /// Switches a device on or off.
    pub fn set_up(&self, link: &Link, up: bool) -> Result<(), NetError> {
        let up = Some(up);
        self.change_link(
            link,
            &LinkChange {
                up,
                ..LinkChange::default()
            },
        )
    }

    /// Switches hairpin mode of a bridge's port.
    pub fn set_hairpin(&self, link: &Link, on: bool) -> Result<(), NetError> {
        let request =
            Request::new(RTM_NEWLINK, 0, &header(Some(link.index))).nest(IFLA_LINKINFO, |r| {
                r.text(IFLA_INFO_SLAVE_KIND, "bridge")
                    .nest(IFLA_INFO_SLAVE_DATA, |r| {
                        r.u8(IFLA_BRPORT_MODE, u8::from(on))
                    })
            });
        let what = || format!("set hairpin mode of link {}", link.name);
        self.socket.execute(what, request)
    }

    /// Deletes a device. Returns whether it was there.
    pub fn delete_link(&self, link: &Link) -> Result<bool, NetError> {
        let request = Request::new(RTM_DELLINK, 0, &header(Some(link.index)));
        let what = || format!("delete link {}", link.name);
        match self.socket.execute(what, request) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::NODEV) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

impl Netlink {
    /// Deletes many devices at once, which takes the kernel little longer than deleting one.
    /// Those that are not there any more are passed over. If the kernel refuses one, none or some
    /// are deleted.
    pub fn delete_links(&self, links: &[Link]) -> Result<(), NetError> {
        // All members of a group can be deleted together; nobody else uses this one.
        for link in links {
            let request =
                Request::new(RTM_NEWLINK, 0, &header(Some(link.index))).u32(IFLA_GROUP, GROUP);
            let what = || format!("delete link {}", link.name);
            match self.socket.execute(what, request) {
                Err(error) if error.is(Errno::NODEV) => {}
                result => result?,
            }
        }
        let request = Request::new(RTM_DELLINK, 0, &header(None)).u32(IFLA_GROUP, GROUP);
        match self.socket.execute(|| "delete links".into(), request) {
            // No member was left.
            Err(error) if error.is(Errno::NODEV) => Ok(()),
            result => result,
        }
    }
}

impl LinkChange<'_> {
    fn description(&self) -> String {
        let parts = [
            self.namespace.map(|_| "other namespace".to_owned()),
            self.mtu.map(|mtu| format!("MTU {mtu}")),
            self.mac.map(|mac| format!("MAC {mac}")),
            self.name.map(|name| format!("name {name}")),
            self.alias.map(|_| "alias".to_owned()),
            self.master.map(|_| "bridge".to_owned()),
            self.up.map(|up| if up { "up" } else { "down" }.to_owned()),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
    }
}

/// Refuses what the kernel does not take as the name of an interface.
pub fn check_name(name: &str) -> Result<(), NetError> {
    let bad = name.is_empty()
        || name.len() > NAME_BYTES_MAX
        || matches!(name, "." | "..")
        || name
            .bytes()
            .any(|b| matches!(b, b'/' | b':' | 0) || b.is_ascii_whitespace());
    if bad {
        return Err(NetError::BadName {
            name: name.to_owned(),
        });
    }
    Ok(())
}

/// `struct ifinfomsg`: family, padding, device type u16, index i32, flags u32, change mask u32.
fn header(index: Option<LinkIndex>) -> [u8; HEADER_BYTES] {
    let mut header = [0; HEADER_BYTES];
    header[0] = AF_UNSPEC;
    if let Some(index) = index {
        header[4..8].copy_from_slice(&index.0.to_ne_bytes());
    }
    header
}

fn create(index: Option<LinkIndex>) -> Request {
    let flags = wire::NLM_F_CREATE | wire::NLM_F_EXCL;
    Request::new(RTM_NEWLINK, flags, &header(index))
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    u32::try_from(fd.as_raw_fd()).unwrap_or(u32::MAX)
}

fn parse(message: &Message) -> Result<Link, NetError> {
    let malformed = || NetError::Malformed {
        what: "read a link".into(),
    };
    let header = message.header::<HEADER_BYTES>().ok_or_else(malformed)?;
    let flags = wire::u32_at(header, 8);
    let attributes = message.attributes(HEADER_BYTES);
    let info = attributes.nested(IFLA_LINKINFO);
    let kind = info.text(IFLA_INFO_KIND);
    Ok(Link {
        index: LinkIndex(wire::u32_at(header, 4)),
        name: attributes.text(IFLA_IFNAME).ok_or_else(malformed)?,
        mac: attributes.array(IFLA_ADDRESS).map(Mac::from_bytes),
        mtu: attributes.u32(IFLA_MTU).unwrap_or_default(),
        up: flags & IFF_UP != 0,
        carrier: flags & IFF_LOWER_UP != 0,
        alias: attributes.text(IFLA_IFALIAS).filter(|a| !a.is_empty()),
        master: attributes.u32(IFLA_MASTER).map(LinkIndex),
        peer: (kind.as_deref() == Some("veth"))
            .then(|| peer(&attributes))
            .flatten(),
        port: port(&info),
        kind,
    })
}

fn peer(attributes: &Attributes<'_>) -> Option<PeerLink> {
    let namespace = attributes.array(IFLA_LINK_NETNSID).map(i32::from_ne_bytes);
    Some(PeerLink {
        index: LinkIndex(attributes.u32(IFLA_LINK)?),
        namespace: namespace.map(NamespaceNumber),
    })
}

fn port(info: &Attributes<'_>) -> Option<BridgePort> {
    if info.text(IFLA_INFO_SLAVE_KIND)? != "bridge" {
        return None;
    }
    let data = info.nested(IFLA_INFO_SLAVE_DATA);
    Some(BridgePort {
        state: match data.u8(IFLA_BRPORT_STATE)? {
            0 => PortState::Disabled,
            3 => PortState::Forwarding,
            other => PortState::Other(other),
        },
        hairpin: data.u8(IFLA_BRPORT_MODE) == Some(1),
    })
}

/// Size in bytes of the longest name of an interface (IFNAMSIZ without the zero byte).
const NAME_BYTES_MAX: usize = 15;

/// The group of devices that are being deleted.
const GROUP: u32 = 0x7765_6674;

const HEADER_BYTES: usize = 16;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;

const IFF_UP: u32 = 0x1;
const IFF_LOWER_UP: u32 = 0x1_0000;

const IFLA_ADDRESS: u16 = 1;
const IFLA_IFNAME: u16 = 3;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_MASTER: u16 = 10;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_GROUP: u16 = 27;
const IFLA_NET_NS_FD: u16 = 28;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_TARGET_NETNSID: u16 = 46;

const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_INFO_SLAVE_KIND: u16 = 4;
const IFLA_INFO_SLAVE_DATA: u16 = 5;

const VETH_INFO_PEER: u16 = 1;
const IFLA_BR_STP_STATE: u16 = 5;
const IFLA_BRPORT_STATE: u16 = 1;
const IFLA_BRPORT_MODE: u16 = 4;
const IFLA_VXLAN_ID: u16 = 1;
const IFLA_VXLAN_GROUP: u16 = 2;
const IFLA_VXLAN_LOCAL: u16 = 4;
const IFLA_VXLAN_PORT: u16 = 15;
