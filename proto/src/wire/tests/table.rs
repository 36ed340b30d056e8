//! What an end of a connection does about each input in each phase of it.

use super::laws::end;
use super::*;

const PASSWORDS: [Option<&str>; 2] = [None, Some("secret")];

/// Returns the phases by name, of the end that dialled, and the other end.
fn states(password: Option<&'static str>) -> Vec<(&'static str, Wire, Wire)> {
    let fresh = |version| {
        let mut ends = [(1, true), (2, false)]
            .map(|(number, dialled)| end(number, password, (version, version), dialled));
        let headers = ends.each_mut().map(transmit);
        (ends, headers)
    };
    let header = fresh(2);
    let mut flag = fresh(2);
    flag.0[0].handle_bytes(&flag.1[1].concat()).unwrap();
    let mut features = fresh(2);
    for [to, from] in [[0, 1], [1, 0]] {
        features.0[to]
            .handle_bytes(&features.1[from].concat())
            .unwrap();
    }
    let flags = features.0.each_mut().map(transmit);
    features.0[0].handle_bytes(&flags[1].concat()).unwrap();
    let mut old_features = fresh(1);
    old_features.0[0]
        .handle_bytes(&old_features.1[1].concat())
        .unwrap();
    let introduced = |version| {
        let (mut ends, _) = fresh(version);
        let mut again = [(1, true), (2, false)]
            .map(|(number, dialled)| end(number, password, (version, version), dialled));
        let [a, b] = &mut again;
        converse(a, b);
        std::mem::swap(&mut ends, &mut again);
        ends
    };
    let mut failed = fresh(2);
    assert!(failed.0[0].handle_bytes(b"HTTP/1.1").is_err());
    let mut out: Vec<(&'static str, Wire, Wire)> = Vec::new();
    for (name, [a, b]) in [
        ("header", header.0),
        ("flag", flag.0),
        ("features", features.0),
        ("old features", old_features.0),
        ("introduced", introduced(2)),
        ("old introduced", introduced(1)),
        ("failed", failed.0),
    ] {
        out.push((name, a, b));
    }
    out
}

type Input = (
    &'static str,
    fn(&mut Wire, &mut Wire) -> Result<(), WireError>,
);

const INPUTS: [Input; 11] = [
    ("nothing", |wire, _| wire.handle_bytes(&[])),
    ("header", |wire, _| wire.handle_bytes(b"weave\x01\x02")),
    ("header of version 3", |wire, _| {
        wire.handle_bytes(b"weave\x03\x03")
    }),
    ("another protocol", |wire, _| {
        wire.handle_bytes(b"GET / HTTP/1.1\r\n")
    }),
    ("flag: plain", |wire, _| wire.handle_bytes(&[0])),
    ("flag: encrypted, weak key", |wire, _| {
        wire.handle_bytes(&[[1].as_slice(), &[0; 32]].concat())
    }),
    ("announced length of 4 GiB", |wire, _| {
        wire.handle_bytes(&[0xff; 4])
    }),
    ("junk of 100 bytes", |wire, _| {
        wire.handle_bytes(&[0x55; 100])
    }),
    ("a message of the other end", |wire, other| {
        if other.send(b"\x00hello").is_ok() {
            let sent = transmit(other).concat();
            return wire.handle_bytes(&sent);
        }
        Ok(())
    }),
    ("end of stream", |wire, _| wire.handle_end()),
    ("send", |wire, _| wire.send(&[0])),
];

/// `phase | input -> next phase: what is sent, what happens`, or the error.
fn table(password: Option<&'static str>) -> Vec<String> {
    let mut rows = Vec::new();
    for (name, input) in INPUTS {
        for (state, mut wire, mut other) in states(password) {
            for wire in [&mut wire, &mut other] {
                transmit(wire);
                while wire.poll_event().is_some() {}
            }
            let result = input(&mut wire, &mut other);
            let sent = transmit(&mut wire).len();
            let events = std::iter::from_fn(|| wire.poll_event()).map(|event| match event {
                WireEvent::Introduced(_) => "introduced".to_owned(),
                WireEvent::Message(message) => format!("message of {}", message.len()),
            });
            let events = events.collect::<Vec<_>>().join(" ");
            let error = result.err().map_or(String::new(), |e| format!("! {e}"));
            let buffered = wire.buffered();
            let text = format!(
                "{state} | {name} -> {:?}: sent {sent}, kept {buffered} {events} {error}",
                wire.phase()
            );
            rows.push(text.split_whitespace().collect::<Vec<_>>().join(" "));
        }
    }
    rows
}

#[test]
fn every_input_in_every_phase() {
    let rows: Vec<String> = PASSWORDS.into_iter().flat_map(table).collect();
    let expected: Vec<&str> = EXPECTED.trim().lines().collect();
    assert_eq!(rows.len(), PASSWORDS.len() * 7 * INPUTS.len());
    for (row, expected) in rows.iter().zip(&expected) {
        assert_eq!(row.trim_end(), *expected, "all rows:\n{}", rows.join("\n"));
    }
    assert_eq!(expected.len(), rows.len(), "all rows:\n{}", rows.join("\n"));
}

const EXPECTED: &str = "
header | nothing -> Header: sent 0, kept 0
flag | nothing -> Introduction: sent 0, kept 0
features | nothing -> Introduction: sent 0, kept 0
old features | nothing -> Introduction: sent 0, kept 0
introduced | nothing -> Introduced: sent 0, kept 0
old introduced | nothing -> Introduced: sent 0, kept 0
failed | nothing -> Failed: sent 0, kept 0
header | header -> Introduction: sent 1, kept 0
flag | header -> Failed: sent 0, kept 0 ! bad encryption flag 119
features | header -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 8192
old features | header -> Introduction: sent 0, kept 7
introduced | header -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 10485760
old introduced | header -> Introduced: sent 0, kept 7
failed | header -> Failed: sent 0, kept 0
header | header of version 3 -> Failed: sent 0, kept 0 ! remote version range [3,3] is incompatible with ours [2,2]
flag | header of version 3 -> Failed: sent 0, kept 0 ! bad encryption flag 119
features | header of version 3 -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 8192
old features | header of version 3 -> Introduction: sent 0, kept 7
introduced | header of version 3 -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 10485760
old introduced | header of version 3 -> Introduced: sent 0, kept 7
failed | header of version 3 -> Failed: sent 0, kept 0
header | another protocol -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"GET /\" (is this an HTTP client?)
flag | another protocol -> Failed: sent 0, kept 0 ! bad encryption flag 71
features | another protocol -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1195725856 > 8192
old features | another protocol -> Introduction: sent 0, kept 16
introduced | another protocol -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1195725856 > 10485760
old introduced | another protocol -> Introduced: sent 0, kept 16
failed | another protocol -> Failed: sent 0, kept 0
header | flag: plain -> Header: sent 0, kept 1
flag | flag: plain -> Introduction: sent 1, kept 0
features | flag: plain -> Introduction: sent 0, kept 1
old features | flag: plain -> Failed: sent 0, kept 0 ! bad introduction: no feature map: input ends early: 1 bytes wanted, 0 left
introduced | flag: plain -> Introduced: sent 0, kept 1
old introduced | flag: plain -> Failed: sent 0, kept 0 ! bad message stream: input ends early: 1 bytes wanted, 0 left
failed | flag: plain -> Failed: sent 0, kept 0
header | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"\\x01\\x00\\x00\\x00\\x00\"
flag | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! remote uses a password, but we do not
features | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 16777216 > 8192
old features | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! bad introduction: no feature map: input ends early: 1 bytes wanted, 0 left
introduced | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 16777216 > 10485760
old introduced | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! bad message stream: input ends early: 1 bytes wanted, 0 left
failed | flag: encrypted, weak key -> Failed: sent 0, kept 0
header | announced length of 4 GiB -> Header: sent 0, kept 4
flag | announced length of 4 GiB -> Failed: sent 0, kept 0 ! bad encryption flag 255
features | announced length of 4 GiB -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 4294967295 > 8192
old features | announced length of 4 GiB -> Introduction: sent 0, kept 4
introduced | announced length of 4 GiB -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 4294967295 > 10485760
old introduced | announced length of 4 GiB -> Introduced: sent 0, kept 4
failed | announced length of 4 GiB -> Failed: sent 0, kept 0
header | junk of 100 bytes -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"UUUUU\"
flag | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad encryption flag 85
features | junk of 100 bytes -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1431655765 > 8192
old features | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad introduction: no feature map: bad definition of type 43
introduced | junk of 100 bytes -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1431655765 > 10485760
old introduced | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad message stream: bad definition of type 43
failed | junk of 100 bytes -> Failed: sent 0, kept 0
header | a message of the other end -> Header: sent 0, kept 0
flag | a message of the other end -> Introduction: sent 0, kept 0
features | a message of the other end -> Introduction: sent 0, kept 0
old features | a message of the other end -> Introduction: sent 0, kept 0
introduced | a message of the other end -> Introduced: sent 0, kept 0 message of 6
old introduced | a message of the other end -> Introduced: sent 0, kept 0 message of 6
failed | a message of the other end -> Failed: sent 0, kept 0
header | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection after 0 of 7 bytes of its header
flag | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
features | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
old features | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
introduced | end of stream -> Failed: sent 0, kept 0
old introduced | end of stream -> Failed: sent 0, kept 0
failed | end of stream -> Failed: sent 0, kept 0
header | send -> Header: sent 0, kept 0 ! connection is not introduced
flag | send -> Introduction: sent 0, kept 0 ! connection is not introduced
features | send -> Introduction: sent 0, kept 0 ! connection is not introduced
old features | send -> Introduction: sent 0, kept 0 ! connection is not introduced
introduced | send -> Introduced: sent 1, kept 0
old introduced | send -> Introduced: sent 1, kept 0
failed | send -> Failed: sent 0, kept 0 ! connection is not introduced
header | nothing -> Header: sent 0, kept 0
flag | nothing -> Introduction: sent 0, kept 0
features | nothing -> Introduction: sent 0, kept 0
old features | nothing -> Introduction: sent 0, kept 0
introduced | nothing -> Introduced: sent 0, kept 0
old introduced | nothing -> Introduced: sent 0, kept 0
failed | nothing -> Failed: sent 0, kept 0
header | header -> Introduction: sent 1, kept 0
flag | header -> Failed: sent 0, kept 0 ! bad encryption flag 119
features | header -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 8192
old features | header -> Introduction: sent 0, kept 7
introduced | header -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 10485760
old introduced | header -> Introduced: sent 0, kept 7
failed | header -> Failed: sent 0, kept 0
header | header of version 3 -> Failed: sent 0, kept 0 ! remote version range [3,3] is incompatible with ours [2,2]
flag | header of version 3 -> Failed: sent 0, kept 0 ! bad encryption flag 119
features | header of version 3 -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 8192
old features | header of version 3 -> Introduction: sent 0, kept 7
introduced | header of version 3 -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 2003132790 > 10485760
old introduced | header of version 3 -> Introduced: sent 0, kept 7
failed | header of version 3 -> Failed: sent 0, kept 0
header | another protocol -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"GET /\" (is this an HTTP client?)
flag | another protocol -> Failed: sent 0, kept 0 ! bad encryption flag 71
features | another protocol -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1195725856 > 8192
old features | another protocol -> Introduction: sent 0, kept 16
introduced | another protocol -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1195725856 > 10485760
old introduced | another protocol -> Introduced: sent 0, kept 16
failed | another protocol -> Failed: sent 0, kept 0
header | flag: plain -> Header: sent 0, kept 1
flag | flag: plain -> Failed: sent 0, kept 0 ! remote uses no password, but we do
features | flag: plain -> Introduction: sent 0, kept 1
old features | flag: plain -> Failed: sent 0, kept 0 ! bad introduction: no feature map: input ends early: 1 bytes wanted, 0 left
introduced | flag: plain -> Introduced: sent 0, kept 1
old introduced | flag: plain -> Failed: sent 0, kept 0 ! bad message stream: input ends early: 1 bytes wanted, 0 left
failed | flag: plain -> Failed: sent 0, kept 0
header | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"\\x01\\x00\\x00\\x00\\x00\"
flag | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! remote sent an unusable public key
features | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 16777216 > 8192
old features | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! bad introduction: no feature map: input ends early: 1 bytes wanted, 0 left
introduced | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 16777216 > 10485760
old introduced | flag: encrypted, weak key -> Failed: sent 0, kept 0 ! bad message stream: input ends early: 1 bytes wanted, 0 left
failed | flag: encrypted, weak key -> Failed: sent 0, kept 0
header | announced length of 4 GiB -> Header: sent 0, kept 4
flag | announced length of 4 GiB -> Failed: sent 0, kept 0 ! bad encryption flag 255
features | announced length of 4 GiB -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 4294967295 > 8192
old features | announced length of 4 GiB -> Introduction: sent 0, kept 4
introduced | announced length of 4 GiB -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 4294967295 > 10485760
old introduced | announced length of 4 GiB -> Introduced: sent 0, kept 4
failed | announced length of 4 GiB -> Failed: sent 0, kept 0
header | junk of 100 bytes -> Failed: sent 0, kept 0 ! remote does not speak our protocol, it began with \"UUUUU\"
flag | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad encryption flag 85
features | junk of 100 bytes -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1431655765 > 8192
old features | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad introduction: no feature map: bad definition of type 43
introduced | junk of 100 bytes -> Failed: sent 0, kept 0 ! incoming message exceeds maximum size: 1431655765 > 10485760
old introduced | junk of 100 bytes -> Failed: sent 0, kept 0 ! bad message stream: bad definition of type 43
failed | junk of 100 bytes -> Failed: sent 0, kept 0
header | a message of the other end -> Header: sent 0, kept 0
flag | a message of the other end -> Introduction: sent 0, kept 0
features | a message of the other end -> Introduction: sent 0, kept 0
old features | a message of the other end -> Introduction: sent 0, kept 0
introduced | a message of the other end -> Introduced: sent 0, kept 0 message of 6
old introduced | a message of the other end -> Introduced: sent 0, kept 0 message of 6
failed | a message of the other end -> Failed: sent 0, kept 0
header | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection after 0 of 7 bytes of its header
flag | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
features | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
old features | end of stream -> Failed: sent 0, kept 0 ! remote closed the connection during the introduction (do the passwords differ?)
introduced | end of stream -> Failed: sent 0, kept 0
old introduced | end of stream -> Failed: sent 0, kept 0
failed | end of stream -> Failed: sent 0, kept 0
header | send -> Header: sent 0, kept 0 ! connection is not introduced
flag | send -> Introduction: sent 0, kept 0 ! connection is not introduced
features | send -> Introduction: sent 0, kept 0 ! connection is not introduced
old features | send -> Introduction: sent 0, kept 0 ! connection is not introduced
introduced | send -> Introduced: sent 1, kept 0
old introduced | send -> Introduced: sent 1, kept 0
failed | send -> Failed: sent 0, kept 0 ! connection is not introduced";
