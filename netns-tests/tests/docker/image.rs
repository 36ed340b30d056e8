//! The router as a container, from an image that holds nothing but its binary.

use std::path::{Path, PathBuf};
use std::process::Command;

use netns_tests::machine::{IMAGE, copy_program};
use netns_tests::{Kind, Machine, Mesh, needs_docker, nickname, peer_name, wait};

use crate::support::{attached, must_reach};

/// Returns the static binary, from the environment.
fn static_weft() -> Option<PathBuf> {
    std::env::var_os("WEFT_STATIC").map(PathBuf::from)
}

/// Makes an image of our program alone; one that is not static brings its libraries along.
#[track_caller]
fn import(machine: &Machine, folder: &Path) {
    let root = folder.join("weft-image");
    std::fs::create_dir_all(root.join("var/lib/weft")).unwrap();
    if let Some(weft) = static_weft() {
        std::fs::copy(weft, root.join("weft")).unwrap();
    } else {
        let needs = "WEFT_STATIC=/path/to/what/image.sh/builds";
        testbed::skips::skip("the image of the static binary alone", needs);
        copy_program(&netns_tests::weft(), &root);
        std::fs::copy(netns_tests::weft(), root.join("weft")).unwrap();
    }
    let tar = folder.join("weft-image.tar");
    let mut pack = Command::new("tar");
    pack.arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".");
    assert!(pack.status().unwrap().success());
    let change = "ENTRYPOINT [\"/weft\"]";
    machine
        .docker(&[
            "import",
            "--change",
            change,
            tar.to_str().unwrap(),
            "weft:test",
        ])
        .ok();
}

/// What the router needs in a container: devices and rules, raw frames, and the namespaces of
/// other containers.
const CAPABILITIES: [&str; 4] = [
    "--cap-add=NET_ADMIN",
    "--cap-add=NET_RAW",
    "--cap-add=SYS_ADMIN",
    "--cap-add=SYS_PTRACE",
];

/// The router in a container finds its peer by name, attaches containers by their labels, and
/// serves the plugin.
#[test]
fn the_router_as_a_container() {
    needs_docker!();
    let _turn = crate::support::turn();
    let mesh = Mesh::new(&[Kind::Weft; 2]);
    let mut machines: Vec<Machine> = (0..2).map(|host| Machine::new(&mesh, host)).collect();
    for machine in &mut machines {
        machine.begin_engine(&mesh);
    }
    for (host, machine) in machines.iter_mut().enumerate() {
        machine.wait_for_engine();
        machine.import_image();
        import(machine, mesh.folder(host));
        let socket = format!("{}:/var/run/docker.sock", machine.socket().display());
        let peer = format!("first:{}", mesh.address(0));
        let mut run = vec!["run", "--detach", "--name=weft", "--restart=always"];
        run.extend(["--network=host", "--pid=host", "--device=/dev/net/tun"]);
        // What the documentation names, and no more.
        run.extend(CAPABILITIES);
        run.extend(["--volume", &socket, "--add-host", &peer]);
        run.extend([
            "--volume=/run/docker/plugins:/run/docker/plugins",
            "weft:test",
        ]);
        let (name, nickname) = (peer_name(host), nickname(host));
        run.extend(["launch", "--attach=labels", "--no-dns", "--name", &name]);
        run.extend(["--nickname", &nickname]);
        run.extend(if host == 0 {
            ["--ipalloc-init=consensus=1"]
        } else {
            ["first"]
        });
        machine.docker(&run).ok();
        wait::until("the router answers", wait::LATER, || {
            mesh.get(host, "/status").filter(|page| !page.is_empty())
        });
    }
    mesh.wait_connected(0, 1);
    for (host, name) in [(0, "one"), (1, "two")] {
        let run = [
            "run",
            "--detach",
            "--name",
            name,
            "--network=none",
            "--label=weft.attach=true",
        ];
        machines[host]
            .docker(&[&run[..], &[IMAGE, "sleep", "1000"]].concat())
            .ok();
    }
    let address = |host: usize, name: &str| {
        wait::until(&format!("{name} is attached"), wait::LATER, || {
            attached(&machines[host].namespace(name))
        })
    };
    let [one, two] = [address(0, "one"), address(1, "two")];
    must_reach(&machines[0].namespace("one"), &two.to_string());
    must_reach(&machines[1].namespace("two"), &one.to_string());
    wait::until_true("there is a network weft", wait::LATER, || {
        machines[0]
            .docker(&["network", "inspect", "weft"])
            .status
            .success()
    });
    machines[0].run("three", "weft", &[]);
    must_reach(&machines[0].namespace("three"), &two.to_string());
    // A new router in a new container takes up what is there.
    machines[0].docker(&["restart", "--time=5", "weft"]).ok();
    wait::until_true("the router answers again", wait::LATER, || {
        mesh.get(0, "/ip")
            .is_some_and(|owned| owned.contains(&one.to_string()))
    });
    must_reach(&machines[1].namespace("two"), &one.to_string());
}
