//! The network driver: networks, endpoints and what leads into containers.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ipam::leases::Identity;
use ipam::range::Cidr;
use ipnet::Ipv4Net;
use proto::types::Mac;
use serde_json::Value;
use tokio::sync::OwnedMutexGuard;

use crate::engine::ListedNetwork;
use crate::identity;
use crate::latency::{Spent, Stage};
use crate::messages::{
    self, CreateEndpoint, CreateNetwork, CreatedEndpoint, EndpointCall, GENERIC, Interface,
    InterfaceName, Joined, Options, StaticRoute, option,
};
use crate::networks::{Endpoint, Ipam, Network};
use crate::plugin::Plugin;
use crate::plugin_server::Socket;
use crate::validate::check_options;
use control::errors::RequestError;
use host::attach::INTERFACE;
use host::attach::endpoint::{self, NewEndpoint};
use host::blocking::blocking;
use kernel::arp::NeighbourTiming;
use kernel::netns::Namespace;

/// Options of a network that turn multicast on or off: ours, and Weave Net's.
const MULTICAST: [&str; 2] = ["weft.multicast", "works.weave.multicast"];
/// Options of a network that set the MTU: ours, and that of Docker's own drivers.
const MTU: [&str; 2] = ["weft.mtu", "com.docker.network.driver.mtu"];
/// Option of a network whose addresses we choose: from which subnet.
const SUBNET: &str = "weft.subnet";
/// Option of an endpoint on a network whose addresses we choose: this address.
const ADDRESS: &str = "weft.ip";
/// Our options of networks and of endpoints.
const NETWORK_OPTIONS: [&str; 3] = [MULTICAST[0], MTU[0], SUBNET];
const ENDPOINT_OPTIONS: [&str; 2] = [identity::IDENTITY, ADDRESS];
/// Smallest and largest MTU of an interface in bytes; others are refused.
const MTU_RANGE: std::ops::RangeInclusive<u32> = 576..=65535;
/// Maximum time for the engine to move an interface into its container and set it up.
const ARRIVAL_TIME_MAX: Duration = Duration::from_secs(60);
/// Maximum number of characters of an endpoint's id.
const ID_LENGTH_MAX: usize = 128;

/// The source of an endpoint's address, and its holder.
struct Chosen {
    cidr: Cidr,
    mac: Option<Mac>,
    holder: Option<String>,
    /// Until there is a record, nobody else tidies up what the holder has.
    turn: Option<OwnedMutexGuard<()>>,
    chose_address: bool,
    open: bool,
    container: Option<String>,
}

/// The container for which an endpoint is made.
#[derive(Default)]
struct Whose {
    identity: Option<Identity>,
    container: Option<String>,
    /// Nobody could tell yet.
    open: bool,
}

impl Plugin {
    pub(crate) async fn create_network(
        &self,
        socket: &Socket,
        call: CreateNetwork,
    ) -> Result<(), String> {
        check_id("a network", &call.network)?;
        if let Some(Value::Object(own)) = call.options.get(GENERIC) {
            check_options(own, &NETWORK_OPTIONS)?;
        }
        let network = read_network(socket, &call)?;
        let known = self.registry.network(&call.network);
        let name = known.and_then(|network| network.name);
        if let (Ipam::Foreign, Some(pool)) = (network.ipam, call.ipv4.first()) {
            self.check_foreign_pool(socket, &pool.pool).await?;
        }
        if let Ok(subnet) = network.subnet.parse() {
            self.check_subnet(socket, subnet).await?;
        }
        let network = Network { name, ..network };
        self.registry.put_network(&call.network, network).await
    }

    /// Forgets a network, and endpoints of it that Docker has forgotten to delete.
    pub(crate) async fn delete_network(&self, id: &str) -> Result<(), String> {
        for (endpoint, record) in self.registry.endpoints() {
            if record.network == id {
                self.delete_endpoint(&endpoint).await?;
            }
        }
        self.registry.remove_network(id).await
    }

    pub(crate) async fn create_endpoint(
        &self,
        socket: &Socket,
        call: CreateEndpoint,
        spent: &mut Spent,
    ) -> Result<CreatedEndpoint, String> {
        let Some(wanted) = &call.interface else {
            return Err(
                "Not supported: creating an interface from within CreateEndpoint".to_owned(),
            );
        };
        check_id("an endpoint", &call.endpoint)?;
        check_options(&call.options, &ENDPOINT_OPTIONS)?;
        let _turn = self.turns.take(&call.endpoint).await;
        let Some(network) = self.registry.network(&call.network) else {
            return Err(format!(
                "network {} is not known to this router; if it is not known in a minute either, \
                 make it again",
                call.network
            ));
        };
        if let Some(known) = self.registry.endpoint(&call.endpoint) {
            let name = host_name(&call.endpoint);
            if spent.kernel(move || endpoint::exists(&name)).await? {
                return Ok(answer(&known));
            }
            self.forget_endpoint(&call.endpoint, &known).await?;
        }
        let mac = match wanted.mac.as_str() {
            "" => None,
            text => Some(text.parse::<Mac>().map_err(|e| format!("{text}: {e}"))?),
        };
        let chosen = match wanted.address.as_str() {
            "" => {
                self.choose_address(socket, &call, &network, mac, spent)
                    .await?
            }
            address => {
                self.take_address(socket, &call, &network, address, spent)
                    .await?
            }
        };
        let made = self
            .make_endpoint(&call, &network, &chosen, mac, spent)
            .await;
        if made.is_err()
            && let Some(holder) = &chosen.holder
            && let Err(error) = self.release(holder).await
        {
            tracing::warn!(%error, holder, "an address was not released");
            self.untidy.notify_one();
        }
        let record = made?;
        tracing::info!(
            endpoint = short(&call.endpoint),
            address = record.address,
            driver = socket.name,
            container = record.container.as_deref().map(short),
            "made an endpoint for Docker"
        );
        Ok(answer(&record))
    }

    /// Returns an address that we choose.
    async fn choose_address(
        &self,
        socket: &Socket,
        call: &CreateEndpoint,
        network: &Network,
        mac: Option<Mac>,
        spent: &mut Spent,
    ) -> Result<Chosen, String> {
        let whose = self.whose(call, mac, spent).await?;
        let holder = holder(call, whose.container.as_deref());
        let turn = self.turns.take(&holder).await;
        let subnet = match network.subnet.as_str() {
            "" => None,
            text => Some(Cidr::parse_subnet(text).map_err(|e| e.to_string())?),
        };
        let given = match option(&call.options, ADDRESS) {
            Some(text) => {
                let subnet = match subnet {
                    Some(subnet) => subnet,
                    None => self.default_subnet().await?,
                };
                let address = text.parse().map_err(|e| format!("{ADDRESS}={text}: {e}"))?;
                let cidr = subnet.with_address(address);
                self.check_address(socket, cidr).await?;
                let claimed = self.claim(&holder, cidr, whose.identity);
                spent.on(Stage::Address, claimed).await?
            }
            None => {
                let given = self.allocate(&holder, subnet, whose.identity);
                spent.on(Stage::Address, given).await?
            }
        };
        Ok(Chosen {
            cidr: given.cidr,
            mac: given.mac,
            holder: Some(holder),
            turn: Some(turn),
            chose_address: true,
            open: whose.open,
            container: whose.container,
        })
    }

    /// Returns an address that the engine already has. That of our own IPAM driver is held; any
    /// other is claimed.
    async fn take_address(
        &self,
        socket: &Socket,
        call: &CreateEndpoint,
        network: &Network,
        address: &str,
        spent: &mut Spent,
    ) -> Result<Chosen, String> {
        let cidr = Cidr::parse_address(address).map_err(|e| format!("{address}: {e}"))?;
        let named = option(&call.options, identity::IDENTITY);
        let identity = named.map(|name| identity::explicit(&name)).transpose()?;
        let mut chosen = Chosen {
            cidr,
            mac: None,
            holder: None,
            turn: None,
            chose_address: false,
            open: false,
            container: None,
        };
        if network.ipam == Ipam::Ours {
            if identity.is_none() {
                return Ok(chosen);
            }
            // The address passes from the pool to the identity.
            let passed = cidr.address.to_string();
            spent.on(Stage::Address, self.release(&passed)).await?;
        } else {
            self.check_address(socket, cidr).await?;
        }
        let holder = holder(call, None);
        chosen.turn = Some(self.turns.take(&holder).await);
        let claimed = self.claim(&holder, cidr, identity);
        chosen.mac = spent.on(Stage::Address, claimed).await?.mac;
        chosen.holder = Some(holder);
        Ok(chosen)
    }

    /// Returns the container for which an endpoint is made, by the first clue that is found.
    async fn whose(
        &self,
        call: &CreateEndpoint,
        mac: Option<Mac>,
        spent: &mut Spent,
    ) -> Result<Whose, String> {
        if let Some(name) = option(&call.options, identity::IDENTITY) {
            return Ok(Whose {
                identity: Some(identity::explicit(&name)?),
                ..Whose::default()
            });
        }
        let name = option(&call.options, messages::ENDPOINT_NAME);
        let container = match &name {
            Some(name) => spent.on(Stage::List, self.named(name)).await,
            None => self.starting(&call.network, &call.endpoint, spent).await,
        };
        let mut whose = Whose::default();
        match (container, name) {
            (Some(container), _) => {
                whose.identity = identity::of_container(&container.labels, container.name())?;
                whose.container = Some(container.id);
            }
            (None, Some(name)) => whose.identity = identity::by_name(&name),
            (None, None) => whose.open = true,
        }
        if whose.identity.is_none()
            && let Some(mac) = mac
            && let Some(identity) = self.identity_by_mac(mac).await
        {
            whose.identity = Some(identity);
            whose.open = false;
        }
        Ok(whose)
    }

    /// Makes the pair of interfaces and the record.
    async fn make_endpoint(
        &self,
        call: &CreateEndpoint,
        network: &Network,
        chosen: &Chosen,
        mac: Option<Mac>,
        spent: &mut Spent,
    ) -> Result<Endpoint, String> {
        let id = call.endpoint.clone();
        let bridge = self.config.bridge.clone();
        let (mtu, wanted) = (network.mtu, mac.or(chosen.mac));
        // By this the address is found again after a restart.
        let owner = match &chosen.holder {
            Some(holder) => holder.clone(),
            None => chosen.cidr.address.to_string(),
        };
        let making = move || {
            endpoint::create(&NewEndpoint {
                bridge: &bridge,
                host_name: &host_name(&id),
                inner_name: &inner_name(&id),
                mac: wanted,
                mtu,
                owner: &owner,
            })
        };
        let given = spent.kernel(making).await?;
        let record = Endpoint {
            network: call.network.clone(),
            holder: chosen.holder.clone(),
            address: chosen.cidr.to_string(),
            mac: given.to_string(),
            chose_address: chosen.chose_address,
            chose_mac: mac.is_none(),
            open: chosen.open,
            container: chosen.container.clone(),
        };
        let saved = self.registry.put_endpoint(&call.endpoint, record.clone());
        if let Err(error) = spent.on(Stage::Record, saved).await {
            let name = host_name(&call.endpoint);
            blocking(move || endpoint::delete(&name)).await?;
            return Err(error);
        }
        Ok(record)
    }

    /// Deletes an endpoint with all that belongs to it. One that is not there is no failure.
    pub(crate) async fn delete_endpoint(&self, id: &str) -> Result<(), String> {
        check_id("an endpoint", id)?;
        let _turn = self.turns.take(id).await;
        self.seekers.forget(id);
        let Some(known) = self.registry.endpoint(id) else {
            let name = host_name(id);
            blocking(move || endpoint::delete(&name)).await?;
            return Ok(());
        };
        let forgotten = self.forget_endpoint(id, &known).await;
        if forgotten.is_err() {
            self.untidy.notify_one();
        }
        forgotten
    }

    async fn forget_endpoint(&self, id: &str, known: &Endpoint) -> Result<(), String> {
        let name = host_name(id);
        blocking(move || endpoint::delete(&name)).await?;
        // A container that was started again before its last endpoint was deleted has the same
        // holder, and its address.
        let endpoints = self.registry.endpoints();
        let mut others = endpoints.iter().filter(|(other, _)| *other != id);
        let shared = others.any(|(_, other)| other.holder == known.holder);
        if let Some(holder) = known.holder.as_ref().filter(|_| !shared) {
            self.release(holder).await?;
        }
        self.registry.remove_endpoint(id).await?;
        if let (Some(container), Ok(net)) = (&known.container, known.address.parse::<Ipv4Net>()) {
            self.unname(container, Some(net.addr())).await;
        }
        tracing::info!(
            endpoint = short(id),
            address = known.address,
            "deleted an endpoint of Docker"
        );
        Ok(())
    }

    pub(crate) async fn join(
        self: &Arc<Self>,
        call: &EndpointCall,
        spent: &mut Spent,
    ) -> Result<Joined, String> {
        check_id("an endpoint", &call.endpoint)?;
        let name = host_name(&call.endpoint);
        if !spent.kernel(move || endpoint::exists(&name)).await? {
            return Err(format!("endpoint {} is not known", call.endpoint));
        }
        let multicast = match (self.config.plugin.v2, self.registry.network(&call.network)) {
            (true, _) => self.config.plugin.v2_multicast,
            (false, Some(network)) => network.multicast,
            (false, None) => false,
        };
        let route = StaticRoute {
            destination: "224.0.0.0/4".to_owned(),
            route_type: 1,
            next_hop: "",
        };
        if !call.sandbox.is_empty() {
            let (plugin, call) = (Arc::clone(self), call.clone());
            tokio::spawn(async move { plugin.finish(&call).await });
        }
        Ok(Joined {
            err: "",
            interface_name: InterfaceName {
                src_name: inner_name(&call.endpoint),
                dst_name: "",
                dst_prefix: INTERFACE,
            },
            gateway: "",
            gateway_ipv6: "",
            static_routes: multicast.then(|| vec![route]),
            disable_gateway_service: false,
        })
    }

    /// Waits until the engine has moved the interface into the container and set it up, and does
    /// the rest there.
    async fn finish(&self, call: &EndpointCall) {
        let deadline = tokio::time::Instant::now() + ARRIVAL_TIME_MAX;
        let mut pause = Duration::from_millis(5);
        while tokio::time::Instant::now() < deadline {
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_millis(200));
            let (name, sandbox) = (host_name(&call.endpoint), call.sandbox.clone());
            let proc = self.config.proc_path.clone();
            let finished = blocking(move || {
                let Some(target) = sandbox_namespace(&sandbox, &proc) else {
                    return Ok(None);
                };
                endpoint::finish(&name, &target, NeighbourTiming::default())
            });
            match finished.await {
                Ok(None) => {}
                Ok(Some(warnings)) => {
                    for warning in warnings {
                        tracing::warn!(endpoint = short(&call.endpoint), "{warning}");
                    }
                    return;
                }
                Err(error) => {
                    // One that ends at once takes its interface along before Docker says so.
                    let name = host_name(&call.endpoint);
                    let there = blocking(move || endpoint::exists(&name)).await;
                    if there != Ok(false) && self.registry.endpoint(&call.endpoint).is_some() {
                        let endpoint = short(&call.endpoint);
                        tracing::warn!(endpoint, %error, "an endpoint was not set up fully");
                    }
                    return;
                }
            }
        }
    }

    pub(crate) async fn default_subnet(&self) -> Result<Cidr, String> {
        let ranges = self.client.ranges().await;
        let ranges = ranges.map_err(|stopped| stopped.to_string())?;
        ranges
            .map(|ranges| ranges.default_subnet)
            .ok_or_else(|| RequestError::Off.to_string())
    }
}

/// Returns the namespace of a sandbox: the path as the engine tells it, or as it is seen from the
/// first process, when this one has another root.
pub(crate) fn sandbox_namespace(path: &str, proc: &Path) -> Option<Namespace> {
    let outside = proc.join("1/root").join(path.trim_start_matches('/'));
    let label = || format!("sandbox {path}");
    Namespace::at(Path::new(path))
        .or_else(|_| Namespace::at(&outside))
        .ok()
        .map(|namespace| namespace.labelled(label()))
}

fn answer(endpoint: &Endpoint) -> CreatedEndpoint {
    let text = |chosen: bool, text: &str| {
        if chosen {
            text.to_owned()
        } else {
            String::new()
        }
    };
    // Only what the engine did not choose: it takes anything else for a mistake.
    CreatedEndpoint {
        err: "",
        interface: Interface {
            address: text(endpoint.chose_address, &endpoint.address),
            address_ipv6: String::new(),
            mac: text(endpoint.chose_mac, &endpoint.mac),
        },
    }
}

/// Under which id the address of an endpoint is held.
fn holder(call: &CreateEndpoint, container: Option<&str>) -> String {
    match container {
        Some(container) => format!("{container}@{}", short(&call.network)),
        None => format!("{ENDPOINT_HOLDER}{}", call.endpoint),
    }
}

/// Prefix of the ids of holders whose container was not known.
const ENDPOINT_HOLDER: &str = "endpoint:";

/// Returns true if an id is one under which endpoints hold their addresses.
pub(crate) fn is_holder(id: &str) -> bool {
    let hex = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_hexdigit());
    id.starts_with(ENDPOINT_HOLDER)
        || id
            .split_once('@')
            .is_some_and(|(container, network)| hex(container) && hex(network))
}

fn read_network(socket: &Socket, call: &CreateNetwork) -> Result<Network, String> {
    let empty = Options::new();
    let own = call
        .options
        .get(GENERIC)
        .and_then(|value| value.as_object());
    let own = own.unwrap_or(&empty);
    let named = |names: [&'static str; 2]| {
        names
            .into_iter()
            .find_map(move |name| Some((name, option(own, name)?)))
    };
    let multicast = match named(MULTICAST) {
        None => socket.multicast,
        Some((_, text)) if text.is_empty() => true,
        Some((name, text)) => {
            truth(&text).ok_or_else(|| format!("unrecognized value {text:?} for option {name}"))?
        }
    };
    let mtu = match named(MTU) {
        None => None,
        Some((name, text)) => {
            let mtu = text.parse().ok().filter(|mtu| MTU_RANGE.contains(mtu));
            Some(mtu.ok_or_else(|| format!("unrecognized value {text:?} for option {name}"))?)
        }
    };
    let pool = call.ipv4.first();
    let space = pool.map_or("", |pool| pool.address_space.as_str());
    let ipam = match space {
        "null" => Ipam::None,
        "" if pool.is_none() => Ipam::Foreign,
        space if super::ipam_driver::is_our_space(space) => Ipam::Ours,
        _ => Ipam::Foreign,
    };
    let subnet = option(own, SUBNET).unwrap_or_default();
    if !subnet.is_empty() {
        Cidr::parse_subnet(&subnet).map_err(|e| format!("option {SUBNET}: {e}"))?;
        if ipam != Ipam::None {
            return Err(format!(
                "option {SUBNET} is for networks with --ipam-driver=null; here it is --subnet"
            ));
        }
    }
    Ok(Network {
        ipam,
        subnet,
        multicast,
        mtu,
        name: None,
    })
}

/// Returns the record of a network by what Docker shows of it.
pub(crate) fn recover_network(socket: &Socket, listed: &ListedNetwork) -> Result<Network, String> {
    let options: Options = listed
        .options
        .iter()
        .map(|(name, value)| (name.clone(), value.clone().into()))
        .collect();
    let space = match listed.ipam.driver.as_str() {
        "null" => "null",
        "default" => "LocalDefault",
        _ => super::ipam_driver::WEFT_SPACES[0],
    };
    read_network(
        socket,
        &CreateNetwork {
            network: listed.id.clone(),
            options: Options::from_iter([(GENERIC.to_owned(), options.into())]),
            ipv4: vec![messages::IpamData {
                address_space: space.to_owned(),
                ..messages::IpamData::default()
            }],
        },
    )
}

/// Reads what Go's ParseBool reads.
fn truth(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// Ids become names of devices and keys of records.
fn check_id(what: &str, id: &str) -> Result<(), String> {
    let odd = |c: char| !c.is_ascii_alphanumeric();
    if id.is_empty() || id.len() > ID_LENGTH_MAX || id.contains(odd) {
        return Err(format!("{id:?} is no id of {what}"));
    }
    Ok(())
}

/// As much of an id as people use.
pub(crate) fn short(id: &str) -> &str {
    id.get(..12).unwrap_or(id)
}

/// Prefix of the names of the ends on the bridge.
pub(crate) const HOST_PREFIX: &str = "vethwl";

/// Returns the end on the bridge. Names of devices have at most 15 characters.
pub(crate) fn host_name(endpoint: &str) -> String {
    format!("{HOST_PREFIX}{}", endpoint.get(..9).unwrap_or(endpoint))
}

/// Returns the end that goes into the container.
fn inner_name(endpoint: &str) -> String {
    format!("vethwg{}", endpoint.get(..9).unwrap_or(endpoint))
}
