//! The CNI plugin under a real container runtime: containerd and its client, which reads networks
//! and calls plugins as Kubernetes' runtimes do.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use lab::host::LabProcess;
use lab::pinger::Pinger;
use netns_tests::{Kind, Launch, Mesh, Ran, needs_root, wait};

/// containerd on a host of the mesh, in a mount and process namespace of its own, where the usual
/// folders of runtimes are its own.
struct Containerd {
    mesh: Mesh,
    process: LabProcess,
    folder: PathBuf,
}

/// Prepares the folders and becomes containerd. Whatever it starts ends with it.
const START: &str = r#"
mount --make-rprivate /
mkdir -p "$W/etc" "$W/work"
mount -t overlay overlay -o lowerdir=/etc,upperdir="$W/etc",workdir="$W/work" /etc
mount -t tmpfs tmpfs /opt
mount -t tmpfs tmpfs /run
cat >"$W/config.toml" <<C
version = 2
root = "$W/root"
state = "/run/containerd"
disabled_plugins = ["io.containerd.grpc.v1.cri"]
[grpc]
address = "/run/containerd.sock"
C
exec containerd -c "$W/config.toml" >"$W/log" 2>&1
"#;

impl Containerd {
    /// None, loudly, where there is no containerd.
    fn start(mesh: Mesh) -> Option<Containerd> {
        for program in ["containerd", "ctr", "runc"] {
            if Command::new(program).arg("--version").output().is_err() {
                let test = std::thread::current().name().unwrap_or("test").to_owned();
                testbed::skips::skip(&test, &format!("the program {program}"));
                return None;
            }
        }
        // On a file system that can be the upper layer of another.
        let folder = Path::new("/dev/shm").join(format!("weft-containerd-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-ec", START]).env("W", &folder);
        command.stdin(Stdio::null());
        let process = mesh.lab.spawn(0, &mut command).unwrap();
        let containerd = Containerd {
            mesh,
            process,
            folder,
        };
        wait::until_true("containerd answers", wait::SOON, || {
            containerd.pid().is_some() && containerd.ctr("version").status.success()
        });
        containerd.make_root();
        Some(containerd)
    }

    fn pid(&self) -> Option<u32> {
        let id = self.process.id();
        let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
        children.ok()?.split_whitespace().next()?.parse().ok()
    }

    /// Runs a command where containerd runs.
    fn run(&self, program: &Path, arguments: &str) -> Ran {
        let pid = self.pid().unwrap().to_string();
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target", &pid, "--wd=/"]);
        command.arg(program).args(arguments.split(' '));
        self.mesh.run(0, &mut command)
    }

    fn ctr(&self, arguments: &str) -> Ran {
        let arguments = format!("-a /run/containerd.sock {arguments}");
        self.run(Path::new("ctr"), &arguments)
    }

    fn root(&self) -> PathBuf {
        self.folder.join("rootfs")
    }

    /// The files of containers: one program that sleeps, and what it needs.
    fn make_root(&self) {
        let libraries = Command::new("ldd").arg("/bin/sleep").output().unwrap();
        let libraries = String::from_utf8(libraries.stdout).unwrap();
        let words = libraries
            .split_whitespace()
            .filter(|word| word.starts_with('/'));
        for file in words.chain(["/bin/sleep"]) {
            let to = self.root().join(file.trim_start_matches('/'));
            std::fs::create_dir_all(to.parent().unwrap()).unwrap();
            std::fs::copy(file, to).unwrap();
        }
        for folder in ["proc", "sys", "dev"] {
            std::fs::create_dir_all(self.root().join(folder)).unwrap();
        }
    }

    /// Whose addresses the router keeps, and which.
    fn addresses(&self) -> Vec<(String, String)> {
        let owned = self.mesh.get_json(0, "/ip").unwrap();
        let owned = owned["owned"].as_array().cloned().unwrap_or_default();
        let text = |value: &serde_json::Value| value.as_str().unwrap().to_owned();
        let entries = owned.iter();
        entries
            .map(|entry| (text(&entry["containerid"]), text(&entry["addrs"][0])))
            .filter(|(id, _)| id.starts_with("cni:"))
            .collect()
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            println!("---- containerd:\n{log}");
        }
        // Everything in its process namespace ends with it.
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn containers_of_containerd_are_attached() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.launch(0, &Launch::new());
    mesh.weft(0, &["prime"]).ok();
    let Some(mut containerd) = Containerd::start(mesh) else {
        return;
    };
    containerd.run(&netns_tests::weft(), "setup-cni").ok();
    // Its state belongs to this test alone.
    let conflist = containerd.folder.join("etc/cni/net.d/10-weft.conflist");
    let text = std::fs::read_to_string(&conflist).unwrap();
    let mut list: serde_json::Value = serde_json::from_str(&text).unwrap();
    let state = containerd.folder.join("state").display().to_string();
    list["plugins"][0]["stateDir"] = state.into();
    std::fs::write(&conflist, list.to_string()).unwrap();

    let root = containerd.root().display().to_string();
    for name in ["one", "two"] {
        let arguments = format!("run -d --cni --rootfs {root} {name} /bin/sleep 600");
        containerd.ctr(&arguments).ok();
    }
    let addresses = containerd.addresses();
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    // The bridge has an address by now, so that the host reaches them.
    let host = containerd.mesh.namespace(0).clone();
    for (_, address) in &addresses {
        let address = address.split('/').next().unwrap().parse().unwrap();
        let mut pinger = Pinger::new(&host).unwrap();
        let deadline = Instant::now() + wait::SOON;
        let interval = std::time::Duration::from_millis(100);
        let answer = pinger.wait_for(address, interval, deadline).unwrap();
        assert!(answer.is_some(), "{address} is not reached");
    }
    // One that ends by itself is detached by the runtime.
    let arguments = format!("run --rm --cni --rootfs {root} three /bin/sleep 0");
    containerd.ctr(&arguments).ok();
    assert_eq!(containerd.addresses(), addresses);
    // Without the router, one cannot start and leaves nothing.
    containerd.mesh.kill(0);
    let refused = containerd.ctr(&format!("run -d --cni --rootfs {root} four /bin/sleep 600"));
    assert!(
        !refused.status.success() && refused.stderr.contains("weft launch"),
        "{refused:?}"
    );
    containerd.mesh.launch(0, &Launch::new());
    assert_eq!(containerd.addresses(), addresses);
}
