//! Access control: the clients whose queries for other names are forwarded.
//!
//! A server on all addresses of a host is reached by everybody who reaches the host. Were it to
//! answer everybody, it could be used to flood third parties, and would tell strangers who is on the
//! network. So a client with a
//! public address is refused, unless it is the host itself or one of the zone's own addresses.

use std::net::IpAddr;

use ipnet::Ipv4Net;

/// Returns true if a client is of this host or its private surroundings. `local` is the address
/// that it asked.
pub(super) fn is_near(client: IpAddr, local: Option<IpAddr>, own: &[Ipv4Net]) -> bool {
    let client = client.to_canonical();
    if local.is_some_and(|local| local.to_canonical() == client) {
        return true;
    }
    match client {
        IpAddr::V4(client) => {
            let [a, b, ..] = client.octets();
            // RFC 6598: shared by the customers of a carrier.
            let is_shared = a == 100 && b & 0xc0 == 64;
            client.is_loopback()
                || client.is_private()
                || client.is_link_local()
                || is_shared
                || own.iter().any(|net| net.contains(&client))
        }
        IpAddr::V6(client) => {
            client.is_loopback() || client.is_unique_local() || client.is_unicast_link_local()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_public_is_far() {
        let own = ["198.18.0.0/16".parse().unwrap()];
        let near = |client: &str, local: Option<&str>| {
            let local = local.map(|local| local.parse().unwrap());
            is_near(client.parse().unwrap(), local, &own)
        };
        for client in [
            "127.0.0.1",
            "10.7.0.5",
            "172.17.0.2",
            "192.168.1.1",
            "169.254.9.9",
            "100.64.0.1",
            "198.18.3.3",
            "::1",
            "fe80::1",
            "fd00::1",
            "::ffff:10.7.0.5",
        ] {
            assert!(near(client, None), "{client}");
        }
        for client in [
            "8.8.8.8",
            "100.128.0.1",
            "172.32.0.1",
            "2001:db8::1",
            "::ffff:8.8.8.8",
        ] {
            assert!(!near(client, Some("203.0.113.1")), "{client}");
        }
        assert!(near("203.0.113.1", Some("203.0.113.1")));
    }
}
