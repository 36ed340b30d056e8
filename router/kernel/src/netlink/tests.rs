use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::AsFd;

use ipnet::IpNet;
use proto::types::Mac;
use rustix::io::Errno;

use super::*;
use crate::netns::Namespace;
use testbed::root::{in_new_namespace, needs_root};

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn pair<'a>(name: &'a str, peer: &'a str) -> NewVeth<'a> {
    NewVeth {
        name,
        index: None,
        mtu: 1400,
        master: None,
        peer: VethPeer {
            name: peer,
            index: None,
            mac: None,
            namespace: None,
        },
    }
}

#[test]
fn links_come_and_go() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.link("br0").unwrap(), None);
        let mac = Mac::from_bytes([2, 0, 0, 0, 0, 7]);
        netlink
            .create_bridge(&NewBridge {
                name: "br0",
                mac: Some(mac),
            })
            .unwrap();
        let bridge = netlink.link_named("br0").unwrap();
        assert_eq!(bridge.kind.as_deref(), Some("bridge"));
        assert_eq!(bridge.mac, Some(mac));
        assert!(!bridge.up);

        let mut new = pair("left", "right");
        new.master = Some(bridge.index);
        new.index = Some(LinkIndex(77));
        new.peer.index = Some(LinkIndex(78));
        netlink.create_veth(&new).unwrap();
        let left = netlink.link_at(LinkIndex(77)).unwrap().unwrap();
        assert_eq!((left.name.as_str(), left.mtu), ("left", 1400));
        assert_eq!(left.master, Some(bridge.index));
        let peer = PeerLink {
            index: LinkIndex(78),
            namespace: None,
        };
        assert_eq!(left.peer, Some(peer));
        assert_eq!(left.port.unwrap().state, PortState::Disabled);
        assert!(!left.port.unwrap().hairpin);

        netlink.set_hairpin(&left, true).unwrap();
        let change = LinkChange {
            up: Some(true),
            mtu: Some(1300),
            mac: Some(mac),
            name: Some("port"),
            alias: Some("weft test"),
            ..LinkChange::default()
        };
        netlink.change_link(&left, &change).unwrap();
        let left = netlink.link_named("port").unwrap();
        assert!(left.up && !left.carrier);
        assert_eq!((left.mtu, left.mac), (1300, Some(mac)));
        assert_eq!(left.alias.as_deref(), Some("weft test"));
        assert!(left.port.unwrap().hairpin);

        netlink
            .change_link(
                &left,
                &LinkChange {
                    master: Some(None),
                    up: Some(false),
                    ..LinkChange::default()
                },
            )
            .unwrap();
        let left = netlink.link_named("port").unwrap();
        assert_eq!((left.up, left.master, left.port), (false, None, None));
        assert!(netlink.delete_link(&left).unwrap());
        assert!(!netlink.delete_link(&left).unwrap());
        let mut names: Vec<_> = netlink
            .links()
            .unwrap()
            .into_iter()
            .map(|l| l.name)
            .collect();
        names.retain(|name| !name.contains("tunl") && !name.contains("sit"));
        assert_eq!(names, ["lo", "br0"]);
    });
}

#[test]
fn a_pair_reaches_into_another_namespace() {
    needs_root!();
    let other = Namespace::new().unwrap();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        assert_eq!(netlink.namespace_number(other.as_fd()).unwrap(), None);
        let mac = Mac::from_bytes([2, 0, 0, 0, 0, 9]);
        let mut new = pair("here", "there");
        new.peer.namespace = Some(other.as_fd());
        new.peer.mac = Some(mac);
        netlink.create_veth(&new).unwrap();
        assert_eq!(netlink.link("there").unwrap(), None);

        let here = netlink.link_named("here").unwrap();
        let peer = here.peer.unwrap();
        let number = peer.namespace.unwrap();
        assert_eq!(
            netlink.namespace_number(other.as_fd()).unwrap(),
            Some(number)
        );

        let inside = other.netlink().unwrap();
        let there = inside.link_named("there").unwrap();
        assert_eq!(
            (there.index, there.mac, there.mtu),
            (peer.index, Some(mac), 1400)
        );
        inside.add_address(&there, net("10.7.0.1/16")).unwrap();

        // The same, seen from outside.
        let seen = netlink.link_in(number, peer.index).unwrap().unwrap();
        assert_eq!((seen.name, seen.mac), ("there".into(), Some(mac)));
        let addresses = netlink.addresses_in(number, peer.index).unwrap();
        assert_eq!(addresses, [net("10.7.0.1/16")]);
        assert_eq!(netlink.addresses_of(here.index).unwrap(), []);
    });
}

#[test]
fn addresses_routes_and_neighbours() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        netlink.create_veth(&pair("a", "b")).unwrap();
        let a = netlink.link_named("a").unwrap();
        let b = netlink.link_named("b").unwrap();
        netlink.set_up(&a, true).unwrap();
        netlink.set_up(&b, true).unwrap();

        assert!(netlink.add_address(&a, net("10.7.0.1/16")).unwrap());
        assert!(!netlink.add_address(&a, net("10.7.0.1/16")).unwrap());
        assert!(netlink.add_address(&a, net("fd00::1/64")).unwrap());
        let mut addresses = netlink.addresses_of(a.index).unwrap();
        addresses.retain(|a| !a.to_string().starts_with("fe80"));
        assert_eq!(addresses, [net("10.7.0.1/16"), net("fd00::1/64")]);

        let gateway: IpAddr = Ipv4Addr::new(10, 7, 0, 2).into();
        let route = Route::through(net("192.0.2.0/24"), gateway);
        assert!(netlink.add_route(&route).unwrap());
        assert!(!netlink.add_route(&route).unwrap());
        let other = Route::through(net("192.0.2.0/24"), Ipv4Addr::new(10, 7, 0, 3).into());
        netlink.replace_route(&other).unwrap();
        let default = Route::through(net("0.0.0.0/0"), gateway);
        netlink.add_route(&default).unwrap();
        let multicast = Route::on_link(net("224.0.0.0/4"), b.index);
        netlink.add_route(&multicast).unwrap();
        let mut blackhole = Route::through(net("198.51.100.0/24"), gateway);
        (blackhole.gateway, blackhole.kind) = (None, RouteKind::Blackhole);
        netlink.add_route(&blackhole).unwrap();

        let routes = netlink.routes().unwrap();
        let find = |to: &str| routes.iter().find(|route| route.destination == net(to));
        assert_eq!(find("192.0.2.0/24").unwrap().gateway, other.gateway);
        assert!(find("0.0.0.0/0").unwrap().is_default());
        assert_eq!(find("224.0.0.0/4").unwrap().link, Some(b.index));
        assert_eq!(find("224.0.0.0/4").unwrap().scope, RouteScope::Link);
        assert_eq!(find("198.51.100.0/24").unwrap().kind, RouteKind::Blackhole);
        assert_eq!(find("10.7.0.0/16").unwrap().link, Some(a.index));
        assert_eq!(
            find("127.0.0.0/8"),
            None,
            "local routes are in another table"
        );

        assert!(netlink.delete_route(&other).unwrap());
        assert!(!netlink.delete_route(&other).unwrap());

        let mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
        netlink.set_neighbour(&a, gateway, mac).unwrap();
        let expected = Neighbour {
            address: gateway,
            link: a.index,
            mac: Some(mac),
            state: NeighbourState::Permanent,
        };
        assert_eq!(netlink.neighbours().unwrap(), [expected]);
        assert!(netlink.delete_neighbour(&a, gateway).unwrap());
        assert!(!netlink.delete_neighbour(&a, gateway).unwrap());

        assert!(netlink.delete_address(&a, net("10.7.0.1/16")).unwrap());
        assert!(!netlink.delete_address(&a, net("10.7.0.1/16")).unwrap());
    });
}

#[test]
fn long_lists_are_complete() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        for n in 0..60 {
            netlink
                .create_veth(&pair(&format!("left{n}"), &format!("right{n}")))
                .unwrap();
        }
        // More than one datagram of 32 KiB.
        let links = netlink.links().unwrap();
        let ours = links
            .iter()
            .filter(|link| link.kind.as_deref() == Some("veth"));
        assert_eq!(ours.count(), 120);
    });
}

#[test]
fn vxlan_can_be_made() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let new = NewVxlan {
            name: "vx",
            number: 42,
            local: Ipv4Addr::new(192, 0, 2, 1),
            remote: Ipv4Addr::new(192, 0, 2, 2),
            port: 4789,
        };
        netlink.create_vxlan(&new).unwrap();
        let link = netlink.link_named("vx").unwrap();
        assert_eq!(link.kind.as_deref(), Some("vxlan"));
    });
}

#[test]
fn errors_say_what_was_tried() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        netlink.create_veth(&pair("a", "b")).unwrap();
        let again = netlink.create_veth(&pair("a", "c")).unwrap_err();
        assert!(again.is(Errno::EXIST));
        assert_eq!(again.to_string(), "create veth pair a and c: file exists");

        let a = netlink.link_named("a").unwrap();
        let change = LinkChange {
            mtu: Some(1),
            ..LinkChange::default()
        };
        let error = netlink.change_link(&a, &change).unwrap_err().to_string();
        assert!(
            error.starts_with("change link a (MTU 1): invalid argument (mtu less than"),
            "{error}"
        );
        for name in ["", "a/b", "sixteen-letters-", "a b", ".."] {
            let error = netlink.create_bridge(&NewBridge { name, mac: None });
            assert!(matches!(error, Err(NetError::BadName { .. })), "{name:?}");
        }
        let none = netlink.link_named("none").unwrap_err();
        assert_eq!(none.to_string(), "no device none");
    });
}

#[test]
fn links_move_and_are_renamed() {
    needs_root!();
    let other = Namespace::new().unwrap();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        netlink.create_veth(&pair("a", "b")).unwrap();
        let b = netlink.link_named("b").unwrap();
        let change = LinkChange {
            namespace: Some(other.as_fd()),
            name: Some("moved"),
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.change_link(&b, &change).unwrap();
        assert_eq!(netlink.link("b").unwrap(), None);
        let moved = other.netlink().unwrap().link_named("moved").unwrap();
        assert!(moved.up);
        assert_eq!(moved.mac, b.mac);
    });
}

#[test]
fn many_links_are_deleted_at_once() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        netlink.delete_links(&[]).unwrap();
        netlink.create_veth(&pair("stays", "stays-too")).unwrap();
        let mut links = Vec::new();
        for n in 0..5 {
            let name = format!("a{n}");
            netlink.create_veth(&pair(&name, &format!("b{n}"))).unwrap();
            links.push(netlink.link_named(&name).unwrap());
        }
        netlink.delete_link(&links[0]).unwrap();
        for _ in 0..2 {
            netlink.delete_links(&links).unwrap();
            let left = netlink.links().unwrap();
            assert_eq!(
                left.iter()
                    .filter(|link| link.kind.as_deref() == Some("veth"))
                    .count(),
                2
            );
        }
    });
}

#[test]
fn threads_share_a_socket() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        std::thread::scope(|scope| {
            for n in 0..4 {
                let netlink = &netlink;
                scope.spawn(move || {
                    for round in 0..20 {
                        let (a, b) = (format!("a{n}-{round}"), format!("b{n}-{round}"));
                        netlink.create_veth(&pair(&a, &b)).unwrap();
                        let link = netlink.link_named(&b).unwrap();
                        assert_eq!(link.name, b);
                        netlink.links().unwrap();
                        assert!(netlink.delete_link(&link).unwrap());
                    }
                });
            }
        });
    });
}
