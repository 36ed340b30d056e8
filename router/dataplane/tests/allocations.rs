//! Carrying frames allocates nothing: neither in a sender's thread nor in a receiver's, whether
//! frames are small or super-frames, by sleeve, encrypted or not, or by native links.

#![allow(missing_docs, clippy::unwrap_used)]
#![allow(unsafe_code, reason = "an allocator that counts")]

use std::alloc::{GlobalAlloc, Layout, System};
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use boundary::counters::Count;
use testbed::rig::{Options, Trial};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise is passed on.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promise is passed on.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// How many frames each kind of traffic carries at least.
const FRAMES_MIN: u64 = 10_000;
const LIMIT: Duration = Duration::from_secs(60);

#[test]
fn ten_thousand_frames_without_an_allocation() {
    if !rustix::process::geteuid().is_root() {
        testbed::skips::skip("ten_thousand_frames_without_an_allocation", "root");
        return;
    }
    for (native, key) in [(false, None), (false, Some([3; 32])), (true, None)] {
        let options = Options {
            native,
            key,
            ..Options::default()
        };
        // Three hosts, so that relaying is looked at as well.
        let trial = Trial::line(3, &options).unwrap();
        datagrams(&trial);
        stream(&trial);
    }
}

/// Returns the least of what went into and out of the hosts at both ends.
fn carried(trial: &Trial) -> u64 {
    let count = |host: usize, count| trial.hosts[host].plane.counters().get(count);
    count(0, Count::Sent).min(count(2, Count::Injected))
}

fn check(trial: &Trial, work: impl FnOnce(&dyn Fn() -> bool)) {
    let before = carried(trial);
    let deadline = Instant::now() + LIMIT;
    let allocations = ALLOCATIONS.load(Ordering::Relaxed);
    assert!(allocations > 0, "setting up has allocated");
    work(&|| carried(trial) < before + FRAMES_MIN && Instant::now() < deadline);
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - allocations;
    let frames = carried(trial) - before;
    assert!(frames >= FRAMES_MIN, "only {frames} frames");
    assert_eq!(allocations, 0, "in {frames} frames");
}

fn datagrams(trial: &Trial) {
    let socket = |host: usize| {
        let bind = || UdpSocket::bind((Trial::address(host), 0)).unwrap();
        trial.hosts[host].container.run(bind).unwrap()
    };
    let (from, to) = (socket(0), socket(2));
    let target = to.local_addr().unwrap();
    to.set_read_timeout(Some(Duration::from_millis(1))).unwrap();
    let mut buffer = [0; 2000];
    let mut send = |goes_on: &dyn Fn() -> bool| {
        while goes_on() {
            for size in [10, 600, 1300] {
                for _ in 0..50 {
                    let _ = from.send_to(&[7; 1300][..size], target);
                }
            }
            while to.recv_from(&mut buffer).is_ok() {}
        }
    };
    // Addresses are looked up and buffers touched before it counts.
    let start = Instant::now();
    send(&|| start.elapsed() < Duration::from_millis(300));
    check(trial, send);
}

fn stream(trial: &Trial) {
    let container = |host: usize| &trial.hosts[host].container;
    let listen = || TcpListener::bind((Trial::address(2), 0)).unwrap();
    let listener = container(2).run(listen).unwrap();
    let target = listener.local_addr().unwrap();
    let connect = || TcpStream::connect(target).unwrap();
    let mut out = container(0).run(connect).unwrap();
    let (mut into, _) = listener.accept().unwrap();
    let ready = Barrier::new(2);
    thread::scope(|scope| {
        let start = &ready;
        scope.spawn(move || {
            let mut buffer = [0; 1 << 16];
            // The start of a thread allocates.
            start.wait();
            while into.read(&mut buffer).is_ok_and(|len| len > 0) {}
        });
        ready.wait();
        let block = [5; 1 << 16];
        for _ in 0..16 {
            out.write_all(&block).unwrap();
        }
        check(trial, |goes_on| {
            while goes_on() {
                out.write_all(&block).unwrap();
            }
        });
        drop(out);
    });
}
