//! The threads that carry frames.
//!
//! Each TAP queue has two threads that run every frame to completion: one takes frames from the
//! device and sends them to neighbours, the other takes packets from the socket, writes frames to
//! the device and relays. Neither allocates, locks or logs per frame. Control hands them
//! [`Snapshot`]s, which they pick up between batches, and hears `DataEvent`s.
//!
//! ```text
//! TAP queue --read--> decide --> pack, seal --> one send per batch          (tx thread)
//! socket --receive--> open, learn, decide --> join --> write to TAP queue   (rx thread)
//!                                        \--> pack, seal --> send           (relay)
//! ```

use crate::context::{FRAME_BYTES_MAX, Shared};
use crate::counters::{self, Counters};
use crate::guard::GuardRules;
use crate::{rx, tx};
use boundary::counters::Totals;
use boundary::forwarding::{Figures, Forwarding, ForwardingStatus, SendError};
use boundary::forwarding_event::{self, Events};
use boundary::snapshot::{NativeLink, Snapshot};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use arc_swap::ArcSwap;
use proto::ethernet::HEADER_BYTES as ETHERNET_BYTES;
use proto::native::Report;
use proto::native::tunnel::STREAM_REPORTS;
use proto::native::wire::{HEADER_BYTES, Kind, TAG_BYTES};
use proto::sleeve::{Channel, PacketBuilder, Special, Tunnel};
use proto::switch::{MacEntry, MacTable, PeerSlot};
use proto::types::Time;
use rustix::event::{EventfdFlags, eventfd};

use crate::tap::{Tap, TapStatus};
use crate::udp::feature::{Feature, FeatureState};
use crate::udp::sender::DATAGRAM_BYTES_MAX;
use crate::udp::sockets::{Sockets, UdpStatus};
use crate::udp::way::Way;

/// Size in bytes of the header of a frame in a packet.
const PACKET_SPACE: usize = proto::sleeve::wire::FRAME_HEADER_BYTES;

/// Configuration of the data plane.
#[derive(Clone, Debug)]
pub struct DataConfig {
    /// The start of the clock that all times count from.
    pub epoch: Instant,
    /// A random number that keys the MAC table.
    pub mac_key: u64,
    /// Whether received segments are joined into super-frames for the TAP device.
    pub join: bool,
    /// The MTU that containers of other hosts are sure to have, in bytes. What is larger is cut or
    /// refused by the rules of IP, whatever a link would carry. None if links alone decide.
    pub container_mtu: Option<u32>,
    /// Rules for frames from containers.
    pub guard: GuardRules,
}

/// Returns how many queues a machine of this many cores gets by default.
pub const fn default_queues(cores: usize) -> u16 {
    match cores {
        0..=3 => 1,
        4..=7 => 2,
        _ => 4,
    }
}

/// The running data plane. Dropping it stops the threads, as [`DataPlane::stop`] does.
#[derive(Debug)]
pub struct DataPlane {
    shared: Arc<Shared>,
    sockets: Arc<Sockets>,
    threads: Vec<JoinHandle<()>>,
    tap: TapStatus,
}

/// Features in force, for status pages.
#[derive(Clone, Debug)]
pub struct DataStatus {
    /// The TAP device.
    pub tap: TapStatus,
    /// The sockets.
    pub udp: UdpStatus,
    /// Joining of received segments.
    pub join: FeatureState,
    /// Number of pairs of threads.
    pub queues: usize,
}

impl DataPlane {
    /// Starts the threads: one for each queue of the device and one for each receiving socket.
    /// They work in the network namespace of the caller.
    pub fn start(
        config: &DataConfig,
        tap: Tap,
        sockets: Sockets,
        snapshot: Snapshot,
    ) -> io::Result<(DataPlane, Events)> {
        let (events, receiver) = forwarding_event::channel();
        let tap_status = tap.status();
        let queues: Vec<_> = tap.into_queues().into_iter().map(Arc::new).collect();
        let pairs = queues.len().max(sockets.queues());
        let stop = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let shared = Arc::new(Shared {
            epoch: config.epoch,
            snapshot: ArcSwap::from_pointee(snapshot),
            macs: MacTable::new(config.mac_key),
            counters: (0..2 * pairs).map(|_| Counters::new()).collect(),
            events,
            join: Feature::probe("joining of received segments", config.join, || Ok(())),
            frame_bytes_max: config.container_mtu.map_or(usize::MAX, |mtu| {
                ETHERNET_BYTES + usize::try_from(mtu).unwrap_or(FRAME_BYTES_MAX)
            }),
            join_udp: tap_status.offload.udp(),
            guard: config.guard,
            stop,
            stopping: AtomicBool::new(false),
        });
        let mut plane = DataPlane {
            shared,
            sockets: Arc::new(sockets),
            threads: Vec::new(),
            tap: tap_status,
        };
        for (index, queue) in queues.iter().enumerate() {
            let (shared, queue) = (Arc::clone(&plane.shared), Arc::clone(queue));
            let sockets = Arc::clone(&plane.sockets);
            let tx = tx::Transmit::new(shared, (queue, sockets), index);
            plane.spawn(format!("weft-tx{index}"), move || tx.run())?;
        }
        // Every socket is read, also where the device has fewer queues.
        let shared_out = (0..plane.sockets.queues()).zip(queues.iter().cycle());
        for (index, queue) in shared_out {
            let (shared, queue) = (Arc::clone(&plane.shared), Arc::clone(queue));
            let sockets = Arc::clone(&plane.sockets);
            let rx = rx::Receive::new(shared, (queue, sockets), index);
            plane.spawn(format!("weft-rx{index}"), move || rx.run())?;
        }
        Ok((plane, receiver))
    }

    /// Makes the threads use another snapshot from their next batch on.
    pub fn publish(&self, snapshot: Snapshot) {
        self.shared.snapshot.store(Arc::new(snapshot));
    }

    /// Returns the table of MAC addresses: to be swept every minute, and rid of peers that are
    /// gone.
    pub fn macs(&self) -> &MacTable {
        &self.shared.macs
    }

    /// Sends a special frame at once, from the calling thread.
    pub fn send_special(&self, tunnel: &Tunnel, special: Special) -> Result<(), SendError> {
        let to = tunnel.remote().ok_or(SendError::NoAddress)?;
        let channel = special.channel();
        let mut builder = PacketBuilder::for_special(tunnel, channel);
        let mut packet = vec![0; builder.len() + PACKET_SPACE + special.frame_len()];
        let space = builder.append(&mut packet, tunnel.us(), tunnel.peer(), special.frame_len());
        special.write(space.ok_or(SendError::DoesNotFit)?);
        let len = builder.finish(tunnel, &mut packet);
        let sockets = &self.sockets;
        match sockets.send_one(channel, to, &packet[..len]) {
            Err(error)
                if error.raw_os_error() == Some(libc::EMSGSIZE) && channel == Channel::Df =>
            {
                Err(SendError::TooBig(sockets.path_mtu(to)?))
            }
            result => Ok(result?),
        }
    }

    /// Seals a report in a datagram of `bytes` bytes and sends it at once, from the calling thread.
    pub fn send_report(
        &self,
        link: &NativeLink,
        report: &Report,
        bytes: usize,
    ) -> Result<(), SendError> {
        let NativeLink { tunnel, key } = link;
        let to = tunnel.remote().ok_or(SendError::NoAddress)?;
        let mut datagram = vec![0; bytes.min(DATAGRAM_BYTES_MAX)];
        let body = datagram.get_mut(HEADER_BYTES..bytes.saturating_sub(TAG_BYTES));
        let written = body.is_some_and(|body| report.write(body));
        let counter = key.draw(STREAM_REPORTS, 1);
        let (true, Some(counter)) = (written, counter) else {
            return Err(SendError::DoesNotFit);
        };
        if !key.seal(Kind::Report, STREAM_REPORTS, counter, &mut datagram) {
            return Err(SendError::DoesNotFit);
        }
        let sockets = &self.sockets;
        match sockets.send_one(Way::Native, to, &datagram) {
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                Err(SendError::TooBig(sockets.path_mtu(to)?))
            }
            result => Ok(result?),
        }
    }

    /// Returns the counters of all threads, summed.
    pub fn counters(&self) -> Totals {
        counters::sum(&self.shared.counters)
    }

    /// Returns what is in force.
    pub fn status(&self) -> DataStatus {
        DataStatus {
            tap: self.tap,
            udp: self.sockets.status(),
            join: self.shared.join.state(),
            queues: self.tap.queues,
        }
    }

    /// Returns what pages show of it.
    pub fn figures(&self) -> Arc<dyn Figures> {
        Arc::new(SharedFigures {
            shared: Arc::clone(&self.shared),
            sockets: Arc::clone(&self.sockets),
            tap: self.tap,
        })
    }

    /// Stops the threads and waits for them. Frames that were read are carried to their end; the
    /// device stays.
    pub fn stop(mut self) {
        self.halt();
    }

    fn spawn(&mut self, name: String, run: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.threads
            .push(std::thread::Builder::new().name(name).spawn(run)?);
        Ok(())
    }

    fn halt(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        // The counter stays above zero, so every thread sees it. It cannot be full.
        let _ = rustix::io::write(&self.shared.stop, &1_u64.to_ne_bytes());
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so.
            let _ = thread.join();
        }
    }
}

impl Forwarding for DataPlane {
    fn publish(&mut self, snapshot: Snapshot) {
        DataPlane::publish(self, snapshot);
    }

    fn send_special(&mut self, tunnel: &Tunnel, special: Special) -> Result<(), SendError> {
        DataPlane::send_special(self, tunnel, special)
    }

    fn send_report(
        &mut self,
        link: &NativeLink,
        report: &Report,
        bytes: usize,
    ) -> Result<(), SendError> {
        DataPlane::send_report(self, link, report, bytes)
    }

    fn forget_peer(&mut self, peer: PeerSlot) {
        self.macs().forget_peer(peer);
    }

    fn expire(&mut self, now: Time) {
        self.macs().expire(now);
    }
}

/// State shared by the data threads, for readers.
#[derive(Debug)]
struct SharedFigures {
    shared: Arc<Shared>,
    sockets: Arc<Sockets>,
    tap: TapStatus,
}

impl Figures for SharedFigures {
    fn counters(&self) -> Totals {
        counters::sum(&self.shared.counters)
    }

    fn status(&self) -> ForwardingStatus {
        let udp = self.sockets.status();
        ForwardingStatus {
            queues: self.tap.queues,
            tap_offload: self.tap.offload.to_string(),
            udp_gso: udp.gso.to_string(),
            udp_gro: udp.gro.to_string(),
            join: self.shared.join.state().to_string(),
            receive_buffer: udp.receive_buffer,
            kernel_drops: udp.kernel_drops,
        }
    }

    fn macs(&self) -> Vec<MacEntry> {
        self.shared.macs.entries().collect()
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.halt();
    }
}
