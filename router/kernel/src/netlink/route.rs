//! Routes of the main table.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use rustix::io::Errno;

use super::address::ip;
use super::link::LinkIndex;
use super::wire::{self, Message, Request};
use super::{AF_INET, AF_INET6, AF_UNSPEC, Netlink};
use crate::error::NetError;

/// A route of the main table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Its destination; that of the default route is 0.0.0.0/0 or ::/0.
    pub destination: IpNet,
    /// The next hop.
    pub gateway: Option<IpAddr>,
    /// The link that packets leave by; routes with several next hops have none here.
    pub link: Option<LinkIndex>,
    /// The address that packets leave with.
    pub source: Option<IpAddr>,
    /// Which of several routes to the same destination wins: the lowest.
    pub priority: u32,
    /// Scope of the destination.
    pub scope: RouteScope,
    /// The verdict on a packet.
    pub kind: RouteKind,
}

/// Scope of a route: the distance of its destination.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteScope {
    /// Behind a gateway.
    #[default]
    Universe,
    /// On the link.
    Link,
    /// This host.
    Host,
    /// One of the user's own.
    Other(u8),
}

/// The action of a route.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RouteKind {
    /// Sends it on.
    #[default]
    Unicast,
    /// Drops it silently.
    Blackhole,
    /// Something else, by the kernel's number.
    Other(u8),
}

impl Route {
    /// A route to `destination` that leaves by `link`, without a gateway.
    pub fn on_link(destination: IpNet, link: LinkIndex) -> Route {
        Route {
            destination,
            gateway: None,
            link: Some(link),
            source: None,
            priority: 0,
            scope: RouteScope::Link,
            kind: RouteKind::Unicast,
        }
    }

    /// Returns a route to `destination` by way of `gateway`.
    pub fn through(destination: IpNet, gateway: IpAddr) -> Route {
        Route {
            destination,
            gateway: Some(gateway),
            link: None,
            source: None,
            priority: 0,
            scope: RouteScope::Universe,
            kind: RouteKind::Unicast,
        }
    }

    /// Returns true if this is a default route.
    pub fn is_default(&self) -> bool {
        self.destination.prefix_len() == 0
    }
}

impl Netlink {
    /// Returns the routes of the main table, both families.
    pub fn routes(&self) -> Result<Vec<Route>, NetError> {
        let request = Request::new(RTM_GETROUTE, 0, &[0; HEADER_BYTES]);
        let answer = self.socket.list(|| "list routes".into(), &request)?;
        let main = answer.iter().filter(|message| is_main_table(message));
        Ok(main.filter_map(parse).collect())
    }

    /// Adds a route. Returns whether it is new; one to the same destination with the same
    /// priority stays as it is.
    pub fn add_route(&self, route: &Route) -> Result<bool, NetError> {
        let flags = wire::NLM_F_CREATE | wire::NLM_F_EXCL;
        let what = || format!("add route to {}", route.destination);
        match self
            .socket
            .execute(what, change(RTM_NEWROUTE, flags, route))
        {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::EXIST) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Adds a route in place of one to the same destination with the same priority.
    pub fn replace_route(&self, route: &Route) -> Result<(), NetError> {
        let flags = wire::NLM_F_CREATE | wire::NLM_F_REPLACE;
        let what = || format!("replace route to {}", route.destination);
        self.socket
            .execute(what, change(RTM_NEWROUTE, flags, route))
    }

    /// Deletes a route. Returns whether it was there.
    pub fn delete_route(&self, route: &Route) -> Result<bool, NetError> {
        let what = || format!("delete route to {}", route.destination);
        match self.socket.execute(what, change(RTM_DELROUTE, 0, route)) {
            Ok(()) => Ok(true),
            Err(error) if error.is(Errno::SRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// `struct rtmsg`: family, destination length, source length, type of service, table, protocol,
/// scope, kind, flags u32.
fn change(kind: u16, flags: u16, route: &Route) -> Request {
    let destination = route.destination.trunc();
    let family = match destination {
        IpNet::V4(_) => AF_INET,
        IpNet::V6(_) => AF_INET6,
    };
    let mut header = [0; HEADER_BYTES];
    header[0] = family;
    header[1] = destination.prefix_len();
    header[4] = RT_TABLE_MAIN;
    if kind == RTM_NEWROUTE {
        header[5] = RTPROT_STATIC;
    }
    header[6] = match route.scope {
        RouteScope::Universe => 0,
        RouteScope::Link => 253,
        RouteScope::Host => 254,
        RouteScope::Other(scope) => scope,
    };
    header[7] = match route.kind {
        RouteKind::Unicast => 1,
        RouteKind::Blackhole => 6,
        RouteKind::Other(kind) => kind,
    };
    Request::new(kind, flags, &header)
        .maybe((!route.is_default()).then_some(destination), |r, to| {
            address(r, RTA_DST, to.addr())
        })
        .maybe(route.gateway, |r, gateway| address(r, RTA_GATEWAY, gateway))
        .maybe(route.source, |r, source| address(r, RTA_PREFSRC, source))
        .maybe(route.link, |r, link| r.u32(RTA_OIF, link.0))
        .maybe((route.priority != 0).then_some(route.priority), |r, p| {
            r.u32(RTA_PRIORITY, p)
        })
}

fn address(request: Request, kind: u16, address: IpAddr) -> Request {
    match address {
        IpAddr::V4(address) => request.bytes(kind, &address.octets()),
        IpAddr::V6(address) => request.bytes(kind, &address.octets()),
    }
}

fn is_main_table(message: &Message) -> bool {
    let attributes = message.attributes(HEADER_BYTES);
    let table = attributes.u32(RTA_TABLE);
    let short = message.header::<HEADER_BYTES>().map(|header| header[4]);
    table.or(short.map(u32::from)) == Some(u32::from(RT_TABLE_MAIN))
}

fn parse(message: &Message) -> Option<Route> {
    let header = message.header::<HEADER_BYTES>()?;
    let attributes = message.attributes(HEADER_BYTES);
    let destination = match attributes.get(RTA_DST) {
        Some(bytes) => IpNet::new(ip(bytes)?, header[1]).ok()?,
        None if header[0] == AF_INET => Ipv4Net::default().into(),
        None if header[0] == AF_INET6 => Ipv6Net::default().into(),
        None => return None,
    };
    Some(Route {
        destination,
        gateway: attributes.get(RTA_GATEWAY).and_then(ip),
        link: attributes.u32(RTA_OIF).map(LinkIndex),
        source: attributes.get(RTA_PREFSRC).and_then(ip),
        priority: attributes.u32(RTA_PRIORITY).unwrap_or_default(),
        scope: match header[6] {
            0 => RouteScope::Universe,
            253 => RouteScope::Link,
            254 => RouteScope::Host,
            scope => RouteScope::Other(scope),
        },
        kind: match header[7] {
            1 => RouteKind::Unicast,
            6 => RouteKind::Blackhole,
            kind => RouteKind::Other(kind),
        },
    })
}

const HEADER_BYTES: usize = 12;
const _: () = assert!(AF_UNSPEC == 0, "a header of zeros asks for both families");

const RTM_NEWROUTE: u16 = 24;
const RTM_DELROUTE: u16 = 25;
const RTM_GETROUTE: u16 = 26;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const RTA_PRIORITY: u16 = 6;
const RTA_PREFSRC: u16 = 7;
const RTA_TABLE: u16 = 15;

const RT_TABLE_MAIN: u8 = 254;
const RTPROT_STATIC: u8 = 4;
