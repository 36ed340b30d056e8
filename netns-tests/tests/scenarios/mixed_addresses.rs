//! Addresses in meshes of which some routers are real ones.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use netns_tests::{Container, Kind, Launch, Mesh, members, needs_real, nickname, peer_name, wait};

/// Routers that dial the first, all launched with this.
fn mesh_of(kinds: &[Kind], launch: &Launch) -> Mesh {
    let mut mesh = Mesh::new(kinds);
    let others: &[usize] = &[0];
    let peers: Vec<&[usize]> = (0..kinds.len())
        .map(|host| if host == 0 { &[] } else { others })
        .collect();
    mesh.launch_all(&peers, launch);
    let hosts: Vec<usize> = (0..kinds.len()).collect();
    mesh.wait_routed(&hosts);
    mesh
}

/// Returns the first ring by election.
fn elected(kinds: &[Kind]) -> Mesh {
    let count = format!("--ipalloc-init=consensus={}", kinds.len());
    mesh_of(kinds, &Launch::new().with(&count))
}

/// The first ring is all the first router's.
fn owned_by_first(kinds: &[Kind]) -> Mesh {
    let seed = format!("--ipalloc-init=seed={}", peer_name(0));
    mesh_of(kinds, &Launch::new().with(&seed))
}

/// Returns the owner of each interval, as a router reports it.
fn ring(mesh: &Mesh, host: usize) -> BTreeMap<String, String> {
    let report = mesh.report(host);
    let entries = report["IPAM"]["Entries"].as_array().into_iter().flatten();
    let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
    entries
        .map(|entry| (text(&entry["Token"]), text(&entry["Peer"])))
        .collect()
}

/// Waits until all routers report the same ring.
#[track_caller]
fn wait_agreed(mesh: &Mesh, hosts: &[usize]) -> BTreeMap<String, String> {
    wait::until("all rings are equal", Duration::from_secs(60), || {
        let first = ring(mesh, hosts[0]);
        let same = hosts.iter().all(|host| ring(mesh, *host) == first);
        (same && !first.is_empty()).then_some(first)
    })
}

fn allocate(mesh: &Mesh, host: usize, id: &str) -> String {
    mesh.call(host, "POST", &format!("/ip/{id}")).unwrap()
}

fn lookup(mesh: &Mesh, host: usize, id: &str) -> String {
    let found = mesh.call(host, "GET", &format!("/ip/{id}")).unwrap();
    found.trim().to_owned()
}

/// All routers of the mesh run as they did; none has died or closed its connections.
#[track_caller]
fn all_well(mesh: &mut Mesh, hosts: &[usize]) {
    for host in hosts {
        assert!(mesh.is_running(*host), "{} has died", nickname(*host));
    }
    mesh.wait_routed(hosts);
}

/// Both kinds elect the first ring together, and each gets addresses of its own part.
fn consensus(kinds: &[Kind]) {
    let mut mesh = elected(kinds);
    let hosts: Vec<usize> = (0..kinds.len()).collect();
    let mut got = BTreeSet::new();
    for number in 0..5 {
        for host in &hosts {
            let address = allocate(&mesh, *host, &format!("c{number}-{host}"));
            assert!(got.insert(address.clone()), "{address} twice");
        }
    }
    let ring = wait_agreed(&mesh, &hosts);
    let owners: BTreeSet<&String> = ring.values().collect();
    assert!(!owners.is_empty());
    all_well(&mut mesh, &hosts);
}
members!(consensus, 3);

/// A router without space of its own is given some.
fn space(kinds: &[Kind]) {
    let mut mesh = owned_by_first(kinds);
    let first = allocate(&mesh, 0, "first");
    let mut got = BTreeSet::from([first]);
    for number in 0..20 {
        assert!(got.insert(allocate(&mesh, 1, &format!("c{number}"))));
    }
    let ring = wait_agreed(&mesh, &[0, 1]);
    assert!(ring.values().any(|owner| *owner == peer_name(1)));
    all_well(&mut mesh, &[0, 1]);
}
members!(space, 2);

/// An address of another router's part is claimed; one that is in use there is not.
fn claims(kinds: &[Kind]) {
    let mut mesh = owned_by_first(kinds);
    let used = allocate(&mesh, 0, "first");
    mesh.call(1, "PUT", "/ip/claimer/10.7.9.9/16").unwrap();
    assert_eq!(lookup(&mesh, 1, "claimer"), "10.7.9.9/16");
    let error = mesh
        .call(1, "PUT", &format!("/ip/other/{used}"))
        .unwrap_err();
    assert!(error.contains("is owned by other peer"), "{error}");
    mesh.call(0, "PUT", "/ip/third/10.7.9.8/16").unwrap();
    let error = mesh.call(0, "PUT", "/ip/third/10.7.9.9/16").unwrap_err();
    assert!(error.contains("is owned by other peer"), "{error}");
    wait_agreed(&mesh, &[0, 1]);
    all_well(&mut mesh, &[0, 1]);
}
members!(claims, 2);

/// All 14 addresses of a /28 can be had on three hosts together, none twice; one that is
/// released goes to whoever waits.
fn exhaustion(kinds: &[Kind]) {
    let launch = Launch::new()
        .with("--ipalloc-range=10.7.0.0/28")
        .with("--ipalloc-init=consensus=3");
    let mut mesh = mesh_of(kinds, &launch);
    let hosts = [0, 1, 2];
    let mut got = BTreeMap::new();
    for number in 0..14 {
        let host = number % 3;
        let id = format!("c{number}");
        let request = format!("/ip/{id}");
        // A real router asks one peer at a time, and waits up to 5 s between.
        let address = wait::until("an address", Duration::from_secs(60), || {
            mesh.call(host, "POST", &request).ok()
        });
        assert!(
            got.insert(address.clone(), (host, id)).is_none(),
            "{address} twice"
        );
    }
    assert_eq!(got.len(), 14);
    let (address, (host, id)) = got.pop_first().unwrap();
    mesh.call(host, "DELETE", &format!("/ip/{id}")).unwrap();
    let wanting = (host + 1) % 3;
    let again = wait::until("the address that is free", Duration::from_secs(90), || {
        mesh.call(wanting, "POST", "/ip/late").ok()
    });
    assert_eq!(again, address);
    all_well(&mut mesh, &hosts);
}
members!(exhaustion, 3);

/// A router that leaves gives its part to the other.
fn hand_over(kinds: &[Kind]) {
    let mut mesh = elected(kinds);
    allocate(&mesh, 0, "zero");
    allocate(&mesh, 1, "one");
    wait_agreed(&mesh, &[0, 1]);
    mesh.call(0, "DELETE", "/peer").unwrap();
    wait::until_true("all is the other's", wait::SOON, || {
        ring(&mesh, 1).values().all(|owner| *owner == peer_name(1))
    });
    mesh.kill(0);
    for number in 0..5 {
        allocate(&mesh, 1, &format!("c{number}"));
    }
    assert!(mesh.is_running(1));
}
members!(hand_over, 2);

/// A router that is lost is removed on the other.
fn removal(kinds: &[Kind]) {
    let mut mesh = elected(kinds);
    allocate(&mesh, 0, "zero");
    allocate(&mesh, 1, "one");
    wait_agreed(&mesh, &[0, 1]);
    mesh.kill(0);
    wait::until_true("its loss is noticed", wait::LATER, || {
        !mesh.is_connected(1, 0)
    });
    match kinds[1] {
        Kind::Weft | Kind::Sleeve => {
            let said = mesh.weft(1, &["rmpeer", "--yes", &nickname(0)]).ok();
            assert!(said.contains("IPs taken over from h1"), "{said}");
        }
        Kind::Weaver => {
            mesh.call(1, "DELETE", &format!("/peer/{}", nickname(0)))
                .unwrap();
        }
    }
    assert!(ring(&mesh, 1).values().all(|owner| *owner == peer_name(1)));
    allocate(&mesh, 1, "more");
    assert!(mesh.is_running(1));
}
members!(removal: ours [Weft Weft], real_removed [Weaver Weft], real_remover [Weft Weaver]);

/// A router that is killed has its addresses again when it is back.
fn restart(kinds: &[Kind]) {
    let mut mesh = elected(kinds);
    let addresses: Vec<String> = (0..2).map(|host| allocate(&mesh, host, "mine")).collect();
    wait_agreed(&mesh, &[0, 1]);
    for host in [0, 1] {
        mesh.kill(host);
        let peer = mesh.address(1 - host);
        let launch = Launch::new().with("--ipalloc-init=consensus=2").peer(peer);
        mesh.launch(host, &launch);
        mesh.wait_routed(&[0, 1]);
        assert_eq!(lookup(&mesh, host, "mine"), addresses[host]);
        let more = allocate(&mesh, host, "more");
        assert!(!addresses.contains(&more));
    }
    wait_agreed(&mesh, &[0, 1]);
    all_well(&mut mesh, &[0, 1]);
}
members!(restart, 2);

/// A mesh of real routers on the range that is theirs by default is joined by ours without any
/// flag: our default range yields.
#[test]
fn a_mesh_on_another_range_is_joined() {
    needs_real!();
    let mut mesh = Mesh::new(&[Kind::Weaver, Kind::Weaver, Kind::Weft]);
    let stock = Launch::new()
        .with("--ipalloc-range=10.32.0.0/12")
        .with("--ipalloc-init=consensus=2");
    mesh.launch(0, &stock);
    mesh.launch(1, &stock.clone().peer(mesh.address(0)));
    mesh.wait_routed(&[0, 1]);
    let first = allocate(&mesh, 0, "first");
    let second = allocate(&mesh, 1, "second");
    mesh.launch(2, &Launch::new().peer(mesh.address(0)));
    mesh.wait_routed(&[0, 1, 2]);
    let ours = allocate(&mesh, 2, "ours");
    assert!(
        ours.ends_with("/12") && ours != first && ours != second,
        "{ours}"
    );
    assert!(mesh.log(2).contains("yields"));
    wait_agreed(&mesh, &[0, 1, 2]);
    all_well(&mut mesh, &[0, 1, 2]);
    // And it stays so when ours is started again.
    mesh.kill(2);
    mesh.launch(2, &Launch::new().peer(mesh.address(0)));
    assert_eq!(lookup(&mesh, 2, "ours"), ours);
}

/// Ours on its default range beside a real mesh of another, after both have given out
/// addresses: explained, and connected all the same.
#[test]
fn a_mismatch_of_ranges_is_explained() {
    needs_real!();
    let mut mesh = Mesh::new(&[Kind::Weaver, Kind::Weft]);
    let stock = Launch::new()
        .with("--ipalloc-range=10.32.0.0/12")
        .with("--ipalloc-init=consensus=1");
    mesh.launch(0, &stock);
    allocate(&mesh, 0, "theirs");
    let given = Launch::new()
        .with("--ipalloc-range=10.9.0.0/16")
        .with("--ipalloc-init=consensus=1");
    mesh.launch(1, &given);
    allocate(&mesh, 1, "ours");
    mesh.weft(1, &["connect", &mesh.address(0).to_string()])
        .ok();
    mesh.wait_routed(&[0, 1]);
    wait::until_true("it is explained", wait::LATER, || {
        mesh.weft(1, &["status", "weft"]).ok().contains("10.32.0.0")
    });
    let lost = |mesh: &Mesh| !mesh.is_connected(0, 1) || !mesh.is_connected(1, 0);
    wait::stays_true("they stay connected", Duration::from_secs(5), || {
        !lost(&mesh)
    });
    allocate(&mesh, 1, "more");
    allocate(&mesh, 0, "more");
}

/// A real router is stopped for good and ours started in its place, on its data base, while a
/// container stays attached: it keeps its address, and others reach it again.
#[test]
fn a_real_router_is_replaced() {
    needs_real!();
    let mut mesh = elected(&[Kind::Weaver, Kind::Weaver]);
    let before = allocate(&mesh, 0, "kept");
    let theirs = allocate(&mesh, 1, "theirs");
    let namespace = mesh.lab.new_container().unwrap();
    let near = Container::attach(&mesh, 0, namespace, before.parse().unwrap());
    let namespace = mesh.lab.new_container().unwrap();
    let far = Container::attach(&mesh, 1, namespace, theirs.parse().unwrap());
    near.must_reach(&far);
    // One that nobody told the router of.
    let namespace = mesh.lab.new_container().unwrap();
    let stray = "10.7.77.7/16".parse().unwrap();
    let stray = Container::attach(&mesh, 0, namespace, stray);
    let rings = wait_agreed(&mesh, &[0, 1]);
    let file = mesh.folder(0).join("weavedata.db");
    let import = format!("--import={}", file.display());
    let launch = Launch::new().with(&import).peer(mesh.address(1));

    let prefix = mesh.folder(0).join("").display().to_string();
    let beside = ["launch", "--db-prefix", &prefix, &import];
    let error = mesh.weft(0, &beside).failed(1);
    println!("beside the old one: {error}");
    mesh.kill(0);
    // A killed process may hold its sockets for a moment.
    wait::until("the old one is gone", wait::SOON, || {
        let bind = || UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 6783)).ok();
        mesh.namespace(0).run(bind).unwrap()
    });
    mesh.replace_by_ours(0);
    mesh.launch(0, &launch);
    mesh.wait_routed(&[0, 1]);
    assert_eq!(lookup(&mesh, 0, "kept"), before);
    assert_eq!(ring(&mesh, 0).keys().next(), rings.keys().next());
    near.must_reach(&far);
    far.must_reach(&stray);
    let mut got = BTreeSet::from([before, theirs, "10.7.77.7/16".to_owned()]);
    for number in 0..20 {
        for host in [0, 1] {
            assert!(got.insert(allocate(&mesh, host, &format!("new-{number}-{host}"))));
        }
    }
    let error = mesh.call(1, "PUT", "/ip/thief/10.7.77.7/16").unwrap_err();
    assert!(error.contains("is owned by other peer"), "{error}");
    wait_agreed(&mesh, &[0, 1]);
    all_well(&mut mesh, &[0, 1]);
}

/// Two of ours that reach each other through a real router alone, which relays what they say of
/// leases: an identity moves all the same.
fn identity_across(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let launch = Launch::new()
        .with("--no-discovery")
        .with("--ipalloc-init=consensus=3");
    mesh.launch_all(&[&[], &[0], &[1]], &launch);
    mesh.wait_routed(&[0, 1, 2]);
    let web = Container::of(&mesh, 0, "web");
    let (address, mac) = (web.address, web.mac);
    // One that talks to it stays where it is.
    let observer = Container::attach_by(&mesh, 2, &[]).unwrap();
    observer.must_reach(&web);
    let known = || {
        mesh.get(2, "/leases")
            .is_some_and(|text| text.contains("\"up\""))
    };
    wait::until_true("the lease is known", wait::LATER, known);
    let error = Container::attach_by(&mesh, 2, &["--identity", "web"]).unwrap_err();
    assert!(error.contains(&nickname(0)), "{error}");
    web.detach(&mesh, 0);
    for host in [2, 0, 2] {
        let start = Instant::now();
        let web = Container::of(&mesh, host, "web");
        let had = start.elapsed();
        assert_eq!((web.address, web.mac), (address, mac));
        assert!(observer.reaches_within(&web, wait::SOON).is_some());
        println!(
            "{kinds:?}: up on host {host} after {had:?}, answers after {:?}",
            start.elapsed()
        );
        assert!(start.elapsed() < Duration::from_secs(2));
        web.detach(&mesh, host);
    }
    all_well(&mut mesh, &[0, 1, 2]);
}
members!(identity_across: ours [Weft Weft Weft], real_between [Weft Weaver Weft]);
