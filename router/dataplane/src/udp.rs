//! The UDP sockets of the overlays, all on the one port of the mesh.
//!
//! Whether a datagram may be fragmented is a property of the socket that sends it, so there are three
//! kinds (`Way`). The kernel spreads what arrives over all sockets of a port, so a small program
//! steers it to the receiving ones only: all sleeve packets of one sender to the same one, since
//! that thread alone knows which of them were seen before, and native datagrams by their streams,
//! so that their order is kept.

pub mod feature;
pub mod sender;
pub mod sockets;
pub(crate) mod steering;
pub mod way;
