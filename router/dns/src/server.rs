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

use crate::listen::Instead;
use crate::metrics::{DnsCounts, DnsMetrics};
use crate::shared::Shared;
use crate::status::{DnsStatus, Listening};
use crate::udp;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use proto::names::Index;
use proto::names::answer::Zone;
use tokio::sync::{oneshot, watch};
use tokio::task::JoinSet;

use crate::forward::Forwarder;
use crate::limit::Limit;
use crate::listen::{Listener, Socket, Transport};
use crate::resolv::Resolv;

/// Maximum number of forwarded queries on their way; further ones are answered with SERVFAIL and
/// counted.
const FORWARDS_MAX: usize = 512;
/// Maximum number of forwarded queries on their way for one client.
const FORWARDS_PER_CLIENT_MAX: usize = 128;
/// Maximum number of TCP connections; further ones are closed at once and counted.
const CONNECTIONS_MAX: usize = 256;
/// Maximum number of TCP connections of one client.
const CONNECTIONS_PER_CLIENT_MAX: usize = 32;

/// Options for serving.
#[derive(Clone, Debug)]
pub struct DnsConfig {
    /// Address to listen on, over UDP and TCP.
    pub listen: SocketAddr,
    /// Addresses to listen on if that is all addresses, and another program has the port on one of
    /// them.
    pub instead: Option<Instead>,
    /// Names to answer.
    pub zone: Zone,
    /// Maximum time for each of the host's servers to answer.
    pub fallback_timeout: Duration,
    /// The file that lists the host's servers; without one nothing is forwarded.
    pub resolv_conf: Option<PathBuf>,
    /// Interval between checks of the file; usually `CHECK_INTERVAL`.
    pub resolv_conf_interval: Duration,
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

    /// Returns the servers that queries are forwarded to, in the order of their file.
    pub fn upstreams(&self) -> Vec<SocketAddr> {
        let upstreams = self.shared.forwarder.resolv.listed(Instant::now());
        upstreams.iter().map(|upstream| upstream.addr).collect()
    }

    /// Returns what was counted so far.
    pub fn counts(&self) -> DnsCounts {
        self.shared.metrics.read()
    }
}

#[cfg(test)]
mod tests;
