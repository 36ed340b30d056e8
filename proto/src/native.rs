//! The native overlay: encrypted frames between two weft routers, with segmentation and checksums
//! left to the devices.
//!
//! A super-frame from a device crosses the wire in chunks that are encrypted one by one, and is
//! joined again at the other end. None of its checksums is computed on the way, and a lost datagram
//! costs only its own bytes.
//!
//! A link has two halves. Its state machine ([`link`]) agrees on keys ([`keys`]) over the mesh
//! connection, and measures whether datagrams get through ([`report`]) and how large they may be.
//! [`tunnel`] is shared with the threads that carry frames: they cut super-frames into chunks
//! ([`chunk`]), encrypt and decrypt datagrams, read their records ([`wire`]), and join chunks again
//! ([`join`]).

pub mod choice;
pub mod chunk;
pub mod join;
mod keyring;
pub mod keys;
pub mod link;
mod mtu;
mod replay;
pub mod report;
pub mod seal;
pub mod session_config;
mod traffic;
pub mod tunnel;
pub mod wire;

pub use choice::{Choice, choose};
pub use link::LinkView;
pub use replay::WINDOW as REPLAY_WINDOW;
pub use report::Report;
pub use seal::{Cipher, Ciphers};
pub use session_config::{KeyLife, Keys, LinkConfig, SessionNumbers};
pub use tunnel::{OpenError, Opened, Receiving, Sending, Tunnel};
