//! Pings and streams between containers.
//!
//! They wait on threads that nobody waits for: when the demonstration is over early, its process
//! ends all the same.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::DemoError;
use kernel::error::NetError;
use kernel::netns::Namespace;
use lab::pinger::{PingOptions, Pinger};
use lab::throughput::{self, Transfer};

/// Maximum time for the first answer between two containers.
const FIRST_ANSWER_TIME_MAX: Duration = Duration::from_secs(5);
/// Interval between requests that are not answered.
const RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Requests after the first answer.
const COUNTED: u32 = 5;
/// Time for which each of them waits for its answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(1);
/// Streams that are measured, at most.
const STREAMS_MAX: usize = 3;
/// Duration of each stream.
const STREAM_TIME: Duration = Duration::from_millis(800);

/// A container that takes part.
#[derive(Clone, Debug)]
pub(super) struct Container {
    pub(super) namespace: Namespace,
    pub(super) address: Ipv4Addr,
}

/// Result of pinging one container from another.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ping {
    /// Number of the container that asked.
    pub from: usize,
    /// Number of the container that was asked.
    pub to: usize,
    /// The shortest round trip; none if nothing was ever answered.
    pub best: Option<Duration>,
    /// Requests after the first answer.
    pub sent: u32,
    /// Those that were answered.
    pub answered: u32,
}

/// Result of sending one TCP stream from a container to another.
#[derive(Clone, Debug)]
pub struct Stream {
    /// Number of the container that sent.
    pub from: usize,
    /// Number of the container that received.
    pub to: usize,
    /// Counts of what arrived.
    pub result: Result<Transfer, NetError>,
}

/// Pings every container from every other, from all at a time.
pub(super) async fn ping_all(containers: &[Container]) -> Result<Vec<Ping>, DemoError> {
    let mut running = Vec::new();
    for from in 0..containers.len() {
        let containers = containers.to_vec();
        running.push(on_thread(move || ping_from(from, &containers)));
    }
    let mut pings = Vec::new();
    for running in running {
        pings.extend(running.await.map_err(|_| DemoError::Broken)??);
    }
    Ok(pings)
}

/// Whether an address answers a container in time.
pub(super) async fn answer_within(
    from: &Namespace,
    to: Ipv4Addr,
    time: Duration,
) -> Result<bool, DemoError> {
    let from = from.clone();
    let waiting = on_thread(move || {
        let mut pinger = Pinger::new(&from)?;
        let interval = Duration::from_millis(50);
        let answer = pinger.wait_for(to, interval, Instant::now() + time)?;
        Ok::<_, NetError>(answer.is_some())
    });
    Ok(waiting.await.map_err(|_| DemoError::Broken)??)
}

fn ping_from(from: usize, containers: &[Container]) -> Result<Vec<Ping>, NetError> {
    let mut pinger = Pinger::new(&containers[from].namespace)?;
    let deadline = Instant::now() + FIRST_ANSWER_TIME_MAX;
    let mut pings = Vec::new();
    for (to, container) in containers.iter().enumerate() {
        if to == from {
            continue;
        }
        let address = container.address;
        // Those before may have used all the time; each is asked once at least.
        let deadline = deadline.max(Instant::now() + RETRY_INTERVAL);
        let mut ping = Ping {
            from,
            to,
            best: pinger.wait_for(address, RETRY_INTERVAL, deadline)?,
            sent: 0,
            answered: 0,
        };
        while ping.best.is_some() && ping.sent < COUNTED {
            ping.sent += 1;
            let answer = pinger.ping(address, PingOptions::default(), ANSWER_TIME_MAX)?;
            ping.answered += u32::from(answer.is_some());
            ping.best = ping.best.min(answer).or(ping.best);
        }
        pings.push(ping);
    }
    Ok(pings)
}

/// Sends a stream around the containers, one pair after the other.
pub(super) async fn stream_some(containers: &[Container]) -> Result<Vec<Stream>, DemoError> {
    let mut streams = Vec::new();
    for from in 0..containers.len().min(STREAMS_MAX) {
        let to = (from + 1) % containers.len();
        let (sender, sink) = (containers[from].clone(), containers[to].clone());
        let transfer = on_thread(move || {
            let address = sink.address.into();
            throughput::tcp(&sender.namespace, &sink.namespace, address, 1, STREAM_TIME)
        });
        let result = transfer.await.map_err(|_| DemoError::Broken)?;
        streams.push(Stream { from, to, result });
    }
    Ok(streams)
}

/// Memory of a process, in KiB.
pub(super) fn resident_kib(pid: u32) -> Option<u64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

fn on_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> oneshot::Receiver<T> {
    let (done, result) = oneshot::channel();
    std::thread::spawn(move || {
        // Nobody may be waiting any more.
        let _ = done.send(work());
    });
    result
}
