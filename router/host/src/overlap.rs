//! Ranges of addresses that the host routes elsewhere already.

use std::fmt;

use ipnet::{IpNet, Ipv4Net};

use kernel::error::NetError;
use kernel::netlink::{Netlink, Route, RouteKind};

/// A route of the host to addresses that the overlay would use as well.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Overlap {
    /// Destination of the route.
    pub destination: Ipv4Net,
    /// The device it leaves by, if it has one.
    pub device: Option<String>,
}

impl fmt::Display for Overlap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.destination)?;
        match &self.device {
            Some(device) => write!(f, " on {device}"),
            None => Ok(()),
        }
    }
}

/// Returns the routes of the host that overlap `range`. Default routes do not count, also when a
/// VPN has cut them in two halves, nor do those that leave by `bridge`: they are the overlay's own.
pub fn overlapping_routes(
    netlink: &Netlink,
    range: Ipv4Net,
    bridge: &str,
) -> Result<Vec<Overlap>, NetError> {
    let links = netlink.links()?;
    let name = |route: &Route| {
        let link = links.iter().find(|link| Some(link.index) == route.link)?;
        Some(link.name.clone())
    };
    let mut overlaps = Vec::new();
    for route in netlink.routes()? {
        let IpNet::V4(destination) = route.destination else {
            continue;
        };
        let device = name(&route);
        let counts = route.kind == RouteKind::Unicast && destination.prefix_len() > 1;
        if counts && overlap(destination, range) && device.as_deref() != Some(bridge) {
            overlaps.push(Overlap {
                destination,
                device,
            });
        }
    }
    Ok(overlaps)
}

/// Two networks overlap if one contains the other.
fn overlap(a: Ipv4Net, b: Ipv4Net) -> bool {
    a.contains(&b) || b.contains(&a)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bridge::tests::{NAME, ensure};
    use kernel::netlink::Route;
    use testbed::root::{in_new_namespace, needs_root};

    #[test]
    fn routes_of_the_host_count_but_not_our_own() {
        needs_root!();
        in_new_namespace(|| {
            let netlink = Netlink::open().unwrap();
            let bridge = ensure(&netlink).link;
            netlink
                .add_address(&bridge, "10.7.0.1/16".parse().unwrap())
                .unwrap();
            let gateway = "10.7.0.2".parse().unwrap();
            let add = |to: &str| {
                let route = Route::through(to.parse().unwrap(), gateway);
                netlink.add_route(&route).unwrap();
            };
            add("0.0.0.0/0");
            add("0.0.0.0/1");
            let overlaps = |range: &str, bridge| {
                let found = overlapping_routes(&netlink, range.parse().unwrap(), bridge).unwrap();
                found.iter().map(ToString::to_string).collect::<Vec<_>>()
            };
            assert_eq!(overlaps("10.7.0.0/16", NAME), [""; 0]);
            assert_eq!(overlaps("10.7.0.0/16", "other"), ["10.7.0.0/16 on weave"]);
            assert_eq!(overlaps("10.0.0.0/8", "other"), ["10.7.0.0/16 on weave"]);
            assert_eq!(overlaps("10.7.5.0/24", "other"), ["10.7.0.0/16 on weave"]);
            assert_eq!(overlaps("10.8.0.0/16", "other"), [""; 0]);
        });
    }
}
