//! What a big mesh costs: bytes gossiped, and memory.

use std::time::Instant;

use ipam::allocator::Request;

use crate::host::Asked;
use crate::number;
use crate::plan::Plan;
use crate::world::{Machine, SECOND, World};

/// Addresses that each router gives out.
const ADDRESSES_EACH: u64 = 20;

/// Memory of this process, in MiB.
fn resident_mib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() / 1024
}

struct Meter {
    at: u64,
    bytes: u64,
    messages: u64,
    started: Instant,
}

impl Meter {
    fn start(world: &World) -> Meter {
        Meter {
            at: world.now,
            bytes: world.bytes,
            messages: world.messages,
            started: Instant::now(),
        }
    }

    fn tell(&self, world: &World, what: &str) {
        let seconds = (world.now - self.at) / SECOND;
        let peers = world.nodes.len() as u64;
        println!(
            "{what}: {seconds} s, {} messages and {} bytes per second and peer, resident {} MiB in \
             all, computed in {:?}",
            (world.messages - self.messages) / seconds / peers,
            (world.bytes - self.bytes) / seconds / peers,
            resident_mib(),
            self.started.elapsed()
        );
    }
}

/// Each of many routers gives out twenty addresses at the same time; nothing is given out twice,
/// all rings are the same afterwards, and a mesh in which nothing happens sends little.
#[test]
fn a_big_mesh_is_cheap() {
    let peers = number("WEFT_SIM_PEERS").unwrap_or(60) as usize;
    let plan = Plan {
        seeded: true,
        universe: "10.7.0.0/16".parse().unwrap(),
        ..Plan::calm(3, peers)
    };
    let mut world = World::new(plan, false);
    world.users = false;
    let meter = Meter::start(&world);
    world.pass(10);
    meter.tell(&world, "all meet");
    let meter = Meter::start(&world);
    world.pass(60);
    meter.tell(&world, "nothing happens");

    let meter = Meter::start(&world);
    for number in 0..ADDRESSES_EACH {
        for node in 0..peers {
            let id = format!("c{number}-{node}");
            world.new_container_of(&id, node);
            let request = Request::Allocate {
                id: id.clone(),
                subnet: None,
                identity: None,
                container: true,
            };
            world.request(node, Asked::Start(id), Some(20), request);
        }
        world.pass(1);
    }
    world.pass(40);
    meter.tell(&world, "addresses are given out");
    assert_eq!(
        world.watch.in_use.len() as u64,
        ADDRESSES_EACH * peers as u64
    );

    let meter = Meter::start(&world);
    world.pass(60);
    meter.tell(&world, "nothing happens");
    let idle = (world.bytes - meter.bytes) / 60 / peers as u64;
    // A ring and the names of all peers, to four neighbours each half minute.
    assert!(
        idle < 100 * peers as u64,
        "{idle} bytes per second and peer"
    );
    let owners = |node: usize| match &world.nodes[node].machine {
        Machine::Weft(host) => host.allocator.as_ref().unwrap().ring().owners(),
        Machine::Weave(_) => Vec::new(),
    };
    assert_eq!(owners(0).len(), peers);
    assert!((1..peers).all(|node| owners(node) == owners(0)));
}
