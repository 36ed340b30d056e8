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
    /// Maximum time for the head of a request, also for the next one of the same connection; then
    /// the connection is closed.
    pub head_time_max: Duration,
    /// Maximum time for the body of a request; then it is refused.
    pub body_time_max: Duration,
    /// Maximum size of a body in bytes; a longer one is refused.
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

/// Maximum size of a head in bytes; a longer one is refused. No more is kept of a head that has not
/// ended.
const HEAD_BYTES_MAX: usize = 32 << 10;
/// Time to wait after a failure to accept, which is for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

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

    /// Takes the listener out of its runtime.
    pub fn detach(self) -> io::Result<DetachedListener> {
        Ok(match self {
            Listener::Tcp(listener) => DetachedListener::Tcp(listener.into_std()?),
            Listener::Unix(listener) => DetachedListener::Unix(listener.into_std()?),
        })
    }

    /// Serves until `end`, and then until the requests under way are answered.
    pub async fn serve(self, router: Router, end: impl Future<Output = ()>) -> io::Result<()> {
        self.serve_within(Limits::default(), router, end).await
    }

    /// As [`Listener::serve`], with other limits.
    pub async fn serve_within(
        self,
        limits: Limits,
        router: Router,
        end: impl Future<Output = ()>,
    ) -> io::Result<()> {
        let mut connections = Connections::new(limits, router);
        tokio::pin!(end);
        loop {
            let accepted = tokio::select! {
                accepted = self.accept(&mut connections) => accepted,
                () = &mut end => break,
            };
            if let Err(error) = accepted {
                match error.kind() {
                    io::ErrorKind::InvalidInput => return Err(error),
                    io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset => {}
                    _ => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
        drop(self);
        connections.finish().await;
        Ok(())
    }

    async fn accept(&self, connections: &mut Connections) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, _) = listener.accept().await?;
                connections.begin(stream);
            }
            Listener::Unix(listener) => {
                let (stream, _) = listener.accept().await?;
                connections.begin(stream);
            }
        }
        Ok(())
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

    /// Waits until the requests under way are answered; closes connections without one.
    async fn finish(mut self) {
        for (task, waiting) in &self.open {
            if waiting.since().is_some() {
                task.abort();
            }
        }
        let late = tokio::time::timeout(FINISH_TIME_MAX, async {
            while self.tasks.join_next().await.is_some() {}
        });
        // What is not answered by then is cut off when the tasks are dropped.
        let _ = late.await;
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

/// Maximum time for requests under way once the listener is to end.
const FINISH_TIME_MAX: Duration = Duration::from_secs(2);
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

/// Returns the request with its body, which has to arrive in time.
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
