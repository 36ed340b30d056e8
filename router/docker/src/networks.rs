//! The networks and endpoints that Docker told us of, kept over restarts.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use boundary::records::{Change, Record};
use store::store::Store;

/// Prefix of the keys of networks in the store.
const NETWORK_PREFIX: &str = "docker/network/";
/// Prefix of the keys of endpoints in the store.
const ENDPOINT_PREFIX: &str = "docker/endpoint/";

/// The allocator of a network's addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ipam {
    /// Nobody before CreateEndpoint, so we do there.
    None,
    /// Our own IPAM driver.
    Ours,
    /// Another allocator, of which other hosts may not know.
    Foreign,
}

/// A network of one of our drivers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Network {
    /// Allocator of its addresses.
    pub(crate) ipam: Ipam,
    /// From where we do, as text; empty for the default subnet.
    #[serde(default)]
    pub(crate) subnet: String,
    /// Whether its containers send multicast by it.
    pub(crate) multicast: bool,
    /// MTU of its interfaces, if not that of the bridge.
    #[serde(default)]
    pub(crate) mtu: Option<u32>,
    /// Its name, once Docker has told it.
    #[serde(default)]
    pub(crate) name: Option<String>,
}

/// A container's way to a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    /// The id of its network.
    pub(crate) network: String,
    /// Under which id we hold its address; `None` if that is the IPAM driver's doing.
    pub(crate) holder: Option<String>,
    /// Its address with the prefix length, as text.
    pub(crate) address: String,
    /// The MAC address of its interface, as text.
    pub(crate) mac: String,
    /// Whether we chose the address, ...
    pub(crate) chose_address: bool,
    /// ... and the MAC address.
    pub(crate) chose_mac: bool,
    /// Whether it is still to be found out whose it is.
    pub(crate) open: bool,
    /// The container, if it is known.
    #[serde(default)]
    pub(crate) container: Option<String>,
}

#[derive(Debug, Default)]
struct Tables {
    networks: BTreeMap<String, Network>,
    endpoints: BTreeMap<String, Endpoint>,
}

/// All of them, in memory and in the store.
#[derive(Debug)]
pub(crate) struct Registry {
    tables: Mutex<Tables>,
    store: Arc<Store>,
}

impl Registry {
    /// Returns what was stored. Records that cannot be read are passed over.
    pub(crate) fn load(store: Arc<Store>, records: &[Record]) -> Registry {
        let mut tables = Tables::default();
        for (key, value) in records {
            let Ok(key) = std::str::from_utf8(key) else {
                continue;
            };
            if let Some(id) = key.strip_prefix(NETWORK_PREFIX) {
                if let Some(network) = read(key, value) {
                    tables.networks.insert(id.to_owned(), network);
                }
            } else if let Some(id) = key.strip_prefix(ENDPOINT_PREFIX)
                && let Some(endpoint) = read(key, value)
            {
                tables.endpoints.insert(id.to_owned(), endpoint);
            }
        }
        Registry {
            tables: Mutex::new(tables),
            store,
        }
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        // Each change is one insertion or removal, so a panic elsewhere leaves them whole.
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn network(&self, id: &str) -> Option<Network> {
        self.tables().networks.get(id).cloned()
    }

    pub(crate) fn networks(&self) -> BTreeMap<String, Network> {
        self.tables().networks.clone()
    }

    pub(crate) fn endpoint(&self, id: &str) -> Option<Endpoint> {
        self.tables().endpoints.get(id).cloned()
    }

    pub(crate) fn endpoints(&self) -> BTreeMap<String, Endpoint> {
        self.tables().endpoints.clone()
    }

    pub(crate) async fn put_network(&self, id: &str, network: Network) -> Result<(), String> {
        if self.network(id).as_ref() == Some(&network) {
            return Ok(());
        }
        self.save(NETWORK_PREFIX, id, Some(&network)).await?;
        self.tables().networks.insert(id.to_owned(), network);
        Ok(())
    }

    pub(crate) async fn remove_network(&self, id: &str) -> Result<(), String> {
        if self.network(id).is_some() {
            self.save::<Network>(NETWORK_PREFIX, id, None).await?;
            self.tables().networks.remove(id);
        }
        Ok(())
    }

    pub(crate) async fn put_endpoint(&self, id: &str, endpoint: Endpoint) -> Result<(), String> {
        self.save(ENDPOINT_PREFIX, id, Some(&endpoint)).await?;
        self.tables().endpoints.insert(id.to_owned(), endpoint);
        Ok(())
    }

    pub(crate) async fn remove_endpoint(&self, id: &str) -> Result<(), String> {
        if self.endpoint(id).is_some() {
            self.save::<Endpoint>(ENDPOINT_PREFIX, id, None).await?;
            self.tables().endpoints.remove(id);
        }
        Ok(())
    }

    /// Saves a record and waits until it is on disk.
    async fn save<T: Serialize>(
        &self,
        prefix: &str,
        id: &str,
        value: Option<&T>,
    ) -> Result<(), String> {
        let value = value.map(serde_json::to_vec).transpose();
        let change = Change {
            key: format!("{prefix}{id}").into_bytes(),
            value: value.map_err(|error| error.to_string())?,
        };
        let (done, wait) = oneshot::channel();
        self.store.save_alone(vec![change], move |result| {
            // Whoever waited may have gone away.
            let _ = done.send(result);
        });
        match wait.await {
            Ok(result) => result.map_err(|error| error.to_string()),
            Err(_) => Err("the store has been closed".to_owned()),
        }
    }
}

fn read<T: for<'de> Deserialize<'de>>(key: &str, value: &[u8]) -> Option<T> {
    let parsed = serde_json::from_slice(value);
    if let Err(error) = &parsed {
        tracing::warn!(key, %error, "a stored record of Docker's networks cannot be read");
    }
    parsed.ok()
}
