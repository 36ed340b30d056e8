//! The plugin protocol: Docker's calls over unix sockets, and errors in its format.
//!
//! Every call ends in time, with an error if need be, and goes on to its end when the engine goes
//! away meanwhile, so that nothing is left half made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixListener;

use crate::ipam_driver::{WEAVE_SPACES, WEFT_SPACES};
use crate::latency::Spent;
use crate::messages::{
    Activated, AddressCall, AddressSpaces, AllocateNetwork, AllocatedNetwork, CreateEndpoint,
    CreateNetwork, Empty, EndpointCall, EndpointInfo, IpamCapabilities, NetworkCall,
    NetworkCapabilities, Options, Refused, RequestPool,
};
use crate::plugin::Plugin;

/// Longest call that is read, in bytes; a longer one is refused.
const CALL_BYTES_MAX: usize = 1 << 20;
/// Maximum time for the rest of a call to arrive.
const READ_TIME_MAX: Duration = Duration::from_secs(5);
/// Maximum time for a call. It is longer than what it waits for, all together, should take.
const CALL_TIME_MAX: Duration = Duration::from_secs(30);
const CONTENT: &str = "application/vnd.docker.plugins.v1.1+json";

/// A driver as Docker sees it: one socket.
#[derive(Clone, Debug)]
pub(crate) struct Socket {
    /// The driver's name: that of the file.
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    scope: &'static str,
    /// Whether it also gives out addresses.
    with_ipam: bool,
    spaces: [&'static str; 2],
    pub(crate) pool_prefix: &'static str,
    requires_mac: bool,
    /// Whether addresses of other allocators may be outside of our range.
    pub(crate) foreign_pools: bool,
    /// Whether networks have multicast that do not say.
    pub(crate) multicast: bool,
}

impl Socket {
    fn new(path: &Path) -> Socket {
        let name = path.file_stem().unwrap_or_default();
        Socket {
            name: name.to_string_lossy().into_owned(),
            path: path.to_owned(),
            scope: "local",
            with_ipam: true,
            spaces: WEFT_SPACES,
            pool_prefix: "weft",
            requires_mac: true,
            foreign_pools: false,
            multicast: true,
        }
    }

    /// Returns our own driver.
    pub(crate) fn weft(path: &Path) -> Socket {
        Socket::new(path)
    }

    /// Returns Weave Net's local driver, with addresses.
    pub(crate) fn weavemesh(path: &Path) -> Socket {
        Socket {
            spaces: WEAVE_SPACES,
            pool_prefix: "weave",
            requires_mac: false,
            foreign_pools: true,
            multicast: false,
            ..Socket::new(path)
        }
    }

    /// Returns Weave Net's global driver.
    pub(crate) fn weave(path: &Path) -> Socket {
        Socket {
            scope: "global",
            with_ipam: false,
            ..Socket::weavemesh(path)
        }
    }
}

/// Serves one driver until the runtime ends.
pub(crate) async fn serve(listener: UnixListener, socket: Socket, plugin: Arc<Plugin>) {
    let name = socket.name.clone();
    if let Err(error) = axum::serve(listener, router(socket, plugin)).await {
        tracing::error!(driver = name, %error, "a plugin of Docker ended");
    }
}

/// Returns what answers the calls of one driver.
pub(crate) fn router(socket: Socket, plugin: Arc<Plugin>) -> Router {
    Router::new()
        .fallback(any(answer))
        .with_state((Arc::new(socket), plugin))
}

/// A call that was not done.
enum Failure {
    /// There is no such call.
    Unknown,
    /// The request is no such call.
    Garbled(String),
    /// It failed.
    Failed(String),
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Failed(text)
    }
}

async fn answer(
    State((socket, plugin)): State<(Arc<Socket>, Arc<Plugin>)>,
    request: Request,
) -> Response {
    if request.method() != Method::POST {
        return refuse(Failure::Unknown);
    }
    let path = request.uri().path().to_owned();
    let body = match tokio::time::timeout(READ_TIME_MAX, read(request.into_body())).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return refuse(Failure::Garbled(error)),
        Err(_) => return refuse(Failure::Garbled("the call did not arrive".to_owned())),
    };
    let begun = std::time::Instant::now();
    let call = path.clone();
    // On a task of its own it is not cut short when the engine goes away.
    let work = tokio::spawn(async move {
        let mut spent = Spent::begin();
        let answer = act(&socket, &plugin, &path, &body, &mut spent).await?;
        let method = path.rsplit('.').next().unwrap_or(&path);
        Ok((answer, plugin.costs.note(method, &spent)))
    });
    let result = match tokio::time::timeout(CALL_TIME_MAX, work).await {
        Ok(Ok(result)) => result,
        Ok(Err(error)) => Err(Failure::Failed(error.to_string())),
        Err(_) => Err(Failure::Failed(format!(
            "timed out after {} s",
            CALL_TIME_MAX.as_secs()
        ))),
    };
    let micros = begun.elapsed().as_micros();
    match result {
        Ok((body, parts)) => {
            tracing::debug!(call, micros, parts, "answered Docker");
            (StatusCode::OK, [(CONTENT_TYPE, CONTENT)], body).into_response()
        }
        Err(failure) => {
            if let Failure::Failed(error) | Failure::Garbled(error) = &failure {
                tracing::warn!(call, micros, error, "refused a call of Docker");
            }
            refuse(failure)
        }
    }
}

async fn read(body: Body) -> Result<Bytes, String> {
    let read = axum::body::to_bytes(body, CALL_BYTES_MAX).await;
    read.map_err(|error| error.to_string())
}

fn refuse(failure: Failure) -> Response {
    let plain = |status, text: String| (status, text).into_response();
    match failure {
        Failure::Unknown => plain(StatusCode::NOT_FOUND, "404 page not found\n".to_owned()),
        Failure::Garbled(error) => plain(
            StatusCode::BAD_REQUEST,
            format!("Unable to decode JSON payload: {error}\n"),
        ),
        Failure::Failed(error) => {
            let body = line(&Refused { error }).unwrap_or_default();
            let status = StatusCode::INTERNAL_SERVER_ERROR;
            (status, [(CONTENT_TYPE, CONTENT)], body).into_response()
        }
    }
}

fn line(value: &impl Serialize) -> Result<String, Failure> {
    let text = serde_json::to_string(value).map_err(|error| error.to_string())?;
    Ok(text + "\n")
}

fn decode<T: DeserializeOwned>(body: &[u8]) -> Result<T, Failure> {
    let text = body.trim_ascii_start();
    // In Go's words, as far as they are easily had.
    let Some(first) = text.first() else {
        return Err(Failure::Garbled("EOF".to_owned()));
    };
    if !b"{[\"-0123456789tfn".contains(first) {
        let first = char::from(*first);
        return Err(Failure::Garbled(format!(
            "invalid character {first:?} looking for beginning of value"
        )));
    }
    serde_json::from_slice(text).map_err(|error| Failure::Garbled(error.to_string()))
}

async fn act(
    socket: &Socket,
    plugin: &Arc<Plugin>,
    path: &str,
    body: &[u8],
    spent: &mut Spent,
) -> Result<String, Failure> {
    if path == "/Plugin.Activate" {
        let mut implements = vec!["NetworkDriver"];
        implements.extend(socket.with_ipam.then_some("IpamDriver"));
        return line(&Activated { implements });
    }
    if let Some(method) = path.strip_prefix("/NetworkDriver.") {
        return network(socket, plugin, method, body, spent).await;
    }
    match path.strip_prefix("/IpamDriver.") {
        Some(method) if socket.with_ipam => ipam(socket, plugin, method, body).await,
        _ => Err(Failure::Unknown),
    }
}

async fn network(
    socket: &Socket,
    plugin: &Arc<Plugin>,
    method: &str,
    body: &[u8],
    spent: &mut Spent,
) -> Result<String, Failure> {
    match method {
        "GetCapabilities" => line(&NetworkCapabilities {
            err: "",
            scope: socket.scope,
            connectivity_scope: "",
        }),
        "CreateNetwork" => {
            let call: CreateNetwork = decode(body)?;
            plugin.create_network(socket, call).await?;
            line(&Empty {})
        }
        "DeleteNetwork" => {
            let call: NetworkCall = decode(body)?;
            plugin.delete_network(&call.network).await?;
            line(&Empty {})
        }
        "AllocateNetwork" => {
            let call: AllocateNetwork = decode(body)?;
            let options = call.options;
            line(&AllocatedNetwork { err: "", options })
        }
        "FreeNetwork" => {
            decode::<NetworkCall>(body)?;
            Ok("null\n".to_owned())
        }
        "CreateEndpoint" => {
            let call: CreateEndpoint = decode(body)?;
            line(&plugin.create_endpoint(socket, call, spent).await?)
        }
        "DeleteEndpoint" => {
            let call: EndpointCall = decode(body)?;
            plugin.delete_endpoint(&call.endpoint).await?;
            line(&Empty {})
        }
        "EndpointOperInfo" => {
            decode::<EndpointCall>(body)?;
            let value = Options::new();
            line(&EndpointInfo { err: "", value })
        }
        "Join" => {
            let call: EndpointCall = decode(body)?;
            line(&plugin.join(&call, spent).await?)
        }
        "Leave" => {
            decode::<EndpointCall>(body)?;
            line(&Empty {})
        }
        // Whoever publishes ports of containers is Docker itself, on its own bridge.
        "ProgramExternalConnectivity" | "RevokeExternalConnectivity" => line(&Empty {}),
        _ => Err(Failure::Unknown),
    }
}

async fn ipam(
    socket: &Socket,
    plugin: &Arc<Plugin>,
    method: &str,
    body: &[u8],
) -> Result<String, Failure> {
    match method {
        "GetCapabilities" => line(&IpamCapabilities {
            requires_mac: socket.requires_mac,
            requires_replay: false,
        }),
        "GetDefaultAddressSpaces" => {
            let [local, global] = socket.spaces;
            line(&AddressSpaces {
                error: "",
                local_default_address_space: local,
                global_default_address_space: global,
            })
        }
        "RequestPool" => {
            let call: RequestPool = decode(body)?;
            line(&plugin.request_pool(socket, call).await?)
        }
        "ReleasePool" => {
            decode::<AddressCall>(body)?;
            line(&Empty {})
        }
        "RequestAddress" => {
            let call: AddressCall = decode(body)?;
            line(&plugin.request_address(socket, call).await?)
        }
        "ReleaseAddress" => {
            let call: AddressCall = decode(body)?;
            plugin.release_address(&call).await?;
            line(&Empty {})
        }
        _ => Err(Failure::Unknown),
    }
}
