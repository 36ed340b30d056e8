//! The cipher of TCP messages and sleeve packets against an independent implementation.

#![allow(clippy::unwrap_used)]

use poly1305::Poly1305;
use poly1305::universal_hash::KeyInit;
use proto::crypto::{Nonce, SessionKey, TAG_BYTES};
use salsa20::XSalsa20;
use salsa20::cipher::{KeyIvInit, StreamCipher};

/// NaCl's secretbox: the first 32 bytes of the key stream are the key of the tag, the message is
/// encrypted with what follows.
fn reference(key: &[u8; 32], nonce: &Nonce, data: &mut [u8]) -> [u8; TAG_BYTES] {
    let mut cipher = XSalsa20::new(key.into(), nonce.as_bytes().into());
    let mut tag_key = [0; 32];
    cipher.apply_keystream(&mut tag_key);
    cipher.apply_keystream(data);
    Poly1305::new(&tag_key.into()).compute_unpadded(data).into()
}

/// Every length up to that of a jumbo frame, each at another alignment.
#[test]
fn every_length_is_sealed_alike() {
    const LEN_MAX: usize = 9000;
    let mut rng = fastrand::Rng::with_seed(1);
    let mut key = [0; 32];
    rng.fill(&mut key);
    let session = SessionKey::from_bytes(key);
    let mut message = vec![0; LEN_MAX];
    rng.fill(&mut message);
    let mut buffer = vec![0; LEN_MAX + 64];
    let mut expected = vec![0; LEN_MAX];

    for len in 0..=LEN_MAX {
        let nonce = if len % 2 == 0 {
            Nonce::sleeve(rng.bool(), rng.u64(..))
        } else {
            Nonce::tcp(rng.bool(), rng.u64(..))
        };
        let message = &message[..len];
        expected[..len].copy_from_slice(message);
        let expected_tag = reference(&key, &nonce, &mut expected[..len]);

        // 16 bytes before and behind must stay as they are.
        let start = 16 + len % 32;
        let around = [start - 16..start, start + len..start + len + 16];
        for range in around.clone() {
            buffer[range].fill(0xee);
        }
        buffer[start..start + len].copy_from_slice(message);
        let tag = session.seal_in_place(&nonce, &mut buffer[start..start + len]);
        assert_eq!(tag, expected_tag, "{len}");
        assert!(buffer[start..start + len] == expected[..len], "{len}");
        for range in around {
            assert_eq!(buffer[range], [0xee; 16], "{len}");
        }

        let sealed = &mut buffer[start..start + len];
        assert_eq!(session.open_in_place(&nonce, &tag, sealed), Ok(()), "{len}");
        assert!(sealed == message, "{len}");
    }
}

/// Short messages at every alignment.
#[test]
fn every_alignment_is_sealed_alike() {
    let key = [0x42; 32];
    let session = SessionKey::from_bytes(key);
    let nonce = Nonce::sleeve(true, 7);
    for len in (0..700).step_by(7) {
        let mut expected = vec![0x5a; len];
        let expected_tag = reference(&key, &nonce, &mut expected);
        for start in 0..64 {
            let mut buffer = vec![0x5a; start + len];
            let tag = session.seal_in_place(&nonce, &mut buffer[start..]);
            assert_eq!((tag, &buffer[start..]), (expected_tag, &expected[..]));
        }
    }
}

/// No single changed bit of message or tag opens.
#[test]
fn changed_messages_do_not_open() {
    let session = SessionKey::from_bytes([9; 32]);
    let nonce = Nonce::sleeve(false, 1);
    for len in [1, 31, 32, 33, 64, 100, 577] {
        let mut sealed = vec![3; len];
        let tag = session.seal_in_place(&nonce, &mut sealed);
        for bit in 0..(len + TAG_BYTES) * 8 {
            let (mut data, mut tag) = (sealed.clone(), tag);
            match data.get_mut(bit / 8) {
                Some(byte) => *byte ^= 1 << (bit % 8),
                None => tag[bit / 8 - len] ^= 1 << (bit % 8),
            }
            assert!(session.open_in_place(&nonce, &tag, &mut data).is_err());
        }
    }
}

/// The example that NaCl was published with ("Cryptography in NaCl", section 10; tests/secretbox
/// of the package). Its nonce is none that a router uses, so it goes to the library below.
#[test]
fn published_example() {
    let key = hex("1b27556473e985d462cd51197a9a46c76009549eac6474f206c4ee0844f68389");
    let nonce = hex("69696ee955b62b73cd62bda875fc73d68219e0036b7a0b37");
    let message = hex(concat!(
        "be075fc53c81f2d5cf141316ebeb0c7b5228c52a4c62cbd44b66849b64244ffc",
        "e5ecbaaf33bd751a1ac728d45e6c61296cdc3c01233561f41db66cce314adb31",
        "0e3be8250c46f06dceea3a7fa1348057e2f6556ad6b1318a024a838f21af1fde",
        "048977eb48f59ffd4924ca1c60902e52f0a089bc76897040e082f93776384864",
        "5e0705",
    ));
    let expected = hex(concat!(
        "f3ffc7703f9400e52a7dfb4b3d3305d98e993b9f48681273c29650ba32fc76ce",
        "48332ea7164d96a4476fb8c531a1186ac0dfc17c98dce87b4da7f011ec48c972",
        "71d2c20f9b928fe2270d6fb863d51738b48eeee314a7cc8ab932164548e526ae",
        "90224368517acfeabd6bb3732bc0e9da99832b61ca01b6de56244a9e88d5f9b3",
        "7973f622a43d14a6599b1f654cb45a74e355a5",
    ));
    let mut sealed = message;
    let mut tag = [0; TAG_BYTES];
    dryoc::classic::crypto_box::crypto_box_detached_afternm_inplace(
        &mut sealed,
        &mut tag,
        &nonce.try_into().unwrap(),
        &key.try_into().unwrap(),
    );
    assert_eq!([&tag[..], &sealed].concat(), expected);
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}
