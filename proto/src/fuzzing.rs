//! Entry points for fuzzing: each takes any bytes and must return.

use crate::ethernet::{Frame, is_special};
use crate::offload::checksum;
use crate::offload::split::SPLIT_SEGMENTS_MAX;
use crate::offload::vnet::{Captured, VnetHeader};

/// Looks at the bytes as a frame, and checks that what is found lies inside of it.
pub fn fuzz_ethernet(data: &[u8]) {
    let Ok(frame) = Frame::parse(data) else {
        assert!(data.len() < 14);
        return;
    };
    assert!(!is_special(data) || (frame.ethertype() == 0 && !frame.is_tagged()));
    if let Some(ip) = frame.ipv4() {
        assert!(ip.header().len() == ip.header_len() && ip.total_len() >= ip.header_len());
        assert!(ip.header_len() + ip.payload().len() <= frame.network().len());
    }
    if let Some(ip) = frame.ipv6() {
        assert!(ip.transport_offset() + ip.payload().len() <= frame.network().len());
    }
    if let Some(layout) = frame.layout() {
        assert!(layout.network < layout.transport && layout.transport < layout.payload);
        assert!(layout.payload <= layout.end && layout.end <= data.len());
    }
}

/// Takes ten bytes as a vnet header and the rest as its frame, and writes all that comes of it.
pub fn fuzz_split(data: &[u8]) {
    let Some((header, frame)) = data.split_first_chunk() else {
        return;
    };
    let mut frame = frame.to_vec();
    let Ok(Captured::Super(split)) = Captured::new(VnetHeader::decode(header), &mut frame) else {
        return;
    };
    assert!(split.segments() <= SPLIT_SEGMENTS_MAX);
    let mut out = vec![0; split.segment_len(0)];
    let mut payload = 0;
    for index in 0..split.segments() {
        let len = split.segment_len(index);
        assert!(len <= out.len());
        assert_eq!(split.write_segment(index, &mut out), len);
        let layout = Frame::parse(&out[..len])
            .ok()
            .and_then(|frame| frame.layout());
        assert!(layout.is_some_and(|layout| checksum::verify(&out, &layout)));
        assert_eq!(split.write_chunk(index, &mut out), len);
        assert_eq!(split.write_headers(index, &mut out), split.headers_len());
        payload += split.payload(index).len();
    }
    assert_eq!(payload, split.layout().end - split.layout().payload);
}
