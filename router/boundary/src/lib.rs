//! The boundary of control: its inputs and outputs.
//!
//! Control and the data plane do not know each other. They share the types of this crate, which
//! has no threads, sockets or files.

pub mod clock;
pub mod connections;
pub mod counters;
pub mod forwarding;
pub mod forwarding_event;
pub mod owners;
pub mod records;
pub mod snapshot;
#[doc(hidden)]
pub mod testing;
