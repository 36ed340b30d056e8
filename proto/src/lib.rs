//! The mesh, its overlays and its names, decided without any I/O.
//!
//! Nothing in this crate opens a socket, reads a clock or draws its own randomness. Every
//! machine follows one contract:
//!
//! * `handle_*(now, input)` and `handle_timeout(now)` take what happened;
//! * `poll_output()` hands out what is to be done, in order, until it returns `None`;
//! * `poll_timeout()` says when `handle_timeout` wants to be called next.
//!
//! Spurious calls change nothing. [`types::Time`] is a monotonic clock that the caller owns, and
//! every generator of random numbers is seeded by the caller, so a run can be repeated exactly.

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
