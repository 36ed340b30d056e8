//! Addresses of containers, as the router keeps them.
//!
//! The owner of an address is the attachment: `cni:NETWORK:CONTAINER:INTERFACE`. So an address is
//! known to be this plugin's, and for which network, wherever it is listed; a container may have
//! several interfaces. Addresses that a Weave Net router gave out have the container's id alone
//! as their owner.

use crate::complaint::complain;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use hyper::Method;
use ipnet::Ipv4Net;
use proto::types::Mac;
use serde_json::Value;

use super::conf::{Attachment, NetConf, Wanted};
use super::pending_releases::Spool;
use crate::error::{CniError, Code};
use crate::invocation::Call;
use web::client::{Client, ClientError, encode};

/// Maximum time to allocate an address; the router may have to ask others for it.
const TIME_MAX: Duration = Duration::from_secs(30);
/// Additional time to wait beyond the router's limit, so that its reason is received.
const GRACE: Duration = Duration::from_secs(5);
/// Maximum time to wait for an identity that is up elsewhere.
const HAND_OVER_TIME_MAX: Duration = Duration::from_secs(3);
const HAND_OVER_POLL: Duration = Duration::from_millis(200);
/// The owner of the bridge's own addresses.
const EXPOSE_OWNER: &str = "weave:expose";

/// The router, asked for one network.
pub(super) struct Addresses<'c> {
    client: Client,
    conf: &'c NetConf,
    spool: Spool,
    /// Whether the router may have given an address that we never heard of.
    unheard: AtomicBool,
}

/// An address, and the MAC address that goes with it if it is an identity's.
pub(super) type Given = (Ipv4Net, Option<Mac>);

/// Owner of an attachment's addresses.
pub(super) fn owner(network: &str, attachment: &Attachment) -> String {
    let Attachment {
        container,
        interface,
    } = attachment;
    format!("{}{container}:{interface}", owners_start(network))
}

/// Returns what the owners of a network start with.
pub(super) fn owners_start(network: &str) -> String {
    format!("cni:{network}:")
}

/// Returns the attachment that a call is about.
pub(super) fn attachment(call: &Call) -> Attachment {
    Attachment {
        container: call.container.clone(),
        interface: call.interface.clone(),
    }
}

impl<'c> Addresses<'c> {
    pub(super) fn new(conf: &'c NetConf) -> Addresses<'c> {
        Addresses {
            client: Client::new(conf.http_addr.clone(), TIME_MAX + GRACE),
            conf,
            spool: Spool::new(&conf.state_dir),
            unheard: AtomicBool::new(false),
        }
    }

    /// Gives back what could not be given back before.
    pub(super) async fn settle(&self) -> Result<(), CniError> {
        self.spool.settle(&self.client).await
    }

    /// Gets the addresses that a call wants: those named, or any of the network's subnet.
    pub(super) async fn get(&self, call: &Call) -> Result<Vec<Given>, CniError> {
        let owner = owner(&self.conf.name, &attachment(call));
        let identity = self.identity(call)?;
        let query = identity.map(|(name, kind)| format!("&identity={}&kind={kind}", encode(&name)));
        let query = query.unwrap_or_default();
        if self.conf.wanted.is_empty() {
            return Ok(vec![self.allocate_patiently(&owner, &query).await?]);
        }
        let mut given = Vec::new();
        for wanted in &self.conf.wanted {
            let wanted = self.with_prefix(*wanted).await?;
            let path = format!("/ip/{}/{wanted}", encode(&owner));
            let (_, mac) = self.ask(Method::PUT, &path, &query, Some(wanted)).await?;
            given.push((wanted, mac));
        }
        Ok(given)
    }

    /// Creates an address with the prefix of the subnet that the network gives addresses from.
    async fn with_prefix(&self, wanted: Wanted) -> Result<Ipv4Net, CniError> {
        let Wanted { address, prefix } = wanted;
        let subnet = match (prefix, self.conf.ipam.subnet) {
            (Some(prefix), _) => {
                return Ipv4Net::new(address, prefix).map_err(CniError::failed);
            }
            (None, Some(subnet)) => subnet,
            (None, None) => {
                let answer = self.client.get("/ipinfo/defaultsubnet").await?.ok()?;
                let subnet = answer.trim().parse::<Ipv4Net>();
                subnet.map_err(|_| CniError::failed("the router does not allocate addresses"))?
            }
        };
        if !subnet.contains(&address) {
            return Err(CniError::new(
                Code::Config,
                format!("{address} is not in the network's subnet {subnet}"),
                "name another address, or this one with the prefix of its subnet",
            ));
        }
        Ipv4Net::new(address, subnet.prefix_len()).map_err(CniError::failed)
    }

    /// Returns the identity of the container and its kind, if it is to have the same address
    /// wherever it runs next.
    fn identity(&self, call: &Call) -> Result<Option<(String, &'static str)>, CniError> {
        if !self.conf.sticky {
            return Ok(None);
        }
        let missing = || {
            CniError::new(
                Code::Environment,
                "a sticky network needs to be told who the container is",
                "CNI_ARGS has no K8S_POD_NAME",
            )
        };
        Ok(call.caller().ok_or_else(missing)?.identity())
    }

    /// Allocates; an identity that has only just ended elsewhere gets a moment until that is known
    /// here.
    async fn allocate_patiently(&self, owner: &str, query: &str) -> Result<Given, CniError> {
        let deadline = Instant::now() + HAND_OVER_TIME_MAX;
        loop {
            match self.allocate(owner, query).await {
                Err(error) if error.is(Code::InUse) && Instant::now() < deadline => {
                    tokio::time::sleep(HAND_OVER_POLL).await;
                }
                result => return result,
            }
        }
    }

    async fn allocate(&self, owner: &str, query: &str) -> Result<Given, CniError> {
        let subnet = self.conf.ipam.subnet.map(|subnet| format!("/{subnet}"));
        let path = format!("/ip/{}{}", encode(owner), subnet.unwrap_or_default());
        self.ask(Method::POST, &path, query, None).await
    }

    /// `claimed` is the address that the request is for, if it is for a certain one: the router
    /// need not repeat it.
    async fn ask(
        &self,
        method: Method,
        path: &str,
        query: &str,
        claimed: Option<Ipv4Net>,
    ) -> Result<Given, CniError> {
        let path = format!("{path}?timeout={}s{query}", TIME_MAX.as_secs());
        let json = Some(("accept", "application/json"));
        let answer = self.client.request(method, &path, json, "").await;
        let lost =
            |e: &ClientError| matches!(e, ClientError::Late { .. } | ClientError::Broken { .. });
        if answer.as_ref().is_err_and(lost) {
            self.unheard.store(true, Ordering::Relaxed);
        }
        let answer = answer?;
        if answer.status.as_u16() == 404 {
            return Err(CniError::new(
                Code::Config,
                "the router does not allocate addresses",
                "it runs with an empty --ipalloc-range; name another plugin as ipam.type",
            ));
        }
        let text = answer.ok().map_err(in_use)?;
        if let (Some(claimed), true) = (claimed, text.trim().is_empty()) {
            return Ok((claimed, None));
        }
        let cancelled = || CniError::new(Code::TryAgain, "the router is leaving", text.trim());
        let value: Value = serde_json::from_str(&text).map_err(|_| cancelled())?;
        let address = value["address"].as_str().and_then(|text| text.parse().ok());
        let mac = value["mac"].as_str().and_then(|text| text.parse().ok());
        Ok((address.ok_or_else(cancelled)?, mac))
    }

    /// Registers a name for an address of an owner. Without names in the mesh nothing is done.
    pub(super) async fn name(
        &self,
        owner: &str,
        address: Ipv4Net,
        name: &str,
    ) -> Result<(), ClientError> {
        let (id, address, name) = (encode(owner), address.addr(), encode(name));
        let path = format!("/name/{id}/{address}?name={name}");
        let answer = self.client.request(Method::PUT, &path, None, "").await?;
        match answer.ok() {
            Ok(_) | Err(ClientError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Gives the bridge an address in the network's subnet, which is the way out of it.
    pub(super) async fn expose(&self) -> Result<Ipv4Net, CniError> {
        let what = "unable to give the bridge an address";
        let (address, _) = self
            .allocate(EXPOSE_OWNER, "")
            .await
            .map_err(|error| error.during(what))?;
        let answer = self.client.post(&format!("/expose/{address}"), "").await;
        let done = answer.and_then(|answer| answer.ok());
        done.map_err(|error| CniError::from(error).during(what))?;
        Ok(address)
    }

    /// Returns the addresses of an owner.
    pub(super) async fn of(&self, owner: &str) -> Result<Vec<Ipv4Net>, CniError> {
        let answer = self.client.get(&format!("/ip/{}", encode(owner))).await?;
        if answer.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let text = answer.ok()?;
        Ok(text
            .split_whitespace()
            .filter_map(|t| t.parse().ok())
            .collect())
    }

    /// Returns all owners of this network's addresses.
    pub(super) async fn owners(&self) -> Result<Vec<String>, CniError> {
        let answer = self.client.get_json("/ip").await?;
        if answer.status.as_u16() == 404 {
            return Ok(Vec::new());
        }
        let value: Value = serde_json::from_str(&answer.ok()?).map_err(CniError::failed)?;
        let start = owners_start(&self.conf.name);
        let owned = value["owned"].as_array().into_iter().flatten();
        let ids = owned.filter_map(|entry| entry["containerid"].as_str());
        Ok(ids
            .filter(|id| id.starts_with(&start))
            .map(str::to_owned)
            .collect())
    }

    /// Gives back all addresses of an owner. Returns whether it had any. A router that is away is
    /// told later.
    pub(super) async fn release(&self, owner: &str) -> Result<bool, CniError> {
        match delete_all(&self.client, owner).await {
            Err(error) if is_away(&error) => {
                self.spool.add(owner)?;
                complain(&format!(
                    "{error}; addresses of {owner} are given back later"
                ));
                Ok(true)
            }
            result => Ok(result?),
        }
    }

    /// Has an owner's addresses given back as soon as the router is found again, if it may have
    /// given one without our hearing of it.
    pub(super) fn release_unheard(&self, owner: &str) -> Result<(), CniError> {
        if self.unheard.load(Ordering::Relaxed) {
            self.spool.add(owner)?;
        }
        Ok(())
    }

    /// Gives back one address of an owner.
    pub(super) async fn release_one(&self, owner: &str, address: Ipv4Net) -> Result<(), CniError> {
        let path = format!("/ip/{}/{}", encode(owner), address.addr());
        match self.client.delete(&path).await?.ok() {
            Ok(_)
            | Err(ClientError::Refused {
                status: 400 | 404, ..
            }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Refuses unless the router answers and can give out addresses.
    pub(super) async fn check_ready(&self) -> Result<(), CniError> {
        let answer = self.client.get("/status").await;
        match answer.and_then(|answer| answer.ok()) {
            Ok(_) => Ok(()),
            Err(error) if is_away(&error) => Err(CniError::new(
                Code::Limited,
                error,
                "containers on this host reach each other, but not other hosts",
            )),
            Err(error) => {
                let why = error.to_string();
                let first = why.lines().next().unwrap_or_default();
                Err(CniError::new(
                    Code::NotAvailable,
                    "the router is not ready",
                    first,
                ))
            }
        }
    }
}

/// Gives back all addresses of an owner. Returns whether it had any.
pub(super) async fn delete_all(client: &Client, owner: &str) -> Result<bool, ClientError> {
    let answer = client.delete(&format!("/ip/{}", encode(owner))).await?;
    match answer.ok() {
        Ok(_) => Ok(true),
        Err(ClientError::Refused { status: 404, .. }) => Ok(false),
        Err(ClientError::Refused { status: 400, text }) if text.contains("no addresses") => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

fn is_away(error: &ClientError) -> bool {
    matches!(
        error,
        ClientError::NotRunning { .. }
            | ClientError::Late { .. }
            | ClientError::Broken { .. }
            | ClientError::Refused { status: 503, .. }
    )
}

/// Returns an identity that is up elsewhere may end there at any moment.
fn in_use(error: ClientError) -> CniError {
    match &error {
        ClientError::Refused { text, .. } if text.starts_with("identity ") => {
            CniError::new(Code::InUse, text, "")
        }
        _ => error.into(),
    }
}
