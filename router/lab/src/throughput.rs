//! Streams of bytes and of packets between namespaces, and how fast they arrive.
//!
//! A generator and a sink are plain sockets, each opened in its namespace and driven by a thread
//! of this process. What is counted is what arrives.

use std::io::{self, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::time::ClockId;

use kernel::error::NetError;
use kernel::netns::Namespace;

/// Counts of what arrived.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Transfer {
    /// Payload bytes.
    pub bytes: u64,
    /// Packets; zero for TCP.
    pub packets: u64,
    /// Packets that were sent; zero for TCP.
    pub packets_sent: u64,
    /// From the first byte to the last.
    pub time: Duration,
    /// Processor time of the generators, in the kernel and outside.
    pub sender_cpu: Duration,
    /// Processor time of the sinks.
    pub receiver_cpu: Duration,
}

impl Transfer {
    /// Payload bits per second.
    pub fn bits_per_second(&self) -> f64 {
        rate(self.bytes * 8, self.time)
    }

    /// Packets per second.
    pub fn packets_per_second(&self) -> f64 {
        rate(self.packets, self.time)
    }

    /// Returns the part of the packets that did not arrive, 0 to 1.
    pub fn loss(&self) -> f64 {
        if self.packets_sent == 0 {
            return 0.0;
        }
        1.0 - self.packets as f64 / self.packets_sent as f64
    }

    fn add(&mut self, other: &Transfer) {
        self.bytes += other.bytes;
        self.packets += other.packets;
        self.packets_sent += other.packets_sent;
        self.time = self.time.max(other.time);
        self.sender_cpu += other.sender_cpu;
        self.receiver_cpu += other.receiver_cpu;
    }
}

/// Options for sending a stream of packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packets {
    /// Payload bytes of each packet.
    pub payload_bytes: usize,
    /// Packets per second; as many as possible if not given.
    pub per_second: Option<u64>,
}

/// Sends TCP streams from one namespace to an address of another for a while.
pub fn tcp(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    streams: usize,
    duration: Duration,
) -> Result<Transfer, NetError> {
    let listen = || TcpListener::bind((address, 0));
    let listener = to.run(listen)?.map_err(at("listen for TCP streams"))?;
    let target = listener
        .local_addr()
        .map_err(at("listen for TCP streams"))?;
    let mut pairs = Vec::new();
    for _ in 0..streams {
        let connect = || TcpStream::connect_timeout(&target, CONNECT_TIMEOUT);
        let out = from.run(connect)?.map_err(at("connect a TCP stream"))?;
        let (into, _) = listener.accept().map_err(at("accept a TCP stream"))?;
        let limit = Some(duration + STALL_MAX);
        into.set_read_timeout(limit)
            .map_err(at("set up a TCP stream"))?;
        out.set_write_timeout(limit)
            .map_err(at("set up a TCP stream"))?;
        pairs.push((out, into));
    }
    let mut total = Transfer::default();
    let results = thread::scope(|scope| {
        let deadline = Instant::now() + duration;
        let start = |(out, into): (TcpStream, TcpStream)| {
            let generator = scope.spawn(move || generate_stream(out, deadline));
            (generator, scope.spawn(move || sink_stream(into)))
        };
        let running: Vec<_> = pairs.into_iter().map(start).collect();
        let finish = |(generator, sink): (thread::ScopedJoinHandle<'_, _>, _)| {
            (joined(generator), joined::<io::Result<Transfer>>(sink))
        };
        running.into_iter().map(finish).collect::<Vec<_>>()
    });
    for (generated, sunk) in results {
        let mut transfer = sunk.map_err(at("receive a TCP stream"))?;
        transfer.sender_cpu = generated.map_err(at("send a TCP stream"))?;
        total.add(&transfer);
    }
    Ok(total)
}

/// Sends UDP packets from one namespace to an address of another for a while.
pub fn udp(
    from: &Namespace,
    to: &Namespace,
    address: IpAddr,
    packets: Packets,
    duration: Duration,
) -> Result<Transfer, NetError> {
    let sink = to
        .run(|| UdpSocket::bind((address, 0)))?
        .map_err(at("open a UDP socket"))?;
    // Best effort: without privilege the system's limit applies.
    let _ = sockopt::set_socket_recv_buffer_size_force(&sink, SINK_BUFFER_BYTES);
    let target = sink.local_addr().map_err(at("open a UDP socket"))?;
    let connect = || {
        let any: SocketAddr = match address {
            IpAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
            IpAddr::V6(_) => ([0; 16], 0).into(),
        };
        let socket = UdpSocket::bind(any)?;
        socket.connect(target)?;
        Ok(socket)
    };
    let generator = from.run(connect)?.map_err(at("open a UDP socket"))?;
    let sent_all = AtomicBool::new(false);
    let (generated, sunk) = thread::scope(|scope| {
        let sink = scope.spawn(|| sink_packets(&sink, &sent_all));
        let generated = generate_packets(&generator, packets, duration);
        sent_all.store(true, Ordering::Relaxed);
        (generated, joined(sink))
    });
    let mut transfer = sunk.map_err(at("receive UDP packets"))?;
    (transfer.packets_sent, transfer.sender_cpu) = generated.map_err(at("send UDP packets"))?;
    Ok(transfer)
}

/// Processor time that a process has used, in the kernel and outside.
pub fn process_cpu(pid: u32) -> Result<Duration, NetError> {
    let what = || format!("read the processor time of process {pid}");
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).map_err(at(what()))?;
    // The command stands in parentheses and may hold anything; user and system time are the 12th
    // and 13th field behind it.
    let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
    let mut times = fields.split_whitespace().skip(11).map(str::parse::<u64>);
    let (Some(Ok(user)), Some(Ok(system))) = (times.next(), times.next()) else {
        return Err(NetError::Malformed { what: what() });
    };
    Ok(Duration::from_millis((user + system) * MILLIS_PER_TICK))
}

fn generate_stream(mut stream: TcpStream, deadline: Instant) -> io::Result<Duration> {
    let block = vec![0x5a; BLOCK_BYTES];
    while Instant::now() < deadline {
        stream.write_all(&block)?;
    }
    stream.shutdown(std::net::Shutdown::Write)?;
    Ok(thread_cpu())
}

fn sink_stream(mut stream: TcpStream) -> io::Result<Transfer> {
    let mut block = vec![0; BLOCK_BYTES];
    let mut transfer = Transfer::default();
    let mut start = None;
    loop {
        let length = stream.read(&mut block)?;
        let start = *start.get_or_insert_with(Instant::now);
        if length == 0 {
            transfer.receiver_cpu = thread_cpu();
            return Ok(transfer);
        }
        transfer.bytes += length as u64;
        transfer.time = start.elapsed();
    }
}

fn generate_packets(
    socket: &UdpSocket,
    packets: Packets,
    duration: Duration,
) -> io::Result<(u64, Duration)> {
    let payload = vec![0x5a; packets.payload_bytes];
    let start = Instant::now();
    let cpu = thread_cpu();
    let mut sent = 0;
    loop {
        let elapsed = start.elapsed();
        if elapsed >= duration {
            return Ok((sent, thread_cpu() - cpu));
        }
        if let Some(rate) = packets.per_second {
            let due = (elapsed.as_secs_f64() * rate as f64) as u64;
            if sent > due {
                thread::sleep(PACING_PAUSE);
                continue;
            }
        }
        match socket.send(&payload) {
            Ok(_) => sent += 1,
            // The socket's buffer or the queue of the device is full.
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => thread::sleep(PACING_PAUSE),
            Err(e) if e.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error()) => {}
            // The answer to an earlier packet.
            Err(e) if e.kind() == io::ErrorKind::ConnectionRefused => {}
            Err(e) => return Err(e),
        }
    }
}

fn sink_packets(socket: &UdpSocket, sent_all: &AtomicBool) -> io::Result<Transfer> {
    let mut buffer = vec![0; BLOCK_BYTES];
    let mut transfer = Transfer::default();
    let mut start = None;
    socket.set_read_timeout(Some(DRAIN_WAIT))?;
    loop {
        match socket.recv(&mut buffer) {
            Ok(length) => {
                let start = *start.get_or_insert_with(Instant::now);
                transfer.bytes += length as u64;
                transfer.packets += 1;
                transfer.time = start.elapsed();
            }
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                if sent_all.load(Ordering::Relaxed) {
                    transfer.receiver_cpu = thread_cpu();
                    return Ok(transfer);
                }
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}

fn joined<T>(thread: thread::ScopedJoinHandle<'_, T>) -> T {
    match thread.join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

fn thread_cpu() -> Duration {
    let time = rustix::time::clock_gettime(ClockId::ThreadCPUTime);
    Duration::new(
        time.tv_sec.try_into().unwrap_or(0),
        time.tv_nsec.try_into().unwrap_or(0),
    )
}

fn at(what: impl Into<String>) -> impl FnOnce(io::Error) -> NetError {
    let what = what.into();
    move |error| NetError::io(what, &error)
}

fn rate(count: u64, time: Duration) -> f64 {
    if time.is_zero() {
        return 0.0;
    }
    count as f64 / time.as_secs_f64()
}

/// The kernel shows times in hundredths of a second (USER_HZ).
const MILLIS_PER_TICK: u64 = 10;
/// Bytes written or read by one system call, and of the largest packet.
const BLOCK_BYTES: usize = 128 * 1024;
/// Number of bytes of packets that may wait for the sink.
const SINK_BUFFER_BYTES: usize = 8 * 1024 * 1024;
/// Maximum time to establish a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum time for which a stream may stall, beyond its duration, before that is an error.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Time to wait for further packets after the last one.
const DRAIN_WAIT: Duration = Duration::from_millis(100);
/// Time for which a paced generator that is ahead sleeps.
const PACING_PAUSE: Duration = Duration::from_micros(50);
