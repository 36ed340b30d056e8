//! Whether a frame costs more on a host with 200 containers than on one with a single container:
//! two meshes of two hosts each, measured in turn. Needs root.
//!
//! ```text
//! cargo bench -p benches --bench crowd -- [--rounds N] [--containers N]
//! ```
//!
//! Every container of the full host has spoken to the other host, so that both routers and both
//! bridges know all of them.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "prints what it measured"
)]

use std::net::IpAddr;
use std::process::ExitCode;
use std::time::Duration;

use benches::{median, program};
use lab::pinger::{PingOptions, Pinger};
use lab::throughput::{self, Packets, process_cpu};
use netns_tests::{Container, Kind, Launch, Mesh};
use testbed::rig::TrialError;

const PINGS: u32 = 500;
const DURATION: Duration = Duration::from_secs(1);

/// A figure of a sample, and its digits.
type Figure = (fn(&Sample) -> f64, usize);

fn main() -> ExitCode {
    program::router_or("crowd", measure)
}

fn measure() -> Result<(), TrialError> {
    let rounds = program::number_after("--rounds", 5)?;
    let containers = program::number_after("--containers", 200)? as usize;
    let sites = [Site::new(1)?, Site::new(containers)?];
    let mut samples = [Vec::new(), Vec::new()];
    for round in 1..=rounds {
        for (site, samples) in sites.iter().zip(&mut samples) {
            let sample = site.measure()?;
            eprintln!("round {round}, {} containers: {sample:?}", site.full.len());
            samples.push(sample);
        }
    }
    println!(
        "| containers | router CPU us, each frame of 64 bytes | of them a second, 1000 | 1 stream Gbit/s \
         | round trip p50 us |"
    );
    println!("|---|---|---|---|---|");
    let figures: [Figure; 4] = [
        (|sample| sample.cpu_us, 2),
        (|sample| sample.kpps, 0),
        (|sample| sample.gbits, 2),
        (|sample| sample.round_trip_us, 0),
    ];
    for (site, samples) in sites.iter().zip(&samples) {
        let shown = figures.map(|(figure, digits)| {
            let (middle, low, high) = median(samples.iter().map(figure));
            format!("{middle:.digits$} ({low:.digits$}-{high:.digits$})")
        });
        println!("| {} | {} |", site.full.len(), shown.join(" | "));
    }
    let ratios = figures.map(|(figure, _)| {
        let of = |samples: &[Sample]| median(samples.iter().map(figure)).0;
        format!("{:.2}", of(&samples[1]) / of(&samples[0]))
    });
    println!("| ratio | {} |", ratios.join(" | "));
    Ok(())
}

/// Two hosts: one with so many containers, the other with one.
struct Site {
    mesh: Mesh,
    full: Vec<Container>,
    other: Container,
}

impl Site {
    fn new(containers: usize) -> Result<Site, TrialError> {
        let mut mesh = Mesh::new(&[Kind::Weft; 2]);
        mesh.launch_all(
            &[&[], &[0]],
            &Launch::new().maybe_password(Some("a secret")),
        );
        mesh.wait_connected(0, 1);
        mesh.wait_routed(&[0, 1]);
        let other = Container::attach_by(&mesh, 1, &[])?;
        let mut full = Vec::new();
        for _ in 0..containers {
            let container = Container::attach_by(&mesh, 0, &[])?;
            container.must_reach(&other);
            full.push(container);
        }
        Ok(Site { mesh, full, other })
    }

    /// Measures from the container that was attached last, which is the last in every list.
    fn measure(&self) -> Result<Sample, TrialError> {
        let (from, to) = (&self.full[self.full.len() - 1], &self.other);
        let mut pinger = Pinger::new(&from.namespace)?;
        let mut round_trips = Vec::new();
        for _ in 0..PINGS {
            let timeout = Duration::from_millis(100);
            round_trips.extend(pinger.ping(to.address, PingOptions::default(), timeout)?);
        }
        let target: IpAddr = to.address.into();
        let used = || -> Result<Duration, TrialError> {
            Ok(process_cpu(self.mesh.pid(0))? + process_cpu(self.mesh.pid(1))?)
        };
        let one = throughput::tcp(&from.namespace, &to.namespace, target, 1, DURATION)?;
        let packets = Packets {
            payload_bytes: 64,
            // As many as get through, so that what is lost costs nothing.
            per_second: Some(50_000),
        };
        let before = used()?;
        let steady = throughput::udp(&from.namespace, &to.namespace, target, packets, DURATION)?;
        let cpu = used()? - before;
        let most = Packets {
            per_second: None,
            ..packets
        };
        let most = throughput::udp(&from.namespace, &to.namespace, target, most, DURATION)?;
        Ok(Sample {
            cpu_us: cpu.as_secs_f64() * 1e6 / steady.packets as f64,
            kpps: most.packets_per_second() / 1e3,
            gbits: one.bits_per_second() / 1e9,
            round_trip_us: median(round_trips.iter().map(Duration::as_secs_f64)).0 * 1e6,
        })
    }
}

#[derive(Clone, Copy, Debug)]
struct Sample {
    cpu_us: f64,
    kpps: f64,
    gbits: f64,
    round_trip_us: f64,
}
