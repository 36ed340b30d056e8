//! The loop that owns the mesh: it feeds events to the node and carries out its outputs.
//!
//! ```text
//! connections ---ConnectionEvent-->  +---------+  --bytes-->  connections
//! data threads ---DataEvent------->  | Control |  --Snapshot, special frames-->  data threads
//! HTTP, Docker ---Request--------->  +---------+  --batches-->  records
//! ```
//!
//! Everybody else talks to it through a [`Client`], whose methods send a [`Request`] each.
//! [`Control::turn`] handles one input and never waits; [`run`] waits for inputs. What is beyond
//! the loop are the ports of [`Surroundings`].
//!
//! [`Client`]: client::Client
//! [`Request`]: request::Request
//! [`Control::turn`]: control::Control::turn
//! [`run`]: driver::run
//! [`Surroundings`]: surroundings::Surroundings

pub mod addresses;
mod allocation;
pub mod client;
pub mod consumers;
pub mod control;
pub mod driver;
pub mod errors;
pub mod links;
mod log;
pub mod loop_time;
pub mod names;
mod naming;
mod publisher;
mod refusals;
pub mod request;
mod resolution;
pub mod surroundings;
mod targets;
pub mod view;
mod viewing;
