//! Containers that are attached by themselves, without any of Docker's networks: the router runs
//! beside them and follows what Docker does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::{Arc, MutexGuard, PoisonError};
use std::time::Duration;

use ipam::allocator::Request;
use ipnet::{IpNet, Ipv4Net};

use crate::attach_request::{self, Wanted, Wish};
use crate::driver::short;
use crate::engine::Inspected;
use crate::late_identity::network;
use crate::plugin::Plugin;
use control::errors::NamesError;
use host::attach::{self, AttachRequest};
use host::blocking::blocking;
use kernel::netns::Namespace;

/// First and longest pause before a container that could not be attached is tried again, and how
/// long it is tried.
const RETRY_TIME_MIN: Duration = Duration::from_secs(2);
const RETRY_TIME_MAX: Duration = Duration::from_secs(60);
const RETRIES_MAX: u32 = 20;

/// Facts on a container that was attached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Attached {
    /// Whether its address is kept for its identity anyway.
    leased: bool,
}

impl Plugin {
    fn sidecar(&self) -> MutexGuard<'_, BTreeMap<String, Attached>> {
        self.sidecar.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retrying(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.retrying.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Attaches a container that runs, if it is to be.
    pub(crate) async fn attach_if_wanted(self: &Arc<Self>, container: &Inspected) {
        let wish = match Wish::of(container, self.config.attach) {
            Ok(Some(wish)) => wish,
            Ok(None) => return,
            Err(error) => {
                let name = container.name();
                tracing::error!(container = name, %error, "a container is not attached");
                return;
            }
        };
        let mut places = container.network_settings.networks.values();
        if places.any(|place| self.registry.endpoint(&place.endpoint).is_some()) {
            // It is on one of our networks.
            return;
        }
        let Err(error) = self.attach(container, &wish).await else {
            return;
        };
        let id = container.id.clone();
        if !self.retrying().insert(id.clone()) {
            // Docker tells of one start in several events.
            return;
        }
        tracing::error!(
            container = container.name(),
            %error,
            "a container is not attached; it is tried again"
        );
        let plugin = Arc::clone(self);
        tokio::spawn(async move {
            plugin.attach_again(&id, &wish).await;
            plugin.retrying().remove(&id);
        });
    }

    async fn attach_again(self: &Arc<Self>, id: &str, wish: &Wish) {
        let mut pause = RETRY_TIME_MIN;
        for _ in 0..RETRIES_MAX {
            tokio::time::sleep(pause).await;
            pause = pause.mul_f64(1.5).min(RETRY_TIME_MAX);
            let _turn = self.turns.take(id).await;
            let Some(container) = self.running(id).await else {
                return;
            };
            match self.attach(&container, wish).await {
                Ok(()) => return,
                Err(error) => {
                    let name = container.name();
                    tracing::warn!(container = name, %error, "a container is still not attached");
                }
            }
        }
    }

    async fn attach(&self, container: &Inspected, wish: &Wish) -> Result<(), String> {
        let id = &container.id;
        let attached = Attached {
            leased: wish.identity.is_some(),
        };
        self.sidecar().insert(id.clone(), attached);
        let there = self.attached_already(container).await?;
        for address in &there {
            self.name(container, &[], address.addr()).await;
        }
        if !there.is_empty() {
            // It keeps what it has, whatever it would get now: its name may be another one.
            return Ok(());
        }
        let (mut addresses, mut mac) = (Vec::new(), None);
        for wanted in &wish.addresses {
            // An identity has one address; the others are without.
            let first = addresses.is_empty();
            let identity = wish.identity.clone().filter(|_| first);
            let given = match wanted {
                Wanted::Default => self.allocate_for(id, None, identity).await,
                Wanted::Subnet(subnet) => self.allocate_for(id, Some(*subnet), identity).await,
                Wanted::Address(address) => self.claim_for(id, *address, identity).await,
            };
            let given = match given {
                Ok(given) => given,
                Err(error) => {
                    self.give_back(id).await?;
                    return Err(error);
                }
            };
            mac = mac.or(given.mac);
            addresses.push(network(given.cidr));
        }
        let (bridge, proc) = (self.config.bridge.clone(), self.config.proc_path.clone());
        let (pid, owner, nets) = (container.state.pid, id.clone(), addresses.clone());
        let done = blocking(move || {
            let target = Namespace::of_pid_under(&proc, pid)?;
            attach::attach(&AttachRequest {
                addresses: &nets,
                pid: Some(pid),
                owner: Some(&owner),
                mac,
                ..AttachRequest::new(&bridge, &target)
            })
        })
        .await;
        let done = match done {
            Ok(done) => done,
            Err(error) => {
                self.give_back(id).await?;
                return Err(error);
            }
        };
        for warning in &done.warnings {
            tracing::warn!(container = container.name(), "{warning}");
        }
        if done.created {
            let shown: Vec<String> = addresses.iter().map(Ipv4Net::to_string).collect();
            let name = container.name();
            tracing::info!(
                container = name,
                addresses = shown.join(" "),
                "attached a container"
            );
        }
        for address in &addresses {
            self.name(container, &[], address.addr()).await;
        }
        Ok(())
    }

    /// Returns the addresses that a container has of us since an earlier look at it.
    async fn attached_already(&self, container: &Inspected) -> Result<Vec<Ipv4Net>, String> {
        let holdings = self.holdings().await?;
        let held = holdings.into_iter().find(|(id, _)| *id == container.id);
        let Some((_, held)) = held else {
            return Ok(Vec::new());
        };
        let (proc, pid) = (self.config.proc_path.clone(), container.state.pid);
        let there = blocking(move || {
            let netlink = Namespace::of_pid_under(&proc, pid)?.netlink()?;
            match netlink.link(attach::INTERFACE)? {
                Some(link) => netlink.addresses_of(link.index),
                None => Ok(Vec::new()),
            }
        });
        let there = there.await?;
        let held = held.into_iter().map(network);
        Ok(held
            .filter(|held| there.contains(&IpNet::V4(*held)))
            .collect())
    }

    /// Releases what a container was given that could not be attached. One that is attached since
    /// before goes on using it.
    async fn give_back(&self, id: &str) -> Result<(), String> {
        let bridge = self.config.bridge.clone();
        if blocking(move || attach::owners(&bridge))
            .await?
            .contains(id)
        {
            return Ok(());
        }
        self.release(id).await
    }

    /// A container has ended, and its interface with it.
    pub(crate) async fn attached_died(&self, id: &str) {
        let attached = self.sidecar().remove(id);
        let Some(attached) = attached else { return };
        // A leased address is kept anyway, and wanted wherever the identity comes up next.
        if attached.leased
            && let Err(error) = self.release(id).await
        {
            tracing::warn!(container = short(id), %error, "an address was not released");
        }
    }

    /// Names a container for one of its addresses.
    pub(crate) async fn name(&self, container: &Inspected, aliases: &[String], address: Ipv4Addr) {
        let Some(domain) = &self.config.domain else {
            return;
        };
        let names = attach_request::names(container, aliases, domain);
        let named = self.client.register_names(&container.id, address, names);
        match named.await {
            Ok(()) | Err(NamesError::Off) => {}
            Err(error) => {
                let name = container.name();
                tracing::debug!(container = name, %error, "some names were not registered");
            }
        }
    }

    /// Removes the names of a container, or those of one of its addresses.
    pub(crate) async fn unname(&self, container: &str, address: Option<Ipv4Addr>) {
        match self.client.unregister_names(container, address).await {
            Ok(_) | Err(NamesError::Off) => {}
            Err(error) => {
                tracing::debug!(container = short(container), %error, "names were not removed");
            }
        }
    }

    /// Tells the allocator which containers run, so that it releases what the others had.
    pub(crate) async fn prune(&self, running: BTreeSet<String>) -> Result<(), String> {
        let prune = Request::Prune { running };
        let told = self.client.tell_allocator(prune);
        told.await.map_err(|stopped| stopped.to_string())
    }
}
