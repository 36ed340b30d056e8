//! Container names: a gossiped table, and DNS answers from it.
//!
//! ```text
//! entry      identity and state of one name; which state is newer
//! table      all entries; merge, limits, expiry
//! held       entries of peers that are not known yet
//! clocks     whose wall clock is off
//! gossip     entries to bytes and back
//! index      the snapshot that queries read
//! message    queries and responses as bytes
//! answer     question -> answer | forward | refuse
//! ```
//!
//! [`Names`] is the state machine that owns the table. It handles gossip and local changes, and
//! returns what to send and the snapshots from which [`answer::Responder`] answers, on any thread.

pub mod answer;
mod clocks;
pub mod domain;
pub mod entry;
pub mod gossip;
mod held;
pub mod index;
mod local;
mod machine;
pub mod message;
mod output;
pub mod table;

pub use domain::Domain;
pub use entry::{BadEntry, Entry, Key, State, UnixSecs};
pub use index::Index;
pub use local::{AddError, Filter, NamesConfig};
pub use machine::Names;
pub use output::{Counters, EXPIRY_INTERVAL, Event, Output};
