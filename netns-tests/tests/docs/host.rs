//! A host where commands find everything at the places that the documents name.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use lab::host::LabProcess;
use netns_tests::{Mesh, Ran, wait};

/// A host of a mesh with processes, mounts and a name of its own. The folders that weft uses are its
/// own as well. Dropping it ends all that runs on it.
pub(crate) struct Host {
    number: usize,
    folder: PathBuf,
    /// Its first process, as it is seen from outside.
    init_pid: u32,
    /// The container that commands are about, as it is seen on the host.
    container: u32,
    // What runs before what it runs in.
    running: Vec<LabProcess>,
    _init: LabProcess,
}

/// Makes the host's own mounts; `$0` is its folder, which it finds at `/mnt`, and `$1` its name.
const BEGIN: &str = r#"set -e
mkdir -p /mnt /opt /usr/lib/cni "$0/etc" "$0/bin"
mount --bind "$0" /mnt
cp -a /etc/. /mnt/etc
rm -rf /mnt/etc/weft /mnt/etc/cni
head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n' > /mnt/etc/machine-id
mount --bind /mnt/etc /etc
for folder in /run /opt /var/lib /usr/lib/cni; do mount -t tmpfs weft-test $folder; done
hostname "$1"
unshare --net sleep 10000 &
echo $! > /mnt/container
touch /mnt/ready
while sleep 1; do :; done"#;

impl Host {
    pub(crate) fn new(mesh: &Mesh, number: usize) -> Host {
        let folder = mesh.folder(number).to_owned();
        let name = format!("host{}", number + 1);
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--uts",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args(["sh", "-c", BEGIN]).arg(&folder).arg(name);
        let log = File::create(folder.join("init.log")).unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let init = mesh.lab.spawn(number, &mut command).unwrap();
        let ready = wait::within(wait::LATER, || folder.join("ready").exists().then_some(()));
        let said = fs::read_to_string(folder.join("init.log")).unwrap();
        assert!(ready.is_some(), "no host is made: {said}");
        std::os::unix::fs::symlink(netns_tests::weft(), folder.join("bin/weft")).unwrap();
        let children = format!("/proc/{0}/task/{0}/children", init.id());
        let children = fs::read_to_string(children).unwrap();
        let container = fs::read_to_string(folder.join("container")).unwrap();
        Host {
            number,
            init_pid: children.split_whitespace().next().unwrap().parse().unwrap(),
            container: container.trim().parse().unwrap(),
            running: Vec::new(),
            folder,
            _init: init,
        }
    }

    /// A command with what stands for something of the reader's filled in.
    pub(crate) fn filled_in(&self, command: &str, mesh: &Mesh) -> String {
        let first = mesh.address(0).to_string();
        let container = self.container.to_string();
        let words = command.split(' ').map(|word| match word {
            "HOST1" | "host1" | "192.168.0.11" => first.as_str(),
            "12345" | "PID" => container.as_str(),
            // What may be left out is given.
            word => word.trim_matches(['[', ']']),
        });
        let words: Vec<&str> = words.filter(|word| *word != "ADDR...").collect();
        words.join(" ")
    }

    /// The shell on this host, given a command.
    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("nsenter");
        shell.args(["--mount", "--uts", "--pid", "--target"]);
        shell.arg(self.init_pid.to_string());
        shell.args(["--", "sh", "-c", command]);
        let path = std::env::var("PATH").unwrap_or_default();
        let path = format!("/mnt/bin:{path}");
        shell.env_clear().env("PATH", path).env("HOME", "/root");
        shell.current_dir("/").stdin(Stdio::null());
        shell
    }

    /// Runs a command to its end.
    pub(crate) fn run(&self, mesh: &Mesh, command: &str) -> Ran {
        mesh.run(self.number, &mut self.shell(command))
    }

    /// Starts a router, and waits until it answers.
    pub(crate) fn start(&mut self, mesh: &Mesh, command: &str) {
        let log = self
            .folder
            .join(format!("router-{}.log", self.running.len()));
        let file = File::create(&log).unwrap();
        let mut shell = self.shell(command);
        shell.stdout(file.try_clone().unwrap()).stderr(file);
        self.running
            .push(mesh.lab.spawn(self.number, &mut shell).unwrap());
        let answers = wait::within(wait::LATER, || {
            self.run(mesh, "weft status").status.success().then_some(())
        });
        let said = || fs::read_to_string(&log).unwrap_or_default();
        assert!(answers.is_some(), "{command}: {}", said());
    }

    /// Writes a file, as if it had been copied from elsewhere.
    pub(crate) fn copy(&self, mesh: &Mesh, path: &str, content: &str) {
        let copy = format!(
            "mkdir -p -m 700 $(dirname {path}) && umask 077 && printf %s '{content}' > {path}"
        );
        assert!(self.run(mesh, &copy).status.success());
    }
}

/// What a command says of itself; `None` if there is none. Words that are no commands may follow.
pub(crate) fn help(words: &[&str]) -> Option<(String, usize)> {
    for len in (0..=words.len()).rev() {
        if len == 0 && !words.is_empty() {
            return None;
        }
        let mut command = Command::new(netns_tests::weft());
        let output = command.args(&words[..len]).arg("--help").output().unwrap();
        if output.status.success() {
            return Some((String::from_utf8(output.stdout).unwrap(), len));
        }
    }
    None
}
