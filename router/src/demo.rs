//! A whole mesh on this machine: hosts made of namespaces, a router and a container on each, and
//! what a user would want to know of them.
//!
//! The routers are processes of the own program, started and used by the commands that a user
//! types. What is made goes when it is over; after a kill -9, when the next one begins.

mod measure;
mod moving;

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use ipnet::Ipv4Net;
use serde_json::Value;

pub use measure::{Ping, Stream};
pub use moving::{IDENTITY, Moved};

use kernel::error::NetError;
use kernel::netns::Namespace;
use lab::host::{HostOptions, Lab, LabProcess};
use web::client::Client;
use web::endpoint::Endpoint;

/// Hosts that a demonstration has at least and at most; beyond, memory and patience end.
pub const HOSTS: std::ops::RangeInclusive<u16> = 2..=100;
/// Maximum time for all routers together until each carries frames for each other.
const MESH_TIME_MAX: Duration = Duration::from_secs(30);
/// Interval between checks of the routers.
const POLL_INTERVAL: Duration = Duration::from_millis(10);
/// Maximum time for one answer of a router.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// Lines of a router's log that an error shows.
const LOG_LINES: usize = 8;

/// Specification of what to make.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Number of hosts, within [`HOSTS`].
    pub hosts: u16,
    /// The password of the mesh.
    pub password: Option<String>,
    /// This program.
    pub program: PathBuf,
}

/// An event for people who watch.
#[derive(Clone, Debug, PartialEq)]
pub enum Step {
    /// The hosts are there, and the switch between them.
    HostsMade(usize),
    /// A command was run on a host, written as a user types it.
    Ran {
        /// The host's number.
        host: usize,
        /// The command.
        command: String,
    },
    /// Two routers carry frames for each other.
    Connected {
        /// The hosts' numbers, the lower first.
        hosts: [usize; 2],
        /// Whether frames between them are encrypted.
        encrypted: bool,
        /// Largest packet of a container that fits, in bytes.
        mtu: u64,
    },
    /// Every router is connected with every other.
    MeshComplete,
    /// Every container pings every other.
    Pinging,
    /// Streams of bytes are sent, one after the other.
    Streaming,
    /// A container is to go from one host to another.
    Moving,
}

/// The findings.
#[derive(Clone, Debug)]
pub struct Findings {
    /// The hosts.
    pub hosts: Vec<HostFindings>,
    /// From the start of the last router until every router was connected with every other.
    pub mesh_time: Duration,
    /// Every ordered pair of containers.
    pub pings: Vec<Ping>,
    /// Some pairs of containers.
    pub streams: Vec<Stream>,
    /// A container that went to another host.
    pub moved: Moved,
}

impl Findings {
    /// Returns true if all that was tried worked.
    pub fn all_well(&self) -> bool {
        self.pings.iter().all(|ping| ping.best.is_some())
            && self.streams.iter().all(|stream| stream.result.is_ok())
            && self.moved.is_well()
    }
}

/// A host and what runs on it.
#[derive(Clone, Debug)]
pub struct HostFindings {
    /// Its name.
    pub name: String,
    /// Its address on the switch.
    pub address: Ipv4Addr,
    /// The address of its container.
    pub container: Ipv4Addr,
    /// Memory of its router, in KiB, at the end.
    pub resident_kib: u64,
}

/// A demonstration that could not go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The kernel refused a part of the set-up.
    #[error(transparent)]
    Net(#[from] NetError),
    /// A file of the demonstration could not be used.
    #[error("{what}: {error}")]
    File {
        /// The operation that was tried.
        what: String,
        /// The system's error.
        error: std::io::Error,
    },
    /// A command failed; what it said.
    #[error("on {host}, '{command}' failed:\n{said}")]
    Command {
        /// The host's name.
        host: String,
        /// The command as a user types it.
        command: String,
        /// The last lines that it printed.
        said: String,
    },
    /// The routers did not find each other.
    #[error("the mesh was not complete after {seconds} s: {missing}\n{log}")]
    Late {
        /// Time that was waited.
        seconds: u64,
        /// Which connections are missing.
        missing: String,
        /// The end of a router's log.
        log: String,
    },
    /// A thread that measures panicked.
    #[error("a measurement broke off")]
    Broken,
}

/// Returns the name of host `number`, counted from zero.
pub fn host_name(number: usize) -> String {
    format!("host{}", number + 1)
}

/// Returns the name of the container on host `number`, counted from zero.
pub fn container_name(number: usize) -> String {
    format!("c{}", number + 1)
}

/// Returns the address that the container on host `number` gets.
fn container_address(number: usize) -> Ipv4Net {
    let small = u8::try_from(number + 1).unwrap_or(u8::MAX);
    Ipv4Net::new_assert(Ipv4Addr::new(10, 7, small, 1), 16)
}

/// Returns the name of the peer on host `number`; all hosts have this machine's ids.
fn peer_name(number: usize) -> String {
    format!("7e:f7:00:00:00:{:02x}", number + 1)
}

/// Makes the mesh, measures it and removes it; `show` hears of every step and when it was. A
/// future that is dropped removes everything as well.
pub async fn run(plan: &Plan, show: &mut Show<'_>) -> Result<Findings, DemoError> {
    let mut demo = Demo::new(plan)?;
    demo.step(show, Step::HostsMade(demo.hosts.len()));
    demo.launch(0, show).await?;
    for host in 1..demo.hosts.len() {
        demo.launch(host, show).await?;
    }
    let launched = Instant::now();
    for host in 0..demo.hosts.len() {
        demo.attach(host, show).await?;
    }
    demo.wait_for_mesh(show).await?;
    let mesh_time = launched.elapsed();
    demo.step(show, Step::MeshComplete);
    demo.step(show, Step::Pinging);
    let pings = measure::ping_all(&demo.containers()).await?;
    demo.step(show, Step::Streaming);
    let streams = measure::stream_some(&demo.containers()).await?;
    demo.step(show, Step::Moving);
    let moved = moving::run(&demo, show).await?;
    Ok(Findings {
        hosts: demo.host_findings(),
        mesh_time,
        pings,
        streams,
        moved,
    })
}

/// Hears of every step, and how long after the start it was.
pub type Show<'s> = dyn FnMut(Duration, Step) + Send + 's;

/// Hosts and what runs on them. Dropping it removes everything.
struct Demo<'p> {
    plan: &'p Plan,
    started: Instant,
    hosts: Vec<Host>,
    /// Dropped last: ends what still runs.
    lab: Lab,
}

struct Host {
    name: String,
    address: Ipv4Addr,
    container: Namespace,
    folder: PathBuf,
    client: Client,
    router: Option<LabProcess>,
    /// Hosts that its router is connected with.
    connected: Vec<usize>,
}

impl<'p> Demo<'p> {
    fn new(plan: &'p Plan) -> Result<Demo<'p>, DemoError> {
        let started = Instant::now();
        let mut lab = Lab::new(None)?;
        let mut hosts = Vec::new();
        for number in 0..usize::from(plan.hosts) {
            lab.add_host(HostOptions::default())?;
            let name = host_name(number);
            let folder = lab.folder().join(&name);
            std::fs::create_dir_all(&folder).map_err(at(&folder))?;
            hosts.push(Host {
                address: lab.hosts()[number].address,
                container: lab.new_container()?.labelled(container_name(number)),
                client: Client::new(Endpoint::Unix(folder.join("status.sock")), ANSWER_TIME_MAX),
                router: None,
                connected: Vec::new(),
                name,
                folder,
            });
        }
        Ok(Demo {
            plan,
            started,
            hosts,
            lab,
        })
    }

    fn step(&self, show: &mut Show<'_>, step: Step) {
        show(self.started.elapsed(), step);
    }

    fn containers(&self) -> Vec<measure::Container> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .map(|(number, host)| measure::Container {
                namespace: host.container.clone(),
                address: container_address(number).addr(),
            })
            .collect()
    }

    fn host_findings(&self) -> Vec<HostFindings> {
        let hosts = self.hosts.iter().enumerate();
        hosts
            .map(|(number, host)| HostFindings {
                name: host.name.clone(),
                address: host.address,
                container: container_address(number).addr(),
                resident_kib: host
                    .router
                    .as_ref()
                    .and_then(|router| measure::resident_kib(router.id()))
                    .unwrap_or(0),
            })
            .collect()
    }

    /// Returns a command of the own program, with nothing of the user's environment, printing to a
    /// file.
    fn command(&self, log: &Path) -> Result<Command, DemoError> {
        let out = File::create(log).map_err(at(log))?;
        let err = out.try_clone().map_err(at(log))?;
        let mut command = Command::new(&self.plan.program);
        command
            .env_clear()
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(err);
        Ok(command)
    }

    /// Starts the router of a host and waits until it answers.
    async fn launch(&mut self, number: usize, show: &mut Show<'_>) -> Result<(), DemoError> {
        let host = &self.hosts[number];
        let log = host.folder.join("log");
        let mut command = self.command(&log)?;
        command.args(["launch", "--name", &peer_name(number)]);
        command.args(["--nickname", &host.name]);
        // The machine's own Docker is no part of this.
        command.arg("--docker-api=");
        // With a slash at its end the prefix is a folder.
        command.arg("--db-prefix").arg(host.folder.join(""));
        command
            .arg("--status-addr")
            .arg(host.folder.join("status.sock"));
        let mut typed = "weft launch".to_owned();
        if let Some(password) = &self.plan.password {
            command.env("WEAVE_PASSWORD", password);
            typed.push_str(" --password PASSWORD");
        }
        if number > 0 {
            let first = self.hosts[0].address.to_string();
            typed = format!("{typed} {first}");
            command.arg(first);
        }
        let router = self.lab.spawn(number, &mut command)?;
        self.hosts[number].router = Some(router);
        self.step(
            show,
            Step::Ran {
                host: number,
                command: typed.clone(),
            },
        );
        let deadline = Instant::now() + ANSWER_TIME_MAX;
        while self.hosts[number].client.get("/status").await.is_err() {
            if self.has_ended(number)? || Instant::now() > deadline {
                return Err(self.failed(number, typed, &log));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }

    fn has_ended(&mut self, number: usize) -> Result<bool, DemoError> {
        let host = &mut self.hosts[number];
        let Some(router) = host.router.as_mut() else {
            return Ok(true);
        };
        let ended = router.try_wait().map_err(at(&host.folder))?;
        Ok(ended.is_some())
    }

    fn failed(&self, number: usize, command: String, log: &Path) -> DemoError {
        DemoError::Command {
            host: self.hosts[number].name.clone(),
            command,
            said: tail(log),
        }
    }

    /// Attaches the container of a host.
    async fn attach(&self, number: usize, show: &mut Show<'_>) -> Result<(), DemoError> {
        let address = container_address(number).to_string();
        let (container, name) = (&self.hosts[number].container, container_name(number));
        let words = ["attach", &address];
        self.on_container(number, &words, container, &name, show)
            .await?;
        Ok(())
    }

    /// Runs a command of the own program on a host, about a container; returns what it printed.
    async fn on_container(
        &self,
        number: usize,
        words: &[&str],
        container: &Namespace,
        name: &str,
        show: &mut Show<'_>,
    ) -> Result<String, DemoError> {
        let host = &self.hosts[number];
        let log = host.folder.join("command.log");
        let mut command = self.command(&log)?;
        command.args(words).arg(container.path());
        let typed = format!("weft {} {name}", words.join(" "));
        let mut running = self.lab.spawn(number, &mut command)?;
        self.step(
            show,
            Step::Ran {
                host: number,
                command: typed.clone(),
            },
        );
        let status = loop {
            if let Some(status) = running.try_wait().map_err(at(&log))? {
                break status;
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        };
        if !status.success() {
            return Err(self.failed(number, typed, &log));
        }
        std::fs::read_to_string(&log).map_err(at(&log))
    }

    /// Waits until every router has an established connection with every other.
    async fn wait_for_mesh(&mut self, show: &mut Show<'_>) -> Result<(), DemoError> {
        let deadline = Instant::now() + MESH_TIME_MAX;
        loop {
            for number in 0..self.hosts.len() {
                self.look(number, show).await;
            }
            let others = self.hosts.len() - 1;
            let lonely = self.hosts.iter().find(|host| host.connected.len() < others);
            let Some(lonely) = lonely else {
                return Ok(());
            };
            if Instant::now() > deadline {
                return Err(DemoError::Late {
                    seconds: MESH_TIME_MAX.as_secs(),
                    missing: format!(
                        "{} is connected with {} of {others} others; the end of its log:",
                        lonely.name,
                        lonely.connected.len()
                    ),
                    log: tail(&lonely.folder.join("log")),
                });
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
    }

    /// Asks a router with whom it is connected, and shows what both ends say for the first time.
    async fn look(&mut self, number: usize, show: &mut Show<'_>) {
        let others = self.hosts.len() - 1;
        if self.hosts[number].connected.len() == others {
            return;
        }
        // A router that does not answer has no connection that could be shown.
        let answer = self.hosts[number].client.get_json("/status/weft").await;
        let body = answer.map(|answer| answer.body).unwrap_or_default();
        let status: Value = serde_json::from_str(&body).unwrap_or_default();
        for connection in status["connections"].as_array().into_iter().flatten() {
            let nickname = connection["nickname"].as_str().unwrap_or_default();
            let other = self.hosts.iter().position(|host| host.name == nickname);
            let (Some(other), Some("established")) = (other, connection["state"].as_str()) else {
                continue;
            };
            if self.hosts[number].connected.contains(&other) {
                continue;
            }
            self.hosts[number].connected.push(other);
            if self.hosts[other].connected.contains(&number) {
                let step = Step::Connected {
                    hosts: [number.min(other), number.max(other)],
                    encrypted: connection["frames_encrypted"] == true,
                    mtu: connection["mtu"].as_u64().unwrap_or(0),
                };
                self.step(show, step);
            }
        }
    }
}

/// Returns the last lines of a file that a command printed to.
fn tail(log: &Path) -> String {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LOG_LINES)..].join("\n")
}

fn at(path: &Path) -> impl FnOnce(std::io::Error) -> DemoError {
    let what = path.display().to_string();
    move |error| DemoError::File { what, error }
}
