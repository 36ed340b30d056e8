//! Addresses that an interface listens on.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

/// Addresses that an interface listens on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// On a TCP address.
    Tcp(SocketAddr),
    /// On a unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// Parses `HOST:PORT`, `:PORT`, a path or `unix://PATH`; `None` for the empty text.
    pub fn parse(text: &str) -> Result<Option<Endpoint>, String> {
        let path = text.strip_prefix("unix://").unwrap_or(text);
        if path.is_empty() {
            return Ok(None);
        }
        if path.starts_with('/') {
            return Ok(Some(Endpoint::Unix(PathBuf::from(path))));
        }
        let address = text
            .strip_prefix("tcp://")
            .unwrap_or(text)
            .replace("localhost:", "127.0.0.1:");
        let address = if address.starts_with(':') {
            format!("0.0.0.0{address}")
        } else {
            address
        };
        let parsed = address.parse().map(|address| Some(Endpoint::Tcp(address)));
        parsed.map_err(|_| format!("{text:?} is neither an address like 127.0.0.1:6784 nor a path"))
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}
