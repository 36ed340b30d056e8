//! What is measured of each way from container to container.

use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant};

use kernel::netns::Namespace;
use lab::pinger::{PingOptions, Pinger};
use lab::throughput::{self, Packets, process_cpu};
use testbed::rig::TrialError;

use crate::{iperf, is_present, median};

const PINGS: u32 = 300;
const REACH_TIME: Duration = Duration::from_secs(20);
const GIGA: f64 = 1e9;

/// What one way reached in one round.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// One TCP stream, Gbit/s.
    pub gbits: f64,
    /// Processor time of both routers for 10^9 bytes of it.
    pub cpu_seconds_per_gigabyte: f64,
    /// Four streams together.
    pub gbits_of_four: f64,
    /// One stream in each direction at once, together.
    pub gbits_of_both: f64,
    /// One stream by iperf3, where it is present.
    pub gbits_by_iperf: Option<f64>,
    /// Packets with 64 bytes of payload that arrive each second.
    pub small_per_second: f64,
    /// Median round trip of pings, microseconds.
    pub round_trip_us: f64,
}

impl Sample {
    /// Measures from one namespace to an address of another, and back.
    pub fn take(
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
        let gbits_by_iperf = match is_present("iperf3") {
            true => Some(iperf::tcp(from, to, target, duration)? / GIGA),
            false => None,
        };
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
            gbits_by_iperf,
            small_per_second: small.packets_per_second(),
            round_trip_us: median(round_trips.iter().map(Duration::as_secs_f64)).0 * 1e6,
        })
    }
}
