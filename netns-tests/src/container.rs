//! Containers: namespaces on the bridge of a host, and what they send each other.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use host::attach::{self, AttachRequest, INTERFACE};
use ipnet::Ipv4Net;
use kernel::netns::Namespace;
use kernel::sys::ethtool::{self, Offload};
use kernel::sys::packet::PacketSocket;
use lab::pinger::{PingOptions, Pinger};
use proto::types::Mac;
use sha2::{Digest, Sha256};

use crate::launch::MTU;
use crate::{Capture, Kind, Mesh, wait};

/// A container that is attached.
#[derive(Clone, Debug)]
pub struct Container {
    /// Its namespace.
    pub namespace: Namespace,
    /// Its address.
    pub address: Ipv4Addr,
    /// The MAC address of its interface.
    pub mac: Mac,
    index: u32,
}

impl Container {
    /// Attaches a namespace to the bridge of a host: by our command, or as a real router's users
    /// have it done.
    #[track_caller]
    pub fn attach(mesh: &Mesh, host: usize, namespace: Namespace, address: Ipv4Net) -> Container {
        match mesh.kind(host) {
            Kind::Weft | Kind::Sleeve => {
                let path = namespace.path().display().to_string();
                let said = mesh.weft(host, &["attach", &address.to_string(), &path]);
                assert_eq!(said.ok(), format!("{}\n", address.addr()));
            }
            Kind::Weaver => {
                let request = AttachRequest {
                    addresses: &[address],
                    mtu: Some(MTU),
                    ..AttachRequest::new("weave", &namespace)
                };
                let attached = mesh.namespace(host).run(|| attach::attach(&request));
                attached.unwrap().unwrap();
                // It takes frames as it finds them, so their checksums have to be complete.
                let off = || ethtool::set_offload(INTERFACE, Offload::TxChecksum, false);
                namespace.run(off).unwrap().unwrap();
            }
        }
        Container::found(namespace, address.addr())
    }

    /// Attaches a new container by our command, with an address that the router chooses. The
    /// error is what the command complained of.
    pub fn attach_by(mesh: &Mesh, host: usize, arguments: &[&str]) -> Result<Container, String> {
        let namespace = mesh.lab.new_container().unwrap();
        let path = namespace.path().display().to_string();
        let mut words = vec!["attach"];
        words.extend(arguments);
        words.push(&path);
        let ran = mesh.weft(host, &words);
        if !ran.status.success() {
            return Err(ran.stderr);
        }
        let address = ran.stdout.trim().parse().unwrap();
        Ok(Container::found(namespace, address))
    }

    /// Returns a container of an identity.
    #[track_caller]
    pub fn of(mesh: &Mesh, host: usize, identity: &str) -> Container {
        Container::attach_by(mesh, host, &["--identity", identity]).unwrap()
    }

    /// Takes the container off the network by our command, as one that ends.
    #[track_caller]
    pub fn detach(self, mesh: &Mesh, host: usize) {
        let path = self.namespace.path().display().to_string();
        assert_eq!(
            mesh.weft(host, &["detach", &path]).ok(),
            format!("{}\n", self.address)
        );
    }

    fn found(namespace: Namespace, address: Ipv4Addr) -> Container {
        let link = namespace.netlink().unwrap().link_named(INTERFACE).unwrap();
        Container {
            address,
            mac: link.mac.unwrap(),
            index: link.index.0,
            namespace,
        }
    }

    /// The same container by another of its addresses.
    #[must_use]
    pub fn with_address(&self, address: Ipv4Addr) -> Container {
        Container {
            address,
            ..self.clone()
        }
    }

    /// Panics unless this container gets an answer from another, in time.
    #[track_caller]
    pub fn must_reach(&self, to: &Container) {
        let time = self.reaches_within(to, wait::SOON);
        assert!(
            time.is_some(),
            "{} does not reach {}",
            self.address,
            to.address
        );
    }

    /// Returns how long it took to get an answer from another container.
    pub fn reaches_within(&self, to: &Container, time: Duration) -> Option<Duration> {
        let mut pinger = Pinger::new(&self.namespace).unwrap();
        let start = Instant::now();
        let interval = Duration::from_millis(100);
        let answer = pinger.wait_for(to.address, interval, start + time).unwrap();
        answer.map(|_| start.elapsed())
    }

    /// Returns true if another container answers a packet of this size, all IP headers included.
    pub fn ping(&self, to: &Container, packet_bytes: usize, dont_fragment: bool) -> bool {
        let mut pinger = Pinger::new(&self.namespace).unwrap();
        let options = PingOptions {
            payload_bytes: packet_bytes - 28,
            dont_fragment,
        };
        let answer = pinger.ping(to.address, options, Duration::from_secs(1));
        answer.unwrap().is_some()
    }

    /// Returns how many of so many pings are answered, one after the other.
    pub fn count_answers(&self, to: &Container, count: u32) -> u32 {
        (0..count).map(|_| u32::from(self.ping(to, 84, true))).sum()
    }

    /// Sends so many bytes over TCP and checks that they arrive unchanged.
    #[track_caller]
    pub fn send_tcp(&self, to: &Container, bytes: usize) {
        let listen = || TcpListener::bind((to.address, 0)).unwrap();
        let listener = to.namespace.run(listen).unwrap();
        let target = listener.local_addr().unwrap();
        let connect = || TcpStream::connect_timeout(&target, wait::SOON).unwrap();
        let mut out = self.namespace.run(connect).unwrap();
        let (mut into, _) = listener.accept().unwrap();
        out.set_write_timeout(Some(wait::LATER)).unwrap();
        into.set_read_timeout(Some(wait::LATER)).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut data = vec![0; bytes];
        random.fill(&mut data);
        let expected = Sha256::digest(&data);
        let sender = std::thread::spawn(move || {
            out.write_all(&data).unwrap();
            out.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::new();
        into.read_to_end(&mut received).unwrap();
        sender.join().unwrap();
        assert_eq!(received.len(), bytes);
        assert_eq!(Sha256::digest(&received), expected);
    }

    /// Sends UDP packets of a size until one arrives, and checks that it is unchanged.
    #[track_caller]
    pub fn send_udp(&self, to: &Container, payload_bytes: usize) {
        let sink = to.bind_udp((to.address, 0).into());
        let target = sink.local_addr().unwrap();
        let source = self.bind_udp((self.address, 0).into());
        exchange(&source, target, &sink, payload_bytes);
    }

    /// Sends UDP packets to a multicast group that another container has joined, until one
    /// arrives.
    #[track_caller]
    pub fn send_multicast(&self, to: &Container, payload_bytes: usize) {
        let group = Ipv4Addr::new(239, 7, 7, 7);
        let sink = to.bind_udp((Ipv4Addr::UNSPECIFIED, 7777).into());
        let join = || sink.join_multicast_v4(&group, &to.address).unwrap();
        to.namespace.run(join).unwrap();
        let source = self.bind_udp((self.address, 0).into());
        source.set_multicast_ttl_v4(4).unwrap();
        exchange(&source, (group, 7777).into(), &sink, payload_bytes);
    }

    /// Sends UDP packets over IPv6 to another container, until one arrives.
    #[track_caller]
    pub fn send_ipv6(&self, to: &Container, payload_bytes: usize) {
        let at = |container: &Container, port| {
            SocketAddr::from(SocketAddrV6::new(
                container.link_local(),
                port,
                0,
                container.index,
            ))
        };
        let sink = to.bind_udp(at(to, 0));
        let port = sink.local_addr().unwrap().port();
        let source = self.bind_udp(at(self, 0));
        let target = SocketAddrV6::new(to.link_local(), port, 0, self.index);
        exchange(&source, target.into(), &sink, payload_bytes);
    }

    /// Returns a socket for whole frames on the container's interface, for sending.
    pub fn frames(&self) -> PacketSocket {
        let open = || PacketSocket::open(self.index, false).unwrap();
        self.namespace.run(open).unwrap()
    }

    /// Captures what passes the container's interface from now on.
    pub fn capture(&self) -> Capture {
        Capture::start(&self.namespace, INTERFACE)
    }

    /// Returns the address that the interface gives itself (RFC 4291, appendix A).
    fn link_local(&self) -> Ipv6Addr {
        let [a, b, c, d, e, f] = *self.mac.as_bytes();
        Ipv6Addr::from([
            0xfe,
            0x80,
            0,
            0,
            0,
            0,
            0,
            0,
            a ^ 2,
            b,
            c,
            0xff,
            0xfe,
            d,
            e,
            f,
        ])
    }

    /// Opens a socket, when its address has become usable: one of IPv6 is not at once.
    #[track_caller]
    fn bind_udp(&self, address: SocketAddr) -> UdpSocket {
        let bind = || self.namespace.run(|| UdpSocket::bind(address)).unwrap();
        let socket = wait::until(&format!("{address} can be used"), wait::SOON, || {
            bind().ok()
        });
        socket
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        socket
    }
}

/// Sends until something arrives, which must be what was sent.
#[track_caller]
fn exchange(source: &UdpSocket, target: SocketAddr, sink: &UdpSocket, payload_bytes: usize) {
    let mut payload = vec![0; payload_bytes];
    fastrand::Rng::with_seed(9).fill(&mut payload);
    let mut buffer = vec![0; payload_bytes + 1];
    let what = format!("{payload_bytes} bytes arrive at {target}");
    let length = wait::until(&what, wait::SOON, || {
        // An earlier packet may have been answered by an error.
        let _ = source.send_to(&payload, target);
        sink.recv(&mut buffer).ok()
    });
    assert_eq!(&buffer[..length], payload);
}
