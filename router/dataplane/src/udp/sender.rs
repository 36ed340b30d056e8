//! Datagrams of one buffer, sent in as few system calls as the kernel allows.

use std::io;
use std::net::SocketAddrV4;

use crate::ports::Datagrams;
use crate::udp::way::Way;
use kernel::sys::batch::{Outgoing, SEGMENTS_MAX, SendBatch};

/// The largest UDP payload over IPv4, in bytes; also the limit of what is cut in one send.
pub const DATAGRAM_BYTES_MAX: usize = 65507;

/// Messages per system call.
const BATCH: usize = 128;

/// A datagram that the kernel refused.
#[derive(Debug)]
pub struct Failure {
    /// The way it was to go.
    pub way: Way,
    /// Its destination.
    pub to: SocketAddrV4,
    /// Its first byte in the buffer.
    pub start: usize,
    /// Its size in bytes.
    pub len: usize,
    /// The kernel's error. `EMSGSIZE` on [`Way::Df`] means that the datagram exceeds the known path
    /// MTU.
    pub error: io::Error,
}

/// Collects the datagrams of one data thread and sends them. The buffer that they lie in belongs to
/// the caller and is the same from the first [`push`](Sender::push) to [`flush`](Sender::flush).
pub struct Sender {
    pub(super) batches: [SendBatch; Way::ALL.len()],
    singles: SendBatch,
}

impl Default for Sender {
    fn default() -> Sender {
        Sender::new()
    }
}

impl Sender {
    /// Creates a sender with nothing to send.
    pub fn new() -> Sender {
        Sender {
            batches: Way::ALL.map(|_| SendBatch::new(BATCH)),
            singles: SendBatch::new(SEGMENTS_MAX),
        }
    }

    /// Returns true if a datagram may not find room, so that it is time to flush.
    pub fn is_full(&self) -> bool {
        self.batches.iter().any(SendBatch::is_full)
    }

    /// Returns true if there is nothing to send.
    pub fn is_empty(&self) -> bool {
        self.batches.iter().all(|batch| batch.messages().is_empty())
    }

    /// Adds the datagram that lies at `start` in the buffer. `segmentable` tells that it may share
    /// a send with its neighbours, which the kernel allows only below the path MTU. Returns `false`
    /// if there is no room ([`is_full`](Sender::is_full)).
    #[inline]
    pub fn push(
        &mut self,
        way: impl Into<Way>,
        to: SocketAddrV4,
        (start, len): (usize, usize),
        segmentable: bool,
    ) -> bool {
        let batch = &mut self.batches[way.into() as usize];
        if segmentable
            && let Some(last) = batch.last_mut()
            && extend(last, to, start, len)
        {
            return true;
        }
        let segment = 0;
        batch.push(Outgoing {
            to,
            start,
            len,
            segment,
        })
    }

    /// Sends everything, on the sockets of `queue`. What the kernel does not take is reported, one
    /// datagram at a time, and not sent again.
    pub fn flush<D: Datagrams>(
        &mut self,
        sockets: &D,
        queue: usize,
        buffer: &[u8],
        mut report: impl FnMut(Failure),
    ) {
        for (way, batch) in Way::ALL.into_iter().zip(&mut self.batches) {
            let mut from = 0;
            while let Some(&message) = batch.messages().get(from) {
                let error = match sockets.send((way, queue), batch, buffer, from) {
                    Ok(sent) => {
                        from += sent.max(1);
                        continue;
                    }
                    Err(error) => error,
                };
                if error.kind() == io::ErrorKind::Interrupted {
                    continue;
                }
                from += 1;
                if message.segment == 0 {
                    report(failure(way, message, error));
                } else {
                    // Whatever the kernel has against the run as a whole, its datagrams get their
                    // chance one by one.
                    let run = Run {
                        way,
                        message,
                        error,
                    };
                    send_run(
                        &mut self.singles,
                        (sockets, queue),
                        buffer,
                        run,
                        &mut report,
                    );
                }
            }
            batch.clear();
        }
    }
}

/// Lengthens `last` by a datagram if the kernel can cut the two apart again.
#[inline]
fn extend(last: &mut Outgoing, to: SocketAddrV4, start: usize, len: usize) -> bool {
    let segment = match last.segment {
        0 => last.len,
        segment => usize::from(segment),
    };
    let fits = last.to == to
        && last.start + last.len == start
        && len <= segment
        && len > 0
        && last.len.is_multiple_of(segment)
        && last.len / segment < SEGMENTS_MAX
        && last.len + len <= DATAGRAM_BYTES_MAX;
    let Ok(segment) = u16::try_from(segment) else {
        return false;
    };
    if fits {
        last.segment = segment;
        last.len += len;
    }
    fits
}

/// A run of datagrams that the kernel refused to cut.
struct Run {
    way: Way,
    message: Outgoing,
    error: io::Error,
}

fn send_run<D: Datagrams>(
    singles: &mut SendBatch,
    (sockets, queue): (&D, usize),
    buffer: &[u8],
    run: Run,
    report: &mut impl FnMut(Failure),
) {
    let Run {
        way,
        message,
        error,
    } = run;
    singles.clear();
    let end = message.start + message.len;
    for start in (message.start..end).step_by(usize::from(message.segment)) {
        singles.push(Outgoing {
            start,
            len: (end - start).min(usize::from(message.segment)),
            segment: 0,
            ..message
        });
    }
    let mut from = 0;
    let mut all_taken = true;
    while let Some(&single) = singles.messages().get(from) {
        match sockets.send((way, queue), singles, buffer, from) {
            Ok(sent) => from += sent.max(1),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                from += 1;
                all_taken = false;
                report(failure(way, single, error));
            }
        }
    }
    // A run that exceeds the path MTU is refused for that, and so are its datagrams. If those were
    // taken, cutting itself is what the kernel or the device cannot do.
    let refuses_cutting = matches!(
        error.raw_os_error(),
        Some(libc::EIO | libc::EINVAL | libc::EOPNOTSUPP)
    );
    if all_taken && refuses_cutting {
        sockets.stop_cutting(&error);
    }
}

fn failure(way: Way, message: Outgoing, error: io::Error) -> Failure {
    Failure {
        way,
        to: message.to,
        start: message.start,
        len: message.len,
        error,
    }
}
