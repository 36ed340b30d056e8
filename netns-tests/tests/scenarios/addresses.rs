//! Addresses that stick to identities, and that nothing loses.

use std::collections::BTreeSet;
use std::io::Write;
use std::net::Ipv4Addr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use netns_tests::{Container, Kind, Launch, Mesh, needs_root, nickname, peer_name, wait};
use serde_json::Value;

/// So many of our routers, all connected to the first.
fn mesh(count: usize) -> Mesh {
    let mut mesh = Mesh::new(&vec![Kind::Weft; count]);
    let others: &[usize] = &[0];
    let peers: Vec<&[usize]> = (0..count)
        .map(|host| if host == 0 { &[] } else { others })
        .collect();
    let launch = Launch::new().with(&format!("--ipalloc-init=consensus={count}"));
    mesh.launch_all(&peers, &launch);
    let hosts: Vec<usize> = (0..count).collect();
    mesh.wait_routed(&hosts);
    mesh
}

fn leases(mesh: &Mesh, host: usize) -> Vec<Value> {
    let text = mesh.weft(host, &["lease", "ls", "--json"]).ok();
    let value: Value = serde_json::from_str(&text).unwrap();
    value.as_array().unwrap().clone()
}

/// Removed on one host, started on another: the same address and MAC, and an answer within two
/// seconds to a third container that has talked to it before.
#[test]
fn an_identity_keeps_its_address_on_any_host() {
    needs_root!();
    let mesh = mesh(3);
    let observer = Container::attach_by(&mesh, 2, &[]).unwrap();
    let web = Container::of(&mesh, 0, "web");
    let (address, mac) = (web.address, web.mac);
    assert_ne!(address, observer.address);
    observer.must_reach(&web);
    web.detach(&mesh, 0);
    for host in [1, 0, 1, 2, 0] {
        let start = Instant::now();
        let web = Container::of(&mesh, host, "web");
        let had = start.elapsed();
        assert_eq!((web.address, web.mac), (address, mac));
        let answer = observer.reaches_within(&web, wait::SOON);
        let time = start.elapsed();
        assert!(answer.is_some(), "{address} does not answer on host {host}");
        println!("up on host {host} again after {had:?}, answers after {time:?}");
        assert!(time < Duration::from_secs(2), "{time:?}");
        assert_eq!(mesh.log(host).matches("ERROR").count(), 0);
        web.detach(&mesh, host);
    }
}

#[test]
fn an_identity_that_is_up_elsewhere_is_refused() {
    needs_root!();
    let mesh = mesh(2);
    let web = Container::of(&mesh, 0, "web");
    let lease = |host: usize| leases(&mesh, host).into_iter().next();
    wait::until("the lease is known", wait::SOON, || lease(1));
    let error = Container::attach_by(&mesh, 1, &["--identity", "web"]).unwrap_err();
    for part in ["web", &web.address.to_string(), &nickname(0)] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    assert_eq!(lease(1).unwrap()["state"], "up");
    let address = web.address;
    web.detach(&mesh, 0);
    assert_eq!(Container::of(&mesh, 1, "web").address, address);
}

/// The holder is down: an error at the deadline that names it; when it is back, all is well.
#[test]
fn a_holder_out_of_reach_is_named() {
    needs_root!();
    let mut mesh = mesh(2);
    let web = Container::of(&mesh, 0, "web");
    let address = web.address;
    web.detach(&mesh, 0);
    wait::until("the lease is known", wait::SOON, || {
        leases(&mesh, 1).into_iter().next()
    });
    mesh.kill(0);
    let start = Instant::now();
    let arguments = ["--identity", "web", "--timeout", "4s"];
    let error = Container::attach_by(&mesh, 1, &arguments).unwrap_err();
    let time = start.elapsed();
    println!("{error}");
    assert!(time > Duration::from_millis(3900) && time < Duration::from_secs(7));
    for part in ["web", &address.to_string(), &nickname(0), "rmpeer"] {
        assert!(error.contains(part), "{part} is not in: {error}");
    }
    mesh.launch(0, &Launch::new());
    mesh.wait_routed(&[0, 1]);
    assert_eq!(Container::of(&mesh, 1, "web").address, address);
}

/// Whatever was answered is there after a crash, and nothing of it is given out again.
#[test]
fn a_crash_loses_nothing() {
    needs_root!();
    let mut mesh = mesh(2);
    let again = Launch::new().peer(mesh.address(1));
    let mut all = BTreeSet::new();
    for round in 0..4 {
        let mut answered = Vec::new();
        for number in 0..10 {
            let id = format!("c{round}-{number}");
            let query = if number % 2 == 0 {
                format!("?identity={id}")
            } else {
                String::new()
            };
            let address = mesh.call(0, "POST", &format!("/ip/{id}{query}")).unwrap();
            assert!(all.insert(address.clone()), "{address} twice");
            answered.push((id, address));
        }
        let container = Container::of(&mesh, 0, &format!("real-{round}"));
        mesh.kill(0);
        mesh.launch(0, &again);
        for (id, address) in answered {
            let now = mesh.call(0, "GET", &format!("/ip/{id}")).unwrap();
            assert_eq!(now.trim(), address);
        }
        all.insert(format!("{}/16", container.address));
        container.detach(&mesh, 0);
        let web = Container::of(&mesh, 0, &format!("real-{round}"));
        assert!(all.contains(&format!("{}/16", web.address)));
    }
    let other = mesh.call(1, "POST", "/ip/other").unwrap();
    assert!(!all.contains(&other));
}

/// A container whose namespace went away was never detached.
#[test]
fn a_container_that_died_is_not_up_any_more() {
    needs_root!();
    let mesh = mesh(2);
    let web = Container::of(&mesh, 0, "web");
    let address = web.address;
    let is_up = || {
        leases(&mesh, 0)
            .first()
            .is_some_and(|lease| lease["state"] == "up")
    };
    wait::stays_true("it is up", Duration::from_secs(2), is_up);
    let ports = mesh.devices(0).len();
    drop(web);
    let start = Instant::now();
    wait::until_true("its interface is gone", wait::SOON, || {
        mesh.devices(0).len() < ports
    });
    let again = wait::until("the identity is free", wait::SOON, || {
        Container::attach_by(&mesh, 1, &["--identity", "web"]).ok()
    });
    println!("after {:?}", start.elapsed());
    assert_eq!(again.address, address);
}

/// A file system that is full: an error that says so, nothing answered that is not saved, and
/// all well when there is room again.
#[test]
fn a_full_disk_is_told() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let folder = mesh.folder(0).to_owned();
    let _mounted = Small::mount(&folder);
    mesh.launch(0, &Launch::new());
    let first = mesh.call(0, "POST", "/ip/first").unwrap();
    let filler = folder.join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[7; 4096]).is_ok() {}
    drop(file);
    let mut answered = vec![("first".to_owned(), first)];
    let error = (0..500).find_map(|number| {
        let id = format!("c{number}");
        match mesh.call(0, "POST", &format!("/ip/{id}?timeout=5s")) {
            Ok(address) => {
                answered.push((id, address));
                None
            }
            Err(error) => Some(error),
        }
    });
    let error = error.expect("a full disk is noticed");
    println!("after {} answers: {error}", answered.len());
    assert!(error.contains("No space left on device"), "{error}");
    let status = mesh.weft(0, &["status", "weft"]).ok();
    assert!(status.contains("No space left on device"), "{status}");
    std::fs::remove_file(&filler).unwrap();
    wait::until("there is room again", wait::SOON, || {
        mesh.call(0, "POST", "/ip/late?timeout=5s").ok()
    });
    mesh.kill(0);
    mesh.launch(0, &Launch::new());
    for (id, address) in answered {
        let now = mesh.call(0, "GET", &format!("/ip/{id}")).unwrap();
        assert_eq!(now.trim(), address);
    }
}

/// On a file system that has become read-only a router does not start, and says why; nothing that
/// it had is lost.
#[test]
fn a_read_only_disk_is_told_of() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let folder = mesh.folder(0).join("disk");
    let mounted = Small::mount(&folder);
    mesh.launch(0, &Launch::new());
    let address = mesh.call(0, "POST", "/ip/first").unwrap();
    mesh.kill(0);
    let stored = mesh.folder(0).join("weft.db");
    std::fs::copy(&stored, folder.join("weft.db")).unwrap();
    let prefix = format!("--db-prefix={}/", folder.display());
    let launch = ["launch", "--docker-api=", "--no-dns", &prefix];
    mounted.remount("ro");
    let before = mesh.devices(0);
    let told = mesh.weft(0, &launch).failed(1);
    assert!(told.contains("Read-only file system"), "{told}");
    assert!(told.contains("--db-prefix"), "{told}");
    assert_eq!(mesh.devices(0), before);
    mounted.remount("rw");
    std::fs::copy(folder.join("weft.db"), &stored).unwrap();
    mesh.launch(0, &Launch::new());
    assert_eq!(mesh.call(0, "GET", "/ip/first").unwrap(), address);
}

/// A small file system.
struct Small(std::path::PathBuf);

impl Small {
    fn mount(folder: &std::path::Path) -> Small {
        std::fs::create_dir_all(folder).unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"]);
        assert!(mount.arg(folder).status().unwrap().success());
        Small(folder.to_owned())
    }

    fn remount(&self, how: &str) {
        let mut mount = Command::new("mount");
        mount.args(["-o", &format!("remount,{how}")]);
        assert!(mount.arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Lazily, as the router may still have its store open.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// A host that is reset hands everything over, leases included.
#[test]
fn reset_hands_over() {
    needs_root!();
    let mut mesh = mesh(2);
    let web = Container::of(&mesh, 0, "web");
    let (address, mac) = (web.address, web.mac);
    web.detach(&mesh, 0);
    let prefix = mesh.folder(0).join("").display().to_string();
    let said = mesh.weft(0, &["reset", "--db-prefix", &prefix]).ok();
    assert!(said.contains("gave the addresses"), "{said}");
    assert!(mesh.wait_for_end(0).success());
    wait::until_true("all is the other's", wait::SOON, || {
        let page = mesh.weft(1, &["status", "ipam"]).ok();
        page.contains("65536 IPs (100.0% of total)")
    });
    let again = Container::of(&mesh, 1, "web");
    assert_eq!((again.address, again.mac), (address, mac));
}

/// A host that never comes back is removed, once somebody has confirmed that.
#[test]
fn a_lost_host_is_removed() {
    needs_root!();
    let mut mesh = mesh(2);
    let web = Container::of(&mesh, 0, "web");
    let address = web.address;
    wait::until("the lease is known", wait::SOON, || {
        leases(&mesh, 1).into_iter().next()
    });
    let error = mesh.weft(1, &["rmpeer", "--yes", &nickname(0)]).failed(1);
    assert!(error.contains(&peer_name(0)), "it lives: {error}");
    mesh.kill(0);
    wait::until_true("its loss is noticed", wait::SOON, || {
        !mesh.is_connected(1, 0)
    });
    let error = mesh.weft(1, &["rmpeer", &nickname(0)]).failed(1);
    assert!(error.contains("--yes"), "{error}");
    let start = Instant::now();
    let removed = mesh.weft(1, &["rmpeer", "--yes", &nickname(0)]);
    println!("{:?}: {removed:?}", start.elapsed());
    assert_eq!(removed.ok(), "32768 IPs taken over from h1\n");
    assert_eq!(Container::of(&mesh, 1, "web").address, address);
}

#[test]
fn lease_commands() {
    needs_root!();
    let mesh = mesh(2);
    let reserved = mesh.weft(0, &["lease", "reserve", "web"]).ok();
    let address: Ipv4Addr = reserved.trim().split('/').next().unwrap().parse().unwrap();
    let certain = ["lease", "reserve", "db", "--address", "10.7.0.53", "--pin"];
    assert_eq!(mesh.weft(0, &certain).ok(), "10.7.0.53/16\n");
    wait::until_true("both are known", wait::SOON, || leases(&mesh, 1).len() == 2);
    let list = mesh.weft(1, &["lease", "ls"]).ok();
    for word in ["web", "db", "10.7.0.53", "explicit", "unused", "pinned"] {
        assert!(list.contains(word), "{word} is not in:\n{list}");
    }
    let shown = mesh.weft(1, &["lease", "show", "db"]).ok();
    assert!(shown.contains("10.7.0.53") && !shown.contains("web"));
    assert!(
        mesh.weft(1, &["lease", "show", "x"])
            .failed(4)
            .contains("no lease for x")
    );

    let web = Container::of(&mesh, 1, "web");
    assert_eq!(web.address, address);
    let pinned = |name: &str| {
        let all = leases(&mesh, 1);
        let lease = all.iter().find(|lease| lease["identity"] == name);
        lease.unwrap()["pinned"] == true
    };
    mesh.weft(0, &["lease", "pin", "web"]).ok();
    wait::until_true("it is pinned", wait::SOON, || pinned("web"));
    mesh.weft(0, &["lease", "unpin", "web"]).ok();
    wait::until_true("it is not pinned", wait::SOON, || !pinned("web"));
    let error = mesh.weft(0, &["lease", "release", "web"]).failed(1);
    assert!(error.contains("web"), "it is up: {error}");

    let export = mesh.weft(0, &["lease", "export"]).ok();
    mesh.weft(0, &["lease", "release", "db"]).ok();
    wait::until_true("it is gone", wait::SOON, || leases(&mesh, 1).len() == 1);
    let said = import(&mesh, 0, &export);
    assert!(said.contains("2 leases reserved"), "{said}");
    wait::until_true("it is back", wait::SOON, || leases(&mesh, 1).len() == 2);
    assert!(pinned("db"));
    assert_eq!(
        Container::of(&mesh, 1, "db").address,
        Ipv4Addr::new(10, 7, 0, 53)
    );
}

fn import(mesh: &Mesh, host: usize, text: &str) -> String {
    let mut command = Command::new(netns_tests::weft());
    command.args(["lease", "import"]).env_clear();
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = mesh.namespace(host).spawn(&mut command).unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(text.as_bytes()).unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    String::from_utf8(output.stdout).unwrap()
}

/// Without an address, each container gets one of its own, on all hosts, also in a named subnet.
#[test]
fn addresses_are_chosen() {
    needs_root!();
    let mesh = mesh(3);
    let containers: Vec<Container> = (0..3)
        .flat_map(|host| [(host, None), (host, Some("net:10.7.5.0/24"))])
        .map(|(host, subnet)| {
            let arguments: Vec<&str> = subnet.into_iter().collect();
            let container = Container::attach_by(&mesh, host, &arguments).unwrap();
            let octets = container.address.octets();
            assert!(octets.starts_with(&[10, 7]));
            assert!(subnet.is_none() || octets[2] == 5);
            container
        })
        .collect();
    let unique: BTreeSet<Ipv4Addr> = containers.iter().map(|c| c.address).collect();
    assert_eq!(unique.len(), containers.len());
    containers[0].must_reach(&containers[2]);
    containers[2].must_reach(&containers[4]);
    containers[1].must_reach(&containers[5]);
}

/// An address that is asked for with an identity makes it the identity's.
#[test]
fn an_identity_gets_the_address_that_it_is_given() {
    needs_root!();
    let mesh = mesh(2);
    let given = ["--identity", "db", "10.7.0.53/16"];
    let db = Container::attach_by(&mesh, 0, &given).unwrap();
    let mac = db.mac;
    db.detach(&mesh, 0);
    let again = Container::of(&mesh, 1, "db");
    assert_eq!(
        (again.address, again.mac),
        (Ipv4Addr::new(10, 7, 0, 53), mac)
    );
}

/// The address of an identity that is not up is another container's only by force.
#[test]
fn a_kept_address_is_taken_by_force() {
    needs_root!();
    let mesh = mesh(2);
    assert_eq!(
        mesh.weft(0, &["lease", "reserve", "db", "--address", "10.7.0.53"])
            .ok(),
        "10.7.0.53/16\n"
    );
    wait::until_true("the lease is known", wait::SOON, || {
        leases(&mesh, 1).len() == 1
    });
    let error = Container::attach_by(&mesh, 1, &["10.7.0.53/16"]).unwrap_err();
    assert!(error.contains("db"), "{error}");
    let taken = Container::attach_by(&mesh, 1, &["--force", "10.7.0.53/16"]).unwrap();
    assert_eq!(taken.address, Ipv4Addr::new(10, 7, 0, 53));
    assert_ne!(Container::of(&mesh, 0, "db").address, taken.address);
}

/// A start that does not fit what is stored is explained, and nothing is wiped.
#[test]
fn a_start_that_does_not_fit_is_explained() {
    needs_root!();
    let mut mesh = mesh(1);
    let had = mesh.call(0, "POST", "/ip/mine").unwrap();
    mesh.kill(0);
    let other_range = Launch::new().with("--ipalloc-range=10.9.0.0/16");
    let other_name = Launch::new().name("02:00:00:00:99:01");
    for (launch, part) in [
        (
            other_range,
            "are from 10.7.0.0/16, but the range given is 10.9.0.0/16",
        ),
        (other_name, "belong to peer 02:00:00:00:00:01"),
    ] {
        mesh.start(0, &launch);
        assert!(!mesh.wait_for_end(0).success());
        let log = mesh.log(0);
        assert!(log.contains(part), "{part:?} is not in {log}");
        mesh.kill(0);
    }
    mesh.launch(0, &Launch::new());
    assert_eq!(mesh.call(0, "GET", "/ip/mine").unwrap().trim(), had);
}

/// A store that cannot be read is put aside. What is attached is claimed all the same, and
/// nothing that others have is given out.
#[test]
fn a_lost_store_gives_nothing_away() {
    needs_root!();
    let mut mesh = mesh(2);
    let mine = Container::attach_by(&mesh, 0, &[]).unwrap();
    let granted = mesh.call(1, "PUT", "/ip/claimed/10.7.0.77/16");
    assert_eq!(granted.as_deref(), Ok(""));
    mesh.kill(0);
    let store = mesh.folder(0).join("weft.db");
    std::fs::write(&store, [7; 5000]).unwrap();
    mesh.launch(0, &Launch::new().peer(mesh.address(1)));
    let files = std::fs::read_dir(mesh.folder(0)).unwrap().flatten();
    let mut names = files.map(|file| file.file_name().to_string_lossy().into_owned());
    assert!(names.any(|name| name.starts_with("weft.db.damaged-")));
    assert!(mesh.log(0).contains("was damaged"));
    mesh.wait_routed(&[0, 1]);
    let listed = mesh.call(0, "GET", "/ip").unwrap();
    assert!(listed.contains(&mine.address.to_string()), "{listed}");
    for number in 0..20 {
        let new = mesh.call(0, "POST", &format!("/ip/new-{number}")).unwrap();
        assert!(!new.starts_with(&format!("{}/", mine.address)), "{new}");
        assert_ne!(new, "10.7.0.77/16");
    }
    let error = mesh
        .call(1, "PUT", &format!("/ip/thief/{}/16", mine.address))
        .unwrap_err();
    assert!(error.contains("is owned by other peer"), "{error}");
}
