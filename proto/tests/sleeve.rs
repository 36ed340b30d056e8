//! Sleeve packets against what Weave Net makes and takes.

#![allow(clippy::unwrap_used, clippy::panic)]

use std::path::Path;

use proto::crypto::SessionKey;
use proto::ethernet::{Frame, is_special};
use proto::sleeve::codec::open;
use proto::sleeve::fragment::Fragments;
use proto::sleeve::wire::{self, COUNTER_DF};
use proto::sleeve::{
    Channel, LinkId, OpenError, PacketBuilder, Replay, Special, Tunnel, TunnelConfig, icmp,
};
use proto::types::{ConnUid, PeerName};
use serde_json::Value;
use sha2::{Digest, Sha256};

fn vectors(file: &str) -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/vectors")
        .join(file);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn hex(text: &Value) -> Vec<u8> {
    let text = text.as_str().unwrap();
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn name(text: &Value) -> PeerName {
    text.as_str().unwrap().parse().unwrap()
}

fn raw_name(text: &Value) -> PeerName {
    PeerName::from_bytes(hex(text).try_into().unwrap())
}

fn array(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

/// Compares bytes with their description: whole, or by length, hash and both ends.
fn assert_bytes(bytes: &[u8], expected: &Value, what: &str) {
    assert_eq!(
        bytes.len() as u64,
        expected["len"].as_u64().unwrap(),
        "{what}"
    );
    if expected.get("hex").is_some() {
        assert_eq!(to_hex(bytes), expected["hex"].as_str().unwrap(), "{what}");
        return;
    }
    assert_eq!(
        to_hex(&bytes[..64]),
        expected["head"].as_str().unwrap(),
        "{what}"
    );
    assert_eq!(
        to_hex(&bytes[bytes.len() - 32..]),
        expected["tail"].as_str().unwrap(),
        "{what}"
    );
    let hash = to_hex(&Sha256::digest(bytes));
    assert_eq!(hash, expected["sha256"].as_str().unwrap(), "{what}");
}

fn tunnel(us: PeerName, peer: PeerName, key: Option<SessionKey>, dialled: bool) -> Tunnel {
    Tunnel::new(TunnelConfig {
        id: LinkId(1),
        us,
        peer,
        key,
        dialled,
        remote: None,
    })
}

/// A frame with the peers that it travels between.
type Travelling = (PeerName, PeerName, Vec<u8>);

fn seal(tunnel: &Tunnel, channel: Channel, frames: &[Travelling]) -> Vec<u8> {
    let mut buffer = vec![0xee; 65536];
    let mut builder = PacketBuilder::new(tunnel, channel);
    for (source, destination, frame) in frames {
        builder
            .append(&mut buffer, *source, *destination, frame.len())
            .unwrap()
            .copy_from_slice(frame);
    }
    let len = builder.finish(tunnel, &mut buffer);
    buffer.truncate(len);
    buffer
}

/// The frames of a packet, the error that ended them, and the channel of the packet.
type Taken = (Vec<Travelling>, Option<String>, Option<Channel>);

/// Opens a packet and takes all frames.
fn take(tunnel: &Tunnel, replay: &mut Replay, mut packet: Vec<u8>) -> Result<Taken, OpenError> {
    let mut opened = open(tunnel, replay, &mut packet)?;
    let mut frames = Vec::new();
    let mut error = None;
    while let Some(next) = opened.next(&packet) {
        match next {
            Ok(frame) => frames.push((
                frame.source,
                frame.destination,
                packet[frame.range].to_vec(),
            )),
            Err(end) => error = Some(end.to_string()),
        }
    }
    Ok((frames, error, opened.channel()))
}

/// One router's end of a link, as sender or receiver.
struct End {
    dialled: bool,
    encrypted: bool,
    sender: Tunnel,
    receiver: Tunnel,
    replay: Replay,
}

#[test]
fn packets_are_those_of_the_original() {
    let vectors = vectors("sleeve.json");
    let us = raw_name(&vectors["local_name"]);
    let peer = "00:00:00:00:00:02".parse().unwrap();
    let key: [u8; 32] = hex(&vectors["session_key"]).try_into().unwrap();
    let mut ends: Vec<End> = [(false, false), (false, true), (true, true)]
        .into_iter()
        .map(|(dialled, encrypted)| {
            let key = || encrypted.then(|| SessionKey::from_bytes(key));
            End {
                dialled,
                encrypted,
                sender: tunnel(us, peer, key(), dialled),
                receiver: tunnel(peer, us, key(), !dialled),
                replay: Replay::new(),
            }
        })
        .collect();

    let packets = array(&vectors["packets"]);
    for packet in packets {
        let what = format!("{} {}", packet["name"], packet["sender_outbound"]);
        let encrypted = packet["encrypted"].as_bool().unwrap();
        let dialled = packet["sender_outbound"].as_bool().unwrap_or(false);
        let end = ends
            .iter_mut()
            .find(|end| (end.dialled, end.encrypted) == (dialled, encrypted))
            .unwrap();
        let channel = match packet["channel"].as_str().unwrap() {
            "df" => Channel::Df,
            "nondf" => Channel::NonDf,
            other => panic!("{other}"),
        };
        let frames: Vec<Travelling> = array(&packet["frames"])
            .iter()
            .map(|frame| {
                let bytes = match frame.get("hex") {
                    Some(_) => hex(&frame["hex"]),
                    None => vec![0; frame["len"].as_u64().unwrap() as usize],
                };
                assert_bytes(&bytes, frame, &what);
                (name(&frame["src"]), name(&frame["dst"]), bytes)
            })
            .collect();

        let sealed = seal(&end.sender, channel, &frames);
        assert_bytes(&sealed, &packet["udp_payload"], &what);
        assert_eq!(sealed.len() as u64, packet["total_len"].as_u64().unwrap());
        assert_eq!(wire::sender(&sealed), Some(us));
        if let Some(sequence) = packet.get("seq") {
            let df = if channel == Channel::Df {
                COUNTER_DF
            } else {
                0
            };
            let counter = u64::from_be_bytes(sealed[6..14].try_into().unwrap());
            assert_eq!(counter, df | sequence.as_u64().unwrap());
            assert_eq!(hex(&packet["nonce"])[16..], sealed[6..14]);
        }

        let expected = Ok((frames, None, encrypted.then_some(channel)));
        assert_eq!(
            take(&end.receiver, &mut end.replay, sealed.clone()),
            expected,
            "{what}"
        );
        let again = take(&end.receiver, &mut end.replay, sealed);
        if encrypted {
            assert_eq!(again, Err(OpenError::Replayed), "{what}");
        } else {
            assert_eq!(again, expected, "{what}");
        }
    }
    assert_eq!(packets.len(), 30);
}

#[test]
fn special_frames_are_those_of_the_original() {
    let vectors = vectors("sleeve.json");
    let expected = [
        (
            "heartbeat",
            Special::Heartbeat(ConnUid(0xf00d_0000_0000_00ff)),
        ),
        ("fragmentation test", Special::FragmentationTest),
        ("pmtu discovery probe", Special::PROBE),
        (
            "mtu test for candidate 1414",
            Special::MtuTest { mtu: 1414 },
        ),
        ("mtu test for candidate 552", Special::MtuTest { mtu: 552 }),
    ];
    for (name, special) in expected {
        let mut frame = vec![0xee; special.frame_len()];
        special.write(&mut frame);
        let packets = array(&vectors["packets"]);
        let named: Vec<_> = packets
            .iter()
            .filter(|packet| packet["name"] == name)
            .collect();
        assert_eq!(named.len(), 3);
        for packet in named {
            assert_bytes(&frame, &packet["frames"][0], name);
            let df = special.channel() == Channel::Df;
            assert_eq!(packet["channel"] == "df", df);
        }
        assert_eq!(Special::classify(&frame), Some(special));
    }
}

#[test]
fn broken_packets_give_up_the_frames_before_the_break() {
    let vectors = vectors("sleeve.json");
    let us = PeerName::from_bytes([9; 6]);
    let peer = PeerName::from_bytes([8; 6]);
    let receiver = tunnel(us, peer, None, false);
    for case in array(&vectors["plain_decode"]) {
        let mut packet = peer.as_bytes().to_vec();
        packet.extend(hex(&case["after_name"]));
        let (frames, error, channel) = take(&receiver, &mut Replay::new(), packet).unwrap();
        let expected: Vec<Travelling> = array(&case["frames"])
            .iter()
            .map(|frame| {
                (
                    raw_name(&frame["src"]),
                    raw_name(&frame["dst"]),
                    hex(&frame["frame"]),
                )
            })
            .collect();
        assert_eq!(frames, expected);
        let error = error.map(|error| format!("Failed to decode packet: {error}"));
        assert_eq!(
            error.as_deref(),
            case.get("error").map(|e| e.as_str().unwrap())
        );
        assert_eq!(channel, None);
    }
}

#[test]
fn replay_window_accepts_what_the_original_accepts() {
    let vectors = vectors("sleeve.json");
    for case in array(&vectors["replay_window"]) {
        // The channels do not know of each other.
        let mut replay = Replay::new();
        for df in [0, COUNTER_DF] {
            for step in array(&case["steps"]) {
                let sequence: u64 = step["seq"].as_str().unwrap().parse().unwrap();
                let accept = step["accept"].as_bool().unwrap();
                assert_eq!(
                    replay.accept(sequence | df),
                    accept,
                    "{} {sequence}",
                    case["name"]
                );
            }
        }
    }
}

#[test]
fn packets_are_fragmented_as_by_the_original() {
    let vectors = vectors("sleeve.json");
    for case in array(&vectors["ip_fragmentation"]) {
        let frame = hex(&case["frame"]);
        let mtu = case["mtu"].as_u64().unwrap() as usize;
        let too_big = case["frame_too_big"].as_bool().unwrap();
        assert_eq!(frame.len() > mtu + 14, too_big);
        let fragments = Fragments::new(&frame, mtu).unwrap();
        let expected = array(&case["fragments"]);
        assert_eq!(fragments.count(), expected.len());
        for (index, expected) in expected.iter().enumerate() {
            let mut out = vec![0xee; fragments.frame_len(index)];
            assert_eq!(fragments.write(index, &mut out), out.len());
            assert_eq!(to_hex(&out), expected.as_str().unwrap());
        }
    }
}

#[test]
fn too_big_packets_are_answered_as_by_the_original() {
    let vectors = vectors("sleeve.json");
    for case in array(&vectors["icmp_frag_needed"]) {
        let mut out = [0xee; icmp::ANSWER_BYTES_MAX];
        let mtu = case["mtu"].as_u64().unwrap() as usize;
        let len = icmp::too_big(&hex(&case["frame"]), mtu, &mut out).unwrap();
        assert_eq!(to_hex(&out[..len]), case["icmp_frame"].as_str().unwrap());
    }
}

#[test]
fn frames_are_classified_as_by_the_original() {
    let vectors = vectors("sleeve.json");
    for case in array(&vectors["frame_classification"]) {
        let bytes = hex(&case["frame"]);
        let frame = Frame::parse(&bytes);
        // Weave Net sees no IP behind VLAN tags.
        let untagged = frame.as_ref().ok().filter(|frame| !frame.is_tagged());
        let ip = untagged.and_then(|frame| frame.ipv4());
        let layers = u64::from(frame.is_ok()) + u64::from(ip.is_some());
        assert_eq!(
            Some(layers),
            case["layers_decoded"].as_u64(),
            "{}",
            case["name"]
        );
        assert_eq!(
            Some(is_special(&bytes)),
            case["special"].as_bool(),
            "{}",
            case["name"]
        );
        let df = ip.is_some_and(|ip| ip.dont_fragment());
        assert_eq!(Some(df), case["df"].as_bool(), "{}", case["name"]);
    }
}

#[test]
fn overheads_are_those_of_the_original() {
    let vectors = vectors("sleeve.json");
    let expected = |name: &str| vectors["overheads"][name].as_u64().unwrap() as usize;
    assert_eq!(wire::UDP_IP_BYTES, expected("udp_ip"));
    assert_eq!(wire::FRAME_HEADER_BYTES, expected("plain_frame"));
    assert_eq!(wire::FRAME_HEADER_BYTES, expected("enc_frame"));
    assert_eq!(proto::ethernet::HEADER_BYTES, expected("ethernet"));
    let end = |key| tunnel(PeerName::UNKNOWN, PeerName::UNKNOWN, key, true);
    let (plain, sealed) = (end(None), end(Some(SessionKey::from_bytes([0; 32]))));
    assert_eq!(plain.header_len(), expected("plain_packet"));
    assert_eq!(sealed.header_len(), expected("enc_packet"));
    assert_eq!(plain.overhead(), expected("total_plain"));
    assert_eq!(sealed.overhead(), expected("total_encrypted"));
}

/// What two routers said to each other: every packet opens, and sealing its frames again gives
/// the same bytes. Of packets that are too long to be recorded only the hash is known; they hold
/// one special frame of zeros.
#[test]
fn live_packets_open_and_are_sealed_alike() {
    let sessions = vectors("live_capture.json");
    let mut opened = 0;
    for session in array(&sessions) {
        let client = name(&session["client_name"]);
        let key = session["session_key"]
            .as_str()
            .map(|_| SessionKey::from_bytes(hex(&session["session_key"]).try_into().unwrap()));
        let packets = array(&session["udp_first_14"]);
        let router = packets
            .iter()
            .filter(|packet| packet["dir"] == "router->client")
            .find_map(|packet| packet["payload"].get("hex").map(hex))
            .and_then(|packet| wire::sender(&packet))
            .unwrap();
        let dialled = session["client_is_outbound"].as_bool().unwrap();
        let uid = session["conn_uid"].as_str().unwrap().parse().unwrap();
        let heartbeat = Special::Heartbeat(ConnUid(uid));
        let mut ends = [
            (tunnel(client, router, key.clone(), dialled), Replay::new()),
            (tunnel(router, client, key, !dialled), Replay::new()),
        ];
        let mut heartbeats = 0;
        for packet in packets {
            let from_client = packet["dir"] == "client->router";
            let (from, to) = if from_client { (0, 1) } else { (1, 0) };
            let payload = &packet["payload"];
            let (frames, channel) = match payload.get("hex") {
                Some(bytes) => {
                    let (tunnel, replay) = &mut ends[to];
                    let (frames, error, channel) = take(tunnel, replay, hex(bytes)).unwrap();
                    assert_eq!(error, None);
                    opened += 1;
                    (frames, channel.unwrap_or(Channel::Df))
                }
                None => {
                    let tunnel = &ends[from].0;
                    let len = payload["len"].as_u64().unwrap() as usize;
                    let frame = vec![0; len - tunnel.header_len() - wire::FRAME_HEADER_BYTES];
                    let special = Special::classify(&frame).unwrap();
                    assert_ne!(special, heartbeat);
                    (vec![(tunnel.us(), tunnel.peer(), frame)], special.channel())
                }
            };
            for (source, destination, frame) in &frames {
                if Special::classify(frame) == Some(heartbeat) {
                    let tunnel = &ends[from].0;
                    assert_eq!((*source, *destination), (tunnel.us(), tunnel.peer()));
                    heartbeats += 1;
                }
            }
            // Packets that the kernel refused, being too large, took a number all the same.
            let start = hex(payload.get("hex").unwrap_or(&payload["head"]));
            let mut sealed = seal(&ends[from].0, channel, &frames);
            while ends[from].0.is_encrypted() && sealed[6..14] < start[6..14] {
                sealed = seal(&ends[from].0, channel, &frames);
            }
            assert_bytes(&sealed, payload, &session["name"].to_string());
        }
        assert!(heartbeats >= 2);
    }
    assert!(opened >= 8);
}
