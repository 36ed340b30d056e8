use std::net::Ipv4Addr;
use std::time::Duration;

use proto::sleeve::Channel;
use proto::types::PeerName;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::super::sender::Sender;
use super::*;

const LOCAL: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0);

fn open(queues: u16, gso: bool, gro: bool) -> Sockets {
    Sockets::open(&UdpConfig {
        local: LOCAL,
        queues,
        gso,
        gro,
    })
    .unwrap()
}

/// Everything that arrives at `queue`, datagram by datagram, until nothing has come for a while.
fn drain(sockets: &Sockets, queue: usize) -> Vec<(SocketAddrV4, Vec<u8>)> {
    let mut batch = ReceiveBatch::new(8, 1 << 16);
    let mut datagrams = Vec::new();
    loop {
        let socket = sockets.df(queue);
        let mut fds = [PollFd::new(&socket, PollFlags::IN)];
        let patience = Timespec::try_from(Duration::from_millis(50)).unwrap();
        if poll(&mut fds, Some(&patience)).unwrap() == 0 {
            return datagrams;
        }
        for index in 0..batch.receive(socket).unwrap() {
            let message = batch.message(index).unwrap();
            assert!(!message.truncated);
            let bytes = &batch.slab_mut()[message.start..][..message.len];
            datagrams.extend(
                bytes
                    .chunks(message.stride)
                    .map(|d| (message.from, d.to_vec())),
            );
        }
    }
}

#[test]
fn a_second_router_finds_the_port_taken() {
    let first = open(1, true, true);
    let second = Sockets::open(&UdpConfig {
        local: first.local(),
        queues: 1,
        gso: true,
        gro: true,
    });
    assert!(matches!(second, Err(UdpError::PortTaken(port)) if port == first.local().port()));
}

#[test]
fn nothing_is_stranded_at_the_socket_that_only_sends() {
    let (to, others) = (open(1, false, false), 64);
    for n in 0..others {
        let from = open(1, false, false);
        from.send_one(Channel::Df, to.local(), &[n]).unwrap();
        from.send_one(Channel::NonDf, to.local(), &[n]).unwrap();
    }
    assert_eq!(drain(&to, 0).len(), 2 * usize::from(others));
}

#[test]
fn packets_of_a_peer_go_to_one_queue_wherever_they_come_from() {
    let to = open(3, false, false);
    let senders: Vec<Sockets> = (0..4).map(|_| open(1, false, false)).collect();
    let mut expected = vec![0; 3];
    for n in 0..50 {
        let name = PeerName::from_u64(0x7a00_0000_0000 + n * 0x0101).unwrap();
        let packet = [name.as_bytes(), &b"the rest"[..]].concat();
        expected[steering::queue_of(&packet, 3)] += senders.len();
        for sender in &senders {
            sender.send_one(Channel::Df, to.local(), &packet).unwrap();
        }
    }
    senders[0]
        .send_one(Channel::Df, to.local(), b"short")
        .unwrap();
    expected[0] += 1;
    let got: Vec<usize> = (0..3).map(|queue| drain(&to, queue).len()).collect();
    assert_eq!(got, expected);
    assert!(expected.iter().all(|&count| count > 0));
}

#[test]
fn native_datagrams_go_by_stream_and_session() {
    use proto::native::wire::{Header, Kind};
    let to = open(3, false, false);
    let from = open(1, false, false);
    let mut expected = vec![0; 3];
    for n in 0..60 {
        let header = Header {
            kind: Kind::Frames,
            stream: n % 7,
            session: 0x1234_5600 + u32::from(n / 7),
            counter: n.into(),
        };
        let datagram = [&header.encode()[..], &[0; 20]].concat();
        expected[steering::queue_of(&datagram, 3)] += 1;
        from.send_one(Way::Native, to.local(), &datagram).unwrap();
    }
    let got: Vec<usize> = (0..3).map(|queue| drain(&to, queue).len()).collect();
    assert_eq!(got, expected);
    assert!(expected.iter().all(|&count| count > 5));
}

/// Datagrams of all kinds of sizes, in order, whatever the kernel may do to them.
#[test]
fn batches_arrive_whole_and_in_order_with_and_without_offloads() {
    for (gso, gro) in [(true, true), (true, false), (false, true), (false, false)] {
        let (from, to) = (open(1, gso, gro), open(1, gso, gro));
        assert_eq!(from.gso.is_on(), gso);
        assert_eq!(to.gro.is_on(), gro);
        let sizes = [
            vec![1400; 100],
            vec![700, 1400, 1400, 33, 33, 33, 5],
            vec![1; 70],
            vec![60_000, 60_000, 5],
        ]
        .concat();
        let mut buffer = vec![0; sizes.iter().sum()];
        let mut sender = Sender::new();
        let (mut start, mut expected) = (0, Vec::new());
        let mut failures = 0;
        for (n, &len) in sizes.iter().enumerate() {
            buffer[start..start + len].fill(n as u8);
            expected.push(buffer[start..start + len].to_vec());
            assert!(!sender.is_full());
            let segmentable = from.gso.is_on() && len <= 1400;
            assert!(sender.push(Channel::Df, to.local(), (start, len), segmentable));
            start += len;
            if sender.is_full() {
                sender.flush(&from, 0, &buffer, |_| failures += 1);
            }
        }
        sender.flush(&from, 0, &buffer, |_| failures += 1);
        assert!(sender.is_empty());
        let got = drain(&to, 0);
        assert!(got.iter().all(|(sender, _)| *sender == from.local()));
        let got: Vec<Vec<u8>> = got.into_iter().map(|(_, datagram)| datagram).collect();
        assert_eq!(failures, 0);
        assert!(
            got == expected,
            "gso {gso}, gro {gro}: {} datagrams",
            got.len()
        );
    }
}

#[test]
fn a_run_holds_equal_datagrams_and_one_shorter_at_its_end() {
    let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1);
    let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 2);
    let mut sender = Sender::new();
    let mut start = 0;
    for (to, len) in [(to, 10), (to, 10), (to, 4), (to, 4), (to, 5), (other, 5)] {
        sender.push(Channel::Df, to, (start, len), true);
        start += len;
    }
    // A hole, then one that must stay alone.
    sender.push(Channel::Df, other, (start + 1, 5), true);
    sender.push(Channel::Df, other, (start + 6, 5), false);
    let runs: Vec<_> = sender.batches[0]
        .messages()
        .iter()
        .map(|m| (m.start, m.len, m.segment))
        .collect();
    assert_eq!(
        runs,
        [
            (0, 24, 10),
            (24, 4, 0),
            (28, 5, 0),
            (33, 5, 0),
            (39, 5, 0),
            (44, 5, 0)
        ]
    );
}

#[test]
fn a_failure_names_the_datagram_and_spares_the_others() {
    let (from, to) = (open(1, true, true), open(1, true, true));
    // Nothing can be sent to this address from a socket bound to loopback.
    let nowhere = SocketAddrV4::new(Ipv4Addr::new(192, 0, 2, 1), 9);
    let buffer = [7; 50];
    let mut sender = Sender::new();
    sender.push(Channel::Df, to.local(), (0, 10), true);
    sender.push(Channel::Df, nowhere, (10, 10), true);
    sender.push(Channel::Df, nowhere, (20, 10), true);
    sender.push(Channel::Df, to.local(), (30, 10), true);
    let mut failed = Vec::new();
    sender.flush(&from, 0, &buffer, |failure| {
        failed.push((failure.start, failure.len))
    });
    assert_eq!(failed, [(10, 10), (20, 10)]);
    assert_eq!(drain(&to, 0).len(), 2);
}

/// A socket without checksums, for which the kernel refuses to cut: the run is not lost, and no
/// other is tried.
#[test]
fn cutting_is_given_up_when_the_kernel_refuses() {
    let (from, to) = (open(1, true, true), open(1, true, true));
    sockopt_no_check(&from);
    let buffer: Vec<u8> = (0..100).map(|n| n / 10).collect();
    let mut sender = Sender::new();
    for start in (0..buffer.len()).step_by(10) {
        sender.push(Channel::Df, to.local(), (start, 10), from.gso.is_on());
    }
    let mut failures = 0;
    sender.flush(&from, 0, &buffer, |_| failures += 1);
    assert_eq!((failures, drain(&to, 0).len()), (0, 10));
    assert_eq!(from.gso.state(), FeatureState::Refused(libc::EINVAL));
    assert_eq!(
        from.gso.state().to_string(),
        "off (Invalid argument (os error 22))"
    );
}

fn sockopt_no_check(sockets: &Sockets) {
    let (level, name) = (libc::SOL_SOCKET, libc::SO_NO_CHECK);
    kernel::sys::sockopt::set(sockets.df(0), level, name, 1).unwrap();
}
