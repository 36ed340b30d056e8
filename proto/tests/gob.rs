//! Recorded gob streams: each is decoded with its types, and encoded again to the same bytes.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail as tests do"
)]

use proptest::prelude::*;
use proto::gob::{Decoder, Encoder, Error, MapType, SliceType, StructType, Type, Value, Writer};
use serde_json::{Value as Json, json};

static STRINGS: MapType = MapType {
    name: "",
    key: Type::String,
    elem: Type::String,
};

static PEER: StructType = StructType {
    name: "peerSummary",
    fields: &[
        ("NameByte", Type::Bytes),
        ("NickName", Type::String),
        ("UID", Type::Uint),
        ("Version", Type::Uint),
        ("ShortID", Type::Uint),
        ("HasShortID", Type::Bool),
    ],
};

static CONNECTION: StructType = StructType {
    name: "connectionSummary",
    fields: &[
        ("NameByte", Type::Bytes),
        ("RemoteTCPAddr", Type::String),
        ("Outbound", Type::Bool),
        ("Established", Type::Bool),
    ],
};

static CONNECTIONS: SliceType = SliceType {
    name: "",
    elem: Type::Struct(&CONNECTION),
};

fn streams() -> Vec<Json> {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/gob.json");
    let vectors: Json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    vectors["streams"].as_array().unwrap().clone()
}

fn unhex(hex: &str) -> Vec<u8> {
    (0..hex.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap())
        .collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn number(value: &Json) -> u64 {
    let text = value.as_str().map(|text| text.parse().unwrap());
    text.or(value.as_u64()).unwrap()
}

/// Decodes a value of the type that the vectors call `kind`, into the form they give it.
fn read(kind: &str, value: Value<'_, '_>) -> Result<Json, Error> {
    Ok(match kind {
        "string" => json!(value.text()?),
        "[]byte" => json!(hex(value.bytes()?)),
        "uint64" => json!(value.uint()?.to_string()),
        "int64" => json!(value.int()?.to_string()),
        "bool" => json!(value.bool()?),
        "map[string]string" => {
            let mut map = serde_json::Map::new();
            value.map(
                |key| key.text(),
                |key, value| {
                    map.insert(key, json!(value.text()?));
                    Ok(())
                },
            )?;
            Json::Object(map)
        }
        "peerSummary" => read_peer(value)?,
        "[]connectionSummary" => {
            let mut list = Vec::new();
            value.slice(|elem| {
                list.push(read_connection(elem)?);
                Ok(())
            })?;
            Json::Array(list)
        }
        other => panic!("{other}"),
    })
}

fn names(of: &StructType) -> Vec<&'static str> {
    of.fields.iter().map(|(name, _)| *name).collect()
}

fn read_peer(value: Value<'_, '_>) -> Result<Json, Error> {
    let mut out = json!({"HasShortID": false, "NameByte": "", "NickName": "", "ShortID": 0,
        "UID": "0", "Version": 0});
    let known = names(&PEER);
    value.structure(&known, |field, value| {
        out[known[field]] = match known[field] {
            "NameByte" => json!(hex(value.bytes()?)),
            "NickName" => json!(value.text()?),
            "UID" => json!(value.uint()?.to_string()),
            "Version" => json!(value.uint()?),
            "ShortID" => json!(value.uint16()?),
            _ => json!(value.bool()?),
        };
        Ok(())
    })?;
    Ok(out)
}

fn read_connection(value: Value<'_, '_>) -> Result<Json, Error> {
    let mut out = json!({"Established": false, "NameByte": "", "Outbound": false,
        "RemoteTCPAddr": ""});
    let known = names(&CONNECTION);
    value.structure(&known, |field, value| {
        out[known[field]] = match known[field] {
            "NameByte" => json!(hex(value.bytes()?)),
            "RemoteTCPAddr" => json!(value.text()?),
            _ => json!(value.bool()?),
        };
        Ok(())
    })?;
    Ok(out)
}

/// Writes what [`read`] gave.
fn write(encoder: &mut Encoder, kind: &str, value: &Json) {
    let text = || value.as_str().unwrap();
    match kind {
        "string" => encoder.value(Type::String, |w| w.bytes(text().as_bytes())),
        "[]byte" => encoder.value(Type::Bytes, |w| w.bytes(&unhex(text()))),
        "uint64" => encoder.value(Type::Uint, |w| w.uint(number(value))),
        "int64" => encoder.value(Type::Int, |w| w.int(text().parse().unwrap())),
        "bool" => encoder.value(Type::Bool, |w| w.bool(value.as_bool().unwrap())),
        "map[string]string" => encoder.value(Type::Map(&STRINGS), |w| {
            let pairs: Vec<_> = value.as_object().unwrap().iter().collect();
            w.map(pairs.into_iter(), |w, (key, value)| {
                w.bytes(key.as_bytes());
                w.bytes(value.as_str().unwrap().as_bytes());
            });
        }),
        "peerSummary" => encoder.value(Type::Struct(&PEER), |w| write_peer(w, value)),
        "[]connectionSummary" => encoder.value(Type::Slice(&CONNECTIONS), |w| {
            w.slice(value.as_array().unwrap().iter(), write_connection);
        }),
        other => panic!("{other}"),
    }
}

fn write_peer(writer: &mut Writer<'_>, peer: &Json) {
    writer.structure(|w| {
        w.bytes(0, &unhex(peer["NameByte"].as_str().unwrap()));
        w.string(1, peer["NickName"].as_str().unwrap().as_bytes());
        w.uint(2, number(&peer["UID"]));
        w.uint(3, number(&peer["Version"]));
        w.uint(4, number(&peer["ShortID"]));
        w.bool(5, peer["HasShortID"].as_bool().unwrap());
    });
}

fn write_connection(writer: &mut Writer<'_>, connection: &Json) {
    writer.structure(|w| {
        w.bytes(0, &unhex(connection["NameByte"].as_str().unwrap()));
        let address = connection["RemoteTCPAddr"].as_str().unwrap();
        w.string(1, address.as_bytes());
        w.bool(2, connection["Outbound"].as_bool().unwrap());
        w.bool(3, connection["Established"].as_bool().unwrap());
    });
}

/// Returns the ids of the types that a stream defines, in order.
fn ids(stream: &[u8]) -> Vec<i64> {
    let mut rest = stream;
    let mut ids = Vec::new();
    while let Some((start, end)) = proto::gob::split_message(rest, usize::MAX).unwrap() {
        // Recorded ids are 65 and more, so as negative numbers they take two bytes.
        if let [0xff, id, ..] = rest[start..end]
            && id % 2 == 1
        {
            ids.push(i64::from(id / 2) + 1);
        }
        rest = &rest[end..];
    }
    assert!(rest.is_empty());
    ids
}

fn decode(stream: &[u8], kinds: &[&str]) -> Result<Vec<Json>, Error> {
    let mut decoder = Decoder::new(stream);
    let values = kinds
        .iter()
        .map(|kind| read(kind, decoder.value()?))
        .collect();
    assert!(decoder.next_value()?.is_none());
    values
}

#[test]
fn recorded_streams_are_decoded_and_encoded_again() {
    let streams = streams();
    assert_eq!(streams.len(), 55);
    let mut with_types = 0;
    for case in &streams {
        let stream = unhex(case["hex"].as_str().unwrap());
        let kinds: Vec<_> = case["types"].as_str().unwrap().split(',').collect();
        let values = decode(&stream, &kinds).unwrap();
        assert_eq!(Json::Array(values.clone()), case["values"]);

        let ids = ids(&stream);
        with_types += usize::from(!ids.is_empty());
        let mut encoder = Encoder::with_ids(ids);
        for (kind, value) in kinds.iter().zip(&values) {
            write(&mut encoder, kind, value);
        }
        assert_eq!(hex(&encoder.finish()), case["hex"].as_str().unwrap());

        let mut decoder = Decoder::new(&stream);
        for _ in &kinds {
            decoder.value().unwrap().skip().unwrap();
        }
        assert!(decoder.next_value().unwrap().is_none());
    }
    assert_eq!(with_types, 12);
}

#[test]
fn cut_streams_are_refused() {
    for case in &streams() {
        let stream = unhex(case["hex"].as_str().unwrap());
        let kinds: Vec<_> = case["types"].as_str().unwrap().split(',').collect();
        for end in 0..stream.len() {
            let cut = &stream[..end];
            let mut decoder = Decoder::new(cut);
            let result: Result<Vec<_>, _> = kinds
                .iter()
                .map(|kind| read(kind, decoder.value()?))
                .collect();
            assert!(result.is_err(), "{} cut at {end}", case["hex"]);
        }
    }
}

proptest! {
    #[test]
    fn changed_streams_are_decoded_or_refused(
        case: prop::sample::Index,
        place: prop::sample::Index,
        value: u8,
        end: prop::sample::Index,
    ) {
        let streams = streams();
        let case = case.get(&streams);
        let mut stream = unhex(case["hex"].as_str().unwrap());
        let place = place.index(stream.len());
        stream[place] = value;
        stream.truncate(end.index(stream.len()) + 1);
        let mut decoder = Decoder::new(&stream);
        for kind in case["types"].as_str().unwrap().split(',') {
            if decoder.value().and_then(|value| read(kind, value)).is_err() {
                break;
            }
        }
        proto::fuzzing::fuzz_gob(&stream);
    }

    #[test]
    fn any_numbers_come_back(
        signed: i64,
        unsigned: u64,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut encoder = Encoder::new();
        encoder.value(Type::Int, |w| w.int(signed));
        encoder.value(Type::Uint, |w| w.uint(unsigned));
        encoder.value(Type::Bytes, |w| w.bytes(&bytes));
        let stream = encoder.finish();
        let mut decoder = Decoder::new(&stream);
        prop_assert_eq!(decoder.value().unwrap().int(), Ok(signed));
        prop_assert_eq!(decoder.value().unwrap().uint(), Ok(unsigned));
        prop_assert_eq!(decoder.value().unwrap().bytes(), Ok(&bytes[..]));
        prop_assert!(decoder.next_value().unwrap().is_none());
    }
}
