//! Cutting connections so that both ends notice at once.
//!
//! A network that only falls silent is noticed after a minute. To see what happens after that
//! without waiting for it, both ends of the mesh's TCP connections are sent a reset in the name
//! of the other, which takes the sequence numbers of the last segments that passed.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use kernel::netns::Namespace;
use kernel::sys::packet::PacketSocket;

use crate::frame::{self, TCP};
use crate::{Capture, Mesh, wait};

/// Watches the mesh's TCP connections of all hosts.
#[derive(Debug)]
pub struct Cutter {
    captures: Vec<Capture>,
}

impl Cutter {
    /// Watches from now on; to be called before the routers are started.
    pub fn start(mesh: &Mesh) -> Cutter {
        let is_mesh =
            |frame: &[u8]| frame::ports(frame, TCP).is_some_and(|ports| ports.contains(&6783));
        let hosts = mesh.lab.hosts().iter();
        let captures = hosts.map(|host| Capture::of(&host.namespace, "eth0", is_mesh));
        Cutter {
            captures: captures.collect(),
        }
    }

    /// Ends all connections between two hosts, and lets no packet pass between them any more.
    /// For meshes without discovery: with it, routers would dial again before that.
    #[track_caller]
    pub fn cut(&self, mesh: &mut Mesh, a: usize, b: usize) {
        self.reset(mesh, a, b);
        wait::until_true("the connections are reset", wait::SOON, || {
            !mesh.is_connected(a, b) && !mesh.is_connected(b, a)
        });
        mesh.lab.block(a, b).unwrap();
    }

    /// Ends all connections between groups of hosts, and lets no packet pass between them any
    /// more.
    #[track_caller]
    pub fn partition(&self, mesh: &mut Mesh, groups: &[&[usize]]) {
        mesh.lab.partition(groups).unwrap();
        for (number, group) in groups.iter().enumerate() {
            for other in &groups[number + 1..] {
                for (a, b) in group
                    .iter()
                    .flat_map(|a| other.iter().map(move |b| (*a, *b)))
                {
                    self.reset(mesh, a, b);
                }
            }
        }
    }

    /// Ends all connections between two hosts, without asking whether packets pass: the switch
    /// sends the resets.
    #[track_caller]
    fn reset(&self, mesh: &Mesh, a: usize, b: usize) {
        for (from, to) in [(a, b), (b, a)] {
            let addresses = [mesh.address(from), mesh.address(to)];
            // The last segment of each connection that has arrived, by its ports.
            let mut last: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for segment in self.captures[to].all(|frame| is_on_way(frame, addresses)) {
                last.insert(segment[34..38].to_vec(), segment);
            }
            let socket = port(mesh.lab.switch(), to);
            for segment in last.values() {
                socket.send(&reset_after(segment)).unwrap();
            }
        }
    }
}

/// Returns the switch's end of the link of a host.
fn port(switch: &Namespace, host: usize) -> PacketSocket {
    let name = format!("port{host}");
    let link = switch.netlink().unwrap().link_named(&name).unwrap();
    let open = || PacketSocket::open(link.index.0, false).unwrap();
    switch.run(open).unwrap()
}

fn is_on_way(frame: &[u8], [from, to]: [Ipv4Addr; 2]) -> bool {
    frame[26..30] == from.octets() && frame[30..34] == to.octets()
}

/// Returns the reset that follows a segment, whose IP header has no options.
fn reset_after(segment: &[u8]) -> Vec<u8> {
    assert_eq!(segment[14], 0x45, "IP options");
    let total = usize::from(u16::from_be_bytes([segment[16], segment[17]]));
    let tcp = &segment[34..];
    let header = usize::from(tcp[12] >> 4) * 4;
    let flags = tcp[13];
    let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
    let payload = u32::try_from(total - 20 - header).unwrap();
    // SYN and FIN count as well.
    let next = sequence.wrapping_add(payload + u32::from(flags & 1) + u32::from(flags >> 1 & 1));

    let mut reset = segment[..54].to_vec();
    reset[16..18].copy_from_slice(&40_u16.to_be_bytes());
    reset[24..26].fill(0);
    let checksum = internet_checksum(&reset[14..34], 0);
    reset[24..26].copy_from_slice(&checksum.to_be_bytes());
    reset[38..42].copy_from_slice(&next.to_be_bytes());
    reset[46] = 5 << 4;
    // RST, with the acknowledgement that the segment had.
    reset[47] = 0x14;
    reset[50..54].fill(0);
    let pseudo: u32 = reset[26..34]
        .chunks(2)
        .map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])))
        .sum();
    let checksum = internet_checksum(&reset[34..54], pseudo + u32::from(TCP) + 20);
    reset[50..52].copy_from_slice(&checksum.to_be_bytes());
    reset
}

/// RFC 1071, of an even number of bytes.
fn internet_checksum(bytes: &[u8], start: u32) -> u16 {
    let words = bytes.chunks(2);
    let words = words.map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]])));
    let mut sum = start + words.sum::<u32>();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}
