//! The server and those that it asks.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use dns::client::Way;
use netns_tests::names::{self, ANSWER, Manner, addresses, ask, ask_at};
use netns_tests::{Kind, Launch, Mesh, needs_root, wait};
use proto::names::message::rtype;

use super::{Process, ip, wait_for_name};

/// What is asked of others: of one that is slow, one that lies, one that has much to say, and one
/// that does not answer.
#[test]
fn of_others() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let server = mesh.lab.add_host(Default::default()).unwrap();
    let server = &mesh.lab.hosts()[server];
    let (namespace, main) = (server.namespace.clone(), server.address);
    let netlink = namespace.netlink().unwrap();
    let link = netlink.link_named("eth0").unwrap();
    let [a, b, _, d] = main.octets();
    let others = [1, 2, 3, 4].map(|number| Ipv4Addr::new(a, b, 100 + number, d));
    for other in others {
        let network = ipnet::Ipv4Net::new(other, 16).unwrap();
        netlink.add_address(&link, network.into()).unwrap();
    }
    let [slow, lying, talkative, silent] = others;
    let delay = Duration::from_millis(400);
    names::serve(&namespace, slow, Manner::Slow(delay));
    names::serve(&namespace, lying, Manner::Lying);
    names::serve(&namespace, talkative, Manner::Talkative(190));
    names::serve(&namespace, silent, Manner::Silent);
    let file = mesh.folder(0).join("resolv.conf");
    let resolvers = |list: &[Ipv4Addr]| {
        let lines: String = list.iter().map(|ip| format!("nameserver {ip}\n")).collect();
        std::fs::write(&file, lines).unwrap();
    };
    let path = file.display().to_string();
    resolvers(&[slow]);
    let launch = Launch::new().with("--resolv-conf").with(&path);
    mesh.launch(0, &launch.with("--dns-fallback-timeout").with("1s"));
    let host = mesh.namespace(0).clone();
    mesh.weft(0, &["dns-add", "192.0.2.5", "-h", "ldap"]).ok();
    let upstream = |ip: Ipv4Addr| {
        let line = format!("       Upstream: {ip}\n");
        wait::until_true("the file is followed", wait::SOON, || {
            mesh.get(0, "/status")
                .is_some_and(|page| page.contains(&line))
        });
    };
    upstream(slow);

    // Who waits for a slow one holds nobody up.
    let start = Instant::now();
    let waiting = {
        let host = host.clone();
        std::thread::spawn(move || ask(&host, "www.example.com", rtype::A, Way::Any).unwrap())
    };
    assert_eq!(addresses(&host, "ldap").unwrap().len(), 1);
    assert!(!waiting.is_finished());
    assert_eq!(waiting.join().unwrap().addresses, [IpAddr::from(ANSWER)]);
    assert!(start.elapsed() >= delay);

    resolvers(&[lying]);
    upstream(lying);
    for _ in 0..5 {
        let reply = ask(&host, "www.example.com", rtype::A, Way::Any).unwrap();
        assert_eq!(reply.addresses, [IpAddr::from(ANSWER)]);
    }

    // 190 addresses take 3 KB.
    resolvers(&[talkative]);
    upstream(talkative);
    let cut = ask(&host, "many.example.com", rtype::A, Way::PlainUdp).unwrap();
    assert!(cut.truncated && cut.bytes <= 512, "{cut:?}");
    for way in [Way::Any, Way::Tcp] {
        let whole = ask(&host, "many.example.com", rtype::A, way).unwrap();
        assert!(
            !whole.truncated && whole.bytes > 3000,
            "{} bytes",
            whole.bytes
        );
        assert_eq!(whole.addresses.len(), 190);
        assert_eq!(whole.addresses[0], IpAddr::from(ANSWER));
    }

    // The one that is silent is asked first, once.
    resolvers(&[silent, slow]);
    wait::until_true("the file is followed", wait::SOON, || {
        let line = format!("       Upstream: {silent}, {slow}\n");
        mesh.get(0, "/status")
            .is_some_and(|page| page.contains(&line))
    });
    let start = Instant::now();
    let reply = ask(&host, "www.example.com", rtype::A, Way::Any).unwrap();
    assert_eq!(reply.addresses, [IpAddr::from(ANSWER)]);
    println!("past a silent server after {:?}", start.elapsed());
    resolvers(&[silent]);
    upstream(silent);
    let reply = ask(&host, "www.example.com", rtype::A, Way::Any).unwrap();
    assert_eq!(reply.rcode, 2, "SERVFAIL");
}

/// A taken port is a warning, until it is free.
#[test]
fn with_the_port_taken() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let taken = mesh
        .namespace(0)
        .run(|| UdpSocket::bind("0.0.0.0:53").unwrap())
        .unwrap();
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1]);
    wait::until_true("it is told", wait::SOON, || {
        let page = mesh.get(0, "/status").unwrap();
        page.contains("        Warning: not listening on 0.0.0.0:53 (UDP): Address already in use")
    });
    mesh.weft(0, &["dns-add", "192.0.2.5", "-h", "ldap"]).ok();
    wait_for_name(&mesh, &[1], "ldap", &[Ipv4Addr::new(192, 0, 2, 5)]);
    let said = mesh
        .weft(0, &["dns-lookup", "--timeout", "1s", "ldap"])
        .failed(1);
    assert!(said.contains("--dns-listen-address"), "{said}");
    drop(taken);
    wait_for_name(&mesh, &[0], "ldap", &[Ipv4Addr::new(192, 0, 2, 5)]);
    assert!(!mesh.get(0, "/status").unwrap().contains("Warning"));
}

/// A host's own resolver on a loopback address, as most hosts have, is in nobody's way, and is
/// asked for other names.
#[test]
fn beside_a_resolver_of_the_host() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let own = Ipv4Addr::new(127, 0, 0, 53);
    names::serve(mesh.namespace(0), own, Manner::Talkative(190));
    let file = mesh.folder(0).join("resolv.conf");
    std::fs::write(&file, format!("nameserver {own}\n")).unwrap();
    mesh.launch(
        0,
        &Launch::new()
            .with("--resolv-conf")
            .with(&file.display().to_string()),
    );
    mesh.weft(0, &["dns-add", "192.0.2.5", "-h", "ldap"]).ok();
    wait_for_name(&mesh, &[0], "ldap", &[Ipv4Addr::new(192, 0, 2, 5)]);
    let page = mesh.get(0, "/status").unwrap();
    assert!(
        page.contains("(UDP), only on 127.0.0.1:53: Address already in use"),
        "{page}"
    );
    let host = mesh.namespace(0);
    let reply = ask(host, "www.example.com", rtype::A, Way::Any).unwrap();
    assert_eq!(reply.addresses.len(), 190);

    // Addresses that come later are listened on as well.
    mesh.weft(0, &["expose", "10.99.1.250/16"]).ok();
    let at_bridge = |way| ask_at(host, (ip(0, 250), 53).into(), "ldap", rtype::A, way);
    for way in [Way::PlainUdp, Way::Tcp] {
        let reply = wait::until("it listens there", wait::SOON, || at_bridge(way).ok());
        assert_eq!(reply.addresses, [IpAddr::from([192, 0, 2, 5])]);
    }
    let web = Process::start(&mesh, 0, "web");
    let said = mesh.weft(0, &["attach", "10.99.1.1/16", &web.pid()]);
    assert_eq!(said.stderr, "");
    assert!(web.resolv_conf().contains("nameserver 10.99.1.250\n"));
    assert!(web.look_up(&mesh, 0, "ldap").contains("192.0.2.5"));
    mesh.weft(0, &["hide"]).ok();
    wait::until_true("it is left", wait::SOON, || {
        !mesh.get(0, "/status").unwrap().contains("10.99.1.250")
    });
}
