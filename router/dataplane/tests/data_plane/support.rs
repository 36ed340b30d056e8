//! What the tests have in common.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream, UdpSocket};
use std::thread;
use std::time::Duration;

use boundary::counters::{Count, DropReason};
use kernel::netns::Namespace;
use testbed::rig::{Options, Trial, wait_until};

/// Returns true if tests may make namespaces. If not, says so on standard error, which the test
/// harness shows also for tests that pass.
pub(crate) fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        let thread = thread::current();
        let name = thread.name().unwrap_or("a test");
        testbed::skips::skip(name, "root");
    }
    root
}

/// Returns from the test unless it runs as root.
macro_rules! needs_root {
    () => {
        if !crate::support::is_root() {
            return;
        }
    };
}
pub(crate) use needs_root;

/// Sends a stream of `len` bytes from one container to another and checks every byte of it.
pub(crate) fn transfer(trial: &Trial, from: usize, to: usize, address: IpAddr, len: usize) {
    let [from, to] = [from, to].map(|number| &trial.hosts[number].container);
    let listener = to.run(|| TcpListener::bind((address, 0)).unwrap()).unwrap();
    let target = listener.local_addr().unwrap();
    let connect = || TcpStream::connect_timeout(&target, Duration::from_secs(10)).unwrap();
    let mut out = from.run(connect).unwrap();
    let (mut into, _) = listener.accept().unwrap();
    for stream in [&out, &into] {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
    }
    let sent = pattern(len);
    thread::scope(|scope| {
        let writer = scope.spawn(|| {
            out.write_all(&sent).unwrap();
            out.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut received = Vec::with_capacity(len);
        into.read_to_end(&mut received).unwrap();
        assert!(received == sent, "{} of {len} bytes", received.len());
        writer.join().unwrap();
    });
}

/// Bytes that repeat nowhere near.
pub(crate) fn pattern(len: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(len as u64);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

/// Returns a UDP socket in a container.
pub(crate) fn udp(container: &Namespace, address: IpAddr) -> UdpSocket {
    let socket = container
        .run(|| UdpSocket::bind((address, 0)).unwrap())
        .unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

/// Sends `datagram` until it arrives, at most for a few seconds; the first ones may be lost while
/// addresses are looked up.
pub(crate) fn datagram_arrives(from: &UdpSocket, to: &UdpSocket, datagram: &[u8]) -> bool {
    let mut buffer = vec![0; 1 << 16];
    to.set_read_timeout(Some(Duration::from_millis(50)))
        .unwrap();
    wait_until(|| {
        // Fails while a smaller path MTU has just become known.
        let _ = from.send_to(datagram, to.local_addr().unwrap());
        to.recv_from(&mut buffer)
            .is_ok_and(|(len, _)| buffer[..len] == *datagram)
    })
}

/// The frames that went in and out of every plane agree, once those on the way have arrived.
pub(crate) fn check_balance(trial: &Trial) {
    for (number, host) in trial.hosts.iter().enumerate() {
        let balanced = wait_until(|| {
            let (came, went) = host.plane.counters().balance();
            came == went
        });
        let totals = host.plane.counters();
        assert!(balanced, "host {number}: {totals:?}");
    }
}

pub(crate) fn count(trial: &Trial, host: usize, count: Count) -> u64 {
    trial.hosts[host].plane.counters().get(count)
}

pub(crate) fn dropped(trial: &Trial, host: usize, reason: DropReason) -> u64 {
    trial.hosts[host].plane.counters().dropped(reason)
}

/// Planes joined by sleeve, plain and encrypted.
pub(crate) fn sleeves() -> [Options; 2] {
    [None, Some([9; 32])].map(|key| Options {
        key,
        ..Options::default()
    })
}

/// Planes joined by every overlay: sleeve, plain and encrypted, and native.
pub(crate) fn overlays() -> [Options; 3] {
    let [plain, sealed] = sleeves();
    let native = Options {
        native: true,
        ..Options::default()
    };
    [plain, sealed, native]
}

const PATIENCE: Duration = Duration::from_secs(20);
