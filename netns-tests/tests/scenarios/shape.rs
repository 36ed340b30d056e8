//! Meshes of other shapes than a pair: lines, rings, parts.

use std::thread;
use std::time::Duration;

use netns_tests::{
    Capture, Container, Cutter, Kind, Launch, Mesh, frame, members, peer_name, wait,
};

/// Sends numbered broadcasts from the first container until, of a series of them, each of the
/// others gets each one exactly once. Routers that learn of each other may disagree for a while.
fn broadcasts_arrive_once(containers: &[Container], first: u32) {
    let mut wrong = String::new();
    let settled = wait::within(wait::SOON, || match count_broadcasts(containers, first) {
        Ok(()) => Some(()),
        Err(error) => {
            wrong = error;
            None
        }
    });
    assert!(settled.is_some(), "{wrong}");
}

fn count_broadcasts(containers: &[Container], first: u32) -> Result<(), String> {
    let (sender, others) = containers.split_first().unwrap();
    let captures: Vec<Capture> = others.iter().map(Container::capture).collect();
    let socket = sender.frames();
    let numbers = first..first + 50;
    for number in numbers.clone() {
        let frame = frame::build(frame::BROADCAST, sender.mac, &[], number, 100);
        socket.send(&frame).unwrap();
        thread::sleep(Duration::from_millis(2));
    }
    // Copies that come by a longer way come later.
    thread::sleep(Duration::from_millis(300));
    for (capture, container) in captures.iter().zip(others) {
        for number in numbers.clone() {
            let copies = capture.count(|frame| frame::number(frame) == Some(number));
            if copies != 1 {
                let at = container.address;
                return Err(format!("{copies} copies of broadcast {number} at {at}"));
            }
        }
    }
    Ok(())
}

fn all_reach_all(containers: &[Container]) {
    for from in containers {
        for to in containers.iter().filter(|to| to.address != from.address) {
            from.must_reach(to);
        }
    }
}

/// Four routers, each knowing the next alone: frames and gossip are relayed.
fn line(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let launch = Launch::new().password("a secret").with("--no-discovery");
    mesh.launch_all(&[&[], &[0], &[1], &[2]], &launch);
    let containers = mesh.attach_all();
    mesh.wait_routed(&[0, 1, 2, 3]);
    assert_eq!(mesh.next_hop(0, 3), Some(peer_name(1)));
    assert_eq!(mesh.next_hop(3, 0), Some(peer_name(2)));
    all_reach_all(&containers);
    broadcasts_arrive_once(&containers, 100);
    let reversed: Vec<Container> = containers.into_iter().rev().collect();
    broadcasts_arrive_once(&reversed, 200);

    // What goes from end to end is not shown to containers between.
    let [last, second, third, first] = [0, 1, 2, 3].map(|at| &reversed[at]);
    let between = [second.capture(), third.capture()];
    let arriving = last.capture();
    let socket = first.frames();
    for number in 300..320 {
        let frame = frame::build(last.mac, first.mac, &[], number, 1000);
        socket.send(&frame).unwrap();
    }
    arriving.wait_for("frames arrive", |frame| frame::number(frame) == Some(319));
    for capture in &between {
        assert_eq!(capture.count(|frame| frame::number(frame).is_some()), 0);
    }
    first.send_tcp(last, 1 << 20);
}
members!(line, 4);

/// Four routers in a ring: broadcasts do not circle; when a link is cut frames go the other way,
/// and back when it heals.
fn ring(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let cutter = Cutter::start(&mesh);
    let launch = Launch::new().with("--no-discovery");
    mesh.launch_all(&[&[], &[0], &[1], &[2, 0]], &launch);
    let containers = mesh.attach_all();
    mesh.wait_routed(&[0, 1, 2, 3]);
    wait_next_hop(&mesh, 0, 3, 3);
    all_reach_all(&containers);
    broadcasts_arrive_once(&containers, 100);

    let watch = containers[3].capture();
    let stream = Stream::start(&containers[0], 1000);
    cutter.cut(&mut mesh, 0, 3);
    wait_next_hop(&mesh, 0, 3, 1);
    wait_next_hop(&mesh, 3, 0, 2);
    containers[0].must_reach(&containers[3]);
    broadcasts_arrive_once(&containers, 200);

    mesh.lab.unblock(0, 3).unwrap();
    mesh.wait_connected(0, 3);
    wait_next_hop(&mesh, 0, 3, 3);
    wait_next_hop(&mesh, 3, 0, 0);
    all_reach_all(&containers);
    broadcasts_arrive_once(&containers, 300);

    // While routers disagree about the routes a frame may be lost or arrive twice, but none
    // goes round and round.
    for number in 1000..stream.stop() {
        let copies = watch.count(|frame| frame::number(frame) == Some(number));
        assert!(copies <= 4, "{copies} copies of broadcast {number}");
    }
}
members!(ring, 4);

#[track_caller]
fn wait_next_hop(mesh: &Mesh, from: usize, to: usize, via: usize) {
    let what = format!("router {from} reaches router {to} by router {via}");
    wait::until_true(&what, wait::LATER, || {
        mesh.next_hop(from, to) == Some(peer_name(via))
    });
}

/// Numbered broadcasts, a hundred a second, in the background.
struct Stream {
    stop: std::sync::mpsc::Sender<()>,
    thread: thread::JoinHandle<u32>,
}

impl Stream {
    fn start(from: &Container, first: u32) -> Stream {
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let (socket, mac) = (from.frames(), from.mac);
        let thread = thread::spawn(move || {
            let mut number = first;
            let pause = Duration::from_millis(10);
            while stopped.recv_timeout(pause) == Err(std::sync::mpsc::RecvTimeoutError::Timeout) {
                let frame = frame::build(frame::BROADCAST, mac, &[], number, 100);
                socket.send(&frame).unwrap();
                number += 1;
            }
            number
        });
        Stream { stop, thread }
    }

    /// Returns the number after the last.
    fn stop(self) -> u32 {
        drop(self.stop);
        self.thread.join().unwrap()
    }
}

/// The mesh falls into two parts which go on for themselves, and becomes whole again.
fn partition(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    let cutter = Cutter::start(&mesh);
    mesh.launch_all(
        &[&[], &[0], &[0], &[0]],
        &Launch::new().password("a secret"),
    );
    let containers = mesh.attach_all();
    for (a, b) in [(0, 1), (0, 2), (0, 3), (1, 2), (1, 3), (2, 3)] {
        mesh.wait_connected(a, b);
    }
    mesh.wait_routed(&[0, 1, 2, 3]);
    all_reach_all(&containers);

    cutter.partition(&mut mesh, &[&[0, 1], &[2, 3]]);
    for (host, group) in [(0, [0, 1]), (1, [0, 1]), (2, [2, 3]), (3, [2, 3])] {
        let peers: Vec<String> = group.map(peer_name).into();
        wait::until_true("the other part is forgotten", wait::LATER, || {
            mesh.peers(host) == peers
        });
    }
    all_reach_all(&containers[..2]);
    all_reach_all(&containers[2..]);
    assert!(!containers[0].ping(&containers[2], 84, true));

    mesh.lab.heal().unwrap();
    mesh.wait_routed(&[0, 1, 2, 3]);
    all_reach_all(&containers);
    broadcasts_arrive_once(&containers, 100);
}
members!(partition, 4);

/// A peer that falls silent is given up after a minute, by ours and by a real one, and taken up
/// when it is heard of again.
fn silence(kinds: &[Kind]) {
    let mut mesh = Mesh::new(kinds);
    mesh.launch_all(&[&[], &[0]], &Launch::new());
    let containers = mesh.attach_all();
    mesh.wait_connected(0, 1);
    mesh.wait_routed(&[0, 1]);
    mesh.lab.block(0, 1).unwrap();
    wait::until_true("both give up", wait::TIMED_OUT, || {
        !mesh.is_connected(0, 1) && !mesh.is_connected(1, 0)
    });
    mesh.lab.unblock(0, 1).unwrap();
    mesh.wait_connected(0, 1);
    containers[0].must_reach(&containers[1]);
}
members!(silence: ours [Weft Weft], real_second [Weft Weaver]);
