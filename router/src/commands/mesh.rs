//! `weft connect` and `weft forget`.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use clap::Args;
use serde_json::Value;

use super::router::Router;
use super::{CliError, Output, RouterArgs};
use web::client::{Client, encode_form};

/// The port of a peer that is given without one.
const PORT: u16 = 6783;
/// Interval between checks whether connections are established.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// Adds peers to connect to; the router keeps trying, even after a restart with --resume.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft connect 192.168.0.11
  weft connect --wait --timeout 10s 192.168.0.11     (fails if no connection stands by then)")]
pub(crate) struct ConnectArgs {
    /// Replace the peers given earlier
    #[arg(long)]
    replace: bool,
    /// Wait until each peer is connected, at most --timeout
    #[arg(long)]
    wait: bool,
    /// HOST or HOST:PORT
    #[arg(value_name = "PEER")]
    peers: Vec<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ConnectArgs {
    pub(crate) async fn run(&self, out: &Output) -> Result<(), CliError> {
        if self.peers.is_empty() && !self.replace {
            return Err(CliError::usage(
                "give peers to connect to, or --replace to forget all",
            ));
        }
        let mut fields: Vec<(&str, &str)> = vec![("replace", bool_text(self.replace))];
        fields.extend(self.peers.iter().map(|peer| ("peer", peer.as_str())));
        let router = self.router.router()?;
        let answer = router.client.post("/connect", &encode_form(fields)).await?;
        answer.ok()?;
        if self.wait {
            wait_for(&router, &self.peers).await?;
            out.line(&format!("connected to {}", self.peers.join(", ")))?;
        }
        Ok(())
    }
}

/// Waits until a connection to each peer stands; names those to which none does, and why.
async fn wait_for(router: &Router, peers: &[String]) -> Result<(), CliError> {
    let mut missing = Vec::new();
    let wait = async {
        loop {
            let report = report(&router.client).await?;
            let connections = &report["Router"]["Connections"];
            missing.clear();
            for peer in peers {
                let addresses = resolve(peer).await;
                if let Err(reason) = is_connected(connections, &addresses) {
                    missing.push(format!("{peer}: {reason}"));
                }
            }
            if missing.is_empty() {
                return Ok(());
            }
            tokio::time::sleep(LOOK_INTERVAL).await;
        }
    };
    let waited = tokio::time::timeout(router.time_max, wait).await;
    waited.unwrap_or_else(|_| {
        Err(CliError::failed(format!(
            "no connection after {:?}: {}. The router keeps trying; 'weft forget' ends that",
            router.time_max,
            missing.join("; ")
        )))
    })
}

/// Returns the addresses of a peer as a user writes it; none for a name that is not known (yet).
async fn resolve(peer: &str) -> BTreeSet<SocketAddr> {
    if let Ok(ip) = peer.parse::<IpAddr>() {
        return BTreeSet::from([SocketAddr::new(ip, PORT)]);
    }
    if let Ok(address) = peer.parse() {
        return BTreeSet::from([address]);
    }
    let named = match peer.rsplit_once(':') {
        Some(_) => tokio::net::lookup_host(peer.to_owned()).await,
        None => tokio::net::lookup_host(format!("{peer}:{PORT}")).await,
    };
    named.map_or_else(|_| BTreeSet::new(), Iterator::collect)
}

/// Returns why no connection to one of the addresses stands, if none does.
fn is_connected(connections: &Value, addresses: &BTreeSet<SocketAddr>) -> Result<(), String> {
    if addresses.is_empty() {
        return Err("its name has no address".to_owned());
    }
    let mut reason = "not tried yet".to_owned();
    for connection in connections.as_array().into_iter().flatten() {
        let address = connection["Address"].as_str().and_then(|a| a.parse().ok());
        if !address.is_some_and(|address| addresses.contains(&address)) {
            continue;
        }
        let text = |key: &str| connection[key].as_str().unwrap_or_default().to_owned();
        // The router itself stands there.
        if text("State") == "established" || text("Info").contains("connect to ourself") {
            return Ok(());
        }
        reason = format!("{} {}", text("State"), text("Info"));
    }
    Err(reason.trim().to_owned())
}

pub(super) async fn report(client: &Client) -> Result<Value, CliError> {
    let text = client.get_json("/report").await?.ok()?;
    serde_json::from_str(&text).map_err(CliError::failed)
}

/// Stops trying to connect to peers; existing connections stay.
#[derive(Args, Debug)]
pub(crate) struct ForgetArgs {
    /// Peers as given to connect or launch
    #[arg(value_name = "PEER", required = true)]
    peers: Vec<String>,
    #[command(flatten)]
    router: RouterArgs,
}

impl ForgetArgs {
    pub(crate) async fn run(&self) -> Result<(), CliError> {
        let client = self.router.client()?;
        let report = report(&client).await?;
        let targets = report["Router"]["Targets"].as_array();
        let targets: Vec<&str> = targets
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        let fields = self.peers.iter().map(|peer| ("peer", peer.as_str()));
        client.post("/forget", &encode_form(fields)).await?.ok()?;
        let unknown = |peer: &&String| !targets.contains(&peer.as_str());
        let unknown: Vec<&str> = self
            .peers
            .iter()
            .filter(unknown)
            .map(String::as_str)
            .collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(CliError::not_found(format!(
            "{} was not among the peers to connect to ({})",
            unknown.join(", "),
            match targets.as_slice() {
                [] => "there are none".to_owned(),
                targets => targets.join(", "),
            }
        )))
    }
}

fn bool_text(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_connection_stands_when_it_is_established() {
        let peer: BTreeSet<SocketAddr> = [([192, 168, 0, 7], 6783).into()].into();
        let list = |state: &str, info: &str| {
            json!([
                { "Address": "192.168.0.8:6783", "State": "established", "Info": "" },
                { "Address": "192.168.0.7:6783", "State": state, "Info": info },
            ])
        };
        assert_eq!(is_connected(&list("established", "sleeve"), &peer), Ok(()));
        let refused = is_connected(&list("failed", "connection refused"), &peer);
        assert_eq!(refused, Err("failed connection refused".to_owned()));
        assert!(is_connected(&json!([]), &peer).is_err());
        assert!(is_connected(&list("established", ""), &BTreeSet::new()).is_err());
        let own = list("failed", "cannot connect to ourself, retry: never");
        assert_eq!(is_connected(&own, &peer), Ok(()));
    }
}
