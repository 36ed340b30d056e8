//! Networks of all kinds, and what works on which.

use netns_tests::machine::IMAGE;
use netns_tests::{Kind, Launch, Machine, Mesh, needs_docker, wait};

use crate::support::{Site, addresses_inside, interfaces, must_reach, turn};

#[track_caller]
fn refused(machine: &Machine, arguments: &[&str], words: &[&str]) {
    let ran = machine.docker(arguments);
    assert!(!ran.status.success(), "{ran:?}");
    for word in words {
        assert!(
            ran.stderr.contains(word),
            "{word:?} is not in {}",
            ran.stderr
        );
    }
}

/// `--ip` and `--subnet` work where our IPAM driver gives out addresses, options where we do.
#[test]
fn addresses_that_users_choose() {
    needs_docker!();
    let site = Site::new(2, &[]);
    let [one, two] = site.machines.as_slice() else {
        panic!("two machines");
    };
    for (host, machine) in site.machines.iter().enumerate() {
        site.wait_for_network(host, "weft");
        let create = ["network", "create", "--driver=weft", "--ipam-driver=weft"];
        machine
            .docker(&[&create[..], &["--subnet=10.7.5.0/24", "five"]].concat())
            .ok();
    }
    assert_eq!(one.run("chosen", "five", &["--ip=10.7.5.77"]), "10.7.5.77");
    let busy = [
        "run",
        "--network=five",
        "--ip=10.7.5.77",
        IMAGE,
        "sleep",
        "1",
    ];
    refused(two, &busy, &["10.7.5.77"]);
    let any = two.run("any", "five", &[]);
    assert!(any.starts_with("10.7.5."), "{any}");
    must_reach(&two.namespace("any"), "10.7.5.77");
    assert_eq!(one.run("moved", "five", &["--ip=10.7.5.78"]), "10.7.5.78");
    one.remove("moved");
    assert_eq!(two.run("moved", "five", &["--ip=10.7.5.78"]), "10.7.5.78");

    // Where we choose, an option of the endpoint says what shall be chosen.
    let here = "name=weft,driver-opt=weft.ip=10.7.9.9";
    assert_eq!(one.run("fixed", here, &[]), "10.7.9.9");
    let other = ["run", &format!("--network={here}"), IMAGE, "sleep", "1"];
    refused(two, &other, &["10.7.9.9"]);
    let six = ["network", "create", "--driver=weft", "--ipam-driver=null"];
    let options = ["--opt=weft.subnet=10.7.6.0/24", "--opt=weft.mtu=1200"];
    one.docker(
        &[
            &six[..],
            &options[..],
            &["--opt=weft.multicast=false", "six"],
        ]
        .concat(),
    )
    .ok();
    let address = one.run("small", "six", &[]);
    assert!(address.starts_with("10.7.6."), "{address}");
    assert_eq!(interfaces(&one.namespace("small"))[0].mtu, 1200);
    let multicast = |name: &str| {
        let routes = one.namespace(name).netlink().unwrap().routes().unwrap();
        routes
            .iter()
            .any(|route| route.destination.to_string() == "224.0.0.0/4")
    };
    assert!(!multicast("small"));
    assert!(multicast("fixed"));
    for (option, word) in [
        ("--opt=weft.mtu=9", "weft.mtu"),
        ("--opt=weft.multicast=perhaps", "weft.multicast"),
        ("--opt=weft.subnet=10.7.6.1/24", "weft.subnet"),
    ] {
        refused(one, &[&six[..], &[option, "bad"]].concat(), &[word]);
    }

    // Docker's own allocator does not know what other hosts use.
    let own = ["network", "create", "--driver=weft", "own"];
    refused(one, &own, &["--ipam-driver=null", "--ipam-driver=weft"]);
    // Within our range its addresses are claimed, or refused.
    let within = [
        "network",
        "create",
        "--driver=weft",
        "--subnet=10.7.9.0/24",
        "within",
    ];
    two.docker(&within).ok();
    let taken = [
        "run",
        "--network=within",
        "--ip=10.7.9.9",
        IMAGE,
        "sleep",
        "1",
    ];
    refused(two, &taken, &["10.7.9.9"]);
    assert_eq!(two.run("free", "within", &["--ip=10.7.9.10"]), "10.7.9.10");
    let here = [
        "run",
        "--network=name=weft,driver-opt=weft.ip=10.7.9.10",
        IMAGE,
        "sleep",
        "1",
    ];
    refused(one, &here, &["10.7.9.10"]);
}

/// Networks are connected and disconnected while a container runs, and removed in the end.
#[test]
fn connecting_running_containers() {
    needs_docker!();
    let site = Site::new(1, &[]);
    let machine = &site.machines[0];
    site.wait_for_network(0, "weft");
    let peer = machine.run("peer", "weft", &[]);
    // One that is stopped must not be taken for the one that is being connected.
    machine
        .docker(&[
            "create",
            "--name=idle",
            "--network=weft",
            IMAGE,
            "sleep",
            "9",
        ])
        .ok();
    let run = [
        "run",
        "--detach",
        "--name=plain",
        "--network=none",
        IMAGE,
        "sleep",
        "1000",
    ];
    machine.docker(&run).ok();
    machine
        .docker(&["network", "disconnect", "none", "plain"])
        .ok();
    machine
        .docker(&["network", "connect", "weft", "plain"])
        .ok();
    let address = addresses_inside(&machine.namespace("plain"));
    must_reach(&machine.namespace("plain"), &peer);
    machine
        .docker(&["network", "disconnect", "weft", "plain"])
        .ok();
    assert!(addresses_inside(&machine.namespace("plain")).is_empty());
    machine
        .docker(&["network", "connect", "weft", "plain"])
        .ok();
    wait::until_true("the address is back", wait::SOON, || {
        addresses_inside(&machine.namespace("plain")) == address
    });
    let leases = site.mesh.get_json(0, "/leases").unwrap();
    let idle = leases
        .as_array()
        .unwrap()
        .iter()
        .filter(|l| l["identity"] == "idle")
        .count();
    assert_eq!(idle, 0, "{leases}");

    // A network with endpoints stays, as with every driver.
    refused(
        machine,
        &["network", "rm", "weft"],
        &["has active endpoints"],
    );
    for name in ["peer", "plain", "idle"] {
        machine.remove(name);
    }
    machine.docker(&["network", "rm", "weft"]).ok();
    assert_eq!(site.mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
}

/// Containers that run are connected, several at once, and know their addresses on any host.
#[test]
fn connected_containers_keep_their_addresses() {
    needs_docker!();
    let site = Site::new(2, &[]);
    let names: Vec<String> = (0..4).map(|n| format!("late-{n}")).collect();
    for (host, machine) in site.machines.iter().enumerate() {
        site.wait_for_network(host, "weft");
        for name in &names {
            let run = ["run", "--detach", "--network=none", "--name", name, IMAGE];
            machine
                .docker(&[&run[..], &["sleep", "1000"]].concat())
                .ok();
            machine
                .docker(&["network", "disconnect", "none", name])
                .ok();
        }
    }
    let at_once = |host: usize, verb: &str| {
        let machine = &site.machines[host];
        let begin = |name| {
            let mut command = machine.docker_command(&["network", verb, "weft", name]);
            command.spawn().unwrap()
        };
        let begun: Vec<_> = names.iter().map(|name| begin(name)).collect();
        for mut child in begun {
            assert!(child.wait().unwrap().success(), "{verb}");
        }
    };
    let inside = |host: usize| -> Vec<Vec<String>> {
        let machine = &site.machines[host];
        let all = names.iter().map(|name| machine.namespace(name));
        all.map(|namespace| addresses_inside(&namespace)).collect()
    };
    at_once(0, "connect");
    wait::until_true("all have leases", wait::SOON, || {
        let leases = site.mesh.get_json(0, "/leases").unwrap();
        let leases = leases.as_array().unwrap();
        let mut names = names.iter();
        names.all(|name| leases.iter().any(|lease| lease["identity"] == **name))
    });
    let first = inside(0);
    assert!(
        first.iter().all(|addresses| addresses.len() == 1),
        "{first:?}"
    );
    for host in [1, 0, 1] {
        at_once(1 - host, "disconnect");
        assert_eq!(inside(1 - host), vec![Vec::<String>::new(); names.len()]);
        at_once(host, "connect");
        wait::until_true("all have their addresses", wait::SOON, || {
            inside(host) == first
        });
        for address in &first[1..] {
            must_reach(&site.machines[host].namespace("late-0"), &address[0]);
        }
    }
}

/// A host that leaves takes the network along that was made in Docker.
#[test]
fn reset_removes_the_network() {
    needs_docker!();
    let site = Site::new(1, &[]);
    let machine = &site.machines[0];
    site.wait_for_network(0, "weft");
    machine.run("left", "weft", &[]);
    let prefix = format!("{}/", site.mesh.folder(0).display());
    let networks = || {
        machine
            .docker(&["network", "ls", "--format={{.Name}}"])
            .ok()
    };
    let reset = |arguments: &[&str]| {
        let mut command = machine.command(netns_tests::weft());
        command
            .args(["reset", "--db-prefix", &prefix])
            .args(arguments);
        site.mesh.run(0, &mut command).ok()
    };
    machine
        .docker(&[
            "create",
            "--name=idle",
            "--network=weft",
            IMAGE,
            "sleep",
            "9",
        ])
        .ok();
    machine.remove("left");
    let said = reset(&[]);
    assert!(said.contains("removed Docker's network weft"), "{said}");
    assert!(!networks().contains("weft"), "{}", networks());
    assert!(
        site.mesh
            .devices(0)
            .iter()
            .all(|name| !name.starts_with("weave"))
    );
}

/// Weave Net's drivers under Weave Net's names.
#[test]
fn the_names_of_the_original() {
    needs_docker!();
    let site = Site::new(1, &["--plugin"]);
    let machine = &site.machines[0];
    site.wait_for_network(0, "weave");
    let a = machine.run("one", "weave", &["--ip=10.7.40.40"]);
    assert_eq!(a, "10.7.40.40");
    let b = machine.run("two", "weave", &[]);
    must_reach(&machine.namespace("two"), &a);
    assert_ne!(a, b);
    let create = [
        "network",
        "create",
        "--driver=weavemesh",
        "--ipam-driver=weavemesh",
    ];
    let options = [
        "--subnet=10.7.50.0/24",
        "--opt=works.weave.multicast",
        "old",
    ];
    machine.docker(&[&create[..], &options[..]].concat()).ok();
    let c = machine.run("three", "old", &[]);
    assert!(c.starts_with("10.7.50."), "{c}");
    let shown = machine.docker(&["network", "inspect", "weave"]).ok();
    assert!(
        shown.contains("\"works.weave.multicast\": \"true\""),
        "{shown}"
    );
    for name in ["one", "two", "three"] {
        machine.remove(name);
    }
    assert_eq!(site.mesh.get(0, "/ip").unwrap(), "{\"owned\":null}\n");
}

/// The network of Weave Net's driver is made before the mesh is there; when the default range
/// yields to that of the mesh, so does the network.
#[test]
fn networks_follow_a_range_that_yields() {
    needs_docker!();
    let _turn = turn();
    let mut mesh = Mesh::new(&[Kind::Weft; 2]);
    let mut machine = Machine::new(&mesh, 1);
    machine.begin_engine(&mesh);
    machine.wait_for_engine();
    machine.import_image();
    let first = mesh.address(0).to_string();
    machine.start_router(&mesh, &["--plugin", &first]);
    let has = |subnet: &str| {
        let shown = machine.docker(&["network", "inspect", "weave"]);
        shown.status.success() && shown.stdout.contains(subnet)
    };
    wait::until_true("there is a network", wait::LATER, || has("10.7.0.0/16"));
    let launch = Launch::new().with("--ipalloc-range=10.32.0.0/16");
    mesh.launch(0, &launch.with("--ipalloc-init=consensus=1"));
    wait::until_true("it is another one", wait::LATER, || has("10.32.0.0/16"));
    let address = machine.run("here", "weave", &[]);
    assert!(address.starts_with("10.32."), "{address}");
}
