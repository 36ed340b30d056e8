//! Addresses for Docker's endpoints, from the allocator.

use std::time::Duration;

use ipam::allocator::{self, LeaseInfo, Request, Response};
use ipam::leases::{Identity, IdentityKind, Scope, mac};
use ipam::range::Cidr;
use proto::types::Mac;

use crate::plugin::Plugin;
use control::errors::RequestError;

/// Maximum time to allocate an address: another peer may have to be asked. Docker shows its user
/// the reason for a timeout.
const ADDRESS_TIME_MAX: Duration = Duration::from_secs(20);
/// Maximum time for anything else.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(5);

/// An address and the MAC address that goes with it, if it is of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Given {
    pub(crate) cidr: Cidr,
    pub(crate) mac: Option<Mac>,
}

impl Plugin {
    async fn ask(&self, wish: Request, limit: Duration) -> Result<Response, RequestError> {
        self.client.address(wish, Some(limit)).await
    }

    /// Returns an address in a subnet, the one that the identity has if there is one.
    pub(crate) async fn allocate(
        &self,
        holder: &str,
        subnet: Option<Cidr>,
        identity: Option<Identity>,
    ) -> Result<Given, String> {
        self.allocate_as(holder, subnet, identity, false).await
    }

    /// As [`Plugin::allocate`], for a container whose end the allocator is told.
    pub(crate) async fn allocate_for(
        &self,
        container: &str,
        subnet: Option<Cidr>,
        identity: Option<Identity>,
    ) -> Result<Given, String> {
        self.allocate_as(container, subnet, identity, true).await
    }

    async fn allocate_as(
        &self,
        holder: &str,
        subnet: Option<Cidr>,
        identity: Option<Identity>,
        container: bool,
    ) -> Result<Given, String> {
        let wish = Request::Allocate {
            id: holder.to_owned(),
            subnet,
            identity,
            container,
        };
        match self.ask(wish, ADDRESS_TIME_MAX).await {
            Ok(Response::Address { cidr, mac }) => Ok(Given { cidr, mac }),
            Ok(_) => Err("unexpected answer".to_owned()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// This address and no other.
    pub(crate) async fn claim(
        &self,
        holder: &str,
        cidr: Cidr,
        identity: Option<Identity>,
    ) -> Result<Given, String> {
        self.claim_as(holder, cidr, identity, false).await
    }

    /// As [`Plugin::claim`], for a container whose end the allocator is told.
    pub(crate) async fn claim_for(
        &self,
        container: &str,
        cidr: Cidr,
        identity: Option<Identity>,
    ) -> Result<Given, String> {
        self.claim_as(container, cidr, identity, true).await
    }

    async fn claim_as(
        &self,
        holder: &str,
        cidr: Cidr,
        identity: Option<Identity>,
        container: bool,
    ) -> Result<Given, String> {
        let key = identity
            .as_ref()
            .map(|identity| identity.key(cidr.network()));
        let wish = Request::Claim {
            id: holder.to_owned(),
            cidr,
            identity,
            container,
            no_error_on_unknown: false,
            force: false,
        };
        match self.ask(wish, ADDRESS_TIME_MAX).await {
            Ok(_) => Ok(Given {
                cidr,
                mac: key.map(|key| mac(&key, cidr.address)),
            }),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Releases what a holder has; one that has nothing is no failure.
    pub(crate) async fn release(&self, holder: &str) -> Result<(), String> {
        let wish = Request::Delete {
            id: holder.to_owned(),
        };
        match self.ask(wish, ANSWER_TIME_MAX).await {
            Ok(_)
            | Err(
                RequestError::Off | RequestError::Refused(allocator::RequestError::NoAddresses(_)),
            ) => Ok(()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns all holders and their addresses.
    pub(crate) async fn holdings(&self) -> Result<Vec<(String, Vec<Cidr>)>, String> {
        match self.ask(Request::List, ANSWER_TIME_MAX).await {
            Ok(Response::Owned(owned)) => Ok(owned),
            Ok(_) | Err(RequestError::Off) => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    /// Returns all leases; none if they cannot be told.
    pub(crate) async fn leases(&self) -> Vec<LeaseInfo> {
        match self.ask(Request::Leases, ANSWER_TIME_MAX).await {
            Ok(Response::Leases(leases)) => leases,
            _ => Vec::new(),
        }
    }

    /// Returns the identity that has a lease with this MAC address.
    pub(crate) async fn identity_by_mac(&self, wanted: Mac) -> Option<Identity> {
        let leases = self.leases().await;
        let found = leases.iter().find(|info| info.mac == wanted)?;
        let kind = match found.key.scope {
            Scope::Explicit => IdentityKind::Explicit,
            Scope::Derived | Scope::Host(_) => IdentityKind::Derived,
        };
        Identity::new(kind, &found.key.name).ok()
    }
}
