//! Which name this peer has, and keeps.

use std::fmt;
use std::fs;
use std::path::Path;

use proto::identity::SystemIds;
use proto::types::PeerName;
use tokio::sync::oneshot;

use super::addresses::Import;
use crate::config::Config;
use boundary::records::{Change, Record, StoreError};
use host::bridge::Bridge;
use kernel::error::NetError;
use kernel::netlink::Netlink;
use store::store::Store;

/// The record that holds our name, as text.
pub const PEER_NAME_KEY: &[u8] = b"peername";

/// Origin of a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameSource {
    /// The user.
    Flag,
    /// The bridge that is there.
    Bridge,
    /// An earlier run.
    Store,
    /// A Weave Net router that was here before.
    Import,
    /// The ids of the machine.
    System,
    /// Chance, since there are no ids.
    Chance,
}

impl fmt::Display for NameSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NameSource::Flag => "as given by --name",
            NameSource::Bridge => "from the bridge",
            NameSource::Store => "from the last run",
            NameSource::Import => "from the Weave Net router that was here",
            NameSource::System => "from the ids of this machine",
            NameSource::Chance => "drawn by chance, as this machine has no ids",
        })
    }
}

/// Chooses the name: the user's, the bridge's, the last run's, the machine's, or any.
pub(super) fn choose(
    config: &Config,
    netlink: &Netlink,
    records: &[Record],
    import: Option<&Import>,
) -> Result<(PeerName, NameSource), NetError> {
    if let Some(name) = config.name {
        return Ok((name, NameSource::Flag));
    }
    if let Some(bridge) = Bridge::find(netlink, &config.bridge)?
        && let Some(mac) = bridge.link.mac
        && mac.as_u64() != 0
    {
        return Ok((PeerName::from_bytes(*mac.as_bytes()), NameSource::Bridge));
    }
    if let Some(name) = stored(records) {
        return Ok((name, NameSource::Store));
    }
    if let Some(name) = import.and_then(|import| import.state.name) {
        return Ok((name, NameSource::Import));
    }
    if let Ok(name) = system_ids(&config.host_root).peer_name() {
        return Ok((name, NameSource::System));
    }
    Ok((by_chance(), NameSource::Chance))
}

fn stored(records: &[Record]) -> Option<PeerName> {
    let (_, value) = records.iter().find(|(key, _)| key == PEER_NAME_KEY)?;
    let name = std::str::from_utf8(value).ok()?.parse().ok()?;
    (name != PeerName::UNKNOWN).then_some(name)
}

fn system_ids(root: &Path) -> SystemIds {
    let read = |path: &str| fs::read(root.join(path)).ok();
    SystemIds {
        machine_id: read("etc/machine-id"),
        dbus_machine_id: read("var/lib/dbus/machine-id"),
        product_uuid: read("sys/class/dmi/id/product_uuid"),
        hypervisor_uuid: read("sys/hypervisor/uuid"),
    }
}

/// Returns a random name that is a valid MAC address: individual, locally administered.
fn by_chance() -> PeerName {
    let mut bytes = [0; 6];
    if getrandom::fill(&mut bytes).is_err() {
        bytes[5] = 1;
    }
    bytes[0] = (bytes[0] & 0xfe) | 0x02;
    PeerName::from_bytes(bytes)
}

/// Saves the name, so that it is the same when bridge and machine ids are not there.
pub(super) async fn save(store: &Store, name: PeerName) -> Result<(), StoreError> {
    let change = Change {
        key: PEER_NAME_KEY.to_vec(),
        value: Some(name.to_string().into_bytes()),
    };
    let (done, saved) = oneshot::channel();
    store.save_alone(vec![change], move |result| {
        // Whoever started us waits for it.
        let _ = done.send(result);
    });
    saved.await.unwrap_or(Err(StoreError::Closed))
}
