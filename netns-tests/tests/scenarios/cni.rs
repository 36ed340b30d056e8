//! The CNI plugin, run as container runtimes run it.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use host::attach::{self, AttachRequest};
use kernel::netns::Namespace;
use lab::pinger::Pinger;
use netns_tests::{Kind, Launch, Mesh, needs_root, wait};
use serde_json::{Value, json};

/// A host with a router, and the plugin under all its names.
struct Host {
    mesh: Mesh,
    bin: PathBuf,
    state: PathBuf,
}

/// A call of the plugin.
#[derive(Clone)]
struct Call<'c> {
    program: &'c str,
    command: &'c str,
    container: &'c str,
    netns: String,
    interface: &'c str,
    arguments: &'c str,
    conf: String,
}

impl<'c> Call<'c> {
    fn new(command: &'c str, container: &'c str, target: &Namespace, conf: &str) -> Call<'c> {
        Call {
            program: "weft-net",
            command,
            container,
            netns: target.path().display().to_string(),
            interface: "eth0",
            arguments: "",
            conf: conf.to_owned(),
        }
    }

    fn with_command(&self, command: &'c str) -> Call<'c> {
        Call {
            command,
            ..self.clone()
        }
    }
}

/// What the plugin answered.
#[derive(Debug)]
struct Answer {
    code: Option<i32>,
    value: Value,
    complaints: String,
}

impl Answer {
    #[track_caller]
    fn ok(self) -> Value {
        assert_eq!(self.code, Some(0), "{self:?}");
        self.value
    }

    #[track_caller]
    fn failed(self, code: u32) -> String {
        assert_eq!(self.code, Some(1), "{self:?}");
        assert_eq!(self.value["code"], code, "{self:?}");
        assert!(self.value["cniVersion"].is_string(), "{self:?}");
        self.value["msg"].as_str().unwrap().to_owned()
    }
}

impl Host {
    fn new() -> Host {
        Host::with(Mesh::new(&[Kind::Weft]))
    }

    fn with(mesh: Mesh) -> Host {
        let bin = mesh.lab.folder().join("cni-bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["weft-net", "weft-ipam", "weave-net", "weave-ipam"] {
            symlink(netns_tests::weft(), bin.join(name)).unwrap();
        }
        let state = mesh.lab.folder().join("cni-state");
        Host { mesh, bin, state }
    }

    fn launch(&mut self) {
        self.mesh.launch(0, &Launch::new());
        self.mesh.weft(0, &["prime"]).ok();
    }

    /// Returns a configuration with these keys beside the usual ones.
    fn conf(&self, version: &str, rest: Value) -> String {
        let mut conf = json!({
            "cniVersion": version, "name": "weave", "type": "weave-net",
            "stateDir": self.state.display().to_string(),
        });
        for (key, value) in rest.as_object().unwrap() {
            conf[key] = value.clone();
        }
        conf.to_string()
    }

    #[track_caller]
    fn call(&self, call: &Call<'_>) -> Answer {
        self.call_on(0, call)
    }

    #[track_caller]
    fn call_on(&self, host: usize, call: &Call<'_>) -> Answer {
        let mut command = Command::new(self.bin.join(call.program));
        command.env_clear();
        command.env("CNI_COMMAND", call.command);
        command.env("CNI_CONTAINERID", call.container);
        command.env("CNI_NETNS", &call.netns);
        command.env("CNI_IFNAME", call.interface);
        command.env("CNI_ARGS", call.arguments);
        command.env("CNI_PATH", &self.bin);
        command.stdin(Stdio::piped());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.mesh.namespace(host).spawn(&mut command).unwrap();
        let mut input = child.stdin.take().unwrap();
        input.write_all(call.conf.as_bytes()).unwrap();
        drop(input);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Answer {
            code: output.status.code(),
            value: serde_json::from_str(&text).unwrap_or_default(),
            complaints: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Whose addresses the router keeps, sorted.
    fn owners(&self) -> Vec<String> {
        let owned = self.mesh.get_json(0, "/ip").unwrap();
        let owned = owned["owned"].as_array().cloned().unwrap_or_default();
        let ids = owned.iter().map(|entry| entry["containerid"].as_str());
        let mut ids: Vec<String> = ids.map(|id| id.unwrap().to_owned()).collect();
        ids.sort();
        ids
    }

    fn container(&self) -> Namespace {
        self.mesh.lab.new_container().unwrap()
    }

    fn veths(&self) -> usize {
        let devices = self.mesh.devices(0);
        devices
            .iter()
            .filter(|name| name.starts_with("vethwepl"))
            .count()
    }
}

fn links(namespace: &Namespace) -> Vec<String> {
    let links = namespace.netlink().unwrap().links().unwrap();
    links.into_iter().map(|link| link.name).collect()
}

/// Returns the routes and rules of a namespace, as the system's tools print them.
fn shown(namespace: &Namespace, program: &str, arguments: &[&str]) -> String {
    let mut command = Command::new(program);
    command.args(arguments).stdout(Stdio::piped());
    let child = namespace.spawn(&mut command).unwrap();
    String::from_utf8(child.wait_with_output().unwrap().stdout).unwrap()
}

#[track_caller]
fn must_reach(from: &Namespace, to: &str) {
    let mut pinger = Pinger::new(from).unwrap();
    let deadline = Instant::now() + wait::SOON;
    let interval = Duration::from_millis(100);
    let answer = pinger.wait_for(to.parse().unwrap(), interval, deadline);
    assert!(answer.unwrap().is_some(), "{to} is not reached");
}

/// Returns the address of a result of any version, without its prefix.
fn address(result: &Value) -> String {
    let text = result["ip4"]["ip"].as_str();
    let text = text.or(result["ips"][0]["address"].as_str()).unwrap();
    text.split('/').next().unwrap().to_owned()
}

/// Returns true if `ours` has everything that `theirs` has.
fn includes(ours: &Value, theirs: &Value) -> bool {
    match (ours, theirs) {
        (Value::Object(ours), Value::Object(theirs)) => theirs
            .iter()
            .all(|(key, value)| ours.get(key).is_some_and(|ours| includes(ours, value))),
        (Value::Array(ours), Value::Array(theirs)) => {
            ours.len() == theirs.len() && ours.iter().zip(theirs).all(|(o, t)| includes(o, t))
        }
        (ours, theirs) => ours == theirs,
    }
}

/// Every verb, in every version that has it.
#[test]
fn all_verbs_in_all_versions() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let peer = host.container();
    let conf = host.conf("1.0.0", json!({}));
    let result = host.call(&Call::new("ADD", "peer", &peer, &conf)).ok();
    let peer_address = address(&result);
    let owners = host.owners();
    assert_eq!(owners, ["cni:weave:peer:eth0", "weave:expose"]);
    for version in [
        "0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0",
    ] {
        let target = host.container();
        let mut call = Call::new("ADD", "c1", &target, &host.conf(version, json!({})));
        let result = host.call(&call).ok();
        assert_eq!(result["cniVersion"], version);
        check_shape(&result, version, &call.netns);
        // Again: the same.
        assert_eq!(host.call(&call).ok(), result);
        must_reach(&target, &peer_address);
        let routes = shown(&target, "ip", &["route"]);
        assert!(routes.contains("default via 10.7.0."), "{routes}");
        assert!(!routes.contains("224.0.0.0/4"), "{routes}");

        call.conf = host.conf(version, json!({ "prevResult": result }));
        let checked = host.call(&call.with_command("CHECK"));
        if version < "0.4.0" {
            checked.failed(1);
        } else {
            checked.ok();
        }
        let valid = json!([{ "containerID": "peer", "ifname": "eth0" },
            { "containerID": "c1", "ifname": "eth0" }]);
        for (command, rest) in [
            ("STATUS", json!({})),
            ("GC", json!({ "cni.dev/valid-attachments": valid })),
        ] {
            let mut other = call.with_command(command);
            other.conf = host.conf(version, rest);
            let answer = host.call(&other);
            if version < "1.1.0" {
                answer.failed(1);
            } else {
                answer.ok();
            }
        }
        must_reach(&target, &peer_address);
        for _ in 0..2 {
            host.call(&call.with_command("DEL")).ok();
            assert_eq!(links(&target), ["lo"]);
            assert_eq!(host.owners(), owners);
        }
        let versions = host.call(&call.with_command("VERSION")).ok();
        assert_eq!(versions["cniVersion"], version);
    }
    assert_eq!(host.veths(), 1);
}

/// What the specification demands of a result.
#[track_caller]
fn check_shape(result: &Value, version: &str, netns: &str) {
    let gateway;
    if version < "0.3.0" {
        assert!(result["ip4"]["ip"].as_str().unwrap().ends_with("/16"));
        gateway = &result["ip4"]["gateway"];
        assert_eq!(result["ip4"]["routes"][0]["dst"], "0.0.0.0/0");
    } else {
        let interfaces = result["interfaces"].as_array().unwrap();
        assert_eq!(interfaces.len(), 2);
        assert!(interfaces[0]["sandbox"].is_null());
        assert_eq!(interfaces[1]["name"], "eth0");
        assert_eq!(interfaces[1]["sandbox"], netns);
        assert_eq!(interfaces[1]["mac"].as_str().unwrap().len(), 17);
        let ip = &result["ips"][0];
        assert_eq!(ip["version"].as_str(), (version < "1.0.0").then_some("4"));
        assert_eq!(ip["interface"], 1);
        gateway = &ip["gateway"];
        assert_eq!(result["routes"][0]["gw"], *gateway);
    }
    assert!(gateway.as_str().unwrap().starts_with("10.7.0."));
}

/// The recorded calls of Weave Net's plugin: what it answered, ours answers as well, and does the
/// same to the container.
#[test]
fn the_originals_calls_work_unchanged() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    host.mesh.weft(0, &["expose", "10.7.0.200/16"]).ok();
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../router/cni/tests/vectors/cni.json"
    );
    let text = std::fs::read_to_string(path).unwrap();
    let vectors: Vec<Value> = serde_json::from_str(&text).unwrap();
    let target = host.container();
    for vector in &vectors {
        let text = |key: &str| vector[key].as_str().unwrap_or_default();
        let Some(command) = text("command").split(' ').next() else {
            continue;
        };
        let ipam = text("command").contains("ipam");
        let own = text("command").contains("host namespace");
        let first = |key: &str| vectors[0][key].as_str().unwrap().to_owned();
        let or_first = |key: &str| match text(key) {
            "" => first(key),
            text => text.to_owned(),
        };
        let (container, conf) = (or_first("container"), or_first("stdin"));
        let mut call = Call::new(command, &container, &target, &conf);
        call.program = if ipam { "weave-ipam" } else { "weave-net" };
        call.interface = "eth7";
        if ipam {
            // The refused ADD before it cost Weave Net an address.
            host.mesh.post(0, "/ip/lost", "").ok().unwrap();
        }
        if own {
            call.netns = "/proc/self/ns/net".into();
        }
        let answer = host.call(&call);
        assert_eq!(
            answer.code,
            Some(i32::try_from(vector["exit"].as_i64().unwrap()).unwrap())
        );
        if command == "VERSION" || text("stdout").is_empty() {
            continue;
        }
        let theirs: Value = serde_json::from_str(text("stdout")).unwrap();
        assert!(
            includes(&answer.value, &theirs),
            "{} lacks some of {theirs}",
            answer.value
        );
        for route in vector["container_routes"].as_array().into_iter().flatten() {
            let routes = shown(&target, "ip", &["route"]);
            assert!(routes.contains(route.as_str().unwrap()), "{routes}");
        }
    }
}

#[test]
fn the_configuration_is_obeyed() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let target = host.container();
    let conf = host.conf(
        "1.1.0",
        json!({
            "mtu": 1300,
            "hairpinMode": false,
            "ipam": {
                "type": "weave-ipam",
                "subnet": "10.7.9.0/24",
                "gateway": "10.7.1.1",
                "routes": [{ "dst": "192.168.0.0/16" }, { "dst": "172.30.0.0/16", "gw": "10.7.9.9" }],
            },
            "dns": { "nameservers": ["10.7.9.53"], "search": ["weave.local"] },
            "runtimeConfig": { "ips": ["10.7.9.77/24"], "mac": "0e:11:22:33:44:55" },
        }),
    );
    let call = Call::new("ADD", "c1", &target, &conf);
    let result = host.call(&call).ok();
    assert_eq!(result["ips"][0]["address"], "10.7.9.77/24");
    assert_eq!(result["ips"][0]["gateway"], "10.7.1.1");
    assert_eq!(result["interfaces"][1]["mac"], "0e:11:22:33:44:55");
    assert_eq!(result["interfaces"][1]["mtu"], 1300);
    assert_eq!(result["dns"]["search"][0], "weave.local");
    let routes = shown(&target, "ip", &["route"]);
    for line in [
        "10.7.1.1 dev eth0 proto static scope link",
        "192.168.0.0/16 via 10.7.1.1 dev eth0",
        "172.30.0.0/16 via 10.7.9.9 dev eth0",
    ] {
        assert!(routes.contains(line), "{routes}");
    }
    assert!(!routes.contains("default"), "{routes}");
    let netlink = host.mesh.namespace(0).netlink().unwrap();
    let name = result["interfaces"][0]["name"].as_str().unwrap();
    let port = netlink.link_named(name).unwrap().port.unwrap();
    assert!(!port.hairpin);
    // A second interface of the same container has an address of its own.
    let mut second = Call::new("ADD", "c1", &target, &host.conf("1.0.0", json!({})));
    second.interface = "net1";
    let second_result = host.call(&second).ok();
    assert_ne!(address(&second_result), "10.7.9.77");
    host.call(&second.with_command("DEL")).ok();
    assert_eq!(links(&target), ["lo", "eth0"]);
    host.call(&call.with_command("DEL")).ok();
    assert_eq!(host.owners(), ["weave:expose"]);
}

/// A pod has the same address and MAC wherever it runs next.
#[test]
fn sticky_pods_move() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    mesh.wait_connected(0, 1);
    mesh.weft(0, &["prime"]).ok();
    let host = Host::with(mesh);
    let conf = host.conf("1.0.0", json!({ "sticky": true }));
    let arguments = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=db-0";
    let mut before = None;
    for (at, container) in [(0, "c1"), (1, "c2"), (0, "c3")] {
        let target = host.container();
        let mut call = Call::new("ADD", container, &target, &conf);
        call.arguments = arguments;
        let result = host.call_on(at, &call).ok();
        let facts = (
            result["ips"][0]["address"].clone(),
            result["interfaces"][1]["mac"].clone(),
        );
        assert_eq!(*before.get_or_insert(facts.clone()), facts);
        assert_eq!(host.call_on(at, &call).ok(), result);
        // It is found by its name, from the other host as well.
        let lookup = || {
            host.mesh
                .weft(1 - at, &["dns-lookup", "db-0.shop.weave.local"])
        };
        let address = facts.0.as_str().unwrap().split('/').next().unwrap();
        netns_tests::wait::until_true("its name is known", netns_tests::wait::SOON, || {
            lookup().stdout.trim() == address
        });
        // Nobody else may be it meanwhile.
        let other = host.container();
        let mut twin = Call::new("ADD", "twin", &other, &conf);
        twin.arguments = arguments;
        let said = host.call_on(1 - at, &twin).failed(102);
        assert!(said.contains("shop/db-0"), "{said}");
        assert_eq!(links(&other), ["lo"]);
        host.call_on(at, &call.with_command("DEL")).ok();
        netns_tests::wait::until_true("its name is gone", netns_tests::wait::SOON, || {
            lookup().stdout.trim().is_empty()
        });
    }
    let nobody = host.container();
    host.call(&Call::new("ADD", "c4", &nobody, &conf)).failed(4);
}

#[test]
fn a_failed_add_leaves_nothing() {
    needs_root!();
    let mut host = Host::new();
    let target = host.container();
    let conf = host.conf("1.0.0", json!({}));
    // No router.
    let said = host
        .call(&Call::new("ADD", "c1", &target, &conf))
        .failed(11);
    assert!(said.contains("weft launch"), "{said}");
    host.launch();
    let add = |rest: Value| {
        let conf = host.conf("1.0.0", rest);
        host.call(&Call::new("ADD", "c1", &target, &conf))
    };
    // No such bridge, with and without a gateway; no way to the gateway of a route; no space.
    let gateway = json!({ "gateway": "10.7.0.1" });
    add(json!({ "bridge": "nobridge" })).failed(100);
    add(json!({ "bridge": "nobridge", "ipam": gateway })).failed(100);
    let far = json!([{ "dst": "192.168.0.0/16", "gw": "198.51.100.1" }]);
    let said = add(json!({ "ipam": { "routes": far } })).failed(100);
    assert!(said.contains("192.168.0.0/16"), "{said}");
    add(json!({ "ipam": { "subnet": "10.9.0.0/24" } })).failed(100);
    add(json!({ "mtu": 67 })).failed(100);
    assert_eq!(links(&target), ["lo"]);
    assert_eq!(host.veths(), 0);
    let ours = |owners: Vec<String>| owners.iter().filter(|id| id.starts_with("cni:")).count();
    assert_eq!(ours(host.owners()), 0);
    // An interface of this name that is not ours.
    let netlink = target.netlink().unwrap();
    netlink
        .create_bridge(&kernel::netlink::NewBridge {
            name: "eth0",
            mac: None,
        })
        .unwrap();
    add(json!({})).failed(100);
    assert_eq!(ours(host.owners()), 0);
    let call = Call::new("DEL", "c1", &target, &conf);
    host.call(&call).ok();
    assert_eq!(links(&target), ["lo", "eth0"]);
    netlink
        .delete_link(&netlink.link_named("eth0").unwrap())
        .unwrap();
    // A failed repetition keeps what the first ADD made.
    let first = add(json!({})).ok();
    let far = json!([{ "dst": "192.168.0.0/16", "gw": "198.51.100.1" }]);
    add(json!({ "ipam": { "routes": far } })).failed(100);
    assert_eq!(add(json!({})).ok(), first);
    host.call(&call).ok();
    assert_eq!(ours(host.owners()), 0);
}

/// DEL when there is nothing left: no namespace, no router, neither.
#[test]
fn del_always_succeeds() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("1.0.0", json!({}));
    let gone = "/run/netns/weft-test-none";
    for without_path in [false, true] {
        let target = host.container();
        let add = Call::new("ADD", "c1", &target, &conf);
        host.call(&add).ok();
        let mut del = add.with_command("DEL");
        del.netns = if without_path {
            String::new()
        } else {
            gone.into()
        };
        host.call(&del).ok();
        assert_eq!(host.veths(), 0);
        assert_eq!(host.owners(), ["weave:expose"]);
    }
    // Without the router, its address stays taken until the router is told.
    let target = host.container();
    let add = Call::new("ADD", "c2", &target, &conf);
    let first = host.call(&add).ok();
    host.mesh.kill(0);
    for _ in 0..2 {
        let answer = host.call(&add.with_command("DEL"));
        assert!(answer.complaints.contains("later"), "{answer:?}");
        answer.ok();
    }
    assert_eq!(links(&target), ["lo"]);
    host.launch();
    assert_eq!(host.owners(), ["cni:weave:c2:eth0", "weave:expose"]);
    let again = host.call(&add).ok();
    assert_eq!(host.owners(), ["cni:weave:c2:eth0", "weave:expose"]);
    assert_eq!(host.call(&add).ok(), again);
    drop(first);
    host.call(&add.with_command("DEL")).ok();
    assert_eq!(host.owners(), ["weave:expose"]);
}

/// An address whose giving was not heard of is given back by the next call; that of a container
/// which is attached stays.
#[test]
fn an_answer_that_is_lost_leaves_nothing() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("1.0.0", json!({}));
    let [first, second] = [host.container(), host.container()];
    let attached = Call::new("ADD", "c1", &first, &conf);
    let given = host.call(&attached).ok();
    // It passes requests on to the router, and no answers back.
    let open = || TcpListener::bind("127.0.0.1:6799").unwrap();
    let listener = host.mesh.namespace(0).run(open).unwrap();
    let inside = host.mesh.namespace(0).clone();
    let lossy = std::thread::spawn(move || {
        for _ in 0..2 {
            let (mut plugin, _) = listener.accept().unwrap();
            let connect = || TcpStream::connect("127.0.0.1:6784").unwrap();
            let mut router = inside.run(connect).unwrap();
            let mut buffer = [0; 4096];
            let read = plugin.read(&mut buffer).unwrap();
            router.write_all(&buffer[..read]).unwrap();
            assert!(router.read(&mut buffer).unwrap() > 0);
        }
    });
    let lossy_conf = host.conf("1.0.0", json!({ "httpAddr": "127.0.0.1:6799" }));
    for (id, target) in [("c1", &first), ("c2", &second)] {
        host.call(&Call::new("ADD", id, target, &lossy_conf))
            .failed(11);
    }
    lossy.join().unwrap();
    let owners = ["cni:weave:c1:eth0", "cni:weave:c2:eth0", "weave:expose"];
    assert_eq!(host.owners(), owners);
    assert_eq!(links(&second), ["lo"]);
    assert_eq!(host.call(&attached).ok(), given);
    assert_eq!(host.owners(), ["cni:weave:c1:eth0", "weave:expose"]);
}

/// Addresses that a Weave Net router gave out stand under the container's id alone.
#[test]
fn containers_of_weave_net_are_detached() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("0.3.0", json!({}));
    let target = host.container();
    host.mesh.weft(0, &["expose"]).ok();
    let given = host.mesh.post(0, "/ip/old", "").ok().unwrap();
    let (inside, address) = (target.clone(), given.parse().unwrap());
    let request = AttachRequest {
        interface: "eth0",
        addresses: &[address],
        ..AttachRequest::new("weave", &inside)
    };
    let attached = host.mesh.namespace(0).run(|| attach::attach(&request));
    attached.unwrap().unwrap();
    host.mesh.post(0, "/ip/old/10.7.7.0/24", "").ok().unwrap();
    // One interface of two: only its address.
    host.call(&Call::new("DEL", "old", &target, &conf)).ok();
    let owned = host.mesh.get(0, "/ip/old").unwrap();
    assert!(owned.starts_with("10.7.7."), "{owned}");
    // The container is gone.
    let mut del = Call::new("DEL", "old", &target, &conf);
    del.netns = String::new();
    host.call(&del).ok();
    assert_eq!(host.mesh.get(0, "/ip/old").unwrap(), "");
}

#[test]
fn check_finds_what_has_changed() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let target = host.container();
    let add = Call::new("ADD", "c1", &target, &host.conf("1.0.0", json!({})));
    let result = host.call(&add).ok();
    let mut check = add.with_command("CHECK");
    host.call(&check).failed(7);
    check.conf = host.conf("1.0.0", json!({ "prevResult": result }));
    host.call(&check).ok();
    let netlink = target.netlink().unwrap();
    let link = netlink.link_named("eth0").unwrap();
    let network = result["ips"][0]["address"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();

    netlink.set_up(&link, false).unwrap();
    host.call(&check).failed(101);
    netlink.set_up(&link, true).unwrap();
    // The route went with it.
    host.call(&check).failed(101);
    host.call(&add).ok();
    host.call(&check).ok();
    netlink.delete_address(&link, network).unwrap();
    host.call(&check).failed(101);
    host.call(&add).ok();
    host.call(&check).ok();
    let mut other = result.clone();
    other["interfaces"][1]["mac"] = "0e:00:00:00:00:99".into();
    let mut wrong = check.clone();
    wrong.conf = host.conf("1.0.0", json!({ "prevResult": other }));
    host.call(&wrong).failed(101);
    host.mesh.weft(0, &["stop"]).ok();
    host.mesh.wait_for_end(0);
    host.call(&check).failed(11);
    host.launch();
    host.call(&check).ok();
    host.call(&add.with_command("DEL")).ok();
    host.call(&check).failed(101);
}

/// GC removes this network's attachments that are not listed, and nothing else.
#[test]
fn garbage_is_collected() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("1.1.0", json!({}));
    let other = host.conf("1.1.0", json!({ "name": "other" }));
    let targets: Vec<Namespace> = (0..4).map(|_| host.container()).collect();
    for (container, target, conf) in [
        ("keep", &targets[0], &conf),
        ("stale", &targets[1], &conf),
        ("stale", &targets[2], &other),
    ] {
        host.call(&Call::new("ADD", container, target, conf)).ok();
    }
    host.mesh.post(0, "/ip/docker", "").ok().unwrap();
    let path = targets[3].path().display().to_string();
    host.mesh.weft(0, &["attach", &path]).ok();
    let mut ipam = Call::new("ADD", "alone", &targets[0], &conf);
    ipam.program = "weft-ipam";
    host.call(&ipam).ok();
    assert_eq!(host.owners().len(), 7);
    let mut gc = Call::new("GC", "", &targets[0], &conf);
    host.call(&gc).failed(7);
    let valid = json!([{ "containerID": "keep", "ifname": "eth0" }]);
    gc.conf = host.conf("1.1.0", json!({ "cni.dev/valid-attachments": valid }));
    for _ in 0..2 {
        host.call(&gc).ok();
        let owners = host.owners();
        assert_eq!(
            owners[..3],
            ["cni:other:stale:eth0", "cni:weave:keep:eth0", "docker"]
        );
        assert_eq!(owners.len(), 5, "{owners:?}");
        assert_eq!(links(&targets[1]), ["lo"]);
        for kept in [0, 2] {
            assert_eq!(links(&targets[kept]), ["lo", "eth0"]);
        }
    }
}

#[test]
fn status_says_whether_an_add_would_work() {
    needs_root!();
    let mut host = Host::new();
    let target = host.container();
    let call = Call::new("STATUS", "", &target, &host.conf("1.1.0", json!({})));
    host.call(&call).failed(51);
    host.launch();
    host.call(&call).ok();
    let mut other = call.clone();
    other.conf = host.conf("1.1.0", json!({ "bridge": "nobridge" }));
    host.call(&other).failed(50);
}

/// Addresses from another plugin, which runs as the runtime would run it.
#[test]
fn another_plugin_gives_addresses() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let script = r#"#!/bin/sh
conf=$(cat)
echo "$CNI_COMMAND $CNI_CONTAINERID" >>"$(dirname "$0")/calls"
case "$conf" in *fail*) echo '{"cniVersion":"1.0.0","code":42,"msg":"nothing left"}'; exit 1;; esac
[ "$CNI_COMMAND" != ADD ] ||
    echo '{"cniVersion":"0.2.0","ip4":{"ip":"10.7.200.5/16","gateway":"10.7.0.1"}}'
"#;
    let program = host.bin.join("other-ipam");
    std::fs::write(&program, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&program, mode).unwrap();
    let target = host.container();
    let conf = host.conf("1.0.0", json!({ "ipam": { "type": "other-ipam" } }));
    let add = Call::new("ADD", "c1", &target, &conf);
    let result = host.call(&add).ok();
    assert_eq!(result["ips"][0]["address"], "10.7.200.5/16");
    assert_eq!(host.owners(), Vec::<String>::new());
    let mut check = add.with_command("CHECK");
    check.conf = host.conf(
        "1.0.0",
        json!({ "ipam": { "type": "other-ipam" }, "prevResult": result }),
    );
    host.call(&check).ok();
    host.call(&add.with_command("DEL")).ok();
    let mut bad = add.clone();
    bad.conf = host.conf(
        "1.0.0",
        json!({ "ipam": { "type": "other-ipam", "fail": 1 } }),
    );
    assert!(host.call(&bad).failed(42).contains("nothing left"));
    bad.conf = host.conf("1.0.0", json!({ "ipam": { "type": "absent" } }));
    assert!(host.call(&bad).failed(7).contains("absent"));
    // What it gave is given back when the rest fails.
    bad.conf = host.conf(
        "1.0.0",
        json!({ "ipam": { "type": "other-ipam" }, "bridge": "none" }),
    );
    host.call(&bad).failed(100);
    let calls = std::fs::read_to_string(host.bin.join("calls")).unwrap();
    let lines: Vec<&str> = calls.lines().collect();
    let expected = ["ADD c1", "CHECK c1", "DEL c1", "ADD c1", "ADD c1", "DEL c1"];
    assert_eq!(lines, expected);
    assert_eq!(links(&target), ["lo"]);
}

/// Ten containers at once, none of which waits for a bridge that has an address.
#[test]
fn ten_containers_at_once() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("1.0.0", json!({}));
    let targets: Vec<Namespace> = (0..10).map(|_| host.container()).collect();
    let ids: Vec<String> = (0..10).map(|number| format!("c{number}")).collect();
    let mut addresses: Vec<String> = std::thread::scope(|scope| {
        let threads = targets.iter().zip(&ids).map(|(target, id)| {
            let call = Call::new("ADD", id, target, &conf);
            let host = &host;
            scope.spawn(move || address(&host.call(&call).ok()))
        });
        let threads: Vec<_> = threads.collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect()
    });
    must_reach(&targets[0], &addresses[9]);
    addresses.sort();
    addresses.dedup();
    assert_eq!(addresses.len(), 10);
    assert_eq!(host.owners().len(), 11);
}

/// What `weft setup-cni` writes is what a runtime finds, once the router is ready.
#[test]
fn the_plugin_is_installed() {
    needs_root!();
    let mut host = Host::new();
    let folder = host.mesh.lab.folder().join("runtime");
    let [bin, net] = ["bin", "net.d"].map(|name| folder.join(name).display().to_string());
    let setup = [
        "setup-cni",
        "--timeout=1s",
        "--bin-dir",
        &bin,
        "--conf-dir",
        &net,
    ];
    host.mesh.weft(0, &setup).failed(3);
    assert!(!folder.exists());
    host.launch();
    host.mesh.weft(0, &setup).ok();
    let text = std::fs::read_to_string(folder.join("net.d/10-weft.conflist")).unwrap();
    let list: Value = serde_json::from_str(&text).unwrap();
    host.bin = folder.join("bin");
    for version in list["cniVersions"].as_array().unwrap() {
        let mut conf = list["plugins"][0].clone();
        conf["cniVersion"] = version.clone();
        conf["name"] = list["name"].clone();
        conf["stateDir"] = host.state.display().to_string().into();
        let target = host.container();
        let mut call = Call::new("ADD", "c1", &target, &conf.to_string());
        for program in ["weft-net", "weave-net"] {
            call.program = program;
            assert_eq!(host.call(&call).ok()["cniVersion"], *version);
        }
        host.call(&call.with_command("DEL")).ok();
    }
    let mut remove = setup.to_vec();
    remove.push("--remove");
    assert!(host.mesh.weft(0, &remove).ok().contains("10-weft.conflist"));
    assert_eq!(std::fs::read_dir(folder.join("net.d")).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(folder.join("bin")).unwrap().count(), 0);
}

/// An ADD takes less than 50 ms in a release build, the start of the program included; what was
/// measured is printed, for one at a time and for ten at once.
#[test]
fn figures() {
    needs_root!();
    let mut host = Host::new();
    host.launch();
    let conf = host.conf("1.0.0", json!({}));
    let targets: Vec<Namespace> = (0..100).map(|_| host.container()).collect();
    let ids: Vec<String> = (0..100).map(|number| format!("c{number}")).collect();
    for at_once in [1, 10] {
        for command in ["ADD", "CHECK", "DEL"] {
            let time = |(target, id): (&Namespace, &String)| {
                let mut call = Call::new(command, id, target, &conf);
                if command == "CHECK" {
                    let add = host.call(&call.with_command("ADD")).ok();
                    call.conf = host.conf("1.0.0", json!({ "prevResult": add }));
                }
                let start = Instant::now();
                host.call(&call).ok();
                start.elapsed()
            };
            let all: Vec<(&Namespace, &String)> = targets.iter().zip(&ids).collect();
            let share = all.len() / at_once;
            let mut times: Vec<Duration> = std::thread::scope(|scope| {
                let work = |share: &[(&Namespace, &String)]| -> Vec<Duration> {
                    share.iter().copied().map(time).collect()
                };
                let shares: Vec<_> = all
                    .chunks(share)
                    .map(|share| scope.spawn(move || work(share)))
                    .collect();
                shares.into_iter().flat_map(|s| s.join().unwrap()).collect()
            });
            times.sort();
            let [median, worst] = [times[50], times[98]];
            println!("100 times {command}, {at_once} at once: p50 {median:.1?}, p99 {worst:.1?}");
            assert!(median < Duration::from_millis(500), "{median:?}");
        }
    }
}
