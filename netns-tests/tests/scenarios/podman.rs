//! The CNI plugin under podman, which runs containers without any daemon.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use kernel::netns::Namespace;
use lab::host::LabProcess;
use lab::pinger::Pinger;
use netns_tests::machine::copy_program;
use netns_tests::{Kind, Launch, Mesh, Ran, needs_root, wait};

/// podman on a host of the mesh, in a mount and process namespace of its own, with folders of its
/// own.
struct Podman {
    host: usize,
    process: LabProcess,
    folder: PathBuf,
}

/// Makes the folders that podman and plugins use besides those that can be chosen, and waits.
const START: &str = r#"
mount --make-rprivate /
mount -t tmpfs tmpfs /run
mkdir -p /var/lib/cni
mount -t tmpfs tmpfs /var/lib/cni
mount -t tmpfs tmpfs /dev/shm
touch "$W/ready"
while sleep 1; do :; done
"#;

impl Podman {
    /// None, loudly, where there is no podman.
    fn start(mesh: &Mesh, host: usize) -> Option<Podman> {
        for program in ["podman", "runc"] {
            if Command::new(program).arg("--version").output().is_err() {
                let test = std::thread::current().name().unwrap_or("test").to_owned();
                testbed::skips::skip(&test, &format!("the program {program}"));
                return None;
            }
        }
        // Not below /run, of which podman has one of its own.
        let folder = format!("weft-podman-{}-{host}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", START]).env("W", &folder);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let process = mesh.lab.spawn(host, &mut command).unwrap();
        let podman = Podman {
            host,
            process,
            folder,
        };
        wait::until_true("podman's folders are made", wait::SOON, || {
            podman.path("ready").exists()
        });
        let (networks, plugins) = (podman.path("networks"), podman.path("plugins"));
        let engine = format!(
            "[engine]\ncgroup_manager = \"cgroupfs\"\nevents_logger = \"file\"\nruntime = \"runc\"\n\
             [network]\nnetwork_backend = \"cni\"\nnetwork_config_dir = {networks:?}\n\
             cni_plugin_dirs = [{plugins:?}]\n"
        );
        fs::write(podman.path("containers.conf"), engine).unwrap();
        let storage = format!(
            "[storage]\ndriver = \"vfs\"\nrunroot = \"/run/podman\"\ngraphroot = {:?}\n",
            podman.path("storage")
        );
        fs::write(podman.path("storage.conf"), storage).unwrap();
        Some(podman)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn pid(&self) -> u32 {
        let id = self.process.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        children.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Runs a command where podman runs.
    fn run(&self, mesh: &Mesh, program: &Path, arguments: &[&str]) -> Ran {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--wd=/", "--target"]);
        command.arg(self.pid().to_string());
        command.arg(program).args(arguments);
        command.env("CONTAINERS_CONF", self.path("containers.conf"));
        command.env("CONTAINERS_STORAGE_CONF", self.path("storage.conf"));
        mesh.run(self.host, &mut command)
    }

    fn podman(&self, mesh: &Mesh, arguments: &str) -> Ran {
        let arguments: Vec<&str> = arguments.split(' ').collect();
        self.run(mesh, Path::new("podman"), &arguments)
    }

    /// Makes the network, and the image of one program that sleeps.
    fn prepare(&self, mesh: &Mesh) {
        let (networks, plugins) = (self.path("networks"), self.path("plugins"));
        let arguments = [
            "setup-cni",
            "--sticky",
            "--bin-dir",
            plugins.to_str().unwrap(),
            "--conf-dir",
            networks.to_str().unwrap(),
        ];
        self.run(mesh, &netns_tests::weft(), &arguments).ok();
        let root = self.path("image");
        copy_program(Path::new("/bin/sleep"), &root);
        let tar = self.path("image.tar");
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".");
        assert!(pack.status().unwrap().success());
        let tar = tar.display();
        self.podman(mesh, &format!("import --quiet {tar} sleep"))
            .ok();
    }

    /// Starts a container with further flags; returns its address and MAC as podman shows them.
    fn start_container(&self, mesh: &Mesh, flags: &str) -> (Ipv4Addr, String) {
        let run = format!("run --detach --network weft {flags} sleep /bin/sleep 600");
        let id = self.podman(mesh, &run).ok();
        self.shown(mesh, id.trim())
    }

    fn shown(&self, mesh: &Mesh, container: &str) -> (Ipv4Addr, String) {
        let text = self.podman(mesh, &format!("inspect {container}")).ok();
        let all: serde_json::Value = serde_json::from_str(&text).unwrap();
        let network = &all[0]["NetworkSettings"]["Networks"]["weft"];
        let get = |key: &str| network[key].as_str().unwrap().to_owned();
        (get("IPAddress").parse().unwrap(), get("MacAddress"))
    }

    fn namespace(&self, mesh: &Mesh, container: &str) -> Namespace {
        let format = format!("inspect --format {{{{.State.Pid}}}} {container}");
        let pid = self.podman(mesh, &format).ok();
        let path = format!("/proc/{}/root/proc/{}/ns/net", self.pid(), pid.trim());
        Namespace::at(Path::new(&path)).unwrap().labelled(container)
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        // Everything in its process namespace ends with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

/// Whose addresses the router of a host keeps.
fn owners(mesh: &Mesh, host: usize) -> Vec<String> {
    let owned = mesh.get_json(host, "/ip").unwrap();
    let owned = owned["owned"].as_array().cloned().unwrap_or_default();
    let id = |entry: &serde_json::Value| entry["containerid"].as_str().unwrap().to_owned();
    let mut ids: Vec<String> = owned.iter().map(id).collect();
    ids.retain(|id| id.starts_with("cni:"));
    ids
}

fn must_reach(from: &Namespace, to: Ipv4Addr) {
    let mut pinger = Pinger::new(from).unwrap();
    let interval = Duration::from_millis(100);
    let answer = pinger.wait_for(to, interval, Instant::now() + wait::SOON);
    assert!(answer.unwrap().is_some(), "{from} does not reach {to}");
}

/// Containers reach each other, on one host and on two; one has its address and MAC again on the
/// other host; and what is removed leaves nothing behind.
#[test]
fn containers_of_podman_keep_their_addresses() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft, Kind::Weft]);
    let Some(first) = Podman::start(&mesh, 0) else {
        return;
    };
    let second = Podman::start(&mesh, 1).unwrap();
    mesh.launch(0, &Launch::new());
    mesh.launch(1, &Launch::new().peer(mesh.address(0)));
    mesh.wait_connected(0, 1);
    mesh.weft(0, &["prime"]).ok();
    first.prepare(&mesh);
    second.prepare(&mesh);

    let web = first.start_container(&mesh, "--name web-1");
    first.start_container(&mesh, "--name near");
    let far = second.start_container(&mesh, "--name far");
    let inside = first.namespace(&mesh, "near");
    must_reach(&inside, web.0);
    must_reach(&inside, far.0);
    must_reach(&second.namespace(&mesh, "far"), web.0);

    // When it is gone, it has its address elsewhere; while it is up, another.
    first.podman(&mesh, "rm --force --time 0 web-1").ok();
    assert_eq!(second.start_container(&mesh, "--name web-1"), web);
    must_reach(&inside, web.0);
    second.podman(&mesh, "restart --time 0 web-1").ok();
    assert_eq!(second.shown(&mesh, "web-1"), web);
    let beside = first.start_container(&mesh, "--name web-1");
    assert!(beside.0 != web.0 && beside.1 != web.1, "{beside:?} {web:?}");

    // A certain address, and one that is taken.
    let (asked, mac) = (Ipv4Addr::new(10, 7, 99, 9), "02:00:00:00:00:77");
    let flags = format!("--name fixed --ip {asked} --mac-address {mac}");
    assert_eq!(
        first.start_container(&mesh, &flags),
        (asked, mac.to_owned())
    );
    let taken = format!("run --detach --network weft --ip {asked} sleep /bin/sleep 600");
    let refused = second.podman(&mesh, &taken);
    assert!(!refused.status.success(), "{refused:?}");

    for (podman, host) in [(&first, 0), (&second, 1)] {
        podman.podman(&mesh, "rm --all --force --time 0").ok();
        assert_eq!(owners(&mesh, host), Vec::<String>::new());
        let links = mesh.namespace(host).netlink().unwrap().links().unwrap();
        let veths = links.iter().filter(|link| link.name.starts_with("vethwe"));
        assert_eq!(veths.count(), 0);
        let list = podman.run(
            &mesh,
            Path::new("ls"),
            &["/run/netns", "/var/lib/cni/results"],
        );
        assert_eq!(list.ok(), "/run/netns:\n\n/var/lib/cni/results:\n");
    }
}
