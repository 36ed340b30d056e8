use std::net::{Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use super::*;
use crate::net::attach::{AttachRequest, attach};
use crate::net::bridge::tests::{NAME, ensure};
use crate::net::lab::Lab;
use crate::net::netlink::Route;
use crate::net::netns::Namespace;
use crate::net::pinger::Pinger;
use crate::testing::{in_new_namespace, needs_root, nft_ruleset};

fn net(text: &str) -> Ipv4Net {
    text.parse().unwrap()
}

#[test]
fn addresses_come_and_go() {
    needs_root!();
    in_new_namespace(|| {
        let error = expose(NAME, net("10.7.0.1/16"), true).unwrap_err();
        assert!(error.to_string().contains("weft launch"), "{error}");
        ensure(&Netlink::open().unwrap());
        assert!(expose(NAME, net("10.7.0.1/16"), true).unwrap());
        assert!(!expose(NAME, net("10.7.0.1/16"), true).unwrap());
        assert!(expose(NAME, net("10.7.0.2/16"), true).unwrap());
        assert!(expose(NAME, net("10.8.0.1/24"), false).unwrap());
        let all = exposed(NAME).unwrap();
        let expected = [
            (net("10.7.0.1/16"), true),
            (net("10.7.0.2/16"), true),
            (net("10.8.0.1/24"), false),
        ];
        let expected = expected.map(|(address, masquerade)| Exposed {
            address,
            masquerade,
        });
        for one in expected {
            assert!(all.contains(&one), "{all:?}");
        }
        assert_eq!(all.len(), 3);
        assert_eq!(sysctl::get(FORWARDING).unwrap().as_deref(), Some("1"));

        // The subnet stays masqueraded until its last address is gone.
        assert_eq!(
            hide(NAME, Some(net("10.7.0.1/16"))).unwrap(),
            [net("10.7.0.1/16")]
        );
        assert_eq!(hide(NAME, Some(net("10.7.0.1/16"))).unwrap(), []);
        assert!(exposed(NAME).unwrap().contains(&expected[1]));
        hide(NAME, Some(net("10.7.0.2/16"))).unwrap();
        assert_eq!(exposed(NAME).unwrap(), [expected[2]]);
        assert!(HostRules::read().unwrap().masqueraded.is_empty());
        assert_eq!(hide(NAME, None).unwrap(), [net("10.8.0.1/24")]);
        assert_eq!(exposed(NAME).unwrap(), []);
        assert_eq!(hide("none", None).unwrap(), []);
    });
}

#[test]
fn masquerading_can_be_changed() {
    needs_root!();
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        let address = net("10.7.0.1/16");
        for masquerade in [true, false, true] {
            expose(NAME, address, masquerade).unwrap();
            let expected = Exposed {
                address,
                masquerade,
            };
            assert_eq!(exposed(NAME).unwrap(), [expected]);
        }
    });
}

/// A host with a container, and another host outside the overlay.
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

    on_host(&lab, || expose(NAME, net("10.7.0.1/16"), true).unwrap());
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
    on_host(&lab, || expose(NAME, net("10.7.0.1/16"), false).unwrap());
    let plain = container.run(open).unwrap();
    plain.send_to(b"plain", (outside.address, port)).unwrap();
    let (_, from) = server.recv_from(&mut buffer).unwrap();
    assert_eq!(from.ip(), Ipv4Addr::new(10, 7, 0, 2));
}

#[test]
fn the_host_reaches_containers_while_exposed() {
    needs_root!();
    let (lab, container) = lab();
    let target = Ipv4Addr::new(10, 7, 0, 2);
    on_host(&lab, || expose(NAME, net("10.7.0.1/16"), true).unwrap());
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
    let gateway = Ipv4Addr::new(10, 7, 0, 1);
    assert!(
        back.wait_for(gateway, interval, deadline)
            .unwrap()
            .is_some()
    );
    on_host(&lab, || hide(NAME, None).unwrap());
    let deadline = Instant::now() + Duration::from_millis(300);
    assert_eq!(back.wait_for(gateway, interval, deadline).unwrap(), None);
}

/// The kernel's view, as the `nft` tool of the system prints it.
#[test]
fn nft_agrees() {
    needs_root!();
    in_new_namespace(|| {
        ensure(&Netlink::open().unwrap());
        expose(NAME, net("10.7.0.1/16"), true).unwrap();
        let Some(text) = nft_ruleset("expose::tests::nft_agrees") else {
            return;
        };
        let expected = r#"table ip weft {
	chain postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		ip saddr 10.7.0.0/16 ip daddr 224.0.0.0/4 counter return comment "multicast of 10.7.0.0/16 keeps its source"
		ip daddr 10.7.0.0/16 ip saddr != 10.7.0.0/16 counter masquerade fully-random comment "masquerade towards 10.7.0.0/16"
		ip saddr 10.7.0.0/16 ip daddr != 10.7.0.0/16 counter masquerade fully-random comment "masquerade out of 10.7.0.0/16"
	}
}
"#;
        assert_eq!(text, expected);

        let rules = HostRules::read().unwrap();
        assert!(rules.are_in_place().unwrap());
        let flushed = Command::new("nft")
            .args(["flush", "ruleset"])
            .status()
            .unwrap();
        assert!(flushed.success());
        assert!(!rules.are_in_place().unwrap());
        rules.apply().unwrap();
        assert!(rules.are_in_place().unwrap());
    });
}
