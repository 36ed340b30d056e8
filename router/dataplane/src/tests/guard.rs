//! What frames may not claim to be.

use std::net::Ipv4Addr;
use std::sync::Arc;

use boundary::counters::DropReason;
use boundary::owners::Owners;
use proto::offload::vnet::VnetHeader;
use proto::switch::MACS_PER_PEER_MAX;
use proto::types::Mac;

use super::frames::*;
use crate::guard::GuardRules;
use crate::testing::*;

const ADDRESS: [u8; 4] = [10, 7, 0, 1];

/// Two routers that know whose the first container's addresses and the second one's MAC are.
fn routers(rules: GuardRules, overlay: Overlay) -> Routers {
    let mut routers = Routers::with_rules(3, &[(0, 1), (1, 2), (0, 2)], overlay, rules);
    let owners = Arc::new(Owners::new(
        vec![(mac(0), name(0)), (mac(1), name(1))],
        vec![
            (ADDRESS.into(), name(0)),
            (Ipv4Addr::new(10, 7, 0, 2), name(1)),
        ],
    ));
    for router in &mut routers.0 {
        router.publish(|snapshot| snapshot.with_owners(Arc::clone(&owners)));
    }
    routers
}

/// Returns an ARP question of somebody who says that he has this address.
fn arp(src: Mac, address: [u8; 4]) -> Vec<u8> {
    let head = [Mac::BROADCAST.as_bytes(), src.as_bytes(), &[0x08, 0x06][..]].concat();
    let body = [0, 1, 8, 0, 6, 4, 0, 1];
    [
        &head[..],
        &body,
        src.as_bytes(),
        &address,
        &[0; 6],
        &[10, 7, 0, 9],
    ]
    .concat()
}

#[test]
fn what_belongs_to_a_container_is_taken_from_its_host_only() {
    for overlay in Overlay::ALL {
        let mut routers = routers(GuardRules::default(), overlay);
        let stranger = Mac::from_bytes([2, 0, 0, 0, 9, 9]);
        let owned = [
            ethernet(mac(0), Mac::BROADCAST, b"the MAC"),
            arp(mac(0), ADDRESS),
            // A second address of the container, and its IP address from another interface.
            arp(mac(0), [10, 7, 0, 77]),
            udp(stranger, Mac::BROADCAST, b"the IP address", true),
        ];
        for frame in &owned {
            routers.capture(0, frame);
            assert_eq!(routers.0[1].take_written().len(), 1);
            assert_eq!(routers.0[2].take_written().len(), 1);
        }
        let learned = routers.0[1].shared.macs.lookup(mac(0));
        for frame in [&owned[0], &owned[1], &owned[3], &arp(stranger, ADDRESS)] {
            assert_eq!(
                routers.capture(2, frame),
                0,
                "stopped where it was captured"
            );
        }
        assert_eq!(routers.0[2].dropped(DropReason::SpoofedMac), 2);
        assert_eq!(routers.0[2].dropped(DropReason::SpoofedAddress), 2);

        // A host that lets it pass is not believed, and nobody's address moves.
        routers.0[2].publish(|snapshot| snapshot.with_owners(Arc::default()));
        for frame in [&owned[0], &owned[3]] {
            assert_eq!(routers.capture(2, frame), 2);
        }
        for router in &routers.0[..2] {
            assert_eq!(router.take_written(), []);
            assert_eq!(router.dropped(DropReason::SpoofedMac), 1);
            assert_eq!(router.dropped(DropReason::SpoofedAddress), 1);
        }
        assert_eq!(routers.0[1].shared.macs.lookup(mac(0)), learned);
        routers.assert_balanced();
    }
}

#[test]
fn the_bridge_of_a_host_is_nobody_elses() {
    let mut routers = routers(GuardRules::default(), Overlay::Native);
    let bridge = name(1).to_mac();
    assert_eq!(
        routers.capture(2, &ethernet(bridge, Mac::BROADCAST, b"I am a bridge")),
        0
    );
    assert_eq!(routers.0[2].dropped(DropReason::SpoofedMac), 1);
    assert_eq!(
        routers.capture(1, &ethernet(bridge, Mac::BROADCAST, b"I am")),
        2
    );
    routers.assert_balanced();
}

#[test]
fn strict_hosts_let_containers_use_what_they_were_given() {
    let rules = GuardRules {
        strict: true,
        ..GuardRules::default()
    };
    let mut routers = routers(rules, Overlay::Native);
    let stranger = Mac::from_bytes([2, 0, 0, 0, 9, 9]);
    for frame in [
        ethernet(stranger, Mac::BROADCAST, b"made up"),
        arp(mac(0), [10, 7, 0, 77]),
    ] {
        assert_eq!(routers.capture(0, &frame), 0);
    }
    assert_eq!(routers.0[0].dropped(DropReason::NotOwn), 2);
    for frame in [
        arp(mac(0), ADDRESS),
        // Who looks whether an address is free has none yet.
        arp(mac(0), [0; 4]),
        ethernet(mac(0), Mac::BROADCAST, b"given"),
    ] {
        assert_eq!(routers.capture(0, &frame), 2);
    }
    routers.assert_balanced();
}

/// Returns a message of ICMPv6.
fn icmpv6(src: Mac, kind: u8) -> Vec<u8> {
    let head = [&[0x33, 0x33, 0, 0, 0, 1][..], src.as_bytes(), &[0x86, 0xdd]].concat();
    let mut header = [0; 40];
    header[..8].copy_from_slice(&[0x60, 0, 0, 0, 0, 16, 58, 255]);
    header[8..10].copy_from_slice(&[0xfe, 0x80]);
    header[24..26].copy_from_slice(&[0xff, 0x02]);
    [&head[..], &header, &[kind], &[0; 15]].concat()
}

/// Returns a UDP datagram from this port.
fn udp_from(port: u8) -> Vec<u8> {
    let mut frame = udp(mac(0), Mac::BROADCAST, &[1; 240], false);
    frame[34..36].copy_from_slice(&[0, port]);
    frame
}

#[test]
fn routers_and_dhcp_servers_have_to_be_allowed() {
    let advertisement = icmpv6(mac(0), 134);
    let offer = udp_from(67);
    let mut routers = routers(GuardRules::default(), Overlay::Native);
    assert_eq!(routers.capture(0, &advertisement), 0);
    assert_eq!(routers.capture(0, &offer), 0);
    assert_eq!(routers.0[0].dropped(DropReason::RouterAdvertisement), 1);
    assert_eq!(routers.0[0].dropped(DropReason::DhcpServer), 1);
    // Who asks for them is heard.
    assert_eq!(routers.capture(0, &icmpv6(mac(0), 133)), 2);
    assert_eq!(routers.capture(0, &udp_from(68)), 2);
    routers.assert_balanced();

    let allowed = GuardRules {
        allow_router_advertisements: true,
        allow_dhcp_servers: true,
        ..GuardRules::default()
    };
    let mut lenient = self::routers(allowed, Overlay::Native);
    assert_eq!(lenient.capture(0, &advertisement), 2);
    assert_eq!(lenient.capture(0, &offer), 2);
    // A host that allows them does not decide for others.
    lenient.0[0].capture(VnetHeader::PLAIN, &advertisement);
    let sent = lenient.0[0].take_sent();
    let mut strangers = self::routers(GuardRules::default(), Overlay::Native);
    let to_it = sent.into_iter().filter(|sent| sent.to == address(1));
    strangers.0[1].receive(to_it.map(|sent| (address(0), sent.bytes)));
    assert_eq!(strangers.0[1].dropped(DropReason::RouterAdvertisement), 1);
    assert_eq!(strangers.0[1].take_written(), []);
}

/// A container that makes up addresses neither fills the tables of others nor cuts off those that
/// are known.
#[test]
fn made_up_addresses_are_bounded() {
    let mut routers = routers(GuardRules::default(), Overlay::Native);
    let made_up = |n: u32| {
        let [a, b, c, d] = n.to_be_bytes();
        ethernet(Mac::from_bytes([6, 0, a, b, c, d]), Mac::BROADCAST, b"new")
    };
    let count = 2 * MACS_PER_PEER_MAX as u32;
    let mut arrived = 0;
    for n in 0..count {
        routers.capture(2, &made_up(n));
        arrived += routers.0[0].take_written().len();
        routers.0[1].take_written();
    }
    assert!(arrived <= MACS_PER_PEER_MAX, "{arrived}");
    let refused = routers.0[2].dropped(DropReason::TooManyMacs);
    assert_eq!(refused + arrived as u64, u64::from(count));
    // Others are learned, and so is heard what is known to be this host's, without a place.
    let stranger = Mac::from_bytes([2, 0, 0, 0, 9, 9]);
    assert_eq!(
        routers.capture(1, &ethernet(stranger, Mac::BROADCAST, b"new")),
        2
    );
    assert!(routers.0[0].shared.macs.lookup(stranger).is_some());
    let owners = Arc::new(Owners::new(vec![(mac(2), name(2))], vec![]));
    for router in &mut routers.0 {
        router.publish(|snapshot| snapshot.with_owners(Arc::clone(&owners)));
    }
    assert_eq!(
        routers.capture(2, &ethernet(mac(2), Mac::BROADCAST, b"mine")),
        2
    );
    routers.assert_balanced();
}
