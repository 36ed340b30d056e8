//! What a mesh of N hosts costs until it is complete, and at rest: real routers as processes on
//! hosts made of namespaces of this machine, all started at once, all told of the first. Needs root.
//!
//! ```text
//! cargo bench -p benches --bench scale -- [--rest SECONDS] [--settle SECONDS] [--containers K] [N...]
//! ```
//!
//! N is 5, 10 and 20 unless numbers are given; up to 160 where the machine has the time. `WEFT`
//! names another program of ours to be measured, `WEAVER` a real router, which is measured in
//! place of ours. With `--containers`, so many on each host get an address and a name before the
//! rest is measured. All routers share the machine's cores with whatever else it does: bytes and
//! packets mean more than times.
//!
//! *Complete*: each router shows N-1 established connections. *All reach all*: each router lists N
//! peers and has a route to each. The bytes are what hosts send to the switch between them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints what it measured"
)]

use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use benches::crowded::Used;
use benches::program;
use netns_tests::{Kind, Launch, Mesh};
use testbed::rig::TrialError;

fn main() -> ExitCode {
    program::router_or("scale", measure)
}

fn measure() -> Result<(), TrialError> {
    let rest = Duration::from_secs(program::number_after("--rest", 120)?);
    let settle = Duration::from_secs(program::number_after("--settle", 15)?);
    let containers = program::number_after("--containers", 0)?;
    let kind = match netns_tests::weaver() {
        Some(_) => Kind::Weaver,
        None => Kind::Weft,
    };
    println!(
        "| routers | all reach all after | mesh complete after | router CPU s until then \
         | MB on the wire | RSS MB each | at rest KB/s in all | packets/s in all \
         | % of a core each | context switches/s each |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|");
    for count in counts()? {
        let mut site = Site::start(kind, count)?;
        let (reached, complete, start) = site.wait_until_complete()?;
        site.fill(containers);
        thread::sleep(settle);
        let before = site.used()?;
        thread::sleep(rest);
        let rested = site.used()?.since(&before);
        let seconds = rest.as_secs_f64();
        let each = seconds * count as f64;
        println!(
            "| {count} | {} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {:.0} | {:.2} | {:.0} |",
            shown(reached),
            shown(complete),
            start.cpu_ns as f64 / 1e9,
            start.bytes as f64 / 1e6,
            site.resident_mb(),
            rested.bytes as f64 / 1e3 / seconds,
            rested.packets as f64 / seconds,
            rested.cpu_ns as f64 / 1e7 / each,
            rested.switches as f64 / each,
        );
    }
    Ok(())
}

/// Returns the sizes of meshes among the program's arguments.
fn counts() -> Result<Vec<usize>, TrialError> {
    let mut counts = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            "--bench" => {}
            flag if flag.starts_with("--") => drop(arguments.next()),
            number => counts.push(number.parse()?),
        }
    }
    match counts.is_empty() {
        true => Ok(vec![5, 10, 20]),
        false => Ok(counts),
    }
}

fn shown(time: Option<Duration>) -> String {
    time.map_or("never".to_owned(), |time| {
        format!("{:.1} s", time.as_secs_f64())
    })
}

/// A mesh that is measured.
struct Site {
    mesh: Mesh,
    started: Instant,
    before: Used,
}

impl Site {
    fn start(kind: Kind, count: usize) -> Result<Site, TrialError> {
        let mut mesh = Mesh::new(&vec![kind; count]);
        let launch = Launch::new().peer(mesh.address(0));
        let before = Used::read(&[], mesh.lab.switch())?;
        let started = Instant::now();
        for host in 0..count {
            mesh.start(host, &launch);
        }
        Ok(Site {
            mesh,
            started,
            before,
        })
    }

    fn count(&self) -> usize {
        self.mesh.lab.hosts().len()
    }

    fn used(&self) -> Result<Used, TrialError> {
        let routers: Vec<u32> = (0..self.count()).map(|host| self.mesh.pid(host)).collect();
        Used::read(&routers, self.mesh.lab.switch())
    }

    /// Returns when all reached all and when the mesh was complete, if they were in time, and what
    /// was used until then.
    fn wait_until_complete(
        &mut self,
    ) -> Result<(Option<Duration>, Option<Duration>, Used), TrialError> {
        let (mut reached, mut complete) = (None, None);
        let mut waiting: Vec<(usize, bool, bool)> =
            (0..self.count()).map(|host| (host, false, false)).collect();
        while self.started.elapsed() < COMPLETE_TIME_MAX && !waiting.is_empty() {
            thread::sleep(LOOK_INTERVAL);
            for (host, reaches, is_complete) in &mut waiting {
                if !self.mesh.is_running(*host) {
                    return Err(format!("a router ended: {}", self.mesh.log(*host)).into());
                }
                let (peers, established) = self.summary(*host);
                *reaches = *reaches || (peers == self.count() && self.reaches_all(*host));
                *is_complete = established + 1 == self.count();
            }
            if reached.is_none() && waiting.iter().all(|(_, reaches, _)| *reaches) {
                reached = Some(self.started.elapsed());
            }
            // Those that are done are asked no longer, since answers cost them time as well.
            waiting.retain(|(_, reaches, is_complete)| !(*reaches && *is_complete));
        }
        if waiting.is_empty() {
            complete = Some(self.started.elapsed());
            reached = reached.or(complete);
        }
        let used = self.used()?.since(&self.before);
        Ok((reached, complete, used))
    }

    /// Returns how many peers a router lists and how many connections it shows as established.
    fn summary(&self, host: usize) -> (usize, usize) {
        let page = self.mesh.get(host, "/status").unwrap_or_default();
        let value = |key: &str| {
            let line = page
                .lines()
                .find_map(|line| line.trim().strip_prefix(key))?;
            Some(line.trim().to_owned())
        };
        let peers = value("Peers:").unwrap_or_default();
        let peers = peers.split(' ').next().and_then(|n| n.parse().ok());
        let connections = value("Connections:").unwrap_or_default();
        let established = connections
            .split_once(" established")
            .and_then(|(text, _)| {
                let number = text.rsplit([' ', '(']).next()?;
                number.parse().ok()
            });
        (peers.unwrap_or_default(), established.unwrap_or_default())
    }

    fn reaches_all(&self, host: usize) -> bool {
        let report = self.mesh.get_json(host, "/report").unwrap_or_default();
        let routes = report["Router"]["UnicastRoutes"].as_array();
        routes.is_some_and(|routes| routes.len() == self.count())
    }

    /// Gives so many containers on each host an address and a name.
    fn fill(&self, containers: u64) {
        for host in 0..self.count() {
            for number in 0..containers {
                let id = format!("container{host}x{number}");
                let address = self.mesh.post(host, &format!("/ip/{id}"), "");
                let address = address.ok().unwrap_or_default();
                let ip = address.split('/').next().unwrap_or_default();
                let name = format!("/name/{id}/{ip}");
                let form = format!("fqdn={id}.weave.local.");
                drop(self.mesh.request(host, "PUT", &name, &form));
            }
        }
    }

    /// Memory of a router, the mean of all.
    fn resident_mb(&self) -> f64 {
        let sum: u64 = (0..self.count())
            .map(|host| self.mesh.resident_kib(host))
            .sum();
        sum as f64 * 1024.0 / 1e6 / self.count() as f64
    }
}

/// A mesh that is not complete by then never will be.
const COMPLETE_TIME_MAX: Duration = Duration::from_secs(360);
/// Interval between checks of the routers that are not done.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);
