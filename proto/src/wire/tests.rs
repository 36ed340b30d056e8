//! Recorded connections: what two real ends said, said again byte for byte and understood.

mod laws;
mod table;

use std::collections::BTreeMap;

use serde_json::Value;
use sha2::{Digest, Sha256};

use super::magic::HEADER_BYTES;
use super::*;
use crate::crypto::{KEY_BYTES, Nonce, SessionKey, TAG_BYTES};
use crate::features;
use crate::gob;
use crate::vectors::{bytes, list, load, map, text, unhex};

/// Size in bytes of the flag of protocol 2 and of the public key after it.
const FLAG_BYTES: usize = 1 + KEY_BYTES;

fn key(value: &Value, key: &str) -> [u8; KEY_BYTES] {
    bytes(value, key).try_into().unwrap()
}

/// Returns the end of a recorded introduction, ready to say the same again.
fn recorded_end(case: &Value, side: &str) -> Wire {
    let end = &case[side];
    let features = Features::from_map(map(end, "features")).unwrap();
    let password = end["password_hex"].as_str().map(|hex| unhex(hex).into());
    let private = match end["private_key"].as_str() {
        Some(_) => key(end, "private_key"),
        None => [1; KEY_BYTES],
    };
    let dialled = end["outbound"].as_bool().unwrap();
    let config = WireConfig {
        min_version: u8::try_from(end["min"].as_u64().unwrap()).unwrap(),
        max_version: u8::try_from(end["max"].as_u64().unwrap()).unwrap(),
        recorded: Recorded {
            features: recorded_features(case, side, dialled),
            session_key: None,
        },
        ..WireConfig::new(features, password)
    };
    Wire::new(config, dialled, PrivateKey::from_bytes(private))
}

/// Returns the gob stream of the features in a recorded introduction, if it came so far, checked
/// against their map.
fn recorded_features(case: &Value, side: &str, dialled: bool) -> Option<Vec<u8>> {
    let end = &case[side];
    let sent = bytes(end, "all_bytes_sent");
    let rest = sent.get(HEADER_BYTES..).filter(|rest| !rest.is_empty())?;
    let version_1 = !matches!(rest[0], 0 | 1);
    let stream = if version_1 {
        gob_prefix(rest)
    } else if rest[0] == 0 {
        length_prefixed(&rest[1..])?.to_vec()
    } else {
        let sealed = length_prefixed(&rest[FLAG_BYTES..])?;
        let session_key = key(&case["derivation"], &format!("session_key_{side}"));
        let (tag, sealed) = sealed.split_first_chunk::<TAG_BYTES>().unwrap();
        let mut stream = sealed.to_vec();
        SessionKey::from_bytes(session_key)
            .open_in_place(&Nonce::tcp(dialled, 0), tag, &mut stream)
            .unwrap();
        stream
    };
    let (pairs, again) = features::tests::replay(&stream);
    assert_eq!(again, stream);
    let mut pairs: BTreeMap<_, _> = pairs.into_iter().collect();
    let mut expected = map(end, "features");
    if version_1 {
        expected = features::version_1_subset(expected);
        let public = pairs.remove("PublicKey");
        assert_eq!(public.is_some(), end["password_hex"].is_string());
        let recorded = end["public_key"].as_str().map(str::to_owned);
        assert!(recorded.is_none() || public == recorded);
    }
    assert_eq!(pairs, expected);
    Some(stream)
}

/// Returns the first two messages of a gob stream: the definition of the feature map, and the map.
fn gob_prefix(stream: &[u8]) -> Vec<u8> {
    let (_, end) = gob::split_message(stream, 1000).unwrap().unwrap();
    let (_, more) = gob::split_message(&stream[end..], 1000).unwrap().unwrap();
    stream[..end + more].to_vec()
}

/// Returns the first message of a stream of protocol 2.
fn length_prefixed(stream: &[u8]) -> Option<&[u8]> {
    let (len, rest) = stream.split_first_chunk()?;
    rest.get(..usize::try_from(u32::from_be_bytes(*len)).unwrap())
}

/// Returns all that an end has to send, as one piece each.
fn transmit(wire: &mut Wire) -> Vec<Vec<u8>> {
    std::iter::from_fn(|| wire.poll_transmit()).collect()
}

/// What happened at one end.
#[derive(Debug, Default)]
struct Outcome {
    sent: Vec<Vec<u8>>,
    error: Option<WireError>,
}

/// Lets both ends say all they have to say.
fn converse(a: &mut Wire, b: &mut Wire) -> (Outcome, Outcome) {
    let (mut at_a, mut at_b) = (Outcome::default(), Outcome::default());
    loop {
        let (from_a, from_b) = (transmit(a), transmit(b));
        if from_a.is_empty() && from_b.is_empty() {
            return (at_a, at_b);
        }
        deliver(&from_a, b, &mut at_b);
        deliver(&from_b, a, &mut at_a);
        at_a.sent.extend(from_a);
        at_b.sent.extend(from_b);
    }
}

fn deliver(pieces: &[Vec<u8>], to: &mut Wire, at: &mut Outcome) {
    for bytes in pieces {
        if let Err(error) = to.handle_bytes(bytes) {
            assert_eq!(at.error.replace(error), None, "failed twice");
        }
    }
}

fn introduced(wire: &mut Wire) -> Introduced {
    match wire.poll_event() {
        Some(WireEvent::Introduced(introduced)) => *introduced,
        other => panic!("{other:?}"),
    }
}

fn message(wire: &mut Wire) -> Option<Vec<u8>> {
    match wire.poll_event() {
        Some(WireEvent::Message(message)) => Some(message),
        None => None,
        other => panic!("{other:?}"),
    }
}

/// Returns the messages and the introduction that a stream of bytes brings, in pieces of random
/// sizes.
fn feed_in_pieces(wire: &mut Wire, stream: &[u8], seed: u64) -> (Introduced, Vec<Vec<u8>>) {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut rest = stream;
    while !rest.is_empty() {
        let most = [1, 7, 100, 5000][rng.usize(..4)];
        let (piece, more) = rest.split_at(rng.usize(1..=most).min(rest.len()));
        wire.handle_bytes(piece).unwrap();
        rest = more;
    }
    let introduced = introduced(wire);
    (introduced, std::iter::from_fn(|| message(wire)).collect())
}

/// Returns the error that stands for what Weave Net says.
fn error_of(text: &str) -> WireError {
    match text {
        "password specified, but peer requested an unencrypted connection" => {
            WireError::RemoteUnencrypted
        }
        "no password specificed, but peer requested an encrypted connection" => {
            WireError::RemoteEncrypted
        }
        "Unable to decrypt TCP msg" => WireError::Password,
        other => panic!("{other}"),
    }
}

fn introductions(vectors: &Value) -> impl Iterator<Item = &Value> {
    let cases = vectors.as_array().unwrap();
    cases.iter().filter(|case| case["name"] != "header")
}

#[test]
fn recorded_introductions_are_said_again() {
    let vectors = load("handshake.json");
    let mut seen = 0;
    for case in introductions(&vectors) {
        if !case["messages_after_intro"].is_array() {
            continue;
        }
        let (mut a, mut b) = (recorded_end(case, "A"), recorded_end(case, "B"));
        let (at_a, at_b) = converse(&mut a, &mut b);
        assert_eq!(
            (&at_a.error, &at_b.error),
            (&None, &None),
            "{}",
            case["name"]
        );
        let (from_a, from_b) = exchange(case, &mut a, &mut b);
        for (side, at, later, wire) in [("A", at_a, from_a, &mut a), ("B", at_b, from_b, &mut b)] {
            let writes = list(&case[side], "intro_writes");
            let writes: Vec<_> = writes.iter().map(|w| unhex(w.as_str().unwrap())).collect();
            assert_eq!(at.sent.concat(), writes.concat());
            let all = [at.sent.concat(), later].concat();
            assert_eq!(
                all,
                bytes(&case[side], "all_bytes_sent"),
                "{}",
                case["name"]
            );
            if !matches!(text(case, "name"), "different passwords (v1)") {
                assert_eq!(wire.phase(), Phase::Introduced);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 8);
}

/// Checks the introductions of both ends, then sends the recorded messages over them. Returns
/// what each end sent.
fn exchange(case: &Value, a: &mut Wire, b: &mut Wire) -> (Vec<u8>, Vec<u8>) {
    for (side, wire) in [("A", &mut *a), ("B", &mut *b)] {
        let introduced = introduced(wire);
        let remote = map(&case[side], "features_received");
        let version = case["version"].as_u64().unwrap();
        assert_eq!(u64::from(introduced.version), version);
        assert_eq!(introduced.remote, Features::from_map(remote).unwrap());
        let session_key = introduced.session_key.map(|key| *key.as_bytes());
        let recorded = &case["derivation"][format!("session_key_{side}")];
        let recorded = recorded.as_str().map(|hex| unhex(hex).try_into().unwrap());
        assert_eq!(session_key, recorded);
    }
    let (mut from_a, mut from_b) = (Vec::new(), Vec::new());
    for case in list(case, "messages_after_intro") {
        let (from, to, sent) = match text(case, "from") {
            "A" => (&mut *a, &mut *b, &mut from_a),
            _ => (&mut *b, &mut *a, &mut from_b),
        };
        let plaintext = bytes(case, "plaintext");
        if from.phase() == Phase::Failed {
            assert_eq!(from.send(&plaintext), Err(WireError::NotIntroduced));
            sent.append(&mut bytes(case, "wire"));
            continue;
        }
        from.send(&plaintext).unwrap();
        let wire = transmit(from).concat();
        assert_eq!(wire, bytes(case, "wire"));
        let was = to.phase();
        let result = to.handle_bytes(&wire);
        match case["receive_error"].as_str() {
            None => {
                assert_eq!(result, Ok(()));
                assert_eq!(message(to), Some(plaintext));
            }
            Some(error) if was == Phase::Introduced => assert_eq!(result, Err(error_of(error))),
            Some(_) => assert_eq!((result, message(to)), (Ok(()), None)),
        }
        sent.extend_from_slice(&wire);
    }
    (from_a, from_b)
}

#[test]
fn recorded_failures_fail_again() {
    let vectors = load("handshake.json");
    let mut seen = 0;
    for case in introductions(&vectors) {
        if case["messages_after_intro"].is_array() {
            continue;
        }
        let (mut a, mut b) = (recorded_end(case, "A"), recorded_end(case, "B"));
        let (at_a, at_b) = converse(&mut a, &mut b);
        for (side, at, wire) in [("A", &at_a, &mut a), ("B", &at_b, &mut b)] {
            assert_eq!(wire.phase(), Phase::Failed);
            assert!(wire.poll_event().is_none());
            let error = at.error.clone().unwrap();
            let recorded = text(&case[side], "error");
            match (text(case, "name"), side) {
                ("version mismatch", _) => {
                    assert_eq!(error.to_string(), recorded);
                    assert_eq!(error.fault(), Fault::Incompatible);
                }
                // The recorded end lost its connection before it could read the flag.
                ("A encrypts, B does not (v2)", "B") => {
                    assert_eq!(error, WireError::RemoteEncrypted);
                    let mut again = recorded_end(case, side);
                    again.handle_bytes(b"weave\x01\x02").unwrap();
                    assert_eq!(again.handle_end(), Err(WireError::EndInIntroduction));
                }
                _ => {
                    assert_eq!(error, error_of(recorded));
                    assert_eq!(error.fault(), Fault::Unauthorised);
                }
            }
            let sent = at.sent.concat();
            let recorded = bytes(&case[side], "all_bytes_sent");
            if (text(case, "name"), side) == ("A encrypts, B does not (v2)", "A") {
                // The key pair was not recorded.
                assert_eq!(sent.len(), recorded.len());
                assert_eq!(sent[..HEADER_BYTES + 1], recorded[..HEADER_BYTES + 1]);
            } else {
                assert_eq!(sent, recorded, "{} {side}", case["name"]);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 4);
}

#[test]
fn recorded_keys_and_nonces_are_derived_again() {
    let vectors = load("handshake.json");
    let mut seen = 0;
    for case in introductions(&vectors).filter(|case| case["derivation"].is_object()) {
        let derivation = &case["derivation"];
        let shared = bytes(derivation, "box_precomputed_hsalsa20");
        let mut hashed = [0; KEY_BYTES];
        let raw = key(derivation, "x25519_raw");
        dryoc::classic::crypto_core::crypto_core_hsalsa20(&mut hashed, &[0; 16], &raw, None);
        assert_eq!(hashed[..], shared);
        for (side, other) in [("A", "B"), ("B", "A")] {
            let private = PrivateKey::from_bytes(key(&case[side], "private_key"));
            assert_eq!(private.public(), key(&case[side], "public_key"));
            let password = bytes(&case[side], "password_hex");
            let public = key(&case[other], "public_key");
            let session_key = private.session_key(&public, &password).unwrap();
            let recorded = key(derivation, &format!("session_key_{side}"));
            assert_eq!(session_key.as_bytes(), &recorded);
            let hash = Sha256::new().chain_update(&shared).chain_update(&password);
            assert_eq!(hash.finalize()[..], recorded);
        }
        for (direction, dialled) in [("nonces_A_to_B", true), ("nonces_B_to_A", false)] {
            for (sequence, nonce) in list(case, direction).iter().enumerate() {
                let nonce = unhex(nonce.as_str().unwrap());
                let sequence = u64::try_from(sequence).unwrap();
                assert_eq!(Nonce::tcp(dialled, sequence).as_bytes()[..], nonce);
            }
        }
        seen += 1;
    }
    assert_eq!(seen, 5);
}

#[test]
fn recorded_headers_get_the_recorded_answers() {
    let vectors = load("handshake.json");
    let all = vectors.as_array().unwrap();
    let cases: Vec<_> = all.iter().filter(|case| case["name"] == "header").collect();
    assert_eq!(cases.len(), 8);
    for case in cases {
        let received = bytes(case, "received");
        let mut wire = laws::end(1, None, (1, 2), false);
        let result = wire.handle_bytes(&received);
        let Some(error) = case["error"].as_str() else {
            assert_eq!((result, wire.phase()), (Ok(()), Phase::Introduction));
            continue;
        };
        let Err(ours) = result.and_then(|()| wire.handle_end()) else {
            panic!("{error}");
        };
        match received.len() {
            7 if error.contains("not recognised") => {
                assert_eq!(ours, WireError::Magic(Magic(*b"HTTP1")));
            }
            7 => assert_eq!(ours.to_string(), error),
            len => assert_eq!(ours, WireError::EndInHeader(len)),
        }
    }
}

/// Returns an end of a captured session. We have the private key of the client alone, so the
/// router's end is given the session key.
fn captured_end(session: &Value, client: bool) -> Wire {
    let streams = ["tcp_router_to_client", "tcp_client_to_router"];
    let own = bytes(session, streams[usize::from(client)]);
    let password = session["password"]
        .as_str()
        .map(|text| text.as_bytes().into());
    let stream = if session["version"] == 1 {
        gob_prefix(&own[HEADER_BYTES..])
    } else {
        bytes(
            &list(session, "messages")[usize::from(!client)],
            "plaintext",
        )
    };
    let (pairs, again) = features::tests::replay(&stream);
    assert_eq!(again, stream);
    let features = Features::from_map(pairs.into_iter().collect()).unwrap();
    let dialled = session["client_is_outbound"].as_bool().unwrap() == client;
    let given = !client && session["session_key"].is_string();
    let config = WireConfig {
        min_version: own[5],
        max_version: own[6],
        recorded: Recorded {
            features: Some(stream),
            session_key: given.then(|| SessionKey::from_bytes(key(session, "session_key"))),
        },
        ..WireConfig::new(features, password)
    };
    let private = match session["client_private_key"].as_str() {
        Some(_) if client => key(session, "client_private_key"),
        _ => [1; KEY_BYTES],
    };
    Wire::new(config, dialled, PrivateKey::from_bytes(private))
}

#[test]
fn captured_sessions_are_understood_and_said_again() {
    let vectors = load("live_capture.json");
    let sessions = vectors.as_array().unwrap();
    assert_eq!(sessions.len(), 4);
    for session in sessions {
        for client in [true, false] {
            let (to, from) = match client {
                true => ("router->client", "client->router"),
                false => ("client->router", "router->client"),
            };
            let (incoming, outgoing) = match client {
                true => ("tcp_router_to_client", "tcp_client_to_router"),
                false => ("tcp_client_to_router", "tcp_router_to_client"),
            };
            let said = |direction: &str| -> Vec<Vec<u8>> {
                let messages = list(session, "messages").iter();
                let said = messages.filter(|message| message["dir"] == direction);
                let features = usize::from(session["version"] == 2);
                said.skip(features).map(|m| bytes(m, "plaintext")).collect()
            };
            for seed in 0..8 {
                let mut wire = captured_end(session, client);
                let stream = bytes(session, incoming);
                let (introduced, messages) = feed_in_pieces(&mut wire, &stream, seed);
                assert_eq!(messages, said(to));
                check_introduced(session, client, &introduced);

                for message in said(from) {
                    wire.send(&message).unwrap();
                }
                let mut sent = transmit(&mut wire).concat();
                let captured = bytes(session, outgoing);
                if !client && session["version"] == 2 && session["password"].is_string() {
                    let public = HEADER_BYTES + 1..HEADER_BYTES + FLAG_BYTES;
                    sent[public.clone()].copy_from_slice(&captured[public]);
                }
                assert_eq!(sent, captured);
                assert_eq!(wire.handle_end(), Ok(()));
            }
        }
    }
}

fn check_introduced(session: &Value, client: bool, introduced: &Introduced) {
    let version = session["version"].as_u64().unwrap();
    assert_eq!(u64::from(introduced.version), version);
    let session_key = introduced.session_key.as_ref().map(|key| *key.as_bytes());
    let recorded = session["session_key"].as_str();
    assert_eq!(
        session_key,
        recorded.map(|hex| unhex(hex).try_into().unwrap())
    );
    if client {
        let router = Features::from_map(map(session, "router_features")).unwrap();
        assert_eq!(introduced.remote, router);
    } else {
        let name = text(session, "client_name").parse().unwrap();
        assert_eq!(introduced.remote.name, name);
        let router = map(session, "router_features");
        let conn_uid = introduced
            .remote
            .conn_uid(&Features::from_map(router).unwrap());
        assert_eq!(conn_uid.0.to_string(), text(session, "conn_uid"));
    }
}
