//! Listeners on TCP addresses and unix sockets.
//!
//! A client costs the listener that it asked, and no other: each has its own number of connections.
//! When all are taken, the one that has waited longest for its client is closed, so that somebody
//! who keeps many open keeps nobody out. A head that does not arrive, or a body, ends its
//! connection.

use std::io;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, UnixListener};
use tokio::task::{AbortHandle, JoinSet};

use crate::endpoint::Endpoint;

/// How much one listener bears.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections at once; for another one, the one that waits longest for its client is
    /// closed.
    pub connections_max: usize,
    /// How long a client may take for the head of a request, also for the next one of the same
    /// connection; then the connection is closed.
    pub head_time_max: Duration,
    /// How long a client may take for the body of a request; then it is refused.
    pub body_time_max: Duration,
    /// Most bytes of a body; a longer one is refused.
    pub body_bytes_max: usize,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            connections_max: 128,
            head_time_max: Duration::from_secs(20),
            body_time_max: Duration::from_secs(20),
            body_bytes_max: 2 << 20,
        }
    }
}

/// Most bytes of a head; a longer one is refused. What is kept of a head that has not ended is no
/// more.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// How long to wait after a failure to accept, which is for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// How often the end looks which connections are answered.
const FINISH_INTERVAL: Duration = Duration::from_millis(20);

/// Time in which an answer leaves for a client that reads it.
const ANSWER_TIME: Duration = Duration::from_millis(100);

/// An open listener.
#[derive(Debug)]
pub enum Listener {
    /// On TCP.
    Tcp(TcpListener),
    /// On a unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Opens a listener. A socket file that nobody listens on is replaced.
    pub async fn open(address: &Endpoint) -> io::Result<Listener> {
        match address {
            Endpoint::Tcp(address) => Ok(Listener::Tcp(TcpListener::bind(address).await?)),
            Endpoint::Unix(path) => open_unix(path).await.map(Listener::Unix),
        }
    }

    /// Serves until the runtime ends.
    pub async fn serve(self, router: Router) -> io::Result<()> {
        self.serve_within(Limits::default(), router).await
    }

    /// Serves until `end`, and then until the requests under way are answered.
    pub async fn serve_until(
        self,
        router: Router,
        end: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut connections = Connections::new(Limits::default(), router);
        tokio::select! {
            result = self.accept(&mut connections) => return result,
            () = end => {}
        }
        drop(self);
        connections.finish().await;
        Ok(())
    }

    /// As [`Listener::serve`], with other limits.
    pub async fn serve_within(self, limits: Limits, router: Router) -> io::Result<()> {
        self.accept(&mut Connections::new(limits, router)).await
    }

    async fn accept(&self, connections: &mut Connections) -> io::Result<()> {
        loop {
            let accepted = match self {
                Listener::Tcp(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| connections.begin(stream))
                }
                Listener::Unix(listener) => {
                    let accepted = listener.accept().await;
                    accepted.map(|(stream, _)| connections.begin(stream))
                }
            };
            if let Err(error) = accepted {
                match error.kind() {
                    io::ErrorKind::InvalidInput => return Err(error),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                    _ => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
    }

    /// Takes the listener out of its runtime.
    pub fn detach(self) -> io::Result<DetachedListener> {
        Ok(match self {
            Listener::Tcp(listener) => DetachedListener::Tcp(listener.into_std()?),
            Listener::Unix(listener) => DetachedListener::Unix(listener.into_std()?),
        })
    }
}

/// An open listener that belongs to no runtime.
#[derive(Debug)]
pub enum DetachedListener {
    /// On TCP.
    Tcp(std::net::TcpListener),
    /// On a unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl DetachedListener {
    /// Gives the listener to the runtime of the caller.
    pub fn attach(self) -> io::Result<Listener> {
        Ok(match self {
            DetachedListener::Tcp(listener) => Listener::Tcp(TcpListener::from_std(listener)?),
            DetachedListener::Unix(listener) => Listener::Unix(UnixListener::from_std(listener)?),
        })
    }
}

/// The connections of one listener.
struct Connections {
    limits: Limits,
    router: Router,
    began: Instant,
    tasks: JoinSet<()>,
    open: Vec<(AbortHandle, Arc<Waiting>)>,
}

impl Connections {
    fn new(limits: Limits, router: Router) -> Connections {
        Connections {
            limits,
            router,
            began: Instant::now(),
            tasks: JoinSet::new(),
            open: Vec::new(),
        }
    }

    fn begin<S>(&mut self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        while self.tasks.try_join_next().is_some() {}
        self.open.retain(|(task, _)| !task.is_finished());
        if self.open.len() >= self.limits.connections_max && !self.close_one() {
            return;
        }
        let waiting = Arc::new(Waiting::new(self.began));
        let serving = serve(
            stream,
            self.limits,
            self.router.clone(),
            Arc::clone(&waiting),
        );
        self.open.push((self.tasks.spawn(serving), waiting));
    }

    /// Waits until every request under way is answered; who asks for nothing is not waited for.
    async fn finish(&mut self) {
        while !self.tasks.is_empty() {
            for (task, waiting) in &self.open {
                if waiting.time().is_some_and(|time| time >= ANSWER_TIME) {
                    task.abort();
                }
            }
            // Looked at again: an answered request leaves its connection open.
            let _ = tokio::time::timeout(FINISH_INTERVAL, self.tasks.join_next()).await;
        }
    }

    /// Closes the connection that has waited longest for its client. Returns false if none does.
    fn close_one(&mut self) -> bool {
        let since = |at: usize| self.open[at].1.since().map(|since| (since, at));
        let longest = (0..self.open.len()).filter_map(since).min();
        let Some((_, at)) = longest else { return false };
        self.open.swap_remove(at).0.abort();
        true
    }
}

/// Since when a connection waits for its client.
struct Waiting {
    began: Instant,
    /// In microseconds since `began`; [`BUSY`] while a request is answered.
    since: AtomicU64,
}

const BUSY: u64 = u64::MAX;

impl Waiting {
    fn new(began: Instant) -> Waiting {
        let waiting = Waiting {
            began,
            since: AtomicU64::new(BUSY),
        };
        waiting.waits();
        waiting
    }

    fn waits(&self) {
        let now = u64::try_from(self.began.elapsed().as_micros()).unwrap_or(BUSY - 1);
        self.since.store(now, Ordering::Relaxed);
    }

    fn is_busy(&self) {
        self.since.store(BUSY, Ordering::Relaxed);
    }

    /// For how long the connection has waited; `None` while a request is answered.
    fn time(&self) -> Option<Duration> {
        let since = Duration::from_micros(self.since()?);
        Some(self.began.elapsed().saturating_sub(since))
    }

    fn since(&self) -> Option<u64> {
        Some(self.since.load(Ordering::Relaxed)).filter(|since| *since != BUSY)
    }
}

/// Answers the requests of one connection.
async fn serve<S>(stream: S, limits: Limits, router: Router, waiting: Arc<Waiting>)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = service_fn(|request: Request<Incoming>| {
        let (router, waiting) = (router.clone(), Arc::clone(&waiting));
        async move {
            let request = match whole(request, limits).await {
                Ok(request) => request,
                Err(refusal) => return Ok(refusal),
            };
            waiting.is_busy();
            let router = TowerToHyperService::new(router);
            let answer = hyper::service::Service::call(&router, request).await;
            waiting.waits();
            answer
        }
    });
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(HEAD_BYTES_MAX);
    // However it ends, the connection is closed.
    let _ = builder
        .serve_connection(TokioIo::new(stream), service)
        .await;
}

/// The request with its body, which has to arrive in time.
async fn whole(request: Request<Incoming>, limits: Limits) -> Result<Request<Body>, Response> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, limits.body_bytes_max).collect();
    let body = match tokio::time::timeout(limits.body_time_max, body).await {
        Ok(Ok(body)) => Body::from(body.to_bytes()),
        Ok(Err(_)) => return Err(StatusCode::PAYLOAD_TOO_LARGE.into_response()),
        Err(_) => return Err(StatusCode::REQUEST_TIMEOUT.into_response()),
    };
    Ok(Request::from_parts(head, body))
}

/// Opens a unix socket that only its owner may use.
pub async fn open_unix(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    let is_socket = std::fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
    if is_socket && tokio::net::UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests;
