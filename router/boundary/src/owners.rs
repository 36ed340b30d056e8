//! To which peers addresses belong, as far as the mesh knows.

use std::net::Ipv4Addr;

use proto::types::{Mac, PeerName};

/// The addresses of leases, attachments and hosts, each with the peer that has it. What is not in
/// here belongs to nobody in particular and may be anywhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Owners {
    macs: Box<[(Mac, PeerName)]>,
    addresses: Box<[(Ipv4Addr, PeerName)]>,
}

impl Owners {
    /// Owners of MAC addresses and of IPv4 addresses. Those that are given to several peers, as while
    /// one moves from one to the other, are left out.
    pub fn new(macs: Vec<(Mac, PeerName)>, addresses: Vec<(Ipv4Addr, PeerName)>) -> Owners {
        Owners {
            macs: undisputed(macs),
            addresses: undisputed(addresses),
        }
    }

    /// Returns the peer that a MAC address belongs to.
    #[inline]
    pub fn of_mac(&self, mac: Mac) -> Option<PeerName> {
        find(&self.macs, mac)
    }

    /// Returns the peer that an IPv4 address belongs to.
    #[inline]
    pub fn of_address(&self, address: Ipv4Addr) -> Option<PeerName> {
        find(&self.addresses, address)
    }
}

fn undisputed<K: Ord + Copy>(mut owners: Vec<(K, PeerName)>) -> Box<[(K, PeerName)]> {
    owners.sort();
    owners.dedup();
    let groups = owners.chunk_by(|a, b| a.0 == b.0);
    let undisputed = groups.filter(|group| group.len() == 1);
    undisputed.flatten().copied().collect()
}

#[inline]
fn find<K: Ord + Copy>(owners: &[(K, PeerName)], key: K) -> Option<PeerName> {
    let place = owners.binary_search_by_key(&key, |owner| owner.0);
    owners.get(place.ok()?).map(|owner| owner.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_several_peers_have_belongs_to_none() {
        let [a, b] = [1, 2].map(|n| PeerName::from_bytes([n; 6]));
        let mac = |n| Mac::from_bytes([2, 0, 0, 0, 0, n]);
        let address = |n| Ipv4Addr::new(10, 7, 0, n);
        let owners = Owners::new(
            vec![
                (mac(2), b),
                (mac(1), a),
                (mac(3), a),
                (mac(3), b),
                (mac(1), a),
            ],
            vec![(address(9), b), (address(1), a), (address(9), a)],
        );
        assert_eq!(
            [1, 2, 3, 4].map(|n| owners.of_mac(mac(n))),
            [Some(a), Some(b), None, None]
        );
        assert_eq!(
            [1, 9].map(|n| owners.of_address(address(n))),
            [Some(a), None]
        );
        assert_eq!(Owners::default().of_mac(mac(1)), None);
    }
}
