//! What the host itself has of the network: kept in the store, and watched.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use ipnet::Ipv4Net;
use tokio::sync::oneshot;
use tokio::time::MissedTickBehavior;

use super::{Control, Handle};
use boundary::records::{Change, Record, StoreError};
use host::blocking::blocking;
use host::gateway::{Exposed, Exposures, Gateway};

/// The record that holds what is exposed.
const EXPOSED_KEY: &[u8] = b"exposed";
/// Between looks whether others removed rules or addresses of ours.
const WATCH_INTERVAL: Duration = Duration::from_secs(2);

/// What was exposed in an earlier run; `None` if none has noted it.
pub fn stored_exposures(records: &[Record]) -> Option<Vec<Exposed>> {
    let (_, value) = records.iter().find(|(key, _)| key == EXPOSED_KEY)?;
    let masquerades: BTreeMap<String, bool> = serde_json::from_slice(value).ok()?;
    let read = masquerades.into_iter().map(|(address, masquerade)| {
        let address = address.parse().ok()?;
        Some(Exposed {
            address,
            masquerade,
        })
    });
    read.collect()
}

/// The record: each address, and whether its subnet is masqueraded.
fn record(exposures: &Exposures) -> Vec<u8> {
    let all = exposures.all.iter();
    let masquerades: BTreeMap<String, bool> = all
        .map(|one| (one.address.to_string(), one.masquerade))
        .collect();
    // Writing JSON to memory cannot fail.
    serde_json::to_vec(&masquerades).unwrap_or_default()
}

impl Control {
    /// Saves what is exposed, unless something later was saved already. The answer comes when it
    /// is on disk.
    pub fn save_exposures(
        &mut self,
        exposures: &Exposures,
    ) -> oneshot::Receiver<Result<(), StoreError>> {
        let (done, saved) = oneshot::channel();
        if self.exposures_saved > Some(exposures.revision) {
            // Whoever asked may have gone away.
            let _ = done.send(Ok(()));
            return saved;
        }
        self.exposures_saved = Some(exposures.revision);
        let change = Change {
            key: EXPOSED_KEY.to_vec(),
            value: Some(record(exposures)),
        };
        self.store.save_alone(vec![change], move |result| {
            // Whoever asked may have gone away.
            let _ = done.send(result);
        });
        saved
    }

    /// The subnets that we give addresses from, if local clients are to reach them under their own
    /// addresses.
    fn unmasqueraded(&self) -> BTreeSet<Ipv4Net> {
        let addresses = self.addresses.as_ref();
        let Some(addresses) = addresses.filter(|_| self.config.no_masq_local) else {
            return BTreeSet::new();
        };
        let ranges = addresses.allocator.ring().owned_ranges(self.node.us());
        let subnets = ranges.iter().flat_map(ipam::range::Range::cidrs);
        let net = |cidr: ipam::range::Cidr| Ipv4Net::new(cidr.address.into(), cidr.len).ok();
        subnets.filter_map(net).collect()
    }
}

/// Puts back, for as long as the loop runs, what others remove of our rules and addresses.
pub async fn watch(handle: Handle, gateway: Arc<Gateway>) {
    let mut ticks = tokio::time::interval(WATCH_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut told = None;
    loop {
        ticks.tick().await;
        let Ok(unmasqueraded) = handle.call(|control| control.unmasqueraded()).await else {
            return;
        };
        let gateway = Arc::clone(&gateway);
        match blocking(move || gateway.reconcile(unmasqueraded)).await {
            Ok(changed) => {
                told = None;
                for what in changed {
                    tracing::info!("put back {what}, which somebody had removed or changed");
                }
            }
            Err(error) if told.as_ref() != Some(&error) => {
                tracing::warn!(%error, "the rules of this host are not as they should be");
                told = Some(error);
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_read() {
        let one = |address: &str, masquerade| Exposed {
            address: address.parse().unwrap(),
            masquerade,
        };
        let exposures = Exposures {
            revision: 3,
            all: vec![one("10.7.0.1/16", true), one("10.8.0.1/24", false)],
        };
        let noted = vec![(EXPOSED_KEY.to_vec(), record(&exposures))];
        assert_eq!(stored_exposures(&noted), Some(exposures.all));
        assert_eq!(stored_exposures(&[]), None);
        let nothing = vec![(EXPOSED_KEY.to_vec(), record(&Exposures::default()))];
        assert_eq!(stored_exposures(&nothing), Some(Vec::new()));
        let broken = vec![(EXPOSED_KEY.to_vec(), b"[]".to_vec())];
        assert_eq!(stored_exposures(&broken), None);
    }
}
