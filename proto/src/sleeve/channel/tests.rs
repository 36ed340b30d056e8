use super::super::tunnel::{LinkId, TunnelConfig};
use super::*;
use crate::ethernet::testing::{Spec, noise};
use crate::types::PeerName;

fn tunnel(mtu: usize, proven: bool) -> Tunnel {
    let tunnel = Tunnel::new(TunnelConfig {
        id: LinkId(1),
        us: PeerName::from_bytes([1; 6]),
        peer: PeerName::from_bytes([2; 6]),
        key: None,
        dialled: true,
        remote: Some("10.0.0.2:6783".parse().unwrap()),
    });
    tunnel.set_limits(mtu, mtu + tunnel.overhead() - 28);
    tunnel.set_fragments_proven(proven);
    tunnel
}

/// Returns a frame of this length behind the Ethernet header.
fn frame(kind: &str, len: usize) -> Vec<u8> {
    let mut spec = Spec::udp(Vec::new());
    match kind {
        "v4" => spec.dont_fragment = false,
        "v4 df" => spec.dont_fragment = true,
        "v6" => spec.v6 = true,
        "tagged" => spec.tags = vec![5],
        "arp" => {
            let mut frame = vec![0; 14 + len];
            frame[12..14].copy_from_slice(&[8, 6]);
            return frame;
        }
        other => panic!("{other}"),
    }
    spec.payload = noise(1, len - spec.headers_len() - 4 * spec.tags.len());
    spec.build()
}

const DF: Choice = Choice::Send(Channel::Df);
const NON_DF: Choice = Choice::Send(Channel::NonDf);

#[test]
fn every_kind_of_frame_takes_its_channel() {
    use Choice::{Fragment, TooBig};
    let broadcast_drop = Choice::Drop(DropReason::TooBigBroadcast);
    // Kind; fragments not proven: fits, too big, too big broadcast; proven: the same.
    let table = [
        ("v4", [DF, Fragment, Fragment], [NON_DF, NON_DF, NON_DF]),
        (
            "v4 df",
            [DF, TooBig, broadcast_drop],
            [DF, TooBig, broadcast_drop],
        ),
        ("v6", [NON_DF, TooBig, NON_DF], [NON_DF, NON_DF, NON_DF]),
        ("tagged", [NON_DF; 3], [NON_DF; 3]),
        ("arp", [NON_DF; 3], [NON_DF; 3]),
    ];
    for (kind, unproven, proven) in table {
        for (tunnel, expected) in [
            (tunnel(1414, false), unproven),
            (tunnel(1414, true), proven),
        ] {
            let (fits, too_big) = (frame(kind, 1414), frame(kind, 1415));
            assert_eq!(fits.len(), 1428);
            let choices = [
                choose(&tunnel, &fits, false),
                choose(&tunnel, &too_big, false),
                choose(&tunnel, &too_big, true),
            ];
            assert_eq!(choices, expected, "{kind} {tunnel:?}");
            assert_eq!(choose(&tunnel, &fits, true), expected[0], "{kind}");
        }
    }
}

#[test]
fn nothing_is_sent_before_the_address_is_known() {
    let tunnel = tunnel(1414, true);
    tunnel.set_remote(None);
    for kind in ["v4", "v4 df", "v6", "arp"] {
        let choice = choose(&tunnel, &frame(kind, 100), false);
        assert_eq!(choice, Choice::Drop(DropReason::NoAddress));
    }
}

#[test]
fn below_the_least_mtu_of_ipv6_only_fragments_help() {
    assert_eq!(
        choose(&tunnel(1279, false), &frame("v6", 1400), false),
        NON_DF
    );
    assert_eq!(
        choose(&tunnel(1280, false), &frame("v6", 1400), false),
        Choice::TooBig
    );
}

#[test]
fn what_no_packet_holds_is_dropped() {
    let tunnel = tunnel(65535, true);
    let largest = PACKET_BYTES_MAX - 6 - 14 - 14;
    assert_eq!(choose(&tunnel, &frame("arp", largest), false), NON_DF);
    let dropped = Choice::Drop(DropReason::TooBig);
    assert_eq!(choose(&tunnel, &frame("arp", largest + 1), false), dropped);
}

#[test]
fn frames_that_are_no_frames_are_carried() {
    // A peer may relay anything through us.
    for len in 0..34 {
        let mut stub = frame("v4 df", 100);
        stub.truncate(len);
        assert_eq!(choose(&tunnel(1414, false), &stub, false), NON_DF);
    }
}
