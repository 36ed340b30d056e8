//! The start of the names: what answers, what was registered before a restart, and what follows
//! containers that end.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use proto::names::answer::Zone;
use proto::names::{Index, Names, NamesConfig};
use proto::types::{PeerName, Time};

use super::LaunchError;
use super::link_changes::LinkChanges;
use crate::config::{Config, DnsConfig};
use boundary::records::Record;
use control::client::Client;
use control::errors::NamesError;
use control::errors::Stopped;
use control::names::{Naming, SavedName};
use dns::listen::Instead;
use dns::resolv::CHECK_INTERVAL;
use dns::server::{self, DnsServer};
use host::blocking::blocking;
use host::{attach, gateway, resolv_conf};
use kernel::error::NetError;

/// The owner of names that belong to no container.
pub(crate) const EXTERN_OWNER: &str = "weave:extern";
/// Devices often change several at a time; so long is waited for more of them.
const SETTLE_TIME: Duration = Duration::from_millis(100);
/// Interval between checks for ended containers even if no device changed, in case a notification
/// was lost.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// Names without entries, and the server that answers from them.
pub(super) fn start(
    config: &Config,
    dns: &DnsConfig,
    us: PeerName,
) -> Result<(Naming, DnsServer), LaunchError> {
    let domain = dns.domain.parse();
    let domain: proto::names::Domain =
        domain.map_err(|error| LaunchError(format!("--dns-domain: {error}")))?;
    let index = Arc::new(ArcSwap::from_pointee(Index::default()));
    let zone = Zone {
        domain: domain.clone(),
        ttl_secs: dns.ttl,
        private: config.ipam.iter().map(|ipam| ipam.range).collect(),
    };
    let (bridge, docker_bridge) = (config.bridge.clone(), config.docker_bridge.clone());
    let instead = move || {
        let addresses = resolv_conf::bridge_addresses(&bridge, &docker_bridge).unwrap_or_default();
        let local = [Ipv4Addr::LOCALHOST];
        local
            .into_iter()
            .chain(addresses)
            .map(IpAddr::from)
            .collect()
    };
    let server = server::DnsConfig {
        listen: dns.listen,
        instead: Some(Instead::new(instead)),
        zone,
        fallback_timeout: dns.fallback_timeout,
        resolv_conf: Some(dns.resolv_conf.clone()),
        resolv_conf_interval: CHECK_INTERVAL,
    };
    let server = DnsServer::start_on_thread(server, Arc::clone(&index));
    let server = server.map_err(|error| LaunchError(format!("cannot serve names: {error}")))?;
    let names = Names::new(NamesConfig { us, domain }, Time::ZERO);
    Ok((Naming::new(names, index), server))
}

/// Registers what was registered before the restart, as far as the containers are still there.
pub(super) async fn restore(
    config: &Config,
    records: &[Record],
    client: &Client,
) -> Result<(), LaunchError> {
    let saved: Vec<SavedName> = SavedName::all(records).collect();
    if saved.is_empty() {
        return Ok(());
    }
    let here = addresses_here(config).map_err(LaunchError::new)?;
    let is_here = |name: &SavedName| {
        name.container == EXTERN_OWNER || here.contains(&(name.container.clone(), name.address))
    };
    let (kept, gone): (Vec<_>, Vec<_>) = saved.into_iter().partition(is_here);
    for name in kept {
        let hostnames = vec![name.hostname];
        match client
            .register_names(&name.container, name.address, hostnames)
            .await
        {
            Err(error @ NamesError::Stopped(_)) => return Err(LaunchError::new(error)),
            Err(error) => tracing::warn!(%error, "a name of before the restart was left out"),
            Ok(()) => {}
        }
    }
    let forgotten = client.forget_saved_names(gone).await;
    forgotten.map_err(LaunchError::new)
}

/// Returns which addresses are attached or exposed here, and for whom.
fn addresses_here(config: &Config) -> Result<BTreeSet<(String, Ipv4Addr)>, NetError> {
    let mut here = BTreeSet::new();
    for interface in attach::attached(&config.bridge, &config.proc_path)? {
        let Some(owner) = interface.owner else {
            continue;
        };
        let addresses = interface.addresses.iter();
        here.extend(addresses.map(|network| (owner.clone(), network.addr())));
    }
    for exposed in gateway::exposed(&config.bridge)? {
        here.insert((
            super::addresses::EXPOSE_OWNER.to_owned(),
            exposed.address.addr(),
        ));
    }
    Ok(here)
}

/// Removes the names of containers whose interfaces go away, until the router ends.
pub(super) async fn follow_containers(bridge: String, client: Client) {
    if let Err(error) = follow(&bridge, &client).await {
        tracing::warn!(%error, "names of containers that end stay until they are removed");
    }
}

async fn follow(bridge: &str, client: &Client) -> Result<(), String> {
    let changes = LinkChanges::follow()?;
    let mut seen = BTreeSet::new();
    // Until the router stops.
    while look(bridge, client, &mut seen).await.is_ok() {
        // Without word of a change it is time to look all the same.
        changes.wait(LOOK_INTERVAL).await;
        tokio::time::sleep(SETTLE_TIME).await;
    }
    Ok(())
}

/// Looks once for containers that have names and had an interface, and have none any more. The
/// containers with names are listed first: one that is attached meanwhile is not missed then.
async fn look(bridge: &str, client: &Client, seen: &mut BTreeSet<String>) -> Result<(), Stopped> {
    let named = client.named_containers().await?;
    let name = bridge.to_owned();
    let owners = match blocking(move || attach::owners(&name)).await {
        Ok(owners) => owners,
        Err(error) => {
            tracing::debug!(error, "what is attached could not be listed");
            return Ok(());
        }
    };
    let ended: Vec<String> = named
        .into_iter()
        .filter(|id| !owners.contains(id))
        .filter(|id| seen.contains(id) || attach::is_namespace_owner(id))
        .collect();
    seen.retain(|id| !ended.contains(id));
    seen.extend(owners);
    if !ended.is_empty()
        && let Err(error) = blocking(resolv_conf::sweep).await
    {
        tracing::debug!(error, "files of containers that ended were not removed");
    }
    for id in ended {
        let removed = client.unregister_names(&id, None).await;
        if let Ok(count) = removed {
            tracing::info!(
                container = id,
                count,
                "removed the names of a container that ended"
            );
        }
    }
    Ok(())
}
