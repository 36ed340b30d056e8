//! Containers that are gone without having been detached: their addresses are released, so that
//! an identity whose container died can start elsewhere.
//!
//! Only containers that `weft attach` put on the bridge are looked at. Whoever else asks for
//! addresses tells of their end. That one is not seen on the bridge proves nothing: it is gone when
//! its namespace is, or what leads there ([`life::ended`]).

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use ipam::allocator::{Request, Response};
use ipam::range::Cidr;

use super::link_changes::LinkChanges;
use control::client::Client;
use host::attach::{self, life};
use host::blocking::blocking;

/// Interval between checks of the bridge while devices change or a container is missing there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Interval between checks otherwise, in case word of a change was lost.
const REST_INTERVAL: Duration = Duration::from_secs(30);
/// A container that was on the bridge may be detached and attached again, with the same address;
/// one that stays away for this long may be gone.
const AWAY_MAX: Duration = Duration::from_secs(5);
/// A container that has an address but was not seen on the bridge yet is being attached; one
/// that is not there after this time is looked for.
const ATTACHING_MAX: Duration = Duration::from_secs(60);

/// Which owners of addresses were seen on the bridge, and since when some are not there.
#[derive(Debug, Default)]
struct Watch {
    seen: BTreeSet<String>,
    missing: BTreeMap<String, Instant>,
}

impl Watch {
    /// Takes who has addresses and who is on the bridge; returns who may be gone.
    fn look(
        &mut self,
        now: Instant,
        owners: &BTreeSet<String>,
        attached: &BTreeSet<String>,
    ) -> Vec<String> {
        self.seen.extend(attached.iter().cloned());
        self.seen.retain(|owner| owners.contains(owner));
        self.missing
            .retain(|owner, _| owners.contains(owner) && !attached.contains(owner));
        let mut gone = Vec::new();
        for owner in owners.difference(attached) {
            let since = *self.missing.entry(owner.clone()).or_insert(now);
            let time_max = if self.seen.contains(owner) {
                AWAY_MAX
            } else {
                ATTACHING_MAX
            };
            if now.duration_since(since) >= time_max {
                gone.push(owner.clone());
            }
        }
        gone
    }
}

/// Looks after containers until the router stops. `proc` is the host's `/proc` seen from here.
pub(super) async fn watch(client: Client, bridge: String, proc: PathBuf) {
    let mut watch = Watch::default();
    let mut kept = BTreeSet::new();
    let changes = LinkChanges::follow();
    if let Err(error) = &changes {
        tracing::debug!(error, "the kernel does not tell of devices that change");
    }
    loop {
        if let Ok(changes) = &changes
            && watch.missing.is_empty()
        {
            changes.wait(REST_INTERVAL).await;
        }
        tokio::time::sleep(LOOK_INTERVAL).await;
        // Asked first: whoever gets an address after this is not looked at.
        let Some(Response::Owned(owned)) = ask(&client, Request::List).await else {
            return;
        };
        let addresses = |cidrs: Vec<Cidr>| cidrs.into_iter().map(|cidr| cidr.address.into());
        let mut users: BTreeMap<String, BTreeSet<Ipv4Addr>> = owned
            .into_iter()
            .filter(|(id, _)| attach::is_namespace_owner(id))
            .map(|(id, cidrs)| (id, addresses(cidrs).collect()))
            .collect();
        if users.is_empty() {
            watch = Watch::default();
            continue;
        }
        let name = bridge.clone();
        let attached = match blocking(move || attach::owners(&name)).await {
            Ok(attached) => attached,
            Err(error) => {
                tracing::debug!(error, "cannot see what is attached");
                continue;
            }
        };
        let owners = users.keys().cloned().collect();
        let missing = watch.look(Instant::now(), &owners, &attached);
        users.retain(|id, _| missing.contains(id));
        kept.retain(|id| users.contains_key(id));
        if users.is_empty() {
            continue;
        }
        let (name, proc) = (bridge.clone(), proc.clone());
        let ended = match blocking(move || life::ended(&users, &name, &proc)).await {
            Ok(ended) => ended,
            Err(error) => {
                tracing::debug!(error, "cannot see who has ended");
                continue;
            }
        };
        for id in missing {
            if ended.contains(&id) {
                tracing::info!(
                    owner = id,
                    "a container is gone; its addresses are released"
                );
                ask(&client, Request::Delete { id }).await;
            } else if kept.insert(id.clone()) {
                tracing::warn!(
                    owner = id,
                    "a container is not on the bridge but lives; its addresses are kept"
                );
            }
        }
    }
}

/// `None` if the router stops, or the request failed, which the next look makes good.
async fn ask(client: &Client, request: Request) -> Option<Response> {
    client.address(request, None).await.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn who_was_there_and_stays_away_is_looked_for() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let (both, b) = (set(&["a", "b"]), set(&["b"]));
        assert!(watch.look(start, &both, &both).is_empty());
        assert!(watch.look(start, &both, &b).is_empty());
        let later = start + AWAY_MAX / 2;
        assert!(watch.look(later, &both, &both).is_empty(), "it is back");
        assert!(watch.look(later, &both, &b).is_empty());
        assert!(watch.look(start + AWAY_MAX, &both, &b).is_empty());
        assert_eq!(watch.look(later + AWAY_MAX, &both, &b), ["a"]);
        assert!(watch.look(later + AWAY_MAX, &b, &b).is_empty());
    }

    #[test]
    fn who_is_about_to_come_has_time() {
        let mut watch = Watch::default();
        let start = Instant::now();
        let (a, nobody) = (set(&["a"]), set(&[]));
        assert!(watch.look(start, &a, &nobody).is_empty());
        let later = start + ATTACHING_MAX / 2;
        assert!(watch.look(later, &a, &nobody).is_empty());
        let late = start + ATTACHING_MAX;
        assert_eq!(watch.look(late, &a, &nobody), ["a"]);
    }
}
