//! What Docker's engine asks of a plugin, and the answers, as JSON.
//!
//! Fields that are missing or `null` are empty, as the engine's own plugins read them; unknown
//! ones are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Key of a network's own options among all its options.
pub(super) const GENERIC: &str = "com.docker.network.generic";
/// Key of the gateway in the data of an address pool.
pub(super) const GATEWAY: &str = "com.docker.network.gateway";
/// Key of the MAC address in a request for an address.
pub(super) const ENDPOINT_MAC: &str = "com.docker.network.endpoint.macaddress";
/// Key of the container's name, which newer engines tell.
pub(super) const ENDPOINT_NAME: &str = "com.docker.network.endpoint.name";
/// Key of what a request for an address is for, if not for a container.
pub(super) const REQUEST_TYPE: &str = "RequestAddressType";

/// Options: mostly text, but the engine puts what it likes there.
pub(super) type Options = Map<String, Value>;

/// Reads `null` as the empty value.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A text among options; numbers and truths as they are written.
pub(super) fn option(options: &Options, name: &str) -> Option<String> {
    match options.get(name)? {
        Value::String(text) => Some(text.clone()),
        Value::Bool(truth) => Some(truth.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// Addresses that a network's allocator gave it.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct IpamData {
    #[serde(deserialize_with = "or_empty")]
    pub(super) address_space: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) pool: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CreateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(super) network: String,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(super) options: Options,
    #[serde(rename = "IPv4Data", deserialize_with = "or_empty")]
    pub(super) ipv4: Vec<IpamData>,
}

/// A call that names a network and nothing else that matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct NetworkCall {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(super) network: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AllocateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(super) _network: String,
    #[serde(rename = "Options")]
    pub(super) options: Value,
}

/// An endpoint's addresses: those that the engine chose, or in an answer those that we chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(super) struct Interface {
    #[serde(rename = "Address", deserialize_with = "or_empty")]
    pub(super) address: String,
    #[serde(rename = "AddressIPv6", deserialize_with = "or_empty")]
    pub(super) address_ipv6: String,
    #[serde(rename = "MacAddress", deserialize_with = "or_empty")]
    pub(super) mac: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct CreateEndpoint {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(super) network: String,
    #[serde(rename = "EndpointID", deserialize_with = "or_empty")]
    pub(super) endpoint: String,
    #[serde(rename = "Interface")]
    pub(super) interface: Option<Interface>,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(super) options: Options,
}

/// A call that names an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct EndpointCall {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(super) network: String,
    #[serde(rename = "EndpointID", deserialize_with = "or_empty")]
    pub(super) endpoint: String,
    #[serde(rename = "SandboxKey", deserialize_with = "or_empty")]
    pub(super) sandbox: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(super) struct RequestPool {
    #[serde(deserialize_with = "or_empty")]
    pub(super) pool: String,
    #[serde(deserialize_with = "or_empty")]
    pub(super) sub_pool: String,
    #[serde(rename = "V6", deserialize_with = "or_empty")]
    pub(super) v6: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct AddressCall {
    #[serde(rename = "PoolID", deserialize_with = "or_empty")]
    pub(super) pool: String,
    #[serde(rename = "Address", deserialize_with = "or_empty")]
    pub(super) address: String,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(super) options: Options,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Activated {
    pub(super) implements: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct NetworkCapabilities {
    pub(super) err: &'static str,
    pub(super) scope: &'static str,
    pub(super) connectivity_scope: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AllocatedNetwork {
    pub(super) err: &'static str,
    pub(super) options: Value,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct CreatedEndpoint {
    pub(super) err: &'static str,
    pub(super) interface: Interface,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct EndpointInfo {
    pub(super) err: &'static str,
    pub(super) value: Options,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct InterfaceName {
    pub(super) src_name: String,
    pub(super) dst_name: &'static str,
    pub(super) dst_prefix: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct StaticRoute {
    pub(super) destination: String,
    /// 0 = by way of the next hop, 1 = on the interface itself.
    pub(super) route_type: u8,
    pub(super) next_hop: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Joined {
    pub(super) err: &'static str,
    pub(super) interface_name: InterfaceName,
    pub(super) gateway: &'static str,
    #[serde(rename = "GatewayIPv6")]
    pub(super) gateway_ipv6: &'static str,
    pub(super) static_routes: Option<Vec<StaticRoute>>,
    pub(super) disable_gateway_service: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(super) struct IpamCapabilities {
    #[serde(rename = "RequiresMACAddress")]
    pub(super) requires_mac: bool,
    #[serde(rename = "RequiresRequestReplay")]
    pub(super) requires_replay: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct AddressSpaces {
    pub(super) error: &'static str,
    pub(super) local_default_address_space: &'static str,
    pub(super) global_default_address_space: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestedPool {
    pub(super) error: &'static str,
    #[serde(rename = "PoolID")]
    pub(super) pool_id: String,
    pub(super) pool: String,
    pub(super) data: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct RequestedAddress {
    pub(super) error: &'static str,
    pub(super) address: String,
    pub(super) data: Option<Options>,
}

/// An answer that says no more than that it is done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Empty {}

/// A refusal, also of the address allocator: the engine reads this field of whatever failed.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Refused {
    #[serde(rename = "Err")]
    pub(super) error: String,
}
