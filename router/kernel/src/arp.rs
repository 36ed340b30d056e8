//! ARP: announcing addresses, and how soon neighbours doubt what they know.

use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use proto::types::Mac;

use super::netlink::Link;
use super::sysctl;
use crate::error::NetError;
use crate::sys::packet::PacketSocket;

/// Announces `addresses` as being at this link, which is in the calling thread's namespace. Those
/// who know one of them under another MAC address correct themselves.
pub fn announce(link: &Link, addresses: &[Ipv4Addr]) -> Result<(), NetError> {
    let (Some(mac), Some(first)) = (link.mac, addresses.first()) else {
        return Ok(());
    };
    let failed = |e: &_| NetError::io(format!("announce {first} on {}", link.name), e);
    let socket = PacketSocket::open(link.index.0, false).map_err(|e| failed(&e))?;
    let sent = addresses
        .iter()
        .try_for_each(|address| socket.send(&announcement(mac, *address)));
    // Closing waits until no processor can be using the socket, some 10 ms (packet_release in
    // net/packet/af_packet.c), and nobody has to wait for that.
    thread::Builder::new()
        .name("close".into())
        .spawn(move || drop(socket))
        .map_err(|e| failed(&e))?;
    sent.map_err(|e| failed(&e))
}

/// Times for which an interface trusts what it knows of a neighbour, and how it asks again.
///
/// An address that moves to another host is announced there, but the announcement may get lost;
/// then these times say how long others go on sending to the old place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NeighbourTiming {
    /// Mean time for which a confirmed neighbour is trusted. The kernel draws a value between
    /// half and one and a half of it.
    pub reachable: Duration,
    /// Time for which a doubted neighbour that is sent to may confirm itself before it is asked.
    /// Whole seconds.
    pub first_probe_delay: Duration,
    /// Number of unicast requests to a neighbour before a broadcast one.
    pub direct_probes: u32,
}

impl Default for NeighbourTiming {
    /// The kernel trusts for 30 s, waits 5 s and asks directly three times, so a lost
    /// announcement can cost a minute. Weave trusts for 5 s, at the price of one ARP exchange per
    /// pair of containers every few seconds. Between them: at most 22.5 s + 2 s + 1 s.
    fn default() -> NeighbourTiming {
        NeighbourTiming {
            reachable: Duration::from_secs(15),
            first_probe_delay: Duration::from_secs(2),
            direct_probes: 1,
        }
    }
}

impl NeighbourTiming {
    /// Sets these times for IPv4 on `interface` of the calling thread's namespace.
    pub fn apply(&self, interface: &str) -> Result<(), NetError> {
        let set = |key, value: u128| {
            let key = format!("ipv4/neigh/{interface}/{key}");
            sysctl::set(&key, &value.to_string())
        };
        set("base_reachable_time_ms", self.reachable.as_millis())?;
        let delay = self.first_probe_delay.as_secs();
        set("delay_first_probe_time", delay.into())?;
        set("ucast_solicit", self.direct_probes.into())
    }
}

/// Returns an ARP request for our own address (RFC 5227, section 3): Ethernet header, then hardware
/// type 1, protocol 0x0800, lengths 6 and 4, operation 1, sender and target.
fn announcement(mac: Mac, address: Ipv4Addr) -> [u8; 42] {
    let mut frame = [0; 42];
    frame[..6].copy_from_slice(Mac::BROADCAST.as_bytes());
    frame[6..12].copy_from_slice(mac.as_bytes());
    frame[12..22].copy_from_slice(&[0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1]);
    frame[22..28].copy_from_slice(mac.as_bytes());
    frame[28..32].copy_from_slice(&address.octets());
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn announcement_asks_for_its_own_address() {
        let mac = Mac::from_bytes([2, 0, 0, 0, 0, 1]);
        let frame = announcement(mac, Ipv4Addr::new(10, 7, 0, 1));
        let arp = etherparse::ArpPacketSlice::from_slice(&frame[14..]).unwrap();
        assert_eq!(arp.operation(), etherparse::ArpOperation::REQUEST);
        assert_eq!(arp.sender_hw_addr(), mac.as_bytes());
        assert_eq!(arp.sender_protocol_addr(), [10, 7, 0, 1]);
        assert_eq!(arp.target_protocol_addr(), [10, 7, 0, 1]);
        let ethernet = etherparse::Ethernet2HeaderSlice::from_slice(&frame).unwrap();
        assert_eq!(ethernet.destination(), *Mac::BROADCAST.as_bytes());
        assert_eq!(ethernet.ether_type(), etherparse::EtherType::ARP);
    }
}
