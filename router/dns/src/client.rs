//! A client that asks one server one question, for commands and tests.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use proto::names::message::{self, HEADER_BYTES, Query, class, rtype};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::{Instant, timeout_at};

use super::forward::{read_message, write_message};

/// Maximum time to wait for an answer over UDP before the question is sent again.
const REPEAT_AFTER: Duration = Duration::from_secs(1);
/// Maximum number of bytes of an answer over UDP that is asked for.
const UDP_BYTES: u16 = 1232;
/// Maximum number of pointers that are followed in one name; a longer chain is an error.
const POINTERS_MAX: usize = 64;

/// Transport of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Over UDP with room for 1232 bytes, and over TCP if the answer is cut.
    Any,
    /// Over UDP alone, without EDNS.
    PlainUdp,
    /// Over TCP.
    Tcp,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The result: 0 is success, 3 says that there is no such name.
    pub rcode: u8,
    /// Whether the server is responsible for the name.
    pub authoritative: bool,
    /// Whether records were left out.
    pub truncated: bool,
    /// Its original size in bytes.
    pub bytes: usize,
    /// The addresses among its records, in their order.
    pub addresses: Vec<IpAddr>,
    /// The names for an address among its records.
    pub names: Vec<String>,
    /// The seconds for which the first record may be kept.
    pub ttl_secs: Option<u32>,
}

/// Asks `server` for the records of `name`, within a time.
pub async fn ask(
    server: SocketAddr,
    name: &str,
    qtype: u16,
    way: Way,
    time_max: Duration,
) -> io::Result<Reply> {
    let deadline = Instant::now() + time_max;
    let mut packet = question(name, qtype, way == Way::Any)?;
    let mut id = [0; 2];
    getrandom::fill(&mut id).map_err(io::Error::other)?;
    message::set_id(&mut packet, u16::from_be_bytes(id));
    let late = |_| io::Error::from(io::ErrorKind::TimedOut);
    if way != Way::Tcp {
        let response = ask_udp(server, &packet, deadline).await?;
        if way == Way::PlainUdp || !message::is_truncated(&response) {
            return read(&response);
        }
    }
    let exchange = async {
        let mut stream = TcpStream::connect(server).await?;
        write_message(&mut stream, &packet).await?;
        read_message(&mut stream).await
    };
    let response = timeout_at(deadline, exchange).await.map_err(late)??;
    if !is_answer(&packet, &response) {
        return Err(malformed());
    }
    read(&response)
}

/// Asks over UDP, again and again until the deadline.
async fn ask_udp(server: SocketAddr, packet: &[u8], deadline: Instant) -> io::Result<Vec<u8>> {
    let any: IpAddr = match server {
        SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(server).await?;
    let mut buffer = vec![0; message::UDP_BYTES_MAX];
    loop {
        socket.send(packet).await?;
        let repeat = (Instant::now() + REPEAT_AFTER).min(deadline);
        while let Ok(received) = timeout_at(repeat, socket.recv(&mut buffer)).await {
            let response = &buffer[..received?];
            if is_answer(packet, response) {
                return Ok(response.to_vec());
            }
        }
        if repeat >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
}

fn is_answer(packet: &[u8], response: &[u8]) -> bool {
    let query = Query::parse(packet);
    query.is_ok_and(|query| query.is_answered_by(query.id(), response))
}

fn question(name: &str, qtype: u16, edns: bool) -> io::Result<Vec<u8>> {
    let wrong = || io::Error::new(io::ErrorKind::InvalidInput, format!("{name:?} is no name"));
    let mut packet = vec![0, 0, 1, 0, 0, 1, 0, 0, 0, 0, 0, u8::from(edns)];
    for label in name.trim_end_matches('.').split('.') {
        let length = u8::try_from(label.len())
            .ok()
            .filter(|n| (1..=63).contains(n));
        packet.push(length.ok_or_else(wrong)?);
        packet.extend_from_slice(label.as_bytes());
    }
    packet.push(0);
    for number in [qtype, class::IN] {
        packet.extend_from_slice(&number.to_be_bytes());
    }
    if edns {
        packet.push(0);
        for number in [rtype::OPT, UDP_BYTES, 0, 0, 0] {
            packet.extend_from_slice(&number.to_be_bytes());
        }
    }
    Query::parse(&packet).map_err(|_| wrong())?;
    Ok(packet)
}

fn malformed() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the answer cannot be read")
}

fn read(response: &[u8]) -> io::Result<Reply> {
    let counts = |at: usize| u16_at(response, at).ok_or_else(malformed);
    let mut reply = Reply {
        rcode: message::rcode_of(response),
        authoritative: response.get(2).is_some_and(|flags| flags & 4 != 0),
        truncated: message::is_truncated(response),
        bytes: response.len(),
        addresses: Vec::new(),
        names: Vec::new(),
        ttl_secs: None,
    };
    let mut at = HEADER_BYTES;
    for _ in 0..counts(4)? {
        at = name_at(response, at).ok_or_else(malformed)?.1 + 4;
    }
    for _ in 0..counts(6)? {
        at = record(response, at, &mut reply).ok_or_else(malformed)?;
    }
    Ok(reply)
}

/// Reads one record and tells where the next one is.
fn record(response: &[u8], at: usize, reply: &mut Reply) -> Option<usize> {
    const AAAA: u16 = 28;
    let (_, at) = name_at(response, at)?;
    let ttl = response.get(at + 4..at + 8)?.first_chunk::<4>()?;
    let (start, length) = (at + 10, usize::from(u16_at(response, at + 8)?));
    let data = response.get(start..start + length)?;
    match u16_at(response, at)? {
        rtype::A => reply.addresses.push((*data.first_chunk::<4>()?).into()),
        AAAA => reply.addresses.push((*data.first_chunk::<16>()?).into()),
        rtype::PTR => reply.names.push(name_at(response, start)?.0),
        _ => {}
    }
    reply.ttl_secs.get_or_insert(u32::from_be_bytes(*ttl));
    Some(start + length)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.get(at..)?.first_chunk()?))
}

/// Reads a name and tells what is behind it.
fn name_at(response: &[u8], at: usize) -> Option<(String, usize)> {
    let (mut name, mut at, mut end) = (String::new(), at, None);
    for _ in 0..POINTERS_MAX + usize::from(u8::MAX) / 2 {
        let length = usize::from(*response.get(at)?);
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = response.get(at + 1..at + 1 + length)?;
                name += &String::from_utf8_lossy(label);
                name.push('.');
                at += 1 + length;
            }
            0xc0.. => {
                end.get_or_insert(at + 2);
                at = usize::from(u16_at(response, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read() {
        let message = b"\x03web\x05weave\xc0\x0e\x00\x05local\xc0\x0d\xc0\x11";
        assert_eq!(name_at(message, 17), None);
        let message = b"\x01a\x00\x01b\xc0\x00\xff";
        assert_eq!(name_at(message, 3), Some(("b.a.".to_owned(), 7)));
        for loops in [
            &b"\xc0\x00"[..],
            b"\x01a\xc0\x00",
            b"\x40",
            b"\x05ab",
            b"",
            b"\xc0",
        ] {
            assert_eq!(name_at(loops, 0), None, "{loops:?}");
        }
    }

    proptest::proptest! {
        #[test]
        fn answers_of_any_bytes_are_read_or_refused(
            bytes in proptest::collection::vec(0u8.., 0..64),
            counts in 0u8..4,
        ) {
            let mut response = vec![0, 7, 0x81, 0x80, 0, 1, 0, counts, 0, 0, 0, 0];
            response.extend(b"\x01a\x00\x00\x01\x00\x01\xc0\x0c\x00\x01\x00\x01\0\0\0\x01\x00\x04\x0a\x07\0\x01");
            let whole = read(&response[..12 + 7 + 16]);
            if counts == 1 {
                proptest::prop_assert_eq!(whole.unwrap().addresses, [IpAddr::from([10, 7, 0, 1])]);
            }
            response.extend(bytes);
            if let Ok(reply) = read(&response) {
                proptest::prop_assert!(reply.addresses.len() + reply.names.len() <= 3);
            }
        }
    }

    #[test]
    fn questions_are_checked() {
        assert!(question("web.weave.local.", rtype::A, true).is_ok());
        for bad in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(128)] {
            assert!(question(bad, rtype::A, false).is_err(), "{bad:?}");
        }
    }
}
