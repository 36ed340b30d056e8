//! Peers and their connections: the merged entries of all members of the mesh.
//!
//! Each peer owns one entry: its nickname, UID, short id and all its connections, under a version
//! that the peer counts up. Entries travel as gossip, always complete. Of two versions the newer
//! one is kept, so every order of arrival ends in the same state:
//!
//! ```text
//! add_connection, establish_connection, delete_connection    our own entry, version + 1
//! merge(update)                           other entries are added or replaced
//! collect_garbage()                       what cannot be reached from us goes
//! encode(names)                           the entries of these peers, as an update
//! ```
//!
//! What the caller must do after a change, such as announcing our entry, accumulates in [`Changes`]
//! until it is taken.

mod address;
mod admission;
mod digest;
mod limits;
mod merge;
mod resolve;
mod short_ids;
mod table;
#[cfg(test)]
mod tests;
mod update;

pub use address::Address;
pub use admission::{Admitted, Introduced, Refused};
pub use digest::{DIGEST_BYTES, Digest};
pub use limits::{
    ADDRESS_BYTES_MAX, CONNECTIONS_PER_PEER_MAX, ENTRIES_BYTES_MAX, NICKNAME_BYTES_MAX, PEERS_MAX,
    VERSION_END, VERSION_STEP_MAX,
};
pub use merge::{Foreign, Merged};
pub(crate) use resolve::resolve;
pub use table::{Changes, Topology};
pub use update::{Connection, Peer, decode_update, encode_update, encode_update_with};
