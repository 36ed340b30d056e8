//! Corrections of what could not be known when an endpoint was made.
//!
//! Docker makes several containers at once and does not say which endpoint is whose. Where that
//! could not be found out, the container got a fresh address; now that it runs, it is known who
//! it is. If no address is kept for it yet, the one that it has becomes its own. If one is, it
//! gets that one inside its namespace; this is the only case in which Docker shows another
//! address than the container has.

use std::fs;
use std::io::{Seek, SeekFrom, Write};
use std::net::Ipv4Addr;
use std::path::Path;

use ipam::leases::Identity;
use ipam::range::Cidr;
use ipnet::Ipv4Net;

use crate::addresses::Given;
use crate::driver::{self, short};
use crate::engine::Inspected;
use crate::identity;
use crate::networks::Endpoint;
use crate::plugin::Plugin;
use host::attach::endpoint;
use host::blocking::blocking;
use kernel::netns::Namespace;

/// Longest hosts file that is rewritten, in bytes; a longer one is left alone.
const HOSTS_BYTES_MAX: u64 = 1 << 20;

impl Plugin {
    /// Takes note whose an endpoint is.
    pub(crate) async fn settle(&self, id: &str, container: &Inspected) -> Result<(), String> {
        let _turn = self.turns.take(id).await;
        self.seekers.forget(id);
        let Some(known) = self.registry.endpoint(id) else {
            return Ok(());
        };
        let right = known.container.as_deref().is_none_or(|c| c == container.id);
        if right && !known.open {
            if known.container.is_none() {
                let container = Some(container.id.clone());
                let settled = Endpoint { container, ..known };
                self.registry.put_endpoint(id, settled).await?;
            }
            return Ok(());
        }
        let who = identity::of_container(&container.config.labels, container.name())?;
        let settled = Endpoint {
            container: Some(container.id.clone()),
            open: false,
            ..known.clone()
        };
        let (true, Some(who)) = (known.chose_address, who) else {
            return self.registry.put_endpoint(id, settled).await;
        };
        let current: Cidr = known
            .address
            .parse()
            .map_err(|_| "bad address".to_owned())?;
        let subnet = current.network();
        let leases = self.leases().await;
        let has_lease = leases
            .iter()
            .any(|info| info.key.name == who.name() && info.key.subnet == subnet);
        if right && !has_lease && self.keep(id, &settled, current, &who).await? {
            return Ok(());
        }
        self.exchange(id, settled, current, who, container).await
    }

    /// Makes the address that an endpoint has that of its container's identity.
    async fn keep(
        &self,
        id: &str,
        settled: &Endpoint,
        current: Cidr,
        who: &Identity,
    ) -> Result<bool, String> {
        let Some(holder) = &settled.holder else {
            return Ok(false);
        };
        // It is in use, so it is never given up for that: somebody else might get it meanwhile.
        if let Err(error) = self.claim(holder, current, Some(who.clone())).await {
            tracing::debug!(%error, "an address could not be made that of an identity");
            return Ok(false);
        }
        self.registry.put_endpoint(id, settled.clone()).await?;
        tracing::info!(
            endpoint = short(id),
            identity = %who,
            address = %current,
            "a container that was started with others keeps its address from now on"
        );
        Ok(true)
    }

    /// Gives a container the address that is kept for it.
    async fn exchange(
        &self,
        id: &str,
        settled: Endpoint,
        current: Cidr,
        who: Identity,
        container: &Inspected,
    ) -> Result<(), String> {
        let holder = format!("{}@{}", container.id, short(&settled.network));
        let _turn = self.turns.take(&holder).await;
        let given = self
            .allocate(&holder, Some(current.network()), Some(who))
            .await?;
        let Given {
            cidr,
            mac: Some(mac),
        } = given
        else {
            // It is up as another container of this host; the fresh address is its own.
            self.release(&holder).await?;
            return self.registry.put_endpoint(id, settled).await;
        };
        let (name, pid) = (driver::host_name(id), container.state.pid);
        let (old, new) = (network(current), network(cidr));
        let (proc, owner) = (self.config.proc_path.clone(), holder.clone());
        let done = blocking(move || {
            let target = Namespace::of_pid_under(&proc, pid)?;
            let there = endpoint::readdress(&name, &target, old, new, mac)?;
            if there {
                endpoint::set_owner(&name, &owner)?;
            }
            Ok::<_, kernel::error::NetError>(there)
        });
        match done.await {
            Ok(true) => {}
            Ok(false) => return self.release(&holder).await,
            Err(error) => {
                self.release(&holder).await?;
                return Err(error);
            }
        }
        tracing::warn!(
            container = container.name(),
            shown = %old.addr(),
            address = %new.addr(),
            "a container that was started with others has its own address back; Docker shows \
             another one until it is started again"
        );
        let old_holder = settled.holder.clone();
        let record = Endpoint {
            holder: Some(holder),
            address: cidr.to_string(),
            mac: mac.to_string(),
            ..settled
        };
        self.registry.put_endpoint(id, record).await?;
        if let Some(holder) = old_holder {
            self.release(&holder).await?;
        }
        let hosts = container.hosts_path.trim_start_matches('/');
        let hosts = self.config.host_root.join(hosts);
        if let Err(error) = replace_in_hosts(&hosts, old.addr(), new.addr()) {
            tracing::debug!(%error, path = %hosts.display(), "a hosts file was not rewritten");
        }
        Ok(())
    }
}

/// Returns an address as the kernel takes it.
pub(crate) fn network(cidr: Cidr) -> Ipv4Net {
    let address = Ipv4Addr::from(cidr.address.get());
    // A prefix longer than 32 cannot be in an address that was parsed.
    Ipv4Net::new(address, cidr.len).unwrap_or(Ipv4Net::new_assert(address, 32))
}

/// Replaces an address in a container's hosts file, in place: the container has that very file.
fn replace_in_hosts(path: &Path, old: Ipv4Addr, new: Ipv4Addr) -> std::io::Result<()> {
    let mut file = fs::OpenOptions::new().read(true).write(true).open(path)?;
    if file.metadata()?.len() > HOSTS_BYTES_MAX {
        return Ok(());
    }
    let text = std::io::read_to_string(&file)?;
    let old = old.to_string();
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        match line.strip_prefix(&old) {
            Some(rest) if rest.starts_with(char::is_whitespace) => {
                out.push_str(&new.to_string());
                out.push_str(rest);
            }
            _ => out.push_str(line),
        }
    }
    if out != text {
        file.seek(SeekFrom::Start(0))?;
        file.write_all(out.as_bytes())?;
        file.set_len(out.len() as u64)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_addresses_are_replaced_in_hosts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("hosts");
        let text = "127.0.0.1\tlocalhost\n10.7.0.1\tweb\n10.7.0.11\tother\n";
        fs::write(&path, text).unwrap();
        let [old, new] = [Ipv4Addr::new(10, 7, 0, 1), Ipv4Addr::new(10, 7, 99, 99)];
        replace_in_hosts(&path, old, new).unwrap();
        let expected = "127.0.0.1\tlocalhost\n10.7.99.99\tweb\n10.7.0.11\tother\n";
        assert_eq!(fs::read_to_string(&path).unwrap(), expected);
    }
}
