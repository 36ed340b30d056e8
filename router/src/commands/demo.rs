//! `weft demo`.

use std::fmt::Write as _;
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};

use super::{CliError, Output};
use crate::demo::{self, Findings, HOSTS, IDENTITY, Plan, Step, container_name, host_name};

/// Containers up to which every round trip is shown; with more, the worst for each container.
const MATRIX_MAX: usize = 8;
/// Connections that are shown one by one; of more, only that all are there.
const CONNECTIONS_SHOWN_MAX: usize = 20;

/// Starts a whole mesh on this machine, measures it, and removes it again.
///
/// Hosts are network namespaces joined by a switch. On each, a router is started and a container
/// attached, with the commands that are shown. Then every container pings every other, some send a
/// TCP stream, and everything is removed, also on Ctrl-C. The machine's own network is not changed,
/// and no other program is needed.
///
/// The exit status is 0 if all containers reach each other, else 1.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft demo                          three hosts
  weft demo -n 10 --password secret  ten hosts, encrypted
  weft demo --json                   results for programs

The commands shown are those for real hosts: 'weft launch' on the first,
'weft launch FIRST' on the others, and 'weft attach' for each container.")]
pub(crate) struct DemoArgs {
    /// Number of hosts
    #[arg(
        short = 'n',
        long,
        default_value_t = 3,
        value_name = "N",
        value_parser = clap::value_parser!(u16).range(i64::from(*HOSTS.start())..=i64::from(*HOSTS.end()))
    )]
    hosts: u16,
    /// Password of the mesh; turns encryption on
    #[arg(long)]
    password: Option<String>,
    /// Print only the results, as JSON
    #[arg(long)]
    json: bool,
}

impl DemoArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        if !rustix::process::geteuid().is_root() {
            return Err(CliError::failed(
                "the demonstration makes network namespaces and TAP devices, which takes root: \
                 run it again with sudo",
            ));
        }
        let plan = Plan {
            hosts: self.hosts,
            password: self.password.clone(),
            program: std::env::current_exe()
                .map_err(|error| CliError::failed(format!("cannot find this program: {error}")))?,
        };
        let mut interrupted = signals()?;
        let shown = Shown {
            out,
            hosts: self.hosts.into(),
        };
        let mut show = |time, step| {
            if !self.json {
                shown.step(time, &step);
            }
        };
        let findings = tokio::select! {
            findings = demo::run(&plan, &mut show) => findings.map_err(CliError::failed)?,
            () = &mut interrupted => {
                return Err(CliError::failed("stopped early; everything was removed"));
            }
        };
        if self.json {
            out.json(&as_json(&findings))?;
        } else {
            out.text(&shown.tables(&findings))?;
        }
        if findings.all_well() {
            Ok(())
        } else {
            Err(CliError::failed("not all containers reach each other"))
        }
    }
}

/// Ends when the user or the system wants this process to.
fn signals() -> Result<std::pin::Pin<Box<impl Future<Output = ()>>>, CliError> {
    let open = |kind| signal(kind).map_err(CliError::failed);
    let mut interrupt = open(SignalKind::interrupt())?;
    let mut terminate = open(SignalKind::terminate())?;
    let mut hangup = open(SignalKind::hangup())?;
    Ok(Box::pin(async move {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }))
}

/// Output for people.
struct Shown<'o> {
    out: &'o Output,
    hosts: usize,
}

impl Shown<'_> {
    fn paint(&self, colour: &str, text: &str) -> String {
        if self.out.colour() {
            format!("\x1b[{colour}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }

    fn step(&self, time: Duration, step: &Step) {
        let few = self.hosts * (self.hosts - 1) / 2 <= CONNECTIONS_SHOWN_MAX;
        let text = match step {
            Step::HostsMade(hosts) => format!("{hosts} hosts and a switch, out of namespaces"),
            Step::Ran { host, command } => {
                let prompt = self.paint("36", &format!("{}#", host_name(*host)));
                format!("{prompt} {command}")
            }
            Step::Connected { .. } if !few => return,
            Step::Connected {
                hosts: [a, b],
                encrypted,
                mtu,
            } => {
                let how = if *encrypted { "encrypted" } else { "plain" };
                let [a, b] = [host_name(*a), host_name(*b)];
                format!("{a} <-> {b} connected, {how}, packets up to {mtu} bytes")
            }
            Step::MeshComplete => self.paint("32", "the mesh is complete"),
            Step::Pinging => "every container pings every other".to_owned(),
            Step::Streaming => "TCP streams, one at a time".to_owned(),
            Step::Moving => {
                "a container with an identity goes to another host, with its address".to_owned()
            }
        };
        let time = self.paint("2", &format!("{:7.3} s", time.as_secs_f64()));
        // Somebody who does not read any more still gets the exit status.
        let _ = self.out.line(&format!("{time}  {text}"));
    }

    fn tables(&self, findings: &Findings) -> String {
        let mut text = String::from("\n");
        self.host_table(findings, &mut text);
        if findings.hosts.len() <= MATRIX_MAX {
            self.matrix(findings, &mut text);
        } else {
            self.worst(findings, &mut text);
        }
        self.streams(findings, &mut text);
        self.moved(findings, &mut text);
        let reached = findings.pings.iter().filter(|ping| ping.best.is_some());
        let (reached, all) = (reached.count(), findings.pings.len());
        let verdict = format!("{reached} of {all} pairs of containers reach each other");
        let colour = if reached == all { "32" } else { "31" };
        let _ = writeln!(text, "\n{}; all is removed", self.paint(colour, &verdict));
        text
    }

    fn host_table(&self, findings: &Findings, text: &mut String) {
        let heading = format!(
            "{:8} {:15} {:10} {:15} {:>9}",
            "HOST", "ADDRESS", "CONTAINER", "ITS ADDRESS", "MEMORY"
        );
        let _ = writeln!(text, "{}", self.paint("1", &heading));
        for (number, host) in findings.hosts.iter().enumerate() {
            let memory = format!("{:.1} MB", host.resident_kib as f64 / 1024.0);
            let _ = writeln!(
                text,
                "{:8} {:15} {:10} {:15} {memory:>9}",
                host.name,
                host.address.to_string(),
                container_name(number),
                host.container.to_string(),
            );
        }
    }

    /// Round trips of all pairs: a line for each that asks, a column for each that answers.
    fn matrix(&self, findings: &Findings, text: &mut String) {
        let mut heading = format!("{:8}", "PING ms");
        for to in 0..findings.hosts.len() {
            let _ = write!(heading, " {:>7}", container_name(to));
        }
        let _ = writeln!(text, "\n{}", self.paint("1", &heading));
        for from in 0..findings.hosts.len() {
            let _ = write!(text, "{:8}", container_name(from));
            for to in 0..findings.hosts.len() {
                let mut pings = findings.pings.iter();
                let ping = pings.find(|ping| (ping.from, ping.to) == (from, to));
                let cell = match ping.map(|ping| ping.best) {
                    None => format!("{:>7}", "-"),
                    Some(Some(best)) => format!("{:7.2}", millis(best)),
                    Some(None) => self.paint("31", &format!("{:>7}", "lost")),
                };
                let _ = write!(text, " {cell}");
            }
            text.push('\n');
        }
    }

    /// The worst round trip from each container.
    fn worst(&self, findings: &Findings, text: &mut String) {
        let heading = format!("{:8} {:>9} {:>9}", "PING", "REACHED", "WORST ms");
        let _ = writeln!(text, "\n{}", self.paint("1", &heading));
        for from in 0..findings.hosts.len() {
            let pings = findings.pings.iter().filter(|ping| ping.from == from);
            let best: Vec<Duration> = pings.filter_map(|ping| ping.best).collect();
            let worst = best.iter().max().copied().unwrap_or_default();
            let reached = format!("{}/{}", best.len(), findings.hosts.len() - 1);
            let _ = writeln!(
                text,
                "{:8} {reached:>9} {:9.2}",
                container_name(from),
                millis(worst)
            );
        }
    }

    fn streams(&self, findings: &Findings, text: &mut String) {
        let heading = format!("{:12} {:>13}", "TCP", "Mbit/s");
        let _ = writeln!(text, "\n{}", self.paint("1", &heading));
        for stream in &findings.streams {
            let pair = format!(
                "{} -> {}",
                container_name(stream.from),
                container_name(stream.to)
            );
            let rate = match &stream.result {
                Ok(transfer) => format!("{:13.0}", transfer.bits_per_second() / 1e6),
                Err(error) => self.paint("31", &format!("  {error}")),
            };
            let _ = writeln!(text, "{pair:12} {rate}");
        }
    }
}

impl Shown<'_> {
    fn moved(&self, findings: &Findings, text: &mut String) {
        let moved = &findings.moved;
        let heading = format!("{:12} {:>15} {:>15}", "MOVED", "BEFORE", "AFTER");
        let _ = writeln!(text, "\n{}", self.paint("1", &heading));
        let [from, to] = [moved.from, moved.to].map(host_name);
        let [before, after] = [moved.before, moved.after].map(|address| address.to_string());
        let observer = container_name(moved.observer);
        let answer = match moved.answered {
            Some(time) => format!("answers {observer} again after {:.2} s", time.as_secs_f64()),
            None => self.paint("31", &format!("does not answer {observer}")),
        };
        let way = format!("{from} -> {to}");
        let _ = writeln!(
            text,
            "{IDENTITY:12} {before:>15} {after:>15}  {way}, {answer}"
        );
    }
}

fn as_json(findings: &Findings) -> Value {
    let hosts = findings.hosts.iter().enumerate().map(|(number, host)| {
        json!({
            "name": host.name,
            "address": host.address,
            "container": container_name(number),
            "container_address": host.container,
            "resident_kib": host.resident_kib,
        })
    });
    let pings = findings.pings.iter().map(|ping| {
        json!({
            "from": container_name(ping.from),
            "to": container_name(ping.to),
            "best_ms": ping.best.map(millis),
            "sent": ping.sent,
            "answered": ping.answered,
        })
    });
    let streams = findings.streams.iter().map(|stream| {
        let transfer = stream.result.as_ref();
        json!({
            "from": container_name(stream.from),
            "to": container_name(stream.to),
            "bits_per_second": transfer.map(|t| t.bits_per_second()).ok(),
            "error": transfer.err().map(ToString::to_string),
        })
    });
    json!({
        "ok": findings.all_well(),
        "mesh_ms": millis(findings.mesh_time),
        "hosts": hosts.collect::<Value>(),
        "pings": pings.collect::<Value>(),
        "streams": streams.collect::<Value>(),
        "moved": {
            "identity": IDENTITY,
            "from": host_name(findings.moved.from),
            "to": host_name(findings.moved.to),
            "before": findings.moved.before,
            "after": findings.moved.after,
            "attached_ms": millis(findings.moved.attached),
            "answered_ms": findings.moved.answered.map(millis),
        },
    })
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
