//! Queries over TCP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use proto::names::answer::{Reply, Transport};
use proto::names::message::Rcode;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::forward::{read_message, write_message};
use crate::shared::Shared;

/// Maximum time for which a client may leave a connection idle, or an answer unread.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// Time to wait after a failure to accept, which is for want of memory or descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) async fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Serves until aborted.
pub(super) async fn serve(shared: Arc<Shared>, listener: TcpListener) -> io::Error {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let (stream, client) = match accepted {
            Ok(accepted) => accepted,
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => return error,
            Err(_) => {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        match shared.connections.admit(client.ip()) {
            Some(slot) => {
                let shared = shared.clone();
                connections.spawn(async move {
                    // However it ends, the connection is closed.
                    let _ = converse(&shared, stream, client).await;
                    drop(slot);
                });
            }
            None => shared.metrics.connections_rejected.inc(),
        }
    }
}

/// Answers one query after the other until the client is done.
async fn converse(shared: &Shared, mut stream: TcpStream, client: SocketAddr) -> io::Result<()> {
    let local = stream.local_addr().ok().map(|address| address.ip());
    let mut responder = shared.responder();
    let mut response = Vec::new();
    loop {
        let packet = timeout(IDLE_MAX, read_message(&mut stream)).await??;
        shared.metrics.queries_tcp.inc();
        if !shared.answers(client.ip(), local) {
            if shared.refuse(&packet, &mut response) {
                timeout(IDLE_MAX, write_message(&mut stream, &response)).await??;
            }
            return Ok(());
        }
        let reply = {
            let index = shared.names.load();
            responder.respond(&index, &packet, Transport::Tcp, &mut response)
        };
        match reply {
            Reply::Answered(rcode) => shared.count(rcode),
            Reply::Ignored => {
                shared.metrics.ignored.inc();
                return Ok(());
            }
            Reply::Forward(query) => match shared.forwards.admit(client.ip()) {
                Some(_slot) => {
                    shared.metrics.forwarded.inc();
                    let resolving = shared.forwarder.resolve(&packet, Transport::Tcp);
                    response = resolving.await;
                }
                None => {
                    shared.metrics.forward_rejected.inc();
                    query.failure(Rcode::ServFail, &mut response);
                }
            },
        }
        timeout(IDLE_MAX, write_message(&mut stream, &response)).await??;
    }
}
