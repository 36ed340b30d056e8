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
        let result = decoder
            .next_value()
            .and_then(|value| value.map_or(Ok(()), Value::skip));
        let ended_between_messages = matches!(decoder.next_value(), Ok(None));
        assert!(result.is_err() || ended_between_messages, "cut at {end}");
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
