//! Peers as users write them, and their addresses.
//!
//! A name is resolved once when it is given. One that cannot be resolved at start is tried again
//! until it can, since the resolver may come up later than the router.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use proto::connector::Target;

use super::Control;
use super::client::Client;
use super::request::ConnectError;
use crate::config::check_peer;

/// Between attempts at resolving a name.
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
/// How long resolving a name may take.
const RESOLVE_TIME_MAX: Duration = Duration::from_secs(10);

/// Names that could not be resolved yet.
#[derive(Debug, Default)]
pub(super) struct Targets {
    /// When each is tried next.
    unresolved: BTreeMap<String, Instant>,
    client: Option<Client>,
}

impl Targets {
    pub(super) fn attach(&mut self, client: Client) {
        self.client = Some(client);
    }

    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.unresolved.values().min().copied()
    }

    /// Texts that are not resolved, which users see among the targets.
    pub(super) fn unresolved(&self) -> impl Iterator<Item = &str> {
        self.unresolved.keys().map(String::as_str)
    }

    fn forget(&mut self, text: &str) {
        self.unresolved.remove(text);
    }

    /// Starts resolving what is due.
    pub(super) fn resolve_due(&mut self) {
        let Some(client) = &self.client else { return };
        let now = Instant::now();
        for (text, at) in self.unresolved.iter_mut().filter(|(_, at)| **at <= now) {
            *at = now + RETRY_INTERVAL + RESOLVE_TIME_MAX;
            let (text, client) = (text.clone(), client.clone());
            tokio::spawn(async move {
                let resolved = resolve(&text).await;
                // A router that stops needs no targets.
                let _ = client.resolved(text, resolved).await;
            });
        }
    }
}

impl Control {
    /// Names peers to be connected to, to be resolved in the background for as long as it takes.
    pub(super) fn connect_in_background(&mut self, texts: impl IntoIterator<Item = String>) {
        let now = Instant::now();
        for text in texts {
            self.targets.unresolved.insert(text, now);
        }
        self.tell_allocator_of_targets();
    }

    /// Names peers that are resolved to be connected to.
    pub(super) fn connect(
        &mut self,
        targets: Vec<Target>,
        replace: bool,
    ) -> Result<(), ConnectError> {
        if replace {
            self.targets.unresolved.clear();
        }
        let now = self.now();
        Ok(self.node.connect(now, targets, replace)?)
    }

    /// Forgets peers by the texts they were named by.
    pub(super) fn forget(&mut self, texts: &[String]) {
        for text in texts {
            self.targets.forget(text);
        }
        let now = self.now();
        self.node.forget(now, texts.iter().map(String::as_str));
    }

    pub(super) fn resolved(&mut self, text: String, resolved: Result<Target, String>) {
        let Some(at) = self.targets.unresolved.get_mut(&text) else {
            return;
        };
        match resolved {
            Ok(target) => {
                self.targets.forget(&text);
                if let Err(error) = self.connect(vec![target], false) {
                    tracing::warn!(peer = text, %error, "a peer is not connected to");
                }
            }
            Err(error) => {
                *at = Instant::now() + RETRY_INTERVAL;
                tracing::warn!("{error}; trying again in {} s", RETRY_INTERVAL.as_secs());
            }
        }
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
