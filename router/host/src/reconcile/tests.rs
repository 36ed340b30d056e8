use super::*;
use crate::attach::{AttachRequest, attach, attached, namespace_owner};
use crate::bridge::tests::{MAC, NAME, ensure};
use kernel::netlink::{NewBridge, NewVeth, VethPeer};
use kernel::netns::Namespace;
use std::path::Path;
use testbed::root::{in_new_namespace, needs_root};

fn reconciler() -> Reconciler {
    Reconciler::new(ReconcilerConfig {
        bridge: NAME.into(),
        mac: MAC,
        mtu: 1376,
        timing: NeighbourTiming::default(),
        tap: "tap".into(),
    })
}

fn pair(netlink: &Netlink, name: &str, peer: &str, namespace: Option<&Namespace>) -> Link {
    let new = NewVeth {
        name,
        index: None,
        mtu: 1500,
        master: None,
        peer: VethPeer {
            name: peer,
            index: None,
            mac: None,
            namespace: namespace.map(std::os::fd::AsFd::as_fd),
        },
    };
    netlink.create_veth(&new).unwrap();
    netlink.link_named(name).unwrap()
}

/// A bridge with a device in place of the TAP device, and a container with 10.7.0.5.
struct Host {
    netlink: Netlink,
    reconciler: Reconciler,
    container: Namespace,
    port: String,
}

impl Host {
    fn new() -> Host {
        let netlink = Netlink::open().unwrap();
        let bridge = ensure(&netlink);
        pair(&netlink, "tap", "far", None);
        bridge.add_tap(&netlink, "tap").unwrap();
        let container = Namespace::new().unwrap();
        let owner = namespace_owner(&container);
        let addresses = ["10.7.0.5/16".parse().unwrap()];
        let request = AttachRequest {
            addresses: &addresses,
            owner: Some(&owner),
            ..AttachRequest::new(NAME, &container)
        };
        let port = attach(&request).unwrap().host_interface;
        let host = Host {
            netlink,
            reconciler: reconciler(),
            container,
            port,
        };
        assert_eq!(host.look(), Found::default());
        host
    }

    fn look(&self) -> Found {
        self.reconciler.look().unwrap()
    }

    fn link(&self, name: &str) -> Link {
        self.netlink.link_named(name).unwrap()
    }

    fn change(&self, name: &str, change: LinkChange<'_>) {
        self.netlink.change_link(&self.link(name), &change).unwrap();
    }

    /// Looks until nothing has to be mended; returns what was.
    #[track_caller]
    fn mend(&self) -> Vec<String> {
        let found = self.look();
        assert_eq!(found.wrong, BTreeSet::new());
        assert_eq!(self.look(), Found::default(), "after {:?}", found.mended);
        let bridge = self.link(NAME);
        for name in ["tap", &self.port] {
            let link = self.link(name);
            assert!(link.up && link.master == Some(bridge.index), "{link:?}");
        }
        assert!(self.link(&self.port).port.unwrap().hairpin);
        found.mended
    }
}

#[test]
fn what_others_change_is_mended() {
    needs_root!();
    in_new_namespace(|| {
        let host = Host::new();
        let port = host.port.as_str();
        let down = || LinkChange {
            up: Some(false),
            ..LinkChange::default()
        };
        let off = || LinkChange {
            master: Some(None),
            ..LinkChange::default()
        };
        let small = || LinkChange {
            mtu: Some(1400),
            ..LinkChange::default()
        };
        for name in [NAME, "tap", port] {
            host.change(name, down());
            assert_eq!(host.mend().len(), 1, "{name} was switched off");
        }
        for name in ["tap", port] {
            host.change(name, off());
            assert_eq!(host.mend().len(), 1, "{name} was off the bridge");
        }
        host.change(NAME, small());
        host.change("tap", small());
        host.change(port, small());
        host.mend();
        assert_eq!(host.link(port).mtu, PORT_MTU);
        assert_eq!(host.link("tap").mtu, TAP_MTU_MAX);
        assert_eq!(host.link(NAME).mtu, 1376);
    });
}

#[test]
fn containers_of_a_deleted_bridge_come_back() {
    needs_root!();
    in_new_namespace(|| {
        let host = Host::new();
        assert!(host.netlink.delete_link(&host.link(NAME)).unwrap());
        // A router that starts meanwhile knows whose addresses are in use.
        let found = attached(NAME, Path::new("/proc")).unwrap();
        let owners: Vec<_> = found.iter().map(|one| one.owner.clone()).collect();
        assert_eq!(owners, [Some(namespace_owner(&host.container))]);
        assert_eq!(found[0].addresses, ["10.7.0.5/16".parse().unwrap()]);
        let mended = host.mend();
        assert_eq!(mended.len(), 3, "{mended:?}");
        assert_eq!(host.link(NAME).mac, Some(MAC));
    });
}

#[test]
fn what_cannot_be_mended_is_said() {
    needs_root!();
    in_new_namespace(|| {
        let host = Host::new();
        host.netlink
            .create_bridge(&NewBridge {
                name: "other",
                mac: None,
            })
            .unwrap();
        let other = host.link("other").index;
        host.change(
            &host.port,
            LinkChange {
                master: Some(Some(other)),
                ..LinkChange::default()
            },
        );
        host.netlink.delete_link(&host.link("tap")).unwrap();
        let found = host.look();
        assert_eq!(found.mended, [""; 0]);
        let said: Vec<&String> = found.wrong.iter().collect();
        assert!(said[0].contains("tap was deleted"), "{said:?}");
        assert!(said[1].contains("moved to another bridge"), "{said:?}");
        assert_eq!(said.len(), 2);
        // Its address is known to be in use.
        let found = attached(NAME, Path::new("/proc")).unwrap();
        assert_eq!(found.len(), 1);
    });
}

/// What a Weave Net router leaves: its port, and containers with the MTU of its bridge mode.
#[test]
fn a_weave_router_is_replaced_and_can_come_back() {
    needs_root!();
    in_new_namespace(|| {
        let host = Host::new();
        let bridge = host.link(NAME).index;
        pair(&host.netlink, "vethwe-bridge", "vethwe-datapath", None);
        let container = Namespace::new().unwrap();
        pair(&host.netlink, "vethwepl77", "ethwe", Some(&container));
        let join = || LinkChange {
            master: Some(Some(bridge)),
            up: Some(true),
            ..LinkChange::default()
        };
        host.change("vethwe-bridge", join());
        host.change("vethwepl77", join());
        let found = host.look();
        assert_eq!(found.mended.len(), 1, "{found:?}");
        let theirs = host.link("vethwe-bridge");
        assert!(!theirs.up && theirs.master.is_none());
        let port = host.link("vethwepl77");
        assert_eq!((port.mtu, port.master), (PORT_MTU, Some(bridge)));
        assert_eq!(
            container
                .netlink()
                .unwrap()
                .link_named("ethwe")
                .unwrap()
                .mtu,
            1500
        );

        host.reconciler.give_back().unwrap();
        let theirs = host.link("vethwe-bridge");
        assert!(theirs.up && theirs.master == Some(bridge));
    });
}

/// The kernel tells of a change, so it takes no longer than that and what is waited for more.
#[test]
fn a_change_is_found_at_once() {
    needs_root!();
    in_new_namespace(|| {
        let host = Host::new();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        // Threads of the runtime's pool are those of this namespace.
        runtime.block_on(async {
            let reconciler = Arc::new(reconciler());
            let watching = tokio::spawn(watch(reconciler));
            tokio::time::sleep(Duration::from_millis(50)).await;
            host.change(
                &host.port,
                LinkChange {
                    master: Some(None),
                    ..LinkChange::default()
                },
            );
            let start = std::time::Instant::now();
            while host.link(&host.port).master.is_none() {
                assert!(
                    start.elapsed() < Duration::from_secs(10),
                    "it is not mended"
                );
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            watching.abort();
        });
    });
}
