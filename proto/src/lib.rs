//! The state machines of the mesh, its overlays and its names, without any I/O.
//!
//! Nothing in this crate opens a socket, reads a clock or generates randomness. Every state machine
//! follows the same contract:
//!
//! * `handle_*(now, input)` and `handle_timeout(now)` report events;
//! * `poll_output()` returns what the driver must do, in order, until it returns `None`;
//! * `poll_timeout()` returns the time at which `handle_timeout` must be called next.
//!
//! Spurious calls change nothing. [`types::Time`] is a monotonic clock that the caller owns, and
//! the caller seeds every random number generator, so a run can be repeated exactly.

pub mod connector;
pub mod crypto;
pub mod cursor;
pub mod ethernet;
pub mod features;
mod framing;
#[doc(hidden)]
pub mod fuzzing;
pub mod gob;
pub mod gossip;
mod handshake;
pub mod identity;
pub mod message;
pub mod names;
pub mod native;
pub mod node;
pub mod offload;
pub mod overlay;
pub mod routes;
pub mod sleeve;
pub mod switch;
pub mod topology;
pub mod types;
#[cfg(test)]
mod vectors;
pub mod wire;
