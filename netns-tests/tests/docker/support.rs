//! What the scenarios share.

use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use kernel::netlink::Link;
use kernel::netns::Namespace;
use lab::pinger::Pinger;
use netns_tests::{Kind, Machine, Mesh, wait};

/// Hosts with engine and router each, joined to one mesh, with the image.
pub(crate) struct Site {
    // Machines before the lab that they are in.
    pub(crate) machines: Vec<Machine>,
    pub(crate) mesh: Mesh,
    _turn: MutexGuard<'static, ()>,
}

/// One scenario at a time: engines take much of a small machine.
static TURN: Mutex<()> = Mutex::new(());

/// Waits until no other scenario runs.
pub(crate) fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Site {
    /// So many hosts, their routers started with these flags.
    #[track_caller]
    pub(crate) fn new(count: usize, flags: &[&str]) -> Site {
        let turn = turn();
        let mesh = Mesh::new(&vec![Kind::Weft; count]);
        let mut machines: Vec<Machine> = (0..count).map(|h| Machine::new(&mesh, h)).collect();
        for machine in &mut machines {
            machine.begin_engine(&mesh);
        }
        let mut site = Site {
            machines,
            mesh,
            _turn: turn,
        };
        for host in 0..count {
            site.machines[host].wait_for_engine();
            site.machines[host].import_image();
            site.start_router(host, flags);
        }
        for host in 1..count {
            site.mesh.wait_connected(0, host);
        }
        site
    }

    /// Starts the router of a host, which dials that of the first.
    #[track_caller]
    pub(crate) fn start_router(&mut self, host: usize, flags: &[&str]) {
        let first = self.mesh.address(0).to_string();
        let mut flags = flags.to_vec();
        if host > 0 {
            flags.push(&first);
        } else {
            // Whoever comes second waits for the first's addresses.
            flags.push("--ipalloc-init=consensus=1");
        }
        self.machines[host].start_router(&self.mesh, &flags);
    }

    /// Waits until Docker has a network.
    #[track_caller]
    pub(crate) fn wait_for_network(&self, host: usize, network: &str) {
        let machine = &self.machines[host];
        wait::until_true(
            &format!("there is a network {network}"),
            wait::LATER,
            || {
                machine
                    .docker(&["network", "inspect", network])
                    .status
                    .success()
            },
        );
    }
}

/// Panics unless a container gets an answer from an address in time.
#[track_caller]
pub(crate) fn must_reach(from: &Namespace, to: &str) {
    let to: Ipv4Addr = to.parse().unwrap();
    let mut pinger = Pinger::new(from).unwrap();
    let interval = Duration::from_millis(100);
    let answer = pinger
        .wait_for(to, interval, Instant::now() + wait::SOON)
        .unwrap();
    assert!(answer.is_some(), "{from} does not reach {to}");
}

/// Returns the addresses that a container really has on interfaces that Docker made of ours.
#[track_caller]
pub(crate) fn addresses_inside(namespace: &Namespace) -> Vec<String> {
    let links = interfaces(namespace);
    let netlink = namespace.netlink().unwrap();
    let addresses = links
        .iter()
        .flat_map(|link| netlink.addresses_of(link.index).unwrap());
    let v4 = addresses.filter(|net| net.addr().is_ipv4());
    v4.map(|net| net.addr().to_string()).collect()
}

/// Returns the interfaces in a container that Docker made of ours.
#[track_caller]
pub(crate) fn interfaces(namespace: &Namespace) -> Vec<Link> {
    let mut links = namespace.netlink().unwrap().links().unwrap();
    links.retain(|link| link.name.starts_with("ethwe"));
    links
}

/// Returns the address of the interface that `weft attach` makes.
pub(crate) fn attached(namespace: &Namespace) -> Option<Ipv4Addr> {
    let netlink = namespace.netlink().unwrap();
    let link = netlink.link("ethwe").unwrap()?;
    let addresses = netlink.addresses_of(link.index).unwrap();
    addresses.iter().find_map(|net| match net.addr() {
        std::net::IpAddr::V4(address) => Some(address),
        std::net::IpAddr::V6(_) => None,
    })
}
