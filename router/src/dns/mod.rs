//! The DNS server: names of containers answered from a snapshot, everything else forwarded.
//!
//! ```text
//! listen     keeps listening, on some addresses if it cannot be on all
//! udp, tcp   what is done with what comes
//! forward    one query to the host's servers, over UDP and TCP
//! resolv     which servers those are
//! limit      how many queries and connections at once, in all and per client
//! near       for whom others are asked
//! metrics    counters
//! client     asks other servers, for commands and tests
//! ```
//!
//! What to answer is decided by `proto::names`; this is the part with sockets. It runs as a few
//! tasks, in the router on a thread of their own, and shares with the rest only the handle of the
//! snapshot.

pub mod client;
mod forward;
mod limit;
mod listen;
mod metrics;
mod near;
mod resolv;
mod tcp;
#[cfg(test)]
mod tests;
mod udp;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use fastrand::Rng;
use proto::names::Index;
use proto::names::answer::{Responder, Zone};
use proto::names::message::Rcode;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

pub use self::listen::Instead;
pub use self::metrics::{DnsCounts, DnsMetrics};
pub use self::resolv::CHECK_INTERVAL;

use self::forward::Forwarder;
use self::limit::Limit;
use self::listen::{Listener, Socket, Transport};
use self::resolv::Resolv;

/// Most forwarded queries on their way; further ones are answered with SERVFAIL and counted.
const FORWARDS_MAX: usize = 512;
/// Most forwarded queries on their way for one client.
const FORWARDS_PER_CLIENT_MAX: usize = 128;
/// Most TCP connections; further ones are closed at once and counted.
const CONNECTIONS_MAX: usize = 256;
/// Most TCP connections of one client.
const CONNECTIONS_PER_CLIENT_MAX: usize = 32;

/// How to serve.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Where to listen, over UDP and TCP.
    pub listen: SocketAddr,
    /// Where to listen if that is all addresses, and somebody else has the port on one of them.
    pub instead: Option<Instead>,
    /// What to answer for.
    pub zone: Zone,
    /// How long each of the host's servers has to answer.
    pub fallback_timeout: Duration,
    /// The file that lists the host's servers; without one nothing is forwarded.
    pub resolv_conf: Option<PathBuf>,
    /// How long the file is not looked at again; usually [`CHECK_INTERVAL`].
    pub resolv_conf_interval: Duration,
}

/// Whether one of the listeners works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It has not been tried yet.
    Starting,
    /// It works.
    On(SocketAddr),
    /// It works on these of all addresses, at least one, for this reason. They are followed.
    OnSome(Vec<SocketAddr>, String),
    /// It does not, for this reason, and is tried again every few seconds.
    Failed(String),
}

/// Whether the listeners work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsStatus {
    /// The one for UDP.
    pub udp: Listening,
    /// The one for TCP.
    pub tcp: Listening,
}

/// The running server. Dropping it ends it.
#[derive(Debug)]
pub struct DnsServer {
    shared: Arc<Shared>,
    status: watch::Receiver<DnsStatus>,
    _tasks: JoinSet<()>,
    /// Ends the thread of the tasks, if they have one, when it is dropped.
    _thread: Option<oneshot::Sender<()>>,
}

/// What the tasks of the server have in common.
#[derive(Debug)]
struct Shared {
    zone: Zone,
    /// Whether it listens on whatever addresses the host has, and not on one that was chosen.
    everywhere: bool,
    names: Arc<ArcSwap<Index>>,
    forwarder: Forwarder,
    forwards: Limit,
    connections: Limit,
    metrics: Arc<DnsMetrics>,
}

impl DnsServer {
    /// Starts serving from the snapshot that `names` holds at any time. To be called within a
    /// tokio runtime. A taken port is no error: see [`DnsServer::status`].
    pub fn start(config: DnsConfig, names: Arc<ArcSwap<Index>>) -> DnsServer {
        // A port left to the kernel is chosen once, for UDP, and then holds for both.
        let socket = udp::bind(config.listen);
        let mut listen = config.listen;
        if let Ok(Ok(bound)) = socket.as_ref().map(|socket| socket.local_addr()) {
            listen = bound;
        }
        let metrics = Arc::<DnsMetrics>::default();
        let shared = Arc::new(Shared {
            zone: config.zone,
            everywhere: config.listen.ip().is_unspecified(),
            names,
            forwarder: Forwarder {
                resolv: Resolv::new(config.resolv_conf, config.resolv_conf_interval, listen),
                timeout: config.fallback_timeout,
                metrics: metrics.clone(),
            },
            forwards: Limit::new(FORWARDS_MAX, FORWARDS_PER_CLIENT_MAX),
            connections: Limit::new(CONNECTIONS_MAX, CONNECTIONS_PER_CLIENT_MAX),
            metrics,
        });
        let (sender, status) = watch::channel(DnsStatus {
            udp: Listening::Starting,
            tcp: Listening::Starting,
        });
        let sender = Arc::new(sender);
        let listener = |transport| Listener {
            shared: shared.clone(),
            transport,
            listen,
            instead: config.instead.clone(),
            status: sender.clone(),
        };
        let mut tasks = JoinSet::new();
        let first = Some(socket.map(Socket::Udp));
        tasks.spawn(listener(Transport::Udp).run(first));
        tasks.spawn(listener(Transport::Tcp).run(None));
        DnsServer {
            shared,
            status,
            _tasks: tasks,
            _thread: None,
        }
    }

    /// As [`DnsServer::start`], on a thread of its own, so that questions hold up nothing else.
    pub fn start_on_thread(config: DnsConfig, names: Arc<ArcSwap<Index>>) -> io::Result<DnsServer> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let server = {
            let _entered = runtime.enter();
            DnsServer::start(config, names)
        };
        let (alive, end) = oneshot::channel();
        let serve = move || {
            // It ends when the other side is dropped, which is an error to wait for.
            let _ = runtime.block_on(end);
        };
        std::thread::Builder::new()
            .name("weft-dns".to_owned())
            .spawn(serve)?;
        Ok(DnsServer {
            _thread: Some(alive),
            ..server
        })
    }

    /// Whether the listeners work. The receiver also tells of changes.
    pub fn status(&self) -> watch::Receiver<DnsStatus> {
        self.status.clone()
    }

    /// The servers that queries are forwarded to, in the order of their file.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        let upstreams = self.shared.forwarder.resolv.listed(Instant::now());
        upstreams.iter().map(|upstream| upstream.addr).collect()
    }

    /// What was counted so far.
    pub fn counts(&self) -> DnsCounts {
        self.shared.metrics.read()
    }
}

impl Shared {
    fn responder(&self) -> Responder {
        let mut seed = [0; 8];
        // Without randomness the order of addresses repeats, which harms nobody.
        let _ = getrandom::fill(&mut seed);
        Responder::new(self.zone.clone(), Rng::with_seed(u64::from_ne_bytes(seed)))
    }

    /// Whether others are asked for this client, which asked at `local`.
    fn forwards_for(&self, client: IpAddr, local: Option<IpAddr>) -> bool {
        !self.everywhere || near::is_near(client, local, &self.zone.private)
    }

    /// Counts a query that was answered here.
    fn count(&self, rcode: Rcode) {
        match rcode {
            Rcode::NoError => self.metrics.answered.inc(),
            Rcode::NxDomain => self.metrics.name_errors.inc(),
            _ => self.metrics.refused.inc(),
        }
    }
}
