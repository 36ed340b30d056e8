//! Whether the listeners work.

use std::net::SocketAddr;

/// Whether one of the listeners works.
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

/// Whether the listeners work.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsStatus {
    /// The one for UDP.
    pub udp: Listening,
    /// The one for TCP.
    pub tcp: Listening,
}
