use super::*;

static PAIR: StructType = StructType {
    name: "Range",
    fields: &[("Start", Type::Uint), ("End", Type::Uint)],
};
static PAIRS: SliceType = SliceType {
    name: "",
    elem: Type::Struct(&PAIR),
};
static TABLE: MapType = MapType {
    name: "",
    key: Type::Uint,
    elem: Type::Slice(&PAIRS),
};

fn table(encoder: &mut Encoder) {
    encoder.value(Type::Map(&TABLE), |w| {
        w.map([(7u64, 3u64)].iter(), |w, (key, count)| {
            w.uint(*key);
            w.slice(0..*count as usize, |w, i| {
                w.structure(|s| {
                    s.uint(0, i as u64);
                    s.uint(1, 1 << 40);
                });
            });
        });
    });
}

#[test]
fn nested_values_come_back() {
    let mut encoder = Encoder::new();
    table(&mut encoder);
    table(&mut encoder);
    let stream = encoder.finish();
    let mut decoder = Decoder::new(&stream);
    for _ in 0..2 {
        let mut seen = Vec::new();
        let value = decoder.next_value().unwrap().unwrap();
        value
            .map(
                |key| key.uint(),
                |key, elem| {
                    elem.slice(|pair| {
                        let (mut start, mut end) = (0, 0);
                        pair.structure(&["End", "Start", "Absent"], |field, value| {
                            *(if field == 0 { &mut end } else { &mut start }) = value.uint()?;
                            Ok(())
                        })?;
                        seen.push((key, start, end));
                        Ok(())
                    })
                    .map(drop)
                },
            )
            .unwrap();
        assert_eq!(seen, [(7, 0, 1 << 40), (7, 1, 1 << 40), (7, 2, 1 << 40)]);
    }
    assert!(decoder.next_value().unwrap().is_none());

    let mut decoder = Decoder::new(&stream);
    decoder.value().unwrap().skip().unwrap();
    decoder.value().unwrap().skip().unwrap();
    assert!(decoder.next_value().unwrap().is_none());
}

#[test]
fn a_discarded_value_is_passed_over_whole() {
    let mut encoder = Encoder::new();
    table(&mut encoder);
    table(&mut encoder);
    encoder.value(Type::Uint, |w| w.uint(5));
    let stream = encoder.finish();
    let mut decoder = Decoder::new(&stream);
    decoder.value().unwrap().discard().unwrap();
    let inner = decoder.value().unwrap();
    inner
        .map(|key| key.discard(), |(), elem| elem.discard())
        .unwrap();
    assert_eq!(decoder.value().unwrap().uint(), Ok(5));
}

#[test]
fn given_ids_make_the_recorded_bytes() {
    let mut encoder = Encoder::with_ids([81]);
    encoder.value(Type::Struct(&PAIR), |w| {
        w.structure(|s| {
            s.uint(0, 0x0a20_0000);
            s.uint(1, 0x0a20_0001);
        });
    });
    let expected = "25ffa1030101 05 52616e676501ffa2000102010553746172740106000103456e6401060000\
                    000fffa201fc0a20000001fc0a20000100"
        .replace(' ', "");
    let hex: String = encoder
        .finish()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect();
    assert_eq!(hex, expected);
}

#[test]
fn every_truncation_is_an_error() {
    let mut encoder = Encoder::new();
    table(&mut encoder);
    let stream = encoder.finish();
    for end in 1..stream.len() {
        let mut decoder = Decoder::new(&stream[..end]);
        let result = decoder.value().and_then(Value::skip);
        assert!(result.is_err(), "cut at {end}");
    }
}

#[test]
fn announced_counts_are_bounded_by_the_input() {
    // A byte string that says it is 2^40 bytes long.
    let stream = [9, 10, 0, 0xfa, 1, 0, 0, 0, 0, 0];
    let error = Decoder::new(&stream).value().unwrap().bytes().unwrap_err();
    assert_eq!(
        error,
        Error::Count {
            count: 1 << 40,
            left: 0
        }
    );
}

#[test]
fn a_type_that_contains_itself_ends_at_the_depth_limit() {
    static LIST: SliceType = SliceType {
        name: "",
        elem: Type::Int,
    };
    let mut encoder = Encoder::new();
    encoder.value(Type::Slice(&LIST), |w| w.slice([0].iter(), |w, _| w.int(0)));
    let mut stream = encoder.finish();
    // Make the element type (int, id 2) the list itself (id 65) and the value a deep nest.
    let elem = stream.windows(2).position(|w| w == [1, 4]).unwrap() + 1;
    stream.splice(elem..=elem, [0xff, 0x82]);
    stream[0] += 1;
    let value = stream.len() - 6;
    stream.truncate(value);
    stream.extend([0x7f, 0xff, 0x82, 0]);
    stream.extend([1; 0x7c]);
    let error = Decoder::new(&stream)
        .value()
        .and_then(Value::skip)
        .unwrap_err();
    assert_eq!(error, Error::Depth);
}

/// Returns a message with this body: its length before it.
fn message(body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    match u8::try_from(body.len()) {
        Ok(len) if len < 0x80 => out.push(len),
        _ => {
            out.push(0xfc);
            out.extend(u32::try_from(body.len()).unwrap().to_be_bytes());
        }
    }
    out.extend(body);
    out
}

/// Returns the definition of `struct { name uint; ... }` as type `0x40 + number`.
fn structure(number: u16, names: &[&[u8]]) -> Vec<u8> {
    let [high, low] = (0x7f + 2 * number).to_be_bytes();
    let mut body = match high {
        0 => vec![0xff, low],
        _ => vec![0xfe, high, low],
    };
    body.extend([3, 2, 0xfe]);
    body.extend(u16::try_from(names.len()).unwrap().to_be_bytes());
    for name in names {
        body.extend([1, 0xff, u8::try_from(name.len()).unwrap()]);
        body.extend(*name);
        body.extend([1, 6, 0]);
    }
    body.extend([0, 0]);
    message(&body)
}

fn decode(stream: &[u8]) -> Result<(), Error> {
    Decoder::new(stream).value()?.skip()
}

#[test]
fn definitions_without_a_value_are_no_clean_end() {
    let mut stream = structure(1, &[b"A"]);
    assert_eq!(
        Decoder::new(&stream).next_value().err(),
        Some(Error::Missing)
    );
    stream.extend([4, 4, 0, 0xff, 0x80]);
    let mut decoder = Decoder::new(&stream);
    assert_eq!(decoder.value().unwrap().int(), Ok(64));
    assert!(decoder.next_value().unwrap().is_none());
}

#[test]
fn fields_of_foreign_kinds_are_skipped() {
    // struct { F float; C complex; A [2]int; G GobEncoder; N uint }; the array (66) and the
    // encoder (67) are defined after the struct that uses them.
    let mut stream = message(&[
        0xff, 0x81, 3, 2, 5, //
        1, 1, b'F', 1, 8, 0, //
        1, 1, b'C', 1, 14, 0, //
        1, 1, b'A', 1, 0xff, 0x84, 0, //
        1, 1, b'G', 1, 0xff, 0x86, 0, //
        1, 1, b'N', 1, 6, 0, 0, 0,
    ]);
    stream.extend(message(&[0xff, 0x83, 1, 2, 4, 1, 4, 0, 0]));
    stream.extend(message(&[0xff, 0x85, 5, 1, 0, 0, 0]));
    stream.extend(message(&[
        0xff, 0x82, //
        1, 0xfe, 0xf0, 0x3f, //
        1, 1, 2, //
        1, 2, 4, 6, //
        1, 3, 9, 9, 9, //
        1, 7, 0,
    ]));
    let mut n = 0;
    let mut decoder = Decoder::new(&stream);
    decoder
        .value()
        .unwrap()
        .structure(&["N"], |_, value| {
            n = value.uint()?;
            Ok(())
        })
        .unwrap();
    assert_eq!(n, 7);
    decode(&stream).unwrap();
}

#[test]
fn only_a_top_level_struct_needs_a_common_field() {
    let read = |stream: &[u8], known: &[&str]| {
        Decoder::new(stream)
            .value()?
            .structure(known, |_, value| value.skip())
    };
    let mut named = structure(1, &[b"A"]);
    named.extend(message(&[0xff, 0x82, 1, 5, 0]));
    assert_eq!(read(&named, &["A", "B"]), Ok(()));
    assert_eq!(read(&named, &["B"]), Err(Error::NoCommonField));
    assert_eq!(read(&named, &[]), Ok(()));

    let mut empty = structure(1, &[]);
    empty.extend(message(&[0xff, 0x82, 0]));
    assert_eq!(read(&empty, &["B"]), Ok(()));

    // []struct { A uint }: the element needs none.
    let mut stream = structure(1, &[b"A"]);
    stream.extend(message(&[0xff, 0x83, 2, 2, 0xff, 0x82, 0, 0]));
    stream.extend(message(&[0xff, 0x84, 0, 1, 1, 5, 0]));
    let mut decoder = Decoder::new(&stream);
    let elements = decoder
        .value()
        .unwrap()
        .slice(|elem| elem.structure(&["B"], |_, value| value.skip()));
    assert_eq!(elements, Ok(1));
}

#[test]
fn kinds_must_agree() {
    let number = [3, 6, 0, 5];
    let refused = |read: fn(Value<'_, '_>) -> Result<(), Error>| {
        let error = Decoder::new(&number).value().and_then(read).unwrap_err();
        assert!(matches!(error, Error::Kind { got: 3, .. }), "{error}");
    };
    refused(|value| value.bool().map(drop));
    refused(|value| value.int().map(drop));
    refused(|value| value.bytes().map(drop));
    refused(|value| value.string().map(drop));
    refused(|value| value.slice(|elem| elem.skip()).map(drop));
    refused(|value| {
        value
            .map(|key| key.skip(), |(), elem| elem.skip())
            .map(drop)
    });
    refused(|value| value.structure(&[], |_, field| field.skip()));
    let wide = [6, 6, 0, 0xfd, 1, 0, 0];
    let mut decoder = Decoder::new(&wide);
    assert_eq!(decoder.value().unwrap().uint16(), Err(Error::Range));
    let mut decoder = Decoder::new(&wide);
    assert_eq!(decoder.value().unwrap().uint32(), Ok(0x10000));
}

#[test]
fn what_a_stream_may_define_is_bounded() {
    let value = [3, 6, 0, 5];
    let name = [b'n'; 128];
    let fields = vec![&name[..]; 256];
    let fits = [structure(1, &fields), value.to_vec()].concat();
    assert_eq!(decode(&fits), Ok(()));
    let one_more = [structure(1, &fields), structure(2, &[b"A"]), value.to_vec()].concat();
    assert_eq!(decode(&one_more), Err(Error::BadDefinition(66)));
    let long = [structure(1, &[&[b'n'; 129]]), value.to_vec()].concat();
    assert_eq!(decode(&long), Err(Error::BadDefinition(65)));

    let many = |count: u16| -> Vec<u8> {
        let mut stream: Vec<u8> = (0..count).flat_map(|n| structure(n + 1, &[])).collect();
        stream.extend(value);
        stream
    };
    assert_eq!(decode(&many(64)), Ok(()));
    assert_eq!(decode(&many(65)), Err(Error::BadDefinition(129)));

    let twice = [structure(1, &[]), structure(1, &[]), value.to_vec()].concat();
    assert_eq!(decode(&twice), Err(Error::BadDefinition(65)));
    let reserved = [message(&[0x7d, 3, 0, 0]), value.to_vec()].concat();
    assert_eq!(decode(&reserved), Err(Error::BadDefinition(63)));
    let nothing = [message(&[0xff, 0x81, 0]), value.to_vec()].concat();
    assert_eq!(decode(&nothing), Err(Error::BadDefinition(65)));
}

#[test]
fn split_message_waits_for_the_whole() {
    assert_eq!(split_message(&[], 10), Ok(None));
    assert_eq!(split_message(&[2, 1], 10), Ok(None));
    assert_eq!(split_message(&[2, 1, 1, 9], 10), Ok(Some((1, 3))));
    assert_eq!(split_message(&[0xff], 10), Ok(None));
    assert_eq!(
        split_message(&[0xff, 11], 10),
        Err(Error::TooLong { len: 11, limit: 10 })
    );
    assert_eq!(split_message(&[0x80], 10), Err(Error::Range));
}
