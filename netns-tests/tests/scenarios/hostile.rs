//! Input that no honest peer sends. It may cost its sender the connection, and nobody else
//! anything.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use lab::host::HostOptions;
use netns_tests::{
    Capture, Container, Kind, Launch, Mesh, Stranger, frame, needs_root, peer_name, wait,
};
use proto::message::Message;
use proto::topology::{Address, Connection, Peer, encode_update};
use proto::types::{PeerName, PeerUid};

use crate::native::wait_active;

/// How much a router may grow under attack, in KiB.
const GROWTH_KIB_MAX: u64 = 16 * 1024;

/// A router on host 0, connected with that on host 2, with a container each; host 1 attacks, and
/// on host 3 another router may join.
struct Siege {
    mesh: Mesh,
    containers: [Container; 2],
    before_kib: u64,
    launch: Launch,
}

impl Siege {
    fn begin(password: Option<&str>) -> Siege {
        Siege::of(Kind::Weft, password)
    }

    /// Returns a siege of a mesh whose links are of this kind.
    fn of(kind: Kind, password: Option<&str>) -> Siege {
        let mut mesh = Mesh::new(&[kind; 4]);
        let launch = Launch::new().maybe_password(password);
        mesh.launch(0, &launch);
        let launch = launch.peer(mesh.address(0));
        mesh.launch(2, &launch);
        let containers = [mesh.attach(0), mesh.attach(2)];
        mesh.wait_connected(0, 2);
        mesh.wait_routed(&[0, 2]);
        if kind == Kind::Weft {
            wait_active(&mesh, &[(0, 2)], "weft");
        }
        containers[0].must_reach(&containers[1]);
        Siege {
            before_kib: mesh.resident_kib(0),
            mesh,
            containers,
            launch,
        }
    }

    fn victim(&self) -> Ipv4Addr {
        self.mesh.address(0)
    }

    fn connect(&self) -> TcpStream {
        Stranger::connect(self.mesh.namespace(1), self.victim())
    }

    fn introduce(&self, number: u8, version: u8) -> Stranger {
        Stranger::introduce(self.mesh.namespace(1), self.victim(), number, version)
    }

    /// The router is there, its link works, it did not grow, and another joins at once.
    #[track_caller]
    fn end(self) {
        self.end_grown(GROWTH_KIB_MAX);
    }

    /// As [`Siege::end`], where a router may grow by more.
    #[track_caller]
    fn end_grown(mut self, growth_kib_max: u64) {
        assert!(self.mesh.is_running(0), "the router ended");
        assert!(self.mesh.is_connected(0, 2), "an honest peer was lost");
        assert!(self.containers[0].count_answers(&self.containers[1], 10) >= 9);
        let after = self.mesh.resident_kib(0);
        let growth = after.saturating_sub(self.before_kib);
        assert!(
            growth < growth_kib_max,
            "grew by {growth} KiB to {after} KiB"
        );
        let start = Instant::now();
        self.mesh.start(3, &self.launch);
        wait::until_true("another joins", Duration::from_secs(5), || {
            self.mesh.is_connected(3, 0)
        });
        println!(
            "grew by {growth} KiB; another joined after {:?}",
            start.elapsed()
        );
        self.mesh.wait_connected(0, 3);
    }
}

/// Writes to a router and reads until it closes the connection or says nothing more.
fn say(mut stream: TcpStream, bytes: &[u8]) {
    // It may close before everything was said.
    let _ = stream.write_all(bytes);
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
}

#[test]
fn garbage_on_tcp() {
    needs_root!();
    for password in [None, Some("a secret")] {
        let siege = Siege::begin(password);
        let mut random = fastrand::Rng::with_seed(11);
        let mut noise = |length: usize| {
            let mut bytes = vec![0; length];
            random.fill(&mut bytes);
            bytes
        };
        let mut said: Vec<Vec<u8>> = vec![
            vec![],
            b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
            b"weav".to_vec(),
            b"weave".to_vec(),
            b"weave\x00\x00".to_vec(),
            b"weave\x03\xff".to_vec(),
            b"weave\x02\x01".to_vec(),
            b"weave\x01\x02".to_vec(),
            b"weave\x01\x02\x07".to_vec(),
            b"weave\x01\x02\x01short key".to_vec(),
            [&b"weave\x01\x02\x01"[..], &[0; 32]].concat(),
            // A length beyond all limits, one at the limit, and nothing behind it.
            b"weave\x01\x02\x00\xff\xff\xff\xff".to_vec(),
            b"weave\x01\x02\x00\x00\xa0\x00\x00".to_vec(),
            b"weave\x01\x02\x00\x00\x00\x00\x00".to_vec(),
            // The same in version 1, where lengths are those of gob.
            b"weave\x01\x01\xf8\x7f\xff\xff\xff\xff\xff\xff\xff".to_vec(),
            b"weave\x01\x01\xfc\x3f\xff\xff\xff\x04\xff\x81".to_vec(),
        ];
        for length in [1, 7, 100, 3000, 70_000] {
            said.push(noise(length));
            said.push([&b"weave\x01\x02\x00"[..], &noise(length)].concat());
            said.push([&b"weave\x01\x02\x01"[..], &noise(length)].concat());
            said.push([&b"weave\x01\x01"[..], &noise(length)].concat());
        }
        for bytes in &said {
            say(siege.connect(), bytes);
        }
        siege.end();
    }
}

/// Every kind of message with every kind of body, before and after the overlay is up.
#[test]
fn strangers_say_everything() {
    needs_root!();
    let siege = Siege::begin(None);
    let mut random = fastrand::Rng::with_seed(12);
    let mut number = 0;
    for version in [1, 2] {
        for message in all_messages(&mut random) {
            number = number % 200 + 1;
            let mut stranger = siege.introduce(number, version);
            // What ends the connection ends only that.
            let _ = stranger.send(&message);
            let _ = stranger.send(&message);
        }
        // All in one connection, as far as it lasts.
        let mut stranger = siege.introduce(201, version);
        for message in all_messages(&mut random) {
            if stranger.send(&message).is_err() {
                stranger = siege.introduce(202, version);
            }
        }
    }
    wait::until_true("the strangers are forgotten", wait::SOON, || {
        siege.mesh.peers(0) == [peer_name(0), peer_name(2)]
    });
    siege.end();
}

fn all_messages(random: &mut fastrand::Rng) -> Vec<Vec<u8>> {
    let us = PeerName::from_bytes([2, 0, 0, 0, 0, 1]);
    let them = PeerName::from_bytes([2, 0, 0, 0, 1, 1]);
    let mut noise = |length: usize| {
        let mut bytes = vec![0; length];
        random.fill(&mut bytes);
        bytes
    };
    let mut messages = vec![vec![]];
    for tag in [0, 1, 2, 3, 4, 5, 6, 7, 8, 100, 255] {
        for length in [0, 1, 2, 3, 20, 500] {
            messages.push([&[tag], &noise(length)[..]].concat());
        }
        messages.push(vec![tag, 0xff, 0xff, 0xff]);
        messages.push(vec![tag, 0, 3, 0xff, 0xff]);
    }
    for channel in ["topology", "IPallocation", "nameserver", "nobody knows", ""] {
        for payload in [noise(0), noise(1), noise(300)] {
            let payload = &payload[..];
            messages.extend(
                [
                    Message::Gossip {
                        channel,
                        sender: them,
                        payload,
                    },
                    Message::Broadcast {
                        channel,
                        source: them,
                        payload,
                    },
                    Message::Broadcast {
                        channel,
                        source: us,
                        payload,
                    },
                    Message::Unicast {
                        channel,
                        source: them,
                        dest: us,
                        payload,
                    },
                    Message::Unicast {
                        channel,
                        source: us,
                        dest: them,
                        payload,
                    },
                ]
                .map(|message| message.encode()),
            );
        }
    }
    // Whole messages that are cut off anywhere.
    let whole = Message::Gossip {
        channel: "topology",
        sender: them,
        payload: &update(0, 3),
    };
    let whole = whole.encode();
    messages.extend((1..whole.len()).step_by(7).map(|end| whole[..end].to_vec()));
    messages.push(whole);
    // A channel's name longer than any.
    let channel = "x".repeat(5000);
    let long = Message::Broadcast {
        channel: &channel,
        source: them,
        payload: &[],
    };
    messages.push(long.encode());
    messages
}

/// Entries of peers that do not exist, each connected to the next.
fn update(first: u32, count: u32) -> Vec<u8> {
    let name = |number: u32| {
        let [_, b, c, d] = number.to_be_bytes();
        PeerName::from_bytes([2, 0, 1, b, c, d])
    };
    let peers: Vec<Peer> = (first..first + count)
        .map(|number| Peer {
            name: name(number),
            nickname: format!("nobody {number}").into_bytes().into(),
            uid: PeerUid(u64::from(number) + 1),
            version: 1,
            short_id: None,
            connections: vec![Connection {
                remote: name(number + 1),
                address: Address::from_text(b"172.30.0.99:6783"),
                outbound: true,
                established: true,
            }],
        })
        .collect();
    encode_update(&peers)
}

/// Peers that do not exist, by the thousand. A limited number is taken in while somebody vouches
/// for them.
#[test]
fn invented_peers() {
    needs_root!();
    let siege = Siege::begin(None);
    let mut stranger = siege.introduce(1, 2);
    let sender = PeerName::from_bytes([2, 0, 0, 0, 1, 1]);
    for round in 0..100 {
        let payload = update(round * 1000, 900);
        let message = Message::Gossip {
            channel: "topology",
            sender,
            payload: &payload,
        };
        if stranger.send(&message.encode()).is_err() {
            break;
        }
    }
    assert!(siege.mesh.peers(0).contains(&peer_name(2)));
    drop(stranger);
    wait::until_true("they are forgotten", wait::SOON, || {
        siege.mesh.peers(0) == [peer_name(0), peer_name(2)]
    });
    siege.end_grown(4 * GROWTH_KIB_MAX);
}

/// Five hundred connections that say nothing.
#[test]
fn silent_connections() {
    needs_root!();
    let siege = Siege::begin(Some("a secret"));
    let silent: Vec<TcpStream> = (0..500).map(|_| siege.connect()).collect();
    siege.end();
    drop(silent);
}

/// Connections that get as far as to be introduced, and then take nothing that is sent to them.
#[test]
fn deaf_connections() {
    needs_root!();
    let siege = Siege::begin(None);
    let deaf: Vec<Stranger> = (1..100).map(|number| siege.introduce(number, 2)).collect();
    siege.end();
    drop(deaf);
}

#[test]
fn garbage_on_udp() {
    needs_root!();
    for (kind, password) in [
        (Kind::Weft, None),
        (Kind::Sleeve, None),
        (Kind::Sleeve, Some("a secret")),
    ] {
        let siege = Siege::of(kind, password);
        let wire = Capture::of(siege.mesh.namespace(0), "eth0", datagrams_of(kind));
        siege.containers[0].count_answers(&siege.containers[1], 5);
        wire.wait_for("a datagram of the link", |_| true);
        let real: Vec<Vec<u8>> = wire
            .all(|_| true)
            .into_iter()
            .map(|frame| frame[42..].to_vec())
            .collect();
        let open = || UdpSocket::bind((siege.mesh.address(1), 0)).unwrap();
        let socket = siege.mesh.namespace(1).run(open).unwrap();
        let send = |bytes: &[u8]| {
            // A full queue of the attacker is none of ours.
            let _ = socket.send_to(bytes, (siege.victim(), 6783));
        };
        let mut random = fastrand::Rng::with_seed(13);
        for length in (0..100).chain([1000, 1472, 9000, 65_507]) {
            let mut bytes = vec![0; length];
            for _ in 0..10 {
                random.fill(&mut bytes);
                send(&bytes);
                // In the name of the honest peer.
                let name = [2, 0, 0, 0, 0, 3];
                let end = length.min(6);
                bytes[..end].copy_from_slice(&name[..end]);
                send(&bytes);
            }
        }
        for packet in &real {
            for end in 0..packet.len() {
                send(&packet[..end]);
            }
            for _ in 0..50 {
                let mut changed = packet.clone();
                let bit = random.usize(..8 * changed.len());
                changed[bit / 8] ^= 1 << (bit % 8);
                send(&changed);
            }
        }
        siege.end();
    }
}

/// Recognises what links between routers of this kind send.
fn datagrams_of(kind: Kind) -> fn(&[u8]) -> bool {
    match kind {
        Kind::Weft => frame::is_native,
        Kind::Sleeve | Kind::Weaver => frame::is_sleeve,
    }
}

#[test]
fn replayed_native_datagrams() {
    replayed(Kind::Weft);
}

#[test]
fn replayed_sleeve_packets() {
    replayed(Kind::Sleeve);
}

/// Packets that were sent once already are dropped.
fn replayed(kind: Kind) {
    needs_root!();
    let siege = Siege::of(kind, Some("a secret"));
    let [to, from] = &siege.containers;
    let wire = Capture::of(siege.mesh.namespace(0), "eth0", datagrams_of(kind));
    let arriving = to.capture();
    let socket = from.frames();
    for number in 0..20 {
        let frame = frame::build(frame::BROADCAST, from.mac, &[], number, 200);
        socket.send(&frame).unwrap();
        // Each in a packet of its own, not several in one that only the kernel cuts.
        std::thread::sleep(Duration::from_millis(2));
    }
    arriving.wait_for("frames arrive", |frame| frame::number(frame) == Some(19));
    let victim = siege.victim().octets();
    let packets = wire.all(|frame| frame[30..34] == victim && frame.len() <= 1514);
    assert!(!packets.is_empty());
    let switch = siege.mesh.lab.switch();
    let port = switch.netlink().unwrap().link_named("port0").unwrap();
    let open = || kernel::sys::packet::PacketSocket::open(port.index.0, false).unwrap();
    let replay = switch.run(open).unwrap();
    for _ in 0..3 {
        for packet in &packets {
            replay.send(packet).unwrap();
        }
    }
    // A frame that is sent now arrives after all that would come of the replayed ones.
    let last = frame::build(frame::BROADCAST, from.mac, &[], 99, 200);
    socket.send(&last).unwrap();
    arriving.wait_for("the last arrives", |frame| frame::number(frame) == Some(99));
    for number in 0..20 {
        let copies = arriving.count(|frame| frame::number(frame) == Some(number));
        assert_eq!(copies, 1, "frame {number}");
    }
    siege.end();
}

/// Requests to the control interface that make no sense.
#[test]
fn garbage_on_http() {
    needs_root!();
    let mut mesh = Mesh::new(&[Kind::Weft]);
    mesh.add_host(Kind::Weft, HostOptions::default());
    mesh.launch(0, &Launch::new());
    let connect = || TcpStream::connect("127.0.0.1:6784").unwrap();
    for said in [
        &b"\0\0\0\0"[..],
        b"GET /status HTTP/9.9\r\n\r\n",
        b"POST /connect HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\nx",
        b"GET /report?format=%7B%7Brange HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET /report?format=%7B%7B.Router.Nothing.There%7D%7D HTTP/1.1\r\nhost: x\r\n\r\n",
        b"POST /expose/x/99 HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n",
    ] {
        let stream = mesh.namespace(0).run(connect).unwrap();
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        say(stream, said);
    }
    assert!(mesh.is_running(0));
    assert!(mesh.get(0, "/status").is_some());
}
