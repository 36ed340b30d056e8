use super::*;
use crate::ethernet::testing::{Spec, noise};
use crate::types::PeerName;

const ORIGIN: Origin = Origin {
    session: 1,
    stream: 2,
    counter: 3,
    neighbour: PeerName::from_bytes([1; 6]),
    names: Names {
        source: PeerName::from_bytes([1; 6]),
        destination: PeerName::from_bytes([2; 6]),
    },
};

fn chunk(frame: &[u8], headers: usize) -> Chunk {
    Chunk {
        index: 0,
        last: false,
        headers: headers as u8,
        segment: 100,
        range: 0..frame.len(),
    }
}

fn headers_len(frame: &[u8]) -> usize {
    Frame::parse(frame).unwrap().layout().unwrap().payload
}

#[test]
fn chunks_that_are_not_what_they_say_are_refused() {
    let good = Spec::tcp(1, noise(1, 300)).build();
    let headers = headers_len(&good);
    let refuses = |frame: &[u8], chunk: &Chunk| {
        let mut joiner = ChunkJoiner::new();
        let refused = joiner.start(frame, &ORIGIN, chunk) == Err(BadChunk);
        assert_eq!(refused, joiner.is_empty());
        refused
    };
    assert!(!refuses(&good, &chunk(&good, headers)));
    for wrong in [0, 1, headers - 1, headers + 1, 255] {
        assert!(refuses(&good, &chunk(&good, wrong)), "{wrong}");
    }
    // Bytes behind the packet, a packet that is cut off, a fragment, and a range outside.
    let padded = [&good[..], &[0]].concat();
    assert!(refuses(&padded, &chunk(&padded, headers)));
    assert!(refuses(
        &good[..good.len() - 1],
        &chunk(&good[..good.len() - 1], headers)
    ));
    let mut fragment = good.clone();
    fragment[20] = 0x20;
    assert!(refuses(&fragment, &chunk(&fragment, headers)));
    let beyond = Chunk {
        range: 10..good.len() + 1,
        ..chunk(&good, headers)
    };
    assert!(refuses(&good, &beyond));
    let mut icmp = good.clone();
    icmp[23] = 1;
    assert!(refuses(&icmp, &chunk(&icmp, headers)));
    // More datagrams than a device takes in one.
    let udp = Spec::udp(noise(1, 3000)).build();
    let tiny = Chunk {
        segment: 40,
        ..chunk(&udp, headers_len(&udp))
    };
    assert!(refuses(&udp, &tiny));
}

#[test]
fn only_the_next_chunk_of_the_same_train_is_appended() {
    let frame = Spec::tcp(1, noise(1, 300)).build();
    let headers = headers_len(&frame);
    let first = chunk(&frame, headers);
    let next = Chunk {
        index: 1,
        ..first.clone()
    };
    let after = Origin {
        counter: 4,
        ..ORIGIN
    };
    let other = PeerName::from_bytes([9; 6]);
    let names = Names {
        source: other,
        ..ORIGIN.names
    };
    let takes = |origin: Origin, chunk: &Chunk| {
        let mut joiner = ChunkJoiner::new();
        assert_eq!(
            joiner.append(&frame, &ORIGIN, &first),
            None,
            "nothing to append to"
        );
        joiner.start(&frame, &ORIGIN, &first).unwrap();
        joiner.append(&frame, &origin, chunk)
    };
    assert_eq!(takes(after, &next), Some(false));
    assert_eq!(
        takes(
            after,
            &Chunk {
                last: true,
                ..next.clone()
            }
        ),
        Some(true)
    );
    assert_eq!(takes(ORIGIN, &next), None);
    assert_eq!(
        takes(
            Origin {
                counter: 5,
                ..after
            },
            &next
        ),
        None
    );
    assert_eq!(takes(Origin { stream: 3, ..after }, &next), None);
    assert_eq!(
        takes(
            Origin {
                session: 2,
                ..after
            },
            &next
        ),
        None
    );
    assert_eq!(takes(Origin { names, ..after }, &next), None);
    assert_eq!(takes(after, &first), None);
    assert_eq!(
        takes(
            after,
            &Chunk {
                index: 2,
                ..next.clone()
            }
        ),
        None
    );
    assert_eq!(
        takes(
            after,
            &Chunk {
                segment: 99,
                ..next.clone()
            }
        ),
        None
    );
    assert_eq!(
        takes(
            after,
            &Chunk {
                headers: 53,
                ..next.clone()
            }
        ),
        None
    );
    assert_eq!(
        takes(
            after,
            &Chunk {
                range: 0..headers - 1,
                ..next
            }
        ),
        None
    );
}

#[test]
fn no_super_frame_exceeds_what_a_device_takes() {
    let frame = Spec::tcp(1, noise(1, 1400)).build();
    let headers = headers_len(&frame);
    let mut joiner = ChunkJoiner::new();
    let mut slab = frame.clone();
    let mut largest = 0;
    for index in 0..=255 {
        let origin = Origin {
            counter: u32::from(index) + 3,
            ..ORIGIN
        };
        let chunk = Chunk {
            index,
            ..chunk(&frame, headers)
        };
        if joiner.append(&slab, &origin, &chunk).is_none() {
            if let Some(joined) = joiner.take(&mut slab) {
                largest = largest.max(joined.frame_len());
                assert!(joined.parts_len() <= TCP_SEGMENTS_MAX);
            }
            // What was taken has longer lengths in its headers now.
            slab = frame.clone();
            joiner.start(&slab, &origin, &chunk).unwrap();
        }
    }
    assert!(
        largest > 60_000 && largest <= 14 + SUPER_BYTES_MAX,
        "{largest}"
    );
}

#[test]
fn counters_that_run_out_end_a_train() {
    let frame = Spec::tcp(1, noise(1, 300)).build();
    let first = chunk(&frame, headers_len(&frame));
    let mut joiner = ChunkJoiner::new();
    let last = Origin {
        counter: u32::MAX,
        ..ORIGIN
    };
    joiner.start(&frame, &last, &first).unwrap();
    for counter in [0, u32::MAX] {
        let next = Chunk {
            index: 1,
            ..first.clone()
        };
        assert_eq!(
            joiner.append(&frame, &Origin { counter, ..ORIGIN }, &next),
            None
        );
    }
}
