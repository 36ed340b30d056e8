//! The ciphers of native datagrams.
//!
//! AES-256-GCM if the processors of both ends have instructions for it, otherwise
//! ChaCha20-Poly1305. Both use a nonce of 12 bytes that must never be used twice with one key; it
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
    /// Returns the name of the cipher, for people.
    pub const fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "aes-256-gcm",
            Cipher::ChaCha20Poly1305 => "chacha20-poly1305",
        }
    }
}

/// The ciphers that an end accepts, as the bits of its hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphers(u8);

impl Ciphers {
    /// Both, for a processor with instructions for AES.
    pub const ALL: Ciphers = Ciphers(AES | CHACHA);
    /// ChaCha20-Poly1305 alone.
    pub const PORTABLE: Ciphers = Ciphers(CHACHA);

    /// Creates the set from its bits. Unknown bits are ignored.
    pub const fn from_bits(bits: u8) -> Ciphers {
        Ciphers(bits & (AES | CHACHA))
    }

    /// Returns the bits.
    pub const fn bits(self) -> u8 {
        self.0
    }

    /// Returns the fastest cipher that both ends accept.
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

/// A key prepared for its cipher.
pub(super) struct Key {
    cipher: Cipher,
    key: LessSafeKey,
}

impl Key {
    /// Prepares a key. Returns `None` if the library refuses it, which does not happen for this
    /// length.
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

    /// Encrypts `body` in place and returns its tag, which also covers `header`. Returns `None` if
    /// `body` is too long for the cipher, which does not happen within a datagram.
    ///
    /// Format: `docs/native.md#datagrams`.
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

    /// Decrypts a body, followed by its tag, in place if the tag is valid. Otherwise its content is
    /// unspecified.
    ///
    /// Format: `docs/native.md#datagrams`.
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
