//! Peers as users write them, and their addresses.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use proto::connector::Target;

/// Maximum time for resolving a name.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(10);

/// Checks the form `HOST[:PORT]` of a peer, in Weave Net's words.
pub fn check_peer(peer: &str) -> Result<(), String> {
    let (host, port) = match peer.split_once(':') {
        None => (peer, None),
        Some((host, port)) => (host, Some(port)),
    };
    if port.is_some_and(|port| port.contains(':')) {
        return Err(format!("address {peer}:0: too many colons in address"));
    }
    if host.is_empty() {
        return Err(format!("address {peer}: missing host in address"));
    }
    match port.map(str::parse::<u16>) {
        Some(Err(_) | Ok(0)) => Err(format!("address {peer}: invalid port")),
        _ => Ok(()),
    }
}

/// Finds the address of a peer given as `HOST[:PORT]`. IPv4 is preferred, as sleeve needs it.
pub async fn resolve(text: &str) -> Result<Target, String> {
    check_peer(text)?;
    let (host, port) = match text.split_once(':') {
        Some((host, port)) => (host, port.parse().ok()),
        None => (text, None),
    };
    let found = |ip: IpAddr| Target {
        text: text.to_owned(),
        ip,
        port,
    };
    if let Ok(ip) = host.parse::<IpAddr>() {
        return Ok(found(ip));
    }
    let lookup = tokio::net::lookup_host((host, 0));
    let addresses = match tokio::time::timeout(RESOLVE_TIME_MAX, lookup).await {
        Ok(Ok(addresses)) => addresses.map(|a: SocketAddr| a.ip()).collect::<Vec<_>>(),
        Ok(Err(_)) => return Err(format!("lookup {host}: no such host")),
        Err(_) => return Err(format!("lookup {host}: i/o timeout")),
    };
    let best = addresses
        .iter()
        .find(|ip| ip.is_ipv4())
        .or(addresses.first());
    best.map(|ip| found(*ip))
        .ok_or_else(|| format!("lookup {host}: no such host"))
}
