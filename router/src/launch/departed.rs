//! Containers that are gone without having been detached: their addresses are released, so that
//! an identity whose container died can start elsewhere.
//!
//! Only containers that `weft attach` put on the bridge are looked at. Whoever else asks for
//! addresses tells of their end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use ipam::allocator::{Request, Response};

use super::link_changes::LinkChanges;
use control::client::Client;
use host::attach;

/// Between looks at the bridge while devices change or somebody is missing there.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Between looks otherwise, in case word of a change was lost.
const REST_INTERVAL: Duration = Duration::from_secs(30);
/// A container that was on the bridge may be detached and attached again, with the same address;
/// one that stays away for this long is gone.
const AWAY_MAX: Duration = Duration::from_secs(5);
/// A container that has an address but was not seen on the bridge yet is being attached; one
/// that is not there after this time never will be.
const ATTACHING_MAX: Duration = Duration::from_secs(60);

/// Which owners of addresses were seen on the bridge, and since when some are not there.
#[derive(Debug, Default)]
struct Watch {
    seen: BTreeSet<String>,
    missing: BTreeMap<String, Instant>,
}

impl Watch {
    /// Takes who has addresses and who is on the bridge; returns who is gone.
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

/// Looks after containers until the router stops.
pub(super) async fn watch(client: Client, bridge: String) {
    let mut watch = Watch::default();
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
        let ids = owned.into_iter().map(|(id, _)| id);
        let owners: BTreeSet<String> = ids.filter(|id| attach::is_namespace_owner(id)).collect();
        if owners.is_empty() {
            watch = Watch::default();
            continue;
        }
        let bridge = bridge.clone();
        let look = tokio::task::spawn_blocking(move || attach::owners(&bridge));
        let attached = match look.await {
            Ok(Ok(attached)) => attached,
            Ok(Err(error)) => {
                tracing::debug!(%error, "cannot see what is attached");
                continue;
            }
            Err(_) => return,
        };
        for id in watch.look(Instant::now(), &owners, &attached) {
            tracing::info!(
                owner = id,
                "a container is gone; its addresses are released"
            );
            ask(&client, Request::Delete { id }).await;
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
    fn who_was_there_and_stays_away_is_gone() {
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
