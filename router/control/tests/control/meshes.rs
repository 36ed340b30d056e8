//! Several control loops in one process, over wires in memory.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::rig::{Mesh, Services};
use control::errors::RequestError;
use control::request::{Reply, Request};
use ipam::allocator::{self, Response};
use ipam::range::Cidr;

fn allocate(mesh: &mut Mesh, host: usize, id: &str) -> Cidr {
    let request = allocator::Request::Allocate {
        id: id.to_owned(),
        subnet: None,
        identity: None,
        container: false,
    };
    let mut answer =
        mesh.hosts[host].ask(
            |reply: Reply<Result<Response, RequestError>>| Request::Address {
                request,
                time_max: None,
                reply: Some(reply),
            },
        );
    mesh.run(3);
    match answer.try_recv().unwrap() {
        Ok(Response::Address { cidr, .. }) => cidr,
        other => panic!("{other:?}"),
    }
}

#[test]
fn three_routers_give_out_different_addresses() {
    let mut mesh = Mesh::connected(3, Services::ALL);
    let mut given = BTreeSet::new();
    for round in 0..5 {
        for host in 0..3 {
            let id = format!("c{host}.{round}");
            given.insert(allocate(&mut mesh, host, &id));
        }
    }
    assert_eq!(given.len(), 15);
}

#[test]
fn names_of_one_router_are_known_at_the_others() {
    let mut mesh = Mesh::connected(3, Services::ALL);
    let address = Ipv4Addr::new(10, 32, 0, 7);
    let registered = mesh.hosts[0].answer(|reply| Request::RegisterNames {
        container: "c1".to_owned(),
        address,
        names: vec!["db".to_owned()],
        reply,
    });
    assert_eq!(registered, Ok(()));
    mesh.run(2);
    for host in &mut mesh.hosts {
        let view = host.view();
        let names = view.names.as_ref().unwrap();
        assert_eq!(names.alive, 1);
        assert_eq!(names.entries[0].0.addr, address);
    }
}

#[test]
fn the_data_plane_is_told_of_links_and_of_peers_that_are_gone() {
    let mut mesh = Mesh::connected(3, Services::ALL);
    let before = mesh.hosts[0].forwarding.snapshots();
    assert!(before > 0);
    // Who dials knows the other end's address, and looks whether frames get there.
    assert!(!mesh.hosts[1].forwarding.specials().is_empty());
    mesh.wires.set_cut(true);
    mesh.wires.break_all();
    mesh.run(10);
    assert_eq!(mesh.hosts[0].view().mesh.peers.len(), 1);
    assert_eq!(mesh.hosts[0].forwarding.forgotten().len(), 2);
    assert!(mesh.hosts[0].forwarding.snapshots() > before);
}

#[test]
fn a_data_plane_that_sends_nothing_stops_no_gossip() {
    let mut mesh = Mesh::new(2, Services::ALL);
    for host in &mesh.hosts {
        host.forwarding.set_refusing(true);
    }
    let peers = vec![mesh.hosts[1].address.to_string()];
    mesh.hosts[0].tell(Request::ConnectInBackground(peers));
    mesh.run(20);
    let view = mesh.hosts[0].view();
    assert_eq!(view.mesh.peers.len(), 2);
    assert!(
        !view.mesh.connections[0].established,
        "no frame came through"
    );
}

#[test]
fn old_mac_addresses_are_swept_out_every_minute() {
    let mut mesh = Mesh::new(1, Services::NONE);
    mesh.run(185);
    assert_eq!(mesh.hosts[0].forwarding.sweeps(), 3);
}
