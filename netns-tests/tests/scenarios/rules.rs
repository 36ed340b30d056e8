//! The rules of a router's host, beside those of others.

use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use kernel::netlink::Route;
use kernel::netns::Namespace;
use lab::pinger::Pinger;
use netns_tests::{Kind, Launch, Mesh, needs_root, wait};

/// Runs a tool of the system on a host. None, loudly, where it is not installed.
fn tool(mesh: &Mesh, host: usize, line: &str) -> Option<String> {
    let words: Vec<&str> = line.split(' ').collect();
    let known = Command::new(words[0]).arg("--version").output();
    if let Err(error) = known {
        let test = std::thread::current().name().unwrap_or("test").to_owned();
        testbed::skips::skip(&test, &format!("the program {} ({error})", words[0]));
        return None;
    }
    let mut command = Command::new(words[0]);
    command.args(&words[1..]);
    Some(mesh.run(host, &mut command).ok())
}

fn answers(from: &Namespace, to: Ipv4Addr, time: Duration) -> bool {
    let mut pinger = Pinger::new(from).unwrap();
    let interval = Duration::from_millis(100);
    let answer = pinger.wait_for(to, interval, Instant::now() + time);
    answer.unwrap().is_some()
}

/// Has the bridge ask iptables and ip6tables about what only passes it, as Docker does.
fn filter_bridged(mesh: &Mesh, host: usize) {
    for tables in ["iptables", "ip6tables"] {
        let setting = format!("/proc/sys/net/bridge/bridge-nf-call-{tables}");
        let set = || std::fs::write(setting, "1");
        // Without it nothing is asked, and nothing stops what passes the bridge.
        let _ = mesh.namespace(host).run(set).unwrap();
    }
}

/// Sets the policy of forwarding to drop, for both families. None, loudly, without the program.
fn drop_forwarded(mesh: &Mesh, host: usize, kind: &str) -> Option<()> {
    tool(mesh, host, &format!("iptables-{kind} -P FORWARD DROP"))?;
    tool(mesh, host, &format!("ip6tables-{kind} -P FORWARD DROP")).map(drop)
}

/// Where others drop what is forwarded, our containers still reach each other, other hosts and
/// the world; also after a flush, within seconds.
#[test]
fn containers_pass_where_others_drop() {
    needs_root!();
    pass_where_others_drop(
        "nft",
        &[
            "iptables-nft -F DOCKER-USER",
            "iptables-nft -F",
            "ip6tables-nft -F",
            "nft flush ruleset",
            "nft delete table ip weft",
        ],
    );
}

/// As above, with the packet filter that the kernel had before nf_tables.
#[test]
fn containers_pass_where_older_filters_drop() {
    needs_root!();
    pass_where_others_drop(
        "legacy",
        &[
            "iptables-legacy -F DOCKER-USER",
            "iptables-legacy -F",
            "ip6tables-legacy -F",
        ],
    );
}

fn pass_where_others_drop(kind: &str, flushes: &[&str]) {
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft, Kind::Weft]);
    if drop_forwarded(&mesh, 0, kind).is_none() {
        return;
    }
    filter_bridged(&mesh, 0);
    // The chains as Docker makes them.
    for line in [
        "-N DOCKER-USER",
        "-A DOCKER-USER -j RETURN",
        "-I FORWARD -j DOCKER-USER",
    ] {
        tool(&mesh, 0, &format!("iptables-{kind} {line}"));
    }
    mesh.launch(0, &Launch::new().with("--expect-npc"));
    let [a, near] = [mesh.attach(0), mesh.attach(0)];
    let short = Duration::from_millis(500);
    assert!(!answers(&a.namespace, near.address, short));
    mesh.kill(0);
    mesh.launch(0, &Launch::new());
    mesh.launch(1, &Launch::new().peer(mesh.address(0)));
    mesh.wait_connected(0, 1);
    let far = mesh.attach(1);
    mesh.wait_routed(&[0, 1]);
    mesh.weft(0, &["expose", "10.99.1.100/16"]).ok();
    let outside = mesh.address(2);
    let gateway = Ipv4Addr::new(10, 99, 1, 100);
    let default = Route::through(ipnet::Ipv4Net::default().into(), gateway.into());
    a.namespace.netlink().unwrap().add_route(&default).unwrap();
    let all = [near.address, far.address, outside];
    for to in all {
        assert!(answers(&a.namespace, to, wait::SOON), "{to}");
    }
    a.send_ipv6(&near, 100);
    let mut longest = Duration::ZERO;
    for flush in flushes {
        if tool(&mesh, 0, flush).is_none() {
            return;
        }
        // A flush of everything has also taken the policy.
        drop_forwarded(&mesh, 0, kind);
        let start = Instant::now();
        for to in all {
            assert!(answers(&a.namespace, to, wait::SOON), "{to} after {flush}");
        }
        a.send_ipv6(&near, 100);
        longest = longest.max(start.elapsed());
    }
    println!("rules are back after at most {longest:?}");
    assert!(mesh.log(0).contains("put back "));
}

/// The control interface is for the host alone, also where others route loopback addresses.
#[test]
fn the_control_interface_is_kept_from_others() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &Launch::new());
    let open = || TcpListener::bind("127.0.0.1:6789").unwrap();
    let other = mesh.namespace(0).run(open).unwrap();
    let set = || std::fs::write("/proc/sys/net/ipv4/conf/all/route_localnet", "1").unwrap();
    mesh.namespace(0).run(set).unwrap();
    if tool(&mesh, 0, "nft add table ip forwarding").is_none() {
        return;
    }
    let chain = "nft add chain ip forwarding pre { type nat hook prerouting priority -100 ; }";
    tool(&mesh, 0, chain);
    for (outer, inner) in [(7784, 6784), (7782, 6782), (7789, 6789)] {
        let rule =
            format!("nft add rule ip forwarding pre tcp dport {outer} dnat to 127.0.0.1:{inner}");
        tool(&mesh, 0, &rule);
    }
    let connect = |port: u16, time: Duration| {
        let to = SocketAddr::from((mesh.address(0), port));
        let connect = || TcpStream::connect_timeout(&to, time);
        mesh.namespace(1).run(connect).unwrap()
    };
    // This way leads to other ports of the loopback address.
    drop(connect(7789, wait::SOON).unwrap());
    other.accept().unwrap();
    for port in [7784, 7782] {
        let refused = connect(port, Duration::from_millis(500));
        assert!(refused.is_err(), "{port}");
    }
    assert!(mesh.get(0, "/status").is_some());
}

/// What was exposed is exposed again when the host comes back, and what was hidden is not.
#[test]
fn exposed_addresses_outlive_the_host() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.launch(0, &Launch::new());
    mesh.weft(0, &["prime"]).ok();
    mesh.weft(0, &["expose", "10.7.0.9/16"]).ok();
    mesh.weft(0, &["expose", "--without-masquerade", "10.99.0.9/16"])
        .ok();
    mesh.weft(0, &["expose", "10.98.0.9/16"]).ok();
    mesh.weft(0, &["hide", "10.98.0.9/16"]).ok();
    let before = mesh.weft(0, &["ps"]).ok();
    let exposed = |mesh: &Mesh| {
        let read = || host::gateway::exposed("weave").unwrap();
        let mut all = mesh.namespace(0).run(read).unwrap();
        all.sort_by_key(|one| one.address);
        let text = all
            .iter()
            .map(|one| format!("{} {}", one.address, one.masquerade));
        text.collect::<Vec<_>>()
    };
    let expected = ["10.7.0.9/16 true", "10.99.0.9/16 false"];
    assert_eq!(exposed(&mesh), expected);
    for reboot in [false, true] {
        mesh.kill(0);
        if reboot {
            // Nothing of devices and rules is left.
            let netlink = mesh.namespace(0).netlink().unwrap();
            for name in ["weft-weave", "weave"] {
                let link = netlink.link_named(name).unwrap();
                netlink.delete_link(&link).unwrap();
            }
            let remove = || host::rules::HostRules::remove().unwrap();
            assert!(mesh.namespace(0).run(remove).unwrap());
        }
        mesh.launch(0, &Launch::new());
        assert_eq!(exposed(&mesh), expected);
        assert_eq!(mesh.weft(0, &["ps"]).ok(), before);
    }
    // The router does not give it to another.
    let said = mesh
        .weft(0, &["attach", "10.7.0.9/16", "/proc/self/ns/net"])
        .failed(1);
    assert!(!said.is_empty());
    mesh.weft(0, &["hide"]).ok();
    mesh.kill(0);
    mesh.launch(0, &Launch::new());
    assert_eq!(exposed(&mesh), Vec::<String>::new());
}

/// Nothing but our own is ever touched, and nothing of ours stays in the end.
#[test]
fn rules_of_others_stay() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let lines = [
        "iptables-nft -P FORWARD DROP",
        "iptables-nft -A FORWARD -i eth9 -j ACCEPT",
        "iptables-nft -A INPUT -p tcp --dport 22 -j ACCEPT",
        "iptables-nft -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
        "nft add table inet mine",
        "nft add chain inet mine forward { type filter hook forward priority 0 ; }",
        "nft add rule inet mine forward counter accept",
        "nft add table ip weftlike",
        "ip6tables-nft -A FORWARD -i eth9 -j DROP",
        "iptables-legacy -P FORWARD DROP",
        "iptables-legacy -N ZONE",
        "iptables-legacy -A FORWARD -i eth9 -g ZONE",
        "iptables-legacy -A ZONE -p tcp -m multiport --dports 22,80 -j ACCEPT",
        "iptables-legacy -t nat -A POSTROUTING -s 172.17.0.0/16 -j MASQUERADE",
        "ip6tables-legacy -A FORWARD -i eth9 -j DROP",
    ];
    for line in lines {
        if tool(&mesh, 0, line).is_none() {
            return;
        }
    }
    let ruleset = |mesh: &Mesh| {
        let all = [
            "nft -s list ruleset",
            "iptables-legacy-save",
            "ip6tables-legacy-save",
        ];
        let all = all.map(|line| tool(mesh, 0, line).unwrap());
        let text = all.concat();
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| format!("{line}\n")).collect::<String>()
    };
    let before = ruleset(&mesh);
    mesh.launch(0, &Launch::new());
    mesh.weft(0, &["expose", "10.99.0.9/16"]).ok();
    let during = ruleset(&mesh);
    for line in without_counts(&before).lines() {
        assert!(during.contains(line), "{line} is not in\n{during}");
    }
    // iptables still understands its tables.
    for kind in [
        "iptables-nft",
        "ip6tables-nft",
        "iptables-legacy",
        "ip6tables-legacy",
    ] {
        let shown = tool(&mesh, 0, &format!("{kind}-save")).unwrap();
        assert!(
            shown.contains("-A FORWARD -m comment --comment \"weft"),
            "{shown}"
        );
    }
    mesh.weft(0, &["hide"]).ok();
    let folder = format!("{}/", mesh.folder(0).display());
    mesh.weft(0, &["reset", "--db-prefix", &folder]).ok();
    mesh.wait_for_end(0);
    assert_eq!(without_counts(&ruleset(&mesh)), without_counts(&before));
}

/// `iptables-save` shows what the policies have counted.
fn without_counts(rules: &str) -> String {
    let chain = |line: &str| match line.split_once(" [") {
        Some((chain, _)) if line.starts_with(':') => chain.to_owned(),
        _ => line.to_owned(),
    };
    rules.lines().map(|line| chain(line) + "\n").collect()
}

/// Ports of the mesh are none of the business of containers on Docker's bridge, and they are kept
/// apart from ours.
#[test]
fn dockers_containers_are_kept_apart() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let host = mesh.namespace(0).netlink().unwrap();
    let docker = "docker0";
    host.create_bridge(&kernel::netlink::NewBridge {
        name: docker,
        mac: None,
    })
    .unwrap();
    let bridge = host.link_named(docker).unwrap();
    host.add_address(&bridge, "172.17.0.1/16".parse().unwrap())
        .unwrap();
    host.set_up(&bridge, true).unwrap();
    mesh.launch(0, &Launch::new());
    let ours = mesh.attach(0);
    mesh.weft(0, &["expose", "10.99.1.100/16"]).ok();
    let gateway: Ipv4Addr = "10.99.1.100".parse().unwrap();
    let default =
        |gateway: Ipv4Addr| Route::through(ipnet::Ipv4Net::default().into(), gateway.into());
    ours.namespace
        .netlink()
        .unwrap()
        .add_route(&default(gateway))
        .unwrap();

    let theirs = mesh.lab.new_container().unwrap();
    let attach = || {
        let address = ["172.17.0.2/16".parse().unwrap()];
        host::attach::attach(&host::attach::AttachRequest {
            addresses: &address,
            ..host::attach::AttachRequest::new(docker, &theirs)
        })
    };
    mesh.namespace(0).run(attach).unwrap().unwrap();
    let bridge_address = Ipv4Addr::new(172, 17, 0, 1);
    theirs
        .netlink()
        .unwrap()
        .add_route(&default(bridge_address))
        .unwrap();
    assert!(answers(&theirs, bridge_address, wait::SOON));
    let connect = |port: u16| {
        let to = SocketAddr::from((bridge_address, port));
        let connect = || TcpStream::connect_timeout(&to, Duration::from_millis(500));
        theirs.run(connect).unwrap()
    };
    assert!(connect(6783).is_err());
    let open = || TcpListener::bind("0.0.0.0:6790").unwrap();
    let _other = mesh.namespace(0).run(open).unwrap();
    let mut reached = connect(6790).unwrap();
    reached
        .set_read_timeout(Some(Duration::from_millis(1)))
        .unwrap();
    assert!(reached.read(&mut [0]).is_err());
    // Theirs do not reach ours; ours reach what the host reaches.
    assert!(!answers(&theirs, ours.address, Duration::from_millis(500)));
    assert!(answers(&ours.namespace, bridge_address, wait::SOON));
}
