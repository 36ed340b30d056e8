//! Checks of frames' senders: frames in the name of others, or of a router or DHCP server, are
//! dropped.

use std::net::Ipv4Addr;

use proto::ethernet::{ETHERTYPE_ARP, Frame, PROTOCOL_ICMPV6, PROTOCOL_UDP};
use proto::types::{Mac, PeerName};

use boundary::counters::DropReason;
use boundary::snapshot::Snapshot;

/// Rules for frames from containers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct GuardRules {
    /// Whether containers of this host may use only addresses that they were given. Else they may
    /// use any that belong to nobody: virtual machines and shared addresses need it.
    pub strict: bool,
    /// Whether containers may be routers for IPv6.
    pub allow_router_advertisements: bool,
    /// Whether containers may be DHCP servers.
    pub allow_dhcp_servers: bool,
}

const ROUTER_ADVERTISEMENT: u8 = 134;
const DHCP_SERVER: [u8; 2] = 67_u16.to_be_bytes();
const DHCPV6_SERVER: [u8; 2] = 547_u16.to_be_bytes();

/// Checks what a frame that was captured at a peer claims to be.
#[inline]
pub(crate) fn check(
    rules: GuardRules,
    snapshot: &Snapshot,
    at: PeerName,
    frame: &Frame<'_>,
) -> Result<(), DropReason> {
    let us = snapshot.forwarding().us();
    let is_strict = rules.strict && at == us;
    match owner_of(snapshot, frame.source()) {
        Some(owner) if owner != at => return Err(DropReason::SpoofedMac),
        None if is_strict => return Err(DropReason::NotOwn),
        _ => {}
    }
    // What is in a VLAN of containers' own has addresses of its own.
    if frame.is_tagged() {
        return Ok(());
    }
    if let Some(address) = sender_address(frame) {
        match snapshot.owners().of_address(address) {
            Some(owner) if owner != at => return Err(DropReason::SpoofedAddress),
            None if is_strict && !address.is_unspecified() && frame.source() != us.to_mac() => {
                return Err(DropReason::NotOwn);
            }
            _ => {}
        }
    }
    check_services(rules, frame)
}

/// Returns the peer that a MAC address belongs to. Bridges have the addresses that their hosts'
/// names are made of.
#[inline]
fn owner_of(snapshot: &Snapshot, mac: Mac) -> Option<PeerName> {
    snapshot.owners().of_mac(mac).or_else(|| {
        let host = PeerName::from_bytes(*mac.as_bytes());
        snapshot.forwarding().knows(host).then_some(host)
    })
}

/// Returns the IPv4 address that a frame claims to be from.
#[inline]
fn sender_address(frame: &Frame<'_>) -> Option<Ipv4Addr> {
    if let Some(ip) = frame.ipv4() {
        return Some(ip.source().into());
    }
    if frame.ethertype() != ETHERTYPE_ARP {
        return None;
    }
    let &[a, b, c, d] = frame.network().get(14..18)? else {
        return None;
    };
    Some(Ipv4Addr::new(a, b, c, d))
}

/// Checks that a frame offers none of the services that a container may not offer.
#[inline]
fn check_services(rules: GuardRules, frame: &Frame<'_>) -> Result<(), DropReason> {
    let (is_fragment, protocol, payload) = if let Some(ip) = frame.ipv4() {
        // Only the first fragment has ports.
        let is_later = ip.flags_and_offset() & 0x1fff != 0;
        (is_later, ip.protocol(), ip.payload())
    } else if let Some(ip) = frame.ipv6() {
        (false, ip.protocol(), ip.payload())
    } else {
        return Ok(());
    };
    if is_fragment {
        return Ok(());
    }
    match (protocol, payload) {
        (PROTOCOL_ICMPV6, [ROUTER_ADVERTISEMENT, ..]) if !rules.allow_router_advertisements => {
            Err(DropReason::RouterAdvertisement)
        }
        (PROTOCOL_UDP, [high, low, ..])
            if matches!([*high, *low], DHCP_SERVER | DHCPV6_SERVER)
                && !rules.allow_dhcp_servers =>
        {
            Err(DropReason::DhcpServer)
        }
        _ => Ok(()),
    }
}
