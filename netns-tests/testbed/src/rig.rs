//! Data planes that are joined by hand, without control, for tests and benchmarks: hosts of a lab,
//! each with a bridge, a TAP device and a container, and links between those that are to be
//! neighbours.

use std::collections::BTreeSet;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddrV4, UdpSocket};
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipnet::{Ipv4Net, Ipv6Net};
use proto::crypto::SessionKey;
use proto::routes::Routes;
use proto::sleeve::{LinkId, Tunnel, TunnelConfig};
use proto::switch::{Forwarding, PeerSlots};
use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{PeerName, PeerUid, Time};

use boundary::forwarding_event::Events;
use boundary::snapshot::{Encap, Link, Snapshot};
use dataplane::guard::GuardRules;
use dataplane::plane::{DataConfig, DataPlane};
use dataplane::tap::{Tap, TapConfig};
use dataplane::udp::sockets::{Sockets, UdpConfig};
use kernel::netlink::{LinkChange, NewBridge, NewVeth, VethPeer};
use kernel::netns::Namespace;
use lab::host::{HostOptions, Lab};

pub use crate::native_ends::NativeEnd;
use crate::native_ends::{EndConfig, NativeEnds};

/// Whatever went wrong while a trial was set up.
pub type TrialError = Box<dyn Error + Send + Sync>;

/// The name of the TAP device on each host.
pub const TAP: &str = "vethwe-tap";
/// The name of the bridge on each host.
pub const BRIDGE: &str = "weave";
const PORT: u16 = 6783;

/// How planes are to be made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Whether links are native; else they are sleeve.
    pub native: bool,
    /// The key of all sleeve links; plain packets without.
    pub key: Option<[u8; 32]>,
    /// MTU of TAP devices and of containers that have none of their own, in bytes.
    pub mtu: u32,
    /// MTU of the containers of the first hosts, in bytes.
    pub container_mtus: Vec<u32>,
    /// The MTU that planes trust containers of other hosts to have, in bytes; none for any.
    pub trusted_mtu: Option<u32>,
    /// What containers may send.
    pub guard: GuardRules,
    /// MTU of the links between hosts, in bytes.
    pub underlay_mtu: u32,
    /// Path MTU that the links know from the start; none lets them send packets of any size.
    pub path_mtu: Option<usize>,
    /// Segmentation by the kernel on sending.
    pub gso: bool,
    /// Putting together by the kernel on receiving.
    pub gro: bool,
    /// Super-frames and open checksums from the TAP device.
    pub offload: bool,
    /// Joining of received segments.
    pub join: bool,
    /// Queues of each plane.
    pub queues: u16,
    /// Limit of packets back to back; zero for none.
    pub burst_packets: u16,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            native: false,
            key: Some([7; 32]),
            mtu: 1376,
            container_mtus: Vec::new(),
            trusted_mtu: None,
            guard: GuardRules::default(),
            underlay_mtu: 1500,
            path_mtu: Some(1500),
            gso: true,
            gro: true,
            offload: true,
            join: true,
            queues: 1,
            burst_packets: 0,
        }
    }
}

/// A data plane with its container.
pub struct Host {
    /// The running plane.
    pub plane: DataPlane,
    /// What it tells.
    pub events: Events,
    /// Its sleeve links, in order of neighbours; native ones have theirs beside them.
    pub tunnels: Vec<Arc<Tunnel>>,
    /// Its native links, in order of neighbours; none if links are sleeve.
    pub natives: Vec<NativeEnd>,
    /// The namespace of the container: `eth0` is a port of the bridge.
    pub container: Namespace,
}

impl Host {
    /// Makes a link assume this path MTU, in bytes of IP packet.
    pub fn set_path_mtu(&self, link: usize, path_mtu: usize) {
        let max_payload = path_mtu - IP_UDP_BYTES;
        match self.natives.get(link) {
            Some(native) => native.link.tunnel.set_max_payload(max_payload),
            None => {
                let tunnel = &self.tunnels[link];
                tunnel.set_limits(path_mtu - tunnel.overhead(), max_payload);
            }
        }
    }

    /// Returns the largest packet that fits a link in one piece, in bytes of IP.
    pub fn link_mtu(&self, link: usize) -> usize {
        match self.natives.get(link) {
            Some(native) => native.link.tunnel.mtu(),
            None => self.tunnels[link].mtu(),
        }
    }

    /// Makes a link send to another address, or to none. Returns the one before.
    pub fn set_remote(&self, link: usize, remote: Option<SocketAddrV4>) -> Option<SocketAddrV4> {
        match self.natives.get(link) {
            Some(native) => {
                let before = native.link.tunnel.remote();
                native.link.tunnel.set_remote(remote);
                before
            }
            None => {
                let before = self.tunnels[link].remote();
                self.tunnels[link].set_remote(remote);
                before
            }
        }
    }

    /// Returns the handle of a link.
    pub fn link_id(&self, link: usize) -> LinkId {
        match self.natives.get(link) {
            Some(native) => native.link.tunnel.id(),
            None => self.tunnels[link].id(),
        }
    }
}

/// Hosts whose planes are joined.
pub struct Trial {
    /// The hosts with their planes.
    pub hosts: Vec<Host>,
    /// The network that they are in.
    pub lab: Lab,
    options: Options,
    edges: Vec<(usize, usize)>,
    natives: NativeEnds,
}

impl Trial {
    /// Planes on `count` hosts, of which those that `edges` name are neighbours.
    pub fn new(
        count: usize,
        edges: &[(usize, usize)],
        options: &Options,
    ) -> Result<Trial, TrialError> {
        let mut lab = Lab::new(None)?;
        for _ in 0..count {
            lab.add_host(HostOptions {
                mtu: options.underlay_mtu,
                ..HostOptions::default()
            })?;
        }
        let mut trial = Trial {
            hosts: Vec::new(),
            lab,
            options: options.clone(),
            edges: edges.to_vec(),
            natives: NativeEnds::default(),
        };
        if options.native {
            trial.make_natives()?;
        }
        for number in 0..count {
            let host = trial.add_plane(number)?;
            trial.hosts.push(host);
        }
        Ok(trial)
    }

    /// Two planes that are neighbours.
    pub fn pair(options: &Options) -> Result<Trial, TrialError> {
        Trial::new(2, &[(0, 1)], options)
    }

    /// Planes in a line: each is a neighbour of the next.
    pub fn line(count: usize, options: &Options) -> Result<Trial, TrialError> {
        let edges: Vec<_> = (1..count).map(|number| (number - 1, number)).collect();
        Trial::new(count, &edges, options)
    }

    /// Returns the IPv4 address of a container.
    pub fn address(number: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 7, 0, small(number) + 1)
    }

    /// Returns the IPv6 address of a container.
    pub fn address6(number: usize) -> Ipv6Addr {
        Ipv6Addr::new(0xfd07, 0, 0, 0, 0, 0, 0, u16::from(small(number)) + 1)
    }

    /// Returns both addresses of a container.
    pub fn addresses(number: usize) -> [IpAddr; 2] {
        [
            Trial::address(number).into(),
            Trial::address6(number).into(),
        ]
    }

    /// Stops the plane of a host and starts it again with other options, on the device that is
    /// there. What tunnels knew is forgotten on this side only.
    pub fn restart(&mut self, number: usize, options: &Options) -> Result<(), TrialError> {
        self.options = options.clone();
        let host = self.hosts.remove(number);
        host.plane.stop();
        let running = self.start_plane(number)?;
        self.hosts.insert(number, running.on(host.container));
        Ok(())
    }

    /// Stops the plane of a host, which must be the last one, and opens a plain socket in its
    /// place.
    pub fn replace_by_socket(&mut self, number: usize) -> Result<UdpSocket, TrialError> {
        self.hosts.remove(number).plane.stop();
        let namespace = &self.lab.hosts()[number].namespace;
        Ok(namespace.run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, PORT)))??)
    }

    /// Gives a host another snapshot with the links that it has.
    pub fn publish(&self, number: usize) -> Result<(), TrialError> {
        let tunnels = &self.hosts[number].tunnels;
        self.hosts[number]
            .plane
            .publish(self.snapshot(number, tunnels)?);
        Ok(())
    }

    /// Makes the ends of all native links.
    fn make_natives(&mut self) -> Result<(), TrialError> {
        let path_mtu = self.options.path_mtu;
        let max_payload = path_mtu.map_or(usize::MAX, |path_mtu| path_mtu - IP_UDP_BYTES);
        for here in 0..self.lab.hosts().len() {
            for there in self.neighbours(here) {
                let config = EndConfig {
                    here,
                    there,
                    names: (name(here), name(there)),
                    remote: SocketAddrV4::new(self.lab.hosts()[there].address, PORT),
                    max_payload,
                };
                if !self.natives.add(&config) {
                    return Err("the cipher refuses the keys of the trial".into());
                }
            }
        }
        Ok(())
    }

    fn add_plane(&self, number: usize) -> Result<Host, TrialError> {
        let own = self.options.container_mtus.get(number);
        let mtu = own.copied().unwrap_or(self.options.mtu);
        let container = bridge_with_container(&self.lab, number, mtu)?;
        Ok(self.start_plane(number)?.on(container))
    }

    /// Starts a plane in the namespace of its host and makes its device a port of the bridge.
    fn start_plane(&self, number: usize) -> Result<Running, TrialError> {
        let namespace = &self.lab.hosts()[number].namespace;
        let tunnels = self.tunnels(number);
        let snapshot = self.snapshot(number, &tunnels)?;
        let options = &self.options;
        let start = || -> Result<(DataPlane, Events), TrialError> {
            let tap = Tap::open(&TapConfig {
                name: TAP.to_owned(),
                queues: options.queues,
                offload: options.offload,
            })?;
            let sockets = Sockets::open(&UdpConfig {
                local: SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, PORT),
                queues: options.queues,
                gso: options.gso,
                gro: options.gro,
            })?;
            let config = DataConfig {
                epoch: Instant::now(),
                mac_key: number as u64,
                join: options.join,
                container_mtu: options.trusted_mtu,
                guard: options.guard,
            };
            Ok(DataPlane::start(&config, tap, sockets, snapshot)?)
        };
        let (plane, events) = namespace.run(start)??;
        let netlink = namespace.netlink()?;
        let bridge = netlink.link_named(BRIDGE)?;
        let change = LinkChange {
            mtu: Some(options.mtu),
            master: Some(Some(bridge.index)),
            up: Some(true),
            ..LinkChange::default()
        };
        netlink.change_link(&netlink.link_named(TAP)?, &change)?;
        Ok(Running {
            plane,
            events,
            tunnels,
            natives: self.natives.of(number).cloned().collect(),
        })
    }

    /// Returns the tunnels of a host to its neighbours, in order of names.
    fn tunnels(&self, number: usize) -> Vec<Arc<Tunnel>> {
        let tunnel = |&neighbour: &usize| {
            let tunnel = Tunnel::new(TunnelConfig {
                id: LinkId(neighbour as u64),
                us: name(number),
                peer: name(neighbour),
                key: self.options.key.map(SessionKey::from_bytes),
                dialled: number < neighbour,
                remote: Some(SocketAddrV4::new(self.lab.hosts()[neighbour].address, PORT)),
            });
            if let Some(path_mtu) = self.options.path_mtu {
                tunnel.set_limits(path_mtu - tunnel.overhead(), path_mtu - IP_UDP_BYTES);
            }
            Arc::new(tunnel)
        };
        self.neighbours(number).iter().map(tunnel).collect()
    }

    fn snapshot(&self, number: usize, tunnels: &[Arc<Tunnel>]) -> Result<Snapshot, TrialError> {
        let topology = self.topology(number)?;
        let routes = Arc::new(Routes::calculate(&topology));
        let mut slots = PeerSlots::new(name(number));
        slots.update(Time::ZERO, routes.peers());
        let peers: Vec<PeerName> = tunnels.iter().map(|tunnel| tunnel.peer()).collect();
        let forwarding = Forwarding::new(routes, &slots, &peers);
        let links = self.neighbours(number).into_iter().zip(tunnels);
        let link = |(neighbour, tunnel): (usize, &Arc<Tunnel>)| Link {
            peer: tunnel.peer(),
            encap: match self.natives.get(number, neighbour) {
                Some(end) => Encap::Native(end.link.clone()),
                None => Encap::Sleeve(Arc::clone(tunnel)),
            },
            burst_packets: self.options.burst_packets,
        };
        let links = links.map(link).collect();
        let sessions = self.natives.of(number).map(|end| end.session.clone());
        Ok(Snapshot::new(forwarding, links, tunnels.to_vec()).with_sessions(sessions.collect()))
    }

    /// Returns what a host knows of the mesh: all connections, all established.
    fn topology(&self, number: usize) -> Result<Topology, TrialError> {
        let address = SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT);
        let connection = |&neighbour: &usize| Connection {
            remote: name(neighbour),
            address: Address::V4(address),
            outbound: true,
            established: true,
        };
        let peer = |other: usize| Peer {
            name: name(other),
            nickname: Box::default(),
            uid: PeerUid(other as u64 + 1),
            version: 1,
            short_id: None,
            connections: self.neighbours(other).iter().map(connection).collect(),
        };
        let others: Vec<Peer> = (0..self.lab.hosts().len())
            .filter(|&other| other != number)
            .map(peer)
            .collect();
        let rng = fastrand::Rng::with_seed(number as u64);
        let mut topology = Topology::new(name(number), "", PeerUid(number as u64 + 1), None, rng);
        topology.merge(&encode_update(&others))?;
        for neighbour in self.neighbours(number) {
            topology.add_connection(name(neighbour), address.into(), true);
            topology.establish_connection(name(neighbour));
        }
        Ok(topology)
    }

    fn neighbours(&self, number: usize) -> BTreeSet<usize> {
        let ends = self.edges.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
        ends.filter(|&(a, _)| a == number).map(|(_, b)| b).collect()
    }
}

/// Makes a bridge on a host of a lab, and a container whose `eth0` is a port of it.
pub fn bridge_with_container(lab: &Lab, number: usize, mtu: u32) -> Result<Namespace, TrialError> {
    let container = lab.new_container()?;
    let netlink = lab.hosts()[number].namespace.netlink()?;
    netlink.create_bridge(&NewBridge {
        name: BRIDGE,
        mac: None,
    })?;
    let bridge = netlink.link_named(BRIDGE)?;
    netlink.create_veth(&NewVeth {
        name: "vethwepl0",
        index: None,
        mtu,
        master: Some(bridge.index),
        peer: VethPeer {
            name: "eth0",
            index: None,
            mac: None,
            namespace: Some(std::os::fd::AsFd::as_fd(&container)),
        },
    })?;
    netlink.set_up(&bridge, true)?;
    netlink.set_up(&netlink.link_named("vethwepl0")?, true)?;
    let inside = container.netlink()?;
    // Addresses are usable at once, without looking for duplicates first.
    container.set_sysctl("ipv6/conf/eth0/accept_dad", "0")?;
    let link = inside.link_named("eth0")?;
    let v4 = Ipv4Net::new_assert(Trial::address(number), 16);
    let v6 = Ipv6Net::new_assert(Trial::address6(number), 64);
    inside.add_address(&link, v4.into())?;
    inside.set_up(&link, true)?;
    inside.add_address(&link, v6.into())?;
    Ok(container)
}

/// Returns the peer on a host.
pub fn name(number: usize) -> PeerName {
    PeerName::from_bytes([0x7a, 0, 0, 0, 0, small(number) + 1])
}

fn small(number: usize) -> u8 {
    u8::try_from(number).unwrap_or(u8::MAX - 1)
}

/// Waits until `condition` holds; whether it did within some seconds.
pub fn wait_until(mut condition: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        if Instant::now() > deadline {
            return false;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    true
}

struct Running {
    plane: DataPlane,
    events: Events,
    tunnels: Vec<Arc<Tunnel>>,
    natives: Vec<NativeEnd>,
}

impl Running {
    fn on(self, container: Namespace) -> Host {
        Host {
            plane: self.plane,
            events: self.events,
            tunnels: self.tunnels,
            natives: self.natives,
            container,
        }
    }
}

/// Size in bytes of the headers of IP and UDP.
const IP_UDP_BYTES: usize = proto::sleeve::wire::UDP_IP_BYTES;
