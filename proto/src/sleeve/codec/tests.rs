use proptest::prelude::*;

use super::super::tunnel::{LinkId, TunnelConfig};
use super::super::wire::{COUNTER_DF, PACKET_BYTES_MAX};
use super::*;
use crate::crypto::SessionKey;
use crate::ethernet::testing::noise;

const US: PeerName = PeerName::from_bytes([1; 6]);
const PEER: PeerName = PeerName::from_bytes([2; 6]);
const FAR: PeerName = PeerName::from_bytes([3; 6]);

fn link(encrypted: bool) -> (Tunnel, Tunnel) {
    let end = |us, peer, dialled| {
        Tunnel::new(TunnelConfig {
            id: LinkId(1),
            us,
            peer,
            key: encrypted.then(|| SessionKey::from_bytes([5; 32])),
            dialled,
            remote: None,
        })
    };
    (end(US, PEER, true), end(PEER, US, false))
}

fn seal(tunnel: &Tunnel, channel: Channel, frames: &[Vec<u8>]) -> Vec<u8> {
    let mut buffer = vec![0; 65536];
    let mut builder = PacketBuilder::new(tunnel, channel);
    for frame in frames {
        builder
            .append(&mut buffer, US, FAR, frame.len())
            .unwrap()
            .copy_from_slice(frame);
    }
    assert_eq!(builder.frames(), frames.len());
    let len = builder.len();
    assert_eq!(builder.finish(tunnel, &mut buffer), len);
    buffer.truncate(len);
    buffer
}

fn take(opened: &mut Opened, packet: &[u8]) -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    while let Some(next) = opened.next(packet) {
        let frame = next.unwrap();
        assert_eq!((frame.source, frame.destination), (US, FAR));
        frames.push(packet[frame.range].to_vec());
    }
    frames
}

proptest! {
    #[test]
    fn what_is_sealed_opens(
        encrypted in any::<bool>(),
        df in any::<bool>(),
        lens in proptest::collection::vec(0usize..600, 0..100),
    ) {
        let (sender, receiver) = link(encrypted);
        let channel = if df { Channel::Df } else { Channel::NonDf };
        let frames: Vec<_> = lens.iter().map(|len| noise(*len as u64, *len)).collect();
        let mut packet = seal(&sender, channel, &frames);
        prop_assert!(packet.len() <= PACKET_BYTES_MAX);
        let mut opened = open(&receiver, &mut Replay::new(), &mut packet).unwrap();
        prop_assert_eq!(opened.channel(), encrypted.then_some(channel));
        prop_assert_eq!(take(&mut opened, &packet), frames);
        prop_assert!(opened.next(&packet).is_none());
    }

    /// No packet with a bit changed, cut or added opens, and no number is used up by one.
    #[test]
    fn changed_packets_do_not_open(len in 0usize..200, bit in any::<u16>(), cut in any::<bool>()) {
        let (sender, receiver) = link(true);
        let packet = seal(&sender, Channel::Df, &[noise(1, len)]);
        let mut replay = Replay::new();
        let mut changed = packet.clone();
        let bit = usize::from(bit) % (packet.len() * 8);
        if cut {
            changed.truncate(bit / 8);
        } else {
            changed[bit / 8] ^= 1 << (bit % 8);
        }
        let expected = match (cut, bit / 8) {
            (true, ..6) => OpenError::TooShort,
            (false, ..6) => OpenError::OtherSender,
            (true, 6..30) => OpenError::TooShort,
            _ => OpenError::Forged,
        };
        prop_assert_eq!(open(&receiver, &mut replay, &mut changed).err(), Some(expected));
        let mut longer = packet.clone();
        longer.push(0);
        prop_assert_eq!(open(&receiver, &mut replay, &mut longer).err(), Some(OpenError::Forged));
        prop_assert!(open(&receiver, &mut replay, &mut packet.clone()).is_ok());
    }

    #[test]
    fn any_bytes_are_harmless(data in proptest::collection::vec(any::<u8>(), 0..300)) {
        crate::fuzzing::fuzz_sleeve(&data);
    }

    /// Authentic packets with any content, which a member of the mesh can send.
    #[test]
    fn any_frames_are_harmless(data in proptest::collection::vec(prop_oneof![Just(0u8), any::<u8>()], 0..100)) {
        let (sender, receiver) = link(true);
        let counter = sender.next_counter(Channel::NonDf);
        let mut packet = vec![0; SEALED_HEADER_BYTES];
        packet[PACKET_NAME].copy_from_slice(US.as_bytes());
        packet[PACKET_COUNTER].copy_from_slice(&counter.to_be_bytes());
        packet.extend(&data);
        let tag = sender
            .key()
            .unwrap()
            .seal_in_place(&sender.send_nonce(counter), &mut packet[SEALED_HEADER_BYTES..]);
        packet[PACKET_TAG].copy_from_slice(&tag);
        let mut opened = open(&receiver, &mut Replay::new(), &mut packet).unwrap();
        prop_assert_eq!(&packet[SEALED_HEADER_BYTES..], &data[..]);
        let mut used = 0;
        while let Some(next) = opened.next(&packet) {
            used += match next {
                Ok(frame) => FRAME_HEADER_BYTES + frame.range.len(),
                Err(DecodeError::Trailing(left)) => left,
                Err(DecodeError::FrameTooShort { expected, got }) => {
                    prop_assert!(got < expected);
                    FRAME_HEADER_BYTES + got
                }
            };
        }
        prop_assert_eq!(used, data.len());
    }
}

#[test]
fn packets_are_not_taken_back_by_their_sender_or_another_key() {
    let (sender, receiver) = link(true);
    let packet = seal(&sender, Channel::Df, &[vec![1; 60]]);
    // The same key, but the nonce of the other direction.
    let mirror = Tunnel::new(TunnelConfig {
        id: LinkId(1),
        us: PEER,
        peer: US,
        key: Some(SessionKey::from_bytes([5; 32])),
        dialled: true,
        remote: None,
    });
    let refused = |tunnel: &Tunnel| open(tunnel, &mut Replay::new(), &mut packet.clone()).err();
    assert_eq!(refused(&mirror), Some(OpenError::Forged));
    assert_eq!(refused(&sender), Some(OpenError::OtherSender));
    assert_eq!(refused(&link(false).1), None);
    assert_eq!(refused(&receiver), None);
    let plain = seal(&link(false).0, Channel::Df, &[vec![1; 60]]);
    let error = open(&receiver, &mut Replay::new(), &mut plain.clone()).err();
    assert_eq!(error, Some(OpenError::Forged));
}

#[test]
fn a_replayed_packet_is_refused_once_it_was_opened() {
    let (sender, receiver) = link(true);
    let packets: Vec<_> = (0..5)
        .map(|_| seal(&sender, Channel::Df, &[vec![7; 60]]))
        .collect();
    let mut replay = Replay::new();
    for packet in packets.iter().rev() {
        assert!(open(&receiver, &mut replay, &mut packet.clone()).is_ok());
    }
    for packet in &packets {
        let error = open(&receiver, &mut replay, &mut packet.clone()).err();
        assert_eq!(error, Some(OpenError::Replayed));
    }
}

#[test]
fn a_packet_takes_what_the_limits_allow() {
    let (tunnel, _) = link(true);
    tunnel.set_limits(1414, 1472);
    let mut buffer = vec![0; 65536];
    let mut df = PacketBuilder::new(&tunnel, Channel::Df);
    assert!(df.is_empty());
    // The MTU of the link and an Ethernet header make exactly the largest packet.
    assert!(df.fits(1428) && !df.fits(1429));
    assert!(df.append(&mut buffer, US, PEER, 1429).is_none());
    assert!(df.append(&mut buffer, US, PEER, 1428).is_some());
    assert_eq!((df.len(), df.frames()), (1472, 1));
    assert!(!df.fits(0));

    // Without DF the first frame may be large, but nothing is added beyond the limit.
    let mut non_df = PacketBuilder::new(&tunnel, Channel::NonDf);
    assert!(non_df.fits(65463) && !non_df.fits(65464));
    assert!(non_df.append(&mut buffer, US, PEER, 1000).is_some());
    assert!(non_df.fits(414) && !non_df.fits(415));

    let mut many = PacketBuilder::new(&tunnel, Channel::Df);
    for _ in 0..FRAMES_PER_PACKET_MAX {
        assert!(many.append(&mut buffer, US, PEER, 0).is_some());
    }
    assert!(many.append(&mut buffer, US, PEER, 0).is_none());
    assert_eq!(many.frames(), FRAMES_PER_PACKET_MAX);
}

#[test]
fn a_short_buffer_is_no_harm() {
    let (tunnel, _) = link(true);
    let mut builder = PacketBuilder::new(&tunnel, Channel::Df);
    for len in 0..SEALED_HEADER_BYTES + FRAME_HEADER_BYTES + 60 {
        assert!(builder.append(&mut vec![0; len], US, PEER, 60).is_none());
    }
    assert!(builder.is_empty());
    assert!(builder.append(&mut [0; 104], US, PEER, 60).is_some());
    assert_eq!(builder.finish(&tunnel, &mut [0; 103]), 0);
}

#[test]
fn a_clone_takes_an_append_back() {
    let (tunnel, receiver) = link(true);
    let mut buffer = vec![0; 2000];
    let mut builder = PacketBuilder::new(&tunnel, Channel::Df);
    builder
        .append(&mut buffer, US, FAR, 3)
        .unwrap()
        .copy_from_slice(b"one");
    let before = builder.clone();
    builder
        .append(&mut buffer, US, FAR, 3)
        .unwrap()
        .copy_from_slice(b"two");
    let len = before.finish(&tunnel, &mut buffer);
    buffer.truncate(len);
    let mut opened = open(&receiver, &mut Replay::new(), &mut buffer).unwrap();
    assert_eq!(take(&mut opened, &buffer), [b"one"]);
}

#[test]
fn counters_go_up_per_channel_and_carry_it() {
    let (sender, _) = link(true);
    let counter = |channel| {
        let packet = seal(&sender, channel, &[vec![0; 14]]);
        u64::from_be_bytes(packet[PACKET_COUNTER].try_into().unwrap())
    };
    assert_eq!(counter(Channel::Df), COUNTER_DF);
    assert_eq!(counter(Channel::NonDf), 0);
    assert_eq!(counter(Channel::Df), COUNTER_DF | 1);
    assert_eq!(counter(Channel::NonDf), 1);
}
