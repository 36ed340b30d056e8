//! Keeping a place to listen, for one transport.
//!
//! If somebody else has the port on one of this host's addresses, as resolvers of the host's own
//! have it on a loopback address, listening on all addresses is refused. Then we listen on the
//! addresses at which containers ask, one by one, and follow them as they come and go.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};
use tracing::{info, warn};

use super::{tcp, udp};
use crate::shared::Shared;
use crate::status::{DnsStatus, Listening};

/// Time to wait before trying again to listen, or looking for addresses again.
const LISTEN_RETRY: Duration = Duration::from_secs(2);

/// Tells on which addresses to listen when it cannot be on all.
#[derive(Clone)]
pub struct Instead(Arc<dyn Fn() -> Vec<IpAddr> + Send + Sync>);

impl Instead {
    /// `addresses` may wait for the kernel.
    pub fn new(addresses: impl Fn() -> Vec<IpAddr> + Send + Sync + 'static) -> Instead {
        Instead(Arc::new(addresses))
    }

    async fn addresses(&self) -> Vec<IpAddr> {
        let addresses = Arc::clone(&self.0);
        let looked = tokio::task::spawn_blocking(move || addresses());
        looked.await.unwrap_or_default()
    }
}

impl fmt::Debug for Instead {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Instead")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Udp,
    Tcp,
}

/// An open socket of either transport.
pub(super) enum Socket {
    Udp(UdpSocket),
    Tcp(TcpListener),
}

impl Socket {
    pub(super) async fn open(transport: Transport, addr: SocketAddr) -> io::Result<Socket> {
        match transport {
            Transport::Udp => udp::bind(addr).map(Socket::Udp),
            Transport::Tcp => tcp::bind(addr).await.map(Socket::Tcp),
        }
    }

    /// Serves until the socket fails.
    fn serve(self, shared: Arc<Shared>) -> Pin<Box<dyn Future<Output = io::Error> + Send>> {
        match self {
            Socket::Udp(socket) => Box::pin(udp::serve(shared, socket)),
            Socket::Tcp(listener) => Box::pin(tcp::serve(shared, listener)),
        }
    }
}

/// Serves one transport, forever.
pub(super) struct Listener {
    pub(super) shared: Arc<Shared>,
    pub(super) transport: Transport,
    pub(super) listen: SocketAddr,
    pub(super) instead: Option<Instead>,
    pub(super) status: Arc<watch::Sender<DnsStatus>>,
}

impl Listener {
    /// `first` is a first try to listen, if there was one.
    pub(super) async fn run(self, mut first: Option<io::Result<Socket>>) {
        loop {
            let socket = match first.take() {
                Some(socket) => socket,
                None => Socket::open(self.transport, self.listen).await,
            };
            let error = match socket {
                Ok(socket) => {
                    self.listen_on(vec![self.listen]);
                    self.set(Listening::On(self.listen));
                    socket.serve(self.shared.clone()).await
                }
                Err(error) => self.serve_some(error).await,
            };
            self.set(Listening::Failed(error.to_string()));
            tokio::time::sleep(LISTEN_RETRY).await;
        }
    }

    /// Serves on some addresses because listening on all failed, for as long as there are any.
    /// Returns why it failed.
    async fn serve_some(&self, error: io::Error) -> io::Error {
        let taken = error.kind() == io::ErrorKind::AddrInUse && self.listen.ip().is_unspecified();
        let Some(instead) = self.instead.as_ref().filter(|_| taken) else {
            return error;
        };
        let mut tasks = JoinSet::new();
        let mut on: BTreeMap<IpAddr, AbortHandle> = BTreeMap::new();
        loop {
            let wanted = instead.addresses().await;
            on.retain(|ip, task| {
                let kept = wanted.contains(ip) && !task.is_finished();
                if !kept {
                    task.abort();
                }
                kept
            });
            for ip in wanted {
                let addr = SocketAddr::new(ip, self.listen.port());
                if on.contains_key(&ip) {
                    continue;
                }
                if let Ok(socket) = Socket::open(self.transport, addr).await {
                    on.insert(ip, tasks.spawn(socket.serve(self.shared.clone())));
                }
            }
            if on.is_empty() {
                return error;
            }
            let port = self.listen.port();
            let addresses: Vec<SocketAddr> =
                on.keys().map(|ip| SocketAddr::new(*ip, port)).collect();
            self.listen_on(addresses.clone());
            self.set(Listening::OnSome(addresses, error.to_string()));
            tokio::time::sleep(LISTEN_RETRY).await;
            while tasks.try_join_next().is_some() {}
        }
    }

    /// Queries to these addresses would come back to us.
    fn listen_on(&self, addresses: Vec<SocketAddr>) {
        if self.transport == Transport::Udp {
            self.shared.forwarder.resolv.set_ourselves(addresses);
        }
    }

    /// Sets the status; the log hears of changes.
    fn set(&self, listening: Listening) {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        self.status.send_if_modified(|status| {
            let place = match self.transport {
                Transport::Udp => &mut status.udp,
                Transport::Tcp => &mut status.tcp,
            };
            if *place == listening {
                return false;
            }
            match &listening {
                Listening::On(addr) => info!(transport, %addr, "listening for DNS queries"),
                Listening::OnSome(addrs, error) => {
                    warn!(
                        transport,
                        ?addrs,
                        error,
                        "listening for DNS queries on these alone"
                    );
                }
                Listening::Failed(error) => {
                    warn!(transport, error, "not listening for DNS queries");
                }
                Listening::Starting => {}
            }
            *place = listening;
            true
        });
    }
}
