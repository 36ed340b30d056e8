//! How a connection's byte stream is divided into messages, and how messages are encrypted.
//!
//! ```text
//! protocol 2   length (4, big-endian) | message or its secretbox
//! protocol 1   one gob stream; each message or its secretbox is a top-level byte string in it
//! ```
//!
//! A secretbox is `tag (16) | ciphertext`. Its nonce counts the messages of its direction.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::crypto::{Nonce, SessionKey, TAG_BYTES};
use crate::cursor::Cursor;
use crate::features::{self, FeaturesError};
use crate::gob::{self, Encoder, Type};
use crate::wire::error::{MESSAGE_BYTES_MAX, WireError};

/// Bytes before each message of protocol 2.
const LENGTH_BYTES: usize = 4;
/// Maximum overhead of the gob message around a byte string of protocol 1, in bytes: type id, zero
/// byte and length.
const GOB_OVERHEAD_MAX: usize = 16;

/// The two message streams of a connection, one in each direction.
#[derive(Debug)]
pub(crate) struct Channel {
    framing: Framing,
    crypto: Option<Crypto>,
}

#[derive(Debug)]
pub(crate) enum Framing {
    /// Protocol 2.
    Length,
    /// Protocol 1, with the types that the remote's stream has defined.
    Gob(gob::Types),
}

/// The session key and the message counters of both directions.
///
/// Format: `docs/protocol/mesh.md#4-2-secretbox`.
#[derive(Debug)]
struct Crypto {
    key: SessionKey,
    /// Whether this end made the connection.
    dialled: bool,
    sent: u64,
    received: u64,
}

impl Crypto {
    fn seal(&mut self, data: &mut [u8]) -> Result<[u8; TAG_BYTES], WireError> {
        let next = self.sent.checked_add(1).ok_or(WireError::Exhausted)?;
        let nonce = Nonce::tcp(self.dialled, self.sent);
        self.sent = next;
        Ok(self.key.seal_in_place(&nonce, data))
    }

    fn open(&mut self, sealed: &[u8]) -> Result<Vec<u8>, WireError> {
        let next = self.received.checked_add(1).ok_or(WireError::Exhausted)?;
        let Some((tag, data)) = sealed.split_first_chunk::<TAG_BYTES>() else {
            return Err(WireError::Unsealed);
        };
        let mut data = data.to_vec();
        self.key
            .open_in_place(&Nonce::tcp(!self.dialled, self.received), tag, &mut data)
            .map_err(|_| match self.received {
                0 => WireError::Password,
                _ => WireError::Forged,
            })?;
        self.received = next;
        Ok(data)
    }
}

impl Channel {
    /// Creates a channel without encryption.
    pub(crate) fn new(framing: Framing) -> Channel {
        Channel {
            framing,
            crypto: None,
        }
    }

    /// Encrypts all following messages. `dialled` is true if this end made the connection.
    pub(crate) fn encrypt(&mut self, key: SessionKey, dialled: bool) {
        self.crypto = Some(Crypto {
            key,
            dialled,
            sent: 0,
            received: 0,
        });
    }

    /// Returns the range of the first message's body in `input`, or `None` if it is incomplete; the
    /// next message starts where it ends. A message that announces more than `limit` bytes is
    /// refused at once, so that it is never stored.
    ///
    /// Format: `docs/protocol/mesh.md#3-2-first-message`.
    pub(crate) fn split(
        &self,
        input: &[u8],
        limit: usize,
    ) -> Result<Option<Range<usize>>, WireError> {
        match self.framing {
            Framing::Gob(_) => match gob::split_message(input, limit) {
                Ok(found) => Ok(found.map(|(start, end)| start..end)),
                Err(gob::Error::TooLong { len, limit }) => Err(WireError::TooLong { len, limit }),
                Err(error) => Err(error.into()),
            },
            Framing::Length => {
                let mut cursor = Cursor::new(input);
                let Ok(len) = cursor.u32() else {
                    return Ok(None);
                };
                let fits = usize::try_from(len).ok().filter(|len| *len <= limit);
                let Some(len) = fits else {
                    return Err(WireError::TooLong {
                        len: u64::from(len),
                        limit,
                    });
                };
                let end = LENGTH_BYTES + len;
                Ok((input.len() >= end).then_some(LENGTH_BYTES..end))
            }
        }
    }

    /// Returns the message in this body, or `None` if the body only defines a type of protocol 1's
    /// stream.
    ///
    /// Format: `docs/protocol/mesh.md#3-2-first-message`.
    pub(crate) fn open(&mut self, body: &[u8]) -> Result<Option<Vec<u8>>, WireError> {
        let body = match &mut self.framing {
            Framing::Length => body,
            Framing::Gob(types) => {
                // The value borrows from the types, the bytes in it from the body alone.
                let mut message = None;
                types.message(body, |value| {
                    message = Some(value.bytes()?);
                    Ok(())
                })?;
                let Some(message) = message else {
                    return Ok(None);
                };
                message
            }
        };
        match &mut self.crypto {
            Some(crypto) => crypto.open(body).map(Some),
            None => Ok(Some(body.to_vec())),
        }
    }

    /// Returns the feature map in this body: in protocol 1 a value of the stream, in protocol 2 a
    /// message with its own stream. Returns `None` if the body only defines a type.
    ///
    /// Format: `docs/protocol/mesh.md#3-4-features`.
    pub(crate) fn open_features(
        &mut self,
        body: &[u8],
    ) -> Result<Option<BTreeMap<String, String>>, WireError> {
        if let Framing::Gob(types) = &mut self.framing {
            let map = types.message(body, features::read_map);
            return Ok(map.map_err(FeaturesError::Gob)?);
        }
        match self.open(body)? {
            Some(stream) => Ok(Some(features::decode_map(&stream)?)),
            None => Ok(None),
        }
    }

    /// Returns the bytes to send for `message`.
    ///
    /// Format: `docs/protocol/mesh.md#3-2-first-message`.
    pub(crate) fn seal(&mut self, message: &[u8]) -> Result<Vec<u8>, WireError> {
        let tag_len = self.crypto.as_ref().map_or(0, |_| TAG_BYTES);
        let len = tag_len + message.len();
        let announced = u32::try_from(len)
            .ok()
            .filter(|_| len <= MESSAGE_BYTES_MAX)
            .ok_or(WireError::SendTooLong(len))?;
        let start = match self.framing {
            Framing::Length => LENGTH_BYTES,
            Framing::Gob(_) => 0,
        };
        let mut out = Vec::with_capacity(start + len);
        if start != 0 {
            out.extend_from_slice(&announced.to_be_bytes());
        }
        out.resize(start + tag_len, 0);
        out.extend_from_slice(message);
        if let Some(crypto) = &mut self.crypto {
            let (head, data) = out.split_at_mut(start + TAG_BYTES);
            head[start..].copy_from_slice(&crypto.seal(data)?);
        }
        if let Framing::Gob(_) = self.framing {
            // Byte strings need no definition, so a fresh encoder continues the stream as a
            // long-lived one would.
            let mut encoder = Encoder::new();
            encoder.value(Type::Bytes, |w| w.bytes(&out));
            return Ok(encoder.finish());
        }
        Ok(out)
    }

    /// Returns the maximum size of a received message body, in bytes, after the introduction.
    pub(crate) fn limit(&self) -> usize {
        match self.framing {
            Framing::Length => MESSAGE_BYTES_MAX,
            Framing::Gob(_) => MESSAGE_BYTES_MAX + GOB_OVERHEAD_MAX,
        }
    }

    #[cfg(test)]
    pub(crate) fn set_sequence(&mut self, sent: u64, received: u64) {
        if let Some(crypto) = &mut self.crypto {
            (crypto.sent, crypto.received) = (sent, received);
        }
    }
}
