//! The plugin that attaches containers.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use proto::types::Mac;
use serde_json::Value;

use super::address::{Addresses, attachment, owner, owners_start};
use super::conf::NetConf;
use super::result::{Interface, Outcome, RouteEntry};
use super::wiring::{
    Inspection, Plan, Removal, Removed, addresses_of, bridge_addresses, delete_host_ends,
};
use super::{delegate, ipam};
use crate::complaint::complain;
use crate::error::{CniError, Code};
use crate::invocation::{Call, Command};
use host::alias::ALIAS;
use host::blocking::blocking;
use host::bridge::Bridge;
use kernel::error::NetError;
use kernel::netlink::Netlink;
use kernel::netns::Namespace;

pub(super) async fn run(
    call: &Call,
    conf: &NetConf,
    text: &str,
) -> Result<Option<Value>, CniError> {
    let plugin = Net {
        call,
        conf,
        text,
        addresses: Addresses::new(conf),
    };
    match call.command {
        Command::Add => plugin.add().await.map(Some),
        Command::Del => plugin.del().await.map(|()| None),
        Command::Check => plugin.check().await.map(|()| None),
        Command::Gc => plugin.collect().await.map(|()| None),
        Command::Status => plugin.status().await.map(|()| None),
        Command::Version => Ok(None),
    }
}

/// One call.
struct Net<'c> {
    call: &'c Call,
    conf: &'c NetConf,
    text: &'c str,
    addresses: Addresses<'c>,
}

impl Net<'_> {
    async fn add(&self) -> Result<Value, CniError> {
        self.refuse_unsupported()?;
        let target = self.target()?;
        let (mut outcome, mac) = match self.get_addresses().await {
            Ok(got) => got,
            Err(error) => {
                if let Err(undo) = self.give_back_unheard(&target).await {
                    complain(&format!("after a failed ADD: {undo}"));
                }
                return Err(error);
            }
        };
        let done = match self.complete_gateway(&mut outcome).await {
            Ok(()) => self.attach(&target, &mut outcome, mac).await,
            Err(error) => Err(error),
        };
        match done {
            Ok(()) => {
                self.register_name(&outcome).await;
                Ok(outcome.to_json(self.conf.version))
            }
            Err(error) => {
                if let Err(undo) = self.give_back_unused(&target, &outcome).await {
                    complain(&format!("after a failed ADD: {undo}"));
                }
                Err(error)
            }
        }
    }

    /// Lets a pod be found as POD.NAMESPACE, a container of podman by its name. The name goes when
    /// its interface goes. A container without it runs as well, so this does not fail.
    async fn register_name(&self, outcome: &Outcome) {
        let Some(caller) = self.call.caller() else {
            return;
        };
        let name = caller.name();
        let owner = owner(&self.conf.name, &attachment(self.call));
        for address in ipv4(outcome) {
            if let Err(error) = self.addresses.name(&owner, address, &name).await {
                complain(&format!("warning: no name {name:?}: {error}"));
            }
        }
    }

    /// Returns what Weave Net refuses, in its words.
    fn refuse_unsupported(&self) -> Result<(), CniError> {
        if self.conf.is_gateway {
            return Err(CniError::failed("Gateway functionality not supported"));
        }
        if self.conf.ip_masq {
            return Err(CniError::failed(
                "IP Masquerading functionality not supported",
            ));
        }
        Ok(())
    }

    /// Returns the container's namespace, which must not be the host's.
    fn target(&self) -> Result<Namespace, CniError> {
        let path = self.call.netns.clone().unwrap_or_default();
        let target = Namespace::at(&path).map_err(|error| match error {
            NetError::NoNamespace { .. } => {
                CniError::new(Code::UnknownContainer, error, "CNI_NETNS names it")
            }
            _ => CniError::new(Code::Environment, error, "CNI_NETNS names it"),
        })?;
        if target == Namespace::current().map_err(CniError::failed)? {
            return Err(CniError::failed(
                "can not specify host network namespace as network namespace to which container \
                 should be added",
            ));
        }
        Ok(target)
    }

    async fn get_addresses(&self) -> Result<(Outcome, Option<Mac>), CniError> {
        let what = "unable to allocate IP address";
        let failed = |error: CniError| error.during(what);
        let Some(name) = &self.conf.ipam.delegate else {
            self.addresses.settle().await.map_err(failed)?;
            let given = self.addresses.get(self.call).await.map_err(failed)?;
            let mac = given.iter().find_map(|(_, mac)| *mac);
            return Ok((ipam::outcome(self.conf, &given), mac));
        };
        let answer = delegate::run(name, self.call, self.text)
            .await
            .map_err(failed)?;
        let outcome = Outcome::read(&answer.unwrap_or_default()).map_err(failed);
        let usable = |outcome: &Outcome| outcome.ips.iter().any(|ip| ip.address.addr().is_ipv4());
        let none = || CniError::failed(format!("{what}: plugin {name} gave no IPv4 address"));
        match outcome.and_then(|o| if usable(&o) { Ok(o) } else { Err(none()) }) {
            Ok(mut outcome) => {
                outcome.ips.retain(|ip| ip.address.addr().is_ipv4());
                Ok((outcome, None))
            }
            Err(error) => {
                self.run_delegate("DEL").await?;
                Err(error)
            }
        }
    }

    /// Without a word on routes and gateway, the bridge is the way out; it gets an address if it
    /// has none.
    async fn complete_gateway(&self, outcome: &mut Outcome) -> Result<(), CniError> {
        let Some(first) = outcome.ips.first_mut() else {
            return Ok(());
        };
        if first.gateway.is_none() && outcome.routes.is_empty() {
            let bridge = self.conf.bridge.clone();
            let own = blocking(move || bridge_addresses(&bridge)).await;
            let own = own.map_err(CniError::failed)?;
            let near = own
                .iter()
                .find(|net| first.address.contains(&IpAddr::V4(net.addr())));
            let gateway = match near.or(own.first()) {
                Some(net) => *net,
                None if self.conf.ipam.delegate.is_none() => self.addresses.expose().await?,
                None => {
                    return Err(CniError::new(
                        Code::Config,
                        "the container has no way out",
                        "ipam names no gateway and the bridge has no address: run 'weft expose'",
                    ));
                }
            };
            first.gateway = Some(IpAddr::V4(gateway.addr()));
        }
        if outcome.routes.is_empty() {
            outcome.routes.push(RouteEntry {
                dst: Ipv4Net::default().into(),
                gw: first.gateway,
            });
        }
        Ok(())
    }

    /// Makes the interface and its routes. On failure an interface that this made is gone.
    async fn attach(
        &self,
        target: &Namespace,
        outcome: &mut Outcome,
        mac: Option<Mac>,
    ) -> Result<(), CniError> {
        let plan = Plan {
            conf: self.conf.clone(),
            interface: self.call.interface.clone(),
            owner: owner(&self.conf.name, &attachment(self.call)),
            target: target.clone(),
            mac: self.conf.mac.or(mac),
            addresses: ipv4(outcome),
            routes: outcome.routes.clone(),
            gateway: outcome.ips.first().and_then(|ip| ip.gateway),
        };
        let made = blocking(move || plan.carry_out()).await;
        let (attached, mtu) = made.map_err(CniError::failed)?;
        for warning in &attached.warnings {
            complain(&format!("warning: {warning}"));
        }
        let sandbox = self.call.netns.as_ref();
        let sandbox = sandbox.map(|path| path.display().to_string());
        outcome.interfaces = vec![
            Interface {
                name: attached.host_interface,
                ..Interface::default()
            },
            Interface {
                name: self.call.interface.clone(),
                mac: attached.mac.map(|mac| mac.to_string()).unwrap_or_default(),
                mtu: Some(mtu),
                sandbox: sandbox.unwrap_or_default(),
            },
        ];
        for ip in &mut outcome.ips {
            ip.interface = Some(1);
        }
        outcome.dns = self.conf.dns.as_object().cloned().unwrap_or_default();
        Ok(())
    }

    /// Gives back what a failed ADD got, except what an earlier ADD put on the interface.
    async fn give_back_unused(
        &self,
        target: &Namespace,
        outcome: &Outcome,
    ) -> Result<(), CniError> {
        let (target, interface) = (target.clone(), self.call.interface.clone());
        let inside = blocking(move || addresses_of(&target, &interface)).await;
        let inside = inside.map_err(CniError::failed)?;
        if self.conf.ipam.delegate.is_some() {
            if inside.is_empty() {
                self.run_delegate("DEL").await?;
            }
            return Ok(());
        }
        let owner = owner(&self.conf.name, &attachment(self.call));
        for address in ipv4(outcome) {
            if !inside.iter().any(|net| net.addr() == address.addr()) {
                self.addresses.release_one(&owner, address).await?;
            }
        }
        Ok(())
    }

    /// After an ADD that got no answer; one that is repeated for a container which is attached
    /// leaves its addresses.
    async fn give_back_unheard(&self, target: &Namespace) -> Result<(), CniError> {
        let (target, interface) = (target.clone(), self.call.interface.clone());
        let inside = blocking(move || addresses_of(&target, &interface)).await;
        if inside.map_err(CniError::failed)?.is_empty() {
            let owner = owner(&self.conf.name, &attachment(self.call));
            self.addresses.release_unheard(&owner)?;
        }
        Ok(())
    }

    async fn del(&self) -> Result<(), CniError> {
        let owner = owner(&self.conf.name, &attachment(self.call));
        let removal = Removal {
            bridge: self.conf.bridge.clone(),
            netns: self.call.netns.clone(),
            interface: self.call.interface.clone(),
            owner: owner.clone(),
        };
        // Addresses of an interface that is still there must not be given to another.
        let removed = blocking(move || removal.carry_out()).await;
        let removed = removed.map_err(|error| {
            let what = format!("unable to remove interface {:?}", self.call.interface);
            CniError::new(Code::Io, what, error)
        })?;
        if self.conf.ipam.delegate.is_some() {
            return self.run_delegate("DEL").await;
        }
        let what = "unable to release IP address";
        let released = self.addresses.release(&owner).await;
        if !released.map_err(|error| error.during(what))? {
            self.release_of_weave(removed)
                .await
                .map_err(|e| e.during(what))?;
        }
        Ok(())
    }

    /// Gives back what a Weave Net router gave the container, under its id alone: all of it if
    /// the container is gone, else what was on this interface.
    async fn release_of_weave(&self, removed: Removed) -> Result<(), CniError> {
        let id = &self.call.container;
        let owned = self.addresses.of(id).await?;
        if owned.is_empty() {
            complain(&format!("no addresses for {id}"));
            return Ok(());
        }
        match removed {
            Removed::NoNamespace => self.addresses.release(id).await.map(drop),
            Removed::Addresses(removed) => {
                for address in removed {
                    self.addresses.release_one(id, address).await?;
                }
                Ok(())
            }
        }
    }

    async fn check(&self) -> Result<(), CniError> {
        let previous = ipam::previous(self.conf)?;
        let target = self.target()?;
        let inspection = Inspection {
            bridge: self.conf.bridge.clone(),
            interface: self.call.interface.clone(),
            sandbox: self.call.netns.clone(),
            target,
            previous,
        };
        let changed = blocking(move || inspection.carry_out()).await;
        if let Some(what) = changed.map_err(CniError::failed)? {
            let interface = &self.call.interface;
            return Err(CniError::new(
                Code::Changed,
                format!("interface {interface:?} is not as ADD left it"),
                what,
            ));
        }
        match self.conf.ipam.delegate {
            Some(_) => self.run_delegate("CHECK").await,
            None => ipam::check(&self.addresses, self.call, self.conf).await,
        }
    }

    async fn collect(&self) -> Result<(), CniError> {
        let start = format!("{ALIAS} {}", owners_start(&self.conf.name));
        let valid = ipam::valid_owners(self.conf)?;
        let valid: Vec<String> = valid
            .iter()
            .map(|owner| format!("{ALIAS} {owner}"))
            .collect();
        let stale = move |alias: &str| {
            alias.starts_with(&start) && !valid.iter().any(|valid| valid == alias)
        };
        let deleted = blocking(move || delete_host_ends(&stale)).await;
        deleted.map_err(|error| CniError::new(Code::Io, "unable to remove interfaces", error))?;
        match self.conf.ipam.delegate {
            Some(_) => self.run_delegate("GC").await,
            None => ipam::collect(&self.addresses, self.conf).await,
        }
    }

    async fn status(&self) -> Result<(), CniError> {
        self.addresses.check_ready().await?;
        let name = self.conf.bridge.clone();
        let found = blocking(move || Bridge::named(&Netlink::open()?, &name)).await;
        found.map_err(|error| CniError::new(Code::NotAvailable, error, ""))?;
        match self.conf.ipam.delegate {
            Some(_) => self.run_delegate("STATUS").await,
            None => Ok(()),
        }
    }

    /// Has the address plugin do what we are asked to do; `command` says what that is here.
    async fn run_delegate(&self, command: &str) -> Result<(), CniError> {
        let Some(name) = &self.conf.ipam.delegate else {
            return Ok(());
        };
        let answer = delegate::run_as(command, name, self.call, self.text).await;
        answer.map(drop)
    }
}

fn ipv4(outcome: &Outcome) -> Vec<Ipv4Net> {
    let v4 = |net: IpNet| match net {
        IpNet::V4(net) => Some(net),
        IpNet::V6(_) => None,
    };
    outcome.ips.iter().filter_map(|ip| v4(ip.address)).collect()
}
