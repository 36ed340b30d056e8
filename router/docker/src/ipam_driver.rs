//! The IPAM driver: pools are subnets of the mesh, and their addresses the allocator's.
//!
//! The address of a container is held under the address itself, as Weave Net does, since all that
//! Docker says when it gives one back is the address. Where it tells for whom an address is, and
//! that one has a lease, it is held under [`POOL_HOLDER`] and who it is.

use std::collections::BTreeMap;

use ipam::leases::Identity;
use ipam::range::{Address, Cidr};
use proto::types::Mac;

use crate::identity;
use crate::messages::{
    AddressCall, ENDPOINT_MAC, ENDPOINT_NAME, GATEWAY, REQUEST_TYPE, RequestPool, RequestedAddress,
    RequestedPool, option,
};
use crate::plugin::Plugin;
use crate::plugin_server::Socket;

/// Address spaces of our drivers: local and global.
pub(crate) const WEFT_SPACES: [&str; 2] = ["weftlocal", "weftglobal"];
/// Names of Weave Net's address spaces.
pub(crate) const WEAVE_SPACES: [&str; 2] = ["weavelocal", "weaveglobal"];
/// Prefix of the ids of holders whose identity Docker told with the request.
const POOL_HOLDER: &str = "docker-pool:";

/// Returns true if our IPAM driver gives out the addresses of this space.
pub(crate) fn is_our_space(space: &str) -> bool {
    WEFT_SPACES.contains(&space) || WEAVE_SPACES.contains(&space)
}

/// A subnet, and the part of it that addresses come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Pool {
    subnet: Cidr,
    range: Cidr,
}

impl Pool {
    fn parse(id: &str) -> Result<Pool, String> {
        let unknown = || format!("Unrecognized pool ID: {id}");
        let parts: Vec<&str> = id.split('-').collect();
        let [prefix, subnet, range] = parts.as_slice() else {
            return Err(unknown());
        };
        if !["weave", "weft"].contains(prefix) {
            return Err(unknown());
        }
        let part = |text: &str| Cidr::parse_subnet(text).map_err(|_| unknown());
        Ok(Pool {
            subnet: part(subnet)?,
            range: part(range)?,
        })
    }
}

impl Plugin {
    pub(crate) async fn request_pool(
        &self,
        socket: &Socket,
        call: RequestPool,
    ) -> Result<RequestedPool, String> {
        if call.v6 {
            return Err("there are no IPv6 pools here".to_owned());
        }
        let parse = |text: &str| -> Result<Cidr, String> {
            let cidr: Cidr = text.parse().map_err(|e| format!("{text}: {e}"))?;
            Ok(cidr.network())
        };
        let subnet = match call.pool.as_str() {
            "" => self.default_subnet().await?,
            text => parse(text)?,
        };
        let range = match call.sub_pool.as_str() {
            "" => subnet,
            text => parse(text)?,
        };
        Cidr::parse_subnet(&subnet.to_string()).map_err(|e| e.to_string())?;
        if range.range().intersect(&subnet.range()) != range.range() {
            return Err(format!("{range} is no part of {subnet}"));
        }
        self.check_subnet(socket, range).await?;
        Ok(RequestedPool {
            error: "",
            pool_id: format!("{}-{subnet}-{range}", socket.pool_prefix),
            pool: subnet.to_string(),
            // Nobody uses a gateway here, but Docker wants one: the network's own address.
            data: BTreeMap::from([(GATEWAY, subnet.to_string())]),
        })
    }

    pub(crate) async fn request_address(
        &self,
        socket: &Socket,
        call: AddressCall,
    ) -> Result<RequestedAddress, String> {
        let pool = match call.pool.as_str() {
            // What early versions of Weave Net called it.
            "weavepool" => {
                let subnet = self.default_subnet().await?;
                let range = subnet;
                Pool { subnet, range }
            }
            id => Pool::parse(id)?,
        };
        let is_endpoint = option(&call.options, REQUEST_TYPE).is_none();
        let who = match is_endpoint {
            true => self.identity_of(&call).await,
            false => None,
        };
        let holder = match &who {
            Some(who) => format!("{POOL_HOLDER}{}@{}", who.name(), pool.subnet),
            None => NOBODY.to_owned(),
        };
        let address = match call.address.as_str() {
            "" => {
                let given = self.allocate(&holder, Some(pool.range), who).await?;
                given.cidr.address
            }
            text => {
                let address: Address = text.parse().map_err(|e| format!("{text}: {e}"))?;
                let cidr = pool.subnet.with_address(address);
                if is_endpoint {
                    self.check_address(socket, cidr).await?;
                }
                self.claim(&holder, cidr, who).await?.cidr.address
            }
        };
        Ok(RequestedAddress {
            error: "",
            address: pool.subnet.with_address(address).to_string(),
            data: None,
        })
    }

    /// Returns the holder of an address, as far as Docker tells: its name on newer engines, and its
    /// MAC address if the driver asks for it.
    async fn identity_of(&self, call: &AddressCall) -> Option<Identity> {
        if let Some(name) = option(&call.options, ENDPOINT_NAME) {
            let by_label = match self.named(&name).await {
                Some(container) => identity::of_container(&container.labels, &name).ok()?,
                None => None,
            };
            return by_label.or_else(|| identity::by_name(&name));
        }
        let mac: Mac = option(&call.options, ENDPOINT_MAC)?.parse().ok()?;
        self.identity_by_mac(mac).await
    }

    pub(crate) async fn release_address(&self, call: &AddressCall) -> Result<(), String> {
        let subnet = match call.pool.as_str() {
            "weavepool" => self.default_subnet().await?,
            id => Pool::parse(id)?.subnet,
        };
        let text = &call.address;
        let address: Address = text.parse().map_err(|e| format!("{text}: {e}"))?;
        if address == subnet.address {
            // The gateway that nobody has.
            return Ok(());
        }
        for (holder, addresses) in self.holdings().await? {
            let ours = holder == *text || holder.starts_with(POOL_HOLDER);
            if ours && addresses.iter().any(|cidr| cidr.address == address) {
                self.release(&holder).await?;
            }
        }
        Ok(())
    }
}

/// The holder of an address of which it is not told for whom it is.
const NOBODY: &str = "_";
