//! The server over loopback, with servers behind it that are slow, wrong or hostile.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::sync::Mutex;

use proto::names::message::{self, Query};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::time::timeout;

use super::*;
use crate::resolv::CHECK_INTERVAL;

const PATIENCE: Duration = Duration::from_secs(20);

fn names() -> Arc<ArcSwap<Index>> {
    let many = (0..60).map(|i| ("many.weave.local.", Ipv4Addr::new(10, 32, 1, i)));
    let one = ("web.weave.local.", Ipv4Addr::new(10, 32, 0, 1));
    Arc::new(ArcSwap::from_pointee(Index::of(many.chain([one]))))
}

struct Rig {
    server: DnsServer,
    addr: SocketAddr,
    folder: tempfile::TempDir,
}

impl Rig {
    /// Creates a server on a free port of 127.0.0.1 that forwards to `upstreams`.
    async fn new(upstreams: &[SocketAddr]) -> Rig {
        Rig::with(upstreams, "127.0.0.1:0", Duration::from_secs(10)).await
    }

    async fn with(upstreams: &[SocketAddr], listen: &str, fallback_timeout: Duration) -> Rig {
        let folder = tempfile::tempdir().unwrap();
        let config = DnsConfig {
            listen: listen.parse().unwrap(),
            instead: None,
            zone: Zone {
                domain: "weave.local.".parse().unwrap(),
                ttl_secs: 1,
                private: Vec::new(),
            },
            fallback_timeout,
            resolv_conf: Some(folder.path().join("resolv.conf")),
            resolv_conf_interval: Duration::ZERO,
        };
        write_resolvers(&folder, upstreams);
        let server = DnsServer::start(config, names());
        let addr = listening(&server).await;
        Rig {
            server,
            addr,
            folder,
        }
    }

    async fn ask(&self, packet: &[u8]) -> Vec<u8> {
        ask(self.addr, packet).await
    }

    async fn ask_tcp(&self, packet: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr).await.unwrap();
        ask_stream(&mut stream, packet).await
    }
}

fn write_resolvers(folder: &tempfile::TempDir, upstreams: &[SocketAddr]) {
    let lines: String = upstreams
        .iter()
        .map(|addr| format!("nameserver {addr}\n"))
        .collect();
    let next = folder.path().join("next");
    std::fs::write(&next, lines).unwrap();
    std::fs::rename(&next, folder.path().join("resolv.conf")).unwrap();
}

/// Waits until both listeners work.
async fn listening(server: &DnsServer) -> SocketAddr {
    let mut status = server.status();
    let both = |status: &DnsStatus| {
        matches!(
            (&status.udp, &status.tcp),
            (Listening::On(_), Listening::On(_))
        )
    };
    let status = timeout(PATIENCE, status.wait_for(both))
        .await
        .unwrap()
        .unwrap()
        .clone();
    match status.udp {
        Listening::On(addr) => addr,
        other => panic!("{other:?}"),
    }
}

async fn ask(addr: SocketAddr, packet: &[u8]) -> Vec<u8> {
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(addr).await.unwrap();
    client.send(packet).await.unwrap();
    let mut buffer = vec![0; 65_535];
    let len = timeout(PATIENCE, client.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    buffer.truncate(len);
    buffer
}

async fn ask_stream(stream: &mut TcpStream, packet: &[u8]) -> Vec<u8> {
    let mut framed = (packet.len() as u16).to_be_bytes().to_vec();
    framed.extend_from_slice(packet);
    stream.write_all(&framed).await.unwrap();
    let len = timeout(PATIENCE, stream.read_u16()).await.unwrap().unwrap();
    let mut response = vec![0; usize::from(len)];
    stream.read_exact(&mut response).await.unwrap();
    response
}

fn query(id: u16, name: &str) -> Vec<u8> {
    let mut out = id.to_be_bytes().to_vec();
    out.extend_from_slice(&[1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        out.push(label.len() as u8);
        out.extend_from_slice(label.as_bytes());
    }
    out.extend_from_slice(&[0, 0, 1, 0, 1]);
    out
}

fn with_udp_size(mut query: Vec<u8>, size: u16) -> Vec<u8> {
    query[11] = 1;
    query.extend_from_slice(&[0, 0, 41]);
    query.extend_from_slice(&size.to_be_bytes());
    query.extend_from_slice(&[0; 6]);
    query
}

/// Returns a response to `query` with `count` addresses, the last byte of each being `mark`.
fn response(query: &[u8], count: u16, mark: u8) -> Vec<u8> {
    let end = 12 + query[12..].iter().position(|byte| *byte == 0).unwrap() + 5;
    let mut out = query[..end].to_vec();
    out[2] |= 0x80;
    out[6..12].copy_from_slice(&[(count >> 8) as u8, count as u8, 0, 0, 0, 0]);
    for _ in 0..count {
        out.extend_from_slice(&[0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 9, 0, 4, 192, 0, 2, mark]);
    }
    out
}

fn failure(query: &[u8], rcode: u8) -> Vec<u8> {
    let mut out = response(query, 0, 0);
    out[3] = 0x80 | rcode;
    out
}

fn answers(response: &[u8]) -> u16 {
    u16::from_be_bytes([response[6], response[7]])
}

/// Returns a server whose packets in response to each query `behave` makes. Ends with the test.
async fn upstream(
    mut behave: impl FnMut(&[u8], SocketAddr) -> Vec<Vec<u8>> + Send + 'static,
) -> SocketAddr {
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = vec![0; 65_535];
        while let Ok((len, from)) = socket.recv_from(&mut buffer).await {
            for packet in behave(&buffer[..len], from) {
                socket.send_to(&packet, from).await.unwrap();
            }
        }
    });
    addr
}

async fn honest(mark: u8) -> SocketAddr {
    upstream(move |query, _| vec![response(query, 1, mark)]).await
}

/// Returns a server that answers over TCP in full and over UDP with a truncated response.
async fn long_winded(count: u16) -> SocketAddr {
    let addr = upstream(|query, _| {
        let mut packet = response(query, 1, 1);
        packet[2] |= 2;
        vec![packet]
    })
    .await;
    let listener = TcpListener::bind(addr).await.unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let len = stream.read_u16().await.unwrap();
            let mut query = vec![0; usize::from(len)];
            stream.read_exact(&mut query).await.unwrap();
            let whole = response(&query, count, 2);
            let mut framed = (whole.len() as u16).to_be_bytes().to_vec();
            framed.extend_from_slice(&whole);
            stream.write_all(&framed).await.unwrap();
        }
    });
    addr
}

#[tokio::test]
async fn names_are_answered_over_both_transports() {
    let rig = Rig::new(&[]).await;
    let packet = query(7, "WEB.weave.local");
    let (udp, tcp) = (rig.ask(&packet).await, rig.ask_tcp(&packet).await);
    assert_eq!(udp, tcp);
    assert_eq!(
        (answers(&udp), &udp[udp.len() - 4..]),
        (1, &[10, 32, 0, 1][..])
    );

    let many = query(8, "many");
    let cut = rig.ask(&many).await;
    assert!(message::is_truncated(&cut) && cut.len() <= 512);
    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    for _ in 0..3 {
        let whole = ask_stream(&mut stream, &many).await;
        assert!(!message::is_truncated(&whole) && answers(&whole) == 60);
    }
    // However much the client takes: whoever asks in another's name floods nobody.
    let cut = rig
        .ask(&with_udp_size(query(8, "many.weave.local"), 4096))
        .await;
    assert!(message::is_truncated(&cut) && (1000..=1232).contains(&cut.len()));
}

/// The names of the domain tell of the network, as answers of others flood a third party.
#[tokio::test]
async fn strangers_are_told_nothing() {
    let rig = Rig::with(&[], "0.0.0.0:0", PATIENCE).await;
    let shared = &rig.server.shared;
    assert!(shared.answers("127.0.0.1".parse().unwrap(), None));
    assert!(!shared.answers("203.0.113.9".parse().unwrap(), None));
    let packet = query(1, "web");
    let mut response = Vec::new();
    assert!(shared.refuse(&packet, &mut response));
    assert_eq!(response, failure(&packet, 5));
    assert!(!shared.refuse(&packet[..5], &mut response));
}

#[tokio::test]
async fn a_new_snapshot_is_used_at_once() {
    let names = names();
    let rig = Rig::new(&[]).await;
    rig.server.shared.names.store(Arc::new(Index::of([(
        "web.weave.local.",
        Ipv4Addr::new(10, 32, 0, 9),
    )])));
    let answer = rig.ask(&query(7, "web")).await;
    assert_eq!(answer[answer.len() - 4..], [10, 32, 0, 9]);
    assert_ne!(names.load().len(), 1);
}

#[tokio::test]
async fn answers_come_from_the_address_that_was_asked() {
    let rig = Rig::with(&[], "0.0.0.0:0", PATIENCE).await;
    let asked = SocketAddr::from(([127, 0, 3, 4], rig.addr.port()));
    // The client's socket is connected, so it takes packets from this address only.
    let answer = ask(asked, &query(7, "web")).await;
    assert_eq!(answers(&answer), 1);
}

#[tokio::test]
async fn everything_else_is_forwarded_under_random_ids_and_ports() {
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let (note, ports) = (seen.clone(), Arc::new(Mutex::new(BTreeSet::new())));
    let note_port = ports.clone();
    let server = upstream(move |query, from| {
        note.lock().unwrap().insert(message::id_of(query));
        note_port.lock().unwrap().insert(from.port());
        vec![response(query, 1, 5)]
    })
    .await;
    let rig = Rig::new(&[server]).await;
    assert_eq!(rig.server.upstreams(), [server]);
    for id in 0..40 {
        let packet = query(id, "www.Example.com");
        assert_eq!(rig.ask(&packet).await, response(&packet, 1, 5));
    }
    assert!(seen.lock().unwrap().len() > 35, "ids repeat");
    assert!(ports.lock().unwrap().len() > 35, "ports repeat");
    let tcp = rig.ask_tcp(&query(9, "www.example.com")).await;
    assert_eq!(answers(&tcp), 1, "a server without TCP is asked over UDP");
}

#[tokio::test]
async fn a_silent_server_gives_way_to_the_next() {
    let asked = Arc::new(Mutex::new(0));
    let count = asked.clone();
    let silent = upstream(move |_, _| {
        *count.lock().unwrap() += 1;
        Vec::new()
    })
    .await;
    let good = honest(5).await;
    let rig = Rig::with(&[silent, good], "127.0.0.1:0", Duration::from_millis(1300)).await;
    for id in 0..5 {
        let packet = query(id, "www.example.com");
        assert_eq!(rig.ask(&packet).await, response(&packet, 1, 5));
    }
    // Asked once and once more for want of an answer; afterwards the good one was asked first.
    assert_eq!(*asked.lock().unwrap(), 2);
    assert_eq!(rig.server.counts().upstream_failed, 1);
}

#[tokio::test]
async fn a_closed_port_is_noticed_at_once() {
    let closed = {
        let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        socket.local_addr().unwrap()
    };
    let rig = Rig::new(&[closed, honest(5).await]).await;
    assert_eq!(answers(&rig.ask(&query(1, "www.example.com")).await), 1);
}

#[tokio::test]
async fn an_unwilling_server_is_believed_if_no_other_knows_better() {
    let unwilling = upstream(|query, _| vec![failure(query, 5)]).await;
    let packet = query(1, "www.example.com");
    let rig = Rig::new(&[unwilling]).await;
    assert_eq!(rig.ask(&packet).await, failure(&packet, 5));
    let rig = Rig::new(&[unwilling, honest(5).await]).await;
    assert_eq!(rig.ask(&packet).await, response(&packet, 1, 5));
    // That a name does not exist is an answer like any other.
    let knowing = upstream(|query, _| vec![failure(query, 3)]).await;
    let rig = Rig::new(&[knowing, honest(5).await]).await;
    assert_eq!(rig.ask(&packet).await, failure(&packet, 3));
}

#[tokio::test]
async fn lies_are_not_passed_on() {
    let lie = |asked: &[u8]| -> Vec<Vec<u8>> {
        let id = message::id_of(asked);
        let other_id = id.wrapping_add(1).to_be_bytes();
        let mut wrong_id = response(asked, 1, 66);
        wrong_id[..2].copy_from_slice(&other_id);
        let wrong_name = response(&query(id, "www.example.org"), 1, 66);
        let mut wrong_type = response(asked, 1, 66);
        wrong_type[12 + 17 + 1] = 28;
        let no_response = asked.to_vec();
        vec![
            wrong_id,
            wrong_name,
            wrong_type,
            no_response,
            vec![1, 2],
            Vec::new(),
        ]
    };
    let packet = query(1, "www.example.com");
    let liar = upstream(move |query, from| {
        // Somebody else sends a perfect answer first.
        let spoofer = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        spoofer.send_to(&response(query, 1, 67), from).unwrap();
        let mut packets = lie(query);
        packets.push(response(query, 1, 5));
        packets
    })
    .await;
    let rig = Rig::new(&[liar]).await;
    assert_eq!(rig.ask(&packet).await, response(&packet, 1, 5));
    assert_eq!(rig.server.counts().upstream_mismatched, 6);

    let only_lies = upstream(move |query, _| lie(query)).await;
    let rig = Rig::with(&[only_lies], "127.0.0.1:0", Duration::from_millis(900)).await;
    assert_eq!(rig.ask(&packet).await, failure(&packet, 2));
    let counts = rig.server.counts();
    assert_eq!((counts.forward_failed, counts.upstream_mismatched), (1, 6));
}

#[tokio::test]
async fn a_flood_of_lies_ends_the_asking() {
    let flood = upstream(|_, _| vec![vec![0; 20]; 200]).await;
    let rig = Rig::new(&[flood]).await;
    let packet = query(1, "www.example.com");
    assert_eq!(rig.ask(&packet).await, failure(&packet, 2));
    assert_eq!(rig.server.counts().upstream_mismatched, 100);
}

#[tokio::test]
async fn a_long_answer_is_fetched_over_tcp_and_cut_for_udp() {
    let rig = Rig::new(&[long_winded(190).await]).await;
    let packet = query(1, "www.example.com");
    let whole = response(&packet, 190, 2);
    assert!(whole.len() > 3000);

    assert_eq!(rig.ask_tcp(&packet).await, whole);
    for (asked, room) in [
        (packet.clone(), 512),
        (with_udp_size(packet.clone(), 4096), 1232),
    ] {
        let cut = rig.ask(&asked).await;
        let fitting = ((room - packet.len()) / 16) as u16;
        let mut expected = response(&packet, fitting, 2);
        expected[2] |= 2;
        assert_eq!(cut, expected);
    }
    assert_eq!(rig.server.counts().upstream_tcp, 2);
}

#[tokio::test]
async fn without_tcp_a_truncated_answer_is_passed_on() {
    let truncated = upstream(|query, _| {
        let mut packet = response(query, 3, 1);
        packet[2] |= 2;
        vec![packet]
    })
    .await;
    let rig = Rig::new(&[truncated]).await;
    let answer = rig.ask(&query(1, "www.example.com")).await;
    assert!(message::is_truncated(&answer) && answers(&answer) == 3);
}

#[tokio::test]
async fn resolvers_are_followed() {
    let (first, second) = (honest(1).await, honest(2).await);
    let rig = Rig::new(&[first]).await;
    let packet = query(1, "www.example.com");
    assert_eq!(rig.ask(&packet).await, response(&packet, 1, 1));
    write_resolvers(&rig.folder, &[second, first]);
    assert_eq!(rig.ask(&packet).await, response(&packet, 1, 2));
    assert_eq!(rig.server.upstreams(), [second, first]);

    // We never ask ourselves.
    write_resolvers(&rig.folder, &[rig.addr]);
    assert_eq!(rig.server.upstreams(), []);
    assert_eq!(rig.ask(&packet).await, failure(&packet, 2));
}

#[tokio::test]
async fn a_taken_port_is_reported_and_tried_again() {
    let taken = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let addr = taken.local_addr().unwrap();
    let config = DnsConfig {
        listen: addr,
        instead: None,
        zone: Zone {
            domain: "weave.local.".parse().unwrap(),
            ttl_secs: 1,
            private: Vec::new(),
        },
        fallback_timeout: PATIENCE,
        resolv_conf: None,
        resolv_conf_interval: CHECK_INTERVAL,
    };
    let server = DnsServer::start(config, names());
    let mut status = server.status();
    let settled =
        |status: &DnsStatus| status.udp != Listening::Starting && status.tcp != Listening::Starting;
    let seen = timeout(PATIENCE, status.wait_for(settled))
        .await
        .unwrap()
        .unwrap()
        .clone();
    assert!(
        matches!(&seen.udp, Listening::Failed(why) if why.contains("in use")),
        "{seen:?}"
    );
    assert_eq!(seen.tcp, Listening::On(addr), "the other transport works");
    drop(taken);
    assert_eq!(listening(&server).await, addr);
    assert_eq!(answers(&ask(addr, &query(1, "web")).await), 1);

    drop(server);
    let rebound = async {
        while UdpSocket::bind(addr).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, rebound)
        .await
        .expect("a dropped server leaves its port");
}

#[tokio::test]
async fn malformed_packets_get_no_more_than_they_are() {
    let rig = Rig::new(&[honest(5).await]).await;
    let good = query(0x1234, "web.weave.local");
    let formerr = rig.ask(&good[..20]).await;
    assert_eq!(formerr, [0x12, 0x34, 0x81, 0x81, 0, 0, 0, 0, 0, 0, 0, 0]);

    // Neither responses nor fragments nor giants are answered; a query after them is.
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(rig.addr).await.unwrap();
    for packet in [&[0x80; 40][..], &[0; 11], &[0; 5000], &[]] {
        client.send(packet).await.unwrap();
    }
    client.send(&good).await.unwrap();
    let mut buffer = [0; 512];
    let len = timeout(PATIENCE, client.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(
        Query::parse(&buffer[..len]).err(),
        Some(message::QueryError::NotAQuery)
    );
    assert_eq!(answers(&buffer[..len]), 1);
    assert_eq!(rig.server.counts().ignored, 4);

    let mut stream = TcpStream::connect(rig.addr).await.unwrap();
    stream.write_all(&[0, 3, 1, 2, 3]).await.unwrap();
    assert_eq!(
        timeout(PATIENCE, stream.read(&mut buffer))
            .await
            .unwrap()
            .unwrap(),
        0
    );
}

#[tokio::test]
async fn one_client_cannot_use_up_the_forwarder() {
    let silent = upstream(|_, _| Vec::new()).await;
    let rig = Rig::new(&[silent]).await;
    let client = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    client.connect(rig.addr).await.unwrap();
    let mut buffer = [0; 512];
    for id in 0..FORWARDS_PER_CLIENT_MAX as u16 {
        client.send(&query(id, "www.example.com")).await.unwrap();
        while rig.server.counts().forwarded <= u64::from(id) {
            tokio::task::yield_now().await;
        }
    }
    let over = query(999, "www.example.com");
    client.send(&over).await.unwrap();
    let len = timeout(PATIENCE, client.recv(&mut buffer))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(buffer[..len], failure(&over, 2));

    // Names, and other clients, are not affected.
    assert_eq!(answers(&rig.ask(&query(1, "web")).await), 1);
    let other = UdpSocket::bind("127.0.0.2:0").await.unwrap();
    other.connect(rig.addr).await.unwrap();
    other.send(&over).await.unwrap();
    while rig.server.counts().forwarded <= FORWARDS_PER_CLIENT_MAX as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(rig.server.counts().forward_rejected, 1);
}

#[tokio::test]
async fn connections_are_limited_per_client() {
    let rig = Rig::new(&[]).await;
    let mut open = Vec::new();
    for _ in 0..CONNECTIONS_PER_CLIENT_MAX {
        let mut stream = TcpStream::connect(rig.addr).await.unwrap();
        ask_stream(&mut stream, &query(1, "web")).await;
        open.push(stream);
    }
    let mut over = TcpStream::connect(rig.addr).await.unwrap();
    let closed = timeout(PATIENCE, over.read(&mut [0; 1])).await.unwrap();
    assert!(matches!(closed, Ok(0) | Err(_)));
    assert_eq!(rig.server.counts().connections_rejected, 1);
}

#[tokio::test]
async fn every_query_is_counted_once() {
    let rig = Rig::new(&[honest(5).await]).await;
    for name in ["web", "nope", "www.example.com", "many"] {
        rig.ask(&query(1, name)).await;
        rig.ask_tcp(&query(1, name)).await;
    }
    rig.ask(&query(1, "web")[..15]).await;
    let counts = rig.server.counts();
    let expected = DnsCounts {
        queries_udp: 5,
        queries_tcp: 4,
        answered: 4,
        name_errors: 2,
        refused: 1,
        forwarded: 2,
        ..DnsCounts::default()
    };
    assert_eq!(counts, expected);
}

#[test]
fn it_has_a_thread_of_its_own_and_ends_with_it() {
    let config = DnsConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        instead: None,
        zone: Zone {
            domain: "weave.local.".parse().unwrap(),
            ttl_secs: 1,
            private: Vec::new(),
        },
        fallback_timeout: Duration::from_secs(1),
        resolv_conf: None,
        resolv_conf_interval: Duration::ZERO,
    };
    let server = DnsServer::start_on_thread(config, names()).unwrap();
    let asking = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let addr = asking.block_on(async {
        let addr = listening(&server).await;
        let response = ask(addr, &query(7, "web.weave.local.")).await;
        assert_eq!(response[..2], 7u16.to_be_bytes());
        addr
    });
    drop(server);
    // The port is free again.
    let deadline = Instant::now() + PATIENCE;
    while std::net::UdpSocket::bind(addr).is_err() {
        assert!(Instant::now() < deadline, "the server goes on");
        std::thread::yield_now();
    }
}
