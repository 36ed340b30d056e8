//! Command lines of routers, ours and real, and of our other commands.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use crate::Kind;

/// How a router is started.
#[derive(Clone, Debug, Default)]
pub struct Launch {
    pub(crate) peers: Vec<String>,
    pub(crate) password: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) mtu: Option<u32>,
    pub(crate) names: bool,
    pub(crate) arguments: Vec<String>,
}

impl Launch {
    /// Connected to nobody, without password, all else by default.
    pub fn new() -> Launch {
        Launch::default()
    }

    /// Dials this peer.
    #[must_use]
    pub fn peer(mut self, peer: impl ToString) -> Launch {
        self.peers.push(peer.to_string());
        self
    }

    /// With a password.
    #[must_use]
    pub fn password(mut self, password: &str) -> Launch {
        self.password = Some(password.to_owned());
        self
    }

    /// With a password if there is one.
    #[must_use]
    pub fn maybe_password(mut self, password: Option<&str>) -> Launch {
        self.password = password.map(str::to_owned);
        self
    }

    /// With a name of its own in place of that of its host.
    #[must_use]
    pub fn name(mut self, name: &str) -> Launch {
        self.name = Some(name.to_owned());
        self
    }

    /// With an MTU of bridge and containers.
    #[must_use]
    pub fn mtu(mut self, mtu: u32) -> Launch {
        self.mtu = Some(mtu);
        self
    }

    /// With names: ours have them unless told otherwise, real ones have them only in scenarios
    /// that are about them.
    #[must_use]
    pub fn names(mut self) -> Launch {
        self.names = true;
        self
    }

    /// With another argument; ours and real routers know the same ones.
    #[must_use]
    pub fn with(mut self, argument: &str) -> Launch {
        self.arguments.push(argument.to_owned());
        self
    }

    /// Returns the command, in a folder where it keeps its files, printing to `log`.
    pub(crate) fn command(
        &self,
        kind: Kind,
        name: &str,
        nickname: &str,
        folder: &Path,
        log: &File,
    ) -> Command {
        let mut command = match kind {
            Kind::Weft | Kind::Sleeve => {
                let mut command = weft_command();
                command.arg("launch");
                command.arg("--db-prefix").arg(folder.join(""));
                // The machine's own Docker is no part of any mesh here.
                let mut given = self.arguments.iter();
                if !given.any(|argument| argument.starts_with("--docker-api")) {
                    command.arg("--docker-api=");
                }
                if kind == Kind::Sleeve {
                    command.args(["--overlays", "sleeve"]);
                }
                command
            }
            Kind::Weaver => {
                let mut command = weaver_command(folder);
                if !self.names {
                    command.arg("--no-dns");
                }
                command
            }
        };
        let name = self.name.as_deref().unwrap_or(name);
        command.args(["--name", name, "--nickname", nickname]);
        let mtu = self.mtu.unwrap_or(MTU).to_string();
        command.args(["--mtu", &mtu]);
        if let Some(password) = &self.password {
            command.args(["--password", password]);
        }
        command.args(&self.arguments);
        command.args(&self.peers);
        command.stdin(Stdio::null());
        command.stdout(log.try_clone().unwrap());
        command.stderr(log.try_clone().unwrap());
        command
    }
}

/// Returns our program, without anything of the environment that could change what it does.
pub(crate) fn weft_command() -> Command {
    let mut command = Command::new(crate::weft());
    command.env_clear().env("RUST_BACKTRACE", "1");
    command
}

/// Returns a real router. It walks through /proc, so it gets one that shows nothing else.
fn weaver_command(folder: &Path) -> Command {
    // Its mark that it ran before would make it ignore the peers of the command line.
    let _ = std::fs::remove_file(folder.join("restart.sentinel"));
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--mount"]);
    command.arg("--").arg(crate::weaver().unwrap());
    command.args(["--port", "6783", "--docker-api", ""]);
    command.args(["--no-fastdp", "--ipalloc-range", "10.7.0.0/16"]);
    command.args(["--http-addr", "127.0.0.1:6784"]);
    command.args(["--status-addr", "127.0.0.1:6782"]);
    command.arg("--db-prefix").arg(folder.join("weave"));
    command.env("CHECKPOINT_DISABLE", "1");
    command.env_remove("WEAVE_PASSWORD");
    command.current_dir(folder);
    command
}

/// What a command that ended printed, and how it ended.
#[derive(Clone, Debug)]
pub struct Ran {
    /// How it ended.
    pub status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it complained of.
    pub stderr: String,
}

impl Ran {
    /// Returns what it printed, if it succeeded.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.status.success(), "{self:?}");
        self.stdout
    }

    /// Returns what it complained of, if it failed with this exit status.
    #[track_caller]
    pub fn failed(self, code: i32) -> String {
        assert_eq!(self.status.code(), Some(code), "{self:?}");
        self.stderr
    }
}

/// MTU of bridges and containers unless a scenario chooses one.
pub(crate) const MTU: u32 = 1376;
