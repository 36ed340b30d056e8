//! `weft attach`, `weft detach` and `weft ps`.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use clap::Args;
use clap::builder::NonEmptyStringValueParser;
use ipnet::Ipv4Net;
use proto::types::Mac;
use serde_json::json;

use super::address::{self, Allocator, Wanted};
use super::naming::{Container, Named, NamingArgs};
use super::{CliError, Output, RouterArgs};
use host::attach::{self, AttachRequest, AttachedInterface, DetachRequest, INTERFACE};
use host::blocking::blocking;
use host::paths::prefixed;
use kernel::netns::Namespace;
use web::client::encode;

/// The owner of the bridge's own addresses.
pub(crate) const EXPOSE_OWNER: &str = "weave:expose";

/// Attaches a container to the network and prints its addresses.
///
/// TARGET is the id of any process in the container, the path of a network namespace, or the name
/// of one. Without ADDR, the router allocates an address from the default subnet. Repeating the
/// command adds only what is missing.
///
/// Containers on all hosts can look it up by its host name and by each --name. The container itself
/// queries the router for names if it can reach an address of this host on the network, such as
/// 'weft expose' adds: then its resolv.conf is set to the router, and detach restores it.
#[derive(Args, Debug)]
#[command(after_help = "ADDR:
  10.7.3.4/16        this address
  net:10.7.5.0/24    any address of this subnet
  net:default        any address of the default subnet

EXAMPLES:
  weft attach 12345
  weft attach 10.7.3.4/16 web            (created by: ip netns add web)
  weft attach net:10.7.5.0/24 /proc/12345/ns/net
  weft attach --identity web-1 12345     (the same address on any host)
  weft attach --name db --name db.prod 12345")]
pub(crate) struct AttachArgs {
    /// Addresses, then the target
    #[arg(value_name = "ADDR... TARGET", required = true)]
    words: Vec<String>,
    /// Name of the interface in the container
    #[arg(long, default_value = INTERFACE, value_name = "NAME")]
    interface: String,
    /// Identity of the container, which gives it the same address and MAC on every host
    #[arg(long, value_name = "NAME", value_parser = NonEmptyStringValueParser::new())]
    identity: Option<String>,
    /// Take ADDR even if it is kept for an identity that is not running, and end that lease
    #[arg(long)]
    force: bool,
    /// MAC address of the interface
    #[arg(long)]
    mac: Option<Mac>,
    /// MTU of the interface [default: that of the bridge]
    #[arg(long)]
    mtu: Option<u32>,
    /// Do not add a route for multicast
    #[arg(long)]
    no_multicast_route: bool,
    #[command(flatten)]
    naming: NamingArgs,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    router: RouterArgs,
}

/// Options for finding the host's devices and processes.
#[derive(Args, Clone, Debug)]
pub(crate) struct HostArgs {
    /// Name of the bridge
    #[arg(
        long,
        default_value = "weave",
        value_name = "NAME",
        help_heading = "Host"
    )]
    pub(crate) weave_bridge: String,
    /// Path of the host's /proc
    #[arg(
        long,
        default_value = "/proc",
        value_name = "PATH",
        help_heading = "Host"
    )]
    pub(crate) proc_path: PathBuf,
}

/// A container: its namespace, and under which name its addresses are kept.
pub(crate) struct Target {
    pub(crate) namespace: Namespace,
    pid: Option<u32>,
    pub(crate) owner: String,
}

impl Target {
    pub(crate) fn find(word: &str, proc: &Path) -> Result<Target, CliError> {
        let namespace = Namespace::resolve_under(proc, word).map_err(CliError::not_found)?;
        let pid = word.parse().ok();
        let owner = attach::namespace_owner(&namespace);
        Ok(Target {
            namespace,
            pid,
            owner,
        })
    }
}

fn one_target(words: &[String]) -> Result<(Vec<Wanted>, String), CliError> {
    let (wanted, rest) = address::split(words)?;
    match rest.as_slice() {
        [target] => Ok((wanted, target.clone())),
        [] => Err(CliError::usage(
            "give a target: a process id, a namespace's path or its name",
        )),
        _ => Err(CliError::usage(format!(
            "give one target, not {}",
            rest.join(" and ")
        ))),
    }
}

impl AttachArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (mut wanted, word) = one_target(&self.words)?;
        if wanted.is_empty() {
            wanted.push(Wanted::Default);
        }
        let target = Target::find(&word, &self.host.proc_path)?;
        let container = Container::of(&target, &self.host.proc_path);
        let router = self.router.router()?;
        let domain = self.naming.check(&router).await?;
        let identity = self.identity.as_deref().map(encode);
        let identity = identity.map(|name| format!("identity={name}"));
        let force = self.force.then(|| "force=true".to_owned());
        let query: Vec<String> = identity.into_iter().chain(force).collect();
        let query = query.join("&");
        let allocator = Allocator::new(&router, &target.owner, &query);
        release_stale(&allocator, &target.owner, &self.host.weave_bridge).await?;
        let got = allocator.get(&wanted).await?;
        let addresses: Vec<Ipv4Net> = got.iter().map(|got| got.address).collect();
        let mac = self.mac.or(got.iter().find_map(|got| got.mac));
        let (interface, mtu) = (self.interface.clone(), self.mtu);
        let (bridge, multicast) = (self.host.weave_bridge.clone(), !self.no_multicast_route);
        let attached = {
            let addresses = addresses.clone();
            blocking(move || {
                attach::attach(&AttachRequest {
                    interface: &interface,
                    addresses: &addresses,
                    pid: target.pid,
                    owner: Some(&target.owner),
                    mac,
                    mtu,
                    multicast_route: multicast,
                    ..AttachRequest::new(&bridge, &target.namespace)
                })
            })
            .await
        };
        let attached = match attached {
            Ok(attached) => attached,
            Err(error) => {
                allocator.give_back(&got).await?;
                return Err(CliError::failed(error));
            }
        };
        let ips: Vec<Ipv4Addr> = addresses.iter().map(Ipv4Net::addr).collect();
        let mut named = Named::default();
        if let Some(domain) = &domain {
            let (naming, new) = (&self.naming, attached.created);
            named = naming.name(&router, domain, &container, &ips, new).await;
        }
        for warning in attached.warnings.iter().chain(&named.warnings) {
            super::output::complain(&format!("weft: warning: {warning}"));
        }
        if self.json {
            return out.json(&json!({
                "interface": self.interface,
                "host_interface": attached.host_interface,
                "mac": attached.mac.map(|mac| mac.to_string()),
                "addresses": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                "names": named.names,
                "resolver": named.resolver,
            }));
        }
        out.line(&list(&addresses))
    }
}

/// Releases what is filed under a namespace that is not on the bridge: it was that of an earlier
/// one, as the kernel gives the number of a namespace that is gone to another one.
async fn release_stale(
    allocator: &Allocator<'_>,
    owner: &str,
    bridge: &str,
) -> Result<(), CliError> {
    let owned = allocator.owned().await?;
    if owned.is_empty() {
        return Ok(());
    }
    let bridge = bridge.to_owned();
    let attached = blocking(move || attach::owners(&bridge)).await;
    if !attached.map_err(CliError::failed)?.contains(owner) {
        allocator.release(owned).await?;
    }
    Ok(())
}

/// Addresses without their prefixes, as Weave Net prints them.
fn list(addresses: &[Ipv4Net]) -> String {
    let words: Vec<String> = addresses
        .iter()
        .map(|address| address.addr().to_string())
        .collect();
    words.join(" ")
}

/// Detaches a container from the network, or removes only some of its addresses.
#[derive(Args, Debug)]
pub(crate) struct DetachArgs {
    /// Addresses, then the target; without addresses, all of them
    #[arg(value_name = "ADDR... TARGET", required = true)]
    words: Vec<String>,
    /// Name of the interface in the container
    #[arg(long, default_value = INTERFACE, value_name = "NAME")]
    interface: String,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    router: RouterArgs,
}

impl DetachArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (wanted, word) = one_target(&self.words)?;
        let target = Target::find(&word, &self.host.proc_path)?;
        let container = Container::of(&target, &self.host.proc_path);
        let router = self.router.router()?;
        let allocator = Allocator::new(&router, &target.owner, "");
        let addresses = if wanted.is_empty() {
            None
        } else {
            let owned = allocator.owned().await?;
            Some(chosen(&wanted, &owned))
        };
        let detached = blocking(move || {
            attach::detach(&DetachRequest {
                bridge: &self.host.weave_bridge,
                target: &target.namespace,
                interface: &self.interface,
                addresses: addresses.as_deref(),
            })
        })
        .await
        .map_err(CliError::failed)?;
        if detached.removed.is_empty() && !detached.deleted {
            return Err(CliError::not_found(format!(
                "nothing to detach: {word} has no such address or interface of this network; \
                 'weft ps' lists what is attached"
            )));
        }
        allocator.release(detached.removed.iter().copied()).await?;
        let ips: Vec<Ipv4Addr> = detached.removed.iter().map(Ipv4Net::addr).collect();
        container.forget(&router, &ips, detached.deleted).await?;
        out.line(&list(&detached.removed))
    }
}

/// Returns the addresses that are meant: those named, and those owned in the subnets named.
fn chosen(wanted: &[Wanted], owned: &[Ipv4Net]) -> Vec<Ipv4Net> {
    let mut addresses = Vec::new();
    for wanted in wanted {
        match wanted {
            Wanted::Address(address) => addresses.push(*address),
            Wanted::Subnet(net) => addresses.extend(owned.iter().filter(|a| net.contains(*a))),
            Wanted::Default => addresses.extend(owned.iter().copied()),
        }
    }
    addresses
}

/// Lists the containers attached on this host, with MAC and IP addresses.
#[derive(Args, Debug)]
pub(crate) struct PsArgs {
    /// List only these: names, process ids or container ids
    targets: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    host: HostArgs,
}

impl PsArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let (bridge, proc) = (self.host.weave_bridge.clone(), self.host.proc_path.clone());
        let (attached, exposed, mac) = blocking(move || {
            let netlink = kernel::netlink::Netlink::open()?;
            let mac = host::bridge::Bridge::find(&netlink, &bridge)?;
            let attached = attach::attached(&bridge, &proc)?;
            let exposed = host::gateway::exposed(&bridge)?;
            Ok::<_, kernel::error::NetError>((attached, exposed, mac.and_then(|b| b.link.mac)))
        })
        .await
        .map_err(CliError::failed)?;
        let exposed: Vec<Ipv4Net> = exposed.iter().map(|exposed| exposed.address).collect();
        let wanted = |name: &str, pids: &[u32]| {
            self.targets.is_empty()
                || self.targets.iter().any(|target| {
                    name.starts_with(target.as_str())
                        || target.parse().is_ok_and(|pid: u32| pids.contains(&pid))
                })
        };
        let mut rows = Vec::new();
        if !exposed.is_empty() && wanted(EXPOSE_OWNER, &[]) {
            rows.push((EXPOSE_OWNER.to_owned(), mac, exposed, None));
        }
        for interface in &attached {
            let pids = interface
                .namespace
                .as_ref()
                .map(|n| n.pids.clone())
                .unwrap_or_default();
            let name = display_name(interface);
            if wanted(&name, &pids) {
                let row = (
                    name,
                    interface.mac,
                    interface.addresses.clone(),
                    Some(interface),
                );
                rows.push(row);
            }
        }
        if self.json {
            let rows: Vec<_> = rows
                .iter()
                .map(|(name, mac, addresses, interface)| {
                    json!({
                        "name": name,
                        "mac": mac.map(|mac| mac.to_string()),
                        "addresses": addresses.iter().map(ToString::to_string).collect::<Vec<_>>(),
                        "owner": interface.and_then(|i| i.owner.clone()),
                        "interface": interface.map(|i| i.interface.clone()),
                        "host_interface": interface.map(|i| i.host_interface.clone()),
                        "pids": interface.and_then(|i| i.namespace.as_ref()).map(|n| n.pids.clone()),
                    })
                })
                .collect();
            return out.json(&serde_json::Value::from(rows));
        }
        for (name, mac, addresses, _) in rows {
            let mac = mac.map(|mac| mac.to_string()).unwrap_or_default();
            let addresses: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            out.line(format!("{name} {mac} {}", addresses.join(" ")).trim_end())?;
        }
        Ok(())
    }
}

/// Returns what a user knows the container by: a name of its namespace, else a process in it, else
/// what it was attached for.
fn display_name(interface: &AttachedInterface) -> String {
    let namespace = interface.namespace.as_ref();
    let name = namespace.and_then(|namespace| namespace.names.first());
    let name = name.and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let pid = namespace
        .and_then(|namespace| namespace.pids.first())
        .map(ToString::to_string);
    name.or(pid)
        .or(interface.owner.clone())
        .unwrap_or_else(|| interface.host_interface.clone())
}

/// Returns the path of the store behind a prefix.
pub(crate) fn store_files(prefix: &Path) -> [PathBuf; 2] {
    [prefixed(prefix, "weft.db"), prefixed(prefix, "weft.lock")]
}
