use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::vectors::{bytes, list, load, text};

/// Sleeve in its usual place: both ends offer two overlays.
const SWITCHED: OverlayMode = OverlayMode::Switched { common: 2 };

fn name(case: &Value, key: &str) -> PeerName {
    text(case, key).parse().unwrap()
}

/// Returns the envelope that a recorded gossip message has, from its parts.
fn envelope<'v>(case: &'v Value, tag: u8, payload: &'v [u8]) -> Message<'v> {
    let (channel, source) = (text(case, "channel"), name(case, "src"));
    match tag {
        4 => Message::Gossip {
            channel,
            sender: source,
            payload,
        },
        5 => Message::Unicast {
            channel,
            source,
            dest: name(case, "dst"),
            payload,
        },
        6 => Message::Broadcast {
            channel,
            source,
            payload,
        },
        tag => panic!("tag {tag}"),
    }
}

#[test]
fn recorded_gossip_is_read_and_written_again() {
    let vectors = load("gossip.json");
    let cases = vectors.as_array().unwrap();
    let mut seen = [0; 3];
    for case in cases {
        let message = bytes(case, "message");
        let tag = match text(case, "kind") {
            "gossip" => 4,
            "unicast" => 5,
            "broadcast" => 6,
            _ => continue,
        };
        assert_eq!(message[0], tag);
        let payload = bytes(case, "payload");
        let expected = envelope(case, tag, &payload);
        assert_eq!(Message::decode(&message, SWITCHED), Ok(expected));
        assert_eq!(expected.encode(), message);
        seen[usize::from(tag - 4)] += 1;
    }
    assert_eq!(seen, [3, 3, 3]);
}

#[test]
fn recorded_control_messages_are_read_and_written_again() {
    let vectors = load("gossip.json");
    let cases: Vec<_> = vectors
        .as_array()
        .unwrap()
        .iter()
        .filter(|case| case["kind"] == "control")
        .collect();
    assert_eq!(cases.len(), 6);
    for case in cases {
        let message = bytes(case, "message");
        let (mode, expected) = match text(case, "name") {
            "heartbeat" => (SWITCHED, Some(Message::Heartbeat)),
            "legacy sleeve ConnectionEstablished" => {
                (OverlayMode::Legacy, OverlayMode::Legacy.control(0, 1, &[]))
            }
            "legacy sleeve FragmentationReceived" => {
                (OverlayMode::Legacy, OverlayMode::Legacy.control(0, 2, &[]))
            }
            "legacy sleeve PMTUVerified 1414" => (
                OverlayMode::Legacy,
                OverlayMode::Legacy.control(0, 3, &[5, 0x86]),
            ),
            "overlay control: overlay 0, sleeve ConnectionEstablished" => {
                (SWITCHED, SWITCHED.control(0, 1, &[]))
            }
            "overlay control: overlay 1, sleeve PMTUVerified 1414" => {
                (SWITCHED, SWITCHED.control(1, 3, &[5, 0x86]))
            }
            other => panic!("{other}"),
        };
        let expected = expected.unwrap();
        assert_eq!(Message::decode(&message, mode), Ok(expected));
        assert_eq!(expected.encode(), message);
    }
}

#[test]
fn captured_messages_are_read_and_written_again() {
    let vectors = load("live_capture.json");
    let mut seen = 0;
    for session in vectors.as_array().unwrap() {
        let version = session["version"].as_u64().unwrap();
        let mode = match version {
            1 => OverlayMode::Legacy,
            _ => OverlayMode::Switched { common: 1 },
        };
        // In version 2 the first message of each direction holds the features.
        let features = if version == 2 { 2 } else { 0 };
        for case in list(session, "messages").iter().skip(features) {
            let plaintext = bytes(case, "plaintext");
            let message = Message::decode(&plaintext, mode).unwrap();
            assert_eq!(message.encode(), plaintext);
            if case["channel"].is_string() {
                let payload = bytes(case, "payload");
                assert_eq!(message, envelope(case, plaintext[0], &payload));
            } else {
                let control = matches!(message, Message::Overlay { .. } | Message::Legacy { .. });
                assert!(control, "{message:?}");
            }
            seen += 1;
        }
    }
    assert_eq!(seen, 69);
}

#[test]
fn no_control_message_can_be_made_that_a_link_does_not_know() {
    assert_eq!(SWITCHED.index(2), None);
    assert_eq!(SWITCHED.control(2, 1, &[]), None);
    assert_eq!(SWITCHED.index(1).map(OverlayIndex::get), Some(1));
    let none = OverlayMode::Switched { common: 0 };
    assert_eq!(none.control(0, 1, &[]), None);
    let all = OverlayMode::Switched { common: u16::MAX };
    assert_eq!(all.index(255).map(OverlayIndex::get), Some(255));
    assert_eq!(all.index(256), None);

    assert_eq!(OverlayMode::Legacy.index(0), None);
    assert_eq!(OverlayMode::Legacy.control(1, 1, &[]), None);
    for tag in 0..=255 {
        let message = OverlayMode::Legacy.control(0, tag, &[]);
        assert_eq!(message.is_some(), (1..=3).contains(&tag));
    }
}

#[test]
fn control_messages_are_checked_against_the_link() {
    let decode = |message: &'static [u8]| Message::decode(message, SWITCHED);
    assert_eq!(decode(&[7]), Err(MessageError::OverlayTooShort(0)));
    assert_eq!(decode(&[7, 0]), Err(MessageError::OverlayTooShort(1)));
    let absent = Err(MessageError::OverlayIndex {
        index: 2,
        common: 2,
    });
    assert_eq!(decode(&[7, 2, 1]), absent);
    // Each link knows one of the two ways; what comes in the other means nothing to it.
    assert_eq!(decode(&[1]), Ok(Message::Unknown(1)));
    assert_eq!(decode(&[3, 5, 0x86]), Ok(Message::Unknown(3)));
    let legacy = Message::decode(&[7], OverlayMode::Legacy);
    assert_eq!(legacy, Ok(Message::Unknown(7)));
}

#[test]
fn odd_messages_are_told_apart() {
    for mode in [SWITCHED, OverlayMode::Legacy] {
        assert_eq!(Message::decode(&[], mode), Ok(Message::Empty));
        assert_eq!(Message::decode(&[8, 1], mode), Ok(Message::Unknown(8)));
        assert_eq!(Message::decode(&[255], mode), Ok(Message::Unknown(255)));
        assert_eq!(Message::decode(&[0, 1, 2], mode), Ok(Message::Heartbeat));
    }
    assert!(Message::Empty.encode().is_empty());
    assert_eq!(Message::Unknown(9).encode(), [9]);
}

fn gossip(channel: &str) -> Message<'_> {
    Message::Gossip {
        channel,
        sender: PeerName::UNKNOWN,
        payload: &[],
    }
}

#[test]
fn broken_envelopes_are_refused() {
    let channel = "x".repeat(CHANNEL_BYTES_MAX);
    let fits = gossip(&channel).encode();
    assert_eq!(Message::decode(&fits, SWITCHED), Ok(gossip(&channel)));
    let long = gossip(&(channel + "x")).encode();
    assert!(Message::decode(&long, SWITCHED).is_err());

    let message = gossip("a").encode();
    let byte = message.iter().position(|b| *b == b'a').unwrap();
    let mut not_utf8 = message.clone();
    not_utf8[byte] = 0xff;
    assert!(Message::decode(&not_utf8, SWITCHED).is_err());

    let mut wide = vec![4];
    wide.extend([4, 12, 0, 1, b'a']);
    wide.extend([10, 6, 0, 0xf9, 1, 0, 0, 0, 0, 0, 0]);
    wide.extend([3, 10, 0, 0]);
    let error = Message::decode(&wide, SWITCHED).unwrap_err();
    assert_eq!(
        error.to_string(),
        "bad envelope of a gossip message: invalid peer name: more than 48 bits"
    );
    for end in 1..message.len() {
        assert!(Message::decode(&message[..end], SWITCHED).is_err(), "{end}");
    }
    let followed = [&message[..], b"garbage"].concat();
    assert_eq!(Message::decode(&followed, SWITCHED), Ok(gossip("a")));
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    let parts = (
        "[a-zA-Z]{0,20}",
        0u64..1 << 48,
        0u64..1 << 48,
        proptest::collection::vec(any::<u8>(), 0..300),
        0..8u8,
    );
    parts.prop_map(|(channel, source, dest, payload, tag)| {
        let [source, dest] = [source, dest].map(|name| PeerName::from_u64(name).unwrap());
        let (channel, payload) = (&channel[..], &payload[..]);
        let message = match tag {
            0 => Message::Heartbeat,
            1..=3 => OverlayMode::Legacy.control(0, tag, payload).unwrap(),
            4 => Message::Gossip {
                channel,
                sender: source,
                payload,
            },
            5 => Message::Unicast {
                channel,
                source,
                dest,
                payload,
            },
            6 => Message::Broadcast {
                channel,
                source,
                payload,
            },
            _ => SWITCHED.control(1, 200, payload).unwrap(),
        };
        message.encode()
    })
}

fn mode_of(message: &[u8]) -> OverlayMode {
    match message.first() {
        Some(1..=3) => OverlayMode::Legacy,
        _ => SWITCHED,
    }
}

proptest! {
    #[test]
    fn any_message_comes_back(bytes in any_message()) {
        let message = Message::decode(&bytes, mode_of(&bytes)).unwrap();
        prop_assert!(!matches!(message, Message::Unknown(_) | Message::Empty));
        prop_assert_eq!(message.encode(), bytes);
    }

    #[test]
    fn changed_messages_are_read_or_refused(
        mut bytes in any_message(),
        place: usize,
        value: u8,
        end: usize,
    ) {
        let len = bytes.len();
        bytes[place % len] ^= value;
        bytes.truncate(end % (len + 1));
        for mode in [SWITCHED, OverlayMode::Legacy] {
            if let Ok(message) = Message::decode(&bytes, mode) {
                let again = message.encode();
                prop_assert_eq!(Message::decode(&again, mode), Ok(message));
            }
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        crate::fuzzing::fuzz_message(&bytes);
    }
}
