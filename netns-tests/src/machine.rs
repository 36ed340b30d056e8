//! A host with Docker's engine: beside its network, its processes and mounts are its own, so that
//! several engines do not get in each other's way, and all of it ends with one process.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use kernel::netns::Namespace;
use lab::host::LabProcess;
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::{Mesh, Ran, nickname, peer_name, wait};

/// The image that machines run.
pub const IMAGE: &str = "weft-test:1";
/// Maximum time for Docker's engine to start or to end.
const ENGINE_TIME_MAX: Duration = Duration::from_secs(60);

/// Docker's engine: `WEFT_DOCKERD` from the environment, or the one that is installed.
pub fn engine() -> String {
    std::env::var("WEFT_DOCKERD").unwrap_or_else(|_| "dockerd".to_owned())
}

/// Returns true if Docker's engine and its command are installed. If not, notes that.
pub fn has_docker() -> bool {
    let test = std::thread::current().name().unwrap_or("test").to_owned();
    let engine = engine();
    for (program, needs) in [
        (
            engine.as_str(),
            "the program dockerd (Debian: docker.io, or WEFT_DOCKERD)",
        ),
        ("docker", "the program docker (Debian: docker.io)"),
        ("nsenter", "the program nsenter (Debian: util-linux)"),
    ] {
        let found = Command::new(program).arg("--version").output();
        if !found.is_ok_and(|output| output.status.success()) {
            testbed::skips::skip(&test, needs);
            return false;
        }
    }
    true
}

/// Returns from the test unless there is Docker and it runs as root.
#[macro_export]
macro_rules! needs_docker {
    () => {
        if !$crate::can_run(false) || !$crate::machine::has_docker() {
            return;
        }
    };
}

/// A machine on a host of a mesh. Dropping it ends everything on it.
pub struct Machine {
    // Processes before the one whose end ends them all.
    router: Option<LabProcess>,
    engine: Option<LabProcess>,
    _init: LabProcess,
    /// The first process of the machine, as seen from outside.
    init_pid: u32,
    engine_path: Option<String>,
    host: usize,
    folder: PathBuf,
    /// Where the router keeps its records.
    records: PathBuf,
}

impl Machine {
    /// Creates a machine on a host; neither engine nor router run yet.
    #[track_caller]
    pub fn new(mesh: &Mesh, host: usize) -> Machine {
        let folder = mesh.folder(host).to_owned();
        fs::create_dir_all("/run/docker").unwrap();
        let ready = folder.join("ready");
        // A shell, since the first process has to wait for those whose parents have ended.
        let script = format!(
            "mount -t tmpfs weft-test /run/docker && mkdir /run/docker/plugins && \
             touch {} && while sleep 1; do :; done",
            ready.display()
        );
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]);
        command.args(["sh", "-c", &script]);
        let init = mesh.lab.spawn(host, quiet(&mut command)).unwrap();
        wait::until_true("a machine is made", wait::SOON, || ready.exists());
        let init_pid = child_of(init.id());
        Machine {
            router: None,
            engine_path: None,
            engine: None,
            _init: init,
            init_pid,
            host,
            records: folder.join(""),
            folder,
        }
    }

    /// From its next start on the router keeps its records in memory, where no disk is waited
    /// for; they end with the machine.
    pub fn keep_records_in_memory(&mut self) {
        self.records = "/run/docker/records/".into();
    }

    /// Returns the number of its host.
    pub fn host(&self) -> usize {
        self.host
    }

    /// Returns a command on this machine.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--pid", "--target"]);
        command
            .arg(self.init_pid.to_string())
            .arg("--")
            .arg(program);
        command
    }

    fn log(&self, name: &str) -> File {
        let path = self.folder.join(name);
        File::options()
            .create(true)
            .append(true)
            .open(path)
            .unwrap()
    }

    /// Returns the socket of the engine.
    pub fn socket(&self) -> PathBuf {
        self.folder.join("docker.sock")
    }

    /// Starts the engine and waits until it answers.
    #[track_caller]
    pub fn start_engine(&mut self, mesh: &Mesh) {
        self.begin_engine(mesh);
        self.wait_for_engine();
    }

    /// Starts the engine without waiting for it, without its own bridge and rules.
    #[track_caller]
    pub fn begin_engine(&mut self, mesh: &Mesh) {
        let flags = ["--iptables=false", "--ip-masq=false", "--bridge=none"];
        self.begin_engine_with(mesh, &flags);
    }

    /// Starts the engine with these flags, without waiting for it.
    #[track_caller]
    pub fn begin_engine_with(&mut self, mesh: &Mesh, flags: &[&str]) {
        let _ = fs::remove_file(self.folder.join("docker.pid"));
        let mut command = self.command(engine());
        for (flag, file) in [
            ("--data-root", "docker-data"),
            ("--exec-root", "docker-exec"),
            ("--pidfile", "docker.pid"),
        ] {
            command.arg(flag).arg(self.folder.join(file));
        }
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        command.args(flags);
        if let Some(path) = &self.engine_path {
            command.env("PATH", path);
        }
        command.args(["--storage-driver=vfs", "--log-level=warn"]);
        let log = self.log("docker.log");
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log);
        self.engine = Some(mesh.lab.spawn(self.host, &mut command).unwrap());
    }

    /// From its next start on the engine finds these programs under the names `iptables` and
    /// `ip6tables`.
    #[track_caller]
    pub fn choose_iptables(&mut self, kind: &str) {
        let folder = self.folder.join(format!("tools-{kind}"));
        let programs = std::env::var("PATH").unwrap_or_default();
        fs::create_dir_all(&folder).unwrap();
        for name in ["iptables", "ip6tables"] {
            let program = Command::new("sh")
                .args(["-c", &format!("command -v {name}-{kind}")])
                .output();
            let program = String::from_utf8(program.unwrap().stdout).unwrap();
            let _ = fs::remove_file(folder.join(name));
            std::os::unix::fs::symlink(program.trim(), folder.join(name)).unwrap();
        }
        self.engine_path = Some(format!("{}:{programs}", folder.display()));
    }

    /// Waits until the engine answers.
    #[track_caller]
    pub fn wait_for_engine(&mut self) {
        wait::until_true("Docker's engine answers", ENGINE_TIME_MAX, || {
            let engine = self.engine.as_mut().unwrap();
            assert!(
                engine.try_wait().unwrap().is_none(),
                "{}",
                self.tail("docker.log")
            );
            self.docker(&["version"]).status.success()
        });
    }

    /// Ends the engine with a signal and waits until it has ended.
    #[track_caller]
    pub fn stop_engine(&mut self, signal: Signal) {
        let engine = self.engine.take().unwrap();
        end(engine, signal, "Docker's engine");
    }

    /// Starts our router with these flags, dialling these addresses, and waits until it answers.
    #[track_caller]
    pub fn start_router(&mut self, mesh: &Mesh, flags: &[&str]) {
        let mut command = self.command(crate::weft());
        command.env_clear().env("RUST_BACKTRACE", "1");
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["launch", "--log-level", "debug"]);
        command.arg("--db-prefix").arg(&self.records);
        command
            .arg("--docker-api")
            .arg(format!("unix://{}", self.socket().display()));
        command.args(["--name", &peer_name(self.host)]);
        command.args(["--nickname", &nickname(self.host)]);
        command.args(flags);
        let log = self.log("log");
        command
            .stdin(Stdio::null())
            .stderr(log.try_clone().unwrap())
            .stdout(log);
        self.router = Some(mesh.lab.spawn(self.host, &mut command).unwrap());
        wait::until_true("the router answers", wait::SOON, || {
            let router = self.router.as_mut().unwrap();
            assert!(router.try_wait().unwrap().is_none(), "{}", self.tail("log"));
            mesh.get(self.host, "/status").is_some()
        });
    }

    /// Ends the router with a signal and waits until it has ended.
    #[track_caller]
    pub fn stop_router(&mut self, signal: Signal) {
        let router = self.router.take().unwrap();
        end(router, signal, "the router");
    }

    /// Builds an image of programs of this system, without any network.
    #[track_caller]
    pub fn import_image(&self) {
        let root = self.folder.join("image");
        for program in ["sleep", "cat", "sh"] {
            let path = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            let path = String::from_utf8(path.unwrap().stdout).unwrap();
            copy_program(Path::new(path.trim()), &root);
        }
        let tar = self.folder.join("image.tar");
        let mut pack = Command::new("tar");
        pack.arg("-C").arg(&root).arg("-cf").arg(&tar).arg(".");
        assert!(pack.status().unwrap().success());
        self.docker(&["import", tar.to_str().unwrap(), IMAGE]).ok();
    }

    /// Runs Docker's command on the engine of this machine.
    #[track_caller]
    pub fn docker(&self, arguments: &[&str]) -> Ran {
        let output = self.docker_command(arguments).output().unwrap();
        Ran {
            status: output.status,
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Docker's command for the engine of this machine.
    pub fn docker_command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("docker");
        command
            .env_remove("DOCKER_HOST")
            .env_remove("DOCKER_CONTEXT");
        command
            .arg("--host")
            .arg(format!("unix://{}", self.socket().display()));
        command.args(arguments).stdin(Stdio::null());
        command
    }

    /// Starts a container on a network of ours, with further flags, and returns its address as
    /// Docker shows it.
    #[track_caller]
    pub fn run(&self, name: &str, network: &str, flags: &[&str]) -> String {
        let mut all = vec!["run", "--detach", "--name", name, "--network", network];
        all.extend(flags);
        all.extend([IMAGE, "sleep", "1000"]);
        self.docker(&all).ok();
        self.shown_address(name)
    }

    /// Removes a container, whether or not it runs.
    #[track_caller]
    pub fn remove(&self, container: &str) {
        self.docker(&["rm", "--force", container]).ok();
    }

    /// Returns what Docker shows of a container.
    #[track_caller]
    pub fn inspect(&self, container: &str) -> Value {
        let all: Value = serde_json::from_str(&self.docker(&["inspect", container]).ok()).unwrap();
        all[0].clone()
    }

    /// Returns the address that Docker shows of a container, on whichever network has one.
    #[track_caller]
    pub fn shown_address(&self, container: &str) -> String {
        let inspected = self.inspect(container);
        let networks = inspected["NetworkSettings"]["Networks"]
            .as_object()
            .unwrap();
        let mut addresses = networks
            .values()
            .filter_map(|place| place["IPAddress"].as_str());
        addresses
            .find(|address| !address.is_empty())
            .unwrap_or_default()
            .to_owned()
    }

    /// Returns the namespace of a container that runs.
    #[track_caller]
    pub fn namespace(&self, container: &str) -> Namespace {
        let pid = self.inspect(container)["State"]["Pid"].as_u64().unwrap();
        assert_ne!(pid, 0, "{container} does not run");
        let path = format!("/proc/{}/root/proc/{pid}/ns/net", self.init_pid);
        Namespace::at(Path::new(&path)).unwrap().labelled(container)
    }

    /// Returns the end of one of the machine's logs.
    pub fn tail(&self, log: &str) -> String {
        let text = fs::read_to_string(self.folder.join(log)).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LOG_LINES_MAX)..].join("\n")
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "---- {}, its engine:\n{}",
                nickname(self.host),
                self.tail("docker.log")
            );
            eprintln!(
                "---- {}, its router:\n{}",
                nickname(self.host),
                self.tail("log")
            );
        }
        // All processes end with the first, also those that nobody waits for.
        if let Some(pid) = Pid::from_raw(self.init_pid.cast_signed()) {
            let _ = rustix::process::kill_process(pid, Signal::KILL);
        }
    }
}

/// Ends a process that was started by way of another that only waits for it.
#[track_caller]
fn end(mut process: LabProcess, signal: Signal, what: &str) {
    let pid = Pid::from_raw(child_of(process.id()).cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
    wait::until_true(&format!("{what} ends"), ENGINE_TIME_MAX, || {
        process.try_wait().unwrap().is_some()
    });
}

/// Returns the only child of a process, once it has one.
#[track_caller]
fn child_of(pid: u32) -> u32 {
    wait::until("a process has a child", wait::SOON, || {
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
        children.split_whitespace().next()?.parse().ok()
    })
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null())
}

/// Copies a program with its libraries below `root`, under the same paths.
pub fn copy_program(program: &Path, root: &Path) {
    let copy = |path: &Path| {
        let to = root.join(path.strip_prefix("/").unwrap());
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(path, to).unwrap();
    };
    copy(program);
    let linked = Command::new("ldd").arg(program).output().unwrap();
    let linked = String::from_utf8_lossy(&linked.stdout).into_owned();
    for word in linked
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
    {
        copy(Path::new(word));
    }
}

/// Lines of each log that are printed when a test fails.
const LOG_LINES_MAX: usize = 60;
