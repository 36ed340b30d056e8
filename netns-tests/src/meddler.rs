//! Something between two routers that changes what they say.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use kernel::netns::Namespace;

use crate::stranger::is_timeout;
use crate::wait;

/// Stands on a host of its own and passes on what others send to it, to one router and back: on
/// TCP with the highest version of the protocol replaced by 1, on UDP as it is.
#[derive(Debug)]
pub struct Meddler {
    stopping: Arc<AtomicBool>,
}

impl Meddler {
    /// Passes on from `namespace`, whose host has `own` as its address, to the router at `to`.
    pub fn start(namespace: &Namespace, own: Ipv4Addr, to: Ipv4Addr) -> Meddler {
        let stopping = Arc::new(AtomicBool::new(false));
        let open = || {
            let tcp = TcpListener::bind((own, PORT)).unwrap();
            let udp = UdpSocket::bind((own, PORT)).unwrap();
            (tcp, udp)
        };
        let (tcp, udp) = namespace.run(open).unwrap();
        tcp.set_nonblocking(true).unwrap();
        let flag = Arc::clone(&stopping);
        let namespace = namespace.clone();
        thread::spawn(move || pass_streams(&tcp, &namespace, to, &flag));
        let flag = Arc::clone(&stopping);
        thread::spawn(move || pass_packets(&udp, to, &flag));
        Meddler { stopping }
    }
}

impl Drop for Meddler {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::Relaxed);
    }
}

fn pass_streams(tcp: &TcpListener, namespace: &Namespace, to: Ipv4Addr, stopping: &AtomicBool) {
    while !stopping.load(Ordering::Relaxed) {
        let Ok((near, _)) = tcp.accept() else {
            thread::sleep(POLL);
            continue;
        };
        near.set_nonblocking(false).unwrap();
        let target = SocketAddr::from((to, PORT));
        let connect = || TcpStream::connect_timeout(&target, wait::SOON);
        // A router that does not listen is none of ours; the other end sees the connection end.
        let Ok(far) = namespace.run(connect).unwrap() else {
            continue;
        };
        for (from, into) in [(&near, &far), (&far, &near)] {
            let (from, into) = (from.try_clone().unwrap(), into.try_clone().unwrap());
            thread::spawn(move || pass_stream(from, into));
        }
    }
}

fn pass_stream(mut from: TcpStream, mut into: TcpStream) {
    let mut passed = 0;
    let mut buffer = [0; 16 * 1024];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if (passed..passed + length).contains(&HIGHEST_VERSION) {
            buffer[HIGHEST_VERSION - passed] = 1;
        }
        if into.write_all(&buffer[..length]).is_err() {
            break;
        }
        passed += length;
    }
    // One may be closed already.
    let _ = into.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn pass_packets(udp: &UdpSocket, to: Ipv4Addr, stopping: &AtomicBool) {
    udp.set_read_timeout(Some(POLL)).unwrap();
    let router = SocketAddr::from((to, PORT));
    let mut other = None;
    let mut buffer = vec![0; 65536];
    while !stopping.load(Ordering::Relaxed) {
        match udp.recv_from(&mut buffer) {
            Ok((length, from)) => {
                let target = if from == router {
                    other
                } else {
                    other = Some(from);
                    Some(router)
                };
                if let Some(target) = target {
                    // What is too large for the path is lost, as on any other.
                    let _ = udp.send_to(&buffer[..length], target);
                }
            }
            Err(e) if is_timeout(&e) => {}
            // The answer to a packet that was sent to somebody who has left.
            Err(_) => thread::sleep(Duration::from_millis(1)),
        }
    }
}

const PORT: u16 = 6783;
/// Where the header of a connection has the highest version of the protocol.
const HIGHEST_VERSION: usize = 6;
const POLL: Duration = Duration::from_millis(20);
