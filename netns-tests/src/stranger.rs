//! A peer that speaks the protocol and says what it likes.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::time::{Duration, Instant};

use kernel::netns::Namespace;
use proto::crypto::PrivateKey;
use proto::features::Features;
use proto::types::{PeerName, PeerUid};
use proto::wire::{Introduced, Wire, WireConfig, WireEvent};

use crate::wait;

/// One connection to a router.
#[derive(Debug)]
pub struct Stranger {
    stream: TcpStream,
    wire: Wire,
    /// What the introduction came to.
    pub introduced: Introduced,
}

impl Stranger {
    /// Returns a bare connection from a namespace.
    #[track_caller]
    pub fn connect(from: &Namespace, to: Ipv4Addr) -> TcpStream {
        let to = SocketAddrV4::new(to, 6783).into();
        let connect = || TcpStream::connect_timeout(&to, wait::SOON).unwrap();
        let stream = from.run(connect).unwrap();
        stream.set_nodelay(true).unwrap();
        let limit = Some(Duration::from_millis(100));
        stream.set_read_timeout(limit).unwrap();
        stream.set_write_timeout(Some(wait::SOON)).unwrap();
        stream
    }

    /// Features of a peer with this number for a name.
    pub fn features(number: u8) -> Features {
        Features {
            name: PeerName::from_bytes([2, 0, 0, 0, 1, number]),
            nickname: "stranger".into(),
            uid: PeerUid(fastrand::u64(1..)),
            conn_id: fastrand::u64(1..),
            overlays: Some(vec!["sleeve".into()]),
            ..Features::default()
        }
    }

    /// Connects and introduces itself.
    #[track_caller]
    pub fn introduce(from: &Namespace, to: Ipv4Addr, number: u8, version: u8) -> Stranger {
        let mut config = WireConfig::new(Stranger::features(number), None);
        config.max_version = version;
        let mut stream = Stranger::connect(from, to);
        let mut key = [0; 32];
        fastrand::fill(&mut key);
        let mut wire = Wire::new(config, true, PrivateKey::from_bytes(key));
        let deadline = Instant::now() + wait::SOON;
        loop {
            assert!(Instant::now() < deadline, "no introduction");
            flush(&mut wire, &mut stream);
            receive(&mut wire, &mut stream).unwrap();
            if let Some(WireEvent::Introduced(introduced)) = wire.poll_event() {
                flush(&mut wire, &mut stream);
                return Stranger {
                    stream,
                    wire,
                    introduced: *introduced,
                };
            }
        }
    }

    /// Sends a message, whatever it is. Fails if the router has closed the connection.
    pub fn send(&mut self, message: &[u8]) -> std::io::Result<()> {
        self.wire.send(message).unwrap();
        while let Some(bytes) = self.wire.poll_transmit() {
            self.stream.write_all(&bytes)?;
        }
        Ok(())
    }

    /// Returns the next message within a time; `None` if there is none or the connection was
    /// closed.
    pub fn next_message(&mut self, time: Duration) -> Option<Vec<u8>> {
        let deadline = Instant::now() + time;
        loop {
            if let Some(WireEvent::Message(message)) = self.wire.poll_event() {
                return Some(message);
            }
            if Instant::now() > deadline || receive(&mut self.wire, &mut self.stream).is_err() {
                return None;
            }
        }
    }

    /// Returns true if the router closes the connection within a time.
    pub fn is_closed_within(&mut self, time: Duration) -> bool {
        let deadline = Instant::now() + time;
        while Instant::now() < deadline {
            if receive(&mut self.wire, &mut self.stream).is_err() {
                return true;
            }
            while self.wire.poll_event().is_some() {}
        }
        false
    }
}

fn flush(wire: &mut Wire, stream: &mut TcpStream) {
    while let Some(bytes) = wire.poll_transmit() {
        stream.write_all(&bytes).unwrap();
    }
}

/// Takes in what has arrived; fails when the other end has closed.
fn receive(wire: &mut Wire, stream: &mut TcpStream) -> Result<(), String> {
    let mut buffer = [0; 16 * 1024];
    match stream.read(&mut buffer) {
        Ok(0) => Err("closed".to_owned()),
        Ok(length) => wire
            .handle_bytes(&buffer[..length])
            .map_err(|e| e.to_string()),
        Err(e) if is_timeout(&e) => Ok(()),
        Err(e) => Err(e.to_string()),
    }
}

/// Returns true if a read ended because nothing came in time.
pub(crate) fn is_timeout(error: &std::io::Error) -> bool {
    matches!(
        error.kind(),
        std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut
    )
}
