//! The sink of a measurement's bytes and packets, which counts them.
//!
//! ```text
//! connection   kind (1) then      'T': bytes up to the end         answer: bytes (8), microseconds (8)
//!                                 'U':    answer: a UDP port (2)
//!                                 any byte: packets were sent      answer: packets (8), microseconds (8)
//! ```
//!
//! Numbers are big-endian. Whoever can reach the container can connect; all that it gets is this.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;

use super::{PORT, Stage};

/// Connections at the same time. Further ones are closed.
const CONNECTIONS_MAX: usize = 16;
/// Interval between checks whether to stop.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Maximum time for which a connection may be idle.
const STALL_MAX: Duration = Duration::from_secs(10);
/// Time to wait for further packets after the last one.
const DRAIN_WAIT: Duration = Duration::from_millis(100);
/// Number of bytes of packets that may wait to be counted.
const SINK_BUFFER_BYTES: usize = 8 << 20;
const BLOCK_BYTES: usize = 128 << 10;

pub(super) const STREAM: u8 = b'T';
pub(super) const PACKETS: u8 = b'U';

/// A sink that waits for connections.
#[derive(Debug)]
pub struct Sink<'a> {
    stage: &'a Stage,
    listener: TcpListener,
}

impl<'a> Sink<'a> {
    /// Opens it.
    pub fn open(stage: &'a Stage) -> Result<Sink<'a>, String> {
        let listen = || TcpListener::bind((stage.address, PORT));
        let listener = stage.namespace.run(listen).map_err(|e| e.to_string())?;
        let listener = listener.map_err(|error| format!("listen for a measurement: {error}"))?;
        let set = listener.set_nonblocking(true);
        set.map_err(|error| format!("set up a listener: {error}"))?;
        Ok(Sink { stage, listener })
    }

    /// Counts until `stop` is set, or the time is over.
    pub fn serve(&self, stop: &AtomicBool, time_max: Duration) {
        let deadline = Instant::now() + time_max;
        let running = AtomicUsize::new(0);
        let running = &running;
        let is_over = &|| stop.load(Relaxed) || Instant::now() >= deadline;
        thread::scope(|scope| {
            while !is_over() {
                let Ok((stream, _)) = self.listener.accept() else {
                    thread::sleep(POLL_INTERVAL);
                    continue;
                };
                if running.load(Relaxed) >= CONNECTIONS_MAX {
                    continue;
                }
                running.fetch_add(1, Relaxed);
                scope.spawn(move || {
                    // Who asked sees that there is no answer.
                    if self.answer(&stream, is_over).is_err() || is_over() {
                        // What was not sent would keep the namespace for minutes.
                        let _ = sockopt::set_socket_linger(&stream, Some(Duration::ZERO));
                    }
                    running.fetch_sub(1, Relaxed);
                });
            }
        });
    }

    fn answer(&self, mut stream: &TcpStream, is_over: &dyn Fn() -> bool) -> io::Result<()> {
        stream.set_nonblocking(false)?;
        stream.set_read_timeout(Some(STALL_MAX))?;
        stream.set_write_timeout(Some(STALL_MAX))?;
        let mut kind = [0];
        stream.read_exact(&mut kind)?;
        let (count, time) = match kind[0] {
            STREAM => count_bytes(stream, is_over)?,
            PACKETS => self.count_packets(stream, is_over)?,
            _ => return Ok(()),
        };
        stream.write_all(&count.to_be_bytes())?;
        stream.write_all(&(time.as_micros() as u64).to_be_bytes())
    }

    fn count_packets(
        &self,
        mut stream: &TcpStream,
        is_over: &dyn Fn() -> bool,
    ) -> io::Result<(u64, Duration)> {
        let bind = || UdpSocket::bind((self.stage.address, 0));
        let bound = self.stage.namespace.run(bind);
        let socket = bound.map_err(|error| io::Error::other(error.to_string()))??;
        // Best effort: without privilege the system's limit applies.
        let _ = sockopt::set_socket_recv_buffer_size_force(&socket, SINK_BUFFER_BYTES);
        socket.set_read_timeout(Some(DRAIN_WAIT))?;
        stream.write_all(&socket.local_addr()?.port().to_be_bytes())?;
        stream.set_nonblocking(true)?;
        let mut buffer = [0; 2048];
        let (mut count, mut time, mut start) = (0, Duration::ZERO, None);
        while !is_over() {
            if socket.recv(&mut buffer).is_ok() {
                let start = *start.get_or_insert_with(Instant::now);
                count += 1;
                time = start.elapsed();
                continue;
            }
            // Nothing came for a while. Is that all?
            match stream.read(&mut buffer[..1]) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                _ => break,
            }
        }
        stream.set_nonblocking(false)?;
        Ok((count, time))
    }
}

fn count_bytes(mut stream: &TcpStream, is_over: &dyn Fn() -> bool) -> io::Result<(u64, Duration)> {
    let mut block = vec![0; BLOCK_BYTES];
    let (mut count, mut time) = (0, Duration::ZERO);
    let start = Instant::now();
    stream.set_read_timeout(Some(POLL_INTERVAL))?;
    while !is_over() {
        match stream.read(&mut block) {
            Err(error)
                if error.kind() == io::ErrorKind::WouldBlock
                    && start.elapsed() < STALL_MAX + time => {}
            Err(error) => return Err(error),
            Ok(0) => break,
            Ok(length) => {
                count += length as u64;
                time = start.elapsed();
            }
        }
    }
    Ok((count, time))
}
