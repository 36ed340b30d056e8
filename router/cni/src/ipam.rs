//! The plugin that gives out addresses alone, for other plugins to put them on their interfaces.

use serde_json::Value;

use super::address::{Addresses, Given, attachment, owner};
use super::conf::NetConf;
use super::result::{Ip, Outcome};
use crate::error::{CniError, Code};
use crate::invocation::{Call, Command};

pub(super) async fn run(call: &Call, conf: &NetConf) -> Result<Option<Value>, CniError> {
    let addresses = Addresses::new(conf);
    match call.command {
        Command::Add => {
            addresses.settle().await?;
            let given = addresses.get(call).await?;
            Ok(Some(outcome(conf, &given).to_json(conf.version)))
        }
        Command::Del => release(&addresses, call, conf).await.map(|()| None),
        Command::Check => check(&addresses, call, conf).await.map(|()| None),
        Command::Gc => collect(&addresses, conf).await.map(|()| None),
        Command::Status => addresses.check_ready().await.map(|()| None),
        Command::Version => Ok(None),
    }
}

/// Returns what the container gets: the addresses, and what the configuration says of the ways out.
pub(super) fn outcome(conf: &NetConf, given: &[Given]) -> Outcome {
    let ips = given.iter().map(|(address, _)| Ip {
        address: (*address).into(),
        gateway: conf.ipam.gateway,
        interface: None,
    });
    Outcome {
        ips: ips.collect(),
        routes: conf.ipam.routes.clone(),
        ..Outcome::default()
    }
}

/// Gives the addresses of an attachment back. One that has none is done with.
async fn release(addresses: &Addresses<'_>, call: &Call, conf: &NetConf) -> Result<(), CniError> {
    let owner = owner(&conf.name, &attachment(call));
    if !addresses.release(&owner).await? {
        // A Weave Net router gave it out.
        addresses.release(&call.container).await?;
    }
    Ok(())
}

/// Refuses unless the container still has the addresses that it got.
pub(super) async fn check(
    addresses: &Addresses<'_>,
    call: &Call,
    conf: &NetConf,
) -> Result<(), CniError> {
    let previous = previous(conf)?;
    let mut owned = addresses.of(&owner(&conf.name, &attachment(call))).await?;
    if owned.is_empty() {
        owned = addresses.of(&call.container).await?;
    }
    if previous
        .ips
        .iter()
        .any(|ip| owned.iter().any(|net| ip.address.addr() == net.addr()))
    {
        return Ok(());
    }
    Err(CniError::new(
        Code::Changed,
        format!(
            "the router knows no address of container {}",
            call.container
        ),
        "",
    ))
}

/// Returns what ADD answered.
pub(super) fn previous(conf: &NetConf) -> Result<Outcome, CniError> {
    let missing = || CniError::new(Code::Config, "invalid prevResult", "CHECK needs one");
    Outcome::read(conf.previous.as_ref().ok_or_else(missing)?)
}

/// Returns the owners of the attachments that exist.
pub(super) fn valid_owners(conf: &NetConf) -> Result<Vec<String>, CniError> {
    let missing = || {
        CniError::new(
            Code::Config,
            "invalid cni.dev/valid-attachments",
            "GC needs the list of what is to stay",
        )
    };
    let attachments = conf.attachments.as_ref().ok_or_else(missing)?;
    Ok(attachments.iter().map(|a| owner(&conf.name, a)).collect())
}

/// Gives back the addresses of attachments that are gone. Everything is tried.
pub(super) async fn collect(addresses: &Addresses<'_>, conf: &NetConf) -> Result<(), CniError> {
    let valid = valid_owners(conf)?;
    addresses.settle().await?;
    let mut failed = None;
    for owner in addresses.owners().await? {
        if !valid.contains(&owner)
            && let Err(error) = addresses.release(&owner).await
        {
            failed.get_or_insert(error);
        }
    }
    failed.map_or(Ok(()), Err)
}
