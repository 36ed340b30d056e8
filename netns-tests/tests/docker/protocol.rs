//! The plugin's sockets, without any engine: what was recorded of Weave Net, and nonsense.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use netns_tests::{Kind, Launch, Mesh, needs_root, wait};
use serde_json::Value;

/// Sends one call and returns status and body.
#[track_caller]
pub(crate) fn call(socket: &Path, path: &str, body: &str) -> (u16, String) {
    let length = body.len();
    let head = format!("POST {path} HTTP/1.1\r\nHost: plugin\r\nConnection: close\r\n");
    send(
        socket,
        &format!("{head}Content-Length: {length}\r\n\r\n{body}"),
    )
}

#[track_caller]
fn send(socket: &Path, request: &str) -> (u16, String) {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(wait::LATER)).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    let status = head.split(' ').nth(1).unwrap().parse().unwrap();
    (status, body.to_owned())
}

/// Returns a router that serves Weave Net's two drivers as the managed plugin does, without Docker.
fn weave_net() -> (Mesh, PathBuf, PathBuf) {
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let global = mesh.folder(0).join("weave.sock");
    let local = mesh.folder(0).join("weavemesh.sock");
    let launch = Launch::new()
        .with("--plugin-v2")
        .with(&format!("--plugin-socket={}", global.display()))
        .with(&format!("--plugin-mesh-socket={}", local.display()));
    mesh.launch(0, &launch);
    wait::until_true("the plugin answers", wait::SOON, || {
        UnixStream::connect(&global).is_ok() && UnixStream::connect(&local).is_ok()
    });
    (mesh, global, local)
}

/// Every recorded call has the recorded answer, but for what is drawn by chance.
#[test]
fn recorded_calls_have_the_same_answers() {
    needs_root!();
    let (mesh, global, local) = weave_net();
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/vectors/docker_plugin.json"
    );
    let vectors: Vec<Value> =
        serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    assert_eq!(vectors.len(), 27);
    for vector in &vectors {
        let text = |key: &str| vector[key].as_str().unwrap_or_default();
        let socket = match text("socket") {
            name if name.starts_with("weavemesh ") => &local,
            _ => &global,
        };
        let (status, body) = call(socket, text("path"), text("request"));
        let what = format!("{vector}");
        assert_eq!(
            u64::from(status),
            vector["status"].as_u64().unwrap(),
            "{what}"
        );
        let expected = text("response");
        let drawn = "\"MacAddress\":\"6a:32:a2:5c:31:3c\"";
        if expected.contains(drawn) {
            let mac = mac_of("vethwgabcdef012", &mesh);
            assert_eq!(
                body,
                expected.replace(drawn, &format!("\"MacAddress\":\"{mac}\""))
            );
        } else {
            assert_eq!(body, expected, "{what}");
        }
    }
    let left: Vec<String> = mesh.devices(0);
    assert!(
        left.iter().all(|name| !name.starts_with("vethw")),
        "{left:?}"
    );
}

fn mac_of(device: &str, mesh: &Mesh) -> String {
    let link = mesh
        .namespace(0)
        .netlink()
        .unwrap()
        .link_named(device)
        .unwrap();
    link.mac.unwrap().to_string()
}

/// Nonsense is refused at once, in Docker's format, and nothing is left of it.
#[test]
fn nonsense_is_refused_in_time() {
    needs_root!();
    let (mesh, _, local) = weave_net();
    let before = mesh.devices(0);
    let begun = Instant::now();
    let id = "0123456789abcdef";
    let endpoint = |interface: &str| {
        format!(r#"{{"NetworkID":"n1","EndpointID":"{id}","Interface":{interface}}}"#)
    };
    for (path, body, status) in [
        ("/NetworkDriver.CreateEndpoint", endpoint("{}"), 500),
        ("/NetworkDriver.CreateEndpoint", endpoint("null"), 500),
        ("/NetworkDriver.CreateEndpoint", endpoint("7"), 400),
        (
            "/NetworkDriver.CreateEndpoint",
            "{\"NetworkID\":7}".to_owned(),
            400,
        ),
        ("/NetworkDriver.CreateEndpoint", String::new(), 400),
        ("/NetworkDriver.CreateEndpoint", "{".to_owned(), 400),
        ("/NetworkDriver.CreateNetwork", "{}".to_owned(), 500),
        (
            "/NetworkDriver.CreateNetwork",
            r#"{"NetworkID":"../x"}"#.to_owned(),
            500,
        ),
        ("/NetworkDriver.Join", endpoint("{}"), 500),
        ("/NetworkDriver.DeleteEndpoint", endpoint("{}"), 200),
        (
            "/NetworkDriver.DeleteNetwork",
            r#"{"NetworkID":"none"}"#.to_owned(),
            200,
        ),
        ("/NetworkDriver.DeleteEndpoint", "{}".to_owned(), 500),
        (
            "/IpamDriver.RequestPool",
            r#"{"Pool":"10.7.0.0/99"}"#.to_owned(),
            500,
        ),
        (
            "/IpamDriver.RequestPool",
            r#"{"Pool":"fd00::/64","V6":true}"#.to_owned(),
            500,
        ),
        (
            "/IpamDriver.RequestAddress",
            r#"{"PoolID":"weave-x-y"}"#.to_owned(),
            500,
        ),
        (
            "/IpamDriver.ReleaseAddress",
            r#"{"PoolID":"weave-10.7.0.0/16-10.7.0.0/16","Address":"10.7.3.3"}"#.to_owned(),
            200,
        ),
        (
            "/IpamDriver.ReleaseAddress",
            r#"{"PoolID":"weave-10.7.0.0/16-10.7.0.0/16","Address":"x"}"#.to_owned(),
            500,
        ),
    ] {
        let (got, answer) = call(&local, path, &body);
        assert_eq!(got, status, "{path} {body}: {answer}");
        if status == 500 {
            let answer: Value = serde_json::from_str(&answer).unwrap();
            assert!(
                answer["Err"].as_str().is_some_and(|text| !text.is_empty()),
                "{path} {body}"
            );
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(10),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(call(&local, "/Plugin.Nothing", "{}").0, 404);
    // Half a call is given up; a connection without one disturbs nobody.
    let _silent = UnixStream::connect(&local).unwrap();
    let half = "POST /NetworkDriver.CreateEndpoint HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
                Content-Length: 1000\r\n\r\n{\"NetworkID\":";
    assert_eq!(send(&local, half).0, 400);
    assert_eq!(mesh.devices(0), before);
    assert_eq!(mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
}

/// The same endpoint twice is the same endpoint; deleted twice it is gone.
#[test]
fn repeated_calls_do_not_add_up() {
    needs_root!();
    let (mesh, _, local) = weave_net();
    let network = r#"{"NetworkID":"n1","Options":{"com.docker.network.generic":{}},
        "IPv4Data":[{"AddressSpace":"null","Pool":"0.0.0.0/0"}]}"#;
    for _ in 0..2 {
        assert_eq!(call(&local, "/NetworkDriver.CreateNetwork", network).0, 200);
    }
    let endpoint = r#"{"NetworkID":"n1","EndpointID":"0123456789abcdef",
        "Interface":{"Address":"","AddressIPv6":"","MacAddress":""},
        "Options":{"weft.identity":"web","com.docker.network.portmap":[]}}"#;
    let create = || call(&local, "/NetworkDriver.CreateEndpoint", endpoint);
    let first = create();
    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(create(), first);
    let value: Value = serde_json::from_str(&first.1).unwrap();
    let address = value["Interface"]["Address"].as_str().unwrap().to_owned();
    for _ in 0..2 {
        assert_eq!(
            call(&local, "/NetworkDriver.DeleteEndpoint", endpoint).0,
            200
        );
    }
    assert_eq!(mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
    // The identity has its address again, also under another endpoint.
    let again = endpoint.replace("0123456789abcdef", "fedcba9876543210");
    let (_, body) = call(&local, "/NetworkDriver.CreateEndpoint", &again);
    let value: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(value["Interface"]["Address"].as_str().unwrap(), address);
    // Deleting a network deletes what Docker forgot to delete.
    assert_eq!(call(&local, "/NetworkDriver.DeleteNetwork", network).0, 200);
    assert_eq!(mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
}

/// What other hosts could use as well is refused, by the range that the mesh really has: a
/// default one has yielded.
#[test]
fn addresses_outside_the_range_are_refused() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &Launch::new().with("--ipalloc-range=10.32.0.0/16"));
    assert!(
        mesh.post(0, "/ip/first?timeout=30s", "")
            .status
            .is_success()
    );
    let socket = mesh.folder(1).join("weft.sock");
    // The driver is served where Docker is; that it never answers does no harm.
    let engine = mesh.folder(1).join("engine.sock");
    let _engine = std::os::unix::net::UnixListener::bind(&engine).unwrap();
    let launch = Launch::new()
        .peer(mesh.address(0))
        .with(&format!("--docker-api=unix://{}", engine.display()))
        .with(&format!("--weft-plugin-socket={}", socket.display()));
    mesh.launch(1, &launch);
    wait::until_true("the range has yielded", wait::SOON, || {
        mesh.get(1, "/ipinfo/defaultsubnet").as_deref() == Some("10.32.0.0/16")
    });
    wait::until_true("the plugin answers", wait::SOON, || {
        UnixStream::connect(&socket).is_ok()
    });
    let network = |id: &str, space: &str, pool: &str, options: &str| {
        format!(
            r#"{{"NetworkID":"{id}","Options":{{"com.docker.network.generic":{options}}},
                "IPv4Data":[{{"AddressSpace":"{space}","Pool":"{pool}"}}]}}"#
        )
    };
    let endpoint = |network: &str, id: &str, address: &str, options: &str| {
        format!(
            r#"{{"NetworkID":"{network}","EndpointID":"{id}","Options":{options},
                "Interface":{{"Address":"{address}"}}}}"#
        )
    };
    let pool = |pool: &str, part: &str| format!(r#"{{"Pool":"{pool}","SubPool":"{part}"}}"#);
    let address = |address: &str| {
        format!(r#"{{"PoolID":"weft-10.32.0.0/16-10.32.0.0/16","Address":"{address}"}}"#)
    };
    let (create_network, create_endpoint) = (
        "/NetworkDriver.CreateNetwork",
        "/NetworkDriver.CreateEndpoint",
    );
    let (request_pool, request_address) = ("/IpamDriver.RequestPool", "/IpamDriver.RequestAddress");
    let zero = "0.0.0.0/0";
    for (path, body, word) in [
        (
            create_network,
            network("a1", "LocalDefault", "10.7.9.0/24", "{}"),
            "10.32.0.0/16",
        ),
        (
            create_network,
            network("a2", "LocalDefault", "10.32.9.0/24", "{}"),
            "",
        ),
        (
            create_network,
            network("a3", "null", zero, r#"{"weft.subnet":"10.7.9.0/24"}"#),
            "outside",
        ),
        (
            create_network,
            network("a4", "null", zero, r#"{"weft.subnt":"10.32.9.0/24"}"#),
            "weft.subnt",
        ),
        (
            create_network,
            network("a5", "null", zero, r#"{"weft.subnet":"10.32.9.0/24"}"#),
            "",
        ),
        (
            create_endpoint,
            endpoint("a2", "b1", "10.32.9.0/24", "{}"),
            "own address",
        ),
        (
            create_endpoint,
            endpoint("a2", "b2", "10.7.9.9/24", "{}"),
            "outside",
        ),
        (
            create_endpoint,
            endpoint("a5", "b3", "", r#"{"weft.ip":"10.7.9.9"}"#),
            "outside",
        ),
        (
            create_endpoint,
            endpoint("a5", "b4", "", r#"{"weft.ip":"10.32.9.255"}"#),
            "broadcast",
        ),
        (
            create_endpoint,
            endpoint("a5", "b5", "", r#"{"weft.idenity":"web"}"#),
            "weft.idenity",
        ),
        (
            create_endpoint,
            endpoint("a5", "b6", "", r#"{"weft.ip":[1]}"#),
            "weft.ip",
        ),
        (request_pool, pool("10.7.5.0/24", ""), "outside"),
        (
            request_pool,
            pool("10.32.5.0/24", "10.32.6.0/24"),
            "no part",
        ),
        (request_pool, pool("10.32.5.0/31", ""), "minimum"),
        (request_pool, pool("10.32.5.0/24", "10.32.5.128/25"), ""),
        (request_address, address("10.7.9.9"), "outside"),
        (request_address, address("10.32.255.255"), "broadcast"),
    ] {
        let (status, answer) = call(&socket, path, &body);
        let expected = if word.is_empty() { 200 } else { 500 };
        assert_eq!(status, expected, "{path} {body}: {answer}");
        assert!(answer.contains(word), "{path} {body}: {answer}");
    }
    assert_eq!(mesh.get(1, "/ip").unwrap(), "{\"owned\":null}\n");
    assert!(
        mesh.devices(1)
            .iter()
            .all(|name| !name.starts_with("vethw"))
    );
}

/// A host that leaves the mesh for good keeps no socket of ours.
#[test]
fn reset_removes_the_sockets() {
    needs_root!();
    let (mesh, global, local) = weave_net();
    let prefix = format!("--db-prefix={}/", mesh.folder(0).display());
    let told = mesh.weft(0, &["reset", &prefix]).ok();
    for socket in [&global, &local] {
        assert!(!socket.exists());
        assert!(
            told.contains(&format!("removed {}", socket.display())),
            "{told}"
        );
    }
}
