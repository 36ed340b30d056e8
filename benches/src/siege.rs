//! Garbage that a stranger throws at a router while it works.

use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use kernel::netns::Namespace;
use kernel::sys::packet::PacketSocket;
use testbed::rig::TrialError;

/// How many datagrams are sent each second.
pub const PER_SECOND: u64 = 100_000;
const PORT: u16 = 6783;
/// How many are sent between looks at the clock.
const BURST: u64 = 100;
/// Size in bytes of the Ethernet, IPv4 and UDP headers.
const HEADERS: usize = 42;
const NATIVE_HEADER: usize = 16;
const LISTEN_TIME: Duration = Duration::from_secs(5);

/// A stranger who sends garbage until this is dropped.
pub struct Siege {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Siege {
    /// From one namespace to the router at an address. One datagram of two is noise; the other
    /// looks like one that was seen on its way, so that only its tag tells that it is none.
    pub fn begin(from: &Namespace, to: Ipv4Addr, seen: [u8; NATIVE_HEADER]) -> io::Result<Siege> {
        let socket = from
            .run(|| UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0)))
            .map_err(io::Error::other)??;
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = Arc::clone(&stopping);
        let thread = std::thread::spawn(move || attack(&socket, to, seen, &stop));
        Ok(Siege {
            stopping,
            thread: Some(thread),
        })
    }

    /// Ends it; returns how many datagrams were sent.
    pub fn end(mut self) -> u64 {
        self.stop()
    }

    fn stop(&mut self) -> u64 {
        self.stopping.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        thread.and_then(|t| t.join().ok()).unwrap_or_default()
    }
}

impl Drop for Siege {
    fn drop(&mut self) {
        self.stop();
    }
}

fn attack(socket: &UdpSocket, to: Ipv4Addr, seen: [u8; NATIVE_HEADER], stop: &AtomicBool) -> u64 {
    let mut random = fastrand::Rng::with_seed(13);
    let mut noise = [0; 100];
    let mut forged = [0; 1000];
    random.fill(&mut forged);
    forged[..NATIVE_HEADER].copy_from_slice(&seen);
    let start = Instant::now();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        for _ in 0..BURST / 2 {
            random.fill(&mut noise);
            // Far ahead, so that it is no repetition either.
            let counter = random.u32(1 << 30..);
            forged[12..NATIVE_HEADER].copy_from_slice(&counter.to_be_bytes());
            // A full queue of the stranger is none of ours.
            let _ = socket.send_to(&noise, (to, PORT));
            let _ = socket.send_to(&forged, (to, PORT));
        }
        sent += BURST;
        let due = Duration::from_micros(sent * 1_000_000 / PER_SECOND);
        std::thread::sleep(due.saturating_sub(start.elapsed()));
    }
    sent
}

/// Returns the first bytes of a native datagram on its way to the router of a namespace.
pub fn overhear(at: &Namespace, to: Ipv4Addr) -> Result<[u8; NATIVE_HEADER], TrialError> {
    let index = at.netlink()?.link_named("eth0")?.index;
    let socket = at.run(|| PacketSocket::open(index.0, true))??;
    let mut buffer = vec![0; 1 << 16];
    let deadline = Instant::now() + LISTEN_TIME;
    while Instant::now() < deadline {
        let Ok(length) = socket.receive(&mut buffer, Duration::from_millis(50)) else {
            continue;
        };
        let frame = &buffer[..length];
        if let Some(header) = frame.get(HEADERS..HEADERS + NATIVE_HEADER)
            && frame[30..34] == to.octets()
            && frame[36..38] == PORT.to_be_bytes()
            && header[..6] == [0; 6]
            && header[6] != 0
        {
            return Ok(header.try_into()?);
        }
    }
    Err("no native datagram passes".into())
}
