//! Key agreement between the two ends of a link.
//!
//! Each end creates a fresh key pair for each epoch and sends a [`Hello`] over the mesh connection.
//!
//! ```text
//! secret   X25519(own private key, remote public key)
//! chain 0  the key of the mesh connection, so the password; zeros without one
//! salt     SHA-256(label | names and connection number | transcript | both hellos)
//! prk      HKDF-Extract(salt, secret | chain)
//! keys     HKDF-Expand(prk, label of the direction), one for each direction
//! chain+1  HKDF-Expand(prk, label of the chain)
//! ```
//!
//! The transcript is everything that both ends sent to introduce themselves, as it went over the
//! connection. If names, connection ids, features, offered ciphers or public keys were changed on
//! the way, the ends have different keys, and no datagram opens.
//!
//! A later epoch depends on the secrets of all earlier ones: an attacker who was not in the middle
//! at the start gains nothing by being there later.

use ring::hkdf::{HKDF_SHA256, KeyType, Prk, Salt};
use sha2::{Digest, Sha256};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::seal::{Cipher, Ciphers, Key};
use crate::crypto::{KEY_BYTES, SessionKey};
use crate::cursor::Cursor;
use crate::types::{ConnUid, PeerName};

/// The supported version of the native overlay.
pub const VERSION: u8 = 1;
/// Size of a hello in bytes. Bytes that follow in a message are ignored, but the keys depend on
/// them.
pub const HELLO_BYTES: usize = 44;
/// Maximum size of a hello in bytes. A longer one ends the link.
pub const HELLO_BYTES_MAX: usize = 1024;

/// The message by which an end agrees on keys for an epoch.
///
/// ```text
///  0  version (1)
///  1  ciphers that its sender takes (1): 1: AES-256-GCM, 2: ChaCha20-Poly1305
///  2  zeros (2)
///  4  epoch (4)
///  8  its sender's number for the key under which it receives (4)
/// 12  public key (32)
/// ```
///
/// Format: `docs/native.md#keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of its sender.
    pub version: u8,
    /// The ciphers that its sender accepts.
    pub ciphers: Ciphers,
    /// The epoch that it is about.
    pub epoch: u32,
    /// The session number under which its sender wants to receive.
    pub session: u32,
    /// Its sender's public key for the epoch.
    pub public: [u8; KEY_BYTES],
}

impl Hello {
    /// Decodes a hello. Returns `None` if it is too short or too long.
    ///
    /// Format: `docs/native.md#keys`.
    pub fn parse(content: &[u8]) -> Option<Hello> {
        if content.len() > HELLO_BYTES_MAX {
            return None;
        }
        let mut cursor = Cursor::new(content);
        let version = cursor.u8().ok()?;
        let ciphers = Ciphers::from_bits(cursor.u8().ok()?);
        cursor.u16().ok()?;
        Some(Hello {
            version,
            ciphers,
            epoch: cursor.u32().ok()?,
            session: cursor.u32().ok()?,
            public: cursor.array().ok()?,
        })
    }

    /// Encodes the hello.
    ///
    /// Format: `docs/native.md#keys`.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HELLO_BYTES);
        out.extend([self.version, self.ciphers.bits(), 0, 0]);
        out.extend(self.epoch.to_be_bytes());
        out.extend(self.session.to_be_bytes());
        out.extend(self.public);
        out
    }
}

/// What the keys of a link depend on besides the hellos.
#[derive(Clone, Debug)]
pub struct Binding {
    /// The peer that made the connection.
    pub dialler: PeerName,
    /// The peer that accepted it.
    pub acceptor: PeerName,
    /// The number of the connection.
    pub uid: ConnUid,
    /// Digest of the introduction ([`crate::wire::Introduced::transcript`]).
    pub transcript: [u8; 32],
}

/// The value to which the keys of the next epoch are bound.
pub(super) struct Chain(Zeroizing<[u8; KEY_BYTES]>);

impl Chain {
    /// Creates the start of the chain from the key of the mesh connection, if it is encrypted.
    pub(super) fn new(session_key: Option<&SessionKey>) -> Chain {
        Chain(Zeroizing::new(
            session_key.map_or([0; KEY_BYTES], |key| *key.as_bytes()),
        ))
    }
}

/// The keys of one epoch, as seen by one end.
pub(super) struct Keys {
    pub(super) send: Key,
    pub(super) receive: Key,
    pub(super) chain: Chain,
}

/// Why there are no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeysError {
    /// The remote's public key is one of those that make the secret predictable.
    #[error("peer sent an unusable public key")]
    PublicKey,
    /// The ends have no cipher in common.
    #[error("no cipher in common with peer")]
    NoCipher,
    /// There are no random bytes for a key pair.
    #[error("no random bytes for a key pair")]
    NoSecret,
    /// The library refused to derive a key, which does not happen for this length.
    #[error("key derivation failed")]
    Derivation,
}

/// One end's private key with both hellos as they were sent.
pub(super) struct Exchange<'a> {
    pub(super) binding: &'a Binding,
    pub(super) dialled: bool,
    pub(super) private: &'a StaticSecret,
    pub(super) our_hello: &'a [u8],
    pub(super) their_hello: &'a [u8],
}

impl Exchange<'_> {
    /// Derives the keys, which are the same at both ends.
    pub(super) fn keys(
        &self,
        ours: &Hello,
        theirs: &Hello,
        chain: &Chain,
    ) -> Result<Keys, KeysError> {
        let cipher = ours.ciphers.agree(theirs.ciphers);
        let cipher = cipher.ok_or(KeysError::NoCipher)?;
        let secret = self.private.diffie_hellman(&PublicKey::from(theirs.public));
        if !secret.was_contributory() {
            return Err(KeysError::PublicKey);
        }
        let mut material = Zeroizing::new([0; 2 * KEY_BYTES]);
        material[..KEY_BYTES].copy_from_slice(secret.as_bytes());
        material[KEY_BYTES..].copy_from_slice(chain.0.as_slice());
        let prk = Salt::new(HKDF_SHA256, &self.salt()).extract(material.as_slice());
        let (send, receive) = match self.dialled {
            true => (LABEL_DIALLER, LABEL_ACCEPTOR),
            false => (LABEL_ACCEPTOR, LABEL_DIALLER),
        };
        Ok(Keys {
            send: key(cipher, &prk, send)?,
            receive: key(cipher, &prk, receive)?,
            chain: Chain(expand(&prk, LABEL_CHAIN)?),
        })
    }

    /// Format: `docs/native.md#keys`.
    fn salt(&self) -> [u8; 32] {
        let (dialler, acceptor) = match self.dialled {
            true => (self.our_hello, self.their_hello),
            false => (self.their_hello, self.our_hello),
        };
        let mut hash = Sha256::new();
        hash.update(LABEL_SALT);
        hash.update(self.binding.dialler.as_bytes());
        hash.update(self.binding.acceptor.as_bytes());
        hash.update(self.binding.uid.0.to_be_bytes());
        hash.update(self.binding.transcript);
        for hello in [dialler, acceptor] {
            hash.update((hello.len() as u64).to_be_bytes());
            hash.update(hello);
        }
        hash.finalize().into()
    }
}

fn key(cipher: Cipher, prk: &Prk, label: &[u8]) -> Result<Key, KeysError> {
    Key::new(cipher, &*expand(prk, label)?).ok_or(KeysError::Derivation)
}

/// HKDF-Expand to the bytes of a key.
///
/// Format: `docs/native.md#keys`.
fn expand(prk: &Prk, label: &[u8]) -> Result<Zeroizing<[u8; KEY_BYTES]>, KeysError> {
    struct Bytes;
    impl KeyType for Bytes {
        fn len(&self) -> usize {
            KEY_BYTES
        }
    }
    let mut out = Zeroizing::new([0; KEY_BYTES]);
    let info = [label];
    prk.expand(&info, Bytes)
        .and_then(|material| material.fill(out.as_mut_slice()))
        .map_err(|_| KeysError::Derivation)?;
    Ok(out)
}

const LABEL_SALT: &[u8] = b"weft native overlay 1";
const LABEL_DIALLER: &[u8] = b"weft native overlay 1 dialler to acceptor";
const LABEL_ACCEPTOR: &[u8] = b"weft native overlay 1 acceptor to dialler";
const LABEL_CHAIN: &[u8] = b"weft native overlay 1 chain";
