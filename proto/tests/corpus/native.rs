//! Seeds for native links, which no other program speaks: their frames are the recorded ones, the
//! rest is made by the codecs.

use std::time::Duration;

use proto::native::chunk::Chunks;
use proto::native::keys::Hello;
use proto::native::report::{Answer, REPORT_BYTES};
use proto::native::wire::{HEADER_BYTES, TAG_BYTES, encode_frame};
use proto::native::{Ciphers, Report};
use proto::offload::split::Split;
use proto::types::Time;

use super::frames;

/// Names of the sending and the receiving router, with which a body begins.
const NAMES: [u8; 12] = [1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2];

pub(crate) fn datagrams() -> Vec<Vec<u8>> {
    let mut found = vec![NAMES.to_vec()];
    let recorded = frames::ethernet();
    let record = |frame: &[u8], is_open| {
        let len = u16::try_from(frame.len()).unwrap();
        [&encode_frame(len, is_open), frame].concat()
    };
    for frame in &recorded {
        found.push([&NAMES[..], &record(frame, false)].concat());
        found.push([&NAMES[..], &record(frame, true)].concat());
    }
    let small = recorded.iter().filter(|frame| frame.len() < 200);
    let small: Vec<Vec<u8>> = small.map(|frame| record(frame, false)).collect();
    found.push([&NAMES[..], &small.concat(), &[0; 7]].concat());
    for (header, frame) in frames::super_frames() {
        let split = Split::new(header, &frame).unwrap();
        let chunks = Chunks::new(&split, 700).unwrap();
        let mut body = NAMES.to_vec();
        for index in 0..chunks.count() {
            let mut datagram = vec![0; chunks.datagram_len(index)];
            assert!(chunks.write(index, &NAMES, &mut datagram));
            let records = HEADER_BYTES + NAMES.len()..datagram.len() - TAG_BYTES;
            body.extend(&datagram[records]);
        }
        found.push(body);
    }
    found
}

pub(crate) fn hello(epoch: u32) -> Vec<u8> {
    let hello = Hello {
        version: 1,
        ciphers: Ciphers::ALL,
        epoch,
        session: 77,
        public: [9; 32],
    };
    hello.encode()
}

pub(crate) fn hellos() -> Vec<Vec<u8>> {
    vec![
        hello(0),
        hello(1),
        hello(u32::MAX),
        [hello(3), vec![5; 9]].concat(),
    ]
}

fn report(micros: u64, answers: bool) -> Vec<u8> {
    let answer = Answer {
        sent_at: Time::from_micros(micros),
        waited: Duration::from_micros(3),
        bytes: 1472,
    };
    let report = Report {
        sent_at: Time::from_micros(micros + 5),
        answer: answers.then_some(answer),
        sent: 100,
        received: 90,
        wants_answer: true,
    };
    let mut body = vec![0; REPORT_BYTES];
    assert!(report.write(&mut body));
    body
}

pub(crate) fn reports() -> Vec<Vec<u8>> {
    vec![
        report(0, false),
        report(1, true),
        report(u64::MAX / 2, true),
    ]
}

/// Lives of links: a choice of who dialled, and steps.
pub(crate) fn lives() -> Vec<Vec<u8>> {
    let step = |step: u8, body: &[u8]| [&[step, u8::try_from(body.len()).unwrap()], body].concat();
    let second = 1_000_000_u32.to_be_bytes();
    let mut found = Vec::new();
    for first in [0_u8, 1] {
        let begin = [step(0, &[]), step(1, &hello(0)), step(4, &[26, 127])].concat();
        let probes = |count: u64| -> Vec<u8> {
            let probe = |n| [step(7, &[]), step(3, &report(n * 10_000, true))].concat();
            (0..count).flat_map(probe).collect()
        };
        let smaller = [step(5, &[5, 220]), step(6, &second), step(7, &[])].concat();
        let next_key = [step(2, &[]), step(1, &hello(1)), step(11, &report(1, true))].concat();
        for parts in [
            vec![],
            vec![begin.clone()],
            vec![begin.clone(), probes(6), smaller.clone()],
            vec![begin.clone(), probes(6), next_key.clone()],
            vec![begin, probes(20), smaller, next_key, step(1, &hello(7))],
        ] {
            found.push([vec![first], parts.concat()].concat());
        }
    }
    found
}
