//! Starts that meet: several at once, and ones that are cut short.

use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use netns_tests::machine::IMAGE;
use netns_tests::{Machine, needs_docker, wait};
use rustix::process::Signal;

use crate::support::{Site, addresses_inside, must_reach};

/// Starts a container without waiting.
fn begin(machine: &Machine, name: &str, flags: &[&str]) -> Child {
    let mut all = vec!["run", "--detach", "--name", name, "--network", "weft"];
    all.extend(flags);
    all.extend([IMAGE, "sleep", "1000"]);
    let mut command = machine.docker_command(&all);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

#[track_caller]
fn succeeded(child: Child) {
    let output = child.wait_with_output().unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Ten containers at once: each has an address of its own, and the next time the same.
#[test]
fn ten_containers_at_once() {
    needs_docker!();
    let site = Site::new(1, &[]);
    let machine = &site.machines[0];
    site.wait_for_network(0, "weft");
    let names: Vec<String> = (0..10).map(|n| format!("many-{n}")).collect();
    let mut before: Vec<String> = Vec::new();
    for round in 0..3 {
        let started: Vec<Child> = names.iter().map(|name| begin(machine, name, &[])).collect();
        started.into_iter().for_each(succeeded);
        let inside = || -> Vec<String> {
            let all = names
                .iter()
                .map(|name| addresses_inside(&machine.namespace(name)));
            all.map(|addresses| addresses.join(" ")).collect()
        };
        let distinct: BTreeSet<String> = inside().into_iter().collect();
        assert_eq!(distinct.len(), 10, "{distinct:?}");
        if round > 0 {
            // Who they are is known when they have started at the latest.
            wait::until_true("all have the addresses that they had", wait::SOON, || {
                inside() == before
            });
            for address in &before[1..] {
                must_reach(&machine.namespace("many-0"), address);
            }
        }
        wait::until_true("all have leases", wait::SOON, || {
            let leases = site.mesh.get_json(0, "/leases").unwrap();
            let leases = leases.as_array().unwrap();
            names
                .iter()
                .all(|name| leases.iter().any(|lease| lease["identity"] == **name))
        });
        before = inside();
        let mut remove = vec!["rm", "--force"];
        remove.extend(names.iter().map(String::as_str));
        machine.docker(&remove).ok();
    }
    wait::until_true("all addresses are released", wait::SOON, || {
        site.mesh.get(0, "/ip").unwrap() == "{\"owned\":null}\n"
    });
    let calls = &site.mesh.get_json(0, "/status/weft").unwrap()["docker"]["CreateEndpoint"];
    assert!(calls["count"].as_u64() >= Some(30), "{calls}");
    println!("10 starts at once, three times: {calls}");
}

/// Containers as compose makes them keep the address of their place in the service.
#[test]
fn places_in_compose_projects() {
    needs_docker!();
    let site = Site::new(2, &[]);
    for host in 0..2 {
        site.wait_for_network(host, "weft");
    }
    let labels = |number: &str| {
        let all = [
            ("project", "shop"),
            ("service", "web"),
            ("container-number", number),
            ("oneoff", "False"),
        ];
        all.map(|(key, value)| format!("--label=com.docker.compose.{key}={value}"))
    };
    let run = |host: usize, name: &str, number: &str| {
        let labels = labels(number);
        let flags: Vec<&str> = labels.iter().map(String::as_str).collect();
        site.machines[host].run(name, "weft", &flags)
    };
    let first = run(0, "shop-web-1", "1");
    let second = run(0, "shop-web-2", "2");
    assert_ne!(first, second);
    // Compose renames what it replaces.
    site.machines[0]
        .docker(&["rename", "shop-web-1", "0123_shop-web-1"])
        .ok();
    site.machines[0].remove("0123_shop-web-1");
    assert_eq!(run(1, "shop-web-1", "1"), first);
    // What Docker names itself has no place.
    let made_up = site.machines[0].docker(&["run", "-d", "--network=weft", IMAGE, "sleep", "9"]);
    let id = made_up.ok().trim().to_owned();
    let address = site.machines[0].shown_address(&id);
    assert!(![&first, &second].contains(&&address));
    let leases = site.mesh.get_json(0, "/leases").unwrap();
    let on = leases
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["address"] == *address);
    assert_eq!(on.count(), 0, "{leases}");
}

/// A router that is killed while it makes an endpoint: the start goes on with the next router,
/// and nothing is left behind.
#[test]
fn killed_while_making_an_endpoint() {
    needs_docker!();
    let mut site = Site::new(1, &[]);
    site.wait_for_network(0, "weft");
    site.machines[0].run("first", "weft", &[]);
    let mut random = fastrand::Rng::with_seed(11);
    let mut names = vec!["first".to_owned()];
    for number in 0..6 {
        let name = format!("cut-{number}");
        let child = begin(&site.machines[0], &name, &[]);
        std::thread::sleep(Duration::from_millis(random.u64(20..200)));
        site.machines[0].stop_router(Signal::KILL);
        site.start_router(0, &[]);
        let output = child.wait_with_output().unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        // Docker calls again, but this engine may then have lost what it wanted to say.
        assert!(
            output.status.success() || text.contains("EOF"),
            "{name}: {text}"
        );
        if output.status.success() {
            names.push(name);
        }
    }
    let machine = &site.machines[0];
    let addresses: BTreeSet<String> = names
        .iter()
        .flat_map(|name| addresses_inside(&machine.namespace(name)))
        .collect();
    assert_eq!(addresses.len(), names.len(), "{addresses:?}");
    // What a start that failed has left is found out when Docker does not know it either.
    let held = || {
        site.mesh.get_json(0, "/ip").unwrap()["owned"]
            .as_array()
            .unwrap()
            .len()
    };
    wait::until_true("nothing is left behind", wait::TIMED_OUT, || {
        held() == names.len()
    });
    for name in &names {
        machine.remove(name);
    }
    assert_eq!(site.mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
    let left = site.mesh.devices(0);
    assert!(
        left.iter().all(|device| !device.starts_with("vethw")),
        "{left:?}"
    );
}

/// Without a mesh there are no addresses, and Docker's user is told so in time.
#[test]
fn without_addresses_a_start_fails_with_the_reason() {
    needs_docker!();
    let mut site = Site::new(1, &[]);
    site.wait_for_network(0, "weft");
    site.machines[0].stop_router(Signal::TERM);
    for file in ["weft.db", "weft.lock"] {
        let _ = std::fs::remove_file(site.mesh.folder(0).join(file));
    }
    site.machines[0].start_router(&site.mesh, &["--ipalloc-init=observer"]);
    // The network is known again from what Docker says of it.
    wait::until_true("the network is taken up", wait::SOON, || {
        site.mesh
            .log(0)
            .contains("took up a network of Docker that was not known")
    });
    let begun = Instant::now();
    let refused = begin(&site.machines[0], "nowhere", &[])
        .wait_with_output()
        .unwrap();
    let text = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(
        !refused.status.success() && text.contains("timed out"),
        "{text}"
    );
    assert!(
        begun.elapsed() < Duration::from_secs(40),
        "{:?}",
        begun.elapsed()
    );
    let left = site.mesh.devices(0);
    assert!(
        left.iter().all(|device| !device.starts_with("vethw")),
        "{left:?}"
    );
}
