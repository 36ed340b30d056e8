//! Which container is being started.
//!
//! Docker does not say for which container it wants an endpoint. But it holds a container's lock
//! while it starts it or connects it to a network, so an inspection of that container does not
//! come back, while a list of all containers does.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;

use super::Plugin;
use super::api::Listed;

/// How long the list may take. Without it a container is known only when it has started.
const LIST_TIME_MAX: Duration = Duration::from_millis(500);
/// The same while Docker starts: it starts containers before it answers anybody.
const LIST_TIME_MAX_EARLY: Duration = Duration::from_millis(50);
/// How long an inspection may take at most before the container counts as locked.
const PROBE_TIME_MAX: Duration = Duration::from_millis(50);
/// ... and at least.
const PROBE_TIME_MIN: Duration = Duration::from_millis(8);
/// An inspection takes about as long as a list; one that takes this many times as long is stuck.
const PROBE_FACTOR: u32 = 5;
/// Running containers that are probed because one may be being connected; with more of them, it
/// is found out from the event that follows.
const PROBES_MAX: usize = 32;

impl Plugin {
    /// The container that an endpoint on this network is being made for; `None` if that cannot be
    /// told.
    pub(super) async fn starting(&self, network: &str) -> Option<Listed> {
        let docker = self.docker.as_ref()?;
        let begun = Instant::now();
        let listed = match docker.containers_shared(self.list_time()).await {
            Ok(listed) => listed,
            Err(error) => {
                tracing::debug!(%error, "it is not known which container is being started");
                return None;
            }
        };
        let list = begun.elapsed();
        let patience = (list * PROBE_FACTOR).clamp(PROBE_TIME_MIN, PROBE_TIME_MAX);
        let name = self.network_name(network).await;
        let is_here = |container: &&Listed| is_waiting(container, network, name.as_deref());
        let candidates: Vec<&Listed> = listed.iter().filter(is_here).collect();
        let locked = self.locked(&candidates, patience).await;
        tracing::debug!(
            list = list.as_micros(),
            probes = (begun.elapsed() - list).as_micros(),
            candidates = candidates.len(),
            locked = locked.len(),
            "looked which container is being started; times in microseconds"
        );
        match locked.as_slice() {
            [one] => return Some((*one).clone()),
            [] => {}
            _ => return None,
        }
        let running: Vec<&Listed> = listed.iter().filter(|c| c.state == "running").collect();
        if running.len() > PROBES_MAX {
            return None;
        }
        match self.locked(&running, patience).await.as_slice() {
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

    /// The container of this name, if Docker lists it.
    pub(super) async fn named(&self, name: &str) -> Option<Listed> {
        let docker = self.docker.as_ref()?;
        let listed = docker.containers_shared(self.list_time()).await.ok()?;
        listed.iter().find(|c| c.name() == name).cloned()
    }

    /// Those containers whose inspection does not come back.
    async fn locked<'c>(&self, candidates: &[&'c Listed], patience: Duration) -> Vec<&'c Listed> {
        let Some(docker) = &self.docker else {
            return Vec::new();
        };
        let mut probes = JoinSet::new();
        for (number, container) in candidates.iter().enumerate() {
            let (docker, id) = (std::sync::Arc::clone(docker), container.id.clone());
            probes.spawn(async move {
                // Whatever it says, it is not locked.
                let answer = docker.container(&id, PROBE_TIME_MAX * 2).await;
                (number, answer.is_ok())
            });
        }
        let mut locked = vec![true; candidates.len()];
        let begun = Instant::now();
        let mut deadline = begun + patience;
        if candidates.len() > 1 {
            // Where nobody answers soon, several are being started, and no patience helps.
            deadline = begun + (patience / 2).max(PROBE_TIME_MIN);
        }
        while let Ok(Some(probe)) = tokio::time::timeout_at(deadline, probes.join_next()).await {
            deadline = begun + patience;
            if let Ok((number, true)) = probe {
                locked[number] = false;
            }
        }
        let pairs = candidates.iter().zip(locked);
        pairs
            .filter_map(|(c, locked)| locked.then_some(*c))
            .collect()
    }

    /// The name of a network, which is all that the list of containers tells of it.
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

/// Whether a container is to be on a network and is not yet.
fn is_waiting(container: &Listed, network: &str, name: Option<&str>) -> bool {
    let mut places = container.network_settings.networks.iter();
    container.state != "running"
        && places.any(|(known_as, place)| {
            let here = place.network == network || Some(known_as.as_str()) == name;
            here && place.endpoint.is_empty()
        })
}
