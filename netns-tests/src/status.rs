//! What routers say about themselves, ours and real ones alike.

use std::time::Duration;

use kernel::netns::Namespace;
use serde_json::Value;
use web::client::{Answer, Client, ClientError};
use web::endpoint::Endpoint;

/// A connection as a router reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connection {
    /// The other end.
    pub address: String,
    /// Whether it was dialled from here.
    pub outbound: bool,
    /// What has become of it.
    pub state: String,
    /// What is known of the other end, or the error.
    pub info: String,
    /// The overlay's path MTU.
    pub mtu: Option<u64>,
    /// Whether frames are encrypted.
    pub encrypted: bool,
}

impl Connection {
    pub(crate) fn read(value: &Value) -> Connection {
        let text = |key: &str| value[key].as_str().unwrap_or_default().to_owned();
        Connection {
            address: text("Address"),
            outbound: value["Outbound"] == true,
            state: text("State"),
            info: text("Info"),
            mtu: value["Attrs"]["mtu"].as_u64(),
            encrypted: value["Attrs"]["encrypted"] == true,
        }
    }
}

/// Sends one request to the control interface of the router in a namespace.
pub(crate) fn ask(
    namespace: &Namespace,
    address: &str,
    method: &str,
    path: &str,
    json: bool,
    body: &str,
) -> Result<Answer, ClientError> {
    let address = Endpoint::parse(address).unwrap().unwrap();
    let client = Client::new(address, ANSWER_TIME_MAX);
    let method = method.parse().unwrap();
    let header = match (json, body.is_empty()) {
        (true, _) => Some(("accept", "application/json")),
        (false, true) => None,
        (false, false) => Some(("content-type", "application/x-www-form-urlencoded")),
    };
    let request = || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(client.request(method, path, header, body))
    };
    namespace.run(request).unwrap()
}

/// Returns the value of a report, `Null` where a step is missing.
pub(crate) fn at<'v>(report: &'v Value, path: &[&str]) -> &'v Value {
    path.iter().fold(report, |value, key| &value[*key])
}

const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);
