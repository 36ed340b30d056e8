//! How fast frames get from container to container through whole routers, as processes on hosts
//! made of namespaces: ours, real ones where `WEAVER` names one, and the kernel's VXLAN. Needs
//! root.
//!
//! ```text
//! WEAVER=/path/to/weaver cargo bench -p benches --bench mesh -- [--rounds N] [--seconds N] [NAME...]
//! ```
//!
//! `native` is what two of ours do by themselves; for `sleeve-...` native datagrams are dropped, so
//! that sleeve takes over. On an underlay that is `uncut` no device cuts what is larger than a
//! packet.
//!
//! Rounds are interleaved, so that what else the machine does hits all alike; figures are medians
//! with their range. Everything (both routers, generator, sink) shares the machine's cores.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints what it measured"
)]

use std::net::{IpAddr, Ipv4Addr};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use benches::siege::{self, Siege};
use benches::{median, vxlan};
use netns_tests::{Kind, Launch, Mesh, wait};
use router::data::trial::{Trial, TrialError};
use router::net::lab::{HostOptions, Lab};
use router::net::netns::Namespace;
use router::net::pinger::{PingOptions, Pinger};
use router::net::throughput::{self, Packets, process_cpu};

const PINGS: u32 = 300;
const REACH_TIME: Duration = Duration::from_secs(20);
const GIGA: f64 = 1e9;

fn main() -> ExitCode {
    benches::program::router_or("mesh", measure)
}

fn measure() -> Result<(), TrialError> {
    let settings = Settings::read()?;
    let mut samples = vec![Vec::new(); settings.ways.len()];
    for round in 1..=settings.rounds {
        for (way, samples) in settings.ways.iter().zip(&mut samples) {
            let sample = way.measure(settings.duration)?;
            eprintln!("round {round}, {}: {sample:?}", way.name);
            samples.push(sample);
        }
    }
    print(&settings.ways, &samples);
    Ok(())
}

struct Settings {
    rounds: usize,
    duration: Duration,
    ways: Vec<Way>,
}

impl Settings {
    fn read() -> Result<Settings, TrialError> {
        let mut settings = Settings {
            rounds: 5,
            duration: Duration::from_secs(2),
            ways: Vec::new(),
        };
        let mut names = Vec::new();
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut number = || {
                let text = arguments.next().unwrap_or_default();
                let wrong = |_| format!("{argument} wants a number, got {text:?}");
                text.parse::<u64>().map_err(wrong)
            };
            match argument.as_str() {
                "--rounds" => settings.rounds = number()? as usize,
                "--seconds" => settings.duration = Duration::from_secs(number()?),
                // What cargo adds.
                "--bench" => {}
                name => names.push(name.to_owned()),
            }
        }
        settings.ways = WAYS
            .into_iter()
            .filter(|way| names.is_empty() || names.iter().any(|name| name == way.name))
            .filter(|way| {
                let real = way.kinds.is_some_and(|kinds| kinds.contains(&Kind::Weaver));
                if real && netns_tests::weaver().is_none() {
                    skips::skip(way.name, "WEAVER=/path/to/a/real/Weave/Net/2.8.1/weaver");
                    return false;
                }
                true
            })
            .collect();
        Ok(settings)
    }
}

/// A way from container to container.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    /// The routers; VXLAN without.
    kinds: Option<[Kind; 2]>,
    password: Option<&'static str>,
    /// Whether native datagrams get through.
    native: bool,
    /// Whether the underlay's devices cut segments, and join them again.
    cuts: bool,
    /// Whether a stranger throws garbage at the receiver's router meanwhile.
    siege: bool,
}

const VXLAN: Way = Way {
    name: "vxlan",
    kinds: None,
    password: None,
    native: true,
    cuts: true,
    siege: false,
};
const PASSWORD: Option<&str> = Some("a secret");

const fn way(name: &'static str, kinds: [Kind; 2], password: Option<&'static str>) -> Way {
    Way {
        name,
        kinds: Some(kinds),
        password,
        native: true,
        cuts: true,
        siege: false,
    }
}

const WAYS: [Way; 11] = [
    VXLAN,
    way("native", [Kind::Weft, Kind::Weft], PASSWORD),
    Way {
        siege: true,
        ..way("native-besieged", [Kind::Weft, Kind::Weft], PASSWORD)
    },
    way("real-encrypted", [Kind::Weaver, Kind::Weaver], PASSWORD),
    Way {
        native: false,
        ..way("sleeve-encrypted", [Kind::Weft, Kind::Weft], PASSWORD)
    },
    way("from-real-encrypted", [Kind::Weaver, Kind::Weft], PASSWORD),
    way("to-real-encrypted", [Kind::Weft, Kind::Weaver], PASSWORD),
    way("real-plain", [Kind::Weaver, Kind::Weaver], None),
    Way {
        native: false,
        ..way("sleeve-plain", [Kind::Weft, Kind::Weft], None)
    },
    Way {
        name: "vxlan-uncut",
        cuts: false,
        ..VXLAN
    },
    Way {
        cuts: false,
        ..way("native-uncut", [Kind::Weft, Kind::Weft], PASSWORD)
    },
];

impl Way {
    fn measure(&self, duration: Duration) -> Result<Sample, TrialError> {
        let Some(kinds) = self.kinds else {
            let (lab, [from, to]) = vxlan::pair()?;
            self.prepare(&lab)?;
            let addresses = [Trial::address(0), Trial::address(1)];
            return Sample::take([&from, &to], addresses, duration, &[]);
        };
        let mut mesh = Mesh::new(&kinds);
        self.prepare(&mesh.lab)?;
        let launch = Launch::new().maybe_password(self.password);
        mesh.launch_all(&[&[], &[0]], &launch);
        let containers = mesh.attach_all();
        mesh.wait_connected(0, 1);
        mesh.wait_routed(&[0, 1]);
        if kinds == [Kind::Weft; 2] {
            let overlay = if self.native { "weft" } else { "sleeve" };
            wait::until_true("the overlay is in use", wait::SOON, || {
                let status = mesh.get_json(0, "/status/weft").unwrap_or_default();
                status["connections"][0]["overlay"] == overlay
            });
        }
        let _siege = match self.siege {
            true => Some(besiege(&mut mesh)?),
            false => None,
        };
        let routers = [mesh.pid(0), mesh.pid(1)];
        let [from, to] = [&containers[0], &containers[1]];
        let namespaces = [&from.namespace, &to.namespace];
        Sample::take(namespaces, [from.address, to.address], duration, &routers)
    }
}

/// Has a host that is no part of the mesh throw garbage at the second router.
fn besiege(mesh: &mut Mesh) -> Result<Siege, TrialError> {
    let stranger = mesh.lab.add_host(HostOptions::default())?;
    let victim = mesh.address(1);
    let seen = siege::overhear(mesh.namespace(1), victim)?;
    let from = &mesh.lab.hosts()[stranger].namespace;
    Ok(Siege::begin(from, victim, seen)?)
}

impl Way {
    fn prepare(&self, lab: &Lab) -> Result<(), TrialError> {
        let run = |namespace: &Namespace, command: &mut Command| -> Result<(), TrialError> {
            let status = namespace.spawn(command)?.wait()?;
            match status.success() {
                true => Ok(()),
                false => Err(format!("{command:?} failed").into()),
            }
        };
        if !self.native {
            for host in lab.hosts() {
                run(&host.namespace, Command::new("nft").arg(BLOCK_NATIVE))?;
            }
        }
        if self.cuts {
            return Ok(());
        }
        for (number, host) in lab.hosts().iter().enumerate() {
            let port = format!("port{number}");
            for (namespace, device) in [(&host.namespace, "eth0"), (lab.switch(), port.as_str())] {
                run(
                    namespace,
                    Command::new("ethtool").args(["-K", device]).args(CUTTING),
                )?;
            }
        }
        Ok(())
    }
}

/// Drops datagrams that begin as no sleeve packet does.
const BLOCK_NATIVE: &str = "table ip native { chain in { type filter hook input priority 0; \
     udp dport 6783 @th,64,48 0 drop; }; }";
/// Everything by which a device cuts what is larger than a packet.
const CUTTING: [&str; 10] = [
    "tso",
    "off",
    "gso",
    "off",
    "tx-udp-segmentation",
    "off",
    "tx-udp_tnl-segmentation",
    "off",
    "tx-udp_tnl-csum-segmentation",
    "off",
];

/// What one way reached in one round.
#[derive(Clone, Copy, Debug)]
struct Sample {
    gbits: f64,
    cpu_seconds_per_gigabyte: f64,
    gbits_of_four: f64,
    /// Of one stream in each direction at once, together.
    gbits_of_both: f64,
    small_per_second: f64,
    round_trip_us: f64,
}

impl Sample {
    fn take(
        [from, to]: [&Namespace; 2],
        [back, address]: [Ipv4Addr; 2],
        duration: Duration,
        routers: &[u32],
    ) -> Result<Sample, TrialError> {
        let mut pinger = Pinger::new(from)?;
        let mut ping = |timeout| pinger.ping(address, PingOptions::default(), timeout);
        let deadline = Instant::now() + REACH_TIME;
        while ping(Duration::from_millis(200))?.is_none() {
            if Instant::now() > deadline {
                return Err("the containers do not reach each other".into());
            }
        }
        let mut round_trips = Vec::new();
        for _ in 0..PINGS {
            round_trips.extend(ping(Duration::from_millis(100))?);
        }
        let target: IpAddr = address.into();
        let used = || -> Result<Duration, TrialError> {
            let mut sum = Duration::ZERO;
            for router in routers {
                sum += process_cpu(*router)?;
            }
            Ok(sum)
        };
        let before = used()?;
        let one = throughput::tcp(from, to, target, 1, duration)?;
        let cpu = used()? - before;
        let four = throughput::tcp(from, to, target, 4, duration)?;
        let both = std::thread::scope(|scope| {
            let reverse = scope.spawn(|| throughput::tcp(to, from, back.into(), 1, duration));
            let forth = throughput::tcp(from, to, target, 1, duration)?;
            let back = reverse.join().map_err(|_| "a stream panicked")??;
            Ok::<f64, TrialError>(forth.bits_per_second() + back.bits_per_second())
        })?;
        let packets = Packets {
            payload_bytes: 64,
            per_second: None,
        };
        let small = throughput::udp(from, to, target, packets, duration / 2)?;
        Ok(Sample {
            gbits: one.bits_per_second() / GIGA,
            cpu_seconds_per_gigabyte: cpu.as_secs_f64() / (one.bytes as f64 / GIGA),
            gbits_of_four: four.bits_per_second() / GIGA,
            gbits_of_both: both / GIGA,
            small_per_second: small.packets_per_second(),
            round_trip_us: median(round_trips.iter().map(Duration::as_secs_f64)).0 * 1e6,
        })
    }
}

fn print(ways: &[Way], samples: &[Vec<Sample>]) {
    let of = |name: &str, figure: fn(&Sample) -> f64| {
        let index = ways.iter().position(|way| way.name == name);
        index.map(|index| median(samples[index].iter().map(figure)).0)
    };
    println!(
        "| way | 1 stream Gbit/s | / vxlan | / real | CPU s/GB | 4 streams \
         | both ways | 64-byte kpps | RTT p50 us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (way, samples) in ways.iter().zip(samples) {
        let show = |figure: fn(&Sample) -> f64, unit: f64, digits: usize| {
            let (median, low, high) = median(samples.iter().map(figure));
            let [median, low, high] = [median, low, high].map(|value| value / unit);
            format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
        };
        let gbits: fn(&Sample) -> f64 = |sample| sample.gbits;
        let real = match way.name {
            "real-plain" | "sleeve-plain" => "real-plain",
            _ => "real-encrypted",
        };
        let vxlan = if way.cuts { "vxlan" } else { "vxlan-uncut" };
        let ratio = |reference: &str| match of(reference, gbits) {
            Some(reference) => format!("{:.2}", of(way.name, gbits).unwrap_or(0.0) / reference),
            None => "-".to_owned(),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            way.name,
            show(gbits, 1.0, 2),
            ratio(vxlan),
            ratio(real),
            show(|sample| sample.cpu_seconds_per_gigabyte, 1.0, 2),
            show(|sample| sample.gbits_of_four, 1.0, 2),
            show(|sample| sample.gbits_of_both, 1.0, 2),
            show(|sample| sample.small_per_second, 1e3, 0),
            show(|sample| sample.round_trip_us, 1.0, 0),
        );
    }
}
