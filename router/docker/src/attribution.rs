//! Which container is being started.
//!
//! Docker does not say for which container it wants an endpoint. But it holds a container's lock
//! while it starts it or connects it to a network, so an inspection of that container does not
//! come back, while a list of all containers does.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::engine::Listed;
use crate::latency::{Spent, Stage};
use crate::plugin::Plugin;

/// Maximum time for the list. Without it a container is known only when it has started.
const LIST_TIME_MAX: Duration = Duration::from_millis(500);
/// The same while Docker starts: it starts containers before it answers anybody.
const LIST_TIME_MAX_EARLY: Duration = Duration::from_millis(50);
/// Maximum time for Docker to answer a ping, before all calls in flight count as locked.
const PROBE_TIME_MAX: Duration = Duration::from_millis(50);
/// Maximum time for an inspection that is not locked, once Docker has answered a ping: a multiple
/// of the time which that took, within these limits.
const PROBE_FACTOR: u32 = 4;
const PATIENCE_MIN: Duration = Duration::from_millis(6);
const PATIENCE_MAX: Duration = Duration::from_millis(10);
/// Running containers that are probed because one may be being connected; with more of them, it
/// is found out from the event that follows.
const PROBES_MAX: usize = 32;
/// A container that has not started so long after its endpoint was asked for counts no longer as
/// being started.
const START_TIME_MAX: Duration = Duration::from_secs(10);

/// Endpoints whose containers have not started yet, so that they are locked.
#[derive(Debug, Default)]
pub(crate) struct Seekers(Mutex<BTreeMap<String, Seeker>>);

#[derive(Debug)]
struct Seeker {
    network: String,
    since: Instant,
    /// Its container, once that is known.
    found: Option<String>,
}

impl Seekers {
    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Seeker>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self, network: &str, endpoint: &str) {
        let (network, since) = (network.to_owned(), Instant::now());
        let mut all = self.lock();
        all.retain(|_, seeker| seeker.since.elapsed() < START_TIME_MAX);
        let found = None;
        all.insert(
            endpoint.to_owned(),
            Seeker {
                network,
                since,
                found,
            },
        );
    }

    /// The container of an endpoint is known.
    fn found(&self, endpoint: &str, container: &str) {
        if let Some(seeker) = self.lock().get_mut(endpoint) {
            seeker.found = Some(container.to_owned());
        }
    }

    /// The endpoint's container has started, or never will.
    pub(crate) fn forget(&self, endpoint: &str) {
        self.lock().remove(endpoint);
    }

    /// Returns true if another endpoint on a network has this container.
    fn is_taken(&self, container: &str, network: &str, endpoint: &str) -> bool {
        self.others(network, endpoint, |seeker| {
            seeker.found.as_deref() == Some(container)
        })
    }

    /// Returns true if another endpoint on a network has no container yet.
    fn has_company(&self, network: &str, endpoint: &str) -> bool {
        self.others(network, endpoint, |seeker| seeker.found.is_none())
    }

    fn others(&self, network: &str, endpoint: &str, is: impl Fn(&Seeker) -> bool) -> bool {
        let all = self.lock();
        let mut others = all.iter().filter(|(other, _)| *other != endpoint);
        others.any(|(_, seeker)| {
            seeker.network == network && seeker.since.elapsed() < START_TIME_MAX && is(seeker)
        })
    }
}

impl Plugin {
    /// Returns the container that an endpoint on this network is being made for; `None` if that
    /// cannot be told.
    pub(crate) async fn starting(
        &self,
        network: &str,
        endpoint: &str,
        spent: &mut Spent,
    ) -> Option<Listed> {
        self.seekers.join(network, endpoint);
        let found = self.seek(network, endpoint, spent).await;
        if let Some(container) = &found {
            self.seekers.found(endpoint, &container.id);
        }
        found
    }

    async fn seek(&self, network: &str, endpoint: &str, spent: &mut Spent) -> Option<Listed> {
        let docker = self.docker.as_ref()?;
        let listed = docker.containers_shared(self.list_time());
        let listed = match spent.on(Stage::List, listed).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "it is not known which container is being started");
                return None;
            }
        };
        let name = self.network_name(network).await;
        let is_here = |container: &&Listed| {
            is_waiting(container, network, name.as_deref())
                && !self.seekers.is_taken(&container.id, network, endpoint)
        };
        let candidates: Vec<&Listed> = listed.iter().filter(is_here).collect();
        if candidates.len() > 1 && self.seekers.has_company(network, endpoint) {
            // Both their containers are locked, and no probe tells them apart.
            return None;
        }
        let locked = spent.on(Stage::Probe, self.locked(&candidates)).await;
        tracing::debug!(
            candidates = candidates.len(),
            locked = locked.len(),
            "looked which container is being started"
        );
        match locked.as_slice() {
            [one] => return Some((*one).clone()),
            [] => {}
            _ => return None,
        }
        let may_be_connected = |container: &&Listed| {
            container.state == "running" && !self.seekers.is_taken(&container.id, network, endpoint)
        };
        let running: Vec<&Listed> = listed.iter().filter(may_be_connected).collect();
        let company = running.len() > 1 && self.seekers.has_company(network, endpoint);
        if company || running.len() > PROBES_MAX {
            return None;
        }
        let locked = spent.on(Stage::Probe, self.locked(&running)).await;
        match locked.as_slice() {
            [one] => Some((*one).clone()),
            _ => None,
        }
    }

    fn list_time(&self) -> Duration {
        match self.following.load(Ordering::Relaxed) {
            true => LIST_TIME_MAX,
            false => LIST_TIME_MAX_EARLY,
        }
    }

    /// Returns the container of this name, if Docker lists it.
    pub(crate) async fn named(&self, name: &str) -> Option<Listed> {
        let docker = self.docker.as_ref()?;
        let listed = docker.containers_shared(self.list_time()).await.ok()?;
        listed.iter().find(|c| c.name() == name).cloned()
    }

    /// Returns those containers whose inspection does not come back.
    async fn locked<'c>(&self, candidates: &[&'c Listed]) -> Vec<&'c Listed> {
        let Some(docker) = self.docker.as_ref().filter(|_| !candidates.is_empty()) else {
            return Vec::new();
        };
        let begun = Instant::now();
        let mut probes = JoinSet::new();
        for (number, container) in candidates.iter().enumerate() {
            let (docker, id) = (std::sync::Arc::clone(docker), container.id.clone());
            probes.spawn(async move {
                // Whatever it says, it is not locked.
                let answer = docker.container(&id, PROBE_TIME_MAX * 2).await;
                answer.is_ok().then_some(Some(number))
            });
        }
        let there = std::sync::Arc::clone(docker);
        probes.spawn(async move { there.ping(PROBE_TIME_MAX).await.is_ok().then_some(None) });
        let mut locked = vec![true; candidates.len()];
        let mut deadline = begun + PROBE_TIME_MAX;
        while let Ok(Some(probe)) = tokio::time::timeout_at(deadline, probes.join_next()).await {
            match probe {
                Ok(Some(Some(number))) => locked[number] = false,
                Ok(Some(None)) => {
                    let patience = begun.elapsed() * PROBE_FACTOR;
                    deadline = deadline.min(begun + patience.clamp(PATIENCE_MIN, PATIENCE_MAX));
                }
                _ => {}
            }
            if !locked.contains(&true) {
                break;
            }
        }
        let pairs = candidates.iter().zip(locked);
        pairs
            .filter_map(|(c, locked)| locked.then_some(*c))
            .collect()
    }

    /// Returns the name of a network, which is all that the list of containers tells of it.
    async fn network_name(&self, id: &str) -> Option<String> {
        let known = self.registry.network(id);
        if let Some(name) = known.as_ref().and_then(|network| network.name.clone()) {
            return Some(name);
        }
        let docker = self.docker.as_ref()?;
        let networks = docker.networks(LIST_TIME_MAX).await.ok()?;
        let found = networks.into_iter().find(|network| network.id == id)?;
        if let Some(mut network) = known {
            network.name = Some(found.name.clone());
            // Without the record it is asked for again.
            if let Err(error) = self.registry.put_network(id, network).await {
                tracing::debug!(%error, "a network's name was not saved");
            }
        }
        Some(found.name)
    }
}

/// Returns true if a container is to be on a network and is not yet.
fn is_waiting(container: &Listed, network: &str, name: Option<&str>) -> bool {
    let mut places = container.network_settings.networks.iter();
    container.state != "running"
        && places.any(|(known_as, place)| {
            let here = place.network == network || Some(known_as.as_str()) == name;
            here && place.endpoint.is_empty()
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_was_found_is_taken_until_it_has_started() {
        let seekers = Seekers::default();
        seekers.join("n", "e1");
        assert!(!seekers.has_company("n", "e1"));
        seekers.join("n", "e2");
        seekers.join("other", "e3");
        assert!(seekers.has_company("n", "e1") && seekers.has_company("n", "e2"));
        assert!(!seekers.has_company("other", "e3"));
        seekers.found("e1", "web");
        assert!(!seekers.has_company("n", "e2") && seekers.has_company("n", "e1"));
        assert!(seekers.is_taken("web", "n", "e2"));
        // It may be on several networks, and its own endpoint may be asked for twice.
        assert!(!seekers.is_taken("web", "other", "e3") && !seekers.is_taken("web", "n", "e1"));
        seekers.forget("e1");
        assert!(!seekers.is_taken("web", "n", "e2"));
        seekers.found("e2", "db");
        for seeker in seekers.lock().values_mut() {
            seeker.since -= START_TIME_MAX;
        }
        assert!(!seekers.is_taken("db", "n", "e1") && !seekers.has_company("other", "e1"));
    }
}
