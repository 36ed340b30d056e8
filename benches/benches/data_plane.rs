//! How fast frames get from container to container: two data planes joined by hand, against the
//! kernel's own VXLAN in the same run. Needs root.
//!
//! ```text
//! cargo bench -p benches --bench data_plane -- [--rounds N] [--seconds N] [NAME...]
//! ```
//!
//! Rounds are interleaved, so that what else the machine does hits all alike; figures are medians
//! with their range. Everything (both planes, generator, sink) shares the machine's cores. Processor
//! time is that of the data threads of both hosts together, which includes the work of the kernel
//! that happens inside of their system calls.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::net::IpAddr;
use std::time::Duration;

use boundary::counters::Count;
use kernel::netns::Namespace;
use lab::pinger::{PingOptions, Pinger};
use lab::throughput::{self, Packets, Transfer};
use testbed::rig::{Options, Trial, TrialError, wait_until};

fn main() -> Result<(), TrialError> {
    if !rustix::process::geteuid().is_root() {
        writeln!(io::stderr(), "SKIPPED data_plane: needs root")?;
        return Ok(());
    }
    let settings = Settings::from_arguments()?;
    let setups = settings.setups();
    let mut results: BTreeMap<usize, Vec<Sample>> = BTreeMap::new();
    for round in 0..settings.rounds {
        for (index, setup) in setups.iter().enumerate() {
            let sample = setup.measure(settings.duration)?;
            writeln!(io::stderr(), "round {round} {}: {sample}", setup.name)?;
            results.entry(index).or_default().push(sample);
        }
    }
    print(&setups, &results)
}

struct Settings {
    rounds: usize,
    duration: Duration,
    names: Vec<String>,
}

impl Settings {
    fn from_arguments() -> Result<Settings, TrialError> {
        let mut settings = Settings {
            rounds: 3,
            duration: Duration::from_secs(2),
            names: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let text = arguments.next().unwrap_or_default();
                text.parse::<u64>()
                    .map_err(|_| format!("{argument} wants a number, got {text:?}"))
            };
            match argument.as_str() {
                "--rounds" => settings.rounds = number()? as usize,
                "--seconds" => settings.duration = Duration::from_secs(number()?),
                // What cargo adds.
                "--bench" => {}
                name => settings.names.push(name.to_owned()),
            }
        }
        Ok(settings)
    }

    /// Returns the set-ups that were asked for; all of them if none was.
    fn setups(&self) -> Vec<Setup> {
        let wanted = |setup: &Setup| {
            self.names.is_empty() || self.names.iter().any(|name| name == setup.name)
        };
        Setup::all().into_iter().filter(wanted).collect()
    }
}

/// A way from container to container.
struct Setup {
    name: &'static str,
    /// The options of the data planes; VXLAN without.
    options: Option<Options>,
}

impl Setup {
    fn all() -> Vec<Setup> {
        let with = |name, change: fn(&mut Options)| {
            let mut options = Options::default();
            change(&mut options);
            let options = Some(options);
            Setup { name, options }
        };
        vec![
            Setup {
                name: "vxlan",
                options: None,
            },
            with("plain", |options| options.key = None),
            with("encrypted", |_| {}),
            with("native", |options| options.native = true),
            with("no-gso", |options| options.gso = false),
            with("no-gro", |options| options.gro = false),
            with("no-tap-offload", |options| options.offload = false),
            with("no-join", |options| options.join = false),
            with("no-offload", |options| {
                options.gso = false;
                options.gro = false;
                options.offload = false;
                options.join = false;
            }),
        ]
    }

    fn measure(&self, duration: Duration) -> Result<Sample, TrialError> {
        match &self.options {
            None => {
                let (_lab, containers) = benches::vxlan::pair()?;
                let [from, to] = &containers;
                Sample::take(from, to, duration)
            }
            Some(options) => {
                let trial = Trial::pair(options)?;
                let [from, to] = [0, 1].map(|number| &trial.hosts[number].container);
                let mut sample = Sample::take(from, to, duration)?;
                let ratio = |host: usize, of: Count, per: Count| {
                    let totals = trial.hosts[host].plane.counters();
                    totals.get(of) as f64 / totals.get(per).max(1) as f64
                };
                sample.frames_per_read = ratio(0, Count::Captured, Count::TapReads);
                sample.packets_per_send = ratio(0, Count::PacketsSent, Count::SendBatches);
                sample.packets_per_receive =
                    ratio(1, Count::PacketsReceived, Count::ReceiveBatches);
                sample.frames_per_write = ratio(1, Count::Injected, Count::TapWrites);
                Ok(sample)
            }
        }
    }
}

/// What one set-up reached in one round.
#[derive(Clone, Debug, Default)]
struct Sample {
    stream: f64,
    cpu_per_gigabyte: f64,
    four_streams: f64,
    small_per_second: f64,
    small_sent: f64,
    round_trip: f64,
    frames_per_read: f64,
    packets_per_send: f64,
    packets_per_receive: f64,
    frames_per_write: f64,
}

const GIGA: f64 = 1e9;
const PINGS: usize = 300;
/// The unit of times in /proc, the same on all machines.
const MILLIS_PER_TICK: u64 = 10;

impl Sample {
    fn take(from: &Namespace, to: &Namespace, duration: Duration) -> Result<Sample, TrialError> {
        let address: IpAddr = Trial::address(1).into();
        let mut pinger = Pinger::new(from)?;
        let mut ping = |timeout| pinger.ping(Trial::address(1), PingOptions::default(), timeout);
        let mut answered = || matches!(ping(Duration::from_millis(200)), Ok(Some(_)));
        if !wait_until(&mut answered) {
            return Err("the containers do not reach each other".into());
        }
        let mut round_trips = Vec::new();
        for _ in 0..PINGS {
            round_trips.extend(ping(Duration::from_millis(100))?);
        }
        round_trips.sort();
        let median = round_trips.get(round_trips.len() / 2);
        let before = thread_time()?;
        let one = throughput::tcp(from, to, address, 1, duration)?;
        let used = thread_time()? - before;
        let four = throughput::tcp(from, to, address, 4, duration)?;
        let small = Packets {
            payload_bytes: 64,
            per_second: None,
        };
        let flood: Transfer = throughput::udp(from, to, address, small, duration / 2)?;
        Ok(Sample {
            stream: one.bits_per_second() / GIGA,
            cpu_per_gigabyte: used.as_secs_f64() / (one.bytes as f64 / GIGA),
            four_streams: four.bits_per_second() / GIGA,
            small_per_second: flood.packets_per_second() / 1e3,
            small_sent: 1e2 * (1.0 - flood.loss()),
            round_trip: median.map_or(f64::NAN, Duration::as_secs_f64) * 1e6,
            ..Sample::default()
        })
    }
}

impl std::fmt::Display for Sample {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{:.2} Gbit/s, {:.2} CPU s/GB, {:.2} Gbit/s in 4, {:.0} kpps ({:.0} %), {:.0} us; \
             frames/read {:.1}, packets/send {:.1}, packets/receive {:.1}, frames/write {:.1}",
            self.stream,
            self.cpu_per_gigabyte,
            self.four_streams,
            self.small_per_second,
            self.small_sent,
            self.round_trip,
            self.frames_per_read,
            self.packets_per_send,
            self.packets_per_receive,
            self.frames_per_write,
        )
    }
}

/// Processor time of all data threads of this process, in the kernel and outside.
fn thread_time() -> Result<Duration, TrialError> {
    let mut ticks = 0;
    for task in fs::read_dir("/proc/self/task")? {
        // A thread may end while it is looked at.
        let Ok(stat) = fs::read_to_string(task?.path().join("stat")) else {
            continue;
        };
        let Some((name, fields)) = stat.rsplit_once(')') else {
            continue;
        };
        if name.contains("(weft-") {
            let times = fields.split_whitespace().skip(11).take(2);
            ticks += times
                .filter_map(|time| time.parse::<u64>().ok())
                .sum::<u64>();
        }
    }
    Ok(Duration::from_millis(ticks * MILLIS_PER_TICK))
}

fn print(setups: &[Setup], results: &BTreeMap<usize, Vec<Sample>>) -> Result<(), TrialError> {
    let mut out = io::stdout().lock();
    writeln!(
        out,
        "| way | 1 stream Gbit/s | / vxlan | CPU s/GB | 4 streams | 64-byte kpps | RTT p50 us |"
    )?;
    writeln!(out, "|---|---|---|---|---|---|---|")?;
    let reference = setups
        .iter()
        .position(|setup| setup.options.is_none())
        .and_then(|index| results.get(&index))
        .map(|samples| median(samples, |sample| sample.stream).0);
    for (index, samples) in results {
        let show = |of: fn(&Sample) -> f64| {
            let (median, low, high) = median(samples, of);
            format!("{median:.2} ({low:.2}-{high:.2})")
        };
        let stream = median(samples, |sample| sample.stream).0;
        let ratio = reference.map_or(String::new(), |r| format!("{:.2}", stream / r));
        writeln!(
            out,
            "| {} | {} | {ratio} | {} | {} | {} | {} |",
            setups[*index].name,
            show(|sample| sample.stream),
            show(|sample| sample.cpu_per_gigabyte),
            show(|sample| sample.four_streams),
            show(|sample| sample.small_per_second),
            show(|sample| sample.round_trip),
        )?;
    }
    Ok(())
}

/// Returns the median of a figure, its lowest and its highest.
fn median(samples: &[Sample], of: fn(&Sample) -> f64) -> (f64, f64, f64) {
    benches::median(samples.iter().map(of))
}
