//! The source of a measurement's bytes and packets.

use std::io::{self, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpStream, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use serde::Serialize;

use super::sink::{PACKETS, STREAM};
use super::{PORT, Stage};
use kernel::error::NetError;
use lab::pinger::{PingOptions, Pinger};

/// Maximum time for the other container to be reached.
const REACH_TIME: Duration = Duration::from_secs(10);
const PINGS: usize = 200;
const PING_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum time without progress before that is an error.
const STALL_MAX: Duration = Duration::from_secs(5);
/// Interval between checks whether anybody still wants to know.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Payload of the packets that are counted.
const PACKET_BYTES: usize = 64;
const BLOCK_BYTES: usize = 128 << 10;
const GIVEN_UP: &str = "nobody waits for the figures any more";
/// Streams at the same time, for the second figure.
const STREAMS: usize = 4;

/// The step of a measurement.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// The other router makes its container.
    Asking,
    /// Waiting for a first answer.
    Reaching,
    /// Round trips.
    RoundTrip,
    /// Bytes of one stream.
    OneStream,
    /// Bytes of several streams.
    Streams,
    /// Small packets.
    Packets,
}

/// The results of a measurement.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// The middle one of the round trips, and what only one of a hundred exceeds, in microseconds.
    pub round_trip_us: f64,
    /// See [`Figures::round_trip_us`].
    pub round_trip_p99_us: f64,
    /// Payload bits per second of one TCP stream.
    pub stream_bits_per_second: f64,
    /// Of four at once, together.
    pub four_streams_bits_per_second: f64,
    /// UDP packets of 64 bytes that arrived, per second.
    pub packets_per_second: f64,
    /// The part of them that did not arrive, 0 to 1.
    pub packet_loss: f64,
}

/// Progress of a measurement.
pub struct Course<'a> {
    /// For how long each figure is measured.
    pub time: Duration,
    /// Is told each step before it is taken.
    pub tell: &'a dyn Fn(Step),
    /// Whether nobody wants the figures any more.
    pub is_given_up: &'a (dyn Fn() -> bool + Sync),
}

/// Measures from a container to the sink at `to`.
pub fn measure(stage: &Stage, to: Ipv4Addr, course: &Course<'_>) -> Result<Figures, String> {
    let text = |error: NetError| error.to_string();
    let tell = course.tell;
    tell(Step::Reaching);
    let mut pinger = Pinger::new(&stage.namespace).map_err(text)?;
    let deadline = Instant::now() + REACH_TIME;
    while pinger
        .ping(to, PingOptions::default(), PING_TIMEOUT)
        .map_err(text)?
        .is_none()
    {
        if Instant::now() >= deadline || (course.is_given_up)() {
            return Err("the containers do not reach each other".into());
        }
    }
    tell(Step::RoundTrip);
    let mut round_trips = Vec::new();
    for _ in 0..PINGS {
        let ping = pinger.ping(to, PingOptions::default(), PING_TIMEOUT);
        round_trips.extend(ping.map_err(text)?);
        if (course.is_given_up)() {
            return Err(GIVEN_UP.into());
        }
    }
    round_trips.sort();
    let at = |part: usize| {
        let time = round_trips.get(round_trips.len() * part / 100).copied();
        time.unwrap_or_default().as_secs_f64() * 1e6
    };
    let failed = |error: io::Error| match is_silence(&error) {
        true => format!("nothing came through for {} seconds", STALL_MAX.as_secs()),
        false => error.to_string(),
    };
    tell(Step::OneStream);
    let one = streams(stage, to, 1, course).map_err(failed)?;
    tell(Step::Streams);
    let four = streams(stage, to, STREAMS, course).map_err(failed)?;
    tell(Step::Packets);
    let (packets_per_second, packet_loss) = packets(stage, to, course).map_err(failed)?;
    Ok(Figures {
        round_trip_us: at(50),
        round_trip_p99_us: at(99),
        stream_bits_per_second: one,
        four_streams_bits_per_second: four,
        packets_per_second,
        packet_loss,
    })
}

fn connect(stage: &Stage, to: Ipv4Addr, kind: u8) -> io::Result<TcpStream> {
    let target = SocketAddr::from((to, PORT));
    let connect = || TcpStream::connect_timeout(&target, STALL_MAX);
    let mut stream = stage.namespace.run(connect).map_err(other)??;
    stream.set_write_timeout(Some(POLL_INTERVAL))?;
    stream.set_read_timeout(Some(POLL_INTERVAL))?;
    // What was not sent is of no use to anybody, and would keep the namespace for minutes.
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(&[kind])?;
    Ok(stream)
}

/// Repeats something that waits for the other end, until it is done or makes no sense any more.
fn patiently<T>(course: &Course<'_>, mut what: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    let deadline = Instant::now() + STALL_MAX;
    loop {
        if (course.is_given_up)() {
            return Err(io::Error::other(GIVEN_UP));
        }
        match what() {
            Err(error) if is_silence(&error) && Instant::now() < deadline => {}
            done => return done,
        }
    }
}

fn is_silence(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}

fn read_exact(stream: &mut TcpStream, course: &Course<'_>, mut to: &mut [u8]) -> io::Result<()> {
    while !to.is_empty() {
        match patiently(course, || stream.read(to))? {
            0 => return Err(ErrorKind::UnexpectedEof.into()),
            length => to = &mut to[length..],
        }
    }
    Ok(())
}

/// Returns what the sink counted, and in what time.
fn read_count(stream: &mut TcpStream, course: &Course<'_>) -> io::Result<(u64, Duration)> {
    let (mut count, mut micros) = ([0; 8], [0; 8]);
    read_exact(stream, course, &mut count)?;
    read_exact(stream, course, &mut micros)?;
    let micros = u64::from_be_bytes(micros);
    Ok((u64::from_be_bytes(count), Duration::from_micros(micros)))
}

/// Bits per second of so many streams together.
fn streams(stage: &Stage, to: Ipv4Addr, count: usize, course: &Course<'_>) -> io::Result<f64> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(connect(stage, to, STREAM)?);
    }
    let deadline = Instant::now() + course.time;
    let is_given_up = course.is_given_up;
    let send = |mut stream: TcpStream| -> io::Result<(u64, Duration)> {
        let tell = &|_| {};
        let course = &Course {
            time: Duration::ZERO,
            tell,
            is_given_up,
        };
        let block = vec![0x5a; BLOCK_BYTES];
        while Instant::now() < deadline {
            patiently(course, || stream.write(&block))?;
        }
        stream.shutdown(Shutdown::Write)?;
        read_count(&mut stream, course)
    };
    let counted: Vec<io::Result<(u64, Duration)>> = thread::scope(|scope| {
        let running: Vec<_> = open
            .into_iter()
            .map(|stream| scope.spawn(move || send(stream)))
            .collect();
        let join = |thread: thread::ScopedJoinHandle<'_, _>| thread.join();
        let panicked = |_| Err(io::Error::other("a stream panicked"));
        running
            .into_iter()
            .map(|thread| join(thread).unwrap_or_else(panicked))
            .collect()
    });
    let (mut bytes, mut longest) = (0, Duration::ZERO);
    for counted in counted {
        let (count, took) = counted?;
        bytes += count;
        longest = longest.max(took);
    }
    Ok(rate(bytes as f64 * 8.0, longest))
}

/// Small packets that arrived per second, and the part that did not.
fn packets(stage: &Stage, to: Ipv4Addr, course: &Course<'_>) -> io::Result<(f64, f64)> {
    let mut control = connect(stage, to, PACKETS)?;
    let mut port = [0; 2];
    read_exact(&mut control, course, &mut port)?;
    let target = SocketAddr::from((to, u16::from_be_bytes(port)));
    let open = || -> io::Result<UdpSocket> {
        let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(target)?;
        Ok(socket)
    };
    let socket = stage.namespace.run(open).map_err(other)??;
    let payload = [0x5a; PACKET_BYTES];
    let deadline = Instant::now() + course.time;
    let mut sent = 0_u64;
    while Instant::now() < deadline && !(course.is_given_up)() {
        // A full queue is what shows how fast the way is.
        sent += u64::from(socket.send(&payload).is_ok());
    }
    control.write_all(b"E")?;
    let (arrived, took) = read_count(&mut control, course)?;
    let loss = 1.0 - arrived as f64 / sent.max(1) as f64;
    Ok((rate(arrived as f64, took), loss.max(0.0)))
}

fn rate(count: f64, time: Duration) -> f64 {
    match time.as_secs_f64() {
        0.0 => 0.0,
        seconds => (count / seconds).round(),
    }
}

fn other(error: NetError) -> io::Error {
    io::Error::other(error.to_string())
}
