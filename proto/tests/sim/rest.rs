//! What a mesh costs until all know each other, and that it falls silent then.

use std::collections::BTreeSet;
use std::time::Duration;

use proto::native::link::REPORT_REST;
use proto::node::HEARTBEAT_INTERVAL;
use proto::overlay::{Health, Overlay};
use proto::types::PeerName;

use super::check;
use super::world::World;

/// Hosts that are all told of the first and start at once. Those that are `modern` do with each
/// other what only they understand.
fn start(seed: u64, hosts: usize, modern: impl Fn(usize) -> bool) -> World {
    let mut world = World::new(seed);
    for host in 0..hosts {
        world.add_host(|config| {
            config.channels.clear();
            config.abilities = modern(host);
        });
        world.hosts[host].targets = vec![world.target(0)];
    }
    for host in 0..hosts {
        world.start(host);
        world.run(Duration::from_millis(10));
    }
    let complete = |world: &World| {
        let mut up = world.up().into_iter();
        up.all(|host| world.node(host).connections().count() == hosts - 1)
    };
    check::converge(&mut world, Duration::from_secs(30), complete);
    world
}

/// TCP bytes and UDP packets while so much time passes.
fn spent(world: &mut World, time: Duration) -> (u64, u64) {
    let before = (world.tcp_bytes, world.udp_packets);
    world.run(time);
    (world.tcp_bytes - before.0, world.udp_packets - before.1)
}

#[test]
fn a_mesh_at_rest_is_all_but_silent() {
    let hosts = 16;
    let mut world = start(1, hosts, |_| true);
    world.run(Duration::from_secs(60));
    let seconds = 200;
    let (bytes, packets) = spent(&mut world, Duration::from_secs(seconds));
    println!("{bytes} bytes over TCP and {packets} packets over UDP in {seconds} s");
    let links = (hosts * (hosts - 1) / 2) as u64;
    // A report and its answer for each link, and nothing beside it.
    let rests = seconds / REPORT_REST.as_secs() + 1;
    assert!(packets <= links * rests * 2, "{packets} packets");
    // A heartbeat at each end of a link and two digests of each host, each of a few bytes.
    let beats = seconds / HEARTBEAT_INTERVAL.as_secs() + 1;
    let most = beats * (links * 2 * 8 + hosts as u64 * 2 * 32);
    assert!(bytes <= most, "{bytes} bytes, {most} expected");
    let is_cold = |view: &proto::overlay::ForwarderView| {
        view.overlay != Overlay::Sleeve || view.health == Health::Pending
    };
    for host in world.up() {
        let mut connections = world.node(host).connections();
        assert!(connections.all(|connection| connection.forwarders.iter().all(is_cold)));
    }
    check::quiet(&mut world);
}

/// Peers, connections and whether they are established.
fn view(world: &World, host: usize) -> BTreeSet<(PeerName, PeerName, bool)> {
    let peers = world.node(host).topology().peers();
    let connections = peers.flat_map(|peer| {
        let connections = peer.connections.iter();
        connections.map(|connection| (peer.name, connection.remote, connection.established))
    });
    connections.collect()
}

#[test]
fn all_forms_lead_to_the_same_view() {
    for seed in 0..3 {
        let hosts = 9;
        let modern: [fn(usize) -> bool; 3] = [|_| true, |host| host % 2 == 0, |_| false];
        let views = modern.map(|modern| {
            let mut world = start(seed, hosts, modern);
            world.stop(3, true);
            world.run(Duration::from_secs(5));
            world.start(3);
            world.run(Duration::from_secs(100));
            check::converge(&mut world, Duration::from_secs(100), |_| true);
            let views: Vec<_> = (0..hosts).map(|host| view(&world, host)).collect();
            assert!(views.iter().all(|view| *view == views[0]), "seed {seed}");
            views[0].clone()
        });
        assert_eq!(views[0], views[1], "seed {seed}");
        assert_eq!(views[0], views[2], "seed {seed}");
    }
}

/// What is new costs a mesh that compares digests a part of what it costs others.
#[test]
fn a_start_says_less_when_digests_are_compared() {
    let hosts = 16;
    let costs = [true, false].map(|modern| start(1, hosts, |_| modern).tcp_bytes);
    println!("{costs:?} bytes over TCP until all agree");
    assert!(costs[0] * 2 < costs[1], "{costs:?}");
}

/// Where native datagrams stop to arrive sleeve takes over, and it rests again when they do.
#[test]
fn sleeve_wakes_when_it_is_needed_and_rests_again() {
    let mut world = start(1, 3, |_| true);
    world.run(Duration::from_secs(10));
    world.native_blocked = true;
    world.run(REPORT_REST * 2 + Duration::from_secs(5));
    let active = |world: &World| -> Vec<Option<Overlay>> {
        let up = world.up().into_iter();
        up.flat_map(|host| {
            let connections = world.node(host).connections();
            connections.map(|c| c.active.map(|view| view.overlay))
        })
        .collect()
    };
    assert_eq!(active(&world), [Some(Overlay::Sleeve); 6]);
    world.native_blocked = false;
    world.run(Duration::from_secs(120));
    assert_eq!(active(&world), [Some(Overlay::Weft); 6]);
    let before = world.specials;
    world.run(Duration::from_secs(120));
    assert_eq!(world.specials, before, "sleeve speaks beside native links");
    check::quiet(&mut world);
}
