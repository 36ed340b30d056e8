//! The threads that carry frames between TAP queues and UDP sockets.

mod context;
mod counters;
mod deliver;
pub mod guard;
mod inject;
mod opened;
mod output;
mod pacing;
pub mod plane;
pub mod ports;
mod rx;
pub mod tap;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod tx;
pub mod udp;
mod wait;
