//! Names of containers: across hosts, as they come, move and go, and what is asked of others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::process::Command;
use std::time::{Duration, Instant};

use netns_tests::names::{self, ANSWER, Manner, addresses, ask, ask_at};
use netns_tests::{Kind, Launch, Mesh, members, needs_real, needs_root, wait};
use proto::names::message::rtype;
use router::dns::client::Way;
use router::net::attach::{self, AttachRequest};
use router::net::lab::LabProcess;
use router::net::netns::Namespace;
use serde_json::Value;

const NO_SUCH_NAME: u8 = 3;
const AAAA: u16 = 28;

fn set(list: &[Ipv4Addr]) -> BTreeSet<IpAddr> {
    list.iter().map(|ip| IpAddr::from(*ip)).collect()
}

fn ip(host: usize, number: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 99, u8::try_from(host + 1).unwrap(), number)
}

/// Waits until the routers of these hosts say this of a name, and tells how long it took.
#[track_caller]
fn wait_for_name(mesh: &Mesh, hosts: &[usize], name: &str, expected: &[Ipv4Addr]) -> Duration {
    let start = Instant::now();
    for host in hosts {
        let what = format!("host {host} says {expected:?} of {name}");
        wait::until_true(&what, wait::LATER, || {
            addresses(mesh.namespace(*host), name) == Some(set(expected))
        });
    }
    start.elapsed()
}

#[track_caller]
fn add(mesh: &Mesh, host: usize, container: &str, address: Ipv4Addr, name: &str) {
    let path = format!("/name/{container}/{address}");
    let answer = mesh.request(host, "PUT", &path, &format!("fqdn={name}.weave.local"));
    assert_eq!(answer.status, 204, "{answer:?}");
}

/// A name of each host is known on each other, a name of all has three addresses, and what is
/// removed or dies is gone everywhere.
fn everywhere(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let launch = Launch::new().names().password("a secret");
    mesh.launch_all(&[&[], &[0], &[0, 1]], &launch);
    mesh.wait_routed(&[0, 1, 2]);
    let all = [0, 1, 2];
    for host in all {
        add(&mesh, host, "c", ip(host, 1), &format!("Only{host}"));
        add(&mesh, host, "c", ip(host, 1), "web");
    }
    for host in all {
        let time = wait_for_name(&mesh, &all, &format!("only{host}"), &[ip(host, 1)]);
        println!("{kinds:?}: the name of host {host} is known everywhere after {time:?}");
    }
    let webs = all.map(|host| ip(host, 1));
    wait_for_name(&mesh, &all, "web", &webs);
    for host in all {
        look_closely(&mesh, host, &webs);
    }
    pages_agree(&mesh);

    // Gone on the first host, and everywhere.
    let removed = mesh.request(0, "DELETE", "/name/c?fqdn=web.weave.local", "");
    assert_eq!(removed.status, 204);
    let time = wait_for_name(&mesh, &all, "web", &webs[1..]);
    println!("{kinds:?}: a removed name is gone everywhere after {time:?}");
    // And back.
    add(&mesh, 0, "c", ip(0, 1), "web");
    wait_for_name(&mesh, &all, "web", &webs);

    for dead in [0, 1] {
        mesh.kill(dead);
        let rest: Vec<usize> = (dead + 1..3).collect();
        let time = wait_for_name(&mesh, &rest, "web", &webs[dead + 1..]);
        println!("{kinds:?}: names of a killed router are gone after {time:?}");
        let name = format!("only{dead}");
        for host in rest {
            assert_eq!(addresses(mesh.namespace(host), &name), Some(set(&[])));
        }
    }
}
members!(everywhere, 3);

/// All routers show the same names in the same form.
#[track_caller]
fn pages_agree(mesh: &Mesh) {
    let lines = |host: usize| -> BTreeSet<String> {
        let page = mesh.get(host, "/status/dns").unwrap();
        page.lines().map(str::to_owned).collect()
    };
    let entries = |host: usize| mesh.get_json(host, "/name").unwrap();
    let report = |host: usize| mesh.report(host)["DNS"].clone();
    let fields =
        |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    let labels = |host: usize| -> Vec<String> {
        let page = mesh.get(host, "/status").unwrap();
        let mut parts = page.split("\n\n");
        let part = parts.find(|part| part.contains("Service: dns")).unwrap();
        let labels = part.lines().filter_map(|line| line.split_once(':'));
        labels.map(|(label, _)| label.to_owned()).collect()
    };
    let first = report(0);
    assert_eq!(
        (lines(0).len(), entries(0).as_array().unwrap().len()),
        (6, 6)
    );
    for host in [1, 2] {
        assert_eq!(lines(host), lines(0));
        assert_eq!(entries(host), entries(0));
        assert_eq!(labels(host), labels(0));
        let other = report(host);
        assert_eq!(fields(&other), fields(&first));
        for field in ["Domain", "Address", "TTL", "Entries"] {
            assert_eq!(other[field], first[field], "{field}");
        }
    }
}

/// What the router of a host answers to questions of all kinds about a name that each of three
/// hosts has.
fn look_closely(mesh: &Mesh, host: usize, webs: &[Ipv4Addr; 3]) {
    let at = mesh.namespace(host);
    let mut firsts = BTreeSet::new();
    for name in ["web.weave.local", "WEB.Weave.Local.", "web"]
        .iter()
        .cycle()
        .take(60)
    {
        let reply = ask(at, name, rtype::A, Way::Any).unwrap();
        assert_eq!((reply.rcode, reply.authoritative), (0, true), "{name}");
        assert_eq!((reply.addresses.len(), reply.ttl_secs), (3, Some(1)));
        firsts.insert(reply.addresses[0]);
    }
    assert_eq!(firsts, set(webs), "each address comes first at times");

    let other_type = ask(at, "web.weave.local", AAAA, Way::Any).unwrap();
    assert_eq!((other_type.rcode, other_type.addresses.len()), (0, 0));
    let none = ask(at, "nobody.weave.local", rtype::A, Way::Tcp).unwrap();
    assert_eq!((none.rcode, none.addresses.len()), (NO_SUCH_NAME, 0));
    let [a, b, c, d] = webs[0].octets();
    let reverse = format!("{d}.{c}.{b}.{a}.in-addr.arpa");
    let name = ask(at, &reverse, rtype::PTR, Way::Any).unwrap().names;
    let known = ["only0.weave.local.", "web.weave.local."];
    assert!(known.contains(&name[0].to_lowercase().as_str()), "{name:?}");
    let over_tcp = ask(at, "web.weave.local", rtype::A, Way::Tcp).unwrap();
    assert_eq!(over_tcp.addresses.len(), 3);
}

/// A container: a process with a host name, a root and a network of its own.
struct Process {
    process: LabProcess,
    namespace: Namespace,
}

impl Process {
    fn start(mesh: &Mesh, host: usize, name: &str) -> Process {
        let namespace = mesh.lab.new_container().unwrap();
        let conf = mesh.folder(host).join(format!("{name}.conf"));
        std::fs::write(
            &conf,
            "nameserver 192.0.2.1\nsearch example.com\noptions ndots:1\n",
        )
        .unwrap();
        let ready = mesh.folder(host).join(format!("{name}.ready"));
        let script = format!(
            "hostname {name} && mount --bind {} /etc/resolv.conf && touch {} && exec sleep 600",
            conf.display(),
            ready.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--uts", "--mount", "--", "sh", "-c", &script]);
        let process = mesh.lab.spawn_in(&namespace, &mut command).unwrap();
        wait::until_true("the container has started", wait::SOON, || ready.exists());
        std::fs::remove_file(ready).unwrap();
        Process { process, namespace }
    }

    fn pid(&self) -> String {
        self.process.id().to_string()
    }

    fn resolv_conf(&self) -> String {
        std::fs::read_to_string(format!("/proc/{}/root/etc/resolv.conf", self.pid())).unwrap()
    }

    /// What programs in the container find for a name, by the C library.
    fn look_up(&self, mesh: &Mesh, host: usize, name: &str) -> String {
        let mut command = Command::new("nsenter");
        command.args(["--target", &self.pid(), "--mount", "--uts", "--net", "--"]);
        command.args(["getent", "ahostsv4", name]);
        mesh.run(host, &mut command).stdout
    }
}

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

/// Real routers lose count of names that differ only in case, so they are never told of two.
#[test]
fn two_spellings_are_one_name() {
    needs_real!();
    let mut mesh = Mesh::new(&[Kind::Weaver, Kind::Weft, Kind::Weaver]);
    let launch = Launch::new().names().with("--no-discovery");
    mesh.launch_all(&[&[], &[0], &[1]], &launch);
    mesh.wait_routed(&[0, 1, 2]);
    for name in ["Web", "WEB", "web"] {
        add(&mesh, 1, "c", ip(1, 1), name);
    }
    let all = [0, 1, 2];
    wait_for_name(&mesh, &all, "web", &[ip(1, 1)]);
    let count = |host: usize| {
        mesh.get_json(host, "/name")
            .unwrap()
            .as_array()
            .unwrap()
            .len()
    };
    // All routers tell all they know every 30 s.
    wait::stays_true("there is one name", Duration::from_secs(35), || {
        all.iter().all(|host| count(*host) == 1)
    });
}

/// What the commands say and do.
#[test]
fn by_commands() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_routed(&[0, 1]);
    mesh.weft(0, &["dns-add", "192.0.2.5", "192.0.2.6", "-h", "ldap"])
        .ok();
    wait_for_name(
        &mesh,
        &[0, 1],
        "ldap",
        &[[192, 0, 2, 5], [192, 0, 2, 6]].map(Ipv4Addr::from),
    );
    let found = mesh.weft(1, &["dns-lookup", "ldap.weave.local"]).ok();
    assert_eq!(
        found.lines().collect::<BTreeSet<_>>(),
        ["192.0.2.5", "192.0.2.6"].into()
    );
    assert_eq!(
        mesh.weft(1, &["dns-lookup", "192.0.2.5"]).ok(),
        "ldap.weave.local.\n"
    );
    mesh.weft(1, &["dns-lookup", "nobody"]).failed(4);
    let page = mesh.weft(1, &["status", "dns"]).ok();
    let line = "ldap         192.0.2.5       weave:extern 02:00:00:00:00:01\n";
    assert!(page.contains(line), "{page}");
    assert!(
        mesh.get(1, "/status")
            .unwrap()
            .contains("        Entries: 2\n")
    );
    assert!(
        mesh.get(0, "/metrics")
            .unwrap()
            .contains("weave_dns_entries 2\n")
    );
    assert!(
        mesh.get(1, "/metrics")
            .unwrap()
            .contains("weave_dns_entries 0\n")
    );
    let report = mesh.report(1);
    assert_eq!(report["DNS"]["Domain"], "weave.local.");
    assert_eq!(report["DNS"]["Entries"][0]["Hostname"], "ldap.weave.local.");

    // Another name of a container, which ends with it.
    let container = mesh.attach(0);
    let path = container.namespace.path().display().to_string();
    mesh.weft(0, &["dns-add", &path, "-h", "queue"]).ok();
    wait_for_name(&mesh, &[0, 1], "queue", &[ip(0, 1)]);
    mesh.weft(0, &["dns-add", &path]).failed(2);
    mesh.weft(0, &["dns-add", "192.0.2.7", "-h", "x.example.com."])
        .failed(1);
    mesh.weft(0, &["detach", &path]).ok();
    wait_for_name(&mesh, &[0, 1], "queue", &[]);

    assert_eq!(mesh.weft(0, &["dns-args"]).status.code(), Some(1));
    mesh.weft(0, &["expose", "10.99.1.250/16", "--name", "h1"])
        .ok();
    let args = "--dns=10.99.1.250 --dns-search=weave.local.\n";
    assert_eq!(mesh.weft(0, &["dns-args"]).ok(), args);
    wait_for_name(&mesh, &[0, 1], "h1", &[ip(0, 250)]);
    mesh.weft(0, &["hide"]).ok();
    wait_for_name(&mesh, &[0, 1], "h1", &[]);

    // A restart forgets nothing that is still there.
    let container = mesh.attach(0);
    let path = container.namespace.path().display().to_string();
    mesh.weft(0, &["dns-add", &path, "-h", "queue"]).ok();
    mesh.kill(0);
    wait_for_name(&mesh, &[1], "ldap", &[]);
    mesh.launch(0, &Launch::new());
    wait_for_name(
        &mesh,
        &[0, 1],
        "ldap",
        &[[192, 0, 2, 5], [192, 0, 2, 6]].map(Ipv4Addr::from),
    );
    wait_for_name(&mesh, &[0, 1], "queue", &[container.address]);

    mesh.weft(0, &["dns-remove", "192.0.2.5"]).ok();
    wait_for_name(&mesh, &[0, 1], "ldap", &[Ipv4Addr::new(192, 0, 2, 6)]);
    mesh.weft(0, &["dns-remove", "192.0.2.6", "-h", "ldap"])
        .ok();
    wait_for_name(&mesh, &[0, 1], "ldap", &[]);
    for command in ["dns-add", "dns-remove", "dns-lookup", "dns-args"] {
        assert!(mesh.weft(0, &[command, "--help"]).ok().contains("EXAMPLE"));
    }
}

/// Every recorded request about names has the recorded answer.
#[test]
fn over_http_as_recorded() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let launch = Launch::new().name("00:00:00:00:00:01");
    mesh.launch(0, &launch.with("--dns-listen-address").with("127.0.0.1:53"));
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../router/tests/vectors/http.json"
    );
    let vectors: Value = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let mut count = 0;
    for exchange in vectors.as_array().unwrap() {
        let text = |key: &str| exchange[key].as_str().unwrap();
        let (method, path) = (text("method"), text("path"));
        let about_names = ["/name", "/domain", "/dns-address", "/status/dns"];
        if !about_names.iter().any(|start| path.starts_with(start)) {
            continue;
        }
        count += 1;
        let arguments = text("curl_args");
        if arguments.contains("Accept") {
            let entries = mesh.get_json(0, path).unwrap();
            assert_eq!(entries, without_others(text("body"), &entries), "{path}");
            continue;
        }
        let form = arguments.strip_prefix("-d ").unwrap_or_default();
        let answer = mesh.request(0, method, path, form);
        assert_eq!(
            answer.status,
            exchange["status"].as_u64().unwrap() as u16,
            "{exchange}"
        );
        assert_eq!(answer.body, text("body"), "{exchange}");
    }
    assert_eq!(count, 13);
}

/// What was recorded, without a name that came by gossip, and with the times of death of `ours`.
fn without_others(recorded: &str, ours: &Value) -> Value {
    let mut entries: Vec<Value> = serde_json::from_str(recorded).unwrap();
    entries.retain(|entry| entry["ContainerID"] != "x");
    for (entry, our) in entries.iter_mut().zip(ours.as_array().unwrap()) {
        assert_eq!(entry["Tombstone"] == 0, our["Tombstone"] == 0);
        entry["Tombstone"] = our["Tombstone"].clone();
    }
    entries.into()
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

/// A router without names has none of it, and passes on what others say.
#[test]
fn turned_off() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft; 3]);
    let off = Launch::new().with("--no-dns");
    mesh.launch(1, &off);
    let peer = mesh.address(1);
    let launch = Launch::new().with("--no-discovery").peer(peer);
    mesh.launch(0, &launch);
    mesh.launch(2, &launch);
    mesh.wait_routed(&[0, 1, 2]);
    mesh.weft(0, &["dns-add", "192.0.2.5", "-h", "ldap"]).ok();
    wait_for_name(&mesh, &[2], "ldap", &[Ipv4Addr::new(192, 0, 2, 5)]);
    for path in [
        "/domain",
        "/dns-address",
        "/dns-address-port",
        "/dns-resolvers",
        "/name",
    ] {
        assert_eq!(mesh.request(1, "GET", path, "").status, 404, "{path}");
    }
    assert!(!mesh.get(1, "/status").unwrap().contains("Service: dns"));
    mesh.attach(1);
    mesh.weft(1, &["dns-add", "192.0.2.5", "-h", "x"]).failed(1);
    assert_eq!(mesh.weft(1, &["dns-args"]).ok(), "");
    mesh.weft(1, &["dns-lookup", "x"]).failed(1);
}
