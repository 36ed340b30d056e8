//! HTTP over TCP addresses and unix sockets, both ends. Nothing here knows a route.

pub mod client;
pub mod endpoint;
pub mod listener;
