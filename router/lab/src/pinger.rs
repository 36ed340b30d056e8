//! ICMP echo between namespaces.

use std::io::{self, Read};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread;
use std::time::{Duration, Instant};

use rustix::fd::AsRawFd;
use rustix::io::Errno;
use rustix::net::sockopt::{self as options, Ipv4PathMtuDiscovery};
use socket2::{Domain, Protocol, Socket, Type};

use kernel::error::NetError;
use kernel::netns::Namespace;
use kernel::sys::sockopt;

/// Sends echo requests from one namespace.
#[derive(Debug)]
pub struct Pinger {
    socket: Socket,
    /// Tells our replies from those for other pingers of the namespace.
    id: u16,
    sequence: u16,
}

/// A request as it stands on the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PingOptions {
    /// Bytes behind the ICMP header, at most [`PAYLOAD_BYTES_MAX`]. The packet has 28 more.
    pub payload_bytes: usize,
    /// Whether the packet may not be cut on its way. One that does not fit then gets no reply.
    pub dont_fragment: bool,
}

impl Default for PingOptions {
    fn default() -> PingOptions {
        PingOptions {
            payload_bytes: 56,
            dont_fragment: false,
        }
    }
}

impl Pinger {
    /// Creates a pinger in this namespace. It may be used from any thread.
    pub fn new(namespace: &Namespace) -> Result<Pinger, NetError> {
        let open = || {
            let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::ICMPV4))?;
            sockopt::set(&socket, SOL_RAW, ICMP_FILTER, !(1 << ECHO_REPLY))?;
            Ok(socket)
        };
        let socket = namespace
            .run(open)?
            .map_err(|e| NetError::io("open an ICMP socket", &e))?;
        Ok(Pinger {
            id: (std::process::id() as u16).rotate_left(8) ^ socket.as_raw_fd() as u16,
            socket,
            sequence: 0,
        })
    }

    /// Sends one request and waits for its reply: the round trip, or `None` if there was no reply
    /// in time.
    pub fn ping(
        &mut self,
        to: Ipv4Addr,
        ping: PingOptions,
        timeout: Duration,
    ) -> Result<Option<Duration>, NetError> {
        let failed = |e: &io::Error| NetError::io(format!("ping {to}"), e);
        let discovery = if ping.dont_fragment {
            Ipv4PathMtuDiscovery::DO
        } else {
            Ipv4PathMtuDiscovery::DONT
        };
        options::set_ip_mtu_discover(&self.socket, discovery).map_err(|e| failed(&e.into()))?;
        self.sequence = self.sequence.wrapping_add(1);
        let size = ping.payload_bytes.min(PAYLOAD_BYTES_MAX);
        let request = echo_request(self.id, self.sequence, size);
        let start = Instant::now();
        match self
            .socket
            .send_to(&request, &SocketAddrV4::new(to, 0).into())
        {
            Ok(_) => self.wait(to, start, timeout).map_err(|e| failed(&e)),
            // No route yet, or a neighbour that does not answer, or larger than the path: no
            // reply. A caller that tries again must not spin.
            Err(e) if Errno::from_io_error(&e).is_some_and(|e| UNREACHABLE.contains(&e)) => {
                thread::sleep(timeout.min(UNREACHABLE_PAUSE));
                Ok(None)
            }
            Err(e) => Err(failed(&e)),
        }
    }

    /// Sends requests, each for at most `interval`, until one is answered: its round trip, or
    /// `None` if none was by the deadline.
    pub fn wait_for(
        &mut self,
        to: Ipv4Addr,
        interval: Duration,
        deadline: Instant,
    ) -> Result<Option<Duration>, NetError> {
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            let round_trip = self.ping(to, PingOptions::default(), interval.min(left))?;
            if round_trip.is_some() {
                return Ok(round_trip);
            }
        }
    }

    fn wait(
        &self,
        from: Ipv4Addr,
        start: Instant,
        timeout: Duration,
    ) -> io::Result<Option<Duration>> {
        let mut buffer = [0; RECEIVE_BYTES];
        loop {
            let left = timeout.saturating_sub(start.elapsed());
            if left.is_zero() {
                return Ok(None);
            }
            // A time-out of zero would mean to wait forever.
            let left = left.max(Duration::from_micros(1));
            self.socket.set_read_timeout(Some(left))?;
            match (&self.socket).read(&mut buffer) {
                Ok(length) if self.is_reply(&buffer[..length], from) => {
                    return Ok(Some(start.elapsed()));
                }
                Ok(_) => {}
                Err(e) if PASSING.contains(&e.kind()) => {}
                Err(e) => return Err(e),
            }
        }
    }

    /// Returns true if a packet, IP header first, is the reply to the last request.
    fn is_reply(&self, packet: &[u8], from: Ipv4Addr) -> bool {
        let header = packet
            .first()
            .map_or(0, |first| usize::from(first & 15) * 4);
        let [a, b] = self.id.to_be_bytes();
        let [c, d] = self.sequence.to_be_bytes();
        let source = packet.get(12..16);
        let icmp = packet.get(header..).unwrap_or_default();
        source == Some(&from.octets())
            && icmp.first() == Some(&ECHO_REPLY)
            && icmp.get(4..8) == Some(&[a, b, c, d])
    }
}

/// Type 8, code 0, checksum, id, sequence number, payload (RFC 792).
fn echo_request(id: u16, sequence: u16, payload_bytes: usize) -> Vec<u8> {
    let mut packet = vec![0x5a; 8 + payload_bytes];
    packet[..4].copy_from_slice(&[8, 0, 0, 0]);
    packet[4..6].copy_from_slice(&id.to_be_bytes());
    packet[6..8].copy_from_slice(&sequence.to_be_bytes());
    let checksum = checksum(&packet);
    packet[2..4].copy_from_slice(&checksum.to_be_bytes());
    packet
}

/// Returns the Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2);
    let mut sum: u32 = words
        .map(|pair| u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0)))
        .sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Size in bytes of the largest payload: that of the largest IPv4 packet. More is cut.
pub const PAYLOAD_BYTES_MAX: usize = 65535 - 20 - 8;
/// The id and the sequence number stand behind the longest IP header; the rest is not looked at.
const RECEIVE_BYTES: usize = 128;
/// Maximum time for a request that could not be sent.
const UNREACHABLE_PAUSE: Duration = Duration::from_millis(10);
const UNREACHABLE: [Errno; 4] = [
    Errno::HOSTUNREACH,
    Errno::NETUNREACH,
    Errno::MSGSIZE,
    Errno::NETDOWN,
];
const PASSING: [io::ErrorKind; 3] = [
    io::ErrorKind::WouldBlock,
    io::ErrorKind::TimedOut,
    io::ErrorKind::Interrupted,
];
const SOL_RAW: i32 = 255;
const ICMP_FILTER: i32 = 1;
const ECHO_REPLY: u8 = 0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_valid() {
        for size in [0, 1, 56, PAYLOAD_BYTES_MAX] {
            let request = echo_request(0xabcd, 7, size);
            assert_eq!(checksum(&request), 0);
            let parsed = etherparse::Icmpv4Slice::from_slice(&request).unwrap();
            let header = etherparse::IcmpEchoHeader { id: 0xabcd, seq: 7 };
            assert_eq!(
                parsed.icmp_type(),
                etherparse::Icmpv4Type::EchoRequest(header)
            );
            assert_eq!(parsed.payload().len(), size);
        }
    }
}
