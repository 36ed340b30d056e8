//! The ports of the loop: the services that it calls.

use std::sync::Arc;
use std::time::UNIX_EPOCH;

use boundary::clock::{Clock, Random};
use boundary::connections::Connections;
use boundary::forwarding::Forwarding;
use boundary::records::Records;
use ipam::allocator;
use proto::crypto::Secret;
use proto::names::UnixSecs;
use proto::node::ConnSecret;
use proto::types::Time;

/// The ports of the loop, each with an implementation of its own for tests.
pub struct Surroundings {
    /// The data plane.
    pub forwarding: Box<dyn Forwarding>,
    /// The TCP connections.
    pub connections: Box<dyn Connections>,
    /// Path of the state.
    pub records: Arc<dyn Records>,
    /// The time.
    pub clock: Box<dyn Clock>,
    /// Chance.
    pub random: Box<dyn Random>,
}

impl Surroundings {
    /// Returns the time as the core counts it.
    pub(super) fn now(&self) -> Time {
        self.clock.now()
    }

    /// Returns the wall clock, in seconds.
    pub(super) fn unix(&self) -> UnixSecs {
        let since = self.clock.wall().duration_since(UNIX_EPOCH);
        UnixSecs(since.map_or(0, |since| since.as_secs().cast_signed()))
    }

    /// Returns both clocks.
    pub(super) fn both(&self) -> allocator::Clock {
        allocator::Clock {
            now: self.now(),
            wall: self.unix().0.unsigned_abs(),
        }
    }

    /// Fresh random bytes for the next key of a native link; the link goes on with the old one
    /// where there is no randomness.
    pub(super) fn native_secret(&mut self) -> Option<Secret> {
        let mut bytes = [0; 32];
        match self.random.fill(&mut bytes) {
            Ok(()) => Some(bytes.into()),
            Err(error) => {
                tracing::error!(%error, "no random bytes for a native key");
                None
            }
        }
    }

    /// Fresh secrets for one connection; without randomness there can be none.
    pub(super) fn secret(&mut self) -> Option<ConnSecret> {
        let mut bytes = [0; 72];
        if let Err(error) = self.random.fill(&mut bytes) {
            tracing::error!(%error, "a connection was refused");
            return None;
        }
        let (key, rest) = bytes.split_first_chunk::<32>()?;
        let (native, id) = rest.split_first_chunk::<32>()?;
        let conn_id = u64::from_ne_bytes(*id.first_chunk()?);
        Some(ConnSecret {
            key: (*key).into(),
            native: (*native).into(),
            conn_id,
        })
    }
}
