//! Load on the DNS server over loopback: how many local answers per second, and what forwarding
//! adds to a query.
//!
//! `cargo run --release -p benches --example dns_load -- [seconds] [outstanding queries]`

#![allow(clippy::print_stdout)]

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use arc_swap::ArcSwap;
use dns::metrics::DnsCounts;
use dns::resolv::CHECK_INTERVAL;
use dns::server::{DnsConfig, DnsServer};
use dns::status::{DnsStatus, Listening};
use fastrand::Rng;
use kernel::sys::pktinfo::{Inbox, Outbox, Path};
use proto::names::Index;
use proto::names::answer::Zone;

const NAMES: u32 = 10_000;
/// Clock ticks of /proc/*/stat per second.
const TICKS: f64 = 100.0;

fn main() -> Result<()> {
    let mut args = std::env::args().skip(1);
    let seconds = args.next().map_or(Ok(5), |text| text.parse())?;
    let outstanding = args.next().map_or(Ok(64), |text| text.parse())?;
    let upstream = spawn_upstream()?;
    let server = spawn_server(upstream)?;
    load(&server, Duration::from_secs(seconds), outstanding)?;
    latency(upstream, server.addr)
}

struct Server {
    addr: SocketAddr,
    /// The thread that serves.
    stat: String,
    counts: Box<dyn Fn() -> DnsCounts>,
}

/// Starts the server in a thread of its own.
fn spawn_server(upstream: SocketAddr) -> Result<Server> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let folder = tempfile::tempdir()?;
            let resolv_conf = folder.path().join("resolv.conf");
            fs::write(&resolv_conf, format!("nameserver {upstream}\n"))?;
            let hosts: Vec<String> = (0..NAMES).map(hostname).collect();
            let each = hosts.iter().zip(0..);
            let names = each.map(|(name, i)| (name.as_str(), Ipv4Addr::from(0x0a20_0000 + i)));
            let config = DnsConfig {
                listen: SocketAddr::from(([0, 0, 0, 0], 0)),
                instead: None,
                zone: Zone {
                    domain: "weave.local.".parse()?,
                    ttl_secs: 1,
                    private: Vec::new(),
                },
                fallback_timeout: Duration::from_secs(5),
                resolv_conf: Some(resolv_conf),
                resolv_conf_interval: CHECK_INTERVAL,
            };
            let index = Arc::new(ArcSwap::from_pointee(Index::of(names)));
            let server = Arc::new(DnsServer::start(config, index));
            let mut status = server.status();
            let on = |status: &DnsStatus| matches!(status.udp, Listening::On(_));
            let status = status.wait_for(on).await?.clone();
            let Listening::On(addr) = status.udp else {
                anyhow::bail!("not listening");
            };
            let thread = fs::read_link("/proc/thread-self")?;
            let counts = server.clone();
            sender.send((addr, format!("/proc/{}/stat", thread.display()), counts))?;
            std::future::pending::<()>().await;
            drop(server);
            Ok(())
        })
    });
    let (ip_any, stat, server) = receiver.recv().context("the server did not start")?;
    Ok(Server {
        addr: SocketAddr::from(([127, 0, 0, 1], ip_any.port())),
        stat,
        counts: Box::new(move || server.counts()),
    })
}

/// Starts a server that answers everything with nothing.
fn spawn_upstream() -> Result<SocketAddr> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let addr = socket.local_addr()?;
    thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok((len, from)) = socket.recv_from(&mut buffer) {
            buffer[2] |= 0x80;
            let _ = socket.send_to(&buffer[..len], from);
        }
    });
    Ok(addr)
}

/// Keeps `outstanding` queries on their way for `duration`.
fn load(server: &Server, duration: Duration, outstanding: usize) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    let path = Path {
        remote: server.addr,
        local: None,
        scope: 0,
    };
    let mut rng = Rng::with_seed(1);
    let (mut inbox, mut outbox) = (Inbox::new(64, 1024), Outbox::new(64));
    let (mut sent, mut received, mut lost) = (0u64, 0u64, 0u64);
    let (start, busy) = (Instant::now(), cpu_seconds(&server.stat)?);
    let mut last_answer = start;
    while start.elapsed() < duration {
        let on_their_way = (sent - received - lost) as usize;
        let room = outstanding.saturating_sub(on_their_way).min(64);
        if room > 0 {
            outbox.clear();
            for _ in 0..room {
                let name = hostname(rng.u32(0..NAMES));
                outbox.push(path, &query(sent as u16, name.trim_end_matches('.')));
            }
            sent += outbox.send(&socket, 0)? as u64;
        }
        match inbox.receive(&socket) {
            Ok(count) => {
                received += count as u64;
                last_answer = Instant::now();
            }
            Err(_) if last_answer.elapsed() > Duration::from_millis(200) => {
                lost = sent - received;
                last_answer = Instant::now();
            }
            Err(_) => thread::yield_now(),
        }
    }
    let elapsed = start.elapsed().as_secs_f64();
    let busy = cpu_seconds(&server.stat)? - busy;
    let counts = (server.counts)();
    println!(
        "{received} answers in {elapsed:.2} s: {:.0} per second",
        received as f64 / elapsed
    );
    println!(
        "server thread: {busy:.2} s of CPU, {:.0} answers per second of it; lost {lost}",
        received as f64 / busy
    );
    println!(
        "counted by the server: {} queries, {} answers",
        counts.queries_udp, counts.answered
    );
    Ok(())
}

/// Compares asking the upstream directly with asking through the server.
fn latency(upstream: SocketAddr, server: SocketAddr) -> Result<()> {
    let socket = UdpSocket::bind("127.0.0.1:0")?;
    socket.set_read_timeout(Some(Duration::from_secs(5)))?;
    let mut medians = [Duration::ZERO; 2];
    for (addr, median) in [upstream, server].into_iter().zip(&mut medians) {
        let mut times = Vec::new();
        for id in 0..2000 {
            let start = Instant::now();
            socket.send_to(&query(id, "www.example.com"), addr)?;
            socket.recv_from(&mut [0; 512])?;
            times.push(start.elapsed());
        }
        times.sort_unstable();
        *median = times[times.len() / 2];
    }
    let [direct, forwarded] = medians;
    println!(
        "forwarding: median {forwarded:?}, directly {direct:?}: adds {:?}",
        forwarded.saturating_sub(direct)
    );
    Ok(())
}

fn hostname(i: u32) -> String {
    format!("service-{i}.weave.local.")
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
    out
}

/// User and system time of a thread.
fn cpu_seconds(stat: &str) -> Result<f64> {
    let text = fs::read_to_string(stat)?;
    let (_, fields) = text.rsplit_once(')').context("malformed stat")?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let ticks =
        |index: usize| -> Result<f64> { Ok(fields.get(index).context("malformed stat")?.parse()?) };
    Ok((ticks(11)? + ticks(12)?) / TICKS)
}
