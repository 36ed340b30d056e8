//! State of the listeners.

use std::net::SocketAddr;

/// State of one listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listening {
    /// It has not been tried yet.
    Starting,
    /// It works.
    On(SocketAddr),
    /// It works on these of all addresses, at least one, for this reason. They are followed.
    OnSome(Vec<SocketAddr>, String),
    /// It does not, for this reason, and is tried again every few seconds.
    Failed(String),
}

/// State of the listeners.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsStatus {
    /// The one for UDP.
    pub udp: Listening,
    /// The one for TCP.
    pub tcp: Listening,
}
