//! Names of what is attached.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use dns::client::Way;
use host::attach::{self, AttachRequest};
use kernel::netns::Namespace;
use netns_tests::names::{addresses, ask_at};
use netns_tests::{Kind, Launch, Mesh, needs_root, wait};
use proto::names::message::rtype;

use super::{Process, add, ip, set, wait_for_name};

/// Attaching names a container and has it ask the router; what moves is found where it is, and
/// what ends is not found any more.
#[test]
fn of_containers() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 3]);
    mesh.launch_all(&[&[], &[0], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1, 2]);
    let all = [0, 1, 2];
    let exposed = ip(0, 250);
    assert_eq!(
        mesh.weft(0, &["expose", "10.99.1.250/16"]).ok(),
        format!("{exposed}\n")
    );

    let web = Process::start(&mesh, 0, "web");
    let before = web.resolv_conf();
    let attach = ["attach", "--name", "www.prod", "10.99.1.1/16", &web.pid()];
    let said = mesh.weft(0, &attach);
    assert_eq!(
        (said.stderr.as_str(), said.stdout.as_str()),
        ("", "10.99.1.1\n")
    );
    let time = wait_for_name(&mesh, &all, "web", &[ip(0, 1)]);
    println!("an attached container is known everywhere after {time:?}");
    wait_for_name(&mesh, &all, "www.prod.weave.local", &[ip(0, 1)]);

    // On a host without an address in its reach, a container is named all the same.
    let db = Process::start(&mesh, 1, "db.example.com");
    let said = mesh.weft(1, &["attach", "10.99.2.1/16", &db.pid()]);
    assert!(said.stderr.contains("weft expose"), "{said:?}");
    assert_eq!(said.ok(), "10.99.2.1\n");
    wait_for_name(&mesh, &all, "db", &[ip(1, 1)]);
    assert!(db.resolv_conf().starts_with("nameserver 192.0.2.1"));

    let conf = web.resolv_conf();
    assert!(
        conf.contains("\nnameserver 10.99.1.250\nsearch weave.local example.com\n"),
        "{conf}"
    );
    let found = web.look_up(&mesh, 0, "db");
    assert!(found.contains("10.99.2.1"), "{found:?}");
    let reply = ask_at(
        &web.namespace,
        (exposed, 53).into(),
        "db",
        rtype::A,
        Way::Any,
    );
    assert_eq!(reply.unwrap().addresses, [IpAddr::from(ip(1, 1))]);

    // Detached, it is nobody, and asks whom it asked before.
    mesh.weft(0, &["detach", &web.pid()]).ok();
    wait_for_name(&mesh, &all, "web", &[]);
    wait_for_name(&mesh, &all, "www.prod.weave.local", &[]);
    assert_eq!(web.resolv_conf(), before);

    // The same name on another host.
    let moved = Process::start(&mesh, 2, "web");
    mesh.weft(
        2,
        &[
            "attach",
            "--no-dns",
            "--name",
            "web",
            "10.99.3.1/16",
            &moved.pid(),
        ],
    )
    .ok();
    let time = wait_for_name(&mesh, &all, "web", &[ip(2, 1)]);
    println!("a moved container is known everywhere after {time:?}");
    assert!(moved.resolv_conf().starts_with("nameserver 192.0.2.1"));

    // It ends without a word.
    let Process {
        mut process,
        namespace,
    } = moved;
    process.kill().unwrap();
    process.wait().unwrap();
    drop((process, namespace));
    let time = wait_for_name(&mesh, &all, "web", &[]);
    println!("a container that ended is known nowhere after {time:?}");

    // A reset leaves no container asking a router that is gone.
    mesh.weft(0, &attach).ok();
    assert_ne!(web.resolv_conf(), before);
    mesh.weft(
        0,
        &[
            "reset",
            "--db-prefix",
            &format!("{}/", mesh.folder(0).display()),
        ],
    )
    .ok();
    assert_eq!(web.resolv_conf(), before);
}

/// Namespaces with names, as 'ip netns' makes them.
#[test]
fn of_named_namespaces() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.launch(0, &Launch::new());
    mesh.weft(0, &["expose", "10.99.1.250/16"]).ok();
    let name = format!("weft-test-{}", std::process::id());
    let conf = format!("/etc/netns/{name}/resolv.conf");
    struct Removed<'n>(&'n str);
    impl Drop for Removed<'_> {
        fn drop(&mut self) {
            Namespace::remove(self.0).unwrap();
        }
    }
    let removed = Removed(&name);
    drop(Namespace::create(&name).unwrap());
    mesh.weft(0, &["attach", "10.99.1.1/16", &name]).ok();
    wait_for_name(&mesh, &[0], &name, &[ip(0, 1)]);
    let text = std::fs::read_to_string(&conf).unwrap();
    assert!(text.contains("nameserver 10.99.1.250\n"), "{text}");
    mesh.weft(0, &["detach", &name]).ok();
    wait_for_name(&mesh, &[0], &name, &[]);
    assert!(!std::path::Path::new(&conf).exists());

    mesh.weft(0, &["attach", "10.99.1.1/16", &name]).ok();
    wait_for_name(&mesh, &[0], &name, &[ip(0, 1)]);
    drop(removed);
    wait_for_name(&mesh, &[0], &name, &[]);
    wait::until_true("its file is removed", wait::SOON, || {
        !std::path::Path::new(&conf).exists()
    });
}

/// Names end with the interface of their container, by whatever id that goes.
#[test]
fn of_containers_with_ids() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.launch(0, &Launch::new());
    let container = mesh.lab.new_container().unwrap();
    let request = AttachRequest {
        owner: Some("c0ffee"),
        ..AttachRequest::new("weave", &container)
    };
    let attached = mesh.namespace(0).run(|| attach::attach(&request));
    attached.unwrap().unwrap();
    add(&mesh, 0, "c0ffee", ip(0, 1), "web");
    // One that is registered before its container is attached has nothing to end with.
    add(&mesh, 0, "decaf", ip(0, 2), "db");
    wait_for_name(&mesh, &[0], "web", &[ip(0, 1)]);
    // The router has seen it, or it could not miss it.
    std::thread::sleep(Duration::from_secs(1));
    drop(container);
    wait_for_name(&mesh, &[0], "web", &[]);
    assert_eq!(addresses(mesh.namespace(0), "db"), Some(set(&[ip(0, 2)])));
}

/// An identity is found by its name wherever it runs.
#[test]
fn of_leases() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1]);
    let attach = |mesh: &Mesh, host: usize, container: &Namespace| -> Ipv4Addr {
        let path = container.path().display().to_string();
        let said = mesh
            .weft(host, &["attach", "--identity", "db-0", &path])
            .ok();
        said.trim().parse().unwrap()
    };
    let detach = |mesh: &Mesh, host: usize, container: &Namespace| {
        let path = container.path().display().to_string();
        mesh.weft(host, &["detach", &path]).ok();
    };
    for host in [0, 1] {
        let container = mesh.lab.new_container().unwrap();
        let address = attach(&mesh, host, &container);
        wait_for_name(&mesh, &[0, 1], "db-0.lease.weave.local", &[address]);
        detach(&mesh, host, &container);
        wait_for_name(&mesh, &[0, 1], "db-0.lease.weave.local", &[]);
    }
}
