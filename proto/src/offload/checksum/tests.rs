use proptest::prelude::*;

use super::*;
use crate::ethernet::Frame;
use crate::ethernet::testing::{noise, spec};

/// Returns the definition, word by word.
fn reference(data: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in data.chunks(2) {
        let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        sum += u32::from(word);
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !(sum as u16)
}

/// Ones' complement has two zeros.
fn same(a: u16, b: u16) -> bool {
    let zero = |value| if value == 0xffff { 0 } else { value };
    zero(a) == zero(b)
}

#[test]
fn every_length_and_offset_is_summed() {
    let data = noise(1, 700);
    for offset in 0..17 {
        for len in 0..data.len() - offset {
            let part = &data[offset..offset + len];
            assert_eq!(checksum(part), reference(part), "{offset}+{len}");
        }
    }
}

#[test]
fn rfc_1071_example() {
    let data = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
    assert_eq!(Sum::of(&data).fold(), 0xddf2);
    assert_eq!(checksum(&data), 0x220d);
}

#[test]
fn the_largest_words_do_not_overflow() {
    let data = vec![0xff; 1 << 20];
    assert_eq!(checksum(&data), 0);
    let sum = Sum::of(&data);
    assert_eq!((0..1000).fold(sum, |all, _| all.plus(sum)).finish(), 0);
    assert_eq!(Sum::of(&[0xff; 2]).finish_udp(), 0xffff);
}

proptest! {
    #[test]
    fn pieces_sum_to_the_whole(data in proptest::collection::vec(any::<u8>(), 0..600), cut in 0usize..300) {
        let cut = (cut * 2).min(data.len() & !1);
        let pieces = Sum::of(&data[..cut]).plus(Sum::of(&data[cut..]));
        prop_assert_eq!(pieces.finish(), checksum(&data));
        let mut longer = data[..cut].to_vec();
        longer.extend([0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc]);
        let numbers = Sum::of(&data[..cut]).plus_u16(0x1234).plus_u32(0x5678_9abc);
        prop_assert_eq!(numbers.finish(), checksum(&longer));
    }

    #[test]
    fn update_is_as_good_as_summing_again(mut data in any::<[u8; 20]>(), new in any::<u16>()) {
        // An IP header is never all zero.
        data[0] = 0x45;
        let before = checksum(&data);
        let old = u16::from_be_bytes([data[2], data[3]]);
        data[2..4].copy_from_slice(&new.to_be_bytes());
        prop_assert!(same(update(before, old, new), checksum(&data)));
    }

    /// Completing a partial checksum restores what the builder computed, and only right ones
    /// verify.
    #[test]
    fn partial_checksums_are_completed(spec in spec(300), flip in any::<u16>()) {
        let whole = spec.build();
        let layout = Frame::parse(&whole).unwrap().layout().unwrap();
        prop_assert!(verify(&whole, &layout));

        let mut partial = whole.clone();
        let field = layout.transport + layout.protocol.checksum_offset();
        let pseudo = pseudo_header(
            layout.ip,
            &partial[layout.network..],
            layout.protocol.number(),
            layout.end - layout.transport,
        );
        partial[field..field + 2].copy_from_slice(&pseudo.fold().to_be_bytes());
        complete(&mut partial, layout.transport, layout.protocol.checksum_offset()).unwrap();
        let sums = [&partial, &whole].map(|f| u16::from_be_bytes([f[field], f[field + 1]]));
        prop_assert!(same(sums[0], sums[1]));
        prop_assert!(verify(&partial, &layout));

        // Any one bit of the checksummed parts.
        let bits = (layout.end - layout.transport) * 8;
        let bit = usize::from(flip) % bits;
        let mut broken = whole;
        broken[layout.transport + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(!verify(&broken, &layout));
    }
}

#[test]
fn a_field_outside_of_the_frame_is_refused() {
    let frame = noise(2, 60);
    for (start, offset) in [
        (61, 0),
        (60, 0),
        (59, 0),
        (0, 59),
        (50, usize::MAX),
        (usize::MAX, 0),
    ] {
        let mut changed = frame.clone();
        assert_eq!(complete(&mut changed, start, offset), None);
        assert_eq!(changed, frame);
    }
    assert_eq!(complete(&mut frame.clone(), 0, 58), Some(()));
}

#[test]
fn udp_without_checksum_does_not_verify() {
    let mut frame = crate::ethernet::testing::Spec::udp(vec![1, 2, 3]).build();
    let layout = Frame::parse(&frame).unwrap().layout().unwrap();
    assert!(verify(&frame, &layout));
    frame[layout.transport + 6..layout.transport + 8].fill(0);
    assert!(!verify(&frame, &layout));
}
