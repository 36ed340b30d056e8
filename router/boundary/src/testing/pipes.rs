//! Connections between routers of one process: bytes in memory.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use proto::connector::{Target, split_target};
use proto::types::ConnId;

use crate::connections::{ConnectionEvent, Connections, StreamId};

/// The wires between all routers of a test.
#[derive(Clone, Debug, Default)]
pub struct Wires(Arc<Mutex<WireState>>);

#[derive(Debug, Default)]
struct WireState {
    /// What waits for each router, by its address.
    events: BTreeMap<SocketAddr, VecDeque<ConnectionEvent>>,
    /// The other end of each stream.
    ends: BTreeMap<StreamId, StreamId>,
    /// Owner of a stream, and the kind as which it was started.
    streams: BTreeMap<StreamId, (SocketAddr, Option<ConnId>)>,
    /// Bytes for streams that were not started yet.
    early: BTreeMap<StreamId, Vec<u8>>,
    last: u64,
    /// Dials fail while this is set.
    cut: bool,
}

/// The connections of one router.
#[derive(Clone, Debug)]
pub struct Pipes {
    wires: Wires,
    us: SocketAddr,
}

impl Wires {
    /// Returns the connections of a router that listens on `us`.
    pub fn of(&self, us: SocketAddr) -> Pipes {
        self.state().events.insert(us, VecDeque::new());
        Pipes {
            wires: self.clone(),
            us,
        }
    }

    /// Makes all further dials fail, or succeed again.
    pub fn set_cut(&self, cut: bool) {
        self.state().cut = cut;
    }

    /// Breaks all connections.
    pub fn break_all(&self) {
        let mut state = self.state();
        let streams: Vec<StreamId> = state.streams.keys().copied().collect();
        for stream in streams {
            state.end(stream, Some("connection reset".to_owned()));
        }
    }

    fn state(&self) -> MutexGuard<'_, WireState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl WireState {
    fn open(&mut self, owner: SocketAddr) -> StreamId {
        self.last += 1;
        let stream = StreamId(self.last);
        self.streams.insert(stream, (owner, None));
        stream
    }

    fn tell(&mut self, router: SocketAddr, event: ConnectionEvent) {
        if let Some(events) = self.events.get_mut(&router) {
            events.push_back(event);
        }
    }

    fn stream_of(&self, us: SocketAddr, conn: ConnId) -> Option<StreamId> {
        let mut streams = self.streams.iter();
        let ours = streams.find(|(_, owner)| **owner == (us, Some(conn)));
        ours.map(|(stream, _)| *stream)
    }

    fn arrive(&mut self, stream: StreamId, bytes: Vec<u8>) {
        match self.streams.get(&stream) {
            Some((owner, Some(conn))) => {
                let event = ConnectionEvent::Received(*conn, bytes.into());
                self.tell(*owner, event);
            }
            Some(_) => self.early.entry(stream).or_default().extend(bytes),
            None => {}
        }
    }

    /// Ends a stream, and tells its owner if that has started it.
    fn end(&mut self, stream: StreamId, error: Option<String>) {
        self.ends.remove(&stream);
        self.early.remove(&stream);
        if let Some((owner, Some(conn))) = self.streams.remove(&stream) {
            self.tell(owner, ConnectionEvent::Closed(conn, error));
        }
    }
}

impl Pipes {
    /// Returns what happened next on this router's connections.
    pub fn poll(&self) -> Option<ConnectionEvent> {
        self.wires.state().events.get_mut(&self.us)?.pop_front()
    }
}

impl Connections for Pipes {
    fn dial(&mut self, conn: ConnId, to: SocketAddr) {
        let mut state = self.wires.state();
        if state.cut || !state.events.contains_key(&to) {
            let error = format!("dial tcp4 {to}: connection refused");
            return state.tell(self.us, ConnectionEvent::DialFailed(conn, error));
        }
        let (ours, theirs) = (state.open(self.us), state.open(to));
        state.ends.insert(ours, theirs);
        state.ends.insert(theirs, ours);
        state.tell(to, ConnectionEvent::Accepted(theirs, self.us));
        state.tell(self.us, ConnectionEvent::Dialled(conn, ours, to));
    }

    fn start(&mut self, stream: StreamId, conn: ConnId) {
        let mut state = self.wires.state();
        if let Some((_, name)) = state.streams.get_mut(&stream) {
            *name = Some(conn);
        } else {
            return state.tell(self.us, ConnectionEvent::Closed(conn, None));
        }
        if let Some(early) = state.early.remove(&stream) {
            state.arrive(stream, early);
        }
    }

    fn refuse(&mut self, stream: StreamId) {
        let mut state = self.wires.state();
        if let Some(end) = state.ends.get(&stream).copied() {
            state.end(end, None);
        }
        state.end(stream, None);
    }

    fn send(&mut self, conn: ConnId, bytes: Vec<u8>) {
        let mut state = self.wires.state();
        let Some(stream) = state.stream_of(self.us, conn) else {
            return;
        };
        let count = bytes.len();
        if let Some(end) = state.ends.get(&stream).copied() {
            state.arrive(end, bytes);
        }
        state.tell(self.us, ConnectionEvent::Sent(conn, count));
    }

    fn close(&mut self, conn: ConnId) {
        let mut state = self.wires.state();
        let Some(stream) = state.stream_of(self.us, conn) else {
            return;
        };
        if let Some(end) = state.ends.get(&stream).copied() {
            state.end(end, None);
        }
        state.streams.remove(&stream);
        state.ends.remove(&stream);
    }

    fn resolve(&mut self, peer: String) {
        let result = match split_target(&peer) {
            Ok((host, port)) => host
                .parse::<IpAddr>()
                .map(|ip| Target {
                    text: peer.clone(),
                    ip,
                    port,
                })
                .map_err(|_| format!("lookup {host}: no such host")),
            Err(error) => Err(error.to_string()),
        };
        let mut state = self.wires.state();
        state.tell(self.us, ConnectionEvent::Resolved(peer, result));
    }
}
