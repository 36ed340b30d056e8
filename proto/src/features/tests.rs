use proptest::prelude::*;

use super::*;
use crate::vectors::{bytes, load, map, text};

/// Returns the features of a peer that sends everything it can.
fn full() -> Features {
    Features {
        name: "7a:9f:3c:0d:5e:11".parse().unwrap(),
        nickname: "h1".to_owned(),
        uid: PeerUid(u64::MAX),
        conn_id: 5,
        short_id: ShortId::new(4095),
        trusted: true,
        overlays: Some(vec!["fastdp".to_owned(), "sleeve".to_owned()]),
        extra: BTreeMap::from([("Colour".to_owned(), "blue".to_owned())]),
    }
}

fn with(key: &str, value: &str) -> Result<Features, FeaturesError> {
    let mut map = full().to_map();
    map.insert(key.to_owned(), value.to_owned());
    Features::from_map(map)
}

fn without(key: &str) -> Result<Features, FeaturesError> {
    let mut map = full().to_map();
    map.remove(key).unwrap();
    Features::from_map(map)
}

/// Returns the pairs of a feature stream in their order, and the stream written again from them.
pub(crate) fn replay(stream: &[u8]) -> (Vec<(String, String)>, Vec<u8>) {
    let mut pairs = Vec::new();
    let mut decoder = gob::Decoder::new(stream);
    decoder
        .value()
        .unwrap()
        .map(
            |key| key.text(),
            |key, value| {
                pairs.push((key, value.text()?));
                Ok(())
            },
        )
        .unwrap();
    // length | int id of the definition, negative | ...
    let id = match &stream[1..] {
        [0xff, id, ..] => i64::from(id.div_ceil(2)),
        other => panic!("{other:02x?}"),
    };
    let mut encoder = gob::Encoder::with_ids([id]);
    encoder.value(gob::Type::Map(&STRINGS), |w| {
        w.map(pairs.iter(), |w, (key, value)| {
            w.bytes(key.as_bytes());
            w.bytes(value.as_bytes());
        });
    });
    (pairs, encoder.finish())
}

#[test]
fn recorded_features_are_read_and_written_again() {
    let vectors = load("features.json");
    let cases = vectors.as_array().unwrap();
    assert_eq!(cases.len(), 4);
    for case in cases {
        let stream = bytes(case, "gob");
        let expected = map(case, "features");
        let features = Features::decode(&stream).unwrap();
        assert_eq!(features.to_map(), expected);
        assert_eq!(features.name.to_string(), text(&case["features"], "Name"));
        assert_eq!(features.overlays, Some(vec!["sleeve".to_owned()]));
        assert!(!features.trusted);
        assert!(features.extra.is_empty());
        assert_eq!(Features::decode(&features.encode()), Ok(features));

        let (pairs, again) = replay(&stream);
        assert_eq!(again, stream);
        assert_eq!(pairs.into_iter().collect::<BTreeMap<_, _>>(), expected);
    }
}

#[test]
fn everything_survives_the_way() {
    let features = full();
    assert_eq!(Features::decode(&features.encode()), Ok(features.clone()));
    let bare = Features {
        short_id: None,
        trusted: false,
        overlays: None,
        extra: BTreeMap::new(),
        ..features
    };
    assert_eq!(Features::decode(&bare.encode()), Ok(bare.clone()));
    let none = Features {
        overlays: Some(Vec::new()),
        ..bare
    };
    assert_eq!(Features::decode(&none.encode()), Ok(none));
}

#[test]
fn extra_features_cannot_take_the_place_of_others() {
    let mut features = full();
    for key in [NAME, UID, SHORT_ID, TRUSTED, OVERLAYS, FLAVOUR] {
        features.extra.insert(key.to_owned(), "other".to_owned());
    }
    features.short_id = None;
    features.overlays = None;
    let read = Features::decode(&features.encode()).unwrap();
    assert_eq!((read.short_id, read.overlays), (None, None));
    assert_eq!((read.name, read.uid), (features.name, features.uid));
    assert_eq!(read.extra.len(), 1);
}

#[test]
fn required_features_are_missed() {
    for key in [FLAVOUR, NAME, NICKNAME, UID, CONN_ID] {
        assert_eq!(without(key), Err(FeaturesError::Missing(key)));
    }
    for key in [SHORT_ID, TRUSTED, OVERLAYS] {
        assert!(without(key).is_ok());
    }
    assert_eq!(without(SHORT_ID).unwrap().short_id, None);
    assert!(!without(TRUSTED).unwrap().trusted);
    assert_eq!(without(OVERLAYS).unwrap().overlays, None);
    assert_eq!(with(NICKNAME, "").unwrap().nickname, "");
}

#[test]
fn numbers_are_read_as_go_reads_them() {
    for key in [UID, CONN_ID, SHORT_ID] {
        for bad in [
            "",
            "+1",
            "-1",
            "0x1",
            "1_0",
            " 1",
            "1 ",
            "18446744073709551616",
        ] {
            let value = bad.to_owned();
            assert_eq!(with(key, bad), Err(FeaturesError::Number { key, value }));
        }
        assert!(with(key, "007").is_ok());
    }
    assert_eq!(
        with(CONN_ID, "18446744073709551615").unwrap().conn_id,
        u64::MAX
    );
    assert_eq!(with(SHORT_ID, "4095").unwrap().short_id, ShortId::new(4095));
    assert_eq!(
        with(SHORT_ID, "4096").unwrap_err().to_string(),
        "feature ShortID is \"4096\", which is no number in range"
    );
}

#[test]
fn booleans_are_read_as_go_reads_them() {
    for yes in ["1", "t", "T", "TRUE", "true", "True"] {
        assert!(with(TRUSTED, yes).unwrap().trusted);
    }
    for no in ["0", "f", "F", "FALSE", "false", "False"] {
        assert!(!with(TRUSTED, no).unwrap().trusted);
    }
    for bad in ["", "yes", "tRUE", "2", " true"] {
        assert_eq!(
            with(TRUSTED, bad),
            Err(FeaturesError::Trusted(bad.to_owned()))
        );
    }
}

#[test]
fn the_first_of_several_faults_is_told() {
    let mut map: BTreeMap<String, String> = [
        (FLAVOUR, "hash"),
        (NAME, "x"),
        (NICKNAME, ""),
        (SHORT_ID, "9999"),
        (TRUSTED, "maybe"),
        (UID, "u"),
        (CONN_ID, "c"),
    ]
    .map(|(key, value)| (key.to_owned(), value.to_owned()))
    .into();
    let number = |key, value: &str| FeaturesError::Number {
        key,
        value: value.to_owned(),
    };
    for (error, key, repaired) in [
        (FeaturesError::Flavour("hash".to_owned()), FLAVOUR, "mac"),
        (InvalidPeerName("x".to_owned()).into(), NAME, "::"),
        (InvalidPeerName("::".to_owned()).into(), NAME, "0:0:0:0:0:0"),
        (FeaturesError::Zero(NAME), NAME, "::1"),
        (number(SHORT_ID, "9999"), SHORT_ID, "1"),
        (FeaturesError::Trusted("maybe".to_owned()), TRUSTED, "t"),
        (number(UID, "u"), UID, "0"),
        (FeaturesError::Zero(UID), UID, "1"),
        (number(CONN_ID, "c"), CONN_ID, "0"),
    ] {
        assert_eq!(Features::from_map(map.clone()), Err(error));
        map.insert(key.to_owned(), repaired.to_owned());
    }
    Features::from_map(map).unwrap();
}

#[test]
fn an_error_repeats_only_the_beginning_of_a_long_value() {
    let long = "9".repeat(5000);
    for key in [FLAVOUR, NAME, SHORT_ID, TRUSTED, UID, CONN_ID] {
        let error = with(key, &long).unwrap_err().to_string();
        assert!(error.len() < 150, "{error}");
    }
}

#[test]
fn overlays_stand_between_blanks() {
    let names = |text| with(OVERLAYS, text).unwrap().overlays.unwrap();
    assert_eq!(names("fastdp sleeve"), ["fastdp", "sleeve"]);
    assert_eq!(names("awsvpc"), ["awsvpc"]);
    assert_eq!(names(" sleeve  x "), ["sleeve", "x"]);
    assert!(names("").is_empty());
}

#[test]
fn version_1_has_five_features() {
    let map = version_1_subset(full().to_map());
    assert_eq!(map.len(), 5);
    let expected = Features {
        short_id: None,
        trusted: false,
        overlays: None,
        extra: BTreeMap::new(),
        ..full()
    };
    assert_eq!(Features::from_map(map), Ok(expected));
}

#[test]
fn both_ends_compute_one_connection_uid() {
    let other = Features {
        conn_id: 0xff00,
        ..full()
    };
    assert_eq!(full().conn_uid(&other), ConnUid(0xff05));
    assert_eq!(other.conn_uid(&full()), ConnUid(0xff05));
}

#[test]
fn what_follows_the_features_is_an_error() {
    let stream = full().encode();
    let second = [&stream[..], &[3, 6, 0, 1]].concat();
    assert!(matches!(
        Features::decode(&second),
        Err(FeaturesError::Gob(_))
    ));
    let garbage = [&stream[..], &[9]].concat();
    assert!(matches!(
        Features::decode(&garbage),
        Err(FeaturesError::Gob(_))
    ));
    assert!(matches!(Features::decode(&[]), Err(FeaturesError::Gob(_))));
}

proptest! {
    #[test]
    fn any_features_come_back(
        name in 1u64..1 << 48,
        nickname in ".*",
        uid in 1u64..,
        conn_id: u64,
        short_id in proptest::option::of(0u16..4096),
        trusted: bool,
        overlays in proptest::option::of(proptest::collection::vec("[a-z]{1,8}", 0..4)),
        extra in proptest::collection::btree_map("Weft[A-Z]", ".*", 0..3),
    ) {
        let features = Features {
            name: PeerName::from_u64(name).unwrap(),
            nickname,
            uid: PeerUid(uid),
            conn_id,
            short_id: short_id.and_then(ShortId::new),
            trusted,
            overlays,
            extra,
        };
        prop_assert_eq!(Features::decode(&features.encode()), Ok(features));
    }

    #[test]
    fn changed_streams_are_read_or_refused(
        flips in proptest::collection::vec((any::<usize>(), any::<u8>()), 0..4),
        end: usize,
    ) {
        let mut stream = full().encode();
        for (place, value) in flips {
            let place = place % stream.len();
            stream[place] ^= value;
        }
        stream.truncate(end % (stream.len() + 1));
        if let Ok(features) = Features::decode(&stream) {
            prop_assert_eq!(Features::decode(&features.encode()), Ok(features));
        }
    }
}
