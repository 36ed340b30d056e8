//! A client for the few calls of Docker's API that we need.
//!
//! The version of the API is the engine's own, learned from it at the first call and again when
//! it was restarted, perhaps as another version. Every call ends within its time.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::Instant;

use web::client::encode;
use web::endpoint::Endpoint;

/// Longest answer that is read, in bytes; a longer one is an error.
const BODY_BYTES_MAX: usize = 64 << 20;
/// Longest line of the event stream, in bytes; a longer one ends the stream, which is then begun
/// again.
const EVENT_BYTES_MAX: usize = 1 << 20;

/// Why Docker did not do it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ApiError {
    /// Nobody listens.
    #[error("Docker does not answer on {0}: {1}")]
    Absent(String, String),
    /// The connection broke, or what came is no answer.
    #[error("Docker's answer to {0} cannot be read: {1}")]
    Broken(String, String),
    /// No answer in time.
    #[error("Docker did not answer {0} within {1} ms")]
    Late(String, u128),
    /// Docker said no.
    #[error("Docker refused {call} ({status}): {text}")]
    Refused {
        call: String,
        status: u16,
        text: String,
    },
}

/// A container as it is listed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Listed {
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) names: Vec<String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) state: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) host_config: ListedMode,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) network_settings: Attachments,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ListedMode {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) network_mode: String,
}

/// The networks of a container, by their names.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Attachments {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) networks: BTreeMap<String, Attachment>,
}

/// A container's place in a network.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Attachment {
    #[serde(rename = "NetworkID", deserialize_with = "null_is_empty")]
    pub(crate) network: String,
    #[serde(rename = "EndpointID", deserialize_with = "null_is_empty")]
    pub(crate) endpoint: String,
    #[serde(rename = "Aliases", deserialize_with = "null_is_empty")]
    pub(crate) aliases: Vec<String>,
}

impl Listed {
    /// Returns the name that users know it by.
    pub(crate) fn name(&self) -> &str {
        // With links it has further names, with a slash inside.
        let names = self.names.iter().map(|name| name.trim_start_matches('/'));
        let mut own = names.filter(|name| !name.contains('/'));
        own.next().unwrap_or_default()
    }
}

/// A container as it is inspected.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Inspected {
    pub(crate) id: String,
    #[serde(deserialize_with = "null_is_empty")]
    name: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) hosts_path: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) state: InspectedState,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) config: InspectedConfig,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) host_config: ListedMode,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) network_settings: Attachments,
}

impl Inspected {
    pub(crate) fn name(&self) -> &str {
        self.name.trim_start_matches('/')
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InspectedState {
    pub(crate) running: bool,
    pub(crate) pid: u32,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct InspectedConfig {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) hostname: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) domainname: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) env: Vec<String>,
}

/// A network as it is listed.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct ListedNetwork {
    #[serde(rename = "Id")]
    pub(crate) id: String,
    #[serde(rename = "Name")]
    pub(crate) name: String,
    #[serde(rename = "Driver")]
    pub(crate) driver: String,
    #[serde(rename = "IPAM", deserialize_with = "null_is_empty")]
    pub(crate) ipam: NetworkIpam,
    #[serde(rename = "Options", deserialize_with = "null_is_empty")]
    pub(crate) options: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkIpam {
    pub(crate) driver: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) config: Vec<NetworkPool>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct NetworkPool {
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) subnet: String,
}

/// A network to create.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewNetwork<'a> {
    pub(crate) name: &'a str,
    pub(crate) driver: &'a str,
    pub(crate) ipam: &'a str,
    /// Empty for an allocator that takes none.
    pub(crate) subnet: &'a str,
    pub(crate) options: &'a [(&'a str, &'a str)],
}

/// An event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Event {
    #[serde(rename = "Type")]
    pub(crate) kind: String,
    pub(crate) action: String,
    #[serde(deserialize_with = "null_is_empty")]
    pub(crate) actor: Actor,
}

/// The object of an event.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Actor {
    #[serde(rename = "ID")]
    pub(crate) id: String,
    #[serde(rename = "Attributes", deserialize_with = "null_is_empty")]
    pub(crate) attributes: BTreeMap<String, String>,
}

fn null_is_empty<'de, D, T>(from: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de> + Default,
{
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// A list of containers that several callers share.
#[derive(Debug, Default)]
struct SharedList {
    begun: Option<Instant>,
    result: Option<Result<Arc<Vec<Listed>>, ApiError>>,
}

/// Docker's engine on this host.
#[derive(Debug)]
pub(crate) struct Docker {
    address: Endpoint,
    version: Mutex<Option<String>>,
    list: tokio::sync::Mutex<SharedList>,
}

impl Docker {
    pub(crate) fn new(address: Endpoint) -> Docker {
        Docker {
            address,
            version: Mutex::new(None),
            list: tokio::sync::Mutex::default(),
        }
    }

    /// Returns where it listens.
    pub(crate) fn address(&self) -> &Endpoint {
        &self.address
    }

    /// Forgets which version of the API the engine speaks.
    pub(crate) fn forget_version(&self) {
        *self.version.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn known_version(&self) -> Option<String> {
        let version = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        version.clone()
    }

    /// Returns the newest version of the API that the engine speaks; it is the one that it surely
    /// does.
    async fn version(&self) -> Result<String, ApiError> {
        if let Some(version) = self.known_version() {
            return Ok(version);
        }
        let ping = self.send(Method::GET, "/_ping", None).await?;
        let header = ping.headers().get("api-version");
        let header = header.and_then(|value| value.to_str().ok());
        let version = match header.filter(|version| is_version(version)) {
            Some(version) => version.to_owned(),
            None => self.version_by_page().await?,
        };
        tracing::debug!(version, "Docker's API");
        let mut known = self.version.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(known.insert(version).clone())
    }

    async fn version_by_page(&self) -> Result<String, ApiError> {
        let answer = self.send(Method::GET, "/version", None).await?;
        let page: Value = read("/version", answer).await?;
        let version = page.get("ApiVersion").and_then(Value::as_str);
        let version = version.filter(|version| is_version(version));
        let none = || ApiError::Broken("/version".to_owned(), "no ApiVersion".to_owned());
        version.map(str::to_owned).ok_or_else(none)
    }

    /// Whether it answers at all; it does so without looking at anything.
    pub(crate) async fn ping(&self, limit: Duration) -> Result<(), ApiError> {
        let call = async { self.send(Method::GET, "/_ping", None).await.map(drop) };
        within("/_ping", limit, call).await
    }

    /// Returns all containers.
    pub(crate) async fn containers(&self, limit: Duration) -> Result<Vec<Listed>, ApiError> {
        self.get("/containers/json?all=1", limit).await
    }

    /// Returns all containers as they were after this call began. Calls that come at once share one
    /// list.
    pub(crate) async fn containers_shared(
        &self,
        limit: Duration,
    ) -> Result<Arc<Vec<Listed>>, ApiError> {
        let came = Instant::now();
        let deadline = came + limit;
        let late = || ApiError::Late("/containers/json".to_owned(), limit.as_millis());
        let locked = tokio::time::timeout_at(deadline, self.list.lock()).await;
        let mut list = locked.map_err(|_| late())?;
        if list.begun.is_some_and(|begun| begun >= came)
            && let Some(result) = &list.result
        {
            return result.clone();
        }
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        let result = self.containers(left).await.map(Arc::new);
        *list = SharedList {
            begun: Some(begun),
            result: Some(result.clone()),
        };
        result
    }

    /// One container; `None` if there is no such.
    pub(crate) async fn container(
        &self,
        id: &str,
        limit: Duration,
    ) -> Result<Option<Inspected>, ApiError> {
        let path = format!("/containers/{}/json", encode(id));
        match self.get(&path, limit).await {
            Ok(container) => Ok(Some(container)),
            Err(ApiError::Refused { status: 404, .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns all networks.
    pub(crate) async fn networks(&self, limit: Duration) -> Result<Vec<ListedNetwork>, ApiError> {
        self.get("/networks", limit).await
    }

    /// Makes a network.
    pub(crate) async fn create_network(
        &self,
        new: NewNetwork<'_>,
        limit: Duration,
    ) -> Result<(), ApiError> {
        let options: BTreeMap<&str, &str> = new.options.iter().copied().collect();
        let mut ipam = json!({ "Driver": new.ipam });
        if !new.subnet.is_empty() {
            ipam["Config"] = json!([{ "Subnet": new.subnet }]);
        }
        let body = json!({
            "Name": new.name,
            "CheckDuplicate": true,
            "Driver": new.driver,
            "IPAM": ipam,
            "Options": options,
        });
        let path = "/networks/create";
        let call = async {
            let answer = self.call(Method::POST, path, Some(&body)).await?;
            read::<Value>(path, answer).await.map(drop)
        };
        within(path, limit, call).await
    }

    /// Removes a network. One that is not there is no failure.
    pub(crate) async fn remove_network(&self, id: &str, limit: Duration) -> Result<(), ApiError> {
        let path = format!("/networks/{}", encode(id));
        match within(&path, limit, self.call(Method::DELETE, &path, None)).await {
            Ok(_) | Err(ApiError::Refused { status: 404, .. }) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Returns the stream of what happens to containers and networks, from now on.
    pub(crate) async fn events(&self, limit: Duration) -> Result<Events, ApiError> {
        let filters = json!({ "type": ["container", "network"] }).to_string();
        let path = format!("/events?filters={}", encode(&filters));
        let answer = within("/events", limit, self.call(Method::GET, &path, None)).await?;
        Ok(Events {
            body: answer.into_body(),
            buffer: Vec::new(),
        })
    }

    async fn get<T: for<'de> Deserialize<'de>>(
        &self,
        path: &str,
        limit: Duration,
    ) -> Result<T, ApiError> {
        let call = async {
            let answer = self.call(Method::GET, path, None).await?;
            read(path, answer).await
        };
        within(path, limit, call).await
    }

    /// Returns a call whose answer is a success.
    async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let version = self.version().await?;
        let full = format!("/v{version}{path}");
        let answer = match self.send(method, &full, body).await {
            Ok(answer) => answer,
            Err(error) => {
                // It may come back as another version.
                self.forget_version();
                return Err(error);
            }
        };
        if answer.status().is_success() {
            return Ok(answer);
        }
        let status = answer.status();
        if status == StatusCode::BAD_REQUEST {
            self.forget_version();
        }
        let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect();
        let text = body.await.map(|body| body.to_bytes()).unwrap_or_default();
        let message = serde_json::from_slice::<Value>(&text).ok();
        let message = message.as_ref().and_then(|value| value.get("message"));
        let text = match message.and_then(Value::as_str) {
            Some(message) => message.to_owned(),
            None => String::from_utf8_lossy(&text).trim().to_owned(),
        };
        Err(ApiError::Refused {
            call: path.to_owned(),
            status: status.as_u16(),
            text,
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Response<Incoming>, ApiError> {
        let broken = |error: String| ApiError::Broken(path.to_owned(), error);
        let absent =
            |error: std::io::Error| ApiError::Absent(self.address.to_string(), error.to_string());
        let bytes = body.map(|body| Bytes::from(body.to_string()));
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "docker");
        if bytes.is_some() {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(Full::new(bytes.unwrap_or_default()));
        let request = request.map_err(|error| broken(error.to_string()))?;
        let answer = match &self.address {
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(absent)?;
                exchange(stream, request).await
            }
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(absent)?;
                exchange(stream, request).await
            }
        };
        answer.map_err(broken)
    }
}

async fn exchange<S>(stream: S, request: Request<Full<Bytes>>) -> Result<Response<Incoming>, String>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // It ends with the answer's body, or when that is dropped.
    tokio::spawn(connection);
    let answer = sender.send_request(request).await;
    answer.map_err(|error| error.to_string())
}

async fn read<T: for<'de> Deserialize<'de>>(
    path: &str,
    answer: Response<Incoming>,
) -> Result<T, ApiError> {
    let broken = |error: String| ApiError::Broken(path.to_owned(), error);
    let body = Limited::new(answer.into_body(), BODY_BYTES_MAX).collect();
    let body = body.await.map_err(|error| broken(error.to_string()))?;
    serde_json::from_slice(&body.to_bytes()).map_err(|error| broken(error.to_string()))
}

async fn within<T>(
    call: &str,
    limit: Duration,
    work: impl Future<Output = Result<T, ApiError>>,
) -> Result<T, ApiError> {
    match tokio::time::timeout(limit, work).await {
        Ok(result) => result,
        Err(_) => Err(ApiError::Late(call.to_owned(), limit.as_millis())),
    }
}

fn is_version(text: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    text.split_once('.')
        .is_some_and(|(major, minor)| number(major) && number(minor))
}

/// A stream of events: JSON objects, one a line.
#[derive(Debug)]
pub(crate) struct Events {
    body: Incoming,
    buffer: Vec<u8>,
}

impl Events {
    /// Returns the next one; `None` when the stream has ended. May be dropped and called again.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            while let Some(end) = self.buffer.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.buffer.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(event) => return Some(event),
                    Err(error) if line.trim_ascii().is_empty() => drop(error),
                    Err(error) => tracing::debug!(%error, "an event of Docker cannot be read"),
                }
            }
            if self.buffer.len() > EVENT_BYTES_MAX {
                return None;
            }
            let frame = self.body.frame().await?.ok()?;
            if let Ok(data) = frame.into_data() {
                self.buffer.extend_from_slice(&data);
            }
        }
    }
}
