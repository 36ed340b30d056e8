use proptest::prelude::*;

use super::flow::{addresses, ports};
use super::*;
use crate::ethernet::testing::{Spec, Tcp, assert_valid, noise, spec};
use crate::offload::checksum;
use crate::offload::split::Split;
use crate::offload::split::tests::{segments, vnet};
use crate::offload::vnet::{GSO_ECN, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, VnetHeader};

/// A frame for the device, in one piece.
#[derive(Clone, Debug, PartialEq)]
struct Out {
    header: VnetHeader,
    segments: usize,
    frame: Vec<u8>,
}

/// Sends a batch of frames through a joiner, as they would lie in a receive buffer.
fn join_with(joiner: &mut Joiner, frames: &[Vec<u8>], checksums: Checksums) -> Vec<Out> {
    let mut slab = vec![0xee; 3];
    let ranges: Vec<_> = frames
        .iter()
        .map(|frame| {
            slab.extend(frame);
            slab.extend([0xee; 14]);
            slab.len() - 14 - frame.len()..slab.len() - 14
        })
        .collect();
    let mut out = Vec::new();
    let mut sink = |joined: &Joined<'_>| {
        let frame = joined.parts().collect::<Vec<_>>().concat();
        assert_eq!(frame.len(), joined.frame_len());
        assert_eq!(joined.parts().len(), joined.segments());
        let mut copy = vec![0; frame.len()];
        assert_eq!(joined.copy_to(&mut copy).unwrap(), frame);
        out.push(Out {
            header: joined.header,
            segments: joined.segments(),
            frame,
        });
    };
    for range in ranges {
        joiner.push(&mut slab, range, checksums, &mut sink);
    }
    joiner.flush(&mut slab, &mut sink);
    assert!(joiner.is_empty());
    out
}

fn join(frames: &[Vec<u8>]) -> Vec<Out> {
    join_with(&mut Joiner::new(JoinKinds::ALL), frames, Checksums::Present)
}

/// Returns a frame that passed as it was.
fn plain(frame: &[u8]) -> Out {
    Out {
        header: VnetHeader::PLAIN,
        segments: 1,
        frame: frame.to_vec(),
    }
}

/// Returns what a kernel makes of a frame from the device: complete frames.
fn cut(out: &Out) -> Vec<Vec<u8>> {
    if out.header.is_super() {
        let segments = segments(&Split::new(out.header, &out.frame).unwrap());
        assert_eq!(segments.len(), out.segments);
        return segments;
    }
    let mut frame = out.frame.clone();
    if out.header.needs_csum() {
        let (start, offset) = (out.header.csum_start.into(), out.header.csum_offset.into());
        checksum::complete(&mut frame, start, offset).unwrap();
    }
    vec![frame]
}

/// Returns the segments of one super-frame.
fn train(spec: &Spec, gso_size: u16) -> Vec<Vec<u8>> {
    segments(&Split::new(vnet(spec, gso_size), &spec.build()).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// Cutting, then joining gives back the super-frame, with a checksum for the kernel to
    /// complete.
    #[test]
    fn joining_undoes_splitting(mut spec in spec(40000), gso_size in 600u16..2000) {
        spec.options = 0;
        let frame = spec.build();
        let segments = train(&spec, gso_size);
        let out = join(&segments);
        if segments.len() == 1 {
            prop_assert_eq!(&out, &[plain(&frame)]);
            return Ok(());
        }
        if segments.len() <= UDP_SEGMENTS_MAX {
            prop_assert_eq!(out.len(), 1);
            let mut joined = out[0].clone();
            let expected = VnetHeader {
                header_len: (frame.len() - spec.payload.len()) as u16,
                ..vnet(&spec, gso_size)
            };
            prop_assert_eq!(joined.header, expected);
            prop_assert_eq!(joined.segments, segments.len());
            let (start, offset) = (expected.csum_start.into(), expected.csum_offset.into());
            checksum::complete(&mut joined.frame, start, offset).unwrap();
            prop_assert_eq!(joined.frame, frame);
        }
        let again: Vec<_> = out.iter().flat_map(cut).collect();
        prop_assert_eq!(again, segments);
    }

    /// The same without checksums, as another protected carrier brings them.
    #[test]
    fn chunks_are_joined_without_checksums(mut spec in spec(30000), gso_size in 500u16..2000) {
        spec.options = 0;
        let frame = spec.build();
        let split = Split::new(vnet(&spec, gso_size), &frame).unwrap();
        let chunks: Vec<_> = (0..split.segments())
            .map(|index| {
                let mut chunk = vec![0; split.segment_len(index)];
                split.write_chunk(index, &mut chunk);
                // Neither is looked at.
                let field = split.layout().transport + split.layout().protocol.checksum_offset();
                chunk[field] ^= 0x55;
                if !spec.v6 {
                    chunk[split.layout().network + 10] ^= 0x55;
                }
                chunk
            })
            .collect();
        let mut joiner = Joiner::new(JoinKinds::ALL);
        let out = join_with(&mut joiner, &chunks, Checksums::Absent);
        prop_assert!(out.iter().all(|out| out.header.needs_csum()));
        let again: Vec<_> = out.iter().flat_map(cut).collect();
        prop_assert_eq!(&again, &segments(&split));
        again.iter().for_each(|frame| assert_valid(frame));
    }

    /// Whatever arrives in whatever order: a kernel that cuts again what comes out has every
    /// frame, unchanged, and in the order of its flow.
    #[test]
    fn nothing_is_lost_changed_or_reordered(
        seed in any::<u64>(),
        flows in 1usize..30,
        count in 1usize..200,
        kinds in any::<[bool; 3]>(),
    ) {
        let kinds = JoinKinds { tcp4: kinds[0] || seed % 3 > 0, tcp6: kinds[1], udp: kinds[2] };
        let frames = traffic(seed, flows, count);
        let out = join_with(&mut Joiner::new(kinds), &frames, Checksums::Present);
        for joined in &out {
            let allowed = match joined.header.gso_type & !GSO_ECN {
                GSO_TCPV4 => kinds.tcp4,
                GSO_TCPV6 => kinds.tcp6,
                GSO_UDP_L4 => kinds.udp,
                _ => joined.header == VnetHeader::PLAIN,
            };
            prop_assert!(allowed, "{:?}", joined.header);
        }
        let again: Vec<_> = out.iter().flat_map(cut).collect();
        prop_assert_eq!(by_flow(&again), by_flow(&frames));
    }

    #[test]
    fn any_bytes_are_harmless(data in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzzing::fuzz_join(&data);
    }

    /// Trains with changed bytes, in the form that the fuzzer feeds.
    #[test]
    fn changed_trains_are_harmless(spec in spec(900), gso_size in 60u16..300, changes in any::<[(u16, u8); 4]>()) {
        let mut data = Vec::new();
        for segment in train(&spec, gso_size) {
            data.extend((segment.len() as u16).to_be_bytes());
            data.extend(segment);
        }
        for (at, value) in changes {
            let at = usize::from(at) % data.len();
            data[at] = value;
        }
        crate::fuzzing::fuzz_join(&data);
    }
}

/// Frames of some flows, mixed, most of which continue their flow; some are broken or odd.
fn traffic(seed: u64, flows: usize, count: usize) -> Vec<Vec<u8>> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut specs: Vec<Spec> = (0..flows)
        .map(|index| {
            let mut spec = Spec::tcp(rng.u32(..), Vec::new());
            if rng.u8(..3) == 0 {
                spec.tcp = None;
            }
            spec.v6 = rng.bool();
            spec.dont_fragment = rng.bool();
            spec.hosts = [rng.u8(1..3), rng.u8(1..3)];
            spec.ports = [index as u16, rng.u16(1..3)];
            if rng.u8(..8) == 0 {
                spec.tags = vec![rng.u16(1..3)];
            }
            spec
        })
        .collect();
    let mut frames = Vec::new();
    let mut current = 0;
    for _ in 0..count {
        if rng.u8(..4) == 0 {
            current = rng.usize(..flows);
        }
        let spec = &mut specs[current];
        let len = if rng.u8(..6) == 0 {
            rng.usize(..300)
        } else {
            200
        };
        spec.payload = noise(rng.u64(..), len);
        let mut once = spec.clone();
        match rng.u8(..40) {
            0 => once.ttl -= 1,
            1 => once.tos ^= 3,
            2 => once.id = rng.u16(..),
            3 => once.options = 1,
            4 => once.dont_fragment ^= true,
            _ => {}
        }
        if let Some(tcp) = &mut once.tcp {
            match rng.u8(..40) {
                0..4 => tcp.flags = 0x08,
                4 => tcp.flags = 1 << rng.u8(..8),
                5 => tcp.window += 1,
                6 => tcp.options = rng.usize(..4),
                7 => tcp.sequence = rng.u32(..),
                8 => tcp.acknowledgement += 1,
                _ => {}
            }
        }
        let mut frame = once.build();
        match rng.u8(..40) {
            0 => {
                let at = rng.usize(14..frame.len());
                frame[at] ^= 1 << rng.u8(..8);
            }
            1 => frame.resize(frame.len() + 9, 0),
            2 => frame.truncate(rng.usize(..frame.len())),
            _ => {}
        }
        frames.push(frame);
        spec.id = spec.id.wrapping_add(1);
        if let Some(tcp) = &mut spec.tcp {
            tcp.sequence = tcp.sequence.wrapping_add(len as u32);
        }
    }
    frames
}

/// Returns the frames of each flow in order, without what joining is free to change: padding, and
/// the id of a packet that must not be fragmented.
fn by_flow(frames: &[Vec<u8>]) -> std::collections::BTreeMap<Vec<u8>, Vec<Vec<u8>>> {
    let mut flows = std::collections::BTreeMap::<_, Vec<_>>::new();
    for frame in frames {
        let mut frame = frame.clone();
        let layout = Frame::parse(&frame).ok().and_then(|view| view.layout());
        let mut flow = Vec::new();
        if let Some(layout) = layout {
            flow.extend(&frame[..layout.network]);
            flow.extend(addresses(&frame, &layout));
            flow.extend(ports(&frame, &layout));
            flow.push(layout.protocol.number());
            let right = checksum::verify(&frame, &layout);
            if layout.ip == Ip::V4 && frame[layout.network + 6] & 0x40 != 0 && right {
                frame.truncate(layout.end);
                frame[layout.network + 4..layout.network + 6].fill(0);
                frame[layout.network + 10..layout.network + 12].fill(0);
            } else if right {
                frame.truncate(layout.end);
            }
        }
        flows.entry(flow).or_default().push(frame);
    }
    flows
}

fn tcp(spec: &mut Spec) -> &mut Tcp {
    spec.tcp.as_mut().unwrap()
}

/// Two segments of 100 bytes of which the second is changed; whether they are joined.
fn joins(base: Spec, change: impl FnOnce(&mut Spec)) -> bool {
    let mut second = base.clone();
    second.id = base.id.wrapping_add(1);
    if let Some(tcp) = &mut second.tcp {
        tcp.sequence = tcp.sequence.wrapping_add(100);
    }
    change(&mut second);
    let frames = [base.build(), second.build()];
    let out = join(&frames);
    let joined = out.len() == 1;
    if !joined {
        assert_eq!(out, frames.map(|frame| plain(&frame)));
    }
    joined
}

#[test]
fn segments_are_joined_only_if_their_headers_agree() {
    let base = || Spec::tcp(u32::MAX - 50, noise(1, 100));
    assert!(joins(base(), |_| ()));
    assert!(joins(base(), |s| s.payload = noise(2, 99)));
    assert!(joins(base(), |s| s.id = 0x9999));
    assert!(joins(base(), |s| tcp(s).flags = 0x08));
    assert!(joins(base(), |s| tcp(s).flags = 0x01));

    assert!(!joins(base(), |s| s.payload = noise(2, 101)));
    assert!(!joins(base(), |s| s.payload.clear()));
    assert!(!joins(base(), |s| tcp(s).sequence -= 1));
    assert!(!joins(base(), |s| tcp(s).sequence += 1));
    assert!(!joins(base(), |s| tcp(s).acknowledgement += 1));
    assert!(!joins(base(), |s| tcp(s).window += 1));
    assert!(!joins(base(), |s| tcp(s).options = 4));
    assert!(!joins(base(), |s| tcp(s).options = 2));
    for flag in [0x02, 0x04, 0x20, 0x40, 0x80] {
        assert!(!joins(base(), |s| tcp(s).flags = flag), "{flag:#x}");
    }
    assert!(!joins(base(), |s| s.tos = 3));
    assert!(!joins(base(), |s| s.ttl = 63));
    assert!(!joins(base(), |s| s.dont_fragment = false));
    assert!(!joins(base(), |s| s.options = 1));
    assert!(!joins(base(), |s| s.tags = vec![1]));
    assert!(!joins(base(), |s| s.macs[0][5] ^= 1));
    assert!(!joins(base(), |s| s.hosts[0] ^= 1));
    assert!(!joins(base(), |s| s.ports[1] ^= 1));
}

#[test]
fn the_first_segment_must_be_joinable_too() {
    let base = |change: fn(&mut Spec)| {
        let mut spec = Spec::tcp(5, noise(1, 100));
        change(&mut spec);
        spec
    };
    // ECN echo and CWR concern both, or the first alone.
    assert!(joins(base(|s| tcp(s).flags = 0x40), |_| ()));
    assert!(joins(base(|s| tcp(s).flags = 0x80), |s| tcp(s).flags = 0));
    for flags in [0x01, 0x02, 0x04, 0x08, 0x20] {
        let mut spec = Spec::tcp(5, noise(1, 100));
        tcp(&mut spec).flags = flags;
        assert!(!joins(spec, |s| tcp(s).flags = 0), "{flags:#x}");
    }
    assert!(!joins(base(|s| s.options = 1), |_| ()));
    let v6 = |s: &mut Spec| s.v6 = true;
    assert!(joins(base(v6), |_| ()));
    assert!(!joins(base(v6), |s| s.ttl = 63));
    assert!(!joins(base(v6), |s| s.tos = 3));
    assert!(!joins(base(|s| (s.v6, s.options) = (true, 1)), |_| ()));
}

#[test]
fn ids_count_up_where_packets_may_be_fragmented() {
    let base = || {
        let mut spec = Spec::tcp(5, noise(1, 100));
        (spec.dont_fragment, spec.id) = (false, 0xffff);
        spec
    };
    assert!(joins(base(), |s| s.id = 0));
    assert!(!joins(base(), |s| s.id = 0xffff));
    assert!(!joins(base(), |s| s.id = 1));
}

#[test]
fn datagrams_are_joined_while_they_are_equal() {
    let base = || Spec::udp(noise(1, 100));
    assert!(joins(base(), |_| ()));
    assert!(joins(base(), |s| s.payload = noise(2, 1)));
    assert!(!joins(base(), |s| s.payload = noise(2, 101)));
    assert!(!joins(base(), |s| s.payload.clear()));
    assert!(!joins(base(), |s| s.ttl = 63));

    // A shorter one is the last.
    let datagram = |len| Spec::udp(noise(1, len)).build();
    let out = join(&[datagram(100), datagram(90), datagram(90), datagram(90)]);
    assert_eq!(
        out.iter().map(|out| out.segments).collect::<Vec<_>>(),
        [2, 2]
    );
    assert_eq!(out[1].header.gso_size, 90);
}

#[test]
fn datagrams_without_checksum_pass() {
    let mut datagram = Spec::udp(noise(1, 100)).build();
    datagram[40..42].fill(0);
    let frames = vec![datagram; 3];
    assert_eq!(
        join(&frames),
        frames.iter().map(|f| plain(f)).collect::<Vec<_>>()
    );
}

#[test]
fn wrong_checksums_pass_alone_and_unchanged() {
    let spec = Spec::tcp(1, noise(1, 1000));
    // The payload, the TCP header, the IP header.
    for at in [200, 36, 22] {
        for wrong in 0..4 {
            let mut frames = train(&spec, 250);
            frames[wrong][at] ^= 4;
            let out = join(&frames);
            let alone = out.iter().find(|out| out.frame == frames[wrong]).unwrap();
            assert_eq!(alone.header, VnetHeader::PLAIN);
            let again: Vec<_> = out.iter().flat_map(cut).collect();
            assert_eq!(again, frames);
        }
    }
}

#[test]
fn super_frames_end_at_their_limits() {
    let counts = |spec: &Spec, len: usize, count: usize| {
        let mut spec = spec.clone();
        let mut frames = Vec::new();
        for _ in 0..count {
            spec.payload = noise(1, len);
            frames.push(spec.build());
            if let Some(tcp) = &mut spec.tcp {
                tcp.sequence = tcp.sequence.wrapping_add(len as u32);
            }
        }
        let out = join(&frames);
        let again: Vec<_> = out.iter().flat_map(cut).collect();
        assert_eq!(by_flow(&again), by_flow(&frames));
        out.iter()
            .map(|out| (out.segments, out.frame.len()))
            .collect::<Vec<_>>()
    };
    let tcp = Spec::tcp(1, Vec::new());
    // 20 + 32 bytes of headers and 45 * 1448 of payload are within 65535 bytes.
    let (most, left) = ((45, 66 + 45 * 1448), (5, 66 + 5 * 1448));
    assert_eq!(counts(&tcp, 1448, 50), [most, left]);
    assert_eq!(counts(&tcp, 10, 130), [(128, 66 + 1280), (2, 66 + 20)]);
    let udp = Spec::udp(Vec::new());
    assert_eq!(counts(&udp, 64, 100), [(64, 42 + 4096), (36, 42 + 36 * 64)]);
    assert_eq!(counts(&udp, 9000, 8), [(7, 42 + 63000), (1, 9042)]);
}

#[test]
fn order_within_a_flow_is_kept_around_what_cannot_be_joined() {
    let spec = Spec::tcp(1000, noise(1, 600));
    let data = train(&spec, 100);
    let mut ack = spec.clone();
    ack.payload.clear();
    tcp(&mut ack).sequence = 1200;
    let ack = ack.build();
    let mut fragment = data[0].clone();
    fragment[20] = 0x20;
    checksum::fill_ipv4(&mut fragment[14..34]);

    for odd in [ack, fragment] {
        let frames = [&data[..2], std::slice::from_ref(&odd), &data[2..]].concat();
        let out = join(&frames);
        assert_eq!(
            out.iter().map(|out| out.segments).collect::<Vec<_>>(),
            [2, 1, 4]
        );
        assert_eq!(out[1], plain(&odd));
    }
    // What belongs to no flow ends none.
    let mut arp = vec![0; 60];
    arp[12..14].copy_from_slice(&[8, 6]);
    let out = join(&[&data[..2], std::slice::from_ref(&arp), &data[2..]].concat());
    assert_eq!(
        out.iter().map(|out| out.segments).collect::<Vec<_>>(),
        [1, 6]
    );
}

#[test]
fn many_flows_are_joined_side_by_side() {
    let flow = |port: u16| {
        let mut spec = Spec::tcp(1, noise(port.into(), 1000));
        spec.ports[0] = port;
        train(&spec, 100)
    };
    let mixed = |flows: u16| {
        let trains: Vec<_> = (0..flows).map(flow).collect();
        let frames: Vec<_> = (0..10)
            .flat_map(|index| trains.iter().map(move |train| train[index].clone()))
            .collect();
        join(&frames)
            .iter()
            .map(|out| out.segments)
            .collect::<Vec<_>>()
    };
    assert_eq!(mixed(FLOWS_MAX as u16), [10; FLOWS_MAX]);
    // One more than there are places, in turn: each leaves before its next segment comes.
    assert_eq!(mixed(FLOWS_MAX as u16 + 1), [1; 10 * (FLOWS_MAX + 1)]);
}

#[test]
fn kinds_that_the_device_refuses_pass() {
    let all = [
        JoinKinds::NONE,
        JoinKinds {
            udp: false,
            ..JoinKinds::ALL
        },
        JoinKinds::ALL,
    ];
    for (kinds, tcp, udp) in [(all[0], 10, 10), (all[1], 1, 10), (all[2], 1, 1)] {
        let mut joiner = Joiner::new(JoinKinds::ALL);
        joiner.set_kinds(kinds);
        for (spec, expected) in [
            (Spec::tcp(1, noise(1, 1000)), tcp),
            (Spec::udp(noise(1, 1000)), udp),
        ] {
            let frames = train(&spec, 100);
            let out = join_with(&mut joiner, &frames, Checksums::Present);
            assert_eq!(out.len(), expected);
        }
    }
}

#[test]
fn ranges_outside_of_the_slab_are_no_frames() {
    let mut joiner = Joiner::new(JoinKinds::ALL);
    let mut slab = Spec::tcp(1, noise(1, 100)).build();
    let len = slab.len();
    let mut sink = |_: &Joined<'_>| panic!("a frame out of nothing");
    for range in [len..len + 1, 0..len + 1, usize::MAX - 1..usize::MAX] {
        joiner.push(&mut slab, range, Checksums::Present, &mut sink);
    }
    joiner.flush(&mut slab, &mut sink);
}
