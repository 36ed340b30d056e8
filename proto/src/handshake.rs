//! The introduction: what both ends of a connection exchange before the first message.
//!
//! ```text
//! both versions   "weave" | lowest version | highest version            sent at once by both
//! protocol 2      00                              no encryption
//!                 01 | public key (32)            encryption
//!                 length (4) | features           the first message, sealed if encrypted
//! protocol 1      features                        the first value of a gob stream, in the clear;
//!                                                 the public key is one of them
//! ```
//!
//! The version used is the highest that both accept.

use std::collections::{BTreeMap, VecDeque};

use sha2::{Digest, Sha256};

use crate::crypto::{KEY_BYTES, PrivateKey, SessionKey};
use crate::features::{self, Features, PUBLIC_KEY};
use crate::framing::{Channel, Framing};
use crate::gob;
use crate::wire::error::WireError;
use crate::wire::introduced::{Introduced, WireConfig};
use crate::wire::magic::{HEADER_BYTES, MAGIC, Magic};

/// Maximum size of a feature map, in bytes as sent; real ones have about 200. It bounds what a
/// connection costs before its other end is known. A longer map ends the connection.
pub const FEATURES_BYTES_MAX: usize = 8 * 1024;

const FLAG_PLAIN: u8 = 0;
const FLAG_ENCRYPTED: u8 = 1;

/// One end of an introduction.
///
/// Rule: `docs/protocol/mesh.md#3-introduction`.
#[derive(Debug)]
pub(crate) struct Handshake {
    config: WireConfig,
    dialled: bool,
    key: PrivateKey,
    state: State,
    version: u8,
    channel: Channel,
    session_key: Option<SessionKey>,
    /// Hashes of all bytes sent and of all bytes received.
    sent: Sha256,
    received: Sha256,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Header,
    /// Protocol 2: waiting for the flag byte and the public key.
    Flag,
    Features,
}

/// Result of one step.
#[derive(Debug)]
pub(crate) enum Step {
    /// More bytes are needed.
    Wait,
    /// This many bytes were consumed.
    Used(usize),
    /// This many bytes were consumed, and these features complete the introduction.
    Done(usize, Box<Features>),
}

impl Handshake {
    /// Starts the introduction and appends the header to `out`.
    pub(crate) fn new(
        config: WireConfig,
        dialled: bool,
        key: PrivateKey,
        out: &mut VecDeque<Vec<u8>>,
    ) -> Handshake {
        let versions = [config.min_version, config.max_version];
        let mut handshake = Handshake {
            config,
            dialled,
            key,
            state: State::Header,
            version: 0,
            channel: Channel::new(Framing::Length),
            session_key: None,
            sent: Sha256::new(),
            received: Sha256::new(),
        };
        handshake.send([&MAGIC[..], &versions].concat(), out);
        handshake
    }

    /// Returns true if the remote's header is still awaited.
    pub(crate) fn awaits_header(&self) -> bool {
        self.state == State::Header
    }

    /// Handles the next item at the front of `input` and appends answers to `out`.
    pub(crate) fn step(
        &mut self,
        input: &[u8],
        out: &mut VecDeque<Vec<u8>>,
    ) -> Result<Step, WireError> {
        let step = match self.state {
            State::Header => self.header(input, out),
            State::Flag => self.flag(input, out),
            State::Features => self.features(input),
        };
        if let Ok(Step::Used(used) | Step::Done(used, _)) = step {
            self.received.update(&input[..used]);
        }
        step
    }

    /// Returns the result of the introduction, after [`Step::Done`].
    pub(crate) fn finish(self, remote: Features) -> (Introduced, Channel) {
        let (sent, received) = (self.sent.finalize(), self.received.finalize());
        let (dialler, acceptor) = match self.dialled {
            true => (sent, received),
            false => (received, sent),
        };
        let transcript = Sha256::new().chain_update(dialler).chain_update(acceptor);
        let introduced = Introduced {
            remote,
            version: self.version,
            session_key: self.session_key,
            transcript: transcript.finalize().into(),
        };
        (introduced, self.channel)
    }

    fn send(&mut self, bytes: Vec<u8>, out: &mut VecDeque<Vec<u8>>) {
        self.sent.update(&bytes);
        out.push_back(bytes);
    }

    /// Format: `docs/protocol/mesh.md#2-header`.
    fn header(&mut self, input: &[u8], out: &mut VecDeque<Vec<u8>>) -> Result<Step, WireError> {
        let Some((magic, rest)) = input.split_first_chunk() else {
            return Ok(Step::Wait);
        };
        if magic != MAGIC {
            return Err(WireError::Magic(Magic(*magic)));
        }
        let &[min, max, ..] = rest else {
            return Ok(Step::Wait);
        };
        let ours = (self.config.min_version, self.config.max_version);
        self.version = max.min(ours.1);
        let agreed = self.version >= min.max(ours.0);
        match self.version {
            1 if agreed => {
                self.channel = Channel::new(Framing::Gob(gob::Types::default()));
                self.send(self.our_features(), out);
                self.state = State::Features;
            }
            2 if agreed => {
                let flag = match self.config.password {
                    None => vec![FLAG_PLAIN],
                    Some(_) => [&[FLAG_ENCRYPTED][..], &self.key.public()].concat(),
                };
                self.send(flag, out);
                self.state = State::Flag;
            }
            _ => {
                return Err(WireError::Versions {
                    remote: (min, max),
                    ours,
                });
            }
        }
        Ok(Step::Used(HEADER_BYTES))
    }

    /// Format: `docs/protocol/mesh.md#3-1-version-2`.
    fn flag(&mut self, input: &[u8], out: &mut VecDeque<Vec<u8>>) -> Result<Step, WireError> {
        let Some((&flag, rest)) = input.split_first() else {
            return Ok(Step::Wait);
        };
        let used = match (flag, &self.config.password) {
            (FLAG_PLAIN, None) => 1,
            (FLAG_PLAIN, Some(_)) => return Err(WireError::RemoteUnencrypted),
            (FLAG_ENCRYPTED, None) => return Err(WireError::RemoteEncrypted),
            (FLAG_ENCRYPTED, Some(password)) => {
                let Some((public, _)) = rest.split_first_chunk() else {
                    return Ok(Step::Wait);
                };
                let key = self.derive(public, password)?;
                self.encrypt(key);
                1 + KEY_BYTES
            }
            _ => return Err(WireError::Flag(flag)),
        };
        let features = self.our_features();
        let sealed = self.channel.seal(&features)?;
        self.send(sealed, out);
        self.state = State::Features;
        Ok(Step::Used(used))
    }

    /// Format: `docs/protocol/mesh.md#3-2-first-message`.
    fn features(&mut self, input: &[u8]) -> Result<Step, WireError> {
        let Some(body) = self.channel.split(input, FEATURES_BYTES_MAX)? else {
            return Ok(Step::Wait);
        };
        let used = body.end;
        let Some(map) = self.channel.open_features(&input[body])? else {
            return Ok(Step::Used(used));
        };
        let map = match self.version {
            1 => {
                self.take_public_key(&map)?;
                features::version_1_subset(map)
            }
            _ => map,
        };
        Ok(Step::Done(used, Box::new(Features::from_map(map)?)))
    }

    /// Protocol 1: switches encryption on if the remote's features have a public key.
    ///
    /// Rule: `docs/protocol/mesh.md#3-3-version-1`.
    fn take_public_key(&mut self, map: &BTreeMap<String, String>) -> Result<(), WireError> {
        match (map.get(PUBLIC_KEY), &self.config.password) {
            (None, None) => Ok(()),
            (None, Some(_)) => Err(WireError::RemoteUnencrypted),
            (Some(_), None) => Err(WireError::RemoteEncrypted),
            (Some(text), Some(password)) => {
                let public = from_hex(text).ok_or(WireError::PublicKey)?;
                let key = self.derive(&public, password)?;
                self.encrypt(key);
                Ok(())
            }
        }
    }

    fn derive(&self, public: &[u8; KEY_BYTES], password: &[u8]) -> Result<SessionKey, WireError> {
        if let Some(key) = &self.config.recorded.session_key {
            return Ok(key.clone());
        }
        self.key
            .session_key(public, password)
            .map_err(|_| WireError::PublicKey)
    }

    fn encrypt(&mut self, key: SessionKey) {
        self.channel.encrypt(key.clone(), self.dialled);
        self.session_key = Some(key);
    }

    /// Returns the encoded features of this end, in the form of the agreed version.
    fn our_features(&self) -> Vec<u8> {
        if let Some(stream) = &self.config.recorded.features {
            return stream.clone();
        }
        let map = self.config.features.to_map();
        if self.version != 1 {
            return features::encode_map(&map);
        }
        let mut map = features::version_1_subset(map);
        if self.config.password.is_some() {
            map.insert(PUBLIC_KEY.to_owned(), to_hex(&self.key.public()));
        }
        features::encode_map(&map)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    bytes.iter().fold(String::new(), |mut out, byte| {
        // Writing to a string cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}

fn from_hex(text: &str) -> Option<[u8; KEY_BYTES]> {
    let mut out = [0; KEY_BYTES];
    if text.len() != 2 * KEY_BYTES || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(out)
}
