//! Session keys and NaCl's secretbox, as used by TCP messages and sleeve packets.
//!
//! ```text
//! shared  = HSalsa20(X25519(own private, remote public))      NaCl's crypto_box_beforenm
//! key     = SHA-256(shared | password)
//! box     = tag (16) | XSalsa20-Poly1305(key, nonce) of the message
//! nonce   = polarity and transport (1) | zeros (15) | counter (8, big-endian)
//! ```

use dryoc::classic::crypto_box::{
    crypto_box_detached_afternm_inplace, crypto_box_open_detached_afternm_inplace,
};
use dryoc::classic::crypto_core::crypto_core_hsalsa20;
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::{Zeroize, Zeroizing};

/// Size of a key in bytes, private, public or shared.
pub const KEY_BYTES: usize = 32;
/// Number of bytes by which an encrypted message exceeds the plain one.
pub const TAG_BYTES: usize = 16;
/// Size of a nonce in bytes.
pub const NONCE_BYTES: usize = 24;

/// The data was not encrypted with this key and nonce, or was changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message does not open: wrong password, or changed on the way")]
pub struct Forged;

/// 32 random bytes that are used once. They are wiped when they are dropped, not shown in any
/// output for people, and not copied.
pub struct Secret(Zeroizing<[u8; KEY_BYTES]>);

impl Secret {
    /// Takes the bytes in, and wipes where they came from.
    pub fn new(bytes: &mut [u8; KEY_BYTES]) -> Secret {
        let secret = Secret(Zeroizing::new(*bytes));
        bytes.zeroize();
        secret
    }

    /// Returns the key of a key pair that is made of them.
    pub(crate) fn static_secret(self) -> StaticSecret {
        StaticSecret::from(*self.0)
    }
}

impl From<[u8; KEY_BYTES]> for Secret {
    fn from(mut bytes: [u8; KEY_BYTES]) -> Secret {
        Secret::new(&mut bytes)
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The private half of a key pair, used for one connection.
pub struct PrivateKey(StaticSecret);

impl PrivateKey {
    /// Creates the key from 32 random bytes.
    pub fn from_bytes(mut random: [u8; KEY_BYTES]) -> PrivateKey {
        let key = PrivateKey(StaticSecret::from(random));
        random.zeroize();
        key
    }

    /// Creates the key made of a secret.
    pub fn from_secret(secret: Secret) -> PrivateKey {
        PrivateKey(secret.static_secret())
    }

    /// Returns the public half, which is sent to the other end.
    pub fn public(&self) -> [u8; KEY_BYTES] {
        PublicKey::from(&self.0).to_bytes()
    }

    /// Derives the key shared with the owner of the public key `remote` under `password`. Returns
    /// an error for the few public keys that make the result predictable.
    ///
    /// Format: `docs/protocol/mesh.md#4-1-session-key`.
    pub fn session_key(
        &self,
        remote: &[u8; KEY_BYTES],
        password: &[u8],
    ) -> Result<SessionKey, Forged> {
        let point = self.0.diffie_hellman(&PublicKey::from(*remote));
        if !point.was_contributory() {
            return Err(Forged);
        }
        let mut shared = [0; KEY_BYTES];
        crypto_core_hsalsa20(&mut shared, &[0; 16], point.as_bytes(), None);
        let mut hash = Sha256::new();
        hash.update(shared);
        hash.update(password);
        shared.zeroize();
        let mut digest: [u8; KEY_BYTES] = hash.finalize().into();
        let key = SessionKey(digest);
        digest.zeroize();
        Ok(key)
    }
}

impl std::fmt::Debug for PrivateKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PrivateKey(..)")
    }
}

/// The key of one mesh connection, used for its TCP messages and its sleeve packets.
#[derive(Clone)]
pub struct SessionKey([u8; KEY_BYTES]);

impl SessionKey {
    /// Creates a key from its bytes.
    pub const fn from_bytes(bytes: [u8; KEY_BYTES]) -> SessionKey {
        SessionKey(bytes)
    }

    /// Returns the bytes of the key.
    pub const fn as_bytes(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    /// Encrypts `data` in place and returns its tag.
    ///
    /// Format: `docs/protocol/mesh.md#4-2-secretbox`.
    pub fn seal_in_place(&self, nonce: &Nonce, data: &mut [u8]) -> [u8; TAG_BYTES] {
        let mut tag = [0; TAG_BYTES];
        crypto_box_detached_afternm_inplace(data, &mut tag, &nonce.0, &self.0);
        tag
    }

    /// Decrypts `data` in place if its tag is valid. On error the content of `data` is unspecified.
    ///
    /// Format: `docs/protocol/mesh.md#4-2-secretbox`.
    pub fn open_in_place(
        &self,
        nonce: &Nonce,
        tag: &[u8; TAG_BYTES],
        data: &mut [u8],
    ) -> Result<(), Forged> {
        crypto_box_open_detached_afternm_inplace(data, tag, &nonce.0, &self.0).map_err(|_| Forged)
    }
}

impl Drop for SessionKey {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl std::fmt::Debug for SessionKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionKey(..)")
    }
}

/// The nonce of one message. It is never transmitted completely.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Nonce([u8; NONCE_BYTES]);

impl Nonce {
    /// Returns the nonce of a TCP message. `dialled` is true if its *sender* made the connection.
    ///
    /// Format: `docs/protocol/mesh.md#4-2-secretbox`.
    pub const fn tcp(dialled: bool, sequence: u64) -> Nonce {
        Nonce::build(if dialled { 0xc0 } else { 0x40 }, sequence)
    }

    /// Returns the nonce of a sleeve packet. `dialled` is true if its *sender* made the TCP
    /// connection; the top bit of `counter` is the channel.
    ///
    /// Format: `docs/protocol/sleeve.md#2-3-encryption`.
    pub const fn sleeve(dialled: bool, counter: u64) -> Nonce {
        Nonce::build(if dialled { 0x80 } else { 0 }, counter)
    }

    /// Returns the bytes of the nonce.
    pub const fn as_bytes(&self) -> &[u8; NONCE_BYTES] {
        &self.0
    }

    const fn build(first: u8, counter: u64) -> Nonce {
        let [a, b, c, d, e, f, g, h] = counter.to_be_bytes();
        let mut nonce = [0; NONCE_BYTES];
        nonce[0] = first;
        nonce[16] = a;
        nonce[17] = b;
        nonce[18] = c;
        nonce[19] = d;
        nonce[20] = e;
        nonce[21] = f;
        nonce[22] = g;
        nonce[23] = h;
        Nonce(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_sides_derive_one_key_and_open_what_the_other_sealed() {
        let (a, b) = (
            PrivateKey::from_bytes([1; 32]),
            PrivateKey::from_bytes([2; 32]),
        );
        let ours = a.session_key(&b.public(), b"secret").unwrap();
        let theirs = b.session_key(&a.public(), b"secret").unwrap();
        assert_eq!(ours.as_bytes(), theirs.as_bytes());

        let nonce = Nonce::tcp(true, 7);
        let mut data = *b"hello";
        let tag = ours.seal_in_place(&nonce, &mut data);
        assert_ne!(&data, b"hello");
        let mut changed = data;
        changed[0] ^= 1;
        assert_eq!(
            theirs.open_in_place(&nonce, &tag, &mut changed),
            Err(Forged)
        );
        assert_eq!(
            theirs.open_in_place(&Nonce::tcp(false, 7), &tag, &mut { data }),
            Err(Forged)
        );
        theirs.open_in_place(&nonce, &tag, &mut data).unwrap();
        assert_eq!(&data, b"hello");
    }

    #[test]
    fn a_secret_does_not_print_and_wipes_its_source() {
        let mut bytes = [0x5a; 32];
        let secret = Secret::new(&mut bytes);
        assert_eq!(bytes, [0; 32]);
        assert_eq!(format!("{secret:?}"), "Secret(..)");
        let (a, b) = (
            PrivateKey::from_secret(secret),
            PrivateKey::from_bytes([0x5a; 32]),
        );
        assert_eq!(a.public(), b.public());
    }

    #[test]
    fn a_predictable_public_key_is_refused() {
        let key = PrivateKey::from_bytes([1; 32]);
        assert_eq!(key.session_key(&[0; 32], b"secret").err(), Some(Forged));
    }
}
