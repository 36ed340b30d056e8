//! The TCP connections of the mesh: a listener, dialling, and a pair of tasks for each connection
//! that move bytes between its socket and control.
//!
//! Back-pressure goes both ways: a reader waits while control has not taken what it read, and
//! control is told when bytes that it gave to a writer have left.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use proto::types::ConnId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// Events that wait for control; a task with one more waits.
pub const EVENTS_MAX: usize = 256;
/// Bytes read from a socket at once.
const READ_BYTES: usize = 64 * 1024;
/// Connections accepted without delay before [`ACCEPT_INTERVAL`] applies.
const ACCEPT_BURST: u32 = 100;
/// Between accepted connections, after a burst. An honest peer waits behind all that came before
/// it, so hundreds of silent ones must pass within a second; the node closes them again.
const ACCEPT_INTERVAL: Duration = Duration::from_millis(2);
/// Before the next attempt to accept after one that failed.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);
/// How long dialling may take.
const DIAL_TIME_MAX: Duration = Duration::from_secs(10);
/// How long the last bytes of a closed connection may take to leave.
const CLOSE_TIME_MAX: Duration = Duration::from_secs(2);
/// Connections that wait to be accepted; the kernel refuses further ones.
const BACKLOG: u32 = 1024;

/// What happened on the sockets.
#[derive(Debug)]
pub enum TcpEvent {
    /// Somebody connected.
    Accepted(TcpStream, SocketAddr),
    /// Dialling succeeded.
    Dialled(ConnId, TcpStream, SocketAddr),
    /// Dialling failed.
    DialFailed(ConnId, String),
    /// Bytes arrived.
    Received(ConnId, Bytes),
    /// This many bytes left.
    Sent(ConnId, usize),
    /// The other end closed (no error), or the connection broke.
    Closed(ConnId, Option<String>),
}

/// Where events go.
pub type TcpEvents = mpsc::Sender<TcpEvent>;

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

/// Accepts connections for ever, at a bounded rate.
pub async fn accept(listener: TcpListener, events: TcpEvents) {
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
                if events
                    .send(TcpEvent::Accepted(stream, remote))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            Err(error) => {
                // Out of file descriptors, or the connection is gone already.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// Dials in the background.
pub fn dial(conn: ConnId, to: SocketAddr, from: IpAddr, events: TcpEvents) {
    tokio::spawn(async move {
        let event = match tokio::time::timeout(DIAL_TIME_MAX, connect(to, from)).await {
            Ok(Ok(stream)) => TcpEvent::Dialled(conn, stream, to),
            Ok(Err(error)) => TcpEvent::DialFailed(conn, format!("dial tcp4 {to}: {error}")),
            Err(_) => TcpEvent::DialFailed(conn, format!("dial tcp4 {to}: i/o timeout")),
        };
        // Without control nobody needs to know.
        let _ = events.send(event).await;
    });
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
pub struct Pump {
    outbox: mpsc::UnboundedSender<Vec<u8>>,
    reader: AbortHandle,
    /// Tells the writer that this is over.
    _closing: oneshot::Sender<()>,
}

impl Pump {
    /// Starts moving bytes.
    pub fn start(conn: ConnId, stream: TcpStream, events: &TcpEvents) -> Pump {
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
    pub fn send(&self, bytes: Vec<u8>) {
        // A writer that has ended has told control.
        let _ = self.outbox.send(bytes);
    }
}

impl Drop for Pump {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn read(conn: ConnId, mut socket: OwnedReadHalf, events: TcpEvents) {
    let mut buffer = bytes::BytesMut::new();
    loop {
        buffer.reserve(READ_BYTES);
        let event = match socket.read_buf(&mut buffer).await {
            Ok(0) => TcpEvent::Closed(conn, None),
            Ok(_) => TcpEvent::Received(conn, buffer.split().freeze()),
            Err(error) => TcpEvent::Closed(conn, Some(error.to_string())),
        };
        let ended = matches!(event, TcpEvent::Closed(..));
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}

async fn write(
    conn: ConnId,
    mut socket: OwnedWriteHalf,
    mut inbox: mpsc::UnboundedReceiver<Vec<u8>>,
    events: TcpEvents,
) {
    while let Some(bytes) = inbox.recv().await {
        let event = match socket.write_all(&bytes).await {
            Ok(()) => TcpEvent::Sent(conn, bytes.len()),
            Err(error) => TcpEvent::Closed(conn, Some(error.to_string())),
        };
        let ended = matches!(event, TcpEvent::Closed(..));
        if events.send(event).await.is_err() || ended {
            return;
        }
    }
}
