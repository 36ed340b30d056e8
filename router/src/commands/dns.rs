//! `weft dns-add`, `weft dns-remove`, `weft dns-lookup` and `weft dns-args`.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use clap::{ArgAction, Args};
use proto::names::Domain;
use proto::names::message::rtype;
use serde_json::Value;

use super::attach::{HostArgs, Target};
use super::{CliError, Output, Router, RouterArgs};
use crate::launch::EXTERN_OWNER;
use dns::client::{self, Way};
use host::attach;
use host::blocking::blocking;
use kernel::netns::FoundNamespace;
use web::client::{encode, encode_form};

/// Maximum time for a question: longer than the router waits for the host's servers.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(12);
/// The result of a question for a name that does not exist.
const NO_SUCH_NAME: u8 = 3;

/// Registers a name for addresses, which containers on all hosts can look up.
///
/// With TARGET, given as for attach, the name belongs to that container and is removed with it; its
/// addresses need not be given. Without TARGET, the addresses may be any, and the name stays until
/// removed. Several addresses of one name are returned in random order.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "weft dns-add [OPTIONS] [IP]... TARGET [-h NAME]\n       \
                      weft dns-add [OPTIONS] IP... -h NAME",
    after_help = "NAME is relative to the domain, or ends in it. It defaults to the container's host name.

EXAMPLES:
  weft dns-add 12345 -h db                        another name of a container
  weft dns-add 192.168.0.53 -h ldap.weave.local   a host outside the network
  weft dns-lookup db"
)]
pub(crate) struct DnsAddArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Removes names of a container, or of addresses that belong to no container.
#[derive(Args, Debug)]
#[command(
    disable_help_flag = true,
    override_usage = "weft dns-remove [OPTIONS] [IP]... TARGET [-h NAME]\n       \
                      weft dns-remove [OPTIONS] IP... [-h NAME]",
    after_help = "Without NAME, all names are removed. Only names registered on this host can be removed.

EXAMPLES:
  weft dns-remove 12345 -h db
  weft dns-remove 192.168.0.53"
)]
pub(crate) struct DnsRemoveArgs {
    #[command(flatten)]
    which: WhichArgs,
}

/// Which name of which addresses of whom.
#[derive(Args, Debug)]
struct WhichArgs {
    /// Addresses, then the container
    #[arg(value_name = "IP... TARGET", required = true)]
    words: Vec<String>,
    /// The name
    #[arg(short = 'h', long = "name", value_name = "NAME")]
    name: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
    #[command(flatten)]
    host: HostArgs,
    #[command(flatten)]
    router: RouterArgs,
}

/// The parsed form of [`WhichArgs`].
struct Which {
    owner: String,
    addresses: Vec<Ipv4Addr>,
    host_name: Option<String>,
}

impl WhichArgs {
    async fn find(&self) -> Result<Which, CliError> {
        let is_address = |word: &&String| word.parse::<Ipv4Addr>().is_ok();
        let count = self.words.iter().take_while(is_address).count();
        let (addresses, rest) = self.words.split_at(count);
        let addresses = addresses
            .iter()
            .filter_map(|word| word.parse().ok())
            .collect();
        let target = match rest {
            [] => {
                return Ok(Which {
                    owner: EXTERN_OWNER.to_owned(),
                    addresses,
                    host_name: None,
                });
            }
            [target] => Target::find(target, &self.host.proc_path)?,
            more => {
                let more = more.join(" and ");
                return Err(CliError::usage(format!("give one target, not {more}")));
            }
        };
        let (bridge, proc) = (self.host.weave_bridge.clone(), self.host.proc_path.clone());
        let found = blocking(move || container(&bridge, &proc, &target)).await;
        let (owner, attached, host_name) = found.map_err(CliError::failed)?;
        let addresses = if addresses.is_empty() {
            attached
        } else {
            addresses
        };
        Ok(Which {
            owner,
            addresses,
            host_name,
        })
    }
}

/// Returns the owner of a container's attachment, its addresses, and its host name.
fn container(
    bridge: &str,
    proc: &Path,
    target: &Target,
) -> Result<(String, Vec<Ipv4Addr>, Option<String>), kernel::error::NetError> {
    let found = FoundNamespace::of(&target.namespace, proc);
    let attached = attach::attached(bridge, proc)?;
    let ours = attached.iter().filter(|interface| {
        let namespace = interface.namespace.as_ref();
        namespace.is_some_and(|namespace| namespace.id == target.namespace.id())
            || interface.owner.as_deref() == Some(&target.owner)
    });
    let ours: Vec<_> = ours.collect();
    let owner = ours.iter().find_map(|interface| interface.owner.clone());
    let addresses = ours.iter().flat_map(|interface| &interface.addresses);
    Ok((
        owner.unwrap_or_else(|| target.owner.clone()),
        addresses.map(|network| network.addr()).collect(),
        found.host_name(proc),
    ))
}

/// Returns the domain of the router's names.
pub(crate) async fn domain(router: &Router) -> Result<Option<Domain>, CliError> {
    let answer = router.client.get("/domain").await?;
    if answer.status.as_u16() == 404 {
        return Ok(None);
    }
    answer.ok()?.parse().map(Some).map_err(CliError::failed)
}

/// Returns the error that the router has no names.
pub(crate) fn off() -> CliError {
    CliError::failed("the router has no names: it runs with --no-dns")
}

/// Registers names for an address of an owner.
pub(crate) async fn register(
    router: &Router,
    owner: &str,
    address: Ipv4Addr,
    names: &[String],
) -> Result<(), CliError> {
    let form = encode_form(names.iter().map(|name| ("name", name.as_str())));
    let path = format!("/name/{}/{address}", encode(owner));
    let answer = router.client.put(&path, &form).await?;
    if answer.status.as_u16() == 404 {
        return Err(off());
    }
    answer.ok()?;
    Ok(())
}

/// Removes all names of an owner, or those of one of its addresses. A router without names has
/// none to remove.
pub(crate) async fn unregister(
    router: &Router,
    owner: &str,
    address: Option<Ipv4Addr>,
    name: Option<&str>,
) -> Result<(), CliError> {
    let mut path = format!("/name/{}", encode(owner));
    if let Some(address) = address {
        path += &format!("/{address}");
    }
    if let Some(name) = name {
        path += &format!("?name={}", encode(name));
    }
    let answer = router.client.delete(&path).await?;
    if answer.status.as_u16() != 404 {
        answer.ok()?;
    }
    Ok(())
}

impl DnsAddArgs {
    pub(crate) async fn run(self) -> Result<(), CliError> {
        let which = self.which.find().await?;
        if which.addresses.is_empty() {
            return Err(CliError::failed(
                "the container has no address on the network: attach it first, or give one",
            ));
        }
        let name = self.which.name.or(which.host_name).ok_or_else(|| {
            CliError::usage("give a name with -h: no container with a host name is meant")
        })?;
        let router = self.which.router.router()?;
        for address in which.addresses {
            register(&router, &which.owner, address, std::slice::from_ref(&name)).await?;
        }
        Ok(())
    }
}

impl DnsRemoveArgs {
    pub(crate) async fn run(self) -> Result<(), CliError> {
        let which = self.which.find().await?;
        let router = self.which.router.router()?;
        if domain(&router).await?.is_none() {
            return Err(off());
        }
        let name = self.which.name.as_deref();
        if which.addresses.is_empty() {
            return unregister(&router, &which.owner, None, name).await;
        }
        for address in which.addresses {
            unregister(&router, &which.owner, Some(address), name).await?;
        }
        Ok(())
    }
}

/// Looks up the addresses of a name, or the name of an address, at this host's router.
///
/// Returns what a container gets that queries the router: names of other domains are looked up at
/// the servers of this host.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLES:
  weft dns-lookup web
  weft dns-lookup web.prod.weave.local
  weft dns-lookup 10.7.0.5")]
pub(crate) struct DnsLookupArgs {
    /// The name, or the address
    #[arg(value_name = "NAME")]
    name: String,
    #[command(flatten)]
    router: RouterArgs,
}

impl DnsLookupArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let router = self.router.router()?;
        let server = server(&router).await?;
        let (name, qtype) = match self.name.parse::<Ipv4Addr>() {
            Ok(address) => {
                let [a, b, c, d] = address.octets();
                (format!("{d}.{c}.{b}.{a}.in-addr.arpa."), rtype::PTR)
            }
            Err(_) => (self.name.clone(), rtype::A),
        };
        let time = router.time_max.min(ANSWER_TIME_MAX);
        let reply = client::ask(server, &name, qtype, Way::Any, time).await;
        let reply = match reply {
            Ok(reply) => reply,
            Err(error) => return Err(no_answer(&router, server, &error.to_string()).await),
        };
        let addresses = reply.addresses.iter().map(ToString::to_string);
        let lines: Vec<String> = addresses.chain(reply.names).collect();
        match (reply.rcode, lines.as_slice()) {
            (0, []) => Err(CliError::not_found(format!("{} has no address", self.name))),
            (0, lines) => lines.iter().try_for_each(|line| out.line(line)),
            (NO_SUCH_NAME, _) => Err(CliError::not_found(format!("no name {}", self.name))),
            (code, _) => Err(CliError::failed(format!(
                "{} could not be looked up: the answer has code {code}",
                self.name
            ))),
        }
    }
}

/// Returns where the router of this host takes questions.
async fn server(router: &Router) -> Result<SocketAddr, CliError> {
    let answer = router.client.get("/dns-address-port").await?;
    if answer.status.as_u16() == 404 {
        return Err(off());
    }
    let mut server: SocketAddr = answer.ok()?.parse().map_err(CliError::failed)?;
    if server.ip().is_unspecified() {
        server.set_ip(Ipv4Addr::LOCALHOST.into());
    }
    Ok(server)
}

/// Why the router's server does not answer, as far as it knows itself.
async fn no_answer(router: &Router, server: SocketAddr, error: &str) -> CliError {
    let mut text = format!("no answer from {server}: {error}");
    if let Ok(status) = router.client.get_json("/status/weft").await
        && let Ok(status) = serde_json::from_str::<Value>(&status.body)
        && let Some(why) = status["dns"]["warnings"][0].as_str()
    {
        text += &format!("\n{why}");
    }
    CliError::failed(text)
}

/// Prints the arguments for 'docker run' that make a container query the router for names.
#[derive(Args, Debug)]
#[command(after_help = "EXAMPLE:
  docker run $(weft dns-args) -h web.weave.local nginx")]
pub(crate) struct DnsArgsArgs {
    #[command(flatten)]
    router: RouterArgs,
}

impl DnsArgsArgs {
    pub(crate) async fn run(self, out: &Output) -> Result<(), CliError> {
        let router = self.router.router()?;
        let Some(resolvers) = Resolvers::of(&router).await? else {
            return Ok(());
        };
        // Every container of Docker's reaches Docker's bridge, which comes last.
        let Some(address) = resolvers.addresses.last() else {
            return Err(CliError::failed(
                "no address of this host is known at which containers can ask: 'weft expose' gives \
                 it one, or start the router with --dns-listen-address IP:53",
            ));
        };
        let domain = resolvers.domain;
        out.line(&format!("--dns={address} --dns-search={domain}"))
    }
}

/// The address at which containers on this host can query names.
pub(crate) struct Resolvers {
    pub(crate) domain: String,
    pub(crate) addresses: Vec<Ipv4Addr>,
}

impl Resolvers {
    /// Returns what the router says; `None` if it has no names.
    pub(crate) async fn of(router: &Router) -> Result<Option<Resolvers>, CliError> {
        let answer = router.client.get_json("/dns-resolvers").await?;
        if answer.status.as_u16() == 404 {
            return Ok(None);
        }
        let value: Value = serde_json::from_str(&answer.ok()?).map_err(CliError::failed)?;
        let addresses = value["addresses"].as_array().into_iter().flatten();
        let addresses = addresses.filter_map(|address| address.as_str()?.parse().ok());
        Ok(Some(Resolvers {
            domain: value["domain"].as_str().unwrap_or_default().to_owned(),
            addresses: addresses.collect(),
        }))
    }
}
