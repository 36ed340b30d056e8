//! Requests of Docker's engine to a plugin, and the answers, as JSON.
//!
//! Fields that are missing or `null` are empty, as the engine's own plugins read them; unknown
//! ones are passed over.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

/// Key of a network's own options among all its options.
pub(crate) const GENERIC: &str = "com.docker.network.generic";
/// Key of the gateway in the data of an address pool.
pub(crate) const GATEWAY: &str = "com.docker.network.gateway";
/// Key of the MAC address in a request for an address.
pub(crate) const ENDPOINT_MAC: &str = "com.docker.network.endpoint.macaddress";
/// Key of the container's name, which newer engines tell.
pub(crate) const ENDPOINT_NAME: &str = "com.docker.network.endpoint.name";
/// Key of what a request for an address is for, if not for a container.
pub(crate) const REQUEST_TYPE: &str = "RequestAddressType";

/// Options: mostly text, but the engine puts what it likes there.
pub(crate) type Options = Map<String, Value>;

/// Reads `null` as the empty value.
fn or_empty<'de, D: Deserializer<'de>, T: Deserialize<'de> + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Returns a text among options; numbers and truths as they are written.
pub(crate) fn option(options: &Options, name: &str) -> Option<String> {
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
pub(crate) struct IpamData {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) address_space: String,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) pool: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CreateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(crate) network: String,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(crate) options: Options,
    #[serde(rename = "IPv4Data", deserialize_with = "or_empty")]
    pub(crate) ipv4: Vec<IpamData>,
}

/// A call of which only the network's name matters.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct NetworkCall {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(crate) network: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AllocateNetwork {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(crate) _network: String,
    #[serde(rename = "Options")]
    pub(crate) options: Value,
}

/// An endpoint's addresses: those that the engine chose, or in an answer those that we chose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(default)]
pub(crate) struct Interface {
    #[serde(rename = "Address", deserialize_with = "or_empty")]
    pub(crate) address: String,
    #[serde(rename = "AddressIPv6", deserialize_with = "or_empty")]
    pub(crate) address_ipv6: String,
    #[serde(rename = "MacAddress", deserialize_with = "or_empty")]
    pub(crate) mac: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct CreateEndpoint {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID", deserialize_with = "or_empty")]
    pub(crate) endpoint: String,
    #[serde(rename = "Interface")]
    pub(crate) interface: Option<Interface>,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(crate) options: Options,
}

/// A call that names an endpoint.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct EndpointCall {
    #[serde(rename = "NetworkID", deserialize_with = "or_empty")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID", deserialize_with = "or_empty")]
    pub(crate) endpoint: String,
    #[serde(rename = "SandboxKey", deserialize_with = "or_empty")]
    pub(crate) sandbox: String,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct RequestPool {
    #[serde(deserialize_with = "or_empty")]
    pub(crate) pool: String,
    #[serde(deserialize_with = "or_empty")]
    pub(crate) sub_pool: String,
    #[serde(rename = "V6", deserialize_with = "or_empty")]
    pub(crate) v6: bool,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct AddressCall {
    #[serde(rename = "PoolID", deserialize_with = "or_empty")]
    pub(crate) pool: String,
    #[serde(rename = "Address", deserialize_with = "or_empty")]
    pub(crate) address: String,
    #[serde(rename = "Options", deserialize_with = "or_empty")]
    pub(crate) options: Options,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Activated {
    pub(crate) implements: Vec<&'static str>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct NetworkCapabilities {
    pub(crate) err: &'static str,
    pub(crate) scope: &'static str,
    pub(crate) connectivity_scope: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AllocatedNetwork {
    pub(crate) err: &'static str,
    pub(crate) options: Value,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct CreatedEndpoint {
    pub(crate) err: &'static str,
    pub(crate) interface: Interface,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct EndpointInfo {
    pub(crate) err: &'static str,
    pub(crate) value: Options,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct InterfaceName {
    pub(crate) src_name: String,
    pub(crate) dst_name: &'static str,
    pub(crate) dst_prefix: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct StaticRoute {
    pub(crate) destination: String,
    /// 0 = by way of the next hop, 1 = on the interface itself.
    pub(crate) route_type: u8,
    pub(crate) next_hop: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct Joined {
    pub(crate) err: &'static str,
    pub(crate) interface_name: InterfaceName,
    pub(crate) gateway: &'static str,
    #[serde(rename = "GatewayIPv6")]
    pub(crate) gateway_ipv6: &'static str,
    pub(crate) static_routes: Option<Vec<StaticRoute>>,
    pub(crate) disable_gateway_service: bool,
}

#[derive(Clone, Debug, Serialize)]
pub(crate) struct IpamCapabilities {
    #[serde(rename = "RequiresMACAddress")]
    pub(crate) requires_mac: bool,
    #[serde(rename = "RequiresRequestReplay")]
    pub(crate) requires_replay: bool,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct AddressSpaces {
    pub(crate) error: &'static str,
    pub(crate) local_default_address_space: &'static str,
    pub(crate) global_default_address_space: &'static str,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestedPool {
    pub(crate) error: &'static str,
    #[serde(rename = "PoolID")]
    pub(crate) pool_id: String,
    pub(crate) pool: String,
    pub(crate) data: BTreeMap<&'static str, String>,
}

#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(crate) struct RequestedAddress {
    pub(crate) error: &'static str,
    pub(crate) address: String,
    pub(crate) data: Option<Options>,
}

/// An empty answer: the call is done.
#[derive(Clone, Copy, Debug, Serialize)]
pub(crate) struct Empty {}

/// A refusal, also of the address allocator: the engine reads this field of whatever failed.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Refused {
    #[serde(rename = "Err")]
    pub(crate) error: String,
}
