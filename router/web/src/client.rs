//! A client for the control interface, and for anything else that speaks HTTP on a TCP address
//! or a unix socket.

use std::time::Duration;

use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};

use crate::endpoint::Endpoint;

/// Longest answer that is read, in bytes; a longer one is an error.
const BODY_BYTES_MAX: usize = 64 << 20;

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, as text.
    pub body: String,
}

impl Answer {
    /// Returns the body of a success, else the body as the error that it describes.
    pub fn ok(self) -> Result<String, ClientError> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let text = self.body.trim();
        let reason = self.status.canonical_reason().unwrap_or("refused");
        let text = if text.is_empty() {
            reason.to_owned()
        } else {
            text.to_owned()
        };
        Err(ClientError::Refused {
            status: self.status.as_u16(),
            text,
        })
    }
}

/// Why there is no answer, or none that helps.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("no router answers on {address} ({error}). Is it running? Start it with 'weft launch'")]
    NotRunning {
        /// The address at which the router was expected.
        address: String,
        /// The system's error.
        error: String,
    },
    /// The connection broke.
    #[error("the router on {address} did not answer: {error}")]
    Broken {
        /// The address at which the router was expected.
        address: String,
        /// The error.
        error: String,
    },
    /// No answer came in time.
    #[error("the router on {address} did not answer within {seconds} s")]
    Late {
        /// The address at which the router was expected.
        address: String,
        /// Time that was waited.
        seconds: u64,
    },
    /// The router said no.
    #[error("{text}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The router's error.
        text: String,
    },
}

/// A place to send requests to.
#[derive(Clone, Debug)]
pub struct Client {
    address: Endpoint,
    timeout: Duration,
}

impl Client {
    /// Creates a client of the interface at `address`; every request ends within `timeout`.
    pub const fn new(address: Endpoint, timeout: Duration) -> Client {
        Client { address, timeout }
    }

    /// Gets a page.
    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::GET, path, None, "").await
    }

    /// Gets a page as JSON.
    pub async fn get_json(&self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::GET, path, Some(("accept", "application/json")), "")
            .await
    }

    /// Posts a form, already encoded.
    pub async fn post(&self, path: &str, form: &str) -> Result<Answer, ClientError> {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.request(Method::POST, path, Some(kind), form).await
    }

    /// Puts a form, already encoded.
    pub async fn put(&self, path: &str, form: &str) -> Result<Answer, ClientError> {
        let kind = ("content-type", "application/x-www-form-urlencoded");
        self.request(Method::PUT, path, Some(kind), form).await
    }

    /// Deletes.
    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.request(Method::DELETE, path, None, "").await
    }

    /// Sends any request and reads the whole answer.
    pub async fn request(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: &str,
    ) -> Result<Answer, ClientError> {
        let address = self.address.to_string();
        let exchange = self.exchange(method, path, header, body);
        match tokio::time::timeout(self.timeout, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(ClientError::Late {
                address,
                seconds: self.timeout.as_secs(),
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        header: Option<(&str, &str)>,
        body: &str,
    ) -> Result<Answer, ClientError> {
        let broken = |error: String| ClientError::Broken {
            address: self.address.to_string(),
            error,
        };
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "weft");
        if let Some((name, value)) = header {
            request = request.header(name, value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())));
        let request = request.map_err(|error| broken(error.to_string()))?;
        let absent = |error: std::io::Error| ClientError::NotRunning {
            address: self.address.to_string(),
            error: error.to_string(),
        };
        let response = match &self.address {
            Endpoint::Tcp(address) => {
                let stream = TcpStream::connect(address).await.map_err(absent)?;
                send(TokioIo::new(stream), request).await
            }
            Endpoint::Unix(path) => {
                let stream = UnixStream::connect(path).await.map_err(absent)?;
                send(TokioIo::new(stream), request).await
            }
        };
        let (status, body) = response.map_err(broken)?;
        Ok(Answer {
            status,
            body: String::from_utf8_lossy(&body).into_owned(),
        })
    }
}

async fn send<S>(stream: S, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), String>
where
    S: hyper::rt::Read + hyper::rt::Write + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(stream)
        .await
        .map_err(|error| error.to_string())?;
    let connection = tokio::spawn(connection);
    let response = sender
        .send_request(request)
        .await
        .map_err(|error| error.to_string())?;
    let status = response.status();
    let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
        .collect()
        .await;
    connection.abort();
    Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
}

/// Encodes a form or a query.
pub fn encode_form<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> String {
    let pairs = fields
        .into_iter()
        .map(|(name, value)| format!("{name}={}", encode(value)));
    pairs.collect::<Vec<_>>().join("&")
}

/// Encodes a text for use in a path or a query.
pub fn encode(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_are_encoded() {
        assert_eq!(
            encode_form([("a", "x y&z"), ("b", "1.2.3.4:5")]),
            "a=x%20y%26z&b=1.2.3.4:5"
        );
    }

    #[tokio::test]
    async fn an_absent_router_is_explained() {
        let address = Endpoint::Unix("/nonexistent/weft.sock".into());
        let client = Client::new(address, Duration::from_secs(1));
        let error = client.get("/status").await.unwrap_err().to_string();
        assert!(error.contains("Start it with 'weft launch'"), "{error}");
    }
}
