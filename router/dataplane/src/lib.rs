//! The threads that carry frames between TAP queues and UDP sockets.

mod context;
mod counters;
mod output;
mod pacing;
pub mod plane;
mod rx;
pub mod tap;
mod tx;
pub mod udp;
