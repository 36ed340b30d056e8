use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::attach::{AttachRequest, attach};
use crate::bridge::tests::{NAME, ensure};
use kernel::netlink::{NewBridge, Route};
use kernel::netns::Namespace;
use lab::host::Lab;
use lab::pinger::Pinger;
use testbed::root::{in_new_namespace, needs_root, nft_ruleset};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

fn gateway() -> Gateway {
    Gateway::new(GatewayConfig {
        bridge: NAME.into(),
        ..GatewayConfig::default()
    })
}

fn expose(gateway: &Gateway, address: &str, masquerade: bool) -> bool {
    gateway.expose(net(address), masquerade).unwrap().0
}

fn hide(gateway: &Gateway, address: Option<&str>) -> Vec<Ipv4Net> {
    gateway.hide(address.map(net)).unwrap().0
}

#[test]
fn addresses_come_and_go() {
    needs_root!();
    in_new_namespace(|| {
        let gateway = gateway();
        let error = gateway.expose(net("10.7.0.1/16"), true).unwrap_err();
        assert!(error.to_string().contains("weft launch"), "{error}");
        assert_eq!(hide(&gateway, None), []);
        ensure(&Netlink::open().unwrap());
        assert!(expose(&gateway, "10.7.0.1/16", true));
        assert!(!expose(&gateway, "10.7.0.1/16", true));
        assert!(expose(&gateway, "10.7.0.2/16", true));
        assert!(expose(&gateway, "10.8.0.1/24", false));
        let all = exposed(NAME).unwrap();
        let expected = [
            ("10.7.0.1/16", true),
            ("10.7.0.2/16", true),
            ("10.8.0.1/24", false),
        ];
        let expected = expected.map(|(address, masquerade)| Exposed {
            address: net(address),
            masquerade,
        });
        for one in expected {
            assert!(all.contains(&one), "{all:?}");
        }
        assert_eq!(gateway.exposures().all, expected);
        assert_eq!(all.len(), 3);
        assert_eq!(sysctl::get(FORWARDING).unwrap().as_deref(), Some("1"));

        // The subnet stays masqueraded until its last address is gone.
        assert_eq!(hide(&gateway, Some("10.7.0.1/32")), [net("10.7.0.1/16")]);
        assert_eq!(hide(&gateway, Some("10.7.0.1/32")), []);
        assert!(exposed(NAME).unwrap().contains(&expected[1]));
        hide(&gateway, Some("10.7.0.2/16"));
        assert_eq!(exposed(NAME).unwrap(), [expected[2]]);
        assert_eq!(gateway.exposures().all, [expected[2]]);
        assert!(HostRules::masqueraded_now().unwrap().is_empty());
        assert_eq!(hide(&gateway, None), [net("10.8.0.1/24")]);
        assert_eq!(exposed(NAME).unwrap(), []);
        assert_eq!(gateway.exposures().all, []);
    });
}

/// What is refused leaves nothing behind, in the kernel or in what is put back.
#[test]
fn what_no_host_can_have_is_refused() {
    needs_root!();
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let gateway = gateway();
        for wrong in [
            "0.0.0.0/0",
            "10.7.0.1/0",
            "127.0.0.2/8",
            "224.0.0.5/24",
            "255.255.255.255/32",
            "10.7.0.0/16",
            "10.7.255.255/16",
        ] {
            let error = gateway.expose(net(wrong), true).unwrap_err().to_string();
            assert!(error.starts_with(wrong), "{error}");
        }
        assert_eq!(gateway.exposures(), Exposures::default());
        assert_eq!(exposed(NAME).unwrap(), []);
        for right in ["10.7.0.1/32", "10.7.0.2/31", "10.8.255.254/16"] {
            expose(&gateway, right, false);
        }
    });
}

#[test]
fn masquerading_can_be_changed() {
    needs_root!();
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let gateway = gateway();
        let address = net("10.7.0.1/16");
        let mut revisions = Vec::new();
        for masquerade in [true, false, true] {
            let (_, exposures) = gateway.expose(address, masquerade).unwrap();
            let expected = Exposed {
                address,
                masquerade,
            };
            assert_eq!(exposed(NAME).unwrap(), [expected]);
            assert_eq!(exposures.all, [expected]);
            revisions.push(exposures.revision);
        }
        assert!(revisions.is_sorted_by(|a, b| a < b), "{revisions:?}");
        // What holds for a subnet holds for all of its addresses.
        expose(&gateway, "10.7.0.2/16", false);
        assert!(exposed(NAME).unwrap().iter().all(|one| !one.masquerade));
    });
}

/// After a restart of the host nothing is left but what was noted.
#[test]
fn what_was_exposed_is_exposed_again() {
    needs_root!();
    let noted = in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let gateway = gateway();
        expose(&gateway, "10.7.0.1/16", true);
        expose(&gateway, "10.8.0.1/24", false);
        // A router that starts again finds them, with a note and without.
        for stored in [None, Some(gateway.exposures().all)] {
            let next = self::gateway();
            assert_eq!(next.restore(stored).unwrap().all, gateway.exposures().all);
        }
        gateway.exposures().all
    });
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let gateway = gateway();
        gateway.restore(Some(noted.clone())).unwrap();
        assert_eq!(exposed(NAME).unwrap(), noted);
        assert_eq!(sysctl::get(FORWARDING).unwrap().as_deref(), Some("1"));
    });
    // The bridge of a Weave Net router: all that it exposed was masqueraded.
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        ensure(&netlink);
        let bridge = netlink.link_named(NAME).unwrap();
        netlink
            .add_address(&bridge, net("10.7.0.9/16").into())
            .unwrap();
        let gateway = gateway();
        let expected = Exposed {
            address: net("10.7.0.9/16"),
            masquerade: true,
        };
        assert_eq!(gateway.restore(None).unwrap().all, [expected]);
        assert_eq!(exposed(NAME).unwrap(), [expected]);
        // With a note, an address that it does not know is the user's.
        let next = self::gateway();
        netlink
            .add_address(&bridge, net("10.9.0.9/16").into())
            .unwrap();
        let all = next.restore(Some(vec![expected])).unwrap().all;
        assert_eq!(all.len(), 2);
        assert!(!all[1].masquerade);
    });
}

#[test]
fn what_others_remove_is_put_back() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        ensure(&netlink);
        let gateway = gateway();
        let nothing = || gateway.reconcile(BTreeSet::new()).unwrap();
        expose(&gateway, "10.7.0.1/16", true);
        for _ in 0..2 {
            assert_eq!(nothing(), Vec::<&str>::new());
        }
        assert!(HostRules::remove().unwrap());
        assert_eq!(nothing(), ["packet filter rules"]);
        assert_eq!(nothing(), Vec::<&str>::new());
        let bridge = netlink.link_named(NAME).unwrap();
        netlink
            .delete_address(&bridge, net("10.7.0.1/16").into())
            .unwrap();
        assert_eq!(nothing(), ["exposed addresses"]);
        assert_eq!(exposed(NAME).unwrap().len(), 1);
        // Destinations that keep their clients' addresses come and go.
        let local: BTreeSet<Ipv4Net> = [net("10.7.128.0/17")].into();
        assert_eq!(gateway.reconcile(local.clone()).unwrap().len(), 1);
        assert_eq!(gateway.reconcile(local).unwrap().len(), 0);
        if let Some(text) = nft_ruleset("expose::tests::what_others_remove_is_put_back") {
            let rule = "ip daddr 10.7.128.0/17 counter return comment \"local clients of";
            assert!(text.contains(rule), "{text}");
        }
    });
}

/// Returns a host with a container, and another host outside the overlay.
fn lab() -> (Lab, Namespace) {
    let lab = Lab::with_hosts(2).unwrap();
    let container = lab.new_container().unwrap();
    lab.hosts()[0]
        .namespace
        .run(|| {
            ensure(&Netlink::open().unwrap());
            let addresses = [net("10.7.0.2/16")];
            let mut request = AttachRequest::new(NAME, &container);
            request.addresses = &addresses;
            attach(&request).unwrap();
        })
        .unwrap();
    let inside = container.netlink().unwrap();
    let gateway = Ipv4Addr::new(10, 7, 0, 1).into();
    let default = Route::through(Ipv4Net::default().into(), gateway);
    // Without the exposed address the gateway is still on the link.
    inside.add_route(&default).unwrap();
    (lab, container)
}

fn on_host<T: Send>(lab: &Lab, work: impl FnOnce() -> T + Send) -> T {
    lab.hosts()[0].namespace.run(work).unwrap()
}

#[test]
fn masqueraded_packets_carry_the_hosts_address() {
    needs_root!();
    let (lab, container) = lab();
    let outside = &lab.hosts()[1];
    let open = || {
        let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        socket
    };
    let server = outside.namespace.run(open).unwrap();
    let client = container.run(open).unwrap();
    let port = server.local_addr().unwrap().port();

    let gateway = gateway();
    on_host(&lab, || expose(&gateway, "10.7.0.1/16", true));
    client.send_to(b"out", (outside.address, port)).unwrap();
    let mut buffer = [0; 16];
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), lab.hosts()[0].address);
    server.send_to(b"back", from).unwrap();
    let (length, from) = client.recv_from(&mut buffer).unwrap();
    assert_eq!(
        (&buffer[..length], from.ip()),
        (&b"back"[..], outside.address.into())
    );

    // From outside, the container sees the exposed address.
    let route = Route::through(net("10.7.0.0/16").into(), lab.hosts()[0].address.into());
    outside
        .namespace
        .netlink()
        .unwrap()
        .add_route(&route)
        .unwrap();
    let inward = container
        .run(|| UdpSocket::bind("0.0.0.0:9000").unwrap())
        .unwrap();
    inward
        .set_read_timeout(Some(Duration::from_secs(2)))
        .unwrap();
    server.send_to(b"in", "10.7.0.2:9000").unwrap();
    let (_, from) = inward.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 7, 0, 1));

    // Without masquerading the container's own address shows.
    on_host(&lab, || expose(&gateway, "10.7.0.1/16", false));
    let plain = container.run(open).unwrap();
    plain.send_to(b"plain", (outside.address, port)).unwrap();
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 7, 0, 2));
}

/// A container gets what the host was told to give: nothing before it has an address among the
/// containers, whichever of its addresses is asked, and never the mesh itself.
#[test]
fn the_host_gives_what_it_was_told_to_give() {
    needs_root!();
    let (lab, container) = lab();
    let host = lab.hosts()[0].address;
    let inside = container.netlink().unwrap();
    let interface = inside.link_named("ethwe").unwrap().index;
    let route = Route::on_link(Ipv4Net::from(host).into(), interface);
    inside.add_route(&route).unwrap();
    let gateway = Gateway::new(GatewayConfig {
        bridge: NAME.into(),
        mesh_port: 6783,
        ..GatewayConfig::default()
    });
    let arrives = |port: u16| {
        let server = on_host(&lab, || UdpSocket::bind(("0.0.0.0", port)).unwrap());
        let wait = Duration::from_millis(300);
        server.set_read_timeout(Some(wait)).unwrap();
        let client = container.run(|| UdpSocket::bind("0.0.0.0:0").unwrap());
        let client = client.unwrap();
        let mut buffer = [0; 8];
        // The first may wait for the neighbour.
        (0..3).any(|_| {
            let sent = client.send_to(b"hello", (host, port));
            sent.is_ok() && server.recv_from(&mut buffer).is_ok()
        })
    };
    assert!(arrives(9000), "without rules");
    on_host(&lab, || gateway.restore(Some(Vec::new())).unwrap());
    assert!(!arrives(9000), "the host has no address here");
    on_host(&lab, || expose(&gateway, "10.7.0.1/16", false));
    assert!(arrives(9000), "exposed");
    assert!(!arrives(6783) && !arrives(6784), "the mesh is for hosts");
    // An address that somebody gave by hand counts as well.
    on_host(&lab, || {
        hide(&gateway, None);
        let netlink = Netlink::open().unwrap();
        let bridge = netlink.link_named(NAME).unwrap();
        let address = net("10.8.0.1/24").into();
        assert!(netlink.add_address(&bridge, address).unwrap());
        gateway.reconcile(BTreeSet::new()).unwrap();
    });
    assert!(arrives(9000), "an address of the user's");
}

#[test]
fn the_host_reaches_containers_while_exposed() {
    needs_root!();
    let (lab, container) = lab();
    let target = Ipv4Addr::new(10, 7, 0, 2);
    let gateway = gateway();
    on_host(&lab, || expose(&gateway, "10.7.0.1/16", true));
    let mut pinger = Pinger::new(&lab.hosts()[0].namespace).unwrap();
    let deadline = Instant::now() + Duration::from_secs(2);
    let interval = Duration::from_millis(500);
    assert!(
        pinger
            .wait_for(target, interval, deadline)
            .unwrap()
            .is_some()
    );
    let mut back = Pinger::new(&container).unwrap();
    let own = Ipv4Addr::new(10, 7, 0, 1);
    assert!(back.wait_for(own, interval, deadline).unwrap().is_some());
    on_host(&lab, || hide(&gateway, None));
    let deadline = Instant::now() + Duration::from_millis(300);
    assert_eq!(back.wait_for(own, interval, deadline).unwrap(), None);
}

/// The kernel's view, as the `nft` tool of the system prints it.
#[test]
fn nft_agrees() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        ensure(&netlink);
        netlink
            .create_bridge(&NewBridge {
                name: "docker0",
                mac: None,
            })
            .unwrap();
        let docker = netlink.link_named("docker0").unwrap();
        netlink
            .add_address(&docker, net("172.17.0.1/16").into())
            .unwrap();
        let gateway = Gateway::new(GatewayConfig {
            bridge: NAME.into(),
            docker_bridge: "docker0".into(),
            mesh_port: 6783,
            private_ports: [6784].into(),
            expects_controller: false,
        });
        expose(&gateway, "10.7.0.1/16", true);
        let Some(text) = nft_ruleset("expose::tests::nft_agrees") else {
            return;
        };
        assert_eq!(text, NFT);
        let flushed = Command::new("nft")
            .args(["flush", "ruleset"])
            .status()
            .unwrap();
        assert!(flushed.success());
        gateway.reconcile(BTreeSet::new()).unwrap();
        assert_eq!(nft_ruleset("expose::tests::nft_agrees").unwrap(), NFT);
    });
}

const NFT: &str = r#"table ip weft {
	chain input {
		type filter hook input priority filter; policy accept;
		iifname != "lo" ip daddr 127.0.0.0/8 tcp dport 6784 counter drop comment "port 6784 is for this host alone"
		iifname "weave" tcp dport 6783 counter drop comment "TCP port 6783 is for other hosts"
		iifname "weave" udp dport 6783 counter drop comment "UDP port 6783 is for other hosts"
		iifname "weave" udp dport 6784 counter drop comment "UDP port 6784 is for other hosts"
		iifname "docker0" ip daddr 172.17.0.1 tcp dport 6783 counter drop comment "TCP port 6783 of 172.17.0.1 is for the mesh"
		iifname "docker0" ip daddr 172.17.0.1 udp dport 6783 counter drop comment "UDP port 6783 of 172.17.0.1 is for the mesh"
		iifname "docker0" ip daddr 172.17.0.1 udp dport 6784 counter drop comment "UDP port 6784 of 172.17.0.1 is for the mesh"
	}

	chain forward {
		type filter hook forward priority filter; policy accept;
		iifname "docker0" oifname "weave" counter drop comment "docker0 and weave are apart"
	}

	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.7.0.0/16 ip daddr 224.0.0.0/4 counter return comment "multicast of 10.7.0.0/16 keeps its source"
		ip daddr 10.7.0.0/16 ip saddr != 10.7.0.0/16 counter masquerade fully-random comment "masquerade towards 10.7.0.0/16"
		ip saddr 10.7.0.0/16 ip daddr != 10.7.0.0/16 counter masquerade fully-random comment "masquerade out of 10.7.0.0/16"
	}
}
"#;
