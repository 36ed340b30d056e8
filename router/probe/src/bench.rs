//! Measurements of latency and throughput to the host of another router, along the path of
//! containers' frames.
//!
//! ```text
//! container ---bridge--- router ======= mesh ======= router ---bridge--- container
//!  source       here                                  there               sink
//! ```
//!
//! Both routers make a container for it: a namespace that ends with the measurement, or with the
//! router. They agree by messages on a channel of their own, in JSON. The addresses are link-local
//! (RFC 3927), so that they are nobody else's.

use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;
use serde::{Deserialize, Serialize};

use host::attach::{AttachRequest, attach};
use kernel::error::NetError;
use kernel::netns::Namespace;

pub mod session;
pub mod sink;
pub mod source;

/// The channel on which routers agree.
pub const CHANNEL: &str = "weft-bench";
/// Longest time for which one figure is measured, in seconds. More is refused.
pub const SECONDS_MAX: u32 = 30;
/// Longest message that is read, in bytes. Longer ones are dropped.
pub const MESSAGE_BYTES_MAX: usize = 1024;
/// The port of the sink, for TCP.
const PORT: u16 = 6789;
/// Maximum time for everything beside the measuring.
const SPARE_TIME: Duration = Duration::from_secs(30);
/// Number of figures that take as long as is asked for.
const TIMED_FIGURES: u32 = 3;

/// Messages between routers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Message {
    /// Make a container with a sink.
    Ask {
        /// The number of the measurement, for the answer.
        id: u64,
        /// The address of the container.
        address: Ipv4Addr,
        /// For how long one figure is measured.
        seconds: u32,
    },
    /// It is there.
    Ready {
        /// The number.
        id: u64,
    },
    /// There will be none.
    Refused {
        /// The number.
        id: u64,
        /// Why.
        reason: String,
    },
    /// It is needed no longer.
    Done {
        /// The number.
        id: u64,
    },
}

impl Message {
    /// Reads a message. None if it is none.
    pub fn parse(bytes: &[u8]) -> Option<Message> {
        if bytes.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        serde_json::from_slice(bytes).ok()
    }

    /// Returns the bytes of the message.
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Maximum lifetime of a sink, from its start.
pub fn time_max(seconds: u32) -> Duration {
    Duration::from_secs((seconds.min(SECONDS_MAX) * TIMED_FIGURES).into()) + SPARE_TIME
}

/// Two link-local addresses that differ, drawn by chance.
pub fn draw_addresses(random: &mut fastrand::Rng) -> [Ipv4Addr; 2] {
    // The first and the last 256 are reserved.
    let third = random.u8(1..=254);
    let last = random.u8(..255);
    [last, last + 1].map(|last| Ipv4Addr::new(169, 254, third, last))
}

/// A container for measuring. It ends with the value.
#[derive(Debug)]
pub struct Stage {
    namespace: Namespace,
    address: Ipv4Addr,
}

impl Stage {
    /// Makes one and attaches it to the bridge. Refuses an address that is not link-local.
    pub fn open(bridge: &str, address: Ipv4Addr) -> Result<Stage, String> {
        if !address.is_link_local() {
            return Err(format!("{address} is not link-local"));
        }
        let open = || -> Result<Stage, NetError> {
            let namespace = Namespace::new()?.labelled("a measurement");
            namespace.loopback_up()?;
            let addresses = [Ipv4Net::new_assert(address, 16)];
            let request = AttachRequest {
                addresses: &addresses,
                owner: Some("weft:bench"),
                multicast_route: false,
                ..AttachRequest::new(bridge, &namespace)
            };
            attach(&request)?;
            Ok(Stage { namespace, address })
        };
        open().map_err(|error| error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_read_as_they_were_written() {
        let address = Ipv4Addr::new(169, 254, 1, 2);
        for message in [
            Message::Ask {
                id: u64::MAX,
                address,
                seconds: 3,
            },
            Message::Ready { id: 1 },
            Message::Refused {
                id: 2,
                reason: "why \"not\"".into(),
            },
            Message::Done { id: 3 },
        ] {
            assert_eq!(Message::parse(&message.encode()), Some(message));
        }
        for bad in [&b""[..], b"{", b"{\"ask\":{}}", &[b'1'; 2000]] {
            assert_eq!(Message::parse(bad), None);
        }
    }

    #[test]
    fn addresses_are_link_local_and_differ() {
        let mut random = fastrand::Rng::with_seed(1);
        for _ in 0..1000 {
            let [a, b] = draw_addresses(&mut random);
            assert!(a.is_link_local() && b.is_link_local() && a != b);
        }
    }

    #[test]
    fn other_addresses_are_refused() {
        let refused = Stage::open("nobridge", Ipv4Addr::new(10, 0, 0, 1));
        assert!(refused.is_err_and(|error| error.contains("link-local")));
    }
}
