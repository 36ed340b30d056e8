//! The ciphers of native datagrams.
//!
//! AES-256-GCM where the processors of both ends have instructions for it, ChaCha20-Poly1305
//! otherwise. Both take a nonce of 12 bytes that must never be used twice with one key; here it
//! is built from the number of a stream and a counter of that stream (`tunnel.rs`).

use std::fmt;

use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};

use super::wire::{HEADER_BYTES, TAG_BYTES};
use crate::crypto::{Forged, KEY_BYTES};

/// A cipher.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256 in Galois/counter mode.
    Aes256Gcm,
    /// ChaCha20 and Poly1305.
    ChaCha20Poly1305,
}

impl Cipher {
    /// Its name, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// Which ciphers an end takes, as the bits of its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers(u8);

impl Ciphers {
    /// Both, for a processor with instructions for AES.
    pub const ALL: Ciphers = Ciphers(AES | CHACHA);
    /// ChaCha20-Poly1305 alone.
    pub const PORTABLE: Ciphers = Ciphers(CHACHA);

    /// The ciphers of these bits; bits without meaning are left out.
    pub const fn from_bits(bits: u8) -> Ciphers {
        Ciphers(bits & (AES | CHACHA))
    }

    /// The bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// The cipher that two ends use: the fastest that both take.
    pub const fn agree(self, other: Ciphers) -> Option<Cipher> {
        match self.0 & other.0 {
            both if both & AES != 0 => Some(Cipher::Aes256Gcm),
            both if both & CHACHA != 0 => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }
}

const AES: u8 = 1;
const CHACHA: u8 = 2;

/// A key made ready for its cipher.
pub(super) struct Key {
    cipher: Cipher,
    key: LessSafeKey,
}

impl Key {
    /// None for a key that the library refuses, which none of this length is.
    pub(super) fn new(cipher: Cipher, bytes: &[u8; KEY_BYTES]) -> Option<Key> {
        let algorithm = match cipher {
            Cipher::Aes256Gcm => &AES_256_GCM,
            Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        let key = UnboundKey::new(algorithm, bytes).ok()?;
        let key = LessSafeKey::new(key);
        Some(Key { cipher, key })
    }

    pub(super) const fn cipher(&self) -> Cipher {
        self.cipher
    }

    /// Encrypts `body` in place and returns its tag, which covers `header` too. None for a body
    /// that is too long for the cipher, which none that fits a datagram is.
    #[inline]
    pub(super) fn seal(
        &self,
        nonce: [u8; 12],
        header: &[u8; HEADER_BYTES],
        body: &mut [u8],
    ) -> Option<[u8; TAG_BYTES]> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        let sealed = self
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), body);
        sealed.ok()?.as_ref().try_into().ok()
    }

    /// Decrypts in place what is followed by its tag, if the tag is right; leaves it unspecified
    /// if not.
    #[inline]
    pub(super) fn open(
        &self,
        nonce: [u8; 12],
        header: &[u8; HEADER_BYTES],
        body_and_tag: &mut [u8],
    ) -> Result<(), Forged> {
        let nonce = Nonce::assume_unique_for_key(nonce);
        match self
            .key
            .open_in_place(nonce, Aad::from(header), body_and_tag)
        {
            Ok(_) => Ok(()),
            Err(_) => Err(Forged),
        }
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.cipher.name())
    }
}
