//! Forwarding of queries to the host's servers on behalf of a client.
//!
//! Each query leaves from a socket of its own, so that its port is a random one of the kernel's,
//! under a random id; the socket takes packets from the server asked only, and of those only
//! responses with this id to this question. Servers are asked one after the other.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use proto::names::answer::Transport;
use proto::names::message::{self, Query, Rcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant as Deadline, timeout_at};
use tracing::{debug, trace};

use super::metrics::DnsMetrics;
use super::resolv::{Resolv, Upstream};

/// After this time without an answer over UDP, and again after twice of it, the query is
/// repeated.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of packets from a server that are no answer; after them the server counts as
/// failed.
const MISMATCHES_MAX: u32 = 100;
/// Smallest buffer for a response over UDP: some servers send more than they were asked for.
const UDP_BUFFER_MIN: usize = 4096;

/// Forwards queries.
#[derive(Debug)]
pub(super) struct Forwarder {
    pub(super) resolv: Resolv,
    /// Maximum time for each server.
    pub(super) timeout: Duration,
    pub(super) metrics: Arc<DnsMetrics>,
}

impl Forwarder {
    /// Returns the response to a query, cut to what the client can take; SERVFAIL if no server has
    /// one.
    pub(super) async fn resolve(&self, packet: &[u8], transport: Transport) -> Vec<u8> {
        let mut out = Vec::new();
        let query = match Query::parse(packet) {
            Ok(query) => query,
            Err(error) => {
                message::reject(packet, error, &mut out);
                return out;
            }
        };
        match self.ask_all(&query, transport).await {
            Some(response) => {
                out = response;
                message::set_id(&mut out, query.id());
                message::cut_response(&mut out, transport.limit(&query));
            }
            None => {
                self.metrics.forward_failed.inc();
                query.failure(Rcode::ServFail, &mut out);
            }
        }
        out
    }

    /// Asks one server after the other. A server that says it cannot or will not answer is
    /// believed only if no other knows better.
    async fn ask_all(&self, query: &Query<'_>, transport: Transport) -> Option<Vec<u8>> {
        let mut unwilling = None;
        for upstream in self.resolv.preferred(Instant::now()) {
            match self.ask(&upstream, query, transport).await {
                Ok(response) => {
                    upstream.note_success();
                    if !is_unwilling(&response) {
                        return Some(response);
                    }
                    unwilling.get_or_insert(response);
                }
                Err(error) => {
                    debug!(upstream = %upstream.addr, %error, "resolver did not answer");
                    self.metrics.upstream_failed.inc();
                    upstream.note_failure(Instant::now());
                }
            }
        }
        unwilling
    }

    /// Asks one server the way the client asked us; over TCP also if the answer is truncated.
    async fn ask(
        &self,
        upstream: &Upstream,
        query: &Query<'_>,
        transport: Transport,
    ) -> io::Result<Vec<u8>> {
        let deadline = Deadline::now() + self.timeout;
        // A server that is silent over TCP may still answer over UDP.
        let half = Deadline::now() + self.timeout / 2;
        if transport == Transport::Tcp
            && let Ok(response) = self.ask_tcp(upstream.addr, query, half).await
        {
            return Ok(response);
        }
        let response = self.ask_udp(upstream.addr, query, deadline).await?;
        if transport == Transport::Tcp || !message::is_truncated(&response) {
            return Ok(response);
        }
        self.metrics.upstream_tcp.inc();
        let whole = self.ask_tcp(upstream.addr, query, deadline).await;
        Ok(whole.unwrap_or(response))
    }

    async fn ask_udp(
        &self,
        addr: SocketAddr,
        query: &Query<'_>,
        deadline: Deadline,
    ) -> io::Result<Vec<u8>> {
        let any = match addr {
            SocketAddr::V4(_) => SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0),
            SocketAddr::V6(_) => SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), 0),
        };
        let socket = UdpSocket::bind(any).await?;
        socket.connect(addr).await?;
        let (id, packet) = with_random_id(query)?;
        let mut buffer = vec![0; query.udp_limit().max(UDP_BUFFER_MIN)];
        let mut mismatches = 0;
        let mut patience = REPEAT_AFTER;
        loop {
            socket.send(&packet).await?;
            let repeat = (Deadline::now() + patience).min(deadline);
            patience *= 2;
            while let Ok(received) = timeout_at(repeat, socket.recv(&mut buffer)).await {
                let response = &buffer[..received?];
                if query.is_answered_by(id, response) {
                    return Ok(response.to_vec());
                }
                trace!(upstream = %addr, "packet is no answer to the question");
                self.metrics.upstream_mismatched.inc();
                mismatches += 1;
                if mismatches >= MISMATCHES_MAX {
                    return Err(io::Error::other("many packets, but no answer"));
                }
            }
            if repeat >= deadline {
                return Err(io::ErrorKind::TimedOut.into());
            }
        }
    }

    async fn ask_tcp(
        &self,
        addr: SocketAddr,
        query: &Query<'_>,
        deadline: Deadline,
    ) -> io::Result<Vec<u8>> {
        let exchange = async {
            let mut stream = TcpStream::connect(addr).await?;
            let (id, packet) = with_random_id(query)?;
            write_message(&mut stream, &packet).await?;
            let response = read_message(&mut stream).await?;
            if query.is_answered_by(id, &response) {
                return Ok(response);
            }
            self.metrics.upstream_mismatched.inc();
            Err(io::Error::other("the answer is to another question"))
        };
        let late = |_| Err(io::ErrorKind::TimedOut.into());
        timeout_at(deadline, exchange).await.unwrap_or_else(late)
    }
}

/// Returns true if a response says that the server cannot or will not answer.
fn is_unwilling(response: &[u8]) -> bool {
    let rcode = message::rcode_of(response);
    [Rcode::ServFail, Rcode::NotImp, Rcode::Refused]
        .iter()
        .any(|unwilling| *unwilling as u8 == rcode)
}

/// Creates the query under an id that nobody can guess.
fn with_random_id(query: &Query<'_>) -> io::Result<(u16, Vec<u8>)> {
    let mut random = [0; 2];
    getrandom::fill(&mut random).map_err(io::Error::other)?;
    let id = u16::from_ne_bytes(random);
    let mut packet = query.packet().to_vec();
    message::set_id(&mut packet, id);
    Ok((id, packet))
}

/// Writes a message with its length before it (RFC 1035 section 4.2.2).
pub(super) async fn write_message(stream: &mut TcpStream, message: &[u8]) -> io::Result<()> {
    let len = u16::try_from(message.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let mut framed = Vec::with_capacity(2 + message.len());
    framed.extend_from_slice(&len.to_be_bytes());
    framed.extend_from_slice(message);
    stream.write_all(&framed).await
}

/// Reads a message with its length before it. Memory grows with what arrives.
pub(super) async fn read_message(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let len = stream.read_u16().await?;
    let mut message = Vec::new();
    stream
        .take(u64::from(len))
        .read_to_end(&mut message)
        .await?;
    if message.len() < usize::from(len) {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    Ok(message)
}
