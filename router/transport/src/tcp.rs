//! The TCP connections of the mesh: a listener, dialling, and a pair of tasks for each connection
//! that move bytes between its socket and control.
//!
//! Back-pressure goes both ways: a reader waits while control has not taken what it read, and
//! control is told when bytes that it gave to a writer have left.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use boundary::connections::{ConnectionEvent, Connections, StreamId};
use proto::types::ConnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::address;

/// Events that wait for control; a task with one more waits.
const EVENTS_MAX: usize = 256;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Connections accepted without delay before [`ACCEPT_INTERVAL`] applies.
const ACCEPT_BURST: u32 = 100;
/// Interval between accepted connections, after a burst. An honest peer waits behind all that came
/// before it, so hundreds of silent ones must pass within a second; the node closes them again.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(2);
/// Before the next attempt to accept after one that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// Maximum time for dialling.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);
/// Maximum time for the last bytes of a closed connection to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted; the kernel refuses further ones.
const BACKLOG: u32 = 1024;

/// Names that are resolved at the same time; further ones wait.
const RESOLVES_MAX: usize = 16;

/// Receiver of events.
type Events = mpsc::Sender<ConnectionEvent>;

/// The connections of this router.
#[derive(Debug)]
pub struct Transport {
    pumps: BTreeMap<ConnId, Pump>,
    streams: Arc<Streams>,
    events: Events,
    dial_from: IpAddr,
    resolves: Arc<Semaphore>,
}

/// Streams that control was told of and has not named yet. There are no more of them than events
/// that wait for control.
#[derive(Debug, Default)]
struct Streams(Mutex<(u64, BTreeMap<StreamId, TcpStream>)>);

impl Streams {
    fn put(&self, stream: TcpStream) -> StreamId {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (last, open) = &mut *streams;
        *last += 1;
        open.insert(StreamId(*last), stream);
        StreamId(*last)
    }

    fn take(&self, id: StreamId) -> Option<TcpStream> {
        let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        streams.1.remove(&id)
    }
}

impl Transport {
    /// Accepts connections from `listener`, and dials from `dial_from`. To be called within a
    /// tokio runtime, as all methods are.
    pub fn start(
        listener: TcpListener,
        dial_from: IpAddr,
    ) -> (Transport, mpsc::Receiver<ConnectionEvent>) {
        let (events, inbox) = mpsc::channel(EVENTS_MAX);
        let streams = Arc::<Streams>::default();
        tokio::spawn(accept(listener, events.clone(), Arc::clone(&streams)));
        let transport = Transport {
            pumps: BTreeMap::new(),
            streams,
            events,
            dial_from,
            resolves: Arc::new(Semaphore::new(RESOLVES_MAX)),
        };
        (transport, inbox)
    }
}

impl Connections for Transport {
    fn dial(&mut self, conn: ConnId, to: SocketAddr) {
        let (from, events) = (self.dial_from, self.events.clone());
        let streams = Arc::clone(&self.streams);
        tokio::spawn(async move {
            let event = match tokio::time::timeout(DIAL_TIME_MAX, connect(to, from)).await {
                Ok(Ok(stream)) => ConnectionEvent::Dialled(conn, streams.put(stream), to),
                Ok(Err(error)) => {
                    ConnectionEvent::DialFailed(conn, format!("dial tcp4 {to}: {error}"))
                }
                Err(_) => ConnectionEvent::DialFailed(conn, format!("dial tcp4 {to}: i/o timeout")),
            };
            // Without control nobody needs to know.
            let _ = events.send(event).await;
        });
    }

    fn start(&mut self, stream: StreamId, conn: ConnId) {
        if let Some(stream) = self.streams.take(stream) {
            let pump = Pump::start(conn, stream, &self.events);
            self.pumps.insert(conn, pump);
        }
    }

    fn refuse(&mut self, stream: StreamId) {
        drop(self.streams.take(stream));
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        if let Some(pump) = self.pumps.get(&conn) {
            pump.send(bytes);
        }
    }

    fn close(&mut self, conn: ConnId) {
        drop(self.pumps.remove(&conn));
    }

    fn resolve(&mut self, peer: String) {
        let (events, resolves) = (self.events.clone(), Arc::clone(&self.resolves));
        tokio::spawn(async move {
            // The semaphore is never closed.
            let _turn = resolves.acquire().await;
            let result = address::resolve(&peer).await;
            // Without control nobody needs to know.
            let _ = events.send(ConnectionEvent::Resolved(peer, result)).await;
        });
    }
}

/// Opens the listening socket.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = new_socket(address.ip())?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

fn new_socket(ip: IpAddr) -> io::Result<TcpSocket> {
    if ip.is_ipv4() {
        TcpSocket::new_v4()
    } else {
        TcpSocket::new_v6()
    }
}

/// Accepts connections forever, at a bounded rate.
async fn accept(listener: TcpListener, events: Events, streams: Arc<Streams>) {
    let (mut credit, mut refilled) = (ACCEPT_BURST, Instant::now());
    loop {
        let earned = refilled.elapsed().as_millis() / ACCEPT_INTERVAL.as_millis();
        let earned = u32::try_from(earned).unwrap_or(ACCEPT_BURST);
        if earned > 0 {
            credit = credit.saturating_add(earned).min(ACCEPT_BURST);
            refilled = Instant::now();
        }
        if credit == 0 {
            tokio::time::sleep(ACCEPT_INTERVAL).await;
            continue;
        }
        match listener.accept().await {
            Ok((stream, remote)) => {
                credit -= 1;
                // Room first, so that no more streams than events wait.
                let Ok(room) = events.reserve().await else {
                    return;
                };
                room.send(ConnectionEvent::Accepted(streams.put(stream), remote));
            }
            Err(error) => {
                // Out of file descriptors, or the connection is gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn connect(to: SocketAddr, from: IpAddr) -> io::Result<TcpStream> {
    let socket = new_socket(to.ip())?;
    if !from.is_unspecified() {
        socket.bind(SocketAddr::new(from, 0))?;
    }
    socket.connect(to).await
}

/// The tasks of one connection. Dropping it ends them: nothing more is read, and what was handed
/// to the writer has a last chance to leave.
#[derive(Debug)]
struct Pump {
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    reader: AbortHandle,
    /// Tells the writer that this is over.
    _closing: oneshot::Sender<()>,
}

impl Pump {
    /// Starts moving bytes.
    fn start(conn: ConnId, stream: TcpStream, events: &Events) -> Pump {
        // Messages are small and latency counts; a socket that refuses works all the same.
        let _ = stream.set_nodelay(true);
        let (reader, writer) = stream.into_split();
        let (outbox, inbox) = mpsc::unbounded_channel();
        let (closing, closed) = oneshot::channel();
        let reader = tokio::spawn(read(conn, reader, events.clone())).abort_handle();
        let writer = write(conn, writer, inbox, events.clone());
        tokio::spawn(async move {
            let last_chance = async {
                // Only ever ends by the other half being dropped.
                let _ = closed.await;
                tokio::time::sleep(CLOSE_TIME_MAX).await;
            };
            tokio::select! {
                () = writer => {}
                () = last_chance => {}
            }
        });
        Pump {
            outbox,
            reader,
            _closing: closing,
        }
    }

    /// Sends bytes. Control bounds how many are under way.
    fn send(&self, bytes: Vec<u8>) {
        // A writer that has ended has told control.
        let _ = self.outbox.send(bytes);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(conn: ConnId, mut socket: OwnedReadHalf, events: Events) {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let event = match socket.read_buf(&mut buffer).await {
            Ok(0) => ConnectionEvent::Closed(conn, None),
            Ok(_) => ConnectionEvent::Received(conn, buffer.split().freeze()),
            Err(error) => ConnectionEvent::Closed(conn, Some(error.to_string())),
        };
        let ended = matches!(event, ConnectionEvent::Closed(..));
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

async fn write(
    conn: ConnId,
    mut socket: OwnedWriteHalf,
    mut inbox: mpsc::UnboundedReceiver<Vec<u8>>,
    events: Events,
) {
    while let Some(bytes) = inbox.recv().await {
        let event = match socket.write_all(&bytes).await {
            Ok(()) => ConnectionEvent::Sent(conn, bytes.len()),
            Err(error) => ConnectionEvent::Closed(conn, Some(error.to_string())),
        };
        let ended = matches!(event, ConnectionEvent::Closed(..));
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}
