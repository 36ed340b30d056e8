use std::collections::BTreeSet;

use super::*;
use kernel::netlink::{NewVeth, VethPeer};
use kernel::netns::Namespace;
use kernel::sysctl;
use testbed::root::{in_new_namespace, needs_root};

pub(crate) const NAME: &str = "weave";
pub(crate) const MAC: Mac = Mac::from_bytes([2, 0, 0, 0, 0x10, 1]);

pub(crate) fn config() -> BridgeConfig<'static> {
    BridgeConfig {
        name: NAME,
        mac: MAC,
        mtu: 1376,
        timing: NeighbourTiming::default(),
    }
}

pub(crate) fn ensure(netlink: &Netlink) -> Bridge {
    Bridge::ensure(netlink, &config()).unwrap()
}

fn add_pair(netlink: &Netlink, name: &str, peer: &str, mtu: u32) -> Link {
    let new = NewVeth {
        name,
        index: None,
        mtu,
        master: None,
        peer: VethPeer {
            name: peer,
            index: None,
            // Lower than that of the bridge, which would follow it if it could.
            mac: Some(Mac::from_bytes([2, 0, 0, 0, 0, 1])),
            namespace: None,
        },
    };
    netlink.create_veth(&new).unwrap();
    netlink.link_named(name).unwrap()
}

fn names(netlink: &Netlink) -> BTreeSet<String> {
    let links = netlink.links().unwrap();
    let ours = |link: &Link| matches!(link.kind.as_deref(), Some("bridge" | "veth" | "vxlan"));
    links
        .into_iter()
        .filter(ours)
        .map(|link| link.name)
        .collect()
}

#[test]
fn a_bridge_is_made_as_wanted() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let bridge = ensure(&netlink);
        assert_eq!(bridge.origin, Origin::Created);
        assert!(bridge.link.up);
        assert_eq!((bridge.link.mac, bridge.link.mtu), (Some(MAC), 1376));
        assert!(is_ours(bridge.link.alias.as_deref()));
        let get = |key| sysctl::get(key).unwrap();
        assert_eq!(get("ipv6/conf/weave/accept_ra").as_deref(), Some("0"));
        // The kernel gives it no address that others could guess.
        assert_eq!(get("ipv6/conf/weave/disable_ipv6").as_deref(), Some("1"));
        assert_eq!(bridge.addresses(&netlink).unwrap(), []);
        let reachable = get("ipv4/neigh/weave/base_reachable_time_ms");
        assert_eq!(reachable.as_deref(), Some("15000"));
        assert_eq!(get("ipv4/neigh/weave/ucast_solicit").as_deref(), Some("1"));
    });
}

#[test]
fn ports_change_neither_mtu_nor_mac() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let bridge = ensure(&netlink);
        add_pair(&netlink, "far", "tap", 1300);
        let taken = [MTU_MAX - 14, MTU_MAX];
        for _ in 0..2 {
            bridge.add_tap(&netlink, "tap").unwrap();
            let link = netlink.link_named(NAME).unwrap();
            assert_eq!((link.mtu, link.mac), (1376, Some(MAC)));
            let ports = bridge.ports(&netlink).unwrap();
            assert_eq!(ports.len(), 1);
            assert!(ports[0].name == "tap" && ports[0].up);
            assert!(taken.contains(&ports[0].mtu), "frames of any size");
        }
        let disabled = sysctl::get("ipv6/conf/tap/disable_ipv6").unwrap();
        assert_eq!(disabled.as_deref(), Some("1"));

        // The same when the MTU was right from the start, at the upper end too.
        for mtu in [1500, MTU_MAX] {
            let name = format!("br{mtu}");
            let config = BridgeConfig {
                name: &name,
                mtu,
                ..config()
            };
            let bridge = Bridge::ensure(&netlink, &config).unwrap();
            bridge.add_tap(&netlink, "tap").unwrap();
            assert_eq!(netlink.link_named(&name).unwrap().mtu, mtu);
        }
    });
}

#[test]
fn our_bridge_is_adopted_with_its_address() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let first = ensure(&netlink);
        let address = "10.7.0.1/16".parse().unwrap();
        netlink.add_address(&first.link, address).unwrap();
        netlink.set_up(&first.link, false).unwrap();
        let again = ensure(&netlink);
        assert_eq!(again.origin, Origin::Adopted);
        assert!(again.link.up);
        assert_eq!(again.link.index, first.link.index);
        assert!(again.addresses(&netlink).unwrap().contains(&address));
    });
}

/// What a Weave Net router leaves: the bridge, its own pair, a container's pair.
#[test]
fn a_foreign_bridge_is_used_and_left() {
    needs_root!();
    let container = Namespace::new().unwrap();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let new = NewBridge {
            name: NAME,
            mac: None,
        };
        netlink.create_bridge(&new).unwrap();
        let link = netlink.link_named(NAME).unwrap();
        let own = add_pair(&netlink, "vethwe-bridge", "vethwe-pcap", 65535);
        let mut pair = NewVeth {
            name: "vethwepl4711",
            index: None,
            mtu: 65535,
            master: Some(link.index),
            peer: VethPeer {
                name: "ethwe",
                index: None,
                mac: None,
                namespace: None,
            },
        };
        pair.peer.namespace = Some(std::os::fd::AsFd::as_fd(&container));
        netlink.create_veth(&pair).unwrap();
        let join = LinkChange {
            master: Some(Some(link.index)),
            ..LinkChange::default()
        };
        netlink.change_link(&own, &join).unwrap();

        let bridge = ensure(&netlink);
        assert_eq!(bridge.origin, Origin::Foreign);
        assert_eq!(bridge.link.mac, Some(MAC));
        assert_eq!(bridge.ports(&netlink).unwrap().len(), 2);
        add_pair(&netlink, "tap", "far", 1376);
        bridge.add_tap(&netlink, "tap").unwrap();
        // What their large MTU lets through has to reach the router.
        assert_eq!(netlink.link_named("tap").unwrap().mtu, 65521);

        let removed = remove_all(&netlink, Path::new("/proc")).unwrap();
        assert_eq!(removed, ["tap"]);
        let left = names(&netlink);
        let expected = ["vethwe-bridge", "vethwe-pcap", "vethwepl4711", "weave"];
        assert_eq!(left, expected.map(str::to_owned).into());
        assert_eq!(bridge.ports(&netlink).unwrap().len(), 2);
    });
}

#[test]
fn everything_of_ours_is_removed_twice() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let bridge = ensure(&netlink);
        add_pair(&netlink, "far", "tap", 1376);
        bridge.add_tap(&netlink, "tap").unwrap();
        add_pair(&netlink, "other0", "other1", 1500);
        let removed = remove_all(&netlink, Path::new("/proc")).unwrap();
        assert_eq!(
            BTreeSet::from_iter(removed),
            ["tap", "weave"].map(str::to_owned).into()
        );
        let left = names(&netlink);
        assert_eq!(left, ["other0", "other1"].map(str::to_owned).into());
        let removed = remove_all(&netlink, Path::new("/proc")).unwrap();
        assert_eq!(removed, [""; 0]);
    });
}

#[test]
fn another_device_of_that_name_is_an_error() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        add_pair(&netlink, NAME, "far", 1500);
        let error = Bridge::ensure(&netlink, &config()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "device weave is a veth, not a bridge: delete it (ip link delete weave) or choose \
             another name with --weave-bridge"
        );
        let error = Bridge::named(&netlink, "none").unwrap_err();
        assert_eq!(
            error.to_string(),
            "no device none: start the router first (weft launch)"
        );
    });
}

#[test]
fn a_bridge_that_cannot_be_finished_is_removed() {
    needs_root!();
    in_new_namespace(|| {
        let netlink = Netlink::open().unwrap();
        let impossible = BridgeConfig { mtu: 3, ..config() };
        let error = Bridge::ensure(&netlink, &impossible).unwrap_err();
        assert!(error.to_string().contains("MTU 3"), "{error}");
        assert_eq!(netlink.link(NAME).unwrap(), None);
    });
}

#[test]
fn a_bridge_works_without_ipv6() {
    needs_root!();
    in_new_namespace(|| {
        sysctl::set("ipv6/conf/all/disable_ipv6", "1").unwrap();
        sysctl::set("ipv6/conf/default/disable_ipv6", "1").unwrap();
        let netlink = Netlink::open().unwrap();
        let bridge = ensure(&netlink);
        add_pair(&netlink, "far", "tap", 1376);
        bridge.add_tap(&netlink, "tap").unwrap();
        assert!(!sysctl::set_if_present("ipv6/conf/none/accept_ra", "0").unwrap());
    });
}
