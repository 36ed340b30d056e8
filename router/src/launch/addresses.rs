//! The allocator's start: what it had before, what a Weave Net router had before it, and what is
//! in use on this host.

use std::fs;
use std::path::{Path, PathBuf};

use ipam::allocator::{Allocator, Clock, Config as AllocatorConfig, Found, Init as First, Origin};
use ipam::import::WeaveState;
use ipam::persist::Stored;
use ipam::range::Cidr;
use proto::types::PeerName;

use super::LaunchError;
use crate::config::{Config, Init, IpamConfig};
use boundary::records::Record;
use control::addresses::RECORD_PREFIX;
use host::{attach, gateway};

/// The owner of addresses of which nobody knows whose they are.
const NOBODY: &str = "_";
/// The owner of the bridge's own addresses.
pub(super) const EXPOSE_OWNER: &str = "weave:expose";
/// Largest data base that is read, in bytes.
const IMPORT_BYTES_MAX: u64 = 256 << 20;

/// State that a Weave Net router left on this host.
#[derive(Debug)]
pub(super) struct Import {
    pub(super) file: PathBuf,
    pub(super) state: WeaveState,
}

/// Returns the records of the allocator among all records.
fn records(all: &[Record]) -> impl Iterator<Item = (&[u8], &[u8])> {
    all.iter()
        .filter_map(|(key, value)| Some((key.strip_prefix(RECORD_PREFIX)?, &value[..])))
}

/// Refuses a range that no host can have addresses of, unless addresses of it are in use already:
/// then it is said each time.
pub(super) fn check_range(
    config: &Config,
    all: &[Record],
    imports: bool,
) -> Result<(), LaunchError> {
    let unusable = config.ipam.as_ref().and_then(|ipam| ipam.unusable.as_ref());
    let Some(why) = unusable else { return Ok(()) };
    if records(all).next().is_none() && !imports {
        return Err(LaunchError::new(why));
    }
    tracing::error!(
        "{why}. Addresses of it are in use, so it stays until 'weft reset' on all hosts"
    );
    Ok(())
}

/// Reads the data base of a Weave Net router, if we have none of our own yet: the one given, or
/// one in the places where it usually is.
pub(super) fn find_import(config: &Config, all: &[Record]) -> Result<Option<Import>, LaunchError> {
    let has_own = records(all).next().is_some();
    if has_own || config.ipam.is_none() {
        if let Some(file) = config.import.as_ref().filter(|_| has_own) {
            tracing::warn!(
                "--import {}: not read, since this router has addresses of its own already",
                file.display()
            );
        }
        return Ok(None);
    }
    let given = config.import.clone();
    let Some(file) = given.clone().or_else(|| usual_places(&config.host_root)) else {
        return Ok(None);
    };
    match read(&file) {
        Ok(state) => Ok(Some(Import { file, state })),
        Err(error) => Err(LaunchError(format!(
            "{}: {error}. It is the data base of a Weave Net router, whose addresses would be given \
             out again without it; if they are not needed any more, move the file away",
            file.display()
        ))),
    }
}

fn usual_places(root: &Path) -> Option<PathBuf> {
    let fixed = [
        "weavedb/weavedata.db",
        "var/lib/weave/weave-netdata.db",
        "var/lib/weave/weavedata.db",
    ];
    let fixed = fixed.iter().map(|file| root.join(file));
    // Weave Net's data container keeps it in a volume without a name.
    let volumes = fs::read_dir(root.join("var/lib/docker/volumes"))
        .into_iter()
        .flatten();
    let volumes = volumes
        .flatten()
        .map(|entry| entry.path().join("_data/weavedata.db"));
    let mut found: Vec<PathBuf> = fixed.chain(volumes).filter(|file| file.is_file()).collect();
    // Of several the one that was written last is that of the last router.
    found.sort_by_key(|file| fs::metadata(file).and_then(|m| m.modified()).ok());
    found.pop()
}

fn read(file: &Path) -> Result<WeaveState, String> {
    let open = fs::File::open(file).map_err(|error| error.to_string())?;
    if let Err(fs::TryLockError::WouldBlock) = open.try_lock_shared() {
        return Err("the Weave Net router that uses it still runs; stop it first".to_owned());
    }
    let len = open.metadata().map_err(|error| error.to_string())?.len();
    if len > IMPORT_BYTES_MAX {
        return Err(format!("{len} bytes are more than a data base has"));
    }
    let bytes = fs::read(file).map_err(|error| error.to_string())?;
    WeaveState::from_file(&bytes).map_err(|error| error.to_string())
}

/// Starts the allocator with what is known.
pub(super) fn start(
    config: &Config,
    ipam: &IpamConfig,
    name: PeerName,
    all: &[Record],
    import: Option<&Import>,
    [uid, rng_seed]: [u64; 2],
    clock: Clock,
) -> Result<Allocator, LaunchError> {
    let cidr = |net: ipnet::Ipv4Net| Cidr {
        address: net.addr().into(),
        len: net.prefix_len(),
    };
    let universe = cidr(ipam.range);
    let (stored, origin) = match import {
        Some(import) => {
            tracing::info!(file = %import.file.display(), "took over what a Weave Net router had");
            (
                Stored::from_weave(&import.state, name, universe),
                Origin::Import,
            )
        }
        None => {
            let stored = Stored::load(records(all)).map_err(|error| {
                LaunchError(format!(
                    "the stored addresses cannot be read: {error}. Use the weft that wrote them, \
                     or give the addresses up with 'weft reset'"
                ))
            })?;
            (stored, Origin::Store)
        }
    };
    let allocator = AllocatorConfig {
        name,
        nickname: config.nickname.clone(),
        universe,
        universe_defaulted: !ipam.range_given,
        default_subnet: (ipam.default_subnet != ipam.range).then(|| cidr(ipam.default_subnet)),
        init: match &ipam.init {
            Init::Consensus(count) => First::Consensus(*count),
            Init::Seed(peers) => First::Seed(peers.clone()),
            Init::Observer => First::Observer,
        },
        uid,
        lease_retention: ipam.lease_retention.as_secs(),
        await_found: true,
        rng_seed,
    };
    Allocator::new(clock, allocator, stored, origin).map_err(LaunchError::new)
}

/// Returns the addresses that are in use on this host already: in attached containers, and on the
/// bridge.
pub(super) fn in_use(config: &Config) -> Result<Vec<Found>, LaunchError> {
    let cidr = |net: ipnet::Ipv4Net| Cidr {
        address: net.addr().into(),
        len: net.prefix_len(),
    };
    let attached = attach::attached(&config.bridge, &config.proc_path).map_err(LaunchError::new)?;
    let containers = attached.iter().flat_map(|interface| {
        let id = interface.owner.clone().unwrap_or_else(|| NOBODY.to_owned());
        interface.addresses.iter().map(move |net| Found {
            id: id.clone(),
            cidr: cidr(*net),
            container: false,
        })
    });
    let exposed = gateway::exposed(&config.bridge).map_err(LaunchError::new)?;
    let exposed = exposed.iter().map(|exposed| Found {
        id: EXPOSE_OWNER.to_owned(),
        cidr: cidr(exposed.address),
        container: false,
    });
    Ok(containers.chain(exposed).collect())
}
