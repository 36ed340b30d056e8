//! A lab of hosts with a router on each.

use std::fs::{File, OpenOptions};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use kernel::netns::Namespace;
use lab::host::{HostOptions, Lab, LabProcess};
use rustix::process::{Pid, Signal};
use serde_json::Value;

use crate::launch::weft_command;
use crate::status::{ask, at};
use crate::{Connection, Container, Kind, Launch, Ran, wait};

/// Hosts, their routers and their containers. Dropping it removes everything; when the test
/// panics, the logs of the routers are printed first.
pub struct Mesh {
    // Containers and processes first, then the lab that they are in.
    members: Vec<Member>,
    /// The hosts.
    pub lab: Lab,
}

struct Member {
    kind: Kind,
    folder: PathBuf,
    log: File,
    process: Option<LabProcess>,
    containers: u8,
}

impl Mesh {
    /// Hosts on one switch, for routers of these kinds; none is started yet.
    pub fn new(kinds: &[Kind]) -> Mesh {
        let hosts: Vec<_> = kinds
            .iter()
            .map(|kind| (*kind, HostOptions::default()))
            .collect();
        Mesh::with_hosts(&hosts)
    }

    /// Hosts of these properties.
    pub fn with_hosts(hosts: &[(Kind, HostOptions)]) -> Mesh {
        let mut mesh = Mesh {
            lab: Lab::new(None).unwrap(),
            members: Vec::new(),
        };
        for (kind, options) in hosts {
            mesh.add_host(*kind, *options);
        }
        mesh
    }

    /// Adds a host and returns its number.
    pub fn add_host(&mut self, kind: Kind, options: HostOptions) -> usize {
        let number = self.lab.add_host(options).unwrap();
        let folder = self.lab.folder().join(nickname(number));
        std::fs::create_dir_all(&folder).unwrap();
        let log = folder.join("log");
        let log = OpenOptions::new().create(true).append(true).open(log);
        self.members.push(Member {
            kind,
            folder,
            log: log.unwrap(),
            process: None,
            containers: 0,
        });
        number
    }

    /// Returns what the router of a host is.
    pub fn kind(&self, host: usize) -> Kind {
        self.members[host].kind
    }

    /// From now on the router of a host is ours, be it a real one before.
    pub fn replace_by_ours(&mut self, host: usize) {
        self.members[host].kind = Kind::Weft;
    }

    /// Returns the address of a host on the underlay.
    pub fn address(&self, host: usize) -> Ipv4Addr {
        self.lab.hosts()[host].address
    }

    /// Returns the namespace of a host.
    pub fn namespace(&self, host: usize) -> &Namespace {
        &self.lab.hosts()[host].namespace
    }

    /// Returns where the router of a host keeps its files.
    pub fn folder(&self, host: usize) -> &Path {
        &self.members[host].folder
    }

    /// Returns what the router of a host has logged, in all its lives.
    pub fn log(&self, host: usize) -> String {
        std::fs::read_to_string(self.members[host].folder.join("log")).unwrap()
    }

    /// Where the router of a host logs to from its next start on, in place of its file.
    pub fn log_to(&mut self, host: usize, log: File) {
        self.members[host].log = log;
    }

    /// Starts the router of a host without waiting for it.
    pub fn start(&mut self, host: usize, launch: &Launch) {
        let name = peer_name(host);
        let member = &self.members[host];
        let nickname = nickname(host);
        let mut command =
            launch.command(member.kind, &name, &nickname, &member.folder, &member.log);
        let process = self.lab.spawn(host, &mut command).unwrap();
        self.members[host].process = Some(process);
    }

    /// Starts the router of a host and waits until it answers.
    #[track_caller]
    pub fn launch(&mut self, host: usize, launch: &Launch) {
        self.start(host, launch);
        self.wait_until_up(host);
    }

    /// Starts our router on a host without telling it a name, and waits until it answers.
    #[track_caller]
    pub fn launch_unnamed(&mut self, host: usize) {
        let member = &self.members[host];
        let mut command = weft_command();
        command.args(["launch", "--docker-api="]);
        command.arg("--db-prefix").arg(member.folder.join(""));
        command.stdin(Stdio::null());
        command.stdout(member.log.try_clone().unwrap());
        command.stderr(member.log.try_clone().unwrap());
        let process = self.lab.spawn(host, &mut command).unwrap();
        self.members[host].process = Some(process);
        self.wait_until_up(host);
    }

    /// Starts all routers, each dialling those that `peers` names for it.
    #[track_caller]
    pub fn launch_all(&mut self, peers: &[&[usize]], launch: &Launch) {
        for (host, peers) in peers.iter().enumerate() {
            let mut launch = launch.clone();
            for peer in *peers {
                launch = launch.peer(self.address(*peer));
            }
            self.launch(host, &launch);
        }
    }

    /// Waits until the router of a host answers.
    #[track_caller]
    pub fn wait_until_up(&mut self, host: usize) {
        wait::until(&format!("{} answers", nickname(host)), wait::SOON, || {
            assert!(self.is_running(host), "{} ended", nickname(host));
            self.get(host, "/status").filter(|page| !page.is_empty())
        });
    }

    /// Returns true if the process of a router has not ended.
    pub fn is_running(&mut self, host: usize) -> bool {
        let process = self.members[host].process.as_mut();
        process.is_some_and(|process| process.try_wait().unwrap().is_none())
    }

    /// Waits for the router of a host to end by itself.
    #[track_caller]
    pub fn wait_for_end(&mut self, host: usize) -> ExitStatus {
        let process = self.members[host].process.as_mut().unwrap();
        let what = format!("{} ends", nickname(host));
        wait::until(&what, wait::SOON, || process.try_wait().unwrap())
    }

    /// Kills the router of a host, without any chance to clean up.
    pub fn kill(&mut self, host: usize) {
        let mut process = self.members[host].process.take().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }

    /// Asks the router of a host to end (SIGTERM) and waits until it has.
    #[track_caller]
    pub fn terminate(&mut self, host: usize) -> ExitStatus {
        let pid = Pid::from_raw(self.pid(host).cast_signed()).unwrap();
        rustix::process::kill_process(pid, Signal::TERM).unwrap();
        let status = self.wait_for_end(host);
        self.members[host].process = None;
        status
    }

    /// Returns the id of the router's process.
    pub fn pid(&self, host: usize) -> u32 {
        let member = &self.members[host];
        let id = member.process.as_ref().unwrap().id();
        match member.kind {
            Kind::Weft | Kind::Sleeve => id,
            // What was started only waits for its child, the router.
            Kind::Weaver => {
                let children = std::fs::read_to_string(format!("/proc/{id}/task/{id}/children"));
                children.unwrap().trim().parse().unwrap()
            }
        }
    }

    /// Memory of the router, in KiB.
    pub fn resident_kib(&self, host: usize) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid(host))).unwrap();
        let mut lines = status.lines();
        let line = lines.find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.split_whitespace().next().unwrap().parse().unwrap()
    }

    /// Gets a page of a router; none if it does not answer or refuses.
    pub fn get(&self, host: usize, path: &str) -> Option<String> {
        ask(self.namespace(host), CONTROL, "GET", path, false, "")
            .ok()?
            .ok()
            .ok()
    }

    /// Gets a page of a router as JSON; none if it does not answer or refuses.
    pub fn get_json(&self, host: usize, path: &str) -> Option<Value> {
        let answer = ask(self.namespace(host), CONTROL, "GET", path, true, "").ok()?;
        serde_json::from_str(&answer.ok().ok()?).ok()
    }

    /// Posts a form to a router.
    #[track_caller]
    pub fn post(&self, host: usize, path: &str, form: &str) -> web::client::Answer {
        ask(self.namespace(host), CONTROL, "POST", path, false, form).unwrap()
    }

    /// Sends any request with a form to a router.
    #[track_caller]
    pub fn request(
        &self,
        host: usize,
        method: &str,
        path: &str,
        form: &str,
    ) -> web::client::Answer {
        ask(self.namespace(host), CONTROL, method, path, false, form).unwrap()
    }

    /// Sends a request to a router; what it answered, or the refusal.
    #[track_caller]
    pub fn call(&self, host: usize, method: &str, path: &str) -> Result<String, String> {
        let answer = ask(self.namespace(host), CONTROL, method, path, false, "");
        let text = answer.and_then(web::client::Answer::ok);
        text.map_err(|error| error.to_string())
    }

    /// Returns the report of a router.
    #[track_caller]
    pub fn report(&self, host: usize) -> Value {
        self.get_json(host, "/report").expect("a report")
    }

    /// Returns the connections of a router and its attempts.
    pub fn connections(&self, host: usize) -> Vec<Connection> {
        let report = self.get_json(host, "/report").unwrap_or_default();
        let connections = at(&report, &["Router", "Connections"]).as_array();
        connections
            .into_iter()
            .flatten()
            .map(Connection::read)
            .collect()
    }

    /// Returns the connection of a router to the peer on another host.
    pub fn connection(&self, host: usize, to: usize) -> Option<Connection> {
        let label = format!("{}({})", peer_name(to), nickname(to));
        let mut connections = self.connections(host).into_iter();
        connections.find(|connection| {
            connection.state == "established" && connection.info.ends_with(&label)
        })
    }

    /// Returns true if a router has an established connection to the peer on another host.
    pub fn is_connected(&self, host: usize, to: usize) -> bool {
        self.connection(host, to).is_some()
    }

    /// Waits until two routers are connected, as both say.
    #[track_caller]
    pub fn wait_connected(&self, a: usize, b: usize) {
        let what = format!("{} and {} are connected", nickname(a), nickname(b));
        wait::until_true(&what, wait::LATER, || {
            self.is_connected(a, b) && self.is_connected(b, a)
        });
    }

    /// Waits until each of these routers has a route to each other, and for its broadcasts.
    #[track_caller]
    pub fn wait_routed(&self, hosts: &[usize]) {
        self.wait_routed_within(hosts, wait::LATER);
    }

    /// As [`Mesh::wait_routed`], within a time.
    #[track_caller]
    pub fn wait_routed_within(&self, hosts: &[usize], time: Duration) {
        for from in hosts {
            for to in hosts.iter().filter(|to| *to != from) {
                let what = format!("{} has a route to {}", nickname(*from), nickname(*to));
                wait::until_true(&what, time, || self.has_route(*from, *to));
            }
        }
    }

    /// Returns true if a router knows how to reach the peer on another host over established links.
    pub fn has_route(&self, from: usize, to: usize) -> bool {
        self.next_hop(from, to).is_some()
    }

    /// Returns the name of the peer by which a router reaches the one on another host.
    pub fn next_hop(&self, from: usize, to: usize) -> Option<String> {
        let report = self.get_json(from, "/report")?;
        let routes = at(&report, &["Router", "UnicastRoutes"]).as_array()?;
        let dest = peer_name(to);
        let route = routes.iter().find(|route| route["Dest"] == dest.as_str())?;
        Some(route["Via"].as_str()?.to_owned())
    }

    /// Returns the names of all peers that a router knows, sorted.
    pub fn peers(&self, host: usize) -> Vec<String> {
        let report = self.get_json(host, "/report").unwrap_or_default();
        let peers = at(&report, &["Router", "Peers"]).as_array();
        let names = peers.into_iter().flatten();
        let mut names: Vec<String> = names
            .filter_map(|peer| peer["Name"].as_str().map(str::to_owned))
            .collect();
        names.sort();
        names
    }

    /// Attaches a new container to the bridge of a host.
    #[track_caller]
    pub fn attach(&mut self, host: usize) -> Container {
        self.members[host].containers += 1;
        let number = self.members[host].containers;
        let namespace = self.lab.new_container().unwrap();
        Container::attach(self, host, namespace, container_address(host, number))
    }

    /// Attaches one new container on each host.
    #[track_caller]
    pub fn attach_all(&mut self) -> Vec<Container> {
        (0..self.members.len())
            .map(|host| self.attach(host))
            .collect()
    }

    /// Runs one of our commands on a host, to its end.
    #[track_caller]
    pub fn weft(&self, host: usize, arguments: &[&str]) -> Ran {
        let mut command = weft_command();
        command.args(arguments);
        self.run(host, &mut command)
    }

    /// Runs any command on a host, to its end.
    #[track_caller]
    pub fn run(&self, host: usize, command: &mut Command) -> Ran {
        command.stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = self.namespace(host).spawn(command).unwrap();
        // It can neither wait for a terminal nor, as all our commands end, forever.
        let output = child.wait_with_output().unwrap();
        Ran {
            status: output.status,
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Returns the names of the network devices of a host.
    pub fn devices(&self, host: usize) -> Vec<String> {
        let links = self.namespace(host).netlink().unwrap().links().unwrap();
        links.into_iter().map(|link| link.name).collect()
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        for (host, member) in self.members.iter().enumerate() {
            let text = std::fs::read_to_string(member.folder.join("log")).unwrap_or_default();
            let lines: Vec<&str> = text.lines().collect();
            let skipped = lines.len().saturating_sub(LOG_LINES_MAX);
            eprintln!("---- {} ({:?}), its log:", nickname(host), member.kind);
            for line in &lines[skipped..] {
                eprintln!("{line}");
            }
            if member.process.is_some() {
                let page = self.get(host, "/status/connections").unwrap_or_default();
                eprintln!("---- {}, its connections:\n{page}", nickname(host));
            }
        }
    }
}

/// Returns the name of the peer on a host, unless a launch gives another.
pub fn peer_name(host: usize) -> String {
    format!("02:00:00:00:00:{:02x}", host + 1)
}

/// Returns the nickname of the peer on a host.
pub fn nickname(host: usize) -> String {
    format!("h{}", host + 1)
}

/// Returns the address of a container: outside of the range that routers allocate from, so that no
/// test waits for an allocator that it is not about.
fn container_address(host: usize, number: u8) -> ipnet::Ipv4Net {
    let host = u8::try_from(host + 1).unwrap();
    ipnet::Ipv4Net::new_assert(Ipv4Addr::new(10, 99, host, number), 16)
}

/// The control interface, by default.
const CONTROL: &str = "127.0.0.1:6784";
/// Lines of each log that are printed when a test fails.
const LOG_LINES_MAX: usize = 60;
