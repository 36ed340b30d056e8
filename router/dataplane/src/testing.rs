//! A device and sockets in memory, and routers between which datagrams are carried by hand: the
//! threads' work without threads, kernel or root.

use std::collections::{BTreeSet, VecDeque};
use std::io::{self, IoSlice};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use kernel::sys::batch::{ReceiveBatch, SendBatch};
use proto::crypto::SessionKey;
use proto::native;
use proto::native::Cipher;
use proto::offload::vnet::{VNET_BYTES, VnetHeader};
use proto::routes::Routes;
use proto::sleeve::{LinkId, Tunnel, TunnelConfig};
use proto::switch::{Forwarding, MacTable, PeerSlots};
use proto::topology::{Address, Connection, Peer, Topology, encode_update};
use proto::types::{PeerName, PeerUid, Time};
use rustix::event::{EventfdFlags, eventfd};

use crate::context::Shared;
use crate::counters::{self, Counters};
use crate::guard::GuardRules;
use crate::ports::{Datagrams, Frames};
use crate::rx::Receive;
use crate::tx::Transmit;
use crate::udp::feature::Feature;
use crate::udp::way::Way;
use boundary::counters::{Count, DropReason, Totals};
use boundary::forwarding_event::{self, Events};
use boundary::snapshot::{Encap, Link, NativeLink, Session, Snapshot};

/// A device whose frames are put in and taken out by hand.
#[derive(Default)]
pub(crate) struct MemoryFrames {
    waiting: Mutex<VecDeque<Vec<u8>>>,
    written: Mutex<Vec<Vec<u8>>>,
    /// The error that reading fails with.
    pub(crate) read_error: Mutex<Option<i32>>,
    /// The error that writing fails with.
    pub(crate) write_error: Mutex<Option<i32>>,
}

fn check(error: &Mutex<Option<i32>>) -> io::Result<()> {
    match *error.lock().unwrap() {
        Some(code) => Err(io::Error::from_raw_os_error(code)),
        None => Ok(()),
    }
}

impl Frames for MemoryFrames {
    fn read(&self, into: &mut [u8]) -> io::Result<usize> {
        check(&self.read_error)?;
        let next = self.waiting.lock().unwrap().pop_front();
        let frame = next.ok_or(io::ErrorKind::WouldBlock)?;
        into[..frame.len()].copy_from_slice(&frame);
        Ok(frame.len())
    }

    fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<()> {
        check(&self.write_error)?;
        let frame = pieces.iter().flat_map(|piece| piece.iter().copied());
        self.written.lock().unwrap().push(frame.collect());
        Ok(())
    }

    fn wait(&self, _stop: BorrowedFd<'_>, _limit: Option<Duration>) {}
}

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Sent {
    pub(crate) way: Way,
    pub(crate) to: SocketAddrV4,
    pub(crate) bytes: Vec<u8>,
}

/// Sockets whose datagrams are put in and taken out by hand.
pub(crate) struct MemoryDatagrams {
    waiting: Mutex<VecDeque<(SocketAddrV4, Vec<u8>)>>,
    sent: Mutex<Vec<Sent>>,
    /// Number of datagrams that the send buffer still takes; then sending fails with `EAGAIN`.
    pub(crate) room: Mutex<usize>,
}

impl Datagrams for MemoryDatagrams {
    fn receive(&self, _queue: usize, batch: &mut ReceiveBatch) -> io::Result<usize> {
        batch.clear();
        let mut waiting = self.waiting.lock().unwrap();
        let mut count = 0;
        while let Some((from, bytes)) = waiting.front()
            && batch.place(*from, bytes)
        {
            waiting.pop_front();
            count += 1;
        }
        match count {
            0 => Err(io::ErrorKind::WouldBlock.into()),
            count => Ok(count),
        }
    }

    fn send(
        &self,
        (way, _queue): (Way, usize),
        batch: &mut SendBatch,
        buffer: &[u8],
        from: usize,
    ) -> io::Result<usize> {
        for (taken, message) in batch.messages()[from..].iter().enumerate() {
            let bytes = &buffer[message.start..message.start + message.len];
            let each = match message.segment {
                0 => bytes.len(),
                segment => usize::from(segment),
            };
            for datagram in bytes.chunks(each) {
                match self.send_one(way, message.to, datagram) {
                    Err(error) if taken == 0 => return Err(error),
                    Err(_) => return Ok(taken),
                    Ok(()) => {}
                }
            }
        }
        Ok(batch.messages().len() - from)
    }

    fn send_one(&self, way: Way, to: SocketAddrV4, datagram: &[u8]) -> io::Result<()> {
        let mut room = self.room.lock().unwrap();
        *room = room
            .checked_sub(1)
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EAGAIN))?;
        let bytes = datagram.to_vec();
        self.sent.lock().unwrap().push(Sent { way, to, bytes });
        Ok(())
    }

    fn path_mtu(&self, _to: SocketAddrV4) -> io::Result<u32> {
        Ok(1500)
    }

    fn wait(&self, _queue: usize, _stop: BorrowedFd<'_>, _limit: Option<Duration>) {}

    fn cuts(&self) -> bool {
        true
    }

    fn stop_cutting(&self, _error: &io::Error) {}

    fn joins(&self) -> bool {
        false
    }
}

/// Which overlay joins routers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlay {
    Sleeve,
    SealedSleeve,
    Native,
}

impl Overlay {
    pub(crate) const ALL: [Overlay; 3] = [Overlay::Sleeve, Overlay::SealedSleeve, Overlay::Native];
}

/// A router with its device and sockets in memory.
pub(crate) struct Router {
    pub(crate) tap: Arc<MemoryFrames>,
    pub(crate) sockets: Arc<MemoryDatagrams>,
    pub(crate) events: Events,
    pub(crate) snapshot: Arc<Snapshot>,
    pub(crate) shared: Arc<Shared>,
    tx: Transmit<MemoryFrames, MemoryDatagrams>,
    rx: Receive<MemoryFrames, MemoryDatagrams>,
}

/// Routers of which some are neighbours, all at `address`.
pub(crate) struct Routers(pub(crate) Vec<Router>);

pub(crate) const PATH_MTU: usize = 1500;
/// The MTU that all containers are sure to accept.
pub(crate) const CONTAINER_MTU: usize = 1376;

pub(crate) fn name(number: usize) -> PeerName {
    PeerName::from_bytes([0x7a, 0, 0, 0, 0, number as u8 + 1])
}

pub(crate) fn address(number: usize) -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(192, 168, 0, number as u8 + 1), 6783)
}

impl Routers {
    pub(crate) fn new(count: usize, edges: &[(usize, usize)], overlay: Overlay) -> Routers {
        Routers::with_rules(count, edges, overlay, GuardRules::default())
    }

    pub(crate) fn with_rules(
        count: usize,
        edges: &[(usize, usize)],
        overlay: Overlay,
        rules: GuardRules,
    ) -> Routers {
        let router = |number| Router::new(snapshot(number, count, edges, overlay), rules);
        Routers((0..count).map(router).collect())
    }

    /// Reads `frame`, which is complete, from the device of a router and carries datagrams between
    /// routers until none is left. Returns how many were carried.
    pub(crate) fn capture(&mut self, number: usize, frame: &[u8]) -> usize {
        self.0[number].capture(VnetHeader::PLAIN, frame);
        self.settle()
    }

    /// Carries datagrams between routers until none is left, or for a while.
    pub(crate) fn settle(&mut self) -> usize {
        let mut carried = 0;
        while carried < 1000 {
            let mut moved = Vec::new();
            for (number, router) in self.0.iter().enumerate() {
                let sent = std::mem::take(&mut *router.sockets.sent.lock().unwrap());
                moved.extend(sent.into_iter().map(|sent| (address(number), sent)));
            }
            if moved.is_empty() {
                break;
            }
            carried += moved.len();
            for (number, router) in self.0.iter_mut().enumerate() {
                let to_it = moved.iter().filter(|(_, sent)| sent.to == address(number));
                router.receive(to_it.map(|(from, sent)| (*from, sent.bytes.clone())));
            }
        }
        carried
    }

    /// Whether the frames that came in and went out of every router agree.
    pub(crate) fn assert_balanced(&self) {
        for (number, router) in self.0.iter().enumerate() {
            let (came, went) = router.totals().balance();
            assert_eq!(came, went, "router {number}: {:?}", router.totals());
        }
    }
}

impl Router {
    fn new(snapshot: Snapshot, rules: GuardRules) -> Router {
        let (events, inbox) = forwarding_event::channel();
        let snapshot = Arc::new(snapshot);
        let shared = Arc::new(Shared {
            epoch: Instant::now(),
            snapshot: ArcSwap::from(Arc::clone(&snapshot)),
            macs: MacTable::new(1),
            counters: (0..2).map(|_| Counters::new()).collect(),
            events,
            join: Feature::on("joining"),
            join_udp: true,
            guard: rules,
            frame_bytes_max: CONTAINER_MTU + 14,
            stop: eventfd(0, EventfdFlags::CLOEXEC).unwrap(),
            stopping: AtomicBool::new(false),
        });
        let tap = Arc::new(MemoryFrames::default());
        let sockets = Arc::new(MemoryDatagrams {
            waiting: Mutex::default(),
            sent: Mutex::default(),
            room: Mutex::new(usize::MAX),
        });
        let ports = || (Arc::clone(&tap), Arc::clone(&sockets));
        Router {
            tx: Transmit::new(Arc::clone(&shared), ports(), 0),
            rx: Receive::new(Arc::clone(&shared), ports(), 0),
            events: inbox,
            snapshot,
            shared,
            tap,
            sockets,
        }
    }

    /// Changes the snapshot.
    pub(crate) fn publish(&mut self, change: impl FnOnce(Snapshot) -> Snapshot) {
        self.snapshot = Arc::new(change((*self.snapshot).clone()));
    }

    /// Reads one frame from the device and sends what becomes of it.
    pub(crate) fn capture(&mut self, header: VnetHeader, frame: &[u8]) {
        let frame = [&header.encode()[..], frame].concat();
        self.tap.waiting.lock().unwrap().push_back(frame);
        let _ = self.turn();
    }

    /// Carries what waits at the device.
    pub(crate) fn turn(&mut self) -> io::Result<bool> {
        self.tx.turn(&self.shared, &self.snapshot)
    }

    /// Receives datagrams at once.
    pub(crate) fn receive(&mut self, came: impl IntoIterator<Item = (SocketAddrV4, Vec<u8>)>) {
        self.sockets.waiting.lock().unwrap().extend(came);
        self.rx.receive_all(&self.snapshot);
    }

    /// Takes the datagrams that it sent.
    pub(crate) fn take_sent(&self) -> Vec<Sent> {
        std::mem::take(&mut *self.sockets.sent.lock().unwrap())
    }

    /// Takes the frames that it wrote to the device, with their headers.
    pub(crate) fn take_written(&self) -> Vec<(VnetHeader, Vec<u8>)> {
        let written = std::mem::take(&mut *self.tap.written.lock().unwrap());
        let cut = |frame: Vec<u8>| {
            let (header, frame) = frame.split_first_chunk::<VNET_BYTES>().unwrap();
            (VnetHeader::decode(header), frame.to_vec())
        };
        written.into_iter().map(cut).collect()
    }

    pub(crate) fn totals(&self) -> Totals {
        counters::sum(&self.shared.counters)
    }

    pub(crate) fn count(&self, count: Count) -> u64 {
        self.totals().get(count)
    }

    pub(crate) fn dropped(&self, reason: DropReason) -> u64 {
        self.totals().dropped(reason)
    }
}

fn snapshot(number: usize, count: usize, edges: &[(usize, usize)], overlay: Overlay) -> Snapshot {
    let neighbours = |here: usize| -> BTreeSet<usize> {
        let ends = edges.iter().flat_map(|&(a, b)| [(a, b), (b, a)]);
        ends.filter(|&(a, _)| a == here).map(|(_, b)| b).collect()
    };
    let routes = Arc::new(Routes::calculate(&topology(number, count, &neighbours)));
    let mut slots = PeerSlots::new(name(number));
    slots.update(Time::ZERO, routes.peers());
    let near = neighbours(number);
    let peers: Vec<PeerName> = near.iter().map(|&there| name(there)).collect();
    let forwarding = Forwarding::new(routes, &slots, &peers);
    let (mut links, mut tunnels, mut sessions) = (Vec::new(), Vec::new(), Vec::new());
    for there in near {
        let encap = if overlay == Overlay::Native {
            let (link, session) = native_end(number, there);
            sessions.push(session);
            Encap::Native(link)
        } else {
            let tunnel = sleeve_end(number, there, overlay == Overlay::SealedSleeve);
            tunnels.push(Arc::clone(&tunnel));
            Encap::Sleeve(tunnel)
        };
        links.push(Link {
            peer: name(there),
            encap,
            burst_packets: 0,
        });
    }
    Snapshot::new(forwarding, links, tunnels).with_sessions(sessions)
}

fn topology(
    number: usize,
    count: usize,
    neighbours: &impl Fn(usize) -> BTreeSet<usize>,
) -> Topology {
    let uid = |number: usize| PeerUid(number as u64 + 1);
    let connection = |there: &usize| Connection {
        remote: name(*there),
        address: Address::V4(address(*there)),
        outbound: true,
        established: true,
    };
    let peer = |other: usize| Peer {
        name: name(other),
        nickname: Box::default(),
        uid: uid(other),
        version: 1,
        short_id: None,
        connections: neighbours(other).iter().map(connection).collect(),
    };
    let others = (0..count).filter(|&other| other != number).map(peer);
    let others: Vec<Peer> = others.collect();
    let rng = fastrand::Rng::with_seed(number as u64);
    let mut topology = Topology::new(name(number), "", uid(number), None, rng);
    topology.merge(&encode_update(&others)).unwrap();
    for there in neighbours(number) {
        topology.add_connection(name(there), address(there).into(), true);
        topology.establish_connection(name(there));
    }
    topology
}

pub(crate) fn sleeve_end(here: usize, there: usize, sealed: bool) -> Arc<Tunnel> {
    let tunnel = Tunnel::new(TunnelConfig {
        id: LinkId(there as u64),
        us: name(here),
        peer: name(there),
        key: sealed.then(|| SessionKey::from_bytes([7; 32])),
        dialled: here < there,
        remote: Some(address(there)),
    });
    tunnel.set_limits(PATH_MTU - tunnel.overhead(), PATH_MTU - 28);
    Arc::new(tunnel)
}

fn native_end(here: usize, there: usize) -> (NativeLink, Session) {
    let id = LinkId(there as u64);
    let key = |from: usize, to: usize| {
        let mut key = [5; 32];
        key[..2].copy_from_slice(&[from as u8, to as u8]);
        key
    };
    let cipher = Cipher::ChaCha20Poly1305;
    let session = |sender: usize| 0x100 + sender as u32;
    let sending = native::Sending::from_bytes(cipher, session(here), &key(here, there));
    let peer = name(there);
    let receiving =
        native::Receiving::from_bytes((id, peer), cipher, session(there), &key(there, here));
    let tunnel = Arc::new(native::Tunnel::new(
        id,
        name(here),
        peer,
        Some(address(there)),
    ));
    tunnel.set_max_payload(PATH_MTU - 28);
    let link = NativeLink {
        tunnel: Arc::clone(&tunnel),
        key: Arc::new(sending.unwrap()),
    };
    let key = Arc::new(receiving.unwrap());
    (link, Session { key, tunnel })
}
