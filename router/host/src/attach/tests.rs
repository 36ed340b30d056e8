use std::collections::BTreeSet;
use std::net::{Ipv4Addr, UdpSocket};

use proto::types::Mac;

use super::*;
use crate::bridge::remove_all;
use crate::bridge::tests::{NAME, ensure};
use kernel::netlink::{LinkChange, LinkIndex, NewBridge, NewVeth, VethPeer};
use kernel::packet_filter::rules::{Chain, Rule, Table, Verdict};
use kernel::sys::ethtool::{Offload, offload};
use kernel::sys::packet::PacketSocket;
use lab::pinger::Pinger;
use testbed::root::{in_new_namespace, needs_root};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn container() -> Namespace {
    let namespace = Namespace::new().unwrap().labelled("the container");
    namespace.loopback_up().unwrap();
    namespace
}

fn give(target: &Namespace, addresses: &[&str]) -> Result<Attached, NetError> {
    let addresses: Vec<Ipv4Net> = addresses.iter().map(|a| net(a)).collect();
    let mut request = AttachRequest::new(NAME, target);
    request.addresses = &addresses;
    attach(&request)
}

fn take(target: &Namespace, addresses: Option<&[Ipv4Net]>) -> Result<Detached, NetError> {
    detach(&DetachRequest {
        bridge: NAME,
        target,
        interface: INTERFACE,
        addresses,
    })
}

fn addresses_of(namespace: &Namespace, interface: &str) -> Vec<Ipv4Net> {
    let netlink = namespace.netlink().unwrap();
    let link = netlink.link_named(interface).unwrap();
    ipv4_networks(&netlink.addresses_of(link.index).unwrap())
}

fn pings(from: &Namespace, to: Ipv4Addr) -> bool {
    let mut pinger = Pinger::new(from).unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    let interval = Duration::from_millis(500);
    pinger.wait_for(to, interval, deadline).unwrap().is_some()
}

#[test]
fn attached_containers_reach_each_other() {
    needs_root!();
    let (one, two) = (container(), container());
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        let attached = give(&one, &["10.7.0.1/16"]).unwrap();
        assert!(attached.created && attached.warnings.is_empty());
        assert_eq!(attached.added, [net("10.7.0.1/16")]);
        give(&two, &["10.7.0.2/16"]).unwrap();
        assert!(pings(&one, Ipv4Addr::new(10, 7, 0, 2)));
        assert!(pings(&two, Ipv4Addr::new(10, 7, 0, 1)));

        let port = host.link_named(&attached.host_interface).unwrap();
        assert!(port.name.starts_with("vethwepl") && port.up && port.port.unwrap().hairpin);
        let inside = one.netlink().unwrap();
        let link = inside.link_named(INTERFACE).unwrap();
        assert_eq!((link.mtu, link.mac), (1376, attached.mac));
        let routes = inside.routes().unwrap();
        let multicast = routes.iter().find(|r| r.destination == MULTICAST.into());
        assert_eq!(multicast.unwrap().link, Some(link.index));
        one.run(|| {
            let get = |key: &str| sysctl::get(key).unwrap().unwrap();
            assert_eq!(get("ipv4/neigh/ethwe/base_reachable_time_ms"), "15000");
            assert_eq!(get("ipv4/neigh/ethwe/delay_first_probe_time"), "2");
            assert_eq!(get("ipv4/neigh/ethwe/ucast_solicit"), "1");
            assert!(offload(INTERFACE, Offload::TxChecksum).unwrap());
            assert!(offload(INTERFACE, Offload::TcpSegmentation).unwrap());
        })
        .unwrap();
        let ipv6 = format!("ipv6/conf/{}/disable_ipv6", port.name);
        assert_eq!(sysctl::get(&ipv6).unwrap().as_deref(), Some("1"));
    });
}

#[test]
fn attaching_again_adds() {
    needs_root!();
    let target = container();
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        let first = give(&target, &["10.7.0.1/16"]).unwrap();
        let same = give(&target, &["10.7.0.1/16"]).unwrap();
        assert!(!same.created && same.added.is_empty());
        assert_eq!(same.host_interface, first.host_interface);
        let more = give(&target, &["10.7.0.1/16", "10.7.0.9/16", "10.8.0.1/24"]).unwrap();
        assert_eq!(more.added, [net("10.7.0.9/16"), net("10.8.0.1/24")]);
        let all: BTreeSet<_> = addresses_of(&target, INTERFACE).into_iter().collect();
        let expected = ["10.7.0.1/16", "10.7.0.9/16", "10.8.0.1/24"].map(net);
        assert_eq!(all, expected.into());

        // The first address of a subnet goes without the second.
        let gone = take(&target, Some(&[net("10.7.0.1/32")])).unwrap();
        assert_eq!(gone.removed, [net("10.7.0.1/16")]);
        assert!(!gone.deleted);
        assert_eq!(addresses_of(&target, INTERFACE).len(), 2);
        assert_eq!(
            take(&target, Some(&[net("10.7.0.1/16")])).unwrap().removed,
            []
        );
        let gone = take(&target, None).unwrap();
        assert_eq!((gone.removed.len(), gone.deleted), (2, true));
        assert_eq!(host.link(&first.host_interface).unwrap(), None);
        assert_eq!(take(&target, None).unwrap(), Detached::default());
        assert!(give(&target, &["10.7.0.1/16"]).unwrap().created);
    });
}

#[test]
fn requests_are_followed() {
    needs_root!();
    let target = container();
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        let mac = Mac::from_bytes([2, 1, 2, 3, 4, 5]);
        let attached = attach(&AttachRequest {
            interface: "net1",
            pid: Some(4_194_304),
            owner: Some("c0ffee"),
            mac: Some(mac),
            mtu: Some(1300),
            hairpin: false,
            multicast_route: false,
            multicast_filter: false,
            ..AttachRequest::new(NAME, &target)
        })
        .unwrap();
        assert_eq!(attached.host_interface, "vethwepl4194304");
        assert_eq!(attached.mac, Some(mac));
        let port = host.link_named("vethwepl4194304").unwrap();
        // What the container sends by an MTU that it sets later passes, too.
        assert_eq!((port.mtu, port.port.unwrap().hairpin), (65535, false));
        let inside = target.netlink().unwrap();
        assert_eq!(inside.link_named("net1").unwrap().mtu, 1300);
        let routes = inside.routes().unwrap();
        assert!(!routes.iter().any(|r| r.destination == MULTICAST.into()));
        let tables = target.run(|| nft::read_table("weft-attach").unwrap());
        assert_eq!(tables.unwrap(), []);

        // A second interface of the same process cannot have the same name outside.
        let second = attach(&AttachRequest {
            interface: "net2",
            pid: Some(4_194_304),
            ..AttachRequest::new(NAME, &target)
        });
        assert_ne!(second.unwrap().host_interface, "vethwepl4194304");
    });
}

#[test]
fn addresses_are_announced() {
    needs_root!();
    let (target, witness) = (container(), container());
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        give(&witness, &["10.7.0.200/16"]).unwrap();
        let index = witness
            .netlink()
            .unwrap()
            .link_named(INTERFACE)
            .unwrap()
            .index;
        let listen = || PacketSocket::open(index.0, true).unwrap();
        let socket = witness.run(listen).unwrap();
        let attached = give(&target, &["10.7.0.1/16", "10.7.0.2/16"]).unwrap();
        let mut heard = Vec::new();
        let mut frame = [0; 128];
        while heard.len() < 2 {
            let length = socket.receive(&mut frame, Duration::from_secs(2)).unwrap();
            let from = Mac::from_bytes(frame[6..12].try_into().unwrap());
            if length >= 42 && frame[12..14] == [8, 6] && Some(from) == attached.mac {
                assert_eq!(frame[..6], [0xff; 6]);
                assert_eq!(frame[28..32], frame[38..42], "asks for its own address");
                heard.push(<[u8; 4]>::try_from(&frame[28..32]).unwrap());
            }
        }
        assert_eq!(heard, [[10, 7, 0, 1], [10, 7, 0, 2]]);
    });
}

#[test]
fn failures_leave_nothing() {
    needs_root!();
    let target = container();
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        let error = give(&target, &["10.7.0.1/16"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "no device weave: start the router first (weft launch)"
        );
        ensure(&host);
        let links = host.links().unwrap().len();

        // The second address is on the loopback device.
        let inside = target.netlink().unwrap();
        let loopback = inside.link_named("lo").unwrap();
        inside
            .add_address(&loopback, net("10.7.0.2/32").into())
            .unwrap();
        let error = give(&target, &["10.7.0.1/16", "10.7.0.2/16"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "address 10.7.0.2 is already on interface lo of the container"
        );
        assert_eq!(host.links().unwrap().len(), links);
        assert_eq!(inside.link(INTERFACE).unwrap(), None);

        // A failure late in a second attach keeps what the first did.
        give(&target, &["10.7.0.1/16"]).unwrap();
        // Something that jumps to a chain of that name keeps it from being replaced.
        let chain = |name: &str, rules| Chain {
            name: name.into(),
            base: None,
            rules,
        };
        let jump = Rule {
            matches: Vec::new(),
            verdict: Verdict::Jump("multicast-ethwe".into()),
            comment: String::new(),
        };
        let squatting = Table {
            name: "weft-attach".into(),
            chains: vec![
                chain("multicast-ethwe", Vec::new()),
                chain("other", vec![jump]),
            ],
        };
        target
            .run(|| nft::replace_table(&squatting).unwrap())
            .unwrap();
        let error = give(&target, &["10.7.0.3/16"]).unwrap_err().to_string();
        assert!(
            error.contains("delete packet filter chain multicast-ethwe"),
            "{error}"
        );
        assert_eq!(addresses_of(&target, INTERFACE), [net("10.7.0.1/16")]);

        let current = Namespace::current().unwrap();
        let error = give(&current, &["10.7.0.1/16"]).unwrap_err();
        assert!(matches!(error, NetError::HostNamespace { .. }), "{error}");
    });
}

#[test]
fn foreign_interfaces_are_refused() {
    needs_root!();
    let target = container();
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        host.create_bridge(&NewBridge {
            name: "docker0",
            mac: None,
        })
        .unwrap();
        let docker = host.link_named("docker0").unwrap();
        // Same number as the host end below, so that only a close look tells them apart.
        let pair = NewVeth {
            name: "veth0",
            index: Some(LinkIndex(500)),
            mtu: 1500,
            master: Some(docker.index),
            peer: VethPeer {
                name: INTERFACE,
                index: Some(LinkIndex(500)),
                mac: None,
                namespace: Some(std::os::fd::AsFd::as_fd(&target)),
            },
        };
        host.create_veth(&pair).unwrap();
        for error in [
            give(&target, &["10.7.0.1/16"]).unwrap_err(),
            take(&target, None).unwrap_err(),
        ] {
            assert_eq!(
                error.to_string(),
                "interface ethwe exists in the container but does not lead to bridge weave: \
                 choose another interface name"
            );
        }
        // On no bridge it can only be what a crash left of an attach: it is taken up again.
        let change = LinkChange {
            master: Some(None),
            ..LinkChange::default()
        };
        host.change_link(&host.link_named("veth0").unwrap(), &change)
            .unwrap();
        let addresses = [net("10.7.0.1/16")];
        let mut request = AttachRequest::new(NAME, &target);
        (request.addresses, request.owner) = (&addresses, Some("somebody"));
        let attached = attach(&request).unwrap();
        assert_eq!(
            (attached.created, attached.host_interface.as_str()),
            (false, "veth0")
        );
        assert_eq!(host.link_named("veth0").unwrap().alias, None);
        assert!(take(&target, None).unwrap().deleted);
    });
}

#[test]
fn host_names_do_not_collide() {
    needs_root!();
    let (one, two) = (container(), container());
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        let with_pid = |target| {
            let mut request = AttachRequest::new(NAME, target);
            request.pid = Some(77);
            attach(&request).unwrap().host_interface
        };
        assert_eq!(with_pid(&one), "vethwepl77");
        let other = with_pid(&two);
        assert_ne!(other, "vethwepl77");
        assert_eq!(with_pid(&two), other);
    });
}

#[test]
fn what_is_attached_is_listed() {
    needs_root!();
    let (named, unnamed) = (container(), container());
    let mut child = named
        .spawn(std::process::Command::new("sleep").arg("60"))
        .unwrap();
    let proc = Path::new("/proc");
    let listed = in_new_namespace(|| {
        assert_eq!(super::attached(NAME, proc).unwrap(), []);
        let host = Netlink::open().unwrap();
        ensure(&host);
        let addresses = [net("10.7.0.1/16"), net("10.8.0.1/24")];
        let mut request = AttachRequest::new(NAME, &named);
        (request.addresses, request.owner) = (&addresses, Some("c0ffee"));
        let first = attach(&request).unwrap();
        give(&unnamed, &["10.7.0.2/16"]).unwrap();
        (first, super::attached(NAME, proc).unwrap())
    });
    child.kill().unwrap();
    child.wait().unwrap();
    let (first, listed) = listed;
    assert_eq!(listed.len(), 2);
    let one = listed.iter().find(|one| one.mac == first.mac).unwrap();
    assert_eq!(one.host_interface, first.host_interface);
    assert_eq!(one.interface, INTERFACE);
    assert_eq!(one.addresses, [net("10.7.0.1/16"), net("10.8.0.1/24")]);
    assert_eq!(one.owner.as_deref(), Some("c0ffee"));
    let namespace = one.namespace.as_ref().unwrap();
    assert_eq!(
        (namespace.id, namespace.pids.as_slice()),
        (named.id(), &[child.id()][..])
    );
    // Only a descriptor of this process keeps the other alive.
    let other = listed.iter().find(|one| one.mac != first.mac).unwrap();
    assert_eq!(other.addresses, [net("10.7.0.2/16")]);
    assert_eq!((&other.owner, &other.namespace), (&None, &None));
}

#[test]
fn multicast_of_other_subnets_is_dropped() {
    needs_root!();
    let (target, same, other) = (container(), container(), container());
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        give(&target, &["10.7.0.1/24"]).unwrap();
        give(&same, &["10.7.0.2/24"]).unwrap();
        give(&other, &["10.7.1.3/24"]).unwrap();
        let group = Ipv4Addr::new(239, 1, 2, 3);
        let listen = || {
            let socket = UdpSocket::bind("0.0.0.0:9999").unwrap();
            // Any address of the interface names it.
            socket
                .join_multicast_v4(&group, &Ipv4Addr::new(10, 7, 0, 1))
                .unwrap();
            socket
                .set_read_timeout(Some(Duration::from_secs(2)))
                .unwrap();
            socket
        };
        let listener = target.run(listen).unwrap();
        let say = |from: &Namespace, text: &[u8]| {
            let send = || {
                let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
                socket.send_to(text, (group, 9999)).unwrap();
            };
            from.run(send).unwrap();
        };
        let hear = || {
            let mut buffer = [0; 16];
            let (length, _) = listener.recv_from(&mut buffer).unwrap();
            String::from_utf8_lossy(&buffer[..length]).into_owned()
        };
        say(&other, b"foreign");
        say(&same, b"own");
        assert_eq!(hear(), "own");

        // With an address in the other subnet, its multicast passes.
        give(&target, &["10.7.1.1/24"]).unwrap();
        say(&other, b"neighbour");
        assert_eq!(hear(), "neighbour");
        take(&target, Some(&[net("10.7.1.1/24")])).unwrap();
        say(&other, b"foreign again");
        say(&same, b"own again");
        assert_eq!(hear(), "own again");

        take(&target, None).unwrap();
        let left = target.run(|| nft::read_table("weft-attach").unwrap());
        assert_eq!(left.unwrap(), []);
        // The rules of a namespace that lives on go with everything else of ours.
        let mut child = same
            .spawn(std::process::Command::new("sleep").arg("60"))
            .unwrap();
        let removed = remove_all(&Netlink::open().unwrap(), Path::new("/proc"));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(removed.unwrap().len(), 3);
        let left = same.run(|| nft::read_table("weft-attach").unwrap());
        assert_eq!(left.unwrap(), []);
    });
}

#[test]
fn hairpin_returns_what_a_container_sends_itself() {
    needs_root!();
    let target = container();
    in_new_namespace(|| {
        let host = Netlink::open().unwrap();
        ensure(&host);
        let attached = give(&target, &["10.7.0.1/16"]).unwrap();
        let link = target.netlink().unwrap().link_named(INTERFACE).unwrap();
        let open = || PacketSocket::open(link.index.0, true).unwrap();
        let socket = target.run(open).unwrap();
        let mac = attached.mac.unwrap();
        let mut frame = [0; 64];
        frame[..6].copy_from_slice(mac.as_bytes());
        frame[6..12].copy_from_slice(mac.as_bytes());
        frame[12..14].copy_from_slice(&[0x88, 0xb5]);
        let copies = |wanted: usize| {
            let mut seen = 0;
            let mut buffer = [0; 128];
            while seen < wanted {
                match socket.receive(&mut buffer, Duration::from_millis(200)) {
                    Ok(length) if buffer[..length.min(64)] == frame => seen += 1,
                    Ok(_) => {}
                    Err(_) => break,
                }
            }
            seen
        };
        // The bridge must learn where the address is.
        target
            .run(|| arp::announce(&link, &[Ipv4Addr::new(10, 7, 0, 1)]).unwrap())
            .unwrap();
        socket.send(&frame).unwrap();
        assert_eq!(copies(2), 1);
        let port = host.link_named(&attached.host_interface).unwrap();
        host.set_hairpin(&port, false).unwrap();
        socket.send(&frame).unwrap();
        assert_eq!(copies(1), 0);
    });
}

/// Containers of one host talk at their own MTU, set at the start or later.
#[test]
fn frames_of_any_size_pass_the_bridge() {
    needs_root!();
    let containers = [container(), container()];
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let addresses = ["10.7.0.1/16", "10.7.0.2/16"].map(|net| net.parse().unwrap());
        for (target, address) in containers.iter().zip(&addresses) {
            attach(&AttachRequest {
                addresses: std::slice::from_ref(address),
                ..AttachRequest::new(NAME, target)
            })
            .unwrap();
        }
        for mtu in [1410, 1500, 9000, 65535] {
            for target in &containers {
                let inside = target.netlink().unwrap();
                let change = kernel::netlink::LinkChange {
                    mtu: Some(mtu),
                    ..kernel::netlink::LinkChange::default()
                };
                let link = inside.link_named("ethwe").unwrap();
                inside.change_link(&link, &change).unwrap();
            }
            let bind = |target: &Namespace, address: &Ipv4Net| {
                let at = (address.addr(), 9000);
                let socket = target
                    .run(|| std::net::UdpSocket::bind(at).unwrap())
                    .unwrap();
                let wait = std::time::Duration::from_secs(5);
                socket.set_read_timeout(Some(wait)).unwrap();
                socket
            };
            let from = bind(&containers[0], &addresses[0]);
            let to = bind(&containers[1], &addresses[1]);
            // One frame, as large as they come.
            let sent = vec![7; mtu as usize - 28];
            from.send_to(&sent, (addresses[1].addr(), 9000)).unwrap();
            let mut received = vec![0; 65536];
            let length = to.recv(&mut received).unwrap();
            assert_eq!(length, sent.len());
        }
    });
}
