//! Frames through both threads of routers in memory.

use boundary::counters::{Count, DropReason};
use boundary::forwarding_event::DataEvent;
use proto::ethernet::Frame;
use proto::offload::checksum;
use proto::offload::vnet::{FLAG_NEEDS_CSUM, GSO_NONE, GSO_TCPV4, VnetHeader};
use proto::sleeve::{Channel, LinkId, PacketBuilder, Special, Tunnel};
use proto::types::{ConnUid, Mac};
use std::net::SocketAddrV4;

use crate::testing::*;

mod frames;
mod guard;

use frames::*;

#[test]
fn a_frame_passes_over_every_overlay_and_answers_find_their_way() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        let there = ethernet(mac(0), Mac::BROADCAST, b"who is there");
        routers.capture(0, &there);
        assert_eq!(routers.0[1].take_written(), [(VnetHeader::PLAIN, there)]);
        let back = ethernet(mac(1), mac(0), b"I am");
        routers.capture(1, &back);
        assert_eq!(routers.0[0].take_written(), [(VnetHeader::PLAIN, back)]);
        routers.assert_balanced();
    }
}

#[test]
fn a_super_frame_arrives_with_every_byte() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(3, &[(0, 1), (1, 2)], overlay);
        routers.capture(2, &ethernet(mac(2), Mac::BROADCAST, b"here"));
        routers.0[0].take_written();
        let (header, frame, payload) = super_frame(mac(0), mac(2), 30_000, 1300);
        routers.0[0].capture(header, &frame);
        routers.settle();
        let got: Vec<u8> = routers.0[2]
            .take_written()
            .iter()
            .flat_map(|(_, frame)| tcp_payload(frame).to_vec())
            .collect();
        assert!(got == payload, "{overlay:?}: {} bytes", got.len());
        routers.assert_balanced();
    }
}

#[test]
fn a_full_send_buffer_costs_the_frames_that_found_no_room() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        *routers.0[0].sockets.room.lock().unwrap() = 3;
        for n in 0..5 {
            routers.capture(0, &ethernet(mac(0), Mac::BROADCAST, &[n; 1000]));
        }
        assert_eq!(routers.0[0].dropped(DropReason::SendFailed), 2);
        assert_eq!(routers.0[0].count(Count::Sent), 3);
        assert_eq!(routers.0[1].take_written().len(), 3);
        routers.assert_balanced();
    }
}

#[test]
fn a_device_that_fails_is_told_once_and_costs_what_it_does_not_take() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        *routers.0[1].tap.write_error.lock().unwrap() = Some(libc::EIO);
        routers.capture(0, &ethernet(mac(0), Mac::BROADCAST, b"lost"));
        assert_eq!(routers.0[1].dropped(DropReason::TapFailed), 1);
        *routers.0[1].tap.write_error.lock().unwrap() = None;

        *routers.0[1].tap.read_error.lock().unwrap() = Some(libc::EBADFD);
        for _ in 0..3 {
            assert!(routers.0[1].turn().is_err());
        }
        let (queue, code) = (0, libc::EBADFD);
        let told = DataEvent::TapFailed { queue, code };
        assert_eq!(routers.0[1].events.try_recv().ok(), Some(told));
        assert!(routers.0[1].events.try_recv().is_err());
        *routers.0[1].tap.read_error.lock().unwrap() = None;
        assert!(matches!(routers.0[1].turn(), Ok(false)));

        routers.capture(0, &ethernet(mac(0), Mac::BROADCAST, b"found"));
        assert_eq!(routers.0[1].take_written().len(), 1);
        routers.assert_balanced();
    }
}

/// A device that takes no super-frames gets the segments one by one, from then on.
#[test]
fn super_frames_that_the_device_refuses_are_cut() {
    let mut routers = Routers::new(2, &[(0, 1)], Overlay::Native);
    let (header, frame, payload) = super_frame(mac(0), Mac::BROADCAST, 5000, 1000);
    routers.0[0].capture(header, &frame);
    routers.settle();
    let whole = routers.0[1].take_written();
    assert_eq!(whole.len(), 1);
    assert_eq!(whole[0].0.gso_type, GSO_TCPV4);

    // Refuses until joining was given up; then nothing is refused any more.
    *routers.0[1].tap.write_error.lock().unwrap() = Some(libc::EINVAL);
    routers.0[0].capture(header, &frame);
    routers.settle();
    assert_eq!(routers.0[1].dropped(DropReason::TapFailed), 5);
    *routers.0[1].tap.write_error.lock().unwrap() = None;
    routers.0[0].capture(header, &frame);
    routers.settle();
    let cut = routers.0[1].take_written();
    assert_eq!(cut.len(), 5);
    assert!(cut.iter().all(|(header, _)| header.gso_type == GSO_NONE));
    let got: Vec<u8> = cut
        .iter()
        .flat_map(|(_, frame)| tcp_payload(frame).to_vec())
        .collect();
    assert!(got == payload);
    routers.assert_balanced();
}

#[test]
fn an_open_checksum_is_closed_at_one_end_or_the_other() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        let frame = udp(mac(0), Mac::BROADCAST, &[1; 400], false);
        let (header, open) = with_open_checksum(&frame);
        assert_eq!(header.flags, FLAG_NEEDS_CSUM);
        routers.0[0].capture(header, &open);
        routers.settle();
        let written = routers.0[1].take_written();
        let [(header, got)] = &written[..] else {
            panic!("{written:?}")
        };
        assert_eq!(completed(header, got), frame, "{overlay:?}");
        routers.assert_balanced();
    }
}

/// Returns a packet as a neighbour makes it, of frames with the peers that they name.
fn sleeve_packet(tunnel: &Tunnel, frames: &[(usize, usize, &[u8])]) -> Vec<u8> {
    let mut builder = PacketBuilder::new(tunnel, Channel::Df);
    let mut packet = vec![0; 2000];
    for &(source, dest, frame) in frames {
        builder
            .append(&mut packet, name(source), name(dest), frame.len())
            .unwrap()
            .copy_from_slice(frame);
    }
    let len = builder.finish(tunnel, &mut packet);
    packet.truncate(len);
    packet
}

#[test]
fn what_we_captured_does_not_come_back_to_us() {
    let mut routers = Routers::new(2, &[(0, 1)], Overlay::Sleeve);
    let frame = ethernet(mac(0), Mac::BROADCAST, b"an echo");
    let packet = sleeve_packet(&sleeve_end(1, 0, false), &[(0, 0, &frame)]);
    routers.0[0].receive([(address(1), packet)]);
    assert_eq!(routers.0[0].dropped(DropReason::OwnSource), 1);
    assert_eq!(routers.0[0].take_written(), []);
    routers.assert_balanced();
}

/// While routers see the mesh differently, what one of them relays may come back, and what is for
/// many may come a second way. Neither goes any further.
#[test]
fn nothing_goes_back_or_comes_twice() {
    let mut routers = Routers::new(3, &[(0, 1), (1, 2)], Overlay::Sleeve);
    let frame = ethernet(mac(0), mac(2), b"for one");
    let flooded = ethernet(mac(0), Mac::BROADCAST, b"for all");
    let tunnel = sleeve_end(2, 1, false);
    let packet = sleeve_packet(&tunnel, &[(0, 2, &frame), (0, 1, &flooded)]);
    routers.0[1].receive([(address(2), packet)]);
    assert_eq!(routers.0[1].dropped(DropReason::Returned), 1);
    assert_eq!(routers.0[1].dropped(DropReason::NotParent), 1);
    assert_eq!(routers.0[1].take_sent(), []);
    assert_eq!(routers.0[1].take_written(), []);
    routers.assert_balanced();
}

#[test]
fn multicast_of_the_bridge_itself_stays_here() {
    let mut routers = Routers::new(2, &[(0, 1)], Overlay::Native);
    let bridge = name(0).to_mac();
    let report = Mac::from_bytes([0x33, 0x33, 0, 0, 0, 0x16]);
    routers.capture(0, &ethernet(bridge, report, b"multicast listener report"));
    assert_eq!(routers.0[0].dropped(DropReason::OwnMulticast), 1);
    assert_eq!(routers.0[1].take_written(), []);
    // A host that containers reach asks for their addresses, and containers use multicast.
    routers.capture(0, &ethernet(bridge, Mac::BROADCAST, b"who has"));
    routers.capture(0, &ethernet(mac(0), report, b"of a container"));
    assert_eq!(routers.0[1].take_written().len(), 2);
    routers.assert_balanced();
}

#[test]
fn a_plain_packet_is_taken_from_its_links_own_address_only() {
    let mut routers = Routers::new(2, &[(0, 1)], Overlay::Sleeve);
    let tunnel = sleeve_end(1, 0, false);
    let frame = ethernet(mac(1), Mac::BROADCAST, b"hello");
    let heartbeat = {
        let mut frame = vec![0; Special::Heartbeat(ConnUid(5)).frame_len()];
        Special::Heartbeat(ConnUid(5)).write(&mut frame);
        frame
    };
    let packet = sleeve_packet(&tunnel, &[(1, 0, &frame), (1, 0, &heartbeat)]);
    let elsewhere = SocketAddrV4::new(*address(1).ip(), 9);
    routers.0[0].receive([(elsewhere, packet.clone())]);
    assert_eq!(routers.0[0].dropped(DropReason::OtherAddress), 1);
    assert_eq!(routers.0[0].take_written(), []);
    assert_eq!(routers.0[0].shared.macs.lookup(mac(1)), None);
    // The neighbour may have moved: control hears of it and decides by the number that it knows.
    assert!(routers.0[0].events.try_recv().is_ok());

    routers.0[0].receive([(address(1), packet.clone())]);
    assert_eq!(routers.0[0].take_written().len(), 1);

    // While the neighbour sends by another link, a plain packet can only be somebody else's.
    routers.0[0].publish(|snapshot| snapshot.with_idle(vec![LinkId(1)]));
    routers.0[0].receive([(address(1), packet)]);
    assert_eq!(routers.0[0].dropped(DropReason::IdleLink), 1);
    assert_eq!(routers.0[0].take_written(), []);
    routers.assert_balanced();
}

/// Puts the fragments of one packet together again.
fn reassembled(fragments: &[(VnetHeader, Vec<u8>)]) -> Vec<u8> {
    let mut payload = Vec::new();
    for (_, frame) in fragments {
        let ip = Frame::parse(frame).unwrap().ipv4().unwrap();
        assert!(ip.total_len() <= CONTAINER_MTU);
        assert_eq!(
            usize::from(ip.flags_and_offset() & 0x1fff) * 8,
            payload.len()
        );
        payload.extend_from_slice(ip.payload());
    }
    payload
}

#[test]
fn packets_without_df_arrive_in_pieces_that_any_container_takes() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        for size in [1350, 1380, 1400, 9000, 60_000] {
            let frame = udp(mac(0), Mac::BROADCAST, &vec![7; size], false);
            routers.capture(0, &frame);
            let fragments = routers.0[1].take_written();
            assert!(
                reassembled(&fragments) == frame[34..],
                "{overlay:?}: {size}"
            );
        }
        routers.assert_balanced();
    }
}

#[test]
fn senders_of_larger_packets_with_df_are_told_by_their_destination() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        routers.capture(1, &ethernet(mac(1), Mac::BROADCAST, b"here"));
        routers.0[0].take_written();
        for size in [1380, 9000, 60_000] {
            let frame = udp(mac(0), mac(1), &vec![7; size], true);
            assert_eq!(routers.capture(0, &frame), 0);
            let answers = routers.0[0].take_written();
            let [(_, answer)] = &answers[..] else {
                panic!("{overlay:?}: {size}: {answers:?}")
            };
            assert_eq!((&answer[..6], &answer[6..12]), (&frame[6..12], &frame[..6]));
            let ip = Frame::parse(answer).unwrap().ipv4().unwrap();
            assert_eq!(
                (ip.source(), ip.destination()),
                ([10, 7, 0, 2], [10, 7, 0, 1])
            );
            let mtu = u16::from_be_bytes([ip.payload()[6], ip.payload()[7]]);
            assert_eq!(usize::from(mtu), CONTAINER_MTU);
        }
        routers.assert_balanced();
    }
}

#[test]
fn senders_are_told_of_a_smaller_link_further_on() {
    let mut routers = Routers::new(3, &[(0, 1), (1, 2)], Overlay::Sleeve);
    let narrow = &routers.0[1].snapshot.tunnels()[1];
    narrow.set_limits(1200, 1300);
    routers.capture(2, &ethernet(mac(2), Mac::BROADCAST, b"here"));
    routers.0[0].take_written();
    let frame = udp(mac(0), mac(2), &[7; 1300], true);
    routers.capture(0, &frame);
    assert_eq!(routers.0[1].dropped(DropReason::TooBig), 1);
    let answers = routers.0[0].take_written();
    let ip = Frame::parse(&answers[0].1).unwrap().ipv4().unwrap();
    assert_eq!((ip.protocol(), ip.source()), (1, [10, 7, 0, 2]));
    assert_eq!(ip.payload()[6..8], 1200_u16.to_be_bytes());
    routers.assert_balanced();
}

/// Segments that are larger than a link carries get there, though nobody is told.
#[test]
fn tcp_needs_no_answers() {
    for overlay in Overlay::ALL {
        let mut routers = Routers::new(2, &[(0, 1)], overlay);
        routers.capture(1, &ethernet(mac(1), Mac::BROADCAST, b"here"));
        routers.0[0].take_written();
        let (header, large, payload) = super_frame(mac(0), mac(1), 50_000, 8948);
        let whole = tcp(mac(0), mac(1), &payload[..8948]);
        for (header, frame, bytes) in [(header, large, 50_000), (VnetHeader::PLAIN, whole, 8948)] {
            routers.0[0].capture(header, &frame);
            routers.settle();
            assert_eq!(routers.0[0].take_written(), [], "{overlay:?}");
            let mut got = Vec::new();
            for (header, frame) in routers.0[1].take_written() {
                let frame = completed(&header, &frame);
                let layout = Frame::parse(&frame).unwrap().layout().unwrap();
                if !header.is_super() {
                    assert!(checksum::verify(&frame, &layout), "{overlay:?}");
                }
                got.extend_from_slice(tcp_payload(&frame));
            }
            assert!(got == payload[..bytes], "{overlay:?}: {} bytes", got.len());
        }
        routers.assert_balanced();
    }
}
