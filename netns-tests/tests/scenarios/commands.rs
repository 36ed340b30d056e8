//! What commands and pages show.

use netns_tests::{Kind, Launch, Mesh, needs_root, nickname, peer_name};
use serde_json::Value;

/// Two connected routers, the first with a container.
fn pair() -> (Mesh, netns_tests::Container) {
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch_all(&[&[], &[0]], &Launch::new().password("a secret"));
    mesh.wait_connected(0, 1);
    let container = mesh.attach(0);
    mesh.wait_routed(&[0, 1]);
    (mesh, container)
}

#[track_caller]
fn json(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

#[test]
fn status() {
    needs_root!();
    let (mesh, _container) = pair();
    let overview = mesh.weft(0, &["status"]).ok();
    for line in [
        "        Service: router\n",
        "       Protocol: weave 2\n",
        "           Name: 02:00:00:00:00:01(h1)\n",
        "     Encryption: enabled\n",
        "  PeerDiscovery: enabled\n",
        "        Targets: 0\n",
        "    Connections: 1 (1 established)\n",
        "          Peers: 2 (with 2 established connections)\n",
        " TrustedSubnets: none\n",
    ] {
        assert!(overview.contains(line), "{line:?} is not in:\n{overview}");
    }
    assert_eq!(mesh.get(0, "/status").unwrap(), overview);

    let connections = mesh.weft(1, &["status", "connections"]).ok();
    let expected = format!(
        "{:<24} established encrypted   weft   {}({}) encrypted=truemtu=1410\n",
        format!("-> {}:6783", mesh.address(0)),
        peer_name(0),
        nickname(0)
    );
    assert_eq!(connections, expected);
    let facts = json(&mesh.weft(1, &["status", "connections", "--json"]).ok());
    assert_eq!(facts[0]["peer"], peer_name(0));
    assert_eq!(facts[0]["state"], "established");

    let peers = mesh.weft(0, &["status", "peers"]).ok();
    for host in 0..2 {
        assert!(
            peers.contains(&format!("{}({})\n", peer_name(host), nickname(host))),
            "{peers}"
        );
    }
    let targets = mesh.weft(1, &["status", "targets"]).ok();
    assert_eq!(targets, format!("{}\n", mesh.address(0)));
    let weft = mesh.weft(0, &["status", "weft"]).ok();
    for label in [
        "Bridge: weave\n",
        "TapOffload: ",
        "UdpGso: ",
        "overlay=weft cipher=",
    ] {
        assert!(weft.contains(label), "{weft}");
    }
    assert_eq!(
        json(&mesh.weft(0, &["status", "--json"]).ok())["name"],
        peer_name(0)
    );
}

#[test]
fn report() {
    needs_root!();
    let (mesh, _container) = pair();
    let whole = json(&mesh.weft(0, &["report"]).ok());
    assert_eq!(whole["Router"]["NickName"], "h1");
    for (template, expected) in [
        ("{{.Router.Name}}", peer_name(0)),
        ("{{ .Version }}", "2.8.1".to_owned()),
        (
            "{{range .Router.Connections}}{{.State}}{{end}}",
            "established".to_owned(),
        ),
        (
            "{{if .Router.Encryption}}yes{{else}}no{{end}}",
            "yes".to_owned(),
        ),
        (
            "{{printf \"%s|%d\" .Router.NickName .Router.Port}}",
            "h1|6783".to_owned(),
        ),
        ("{{with .Router}}{{.Protocol}}{{end}}", "weave".to_owned()),
    ] {
        assert_eq!(
            mesh.weft(0, &["report", "-f", template]).ok(),
            format!("{expected}\n")
        );
    }
    let targets = json(
        &mesh
            .weft(1, &["report", "-f", "{{json .Router.Targets}}"])
            .ok(),
    );
    assert_eq!(targets[0], mesh.address(0).to_string());
    mesh.weft(0, &["report", "-f", "{{range"]).failed(1);
}

#[test]
fn ps() {
    needs_root!();
    let (mesh, container) = pair();
    let mut process = mesh
        .lab
        .spawn_in(
            &container.namespace,
            std::process::Command::new("sleep").arg("60"),
        )
        .unwrap();
    let pid = process.id().to_string();
    let line = mesh.weft(0, &["ps"]).ok();
    assert_eq!(
        line,
        format!("{pid} {} {}/16\n", container.mac, container.address)
    );
    assert_eq!(mesh.weft(0, &["ps", &pid]).ok(), line);
    assert_eq!(mesh.weft(0, &["ps", "nobody"]).ok(), "");
    let facts = json(&mesh.weft(0, &["ps", "--json"]).ok());
    assert_eq!(facts[0]["mac"], container.mac.to_string());
    assert_eq!(
        facts[0]["addresses"][0],
        format!("{}/16", container.address)
    );
    assert_eq!(mesh.weft(1, &["ps"]).ok(), "");
    process.kill().unwrap();
    process.wait().unwrap();
}

#[test]
fn connect_forget_and_stop() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    mesh.launch(0, &Launch::new());
    mesh.launch(1, &Launch::new());
    let peer = mesh.address(0).to_string();
    mesh.weft(1, &["connect", &peer]).ok();
    mesh.wait_connected(0, 1);
    mesh.weft(1, &["forget", &peer]).ok();
    assert_eq!(mesh.weft(1, &["status", "targets"]).ok(), "");
    mesh.weft(1, &["connect", "--replace", "192.0.2.7"]).ok();
    assert_eq!(mesh.weft(1, &["status", "targets"]).ok(), "192.0.2.7\n");
    mesh.weft(1, &["connect"]).failed(2);

    assert!(mesh.weft(1, &["version"]).ok().contains("router"));
    mesh.weft(1, &["stop"]).ok();
    assert_eq!(mesh.wait_for_end(1).code(), Some(0));
    assert!(mesh.devices(1).contains(&"weave".to_owned()));
    assert!(mesh.weft(1, &["version"]).ok().contains("not running"));
    for command in [
        &["status"][..],
        &["report"],
        &["connect", "x"],
        &["stop"],
        &["expose"],
    ] {
        let said = mesh.weft(1, command).failed(3);
        assert!(said.contains("weft launch"), "{said}");
    }
}

/// The control interface on a socket file that only its owner may use.
#[test]
fn control_on_a_socket_file() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    let path = mesh.folder(0).join("control.sock").display().to_string();
    for round in 1..3 {
        mesh.start(0, &Launch::new().with("--http-addr").with(&path));
        netns_tests::wait::until_true("it answers", netns_tests::wait::SOON, || {
            mesh.weft(0, &["status", "--http-addr", &path])
                .status
                .success()
        });
        let mode = std::fs::metadata(&path).unwrap();
        assert_eq!(
            std::os::unix::fs::PermissionsExt::mode(&mode.permissions()) & 0o777,
            0o600
        );
        mesh.weft(0, &["status"]).failed(3);
        let container = mesh.lab.new_container().unwrap();
        let target = container.path().display().to_string();
        let address = format!("10.99.1.{round}");
        let cidr = format!("{address}/16");
        let attach = ["attach", "--http-addr", &path, &cidr, &target];
        assert_eq!(mesh.weft(0, &attach).ok().trim_end(), address);
        // The file of a router that was killed is in nobody's way.
        mesh.kill(0);
    }
}

#[test]
fn metrics() {
    needs_root!();
    let (mesh, _container) = pair();
    let text = mesh.get(0, "/metrics").unwrap();
    let line = "weave_connections{encryption=\"yes\",state=\"established\",type=\"weft\"} 1";
    let labels = |line: &str| {
        let mut words: Vec<String> = line
            .split(['{', '}', ',', ' '])
            .map(str::to_owned)
            .collect();
        words.sort();
        words
    };
    assert!(
        text.lines().any(|found| labels(found) == labels(line)),
        "{text}"
    );
    assert!(text.contains("weave_connection_terminations_total 0"));
}

#[test]
fn help_pages_and_completions() {
    needs_root!();
    let mesh = Mesh::new(&[Kind::Weft]);
    for shell in ["bash", "zsh", "fish"] {
        assert!(
            mesh.weft(0, &["completions", shell])
                .ok()
                .contains("attach")
        );
    }
    let folder = mesh.folder(0).join("man");
    mesh.weft(0, &["man", &folder.display().to_string()]).ok();
    assert!(folder.join("weft.1").exists() && folder.join("weft-launch.1").exists());
    for command in ["launch", "demo", "status", "attach", "reset"] {
        assert!(
            mesh.weft(0, &[command, "--help"])
                .ok()
                .contains("Usage: weft")
        );
    }
    mesh.weft(0, &[]).failed(2);
}
