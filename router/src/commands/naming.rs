//! Naming of attached containers: their names are registered, and their resolver is pointed at the
//! router.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::{Path, PathBuf};

use clap::Args;
use proto::names::{Domain, domain::is_hostname};

use super::attach::Target;
use super::dns::{self, Resolvers};
use super::{CliError, Router};
use host::blocking::blocking;
use host::resolv_conf::ResolvConf;
use kernel::error::NetError;
use kernel::netns::{FoundNamespace, Namespace};

/// The port of the resolver that a container is pointed at.
const DNS_PORT: u16 = 53;

/// Options for naming a container.
#[derive(Args, Clone, Debug)]
pub(crate) struct NamingArgs {
    /// Additional name for the container; may be given several times
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Do not register the host name, and do not change the container's resolv.conf
    #[arg(long, visible_alias = "without-dns")]
    no_dns: bool,
}

/// Result of naming a container.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// The names that were registered.
    pub(crate) names: Vec<String>,
    /// The resolver that the container queries.
    pub(crate) resolver: Option<Ipv4Addr>,
    /// Problems that are not worth failing for.
    pub(crate) warnings: Vec<String>,
}

impl NamingArgs {
    /// Returns the router's domain, if it has names. Finds names that it will refuse.
    pub(crate) async fn check(&self, router: &Router) -> Result<Option<Domain>, CliError> {
        check(router, &self.names).await
    }

    /// Names a container that has been attached; `new` tells that it was not before.
    pub(crate) async fn name(
        &self,
        router: &Router,
        domain: &Domain,
        container: &Container,
        addresses: &[Ipv4Addr],
        new: bool,
    ) -> Named {
        let mut named = Named::default();
        let mut names = self.names.clone();
        if !self.no_dns {
            let found = container.look().await;
            let (host_name, files) = match found {
                Ok(found) => found,
                Err(error) => {
                    named.warnings.push(error);
                    (None, Vec::new())
                }
            };
            names.extend(host_name.map(|name| own_name(&name, domain)));
            if !files.is_empty() {
                match container.point(router, files).await {
                    Ok(resolver) => named.resolver = Some(resolver),
                    Err(warning) => named.warnings.push(warning),
                }
            }
        }
        if new {
            // A namespace that ended may have had the same number.
            let removed = dns::unregister(router, &container.owner, None, None).await;
            named.warnings.extend(removed.err().map(|e| e.to_string()));
        }
        if names.is_empty() {
            return named;
        }
        for address in addresses {
            let registered = dns::register(router, &container.owner, *address, &names).await;
            if let Err(error) = registered {
                let text = format!("not all names were registered: {error}");
                named.warnings.push(text);
                return named;
            }
        }
        named.names = names.iter().map(|name| domain.qualify(name)).collect();
        named
    }
}

/// Returns the router's domain, if it has names. Finds names that it will refuse, before anything
/// is done.
pub(crate) async fn check(router: &Router, names: &[String]) -> Result<Option<Domain>, CliError> {
    let domain = dns::domain(router).await?;
    for name in names {
        let Some(domain) = &domain else {
            return Err(dns::off());
        };
        let full = domain.qualify(name);
        if !is_hostname(&full) {
            return Err(CliError::usage(format!("{name:?} is no name")));
        }
        if !domain.contains(&full) {
            return Err(CliError::usage(format!(
                "{name} lies outside the domain {domain}"
            )));
        }
    }
    Ok(domain)
}

/// Returns the host name as a name in the domain: one of another domain loses that.
fn own_name(host_name: &str, domain: &Domain) -> String {
    if domain.contains(&format!("{}.", host_name.trim_end_matches('.'))) {
        return host_name.to_owned();
    }
    let (first, _) = host_name.split_once('.').unwrap_or((host_name, ""));
    first.to_owned()
}

/// Container attributes used for naming.
#[derive(Clone, Debug)]
pub(crate) struct Container {
    namespace: Namespace,
    owner: String,
    proc: PathBuf,
}

impl Container {
    pub(crate) fn of(target: &Target, proc: &Path) -> Container {
        Container {
            namespace: target.namespace.clone(),
            owner: target.owner.clone(),
            proc: proc.to_owned(),
        }
    }

    /// Returns the host name, and the files that say whom to ask.
    async fn look(&self) -> Result<(Option<String>, Vec<ResolvConf>), String> {
        let this = self.clone();
        blocking(move || {
            let found = FoundNamespace::of(&this.namespace, &this.proc);
            let host_name = found.host_name(&this.proc);
            Ok::<_, NetError>((host_name, ResolvConf::find(&found, &this.proc)))
        })
        .await
    }

    /// Has the container ask the router, at an address that it has a route to.
    async fn point(&self, router: &Router, files: Vec<ResolvConf>) -> Result<Ipv4Addr, String> {
        let resolvers = Resolvers::of(router).await.map_err(|e| e.to_string())?;
        let resolvers = resolvers.ok_or("names are off")?;
        let (namespace, domain) = (self.namespace.clone(), resolvers.domain);
        let addresses = resolvers.addresses;
        blocking(move || {
            let reached = namespace.run(|| addresses.into_iter().find(|ip| has_route_to(*ip)))?;
            if let Some(server) = reached {
                for mut file in files {
                    file.point(server, &domain)?;
                }
            }
            Ok::<_, NetError>(reached)
        })
        .await?
        .ok_or_else(|| NO_RESOLVER.to_owned())
    }

    /// Gives the container back whom it asked before it was attached, and removes its names at
    /// these addresses; at all if none are left.
    pub(crate) async fn forget(
        &self,
        router: &Router,
        addresses: &[Ipv4Addr],
        none_left: bool,
    ) -> Result<(), CliError> {
        if !none_left {
            for address in addresses {
                dns::unregister(router, &self.owner, Some(*address), None).await?;
            }
            return Ok(());
        }
        dns::unregister(router, &self.owner, None, None).await?;
        let (_, files) = self.look().await.map_err(CliError::failed)?;
        blocking(move || {
            for mut file in files {
                file.restore()?;
            }
            Ok::<_, NetError>(())
        })
        .await
        .map_err(CliError::failed)
    }
}

/// Returns true if the calling thread's namespace has a route to an address. Nothing is sent.
fn has_route_to(address: Ipv4Addr) -> bool {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0));
    socket.is_ok_and(|socket| socket.connect((address, DNS_PORT)).is_ok())
}

const NO_RESOLVER: &str = "the container cannot ask for names: it reaches no address of this host \
    at which the router listens. 'weft expose' gives this host one; --no-dns does without";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_names_become_names_in_the_domain() {
        let domain: Domain = "weave.local.".parse().unwrap();
        for (host_name, name) in [
            ("web", "web"),
            ("web.weave.local", "web.weave.local"),
            ("web.example.com", "web"),
            ("web.weave.local.", "web.weave.local."),
        ] {
            assert_eq!(own_name(host_name, &domain), name);
        }
    }
}
