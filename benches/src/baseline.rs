//! The plainest overlay that one could write, as a baseline: each frame is read from a TAP device,
//! sealed and sent by itself, with the tun-tap and chacha20poly1305 crates. Two threads, one for
//! each direction; one peer; no replay window.

use std::env;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::thread;

use chacha20poly1305::aead::{AeadInOut, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce, Tag};
use kernel::netns::Namespace;
use lab::host::Lab;
use testbed::rig::{Options, TrialError, bridge_with_container};
use tun_tap::{Iface, Mode};

use crate::daemon::{Daemon, wait_for_link};
use crate::vxlan::add_port;

/// By this name a benchmark's program is the overlay.
const NAME: &str = "per-packet";
const TAP: &str = "perpacket";
const PORT: u16 = 6790;
const COUNTER_BYTES: usize = 8;
const TAG_BYTES: usize = 16;
const FRAME_BYTES_MAX: usize = 9216;

/// Two hosts, each with a bridge, a container and the overlay.
pub struct Pair {
    /// The hosts.
    pub lab: Lab,
    /// Their containers, at [`testbed::rig::Trial::address`].
    pub containers: [Namespace; 2],
    /// The overlays.
    pub daemons: Vec<Daemon>,
    _folder: tempfile::TempDir,
}

/// Makes a pair, whose overlays are this program under another name.
pub fn pair() -> Result<Pair, TrialError> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join(NAME);
    symlink(env::current_exe()?, &program)?;
    let lab = Lab::with_hosts(2)?;
    let mut daemons = Vec::new();
    let mut containers = Vec::new();
    for number in 0..2 {
        containers.push(bridge_with_container(&lab, number, Options::default().mtu)?);
        let host = &lab.hosts()[number];
        let remote = lab.hosts()[1 - number].address.to_string();
        let mut command = Command::new(&program);
        command.args([host.address.to_string(), remote]);
        daemons.push(Daemon::start(&host.namespace, &mut command)?);
        let netlink = host.namespace.netlink()?;
        wait_for_link(&netlink, TAP)?;
        add_port(&netlink, TAP)?;
    }
    Ok(Pair {
        lab,
        containers: containers.try_into().map_err(|_| "two containers")?,
        daemons,
        _folder: folder,
    })
}

/// Is the overlay until it is killed, if the program was called by its name.
pub fn run_if_called() -> Option<Result<(), TrialError>> {
    let mut arguments = env::args();
    let program = arguments.next()?;
    let is_called = Path::new(&program).file_name().is_some_and(|f| f == NAME);
    is_called.then(|| run(arguments))
}

/// Arguments: its own address and that of its peer.
fn run(mut arguments: impl Iterator<Item = String>) -> Result<(), TrialError> {
    let mut address = || -> Result<Ipv4Addr, TrialError> {
        Ok(arguments.next().ok_or("wants two addresses")?.parse()?)
    };
    let (local, remote) = (address()?, address()?);
    let tap = Arc::new(Iface::without_packet_info(TAP, Mode::Tap)?);
    let socket = UdpSocket::bind((local, PORT))?;
    let cipher = ChaCha20Poly1305::new(&Key::from([7; 32]));
    let receiver = {
        let (tap, socket, cipher) = (Arc::clone(&tap), socket.try_clone()?, cipher.clone());
        thread::spawn(move || receive(&tap, &socket, &cipher))
    };
    // Which end uses which half of the nonces.
    let direction = u32::from(local > remote);
    let mut packet = [0; FRAME_BYTES_MAX + COUNTER_BYTES + TAG_BYTES];
    for counter in 0_u64.. {
        let frame = packet.get_mut(COUNTER_BYTES..COUNTER_BYTES + FRAME_BYTES_MAX);
        let len = tap.recv(frame.ok_or("no room for a frame")?)?;
        let (start, rest) = packet.split_at_mut(COUNTER_BYTES);
        start.copy_from_slice(&counter.to_be_bytes());
        let (body, end) = rest.split_at_mut(len);
        let nonce = nonce(direction, counter);
        let tag = cipher.encrypt_inout_detached(&nonce, &[], body.into());
        end[..TAG_BYTES].copy_from_slice(&tag.map_err(|_| "frame too long")?);
        // A full buffer loses a packet, as a network does.
        let _ = socket.send_to(&packet[..COUNTER_BYTES + len + TAG_BYTES], (remote, PORT));
    }
    receiver.join().map_err(|_| "a thread panicked")?
}

fn receive(tap: &Iface, socket: &UdpSocket, cipher: &ChaCha20Poly1305) -> Result<(), TrialError> {
    let mut packet = [0; FRAME_BYTES_MAX + COUNTER_BYTES + TAG_BYTES];
    let local = socket.local_addr()?.ip();
    loop {
        let (len, from) = socket.recv_from(&mut packet)?;
        let Some((counter, rest)) = packet[..len].split_first_chunk_mut::<COUNTER_BYTES>() else {
            continue;
        };
        let Some((body, tag)) = rest.split_last_chunk_mut::<TAG_BYTES>() else {
            continue;
        };
        let nonce = nonce(u32::from(from.ip() > local), u64::from_be_bytes(*counter));
        let tag = Tag::from(*tag);
        let opened = cipher.decrypt_inout_detached(&nonce, &[], (&mut *body).into(), &tag);
        if opened.is_ok() {
            tap.send(body)?;
        }
    }
}

fn nonce(direction: u32, counter: u64) -> Nonce {
    let mut nonce = [0; 12];
    nonce[..4].copy_from_slice(&direction.to_be_bytes());
    nonce[4..].copy_from_slice(&counter.to_be_bytes());
    Nonce::from(nonce)
}
