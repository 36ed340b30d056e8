//! Native datagrams, and what the ends of a native link say to each other.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::ops::Range;
use std::time::Duration;

use super::frames::fuzz_ethernet;
use crate::native::join::{ChunkJoiner, Origin};
use crate::native::keys::{Binding, HELLO_BYTES, HELLO_BYTES_MAX, Hello};
use crate::native::link::{Control, Link, LinkOutput, SessionNumbers};
use crate::native::report::REPORT_BYTES;
use crate::native::wire::{
    Chunk, DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, Kind, NAMES_BYTES, Names, Record, Records,
    TAG_BYTES, is_native,
};
use crate::native::{Cipher, Ciphers, KeyLife, LinkConfig, OpenError, Receiving, Report, Sending};
use crate::offload::join::Joined;
use crate::offload::split::Split;
use crate::offload::vnet::OpenFrame;
use crate::sleeve::LinkId;
use crate::types::{ConnUid, PeerName, Time};

/// Opens the bytes as a datagram; then seals them as the body of an authentic one, which is what a
/// member of the mesh can send.
pub fn fuzz_native_datagram(data: &[u8]) {
    let peer = PeerName::from_bytes([1; 6]);
    let end = (LinkId(1), peer);
    let receiving = Receiving::from_bytes(end, Cipher::ChaCha20Poly1305, 5, &[7; 32]);
    let sending = Sending::from_bytes(Cipher::ChaCha20Poly1305, 5, &[7; 32]);
    let (Some(receiving), Some(sending)) = (receiving, sending) else {
        return;
    };
    if let Some(header) = Header::parse(data) {
        assert!(is_native(data));
        assert_eq!(header.encode(), data[..HEADER_BYTES]);
        let mut datagram = data.to_vec();
        let opened = receiving.open(&header, &mut datagram);
        assert_eq!(opened, Err(OpenError::Forged));
    }
    if data.len() > DATAGRAM_BYTES_MAX {
        return;
    }
    let mut datagram = vec![0; HEADER_BYTES + data.len() + TAG_BYTES];
    datagram[HEADER_BYTES..HEADER_BYTES + data.len()].copy_from_slice(data);
    let Some(counter) = sending.draw(3, 1) else {
        return;
    };
    assert!(sending.seal(Kind::Frames, 3, counter, &mut datagram));
    let header = Header::parse(&datagram);
    let mut again = datagram.clone();
    let opened = header.map(|header| (header, receiving.open(&header, &mut datagram)));
    assert!(matches!(opened, Some((_, Ok(_)))));
    let Some((header, Ok(opened))) = opened else {
        return;
    };
    assert_eq!(datagram[opened.body.clone()], *data);
    let replayed = receiving.open(&header, &mut again);
    assert_eq!(replayed, Err(OpenError::Replayed));
    take_records(&header, &mut datagram, opened.body);
}

/// Does with the records of a body what a router does.
fn take_records(header: &Header, slab: &mut [u8], body: Range<usize>) {
    let Some(names) = slab.get(body.clone()).and_then(Names::parse) else {
        return assert!(body.len() < NAMES_BYTES);
    };
    let mut records = Records::new(body.start + NAMES_BYTES..body.end);
    let mut joiner = ChunkJoiner::new();
    let mut counter = header.counter;
    while let Some(record) = records.next(slab) {
        match record {
            Ok(Record::Frame { range, .. }) => {
                assert!(body.start <= range.start && range.end <= body.end);
                fuzz_ethernet(&slab[range.clone()]);
                let _ = OpenFrame::new(&slab[range]);
            }
            Ok(Record::Chunk(chunk)) => {
                assert!(body.start <= chunk.range.start && chunk.range.end <= body.end);
                // As if it had come in the next datagram, so that it can be a continuation.
                let origin = Origin {
                    session: header.session,
                    stream: header.stream,
                    counter,
                    neighbour: names.source,
                    names,
                };
                counter += 1;
                take_chunk(&mut joiner, slab, &origin, &chunk);
            }
            Err(_) => {}
        }
    }
    flush(&mut joiner, slab);
}

fn take_chunk(joiner: &mut ChunkJoiner, slab: &mut [u8], origin: &Origin, chunk: &Chunk) {
    let last = joiner.append(slab, origin, chunk);
    if last.is_none() {
        flush(joiner, slab);
        if joiner.start(slab, origin, chunk).is_err() {
            return assert!(joiner.is_empty());
        }
    }
    if last.unwrap_or(chunk.last) {
        flush(joiner, slab);
    }
}

/// What is handed to the device is what the kernel takes: a frame whose headers, lengths and
/// segments are those of the bytes behind them.
fn flush(joiner: &mut ChunkJoiner, slab: &mut [u8]) {
    let Some(joined) = joiner.take(slab) else {
        return assert!(joiner.is_empty());
    };
    check(&joined);
}

fn check(joined: &Joined<'_>) {
    let mut frame = vec![0; joined.frame_len()];
    let frame = joined.copy_to(&mut frame);
    assert!(frame.is_some());
    let frame = frame.unwrap_or_default();
    fuzz_ethernet(frame);
    if joined.header.is_super() {
        let split = Split::new(joined.header, frame);
        assert!(split.is_ok_and(|split| split.segments() == joined.segments()));
    } else {
        assert_eq!(joined.segments(), 1);
        assert!(OpenFrame::new(frame).is_some());
    }
}

/// A report.
pub fn fuzz_native_report(data: &[u8]) {
    let Some(report) = Report::parse(data) else {
        return assert!(data.len() < REPORT_BYTES);
    };
    let mut body = vec![0xaa; data.len()];
    assert!(report.write(&mut body));
    assert_eq!(Report::parse(&body), Some(report));
}

/// A hello.
pub fn fuzz_native_hello(data: &[u8]) {
    let Some(hello) = Hello::parse(data) else {
        return assert!(data.len() < HELLO_BYTES || data.len() > HELLO_BYTES_MAX);
    };
    assert_eq!(Hello::parse(&hello.encode()), Some(hello));
}

/// Everything that the other end of a link can do to it, authentic reports included. Each step is
/// a byte that says what happens, a byte for its length, and so many bytes.
pub fn fuzz_native_link(data: &[u8]) {
    let remote = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 6783);
    let config = |dialled: bool| LinkConfig {
        id: LinkId(1),
        peer: PeerName::from_bytes([1; 6]),
        dialled,
        binding: Binding {
            dialler: PeerName::from_bytes([1; 6]),
            acceptor: PeerName::from_bytes([2; 6]),
            uid: ConnUid(9),
            transcript: [3; 32],
        },
        session_key: None,
        secret: Some([4; 32].into()),
        ciphers: Ciphers::ALL,
        numbers: SessionNumbers::new(5),
        key_life: KeyLife::MAX,
        remote: dialled.then_some(remote),
    };
    let Some((first, mut rest)) = data.split_first() else {
        return;
    };
    let mut link = Link::new(config(first & 1 == 0));
    let mut now = Time::ZERO;
    while let Some((&[step, len], after)) = rest.split_first_chunk() {
        let (body, after) = after.split_at(usize::from(len).min(after.len()));
        rest = after;
        happen(&mut link, &mut now, step, body);
        let mut outputs = 0_u8;
        while let Some(output) = link.poll_output() {
            outputs += 1;
            match output {
                LinkOutput::Report { bytes, .. } => assert!(bytes <= DATAGRAM_BYTES_MAX),
                LinkOutput::NeedSecret => link.handle_secret(now, [outputs; 32].into()),
                _ => {}
            }
        }
        assert!(outputs < 255);
        let _ = link.view();
        let path = link.path();
        assert!(path.max_payload <= DATAGRAM_BYTES_MAX && path.mtu <= path.max_payload);
        assert!(link.keys().receive.len() <= 3);
    }
}

fn happen(link: &mut Link, now: &mut Time, step: u8, body: &[u8]) {
    let number = body
        .iter()
        .fold(0, |n: u64, byte| n << 8 | u64::from(*byte));
    match step % 8 {
        0 => link.confirm(*now),
        1 | 2 => {
            if let Ok(control) = Control::decode(step % 8, body) {
                let _ = link.handle_control(*now, control);
            }
        }
        3 => {
            if let Some(report) = Report::parse(body) {
                link.handle_report(*now, u32::from(step >> 3), report, 1000);
            }
        }
        4 => {
            let from = SocketAddrV4::new(Ipv4Addr::LOCALHOST, number as u16);
            link.handle_moved(*now, from);
        }
        5 => link.handle_too_big(*now, number as usize & 0xffff),
        6 => {
            *now += Duration::from_micros(number & 0xff_ffff_ffff);
            link.handle_timeout(*now);
        }
        _ => {
            *now = link.poll_timeout().map_or(*now, |at| at.max(*now));
            link.handle_timeout(*now);
        }
    }
}

#[cfg(test)]
mod tests;
