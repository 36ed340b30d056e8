//! One host: what a start needs, what it refuses and how it says so, and what is left in the end.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

use kernel::netlink::{NewBridge, NewVeth, Route, VethPeer};
use lab::host::HostOptions;
use lab::pinger::Pinger;
use netns_tests::{Kind, Launch, Mesh, Ran, needs_root, wait};

/// Returns a launch that must end by itself, with this exit status: what it said.
#[track_caller]
fn refused(mesh: &Mesh, arguments: &[&str], code: i32) -> String {
    let folder = format!("{}/", mesh.folder(0).display());
    let mut all = vec!["launch", "--db-prefix", &folder];
    all.extend(arguments);
    mesh.weft(0, &all).failed(code)
}

#[track_caller]
fn says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn a_second_router_is_refused() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.launch(0, &Launch::new());
    let before = mesh.devices(0);
    // Whatever else it is told.
    for other in [
        &[][..],
        &["--port=6799", "--http-addr=", "--weave-bridge=other"],
    ] {
        let said = refused(&mesh, other, 1);
        says(&said, &["already running", "weft stop"]);
    }
    assert_eq!(mesh.devices(0), before);
    assert!(mesh.get(0, "/status").is_some());
}

/// Two copies at the same moment: one runs.
#[test]
fn of_two_copies_one_runs() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.start(0, &Launch::new());
    let folder = mesh.folder(0).join("other/");
    let second = ["launch", "--db-prefix", &folder.display().to_string()];
    let mut command = Command::new(netns_tests::weft());
    command.args(second).env_clear();
    let mut second = mesh.lab.spawn(0, &mut command).unwrap();
    wait::until_true("one of them ends", wait::SOON, || {
        second.try_wait().unwrap().is_some() == mesh.is_running(0)
    });
    wait::until_true("the other answers", wait::SOON, || {
        mesh.get(0, "/status").is_some()
    });
}

#[test]
fn taken_ports_are_named() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    let before = mesh.devices(0);
    let tcp = |address: &'static str| {
        let bind = || TcpListener::bind(address).unwrap();
        mesh.namespace(0).run(bind).unwrap()
    };
    {
        let _taken = tcp("0.0.0.0:6783");
        says(
            &refused(&mesh, &[], 1),
            &["TCP port 6783", "in use", "--port"],
        );
    }
    {
        let bind = || UdpSocket::bind("0.0.0.0:6783").unwrap();
        let _taken = mesh.namespace(0).run(bind).unwrap();
        says(
            &refused(&mesh, &[], 1),
            &["UDP port 6783", "in use", "--port"],
        );
    }
    for (address, flag) in [
        ("127.0.0.1:6784", "--http-addr"),
        ("127.0.0.1:6782", "--status-addr"),
    ] {
        let _taken = tcp(address);
        says(&refused(&mesh, &[], 1), &[address, flag]);
    }
    // Nothing was made before all of that was known.
    assert_eq!(mesh.devices(0), before);
}

#[test]
fn wrong_flags_are_explained() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    for (arguments, words) in [
        (&["--no-such-flag"][..], &["--no-such-flag"][..]),
        (&["--port=x"], &["--port"]),
        (&["--name=not-a-name"], &["--name"]),
        (&["--mtu=70000"], &["--mtu"]),
        (&["--ipalloc-range=10.7.0.0/33"], &["--ipalloc-range"]),
        (&["--ipalloc-range=10.7.0.0/31"], &["--ipalloc-range"]),
        (
            &["--ipalloc-default-subnet=10.8.0.0/24"],
            &["--ipalloc-default-subnet"],
        ),
        (&["--ipalloc-init=nonsense"], &["--ipalloc-init"]),
        (&["--min-protocol-version=3"], &["--min-protocol-version"]),
        (&["--resume", "10.0.0.1"], &["--resume"]),
        (&["--log-level=loud"], &["--log-level"]),
        (&["--log-format=xml"], &["--log-format"]),
        (&["--no-offload=everything"], &["--no-offload"]),
        (&["--trusted-subnets=10.0.0.0"], &["--trusted-subnets"]),
        (&["--password-file=/nonexistent/file"], &["--password-file"]),
        (&["--http-addr=nowhere"], &["--http-addr"]),
        (
            &["--weave-bridge=a-name-that-is-far-too-long"],
            &["--weave-bridge"],
        ),
        (&["--host=not an address"], &["--host"]),
    ] {
        says(&refused(&mesh, arguments, 2), words);
    }
    // All that is wrong is said at once.
    let said = refused(&mesh, &["--name=x", "--mtu=70000", "--no-offload=y"], 2);
    says(&said, &["--name", "--mtu", "--no-offload"]);
}

#[test]
fn a_range_in_use_is_refused() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let netlink = mesh.namespace(0).netlink().unwrap();
    let route = Route::through(
        "10.7.128.0/17".parse().unwrap(),
        Ipv4Addr::new(172, 30, 255, 254).into(),
    );
    netlink.add_route(&route).unwrap();
    let said = refused(&mesh, &[], 1);
    says(&said, &["10.7.0.0/16", "10.7.128.0/17", "--ipalloc-range"]);
    // Given on purpose, it is only warned of.
    mesh.launch(0, &Launch::new().with("--ipalloc-range=10.7.0.0/16"));
    says(&mesh.log(0), &["WARN", "10.7.128.0/17"]);
}

#[test]
fn without_root_it_says_so() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    // The program itself may be in a folder that only root can read.
    let program = mesh.folder(0).join("weft");
    std::fs::copy(netns_tests::weft(), &program).unwrap();
    for arguments in [&["launch", "--db-prefix", "/tmp/"][..], &["demo"]] {
        let mut command = Command::new(&program);
        command.args(arguments).env_clear().uid(65534).gid(65534);
        let said = mesh.run(0, &mut command).failed(1);
        says(&said, &["root"]);
    }
}

/// Runs our program where a file system of a host looks different, by the program `unshare`.
/// None where that is not installed.
fn launch_after(mesh: &Mesh, mounts: &str, arguments: &[&str]) -> Option<Ran> {
    if Command::new("unshare").arg("--version").output().is_err() {
        testbed::skips::skip(
            std::thread::current().name().unwrap_or_default(),
            "the program unshare",
        );
        return None;
    }
    let script = format!("{mounts} && exec \"$0\" \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &script]);
    command
        .arg(netns_tests::weft())
        .arg("launch")
        .args(arguments);
    Some(mesh.run(0, &mut command))
}

#[test]
fn without_a_tun_device_it_says_so() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    let folder = format!("{}/", mesh.folder(0).display());
    let arguments = ["--db-prefix", &folder];
    let Some(ran) = launch_after(&mesh, "mount -t tmpfs none /dev/net", &arguments) else {
        return;
    };
    says(&ran.failed(1), &["/dev/net/tun", "modprobe tun"]);
}

#[test]
fn disks_that_take_nothing_are_named() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    let folder = mesh.folder(0).join("db");
    std::fs::create_dir_all(&folder).unwrap();
    let folder = folder.display().to_string();
    let prefix = format!("{folder}/");
    for mount in ["-o ro", "-o size=4k"] {
        let mount = format!("mount -t tmpfs {mount} none {folder}");
        let Some(ran) = launch_after(&mesh, &mount, &["--db-prefix", &prefix]) else {
            return;
        };
        says(&ran.failed(1), &[&prefix, "--db-prefix"]);
    }
    // Nothing was made for a router that cannot run.
    assert!(!mesh.devices(0).contains(&"weave".to_owned()));
}

#[test]
fn the_password_may_be_in_a_file() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let file = mesh.folder(1).join("password");
    std::fs::write(&file, "a secret\n").unwrap();
    mesh.launch(0, &Launch::new().password("a secret"));
    let flag = format!("--password-file={}", file.display());
    mesh.launch(1, &Launch::new().with(&flag).peer(mesh.address(0)));
    mesh.wait_connected(0, 1);
    assert!(mesh.connection(0, 1).unwrap().encrypted);
}

#[test]
fn flags_of_dead_services_are_accepted() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let launch = Launch::new()
        .with("--no-fastdp")
        .with("--bufsz=8")
        .with("--token=x")
        .with("--proxy");
    mesh.launch(0, &launch);
    let log = mesh.log(0);
    let warnings: Vec<&str> = log
        .lines()
        .filter(|line| line.starts_with("WARN"))
        .collect();
    let [warning] = warnings[..] else {
        panic!("{warnings:?}");
    };
    says(warning, &["--bufsz", "--token", "--proxy"]);
}

/// Removes all that was made and nothing else; twice, and also while the router runs.
#[test]
fn reset_removes_what_is_ours() {
    needs_root!();
    for running in [false, true] {
        let mut mesh = Mesh::new(&[Kind::Weft]);
        let netlink = mesh.namespace(0).netlink().unwrap();
        netlink
            .create_bridge(&NewBridge {
                name: "theirs",
                mac: None,
            })
            .unwrap();
        netlink
            .create_veth(&NewVeth {
                name: "vethwepl-theirs",
                index: None,
                mtu: 1500,
                master: None,
                peer: VethPeer {
                    name: "other",
                    index: None,
                    mac: None,
                    namespace: None,
                },
            })
            .unwrap();
        let mut before = mesh.devices(0);
        mesh.launch(0, &Launch::new());
        let [a, b] = [mesh.attach(0), mesh.attach(0)];
        a.must_reach(&b);
        mesh.weft(0, &["expose", "10.99.255.1/16"]).ok();
        if !running {
            mesh.kill(0);
        }
        let prefix = format!("{}/", mesh.folder(0).display());
        let reset = || mesh.weft(0, &["reset", "--db-prefix", &prefix]).ok();
        let said = reset();
        says(
            &said,
            &["removed device weave", "removed device weft-weave"],
        );
        if running {
            assert_eq!(mesh.wait_for_end(0).code(), Some(0));
        }
        let mesh = &mesh;
        let mut after = mesh.devices(0);
        before.sort();
        after.sort();
        assert_eq!(after, before);
        assert!(!mesh.folder(0).join("weft.db").exists());
        let inside = a.namespace.netlink().unwrap().links().unwrap();
        assert_eq!(inside.len(), 1, "{inside:?}");

        let again = mesh.weft(0, &["reset", "--db-prefix", &prefix]).ok();
        assert!(!again.contains("removed"), "{again}");
    }
}

/// A second container host address: the host itself and what is behind it.
#[test]
fn expose_lets_the_host_and_the_world_in() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let outside = mesh.lab.add_host(HostOptions::default()).unwrap();
    let outside = mesh.lab.hosts()[outside].address;
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [near, far] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    near.must_reach(&far);
    let answers = |from: &kernel::netns::Namespace, to: Ipv4Addr, time: u64| {
        let deadline = std::time::Instant::now() + Duration::from_millis(time);
        let mut pinger = Pinger::new(from).unwrap();
        let interval = Duration::from_millis(100);
        pinger.wait_for(to, interval, deadline).unwrap().is_some()
    };
    let host = mesh.namespace(0).clone();
    assert!(
        !answers(&host, far.address, 300),
        "the host has no address yet"
    );

    assert_eq!(
        mesh.weft(0, &["expose", "10.99.255.1/16"]).ok(),
        "10.99.255.1\n"
    );
    assert!(answers(&host, near.address, 10_000));
    assert!(answers(&host, far.address, 10_000));
    // Containers anywhere get out by the exposed address, under that of the host.
    for container in [&near, &far] {
        let gateway = Ipv4Addr::new(10, 99, 255, 1).into();
        let route = Route::through("0.0.0.0/0".parse().unwrap(), gateway);
        container
            .namespace
            .netlink()
            .unwrap()
            .add_route(&route)
            .unwrap();
        assert!(answers(&container.namespace, outside, 10_000));
    }
    let shown = mesh.weft(0, &["ps", "weave:expose"]).ok();
    says(&shown, &["weave:expose", "10.99.255.1/16"]);

    // It stays over a restart.
    mesh.kill(0);
    mesh.launch(0, &Launch::new());
    assert!(answers(&near.namespace, outside, 10_000));

    mesh.weft(0, &["expose", "--without-masquerade", "10.99.255.1/16"])
        .ok();
    assert!(answers(&host, near.address, 10_000));
    assert!(!answers(&near.namespace, outside, 500));

    assert_eq!(mesh.weft(0, &["hide"]).ok(), "10.99.255.1\n");
    assert!(!answers(&host, near.address, 300));
    assert_eq!(mesh.weft(0, &["hide"]).ok(), "\n");
}

/// Attaching twice adds, detaching takes away, and nobody else is touched.
#[test]
fn attach_and_detach() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let [a, b] = [mesh.attach(0), mesh.attach(1)];
    mesh.wait_routed(&[0, 1]);
    let path = a.namespace.path().display().to_string();
    let second = "10.99.77.7/16";
    assert_eq!(
        mesh.weft(0, &["attach", second, &path]).ok(),
        "10.99.77.7\n"
    );
    a.must_reach(&b);
    b.must_reach(&a.with_address(Ipv4Addr::new(10, 99, 77, 7)));
    // Again is no error.
    mesh.weft(0, &["attach", second, &path]).ok();

    assert_eq!(
        mesh.weft(0, &["detach", second, &path]).ok(),
        "10.99.77.7\n"
    );
    a.must_reach(&b);
    mesh.weft(0, &["detach", &path]).ok();
    assert!(!b.ping(&a, 84, true));
    assert_eq!(a.namespace.netlink().unwrap().links().unwrap().len(), 1);
    // Once more there is nothing to detach, which is told.
    mesh.weft(0, &["detach", &path]).failed(4);

    // A container that ends takes its interface along.
    let before = mesh.devices(0);
    let c = mesh.attach(0);
    assert_eq!(mesh.devices(0).len(), before.len() + 1);
    drop(c);
    wait::until_true("the interface goes", wait::SOON, || {
        mesh.devices(0) == before
    });

    let missing = mesh
        .weft(0, &["attach", "10.99.1.9/16", "no-such-name"])
        .failed(4);
    says(&missing, &["no-such-name"]);
    let host = mesh
        .weft(0, &["attach", "10.99.1.9/16", "/proc/self/ns/net"])
        .failed(1);
    says(&host, &["host"]);
}
