//! Queries over UDP, taken and answered in batches.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use proto::names::answer::{Reply, Responder, Transport};
use proto::names::message::Rcode;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::task::JoinSet;

use super::limit::Slot;
use crate::shared::Shared;
use kernel::sys::pktinfo::{Inbox, Outbox, Path, set_local_address_told};

/// Maximum number of packets taken from the socket at once.
const BATCH: usize = 32;
/// Maximum number of bytes of a query; longer packets are ignored. Queries have about 50.
const QUERY_BYTES_MAX: usize = 4096;
/// Size of the socket's receive buffer in bytes.
const SOCKET_BUFFER_BYTES: usize = 1 << 20;

/// Opens the socket. It shares its port with nobody, so a taken one is an error.
pub(super) fn bind(addr: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(addr), Type::DGRAM, Some(Protocol::UDP))?;
    socket.set_nonblocking(true)?;
    // The kernel grants what it is configured to; less only means less patience with bursts.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    if addr.ip().is_unspecified() {
        set_local_address_told(&socket, addr.is_ipv6())?;
    }
    socket.bind(&addr.into())?;
    UdpSocket::from_std(socket.into())
}

/// Serves until the socket fails.
pub(super) async fn serve(shared: Arc<Shared>, socket: UdpSocket) -> io::Error {
    let mut server = Server {
        responder: shared.responder(),
        shared,
        socket: Arc::new(socket),
        inbox: Inbox::new(BATCH, QUERY_BYTES_MAX),
        outbox: Outbox::new(BATCH),
        response: Vec::new(),
        forwards: JoinSet::new(),
    };
    loop {
        tokio::select! {
            biased;
            Some(_) = server.forwards.join_next() => continue,
            ready = server.socket.readable() => if let Err(error) = ready {
                return error;
            },
        }
        match server.receive() {
            Ok(count) => server.answer(count),
            Err(error) if is_transient(&error) => continue,
            Err(error) => return error,
        }
        flush(&server.shared, &server.socket, &mut server.outbox).await;
    }
}

struct Server {
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    responder: Responder,
    inbox: Inbox,
    outbox: Outbox,
    response: Vec<u8>,
    forwards: JoinSet<()>,
}

impl Server {
    fn receive(&mut self) -> io::Result<usize> {
        let inbox = &mut self.inbox;
        let receive = || inbox.receive(&self.socket);
        self.socket.try_io(Interest::READABLE, receive)
    }

    /// Puts the responses to the packets received into the outbox, and starts tasks for what
    /// others are to be asked.
    fn answer(&mut self, count: usize) {
        self.outbox.clear();
        let shared = &self.shared;
        let unreadable = count - self.inbox.datagrams().count();
        shared.metrics.queries_udp.add(count as u64);
        shared.metrics.ignored.add(unreadable as u64);
        let index = shared.names.load();
        for (path, packet) in self.inbox.datagrams() {
            let response = &mut self.response;
            if !shared.answers(path.remote.ip(), path.local) {
                if shared.refuse(packet, response) {
                    let pushed = self.outbox.push(path, response);
                    debug_assert!(pushed, "there are as many places as packets");
                }
                continue;
            }
            let reply = self
                .responder
                .respond(&index, packet, Transport::Udp, response);
            match reply {
                Reply::Answered(rcode) => shared.count(rcode),
                Reply::Ignored => {
                    shared.metrics.ignored.inc();
                    continue;
                }
                Reply::Forward(query) => match shared.forwards.admit(path.remote.ip()) {
                    Some(slot) => {
                        let (shared, socket) = (shared.clone(), self.socket.clone());
                        let packet = packet.to_vec();
                        self.forwards
                            .spawn(forward(shared, socket, path, packet, slot));
                        continue;
                    }
                    None => {
                        shared.metrics.forward_rejected.inc();
                        query.failure(Rcode::ServFail, response);
                    }
                },
            }
            let pushed = self.outbox.push(path, response);
            debug_assert!(pushed, "there are as many places as packets");
        }
    }
}

async fn forward(
    shared: Arc<Shared>,
    socket: Arc<UdpSocket>,
    path: Path,
    packet: Vec<u8>,
    slot: Slot,
) {
    shared.metrics.forwarded.inc();
    let response = shared.forwarder.resolve(&packet, Transport::Udp).await;
    drop(slot);
    let mut outbox = Outbox::new(1);
    outbox.push(path, &response);
    flush(&shared, &socket, &mut outbox).await;
}

/// Sends all datagrams; those that the kernel refuses are counted and left out.
async fn flush(shared: &Shared, socket: &UdpSocket, outbox: &mut Outbox) {
    let mut sent = 0;
    while sent < outbox.len() {
        match socket.try_io(Interest::WRITABLE, || outbox.send(socket, sent)) {
            Ok(count) => sent += count.max(1),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if socket.writable().await.is_err() {
                    return;
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => {
                shared.metrics.send_failed.inc();
                sent += 1;
            }
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted | io::ErrorKind::ConnectionRefused
    )
}
