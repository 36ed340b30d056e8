//! Names across routers of both kinds.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use dns::client::Way;
use netns_tests::names::{addresses, ask};
use netns_tests::{Kind, Launch, Mesh, members, needs_real, needs_root, wait};
use proto::names::message::rtype;
use serde_json::Value;

use super::{add, ip, set, wait_for_name};

const NO_SUCH_NAME: u8 = 3;
const AAAA: u16 = 28;

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

/// Returns how many names a router shows.
fn count_lines(mesh: &Mesh, host: usize) -> Option<usize> {
    let page = mesh.get(host, "/status/dns")?;
    Some(page.lines().count())
}

/// Ten thousand names of one host are known on the others, and gone with it.
fn many(kinds: &[Kind]) {
    const COUNT: usize = 10_000;
    let mut mesh = Mesh::new(kinds);
    mesh.launch_all(&[&[], &[0], &[1]], &Launch::new().names());
    mesh.wait_routed(&[0, 1, 2]);
    let names: Vec<String> = (0..COUNT).map(|i| format!("name=web-{i}")).collect();
    let start = Instant::now();
    let added = mesh.request(0, "PUT", "/name/c/10.99.1.1", &names.join("&"));
    assert_eq!(added.status, 204, "{added:?}");
    for host in [0, 1, 2] {
        wait_for_name(&mesh, &[host], &format!("web-{}", COUNT - 1), &[ip(0, 1)]);
        let what = format!("host {host} has all names");
        wait::until_true(&what, wait::LATER, || {
            count_lines(&mesh, host) == Some(COUNT)
        });
        let kib = mesh.resident_kib(host);
        println!(
            "{kinds:?}: host {host} has {COUNT} names after {:?}: {kib} KiB",
            start.elapsed()
        );
    }
    mesh.kill(0);
    for host in [1, 2] {
        wait::until_true("they are gone", wait::LATER, || {
            count_lines(&mesh, host) == Some(0)
        });
    }
}
members!(many: ours [Weft Weft Weft], real_third [Weft Weft Weaver]);

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
