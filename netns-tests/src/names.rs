//! Asking for names, and servers that others are asked of.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::thread;
use std::time::Duration;

use dns::client::{self, Reply, Way};
use kernel::netns::Namespace;
use proto::names::message::{rtype, set_id};

/// Maximum time for an answer.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
/// The port of name servers.
const PORT: u16 = 53;

/// Asks the router of a host, from the host.
pub fn ask(host: &Namespace, name: &str, qtype: u16, way: Way) -> std::io::Result<Reply> {
    ask_at(host, (Ipv4Addr::LOCALHOST, PORT).into(), name, qtype, way)
}

/// Asks a server from within a namespace.
pub fn ask_at(
    from: &Namespace,
    server: SocketAddr,
    name: &str,
    qtype: u16,
    way: Way,
) -> std::io::Result<Reply> {
    let ask = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(client::ask(server, name, qtype, way, ANSWER_TIME_MAX))
    };
    from.run(ask).unwrap()
}

/// Returns the addresses of a name as the router of a host knows them, if it answers; none if it
/// knows no such name.
pub fn addresses(host: &Namespace, name: &str) -> Option<BTreeSet<IpAddr>> {
    let reply = ask(host, name, rtype::A, Way::Any).ok()?;
    Some(reply.addresses.into_iter().collect())
}

/// How a server that others are asked of behaves.
#[derive(Clone, Copy, Debug)]
pub enum Manner {
    /// Answers after a while.
    Slow(Duration),
    /// Sends wrong answers first: of another id, to another question, from another port.
    Lying,
    /// Has so much to say that it takes TCP.
    Talkative(usize),
    /// Never answers.
    Silent,
}

/// The address that the servers answer with.
pub const ANSWER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 77);
/// The address in answers that must not be believed.
pub const LIE: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 66);

/// Starts a server in a namespace. It ends with the process.
pub fn serve(namespace: &Namespace, address: Ipv4Addr, manner: Manner) {
    let bind = || {
        (
            UdpSocket::bind((address, PORT)).unwrap(),
            UdpSocket::bind((address, 0)).unwrap(),
            TcpListener::bind((address, PORT)).unwrap(),
        )
    };
    let (udp, other, tcp) = namespace.run(bind).unwrap();
    thread::spawn(move || serve_udp(&udp, &other, manner));
    thread::spawn(move || serve_tcp(&tcp, manner));
}

fn serve_udp(socket: &UdpSocket, other: &UdpSocket, manner: Manner) {
    let mut buffer = [0; 4096];
    while let Ok((length, from)) = socket.recv_from(&mut buffer) {
        let query = &buffer[..length];
        let send = |socket: &UdpSocket, packet: &[u8]| drop(socket.send_to(packet, from));
        match manner {
            Manner::Silent => {}
            Manner::Slow(time) => {
                let (socket, packet) = (socket.try_clone().unwrap(), answer(query, ANSWER, 1));
                thread::spawn(move || {
                    thread::sleep(time);
                    let _ = socket.send_to(&packet, from);
                });
            }
            Manner::Lying => {
                let mut wrong_id = answer(query, LIE, 1);
                let id = u16::from_be_bytes([wrong_id[0], wrong_id[1]]);
                set_id(&mut wrong_id, id.wrapping_add(1));
                send(socket, &wrong_id);
                // The first letter of the name is behind its length.
                let mut wrong_question = answer(query, LIE, 1);
                wrong_question[13] ^= 1;
                send(socket, &wrong_question);
                send(other, &answer(query, LIE, 1));
                send(socket, b"no message");
                thread::sleep(Duration::from_millis(50));
                send(socket, &answer(query, ANSWER, 1));
            }
            Manner::Talkative(_) => {
                let mut cut = answer(query, ANSWER, 0);
                cut[2] |= 2;
                send(socket, &cut);
            }
        }
    }
}

fn serve_tcp(listener: &TcpListener, manner: Manner) {
    let Manner::Talkative(count) = manner else {
        return;
    };
    while let Ok((mut stream, _)) = listener.accept() {
        let mut length = [0; 2];
        if stream.read_exact(&mut length).is_err() {
            continue;
        }
        let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
        if stream.read_exact(&mut query).is_err() {
            continue;
        }
        let response = answer(&query, ANSWER, count);
        let length = u16::try_from(response.len()).unwrap();
        let _ = stream.write_all(&[&length.to_be_bytes()[..], &response].concat());
    }
}

/// Returns an answer with so many addresses, which count up from the first.
fn answer(query: &[u8], first: Ipv4Addr, count: usize) -> Vec<u8> {
    let name_end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 1;
    let mut packet = query[..name_end + 4].to_vec();
    packet[2..4].copy_from_slice(&[0x81, 0x80]);
    let count = u16::try_from(count).unwrap();
    packet[4..12].copy_from_slice(&[0, 1, (count >> 8) as u8, count as u8, 0, 0, 0, 0]);
    for number in 0..count {
        // Its name is that at byte 12; then type, class, the seconds it may be kept, and length.
        packet.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
        packet.extend((first.to_bits() + u32::from(number)).to_be_bytes());
    }
    packet
}
