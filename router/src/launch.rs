//! `weft launch`: from flags to a running router, and back.
//!
//! What can be refused is tried before anything is changed: the lock, the ports, the store. Then
//! come the bridge and the TAP device, then the threads. On the way out the devices stay, so that
//! containers on this host keep talking to each other and the next start finds them.

mod addresses;
mod exposures;
mod gateway;
mod http;
mod identity;
mod link_changes;
mod name_server;
mod names;
mod readiness;
mod reaper;
mod services;
mod system;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use ipam::allocator::{Clock, Request};

use proto::native::Ciphers;
use proto::node::{Node, NodeConfig};
use proto::types::{PeerName, PeerUid};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

pub use identity::{NameSource, PEER_NAME_KEY};
pub(crate) use names::EXTERN_OWNER;
use readiness::Notifier;

use crate::config::{Config, IpamConfig};
use crate::logging::queue::LogQueue;
use api::drawing_slots::DrawingSlots;
use api::routes::Scope;
use api::services::Services;
use boundary::forwarding::Figures;
use boundary::records::Record;
use boundary::snapshot::Snapshot;
use control::addresses::Addresses;
use control::client::Client;
use control::consumers::Consumers;
use control::control::{Control, Parts, TARGETS_KEY};
use control::driver::{self, Inputs};
use control::links::Links;
use control::surroundings::Surroundings;
use dataplane::plane::{DataConfig, DataPlane, default_queues};
use dataplane::tap::{Tap, TapConfig};
use dataplane::udp::sockets::{Sockets, UdpConfig};
use docker::plugin::Networks;
use gateway::KeptGateway;
use host::bridge::{Bridge, BridgeConfig, Origin};
use host::lock::RouterLock;
use host::overlap::overlapping_routes;
use host::reconcile::{self, Reconciler, ReconcilerConfig};
use http::HttpThread;
use kernel::arp::NeighbourTiming;
use kernel::netlink::Netlink;
use name_server::LocalNameServer;
use probe::bench;
use probe::bench::session::Benches;
use report::metrics::MetricSource;
use services::{LocalDocker, LocalMeasure};
use store::store::Store;
use system::{SystemClock, SystemRandom};
use transport::tcp::{self, Transport};
use web::listener::Listener;

/// File of the store, behind the prefix.
const STORE_FILE: &str = "weft.db";
/// Open files that a full mesh needs.
const OPEN_FILES: u64 = 65536;

/// A start that failed; the text says what to do.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct LaunchError(String);

impl LaunchError {
    fn new(error: impl ToString) -> LaunchError {
        LaunchError(error.to_string())
    }
}

/// Runs the router until it is stopped.
pub async fn run(config: Config, log: &LogQueue) -> Result<(), LaunchError> {
    let config = Arc::new(config);
    warn_of_ignored(&config);
    let _lock = RouterLock::acquire().map_err(LaunchError::new)?;
    raise_file_limit();
    let netlink = Netlink::open().map_err(LaunchError::new)?;
    if let Some(ipam) = &config.ipam {
        check_overlap(&netlink, ipam, &config.bridge)?;
    }
    let listener = listen(&config)?;
    let http = open_http(&config).await?;
    let queues = queues(&config);
    let sockets = open_sockets(&config, queues)?;
    let opened = Store::open(&config.state_file(STORE_FILE)).map_err(LaunchError::new)?;
    if let Some(aside) = &opened.damaged {
        tracing::error!(
            kept = %aside.display(),
            "the store was damaged; it was put aside and a new one begun"
        );
    }
    let store = Arc::new(opened.store);
    let import = addresses::find_import(&config, &opened.records)?;
    addresses::check_range(&config, &opened.records, import.is_some())?;
    let (name, source) = identity::choose(&config, &netlink, &opened.records, import.as_ref())
        .map_err(LaunchError::new)?;
    identity::save(&store, name)
        .await
        .map_err(LaunchError::new)?;
    tracing::info!("our name is {name}({}), {source}", config.nickname);

    let tap = set_up_devices(&config, &netlink, name, queues)?;
    let tap_name = tap.name().to_owned();
    let reconciler = Arc::new(Reconciler::new(ReconcilerConfig {
        bridge: config.bridge.clone(),
        mac: name.to_mac(),
        mtu: config.mtu,
        timing: NeighbourTiming::default(),
        tap: tap_name.clone(),
    }));
    // Before anybody asks whose addresses are in use: containers of a bridge that was deleted
    // come back here.
    let found = reconciler.look().map_err(LaunchError::new)?;
    reconcile::log(&found, &BTreeSet::new());
    tokio::spawn(reconcile::watch(Arc::clone(&reconciler)));
    let before = Before {
        records: &opened.records,
        import: import.as_ref(),
    };
    let kept = Arc::clone(&store);
    let (gateway, exposures) = gateway::restore(&config, &opened.records)?;
    let control = start(&config, name, store, &before, tap, sockets, listener)?;
    let client = &control.client;
    let kept_gateway = KeptGateway::new(Arc::clone(&gateway), client.clone(), &config);
    let saved = kept_gateway.save(&exposures).await;
    saved.map_err(LaunchError::new)?;
    tokio::spawn(kept_gateway.clone().watch());
    let targets = remembered_targets(&config, &before);
    client
        .connect_in_background(targets)
        .await
        .map_err(LaunchError::new)?;
    if config.ipam.is_some() {
        let found = Request::Found {
            addresses: addresses::in_use(&config)?,
        };
        let told = client.tell_allocator(found).await;
        told.map_err(LaunchError::new)?;
        tokio::spawn(reaper::watch(
            client.clone(),
            config.bridge.clone(),
            config.proc_path.clone(),
        ));
    }
    if config.dns.is_some() {
        names::restore(&config, &opened.records, client).await?;
        tokio::spawn(names::follow_containers(
            config.bridge.clone(),
            client.clone(),
        ));
    }
    let networks = Networks::new(
        services::docker(&config),
        client.clone(),
        &kept,
        &opened.records,
    );
    drop(kept);
    let docker = Arc::new(LocalDocker(networks.clone()));
    let name_server = control.name_server.map(Arc::new);
    let mut metrics: Vec<Arc<dyn MetricSource>> = vec![docker.clone(), Arc::new(log.clone())];
    metrics.extend(name_server.clone().map(|server| server as _));
    // Now, so that every page finds one.
    client.first_view().await.map_err(LaunchError::new)?;
    let services = Services {
        client: client.clone(),
        config: Arc::new(services::config(&config, &tap_name)),
        figures: control.figures,
        gateway: Arc::new(kept_gateway),
        docker,
        measure: Arc::new(LocalMeasure(control.benches)),
        name_server: name_server.map(|server| server as _),
        metrics: metrics.into(),
        drawing: DrawingSlots::default(),
    };
    let http = HttpThread::start(http, services)?;
    let activated = kernel::sys::activation::listeners();
    networks.start(activated).await;
    tracing::info!(
        port = config.port,
        encryption = config.password.is_some(),
        bridge = config.bridge,
        device = tap_name,
        mtu = config.mtu,
        "the router runs"
    );
    stop_on_signal(client.clone())?;
    let notifier = Notifier::from_environment();
    notifier.ready(client, &format!("{name}({})", config.nickname));
    control.task.await.map_err(LaunchError::new)?;
    notifier.stopping();
    http.stop();
    gateway.close();
    if let Err(error) = reconciler.give_back() {
        tracing::debug!(%error, "what a Weave Net router had on the bridge stays off it");
    }
    tracing::info!("the router stopped; devices stay, so containers on this host keep talking");
    Ok(())
}

/// Returns the name that this peer would have, without starting anything.
pub fn peer_name(config: &Config) -> Result<PeerName, LaunchError> {
    let netlink = Netlink::open().map_err(LaunchError::new)?;
    let (name, _) = identity::choose(config, &netlink, &[], None).map_err(LaunchError::new)?;
    Ok(name)
}

fn warn_of_ignored(config: &Config) {
    if config.password_empty {
        tracing::warn!("the password that was given is empty: nothing is kept from strangers");
    }
    if !config.ignored.is_empty() {
        tracing::warn!(
            "without effect here: {}; these belong to services that weft does not have",
            config.ignored.join(" ")
        );
    }
}

/// Many peers need many sockets. A process that may not ask for more has what it has.
fn raise_file_limit() {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    let wanted = limit
        .maximum
        .map_or(OPEN_FILES, |most| most.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        limit.current = Some(wanted);
        if let Err(error) = setrlimit(Resource::Nofile, limit) {
            tracing::debug!(%error, "the limit of open files stays as it is");
        }
    }
}

fn check_overlap(netlink: &Netlink, ipam: &IpamConfig, bridge: &str) -> Result<(), LaunchError> {
    let range = ipam.range;
    let overlaps = overlapping_routes(netlink, range, bridge).map_err(LaunchError::new)?;
    let Some(overlap) = overlaps.first() else {
        return Ok(());
    };
    if ipam.range_given {
        tracing::warn!(
            "the range {range} overlaps a route of this host ({overlap}); unless this is \
             deliberate, choose another range on all hosts"
        );
        return Ok(());
    }
    Err(LaunchError(format!(
        "the default range {range} overlaps a route of this host ({overlap}). Choose another one \
         with --ipalloc-range on all hosts, or give {range} explicitly if this is deliberate"
    )))
}

fn listen(config: &Config) -> Result<TcpListener, LaunchError> {
    let address = SocketAddr::new(config.host, config.port);
    tcp::listen(address).map_err(|error| match error.kind() {
        std::io::ErrorKind::AddrInUse => LaunchError(format!(
            "TCP port {} is in use by another process (another router?); stop it, or choose \
             another port with --port on all hosts",
            config.port
        )),
        _ => LaunchError(format!("cannot listen on {address}: {error}")),
    })
}

async fn open_http(config: &Config) -> Result<Vec<(Listener, Scope)>, LaunchError> {
    let wanted = [
        ("--http-addr", &config.http_addr, Scope::Control),
        ("--status-addr", &config.status_addr, Scope::Status),
        ("--metrics-addr", &config.metrics_addr, Scope::Metrics),
    ];
    let mut open = Vec::new();
    for (flag, address, scope) in wanted {
        let Some(address) = address else { continue };
        let listener = Listener::open(address).await.map_err(|error| {
            LaunchError(format!(
                "cannot listen on {address}: {error}; choose another address with {flag}"
            ))
        })?;
        open.push((listener, scope));
    }
    Ok(open)
}

fn queues(config: &Config) -> u16 {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match u16::try_from(config.queues).unwrap_or(u16::MAX) {
        0 => default_queues(cores),
        queues => queues,
    }
}

fn open_sockets(config: &Config, queues: u16) -> Result<Sockets, LaunchError> {
    let ip = match config.host {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    };
    let udp = UdpConfig {
        local: SocketAddrV4::new(ip, config.port),
        queues,
        gso: !config.offload_off.gso,
        gro: !config.offload_off.gro,
    };
    Sockets::open(&udp).map_err(LaunchError::new)
}

/// Returns the TAP device's name; one for each bridge.
pub fn tap_name(bridge: &str) -> String {
    format!("weft-{bridge}")
}

fn set_up_devices(
    config: &Config,
    netlink: &Netlink,
    name: PeerName,
    queues: u16,
) -> Result<Tap, LaunchError> {
    let bridge = Bridge::ensure(
        netlink,
        &BridgeConfig {
            name: &config.bridge,
            mac: name.to_mac(),
            mtu: config.mtu,
            timing: NeighbourTiming::default(),
        },
    )
    .map_err(LaunchError::new)?;
    match bridge.origin {
        Origin::Created => tracing::info!(bridge = config.bridge, "made the bridge"),
        _ => tracing::info!(bridge = config.bridge, "took up the bridge that was there"),
    }
    let tap = Tap::open(&TapConfig {
        name: tap_name(&config.bridge),
        queues,
        offload: !config.offload_off.tap,
    })
    .map_err(LaunchError::new)?;
    bridge
        .add_tap(netlink, tap.name())
        .map_err(LaunchError::new)?;
    Ok(tap)
}

/// State from earlier runs.
struct Before<'a> {
    records: &'a [Record],
    import: Option<&'a addresses::Import>,
}

struct Running {
    client: Client,
    figures: Arc<dyn Figures>,
    name_server: Option<LocalNameServer>,
    benches: Arc<Benches>,
    task: tokio::task::JoinHandle<()>,
}

fn start(
    config: &Arc<Config>,
    name: PeerName,
    store: Arc<Store>,
    before: &Before<'_>,
    tap: Tap,
    sockets: Sockets,
    listener: TcpListener,
) -> Result<Running, LaunchError> {
    let epoch = Instant::now();
    let [uid, seed, mac_key, elector, ipam_seed] = random()?;
    let mut consumers = Consumers::new();
    if config.ipam.is_some() {
        consumers = consumers.with_allocator();
    }
    if config.dns.is_some() {
        consumers = consumers.with_names();
    }
    let deliveries = consumers.outside(bench::CHANNEL);
    let node = NodeConfig {
        channels: consumers.topics(),
        ..node_config(config, name, uid, seed)
    };
    let node = Node::new(node, proto::types::Time::ZERO);
    let mut links = Links::new(name, Arc::clone(node.routes()));
    let snapshot = links.take_snapshot().unwrap_or_else(|| {
        let routes = Arc::clone(node.routes());
        let slots = proto::switch::PeerSlots::new(name);
        Snapshot::new(
            proto::switch::Forwarding::new(routes, &slots, &[]),
            Vec::new(),
            Vec::new(),
        )
    });
    let (saved, saved_inbox) = mpsc::unbounded_channel();
    let mut allocator = None;
    if let Some(ipam) = &config.ipam {
        let wall = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_secs();
        let clock = Clock {
            now: proto::types::Time::ZERO,
            wall,
        };
        let Before { records, import } = *before;
        let seeds = [elector, ipam_seed];
        let started = addresses::start(config, ipam, name, records, import, seeds, clock)?;
        allocator = Some(Addresses::new(started, saved));
    }
    let (mut naming, mut name_server) = (None, None);
    if let Some(dns) = &config.dns {
        let (names, server) = names::start(config, dns, name)?;
        naming = Some(names);
        name_server = Some(LocalNameServer::new(server, dns, config));
    }
    let tap_name = tap.name().to_owned();
    let data = DataConfig {
        epoch,
        mac_key,
        join: !config.offload_off.tap,
        container_mtu: Some(config.mtu),
        guard: config.guard,
    };
    let (data, data_events) =
        DataPlane::start(&data, tap, sockets, snapshot).map_err(LaunchError::new)?;
    let (transport, connections) = Transport::start(listener, config.host);
    let (client, inbox) = Client::new();
    let benches = Benches::new(client.clone(), &config.bridge);
    tokio::spawn(Arc::clone(&benches).follow(deliveries));
    let figures = data.figures();
    let control = Control::new(Parts {
        node,
        consumers,
        addresses: allocator,
        naming,
        links,
        surroundings: Surroundings {
            forwarding: Box::new(data),
            connections: Box::new(transport),
            records: store,
            clock: Box::new(SystemClock { epoch }),
            random: Box::new(SystemRandom),
        },
        device: tap_name,
    });
    let inputs = Inputs {
        inbox,
        connections,
        forwarding: data_events,
        saved: saved_inbox,
    };
    let task = tokio::spawn(driver::run(control, inputs));
    Ok(Running {
        client,
        figures,
        name_server,
        benches,
        task,
    })
}

fn node_config(config: &Config, name: PeerName, uid: u64, seed: u64) -> NodeConfig {
    NodeConfig {
        port: config.port,
        password: config.password.as_deref().map(Arc::from),
        connection_limit: config.conn_limit.unwrap_or(0),
        discovery: config.discovery,
        trusted_subnets: config
            .trusted_subnets
            .iter()
            .map(|net| (*net).into())
            .collect(),
        min_version: config.min_version,
        overlays: config.overlays.clone(),
        ciphers: match config.offload_off.aes {
            true => Ciphers::PORTABLE,
            false => ciphers(),
        },
        key_life: config.key_life,
        require_encryption: config.require_encryption,
        // Zero marks placeholders.
        ..NodeConfig::new(name, &config.nickname, PeerUid(uid.max(1)), seed)
    }
}

/// Returns the ciphers that this machine takes: AES only where the processor has instructions for
/// it, as it is slow and hard to do safely otherwise.
fn ciphers() -> Ciphers {
    #[cfg(target_arch = "x86_64")]
    let has_aes = is_x86_feature_detected!("aes") && is_x86_feature_detected!("pclmulqdq");
    #[cfg(target_arch = "aarch64")]
    let has_aes = std::arch::is_aarch64_feature_detected!("aes")
        && std::arch::is_aarch64_feature_detected!("pmull");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has_aes = false;
    if has_aes {
        Ciphers::ALL
    } else {
        Ciphers::PORTABLE
    }
}

fn random<const N: usize>() -> Result<[u64; N], LaunchError> {
    let mut numbers = [0; N];
    for number in &mut numbers {
        *number = getrandom::u64()
            .map_err(|error| LaunchError(format!("the system gives no random bytes: {error}")))?;
    }
    Ok(numbers)
}

/// Returns what to connect to: the peers given, or with `--resume` those of the last run.
fn remembered_targets(config: &Config, before: &Before<'_>) -> Vec<String> {
    if !config.resume {
        return config.peers.clone();
    }
    let record = before.records.iter().find(|(key, _)| key == TARGETS_KEY);
    let stored = record.and_then(|(_, value)| serde_json::from_slice(value).ok());
    let imported = || before.import.map(|import| import.state.targets.clone());
    stored.or_else(imported).unwrap_or_default()
}

/// Stops the router when the system or the user asks for it.
fn stop_on_signal(client: Client) -> Result<(), LaunchError> {
    let mut terminate = signal(SignalKind::terminate()).map_err(LaunchError::new)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(LaunchError::new)?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => tracing::info!("stopping on SIGTERM"),
            _ = interrupt.recv() => tracing::info!("stopping on SIGINT"),
        }
        // A loop that has ended needs no stopping.
        let _ = client.stop().await;
    });
    Ok(())
}
