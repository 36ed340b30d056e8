//! The port between control and the TCP connections of the mesh.

use std::net::SocketAddr;

use bytes::Bytes;
use proto::connector::Target;
use proto::types::ConnId;

/// Moves bytes between control and other routers.
pub trait Connections: Send {
    /// Dials in the background. Ends in [`ConnectionEvent::Dialled`] or
    /// [`ConnectionEvent::DialFailed`].
    fn dial(&mut self, conn: ConnId, to: SocketAddr);

    /// Starts moving the bytes of a stream, which is called `conn` from now on.
    fn start(&mut self, stream: StreamId, conn: ConnId);

    /// Closes a stream that was not started.
    fn refuse(&mut self, stream: StreamId);

    /// Sends bytes. Control bounds how many are under way.
    fn send(&mut self, conn: ConnId, bytes: Vec<u8>);

    /// Closes a connection: nothing more is read, and what was sent has a last chance to leave.
    fn close(&mut self, conn: ConnId);

    /// Finds the address of a peer given as `HOST[:PORT]`, in the background. Ends in
    /// [`ConnectionEvent::Resolved`].
    fn resolve(&mut self, peer: String);
}

/// A stream that has no connection yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct StreamId(pub u64);

/// Events of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConnectionEvent {
    /// Somebody connected.
    Accepted(StreamId, SocketAddr),
    /// Dialling succeeded.
    Dialled(ConnId, StreamId, SocketAddr),
    /// Dialling failed.
    DialFailed(ConnId, String),
    /// Bytes arrived.
    Received(ConnId, Bytes),
    /// This many bytes left.
    Sent(ConnId, usize),
    /// The other end closed (no error), or the connection broke.
    Closed(ConnId, Option<String>),
    /// A peer has this address, or could not be resolved for this reason.
    Resolved(String, Result<Target, String>),
}
