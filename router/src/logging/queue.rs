//! Lines on their way to standard error: through a bounded queue to a thread of their own, so that
//! nobody who logs waits for whoever reads. Lines for which there is no room are dropped and
//! counted.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::Duration;

use report::metrics::{Kind, Metric, MetricSource};
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that wait to be written. Further lines are dropped.
const QUEUED_BYTES_MAX: usize = 1 << 20;
/// Bytes counted for a line beside its text, so that empty lines are bounded too.
const LINE_OVERHEAD: usize = 64;
/// Maximum time for which the end of the program waits for lines to leave.
const FLUSH_TIME_MAX: Duration = Duration::from_millis(500);

/// Where lines go in.
#[derive(Clone, Debug)]
pub struct LogQueue {
    lines: Sender<Vec<u8>>,
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    queued: AtomicUsize,
    dropped: AtomicU64,
    /// Told when a line was written.
    written: (Mutex<()>, Condvar),
}

impl LogQueue {
    /// Starts the thread that writes to `out`.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<LogQueue> {
        let (lines, inbox) = channel();
        let shared = Arc::<Shared>::default();
        let written = Arc::clone(&shared);
        std::thread::Builder::new()
            .name("weft-log".to_owned())
            .spawn(move || write_lines(out, &inbox, &written))?;
        Ok(LogQueue { lines, shared })
    }

    /// Takes a line. Never waits.
    pub fn push(&self, line: Vec<u8>) {
        let bytes = line.len() + LINE_OVERHEAD;
        let queued = self.shared.queued.fetch_add(bytes, Relaxed);
        if queued + bytes > QUEUED_BYTES_MAX || self.lines.send(line).is_err() {
            self.shared.queued.fetch_sub(bytes, Relaxed);
            self.shared.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Number of dropped lines.
    pub fn dropped(&self) -> u64 {
        self.shared.dropped.load(Relaxed)
    }

    /// Waits until all lines are written, if somebody reads them.
    pub fn flush(&self) {
        let (lock, written) = &self.shared.written;
        let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        let waits = |_: &mut ()| self.shared.queued.load(Relaxed) > 0;
        // Without readers the lines are lost with the process.
        drop(written.wait_timeout_while(guard, FLUSH_TIME_MAX, waits));
    }
}

impl MetricSource for LogQueue {
    fn metrics(&self) -> Vec<Metric> {
        let dropped = Metric::new(
            "weft_log_lines_dropped_total",
            Kind::Counter,
            "Lines of the log dropped since nobody read them.",
        );
        vec![dropped.value(self.dropped() as f64)]
    }
}

fn write_lines(mut out: impl Write, inbox: &Receiver<Vec<u8>>, shared: &Shared) {
    let mut told = 0;
    while let Ok(line) = inbox.recv() {
        // Whoever closed standard error wants no lines.
        let _ = out.write_all(&line);
        shared.queued.fetch_sub(line.len() + LINE_OVERHEAD, Relaxed);
        let dropped = shared.dropped.load(Relaxed);
        if dropped > told {
            let count = dropped - told;
            let _ = writeln!(
                out,
                "({count} lines of the log were dropped: nobody read them)"
            );
            told = dropped;
        }
        let (lock, written) = &shared.written;
        let _guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
        written.notify_all();
    }
}

impl<'a> MakeWriter<'a> for LogQueue {
    type Writer = LineWriter<'a>;

    fn make_writer(&'a self) -> LineWriter<'a> {
        LineWriter {
            queue: self,
            line: Vec::new(),
        }
    }
}

/// Collects one line.
#[derive(Debug)]
pub struct LineWriter<'a> {
    queue: &'a LogQueue,
    line: Vec<u8>,
}

impl Write for LineWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.line.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for LineWriter<'_> {
    fn drop(&mut self) {
        if !self.line.is_empty() {
            self.queue.push(std::mem::take(&mut self.line));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::time::Instant;

    use super::*;

    #[test]
    fn nobody_waits_for_whoever_reads_the_log() {
        let (mut reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::start(writer).unwrap();
        let begin = Instant::now();
        // More than a pipe and the queue take.
        let lines = 20_000_u64;
        for _ in 0..lines {
            let mut line = queue.make_writer();
            line.write_all(&[b'x'; 100]).unwrap();
            line.write_all(b"\n").unwrap();
        }
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{:?}",
            begin.elapsed()
        );
        let dropped = queue.dropped();
        assert!(dropped > 0 && dropped < lines, "{dropped}");
        assert_eq!(queue.metrics().len(), 1);
        queue.flush();
        assert!(begin.elapsed() < Duration::from_secs(20), "nor for the end");
        drop(queue);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        let whole = text.lines().filter(|line| line.len() == 100).count() as u64;
        assert_eq!(whole, lines - dropped);
        assert!(text.contains(&format!("({dropped} lines of the log were dropped")));
    }

    #[test]
    fn the_end_waits_for_lines_that_are_read() {
        let (reader, writer) = io::pipe().unwrap();
        let queue = LogQueue::start(writer).unwrap();
        queue.push(b"the last line\n".to_vec());
        queue.flush();
        assert_eq!(queue.shared.queued.load(Relaxed), 0);
        drop(reader);
    }
}
