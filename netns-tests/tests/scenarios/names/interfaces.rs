//! Names by commands and over HTTP.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use netns_tests::{Kind, Launch, Mesh, needs_root};
use serde_json::Value;

use super::{ip, wait_for_name};

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
    // Nothing waits for the disk when a name is added, so the kill must not be at once.
    wait_for_name(&mesh, &[0, 1], "queue", &[container.address]);
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
        "/../router/report/tests/vectors/http.json"
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

/// Returns what was recorded, without a name that came by gossip, and with the times of death of
/// `ours`.
fn without_others(recorded: &str, ours: &Value) -> Value {
    let mut entries: Vec<Value> = serde_json::from_str(recorded).unwrap();
    entries.retain(|entry| entry["ContainerID"] != "x");
    for (entry, our) in entries.iter_mut().zip(ours.as_array().unwrap()) {
        assert_eq!(entry["Tombstone"] == 0, our["Tombstone"] == 0);
        entry["Tombstone"] = our["Tombstone"].clone();
    }
    entries.into()
}
