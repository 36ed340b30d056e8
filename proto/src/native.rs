//! The native overlay: frames between two routers of this kind, always sealed, with the work that
//! devices leave open still open.
//!
//! A super-frame that a device hands over crosses the wire in chunks that were sealed one by one,
//! and is put together again at the other end. None of its checksums is computed on the way, and
//! a lost datagram costs its own bytes only.
//!
//! A link has two halves. Its state machine ([`link`]) agrees on keys ([`keys`]) over the mesh
//! connection, sees that datagrams get through ([`report`]) and how large they may be. What the
//! threads that carry frames need to know of it is in [`tunnel`]; they cut super-frames into
//! chunks ([`chunk`]), seal and open datagrams and walk over their records ([`wire`]), and join
//! chunks again ([`join`]).

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
