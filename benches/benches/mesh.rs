//! How fast frames get from container to container through whole routers, as processes on hosts
//! made of namespaces: ours, the kernel's VXLAN, a plain overlay that treats each packet by itself,
//! and others where variables name their programs: `WEAVER`, `WIREGUARD_GO`, `BORINGTUN`, `NEBULA`.
//! Needs root.
//!
//! ```text
//! WEAVER=/path/to/weaver cargo bench -p benches --bench mesh -- [--rounds N] [--seconds N] [NAME...]
//! ```
//!
//! `native` is what two of ours do by themselves; for `sleeve-...` native datagrams are dropped, so
//! that sleeve takes over. `native-chacha` is as on processors without instructions for AES. On an
//! underlay that is `uncut` no device cuts what is larger than a packet.
//!
//! Rounds are interleaved, so that what else the machine does hits all alike; figures are medians
//! with their range. Everything (both routers, generator, sink) shares the machine's cores.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints what it measured"
)]

use std::process::{Command, ExitCode};
use std::time::Duration;

use benches::rivals::Rival;
use benches::sample::Sample;
use benches::siege::{self, Siege};
use benches::{baseline, is_present, median, vxlan};
use kernel::netns::Namespace;
use lab::host::{HostOptions, Lab};
use netns_tests::{Kind, Launch, Mesh, wait};
use testbed::rig::{Trial, TrialError};

fn main() -> ExitCode {
    if let Some(Err(error)) = baseline::run_if_called() {
        eprintln!("{error}");
        return ExitCode::FAILURE;
    }
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
            .filter(Way::is_possible)
            .collect();
        Ok(settings)
    }
}

/// A way from container to container.
#[derive(Clone, Copy)]
struct Way {
    name: &'static str,
    by: By,
    password: Option<&'static str>,
    /// Whether native datagrams get through.
    native: bool,
    /// Whether the underlay's devices cut segments, and join them again.
    cuts: bool,
    /// Whether a stranger throws garbage at the receiver's router meanwhile.
    siege: bool,
    /// What the routers, which are ours, are told not to use.
    off: Option<&'static str>,
}

/// What carries frames.
#[derive(Clone, Copy)]
enum By {
    Routers([Kind; 2]),
    Vxlan,
    Baseline,
    Rival(Rival),
}

const VXLAN: Way = Way {
    name: "vxlan",
    by: By::Vxlan,
    password: None,
    native: true,
    cuts: true,
    siege: false,
    off: None,
};
const PASSWORD: Option<&str> = Some("a secret");

const fn way(name: &'static str, kinds: [Kind; 2], password: Option<&'static str>) -> Way {
    Way {
        name,
        by: By::Routers(kinds),
        password,
        native: true,
        cuts: true,
        siege: false,
        off: None,
    }
}

const fn rival(name: &'static str, rival: Rival) -> Way {
    Way {
        name,
        by: By::Rival(rival),
        ..VXLAN
    }
}

const WAYS: [Way; 16] = [
    VXLAN,
    Way {
        name: "per-packet",
        by: By::Baseline,
        ..VXLAN
    },
    rival("wireguard-go", Rival::WireguardGo),
    rival("boringtun", Rival::Boringtun),
    rival("nebula", Rival::Nebula),
    way("native", [Kind::Weft, Kind::Weft], PASSWORD),
    Way {
        off: Some("aes"),
        ..way("native-chacha", [Kind::Weft, Kind::Weft], PASSWORD)
    },
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
    /// Returns true if everything that it needs was named.
    fn is_possible(&self) -> bool {
        match self.by {
            By::Routers(kinds) if kinds.contains(&Kind::Weaver) => {
                let is_named = netns_tests::weaver().is_some();
                if !is_named {
                    testbed::skips::skip(
                        self.name,
                        "WEAVER=/path/to/a/real/Weave/Net/2.8.1/weaver",
                    );
                }
                is_named
            }
            By::Rival(rival) => {
                let is_named = rival.program().is_some();
                if !is_named {
                    testbed::skips::skip(self.name, &format!("{}=/path/to/it", rival.variable()));
                }
                is_named
            }
            By::Routers(_) | By::Vxlan | By::Baseline => {
                let is_possible = self.cuts || is_present("ethtool");
                if !is_possible {
                    testbed::skips::skip(self.name, "ethtool");
                }
                is_possible
            }
        }
    }

    fn measure(&self, duration: Duration) -> Result<Sample, TrialError> {
        let addresses = [Trial::address(0), Trial::address(1)];
        match self.by {
            By::Routers(kinds) => self.measure_routers(kinds, duration),
            By::Vxlan => {
                let (lab, [from, to]) = vxlan::pair()?;
                self.prepare(&lab)?;
                Sample::take([&from, &to], addresses, duration, &[])
            }
            By::Baseline => {
                let pair = baseline::pair()?;
                let [from, to] = &pair.containers;
                let programs = [pair.daemons[0].pid(), pair.daemons[1].pid()];
                Sample::take([from, to], addresses, duration, &programs)
            }
            By::Rival(rival) => {
                let pair = rival.pair()?;
                let hosts = pair.lab.hosts();
                let programs = [pair.daemons[0].pid(), pair.daemons[1].pid()];
                let addresses = [Rival::address(0), Rival::address(1)];
                let namespaces = [&hosts[0].namespace, &hosts[1].namespace];
                Sample::take(namespaces, addresses, duration, &programs)
            }
        }
    }

    fn measure_routers(&self, kinds: [Kind; 2], duration: Duration) -> Result<Sample, TrialError> {
        let mut mesh = Mesh::new(&kinds);
        self.prepare(&mesh.lab)?;
        let mut launch = Launch::new().maybe_password(self.password);
        if let Some(off) = self.off {
            launch = launch.with("--no-offload").with(off);
        }
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

fn print(ways: &[Way], samples: &[Vec<Sample>]) {
    let of = |name: &str, figure: fn(&Sample) -> f64| {
        let index = ways.iter().position(|way| way.name == name);
        index.map(|index| median(samples[index].iter().map(figure)).0)
    };
    println!(
        "| way | 1 stream Gbit/s | / vxlan | / real | CPU s/GB | by iperf3 | 4 streams \
         | / vxlan | both ways | 64-byte kpps | RTT p50 us |"
    );
    println!("|---|---|---|---|---|---|---|---|---|---|---|");
    for (way, samples) in ways.iter().zip(samples) {
        let show = |figure: fn(&Sample) -> f64, unit: f64, digits: usize| {
            let (median, low, high) = median(samples.iter().map(figure));
            let [median, low, high] = [median, low, high].map(|value| value / unit);
            format!("{median:.digits$} ({low:.digits$}-{high:.digits$})")
        };
        let gbits: fn(&Sample) -> f64 = |sample| sample.gbits;
        let of_four: fn(&Sample) -> f64 = |sample| sample.gbits_of_four;
        let real = match way.name {
            "real-plain" | "sleeve-plain" => "real-plain",
            _ => "real-encrypted",
        };
        let vxlan = if way.cuts { "vxlan" } else { "vxlan-uncut" };
        let ratio = |reference: &str, figure| match of(reference, figure) {
            Some(reference) => format!("{:.2}", of(way.name, figure).unwrap_or(0.0) / reference),
            None => "-".to_owned(),
        };
        println!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            way.name,
            show(gbits, 1.0, 2),
            ratio(vxlan, gbits),
            ratio(real, gbits),
            show(|sample| sample.cpu_seconds_per_gigabyte, 1.0, 2),
            show(|sample| sample.gbits_by_iperf.unwrap_or(f64::NAN), 1.0, 2),
            show(of_four, 1.0, 2),
            ratio(vxlan, of_four),
            show(|sample| sample.gbits_of_both, 1.0, 2),
            show(|sample| sample.small_per_second, 1e3, 0),
            show(|sample| sample.round_trip_us, 1.0, 0),
        );
    }
}
