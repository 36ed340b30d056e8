//! Our pages beside those of a real router in the same mesh.

use std::collections::BTreeSet;

use netns_tests::{Kind, Launch, Mesh, needs_real, wait};
use serde_json::Value;

const REAL: usize = 1;
const OURS: usize = 2;

/// Returns both have dialled a third router, and somebody has dialled both.
fn mixed() -> Mesh {
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weaver, Kind::Weft, Kind::Weft]);
    mesh.launch_all(
        &[&[], &[0], &[0], &[1, 2]],
        &Launch::new().password("a secret"),
    );
    let containers = mesh.attach_all();
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        mesh.wait_connected(a, b);
    }
    mesh.wait_routed(&[0, 1, 2, 3]);
    for (a, b) in [(0, 1), (1, 2), (2, 3), (3, 0)] {
        containers[a].must_reach(&containers[b]);
    }
    mesh
}

/// The paths of all fields, and what kind of value is there; elements of lists count as one.
fn shape(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                shape(value, &format!("{path}.{name}"), into);
            }
        }
        Value::Array(elements) => {
            for element in elements {
                shape(element, &format!("{path}[]"), into);
            }
        }
        Value::Null => {
            into.insert(format!("{path}: null"));
        }
        Value::Bool(_) => {
            into.insert(format!("{path}: bool"));
        }
        Value::Number(_) => {
            into.insert(format!("{path}: number"));
        }
        Value::String(_) => {
            into.insert(format!("{path}: string"));
        }
    }
}

#[test]
fn reports_have_the_same_shape() {
    needs_real!();
    let mesh = mixed();
    let shape_of = |host: usize| {
        let mut report = mesh.report(host);
        let router = report["Router"].as_object_mut().unwrap();
        // The allocator of addresses has pages of its own.
        let overlays = router.remove("OverlayDiagnostics").unwrap();
        let mut paths = BTreeSet::new();
        assert!(overlays.as_object().unwrap().contains_key("sleeve"));
        shape(&report["Router"], "Router", &mut paths);
        for key in ["Ready", "Version", "VersionCheck"] {
            shape(&report[key], key, &mut paths);
        }
        paths
    };
    let (real, ours) = (shape_of(REAL), shape_of(OURS));
    let missing: Vec<&String> = real.difference(&ours).collect();
    let extra: Vec<&String> = ours.difference(&real).collect();
    assert!(
        missing.is_empty() && extra.is_empty(),
        "missing {missing:?}, extra {extra:?}"
    );
}

/// Both see the same mesh.
#[test]
fn reports_agree() {
    needs_real!();
    let mesh = mixed();
    let seen = |host: usize| {
        let report = mesh.report(host);
        let peers = report["Router"]["Peers"].as_array().unwrap();
        let mut peers: Vec<Value> = peers.clone();
        for peer in &mut peers {
            // Other ends have other addresses, and their order is by chance.
            let connections = peer["Connections"].as_array_mut().unwrap();
            connections.sort_by_key(|connection| connection["Name"].to_string());
        }
        peers.sort_by_key(|peer| peer["Name"].to_string());
        peers
    };
    wait::until_true("all see the same", wait::LATER, || {
        let real = seen(REAL);
        real == seen(OURS) && real == seen(0)
    });
}

#[test]
fn status_pages_have_the_same_form() {
    needs_real!();
    let mesh = mixed();
    let labels = |host: usize| -> Vec<String> {
        let page = mesh.get(host, "/status").unwrap();
        let router = page
            .split("\n\n")
            .find(|part| part.contains("Service: router"))
            .unwrap();
        let labels = router.lines().filter_map(|line| line.split_once(':'));
        labels.map(|(label, _)| label.to_owned()).collect()
    };
    assert_eq!(labels(REAL), labels(OURS));
    let first = |host: usize| {
        let page = mesh.get(host, "/status").unwrap();
        page.lines().next().unwrap().to_owned()
    };
    assert_eq!(first(REAL), first(OURS));

    // Addresses and names differ, and their order is by chance; the words of a line do not.
    for page in ["peers", "connections"] {
        let words = |host: usize| -> BTreeSet<usize> {
            let page = mesh.get(host, &format!("/status/{page}")).unwrap();
            page.lines()
                .map(|line| line.split_whitespace().count())
                .collect()
        };
        assert_eq!(words(REAL), words(OURS), "{page}");
    }
    for host in [REAL, OURS] {
        for line in mesh.get(host, "/status/connections").unwrap().lines() {
            // Arrow, address padded to 21, state padded to 11, encryption padded to 11, overlay.
            assert_eq!(&line[25..37], "established ", "{line:?}");
            assert_eq!(&line[37..49], "encrypted   ", "{line:?}");
            let mtu = if line.contains(" weft ") { 1410 } else { 1414 };
            assert!(
                line.ends_with(&format!("encrypted=truemtu={mtu}")),
                "{line:?}"
            );
        }
    }
}
