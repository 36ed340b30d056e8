//! The router beside containers that are on none of its networks.

use std::io::{Read, Write};
use std::net::Ipv4Addr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use netns_tests::machine::IMAGE;
use netns_tests::{Kind, Launch, Mesh, needs_docker, needs_root, wait};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{Site, attached, must_reach};

/// Containers with labels are attached when they start, again when they are started again, and
/// also those that started while nobody looked.
#[test]
fn labelled_containers_are_attached() {
    needs_docker!();
    let mut site = Site::new(2, &["--attach=labels", "--weft-plugin-socket="]);
    let run = |host: usize, name: &str, flags: &[&str]| {
        let mut all = vec!["run", "--detach", "--name", name, "--network=none"];
        all.extend(flags);
        all.extend([IMAGE, "sleep", "1000"]);
        site.machines[host].docker(&all).ok();
    };
    let address = |site: &Site, host: usize, name: &str| {
        wait::until(&format!("{name} is attached"), wait::LATER, || {
            attached(&site.machines[host].namespace(name))
        })
    };
    run(0, "web", &["--label=weft.attach=true"]);
    run(1, "db", &["--label=weft.identity=db"]);
    run(0, "old", &["--env=WEAVE_CIDR=10.7.30.30/16"]);
    run(0, "alone", &[]);
    let [web, db] = [address(&site, 0, "web"), address(&site, 1, "db")];
    assert_eq!(address(&site, 0, "old"), Ipv4Addr::new(10, 7, 30, 30));
    must_reach(&site.machines[0].namespace("web"), &db.to_string());

    wait::until_true("they have names", wait::SOON, || {
        let page = site.mesh.get(1, "/status/dns").unwrap();
        ["web", "db", "old"].iter().all(|name| page.contains(name))
    });

    // Started again, and started elsewhere.
    site.machines[0]
        .docker(&["restart", "--time=0", "web"])
        .ok();
    assert_eq!(address(&site, 0, "web"), web);
    site.machines[1].remove("db");
    run(0, "db", &["--label=weft.identity=db"]);
    assert_eq!(address(&site, 0, "db"), db);

    // What happens while the router or the engine is away is made up for.
    site.machines[0].stop_router(Signal::KILL);
    site.machines[0].remove("old");
    let late = [
        "run",
        "--detach",
        "--name=late",
        "--network=none",
        "--label=weft.attach=yes",
    ];
    site.machines[0]
        .docker(&[&late[..], &[IMAGE, "sleep", "1000"]].concat())
        .ok();
    site.start_router(0, &["--attach=labels", "--weft-plugin-socket="]);
    let late = address(&site, 0, "late");
    must_reach(&site.machines[0].namespace("late"), &web.to_string());
    assert!(![web, db].contains(&late));
    site.machines[0].stop_engine(Signal::TERM);
    site.machines[0].start_engine(&site.mesh);
    for name in ["web", "late"] {
        site.machines[0].docker(&["start", name]).ok();
    }
    assert_eq!(address(&site, 0, "web"), web);
    wait::until_true("late is attached", wait::LATER, || {
        attached(&site.machines[0].namespace("late")).is_some()
    });
    wait::until_true("what is gone has no address", wait::LATER, || {
        !site.mesh.get(0, "/ip").unwrap().contains("10.7.30.30")
    });
    site.machines[0].docker(&["start", "alone"]).ok();
    assert_eq!(attached(&site.machines[0].namespace("alone")), None);
}

/// An engine that speaks only newer versions of the API, with one container.
struct NewEngine {
    events: Sender<String>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl NewEngine {
    fn start(socket: &Path, container: &Value) -> NewEngine {
        let listener = UnixListener::bind(socket).unwrap();
        let (events, inbox) = channel::<String>();
        let (inbox, seen) = (
            Arc::new(Mutex::new(inbox)),
            Arc::new(Mutex::new(Vec::new())),
        );
        let (container, paths) = (container.clone(), Arc::clone(&seen));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let (container, inbox) = (container.clone(), Arc::clone(&inbox));
                let paths = Arc::clone(&paths);
                std::thread::spawn(move || answer(stream, &container, &inbox, &paths));
            }
        });
        NewEngine { events, seen }
    }
}

fn answer(
    mut stream: UnixStream,
    container: &Value,
    inbox: &Mutex<Receiver<String>>,
    seen: &Mutex<Vec<String>>,
) {
    let mut request = Vec::new();
    let mut byte = [0];
    while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
        request.push(byte[0]);
    }
    let text = String::from_utf8_lossy(&request).into_owned();
    let path = text.split(' ').nth(1).unwrap_or_default().to_owned();
    seen.lock().unwrap().push(path.clone());
    let mut say = |status: &str, body: &str| {
        let head = format!("HTTP/1.1 {status}\r\nApi-Version: 1.51\r\nConnection: close\r\n");
        let length = body.len();
        let _ = write!(stream, "{head}Content-Length: {length}\r\n\r\n{body}");
    };
    let Some(rest) = path.strip_prefix("/v1.51") else {
        return match path.as_str() {
            "/_ping" => say("200 OK", "OK"),
            _ => say(
                "400 Bad Request",
                r#"{"message":"client version is too old"}"#,
            ),
        };
    };
    match rest.split('?').next().unwrap_or_default() {
        "/networks" => say("200 OK", "[]"),
        "/containers/json" => {
            let listed = json!([{ "Id": container["Id"], "Names": ["/new"], "State": "running" }]);
            say("200 OK", &listed.to_string());
        }
        "/containers/c0ffee/json" => say("200 OK", &container.to_string()),
        "/events" => {
            let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
            let _ = stream.write_all(head.as_bytes());
            let inbox = inbox.lock().unwrap();
            while let Ok(event) = inbox.recv() {
                let line = format!("{event}\n");
                let _ = write!(stream, "{:x}\r\n{line}\r\n", line.len());
            }
        }
        _ => say("404 Not Found", r#"{"message":"no such thing"}"#),
    }
}

/// The newest engines, which refuse old versions of the API.
#[test]
fn engines_of_newer_versions() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let container = mesh.lab.new_container().unwrap();
    let mut sleep = Command::new("sleep");
    let process = mesh.lab.spawn_in(&container, sleep.arg("1000")).unwrap();
    let socket = mesh.folder(0).join("docker.sock");
    let page = json!({
        "Id": "c0ffee", "Name": "/new", "State": { "Running": true, "Pid": process.id() },
        "HostConfig": { "NetworkMode": "bridge" },
        "Config": { "Hostname": "new", "Labels": { "weft.attach": "true" }, "Env": null },
        "NetworkSettings": { "Networks": null },
    });
    let engine = NewEngine::start(&socket, &page);
    let launch = Launch::new()
        .with(&format!("--docker-api=unix://{}", socket.display()))
        .with("--attach=labels")
        .with("--weft-plugin-socket=");
    mesh.launch(0, &launch);
    let address = wait::until("the container is attached", wait::SOON, || {
        attached(&container)
    });
    assert!(mesh.get(0, "/ip").unwrap().contains(&address.to_string()));
    let seen = engine.seen.lock().unwrap().clone();
    assert!(
        seen.iter()
            .all(|path| path == "/_ping" || path.starts_with("/v1.51/")),
        "{seen:?}"
    );
    // It dies, and is removed.
    for action in ["die", "destroy"] {
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": "c0ffee" } });
        engine.events.send(event.to_string()).unwrap();
    }
    wait::until_true("its address is released", wait::SOON, || {
        mesh.get(0, "/ip").unwrap() == "{\"owned\":null}\n"
    });
}

/// An engine that accepts and never answers keeps nobody from anything.
#[test]
fn an_engine_that_never_answers() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let socket = mesh.folder(0).join("docker.sock");
    let silent = UnixListener::bind(&socket).unwrap();
    let plugin = mesh.folder(0).join("weft.sock");
    let launch = Launch::new()
        .with(&format!("--docker-api=unix://{}", socket.display()))
        .with(&format!("--weft-plugin-socket={}", plugin.display()));
    mesh.launch(0, &launch);
    // Its file is there a moment before anybody listens.
    wait::until_true("the plugin answers", wait::SOON, || {
        UnixStream::connect(&plugin).is_ok()
    });
    let begun = Instant::now();
    let network = r#"{"NetworkID":"n1","IPv4Data":[{"AddressSpace":"null"}]}"#;
    let endpoint = r#"{"NetworkID":"n1","EndpointID":"0123456789abcdef","Interface":{}}"#;
    for (path, body) in [
        ("/Plugin.Activate", ""),
        ("/NetworkDriver.CreateNetwork", network),
        ("/NetworkDriver.CreateEndpoint", endpoint),
        ("/NetworkDriver.DeleteEndpoint", endpoint),
    ] {
        let (status, body) = crate::protocol::call(&plugin, path, body);
        assert_eq!(status, 200, "{path}: {body}");
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    drop(silent);
}

/// What is asked for a container that does not run is not given, and names go with their container.
#[test]
fn who_does_not_run_has_neither_address_nor_name() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let socket = mesh.folder(0).join("docker.sock");
    let page = json!({
        "Id": "c0ffee", "Name": "/new", "State": { "Running": true, "Pid": 1 },
        "Config": { "Labels": null, "Env": null }, "NetworkSettings": { "Networks": null },
    });
    let engine = NewEngine::start(&socket, &page);
    let launch = Launch::new()
        .with(&format!("--docker-api=unix://{}", socket.display()))
        .with("--weft-plugin-socket=");
    mesh.launch(0, &launch);
    let put = |path: &str| mesh.call(0, "PUT", path).unwrap();
    for (id, name) in [("c0ffee", "here"), ("dead", "gone")] {
        put(&format!(
            "/name/{id}/10.7.0.9?check-alive=true&fqdn={name}.weave.local"
        ));
    }
    put("/name/c0ffee/10.7.0.9?fqdn=also.weave.local");
    let names = || mesh.weft(0, &["status", "dns"]).ok();
    let listed = names();
    assert!(
        listed.contains("here") && listed.contains("also"),
        "{listed}"
    );
    assert!(!listed.contains("gone"), "{listed}");
    let allocated = mesh.call(0, "POST", "/ip/dead?check-alive=true").unwrap();
    assert_eq!(allocated, "cancelled");
    assert_eq!(put("/ip/dead/10.7.0.10/16?check-alive=true"), "cancelled");
    assert_eq!(mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
    mesh.call(0, "POST", "/ip/c0ffee?check-alive=true").unwrap();
    let event = json!({ "Type": "container", "Action": "die", "Actor": { "ID": "c0ffee" } });
    engine.events.send(event.to_string()).unwrap();
    wait::until_true("its names are gone", wait::SOON, || {
        names().trim().is_empty()
    });
}

/// A container that is looked at again keeps its one address, also when its name is another's.
#[test]
fn who_is_attached_keeps_its_address() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let container = mesh.lab.new_container().unwrap();
    let mut sleep = Command::new("sleep");
    let process = mesh.lab.spawn_in(&container, sleep.arg("1000")).unwrap();
    let socket = mesh.folder(0).join("docker.sock");
    let page = json!({
        "Id": "c0ffee", "Name": "/new", "State": { "Running": true, "Pid": process.id() },
        "HostConfig": { "NetworkMode": "bridge" },
        "Config": { "Hostname": "new", "Labels": { "weft.attach": "true" }, "Env": null },
        "NetworkSettings": { "Networks": null },
    });
    let launch = Launch::new()
        .with(&format!("--docker-api=unix://{}", socket.display()))
        .with("--attach=labels")
        .with("--weft-plugin-socket=");
    mesh.launch(0, &launch);
    mesh.call(0, "POST", "/ip/another?identity=new&kind=derived")
        .unwrap();
    let engine = NewEngine::start(&socket, &page);
    wait::until("the container is attached", wait::SOON, || {
        attached(&container)
    });
    let looked = || {
        let seen = engine.seen.lock().unwrap();
        seen.iter()
            .filter(|path| path.ends_with("/c0ffee/json"))
            .count()
    };
    let owned = mesh.get(0, "/ip").unwrap();
    for action in ["start", "rename"] {
        let before = looked();
        let event = json!({ "Type": "container", "Action": action, "Actor": { "ID": "c0ffee" } });
        engine.events.send(event.to_string()).unwrap();
        wait::until_true("it is looked at again", wait::SOON, || looked() > before);
    }
    // The next question of the same loop is answered after what was begun before.
    wait::until_true("it has its name again", wait::SOON, || {
        mesh.weft(0, &["status", "dns"]).ok().contains("c0ffee")
    });
    assert_eq!(mesh.get(0, "/ip").unwrap(), owned);
}

/// Docker tells of one start in several events; what failed is tried again once for all of them.
#[test]
fn one_start_is_tried_again_once() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let container = mesh.lab.new_container().unwrap();
    let mut sleep = Command::new("sleep");
    let process = mesh.lab.spawn_in(&container, sleep.arg("1000")).unwrap();
    let socket = mesh.folder(0).join("docker.sock");
    let page = json!({
        "Id": "c0ffee", "Name": "/new", "State": { "Running": true, "Pid": process.id() },
        "HostConfig": { "NetworkMode": "bridge" },
        "Config": { "Labels": { "weft.ip": "10.7.0.9/16" }, "Env": null },
        "NetworkSettings": { "Networks": null },
    });
    let launch = Launch::new()
        .with(&format!("--docker-api=unix://{}", socket.display()))
        .with("--attach=labels")
        .with("--weft-plugin-socket=");
    mesh.launch(0, &launch);
    mesh.call(0, "PUT", "/ip/another/10.7.0.9/16").unwrap();
    let engine = NewEngine::start(&socket, &page);
    for (kind, id, attributes) in [
        ("network", "n1", json!({ "container": "c0ffee" })),
        ("container", "c0ffee", json!({})),
    ] {
        let action = if kind == "network" {
            "connect"
        } else {
            "start"
        };
        let actor = json!({ "ID": id, "Attributes": attributes });
        let event = json!({ "Type": kind, "Action": action, "Actor": actor });
        engine.events.send(event.to_string()).unwrap();
    }
    let said = |text: &str| mesh.log(0).matches(text).count();
    wait::until_true("it is tried again", wait::LATER, || {
        said("still not attached") > 0
    });
    assert_eq!(said("it is tried again"), 1, "{}", mesh.log(0));
    mesh.call(0, "DELETE", "/ip/another").unwrap();
    let address = wait::until("the container is attached", wait::LATER, || {
        attached(&container)
    });
    assert_eq!(address.to_string(), "10.7.0.9");
}
