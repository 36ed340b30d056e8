use proptest::prelude::*;

use super::*;
use crate::ethernet::testing::{Spec, noise};
use crate::native::chunk::Chunks;
use crate::native::report::Answer;
use crate::native::wire::encode_frame;
use crate::offload::vnet::{FLAG_NEEDS_CSUM, GSO_TCPV4, GSO_UDP_L4, VnetHeader};

const NAMES: Names = Names {
    source: PeerName::from_bytes([1; 6]),
    destination: PeerName::from_bytes([2; 6]),
};

/// Returns the records of a super-frame, one behind the other as if they were of one body.
fn chunks(frame: &[u8], header: VnetHeader, max_payload: usize) -> Vec<u8> {
    let split = Split::new(header, frame).unwrap();
    let chunks = Chunks::new(&split, max_payload).unwrap();
    let mut body = NAMES.encode().to_vec();
    for index in 0..chunks.count() {
        let mut datagram = vec![0; chunks.datagram_len(index)];
        assert!(chunks.write(index, &NAMES.encode(), &mut datagram));
        body.extend(&datagram[HEADER_BYTES + NAMES_BYTES..datagram.len() - TAG_BYTES]);
    }
    body
}

/// Bodies as routers send them.
fn bodies() -> Vec<Vec<u8>> {
    let header = |gso_type, gso_size, csum_start, csum_offset| VnetHeader {
        flags: FLAG_NEEDS_CSUM,
        gso_type,
        header_len: 0,
        gso_size,
        csum_start,
        csum_offset,
    };
    let tcp = Spec::tcp(7, noise(1, 5000)).build();
    let udp = Spec::udp(noise(2, 3000)).build();
    let mut frames = NAMES.encode().to_vec();
    for (frame, is_open) in [
        (&Spec::udp(noise(3, 64)).build(), true),
        (&vec![0xff; 60], false),
    ] {
        frames.extend(encode_frame(frame.len() as u16, is_open));
        frames.extend(frame);
    }
    frames.extend([0; 7]);
    vec![
        chunks(&tcp, header(GSO_TCPV4, 1324, 34, 16), 1472),
        chunks(&tcp, header(GSO_TCPV4, 500, 34, 16), 1472),
        chunks(&udp, header(GSO_UDP_L4, 600, 34, 6), 1472),
        frames,
        NAMES.encode().to_vec(),
    ]
}

fn hello(epoch: u32) -> Vec<u8> {
    let hello = Hello {
        version: 1,
        ciphers: Ciphers::ALL,
        epoch,
        session: 77,
        public: [9; 32],
    };
    hello.encode()
}

fn report(answered: u64) -> Vec<u8> {
    let report = Report {
        sent_at: Time::from_micros(answered + 5),
        answer: Some(Answer {
            sent_at: Time::from_micros(answered),
            waited: Duration::from_micros(3),
            bytes: 1472,
        }),
        sent: 100,
        received: 90,
        wants_answer: true,
    };
    let mut body = vec![0; REPORT_BYTES];
    assert!(report.write(&mut body));
    body
}

/// Lives of links: a choice of who dialled, and steps.
fn lives() -> Vec<Vec<u8>> {
    let step = |step: u8, body: &[u8]| [&[step, body.len() as u8], body].concat();
    let second = &1_000_000_u32.to_be_bytes();
    [0_u8, 1]
        .map(|first| {
            let mut life = vec![first];
            life.extend([step(0, &[]), step(1, &hello(0)), step(4, &[1, 2])].concat());
            for n in 0..20 {
                life.extend([step(7, &[]), step(3, &report(n * 10_000))].concat());
            }
            life.extend([step(5, &[5, 220]), step(6, second), step(7, &[])].concat());
            life.extend([step(2, &[]), step(1, &hello(1)), step(11, &report(1))].concat());
            life.extend(step(1, &hello(7)));
            life
        })
        .to_vec()
}

#[test]
fn what_routers_send_is_taken() {
    bodies().iter().for_each(|body| fuzz_native_datagram(body));
    lives().iter().for_each(|life| fuzz_native_link(life));
    fuzz_native_hello(&hello(3));
    fuzz_native_report(&report(3));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn any_bytes_are_survived(data in prop::collection::vec(any::<u8>(), 0..3000)) {
        fuzz_native_datagram(&data);
        fuzz_native_datagram(&[&[0; 6], &data[..]].concat());
        fuzz_native_hello(&data);
        fuzz_native_report(&data);
        fuzz_native_link(&data);
    }

    #[test]
    fn changed_datagrams_are_survived(
        which in 0_usize..5,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        end in any::<prop::sample::Index>(),
        is_cut in any::<bool>(),
    ) {
        let mut body = bodies().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(body.len());
            body[at] = byte;
        }
        if is_cut {
            body.truncate(end.index(body.len()));
        }
        fuzz_native_datagram(&body);
    }

    #[test]
    fn changed_lives_are_survived(
        which in 0_usize..2,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..12),
    ) {
        let mut life = lives().swap_remove(which);
        for (at, byte) in changes {
            let at = at.index(life.len());
            life[at] = byte;
        }
        fuzz_native_link(&life);
    }
}
