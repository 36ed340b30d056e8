//! The messages that peers exchange once they are introduced.
//!
//! ```text
//! 00                                              heartbeat
//! 01 .. 03 | body                                 overlay control, the old way: sleeve alone
//! 04 | gob: channel, sender, payload              gossip, from neighbour to neighbour
//! 05 | gob: channel, source, dest, payload        gossip to one peer
//! 06 | gob: channel, source, payload              gossip to everybody
//! 07 | overlay index | tag | body                 overlay control
//! 08 | kind | body                                between routers of our kind that both say so
//! ```
//!
//! A Weave Net router crashes on an overlay control message without an index and a tag, on one
//! whose index is out of range, and on a legacy control message on a switched link. Values of
//! [`OverlayIndex`] and [`LegacyTag`] are created for one link and are in range, so such a message
//! cannot be built.

use crate::gob::{self, Decoder, Encoder, Type};
use crate::types::PeerName;

/// Maximum length of a gossip channel's name in bytes. A message with a longer one is refused.
pub const CHANNEL_BYTES_MAX: usize = 255;
/// Maximum number of overlays that two ends can have in common.
pub const OVERLAYS_MAX: usize = 256;

/// A message. Its bodies borrow from the buffer in which it was received or will be sent.
///
/// Format: `docs/protocol/mesh.md#5-2-tags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A sign of life.
    Heartbeat,
    /// Control of the only overlay of a link in legacy mode.
    Legacy {
        /// The tag, whose meaning the overlay defines.
        tag: LegacyTag,
        /// The overlay's data.
        body: &'a [u8],
    },
    /// Gossip for the neighbour.
    Gossip {
        /// The channel.
        channel: &'a str,
        /// The neighbour that sends this hop.
        sender: PeerName,
        /// The channel's data.
        payload: &'a [u8],
    },
    /// Gossip for one peer, which need not be a neighbour.
    Unicast {
        /// The channel.
        channel: &'a str,
        /// Where it comes from.
        source: PeerName,
        /// Where it goes.
        dest: PeerName,
        /// The channel's data.
        payload: &'a [u8],
    },
    /// Gossip for everybody.
    Broadcast {
        /// The channel.
        channel: &'a str,
        /// Where it comes from.
        source: PeerName,
        /// The channel's data.
        payload: &'a [u8],
    },
    /// Control of one of the overlays that both ends know.
    Overlay {
        /// Which of them.
        index: OverlayIndex,
        /// The tag, whose meaning the overlay defines.
        tag: u8,
        /// The overlay's data.
        body: &'a [u8],
    },
    /// Something that only routers of our kind understand.
    Own {
        /// What it is about.
        kind: u8,
        /// What it says.
        body: &'a [u8],
    },
    /// A message of a kind that has no meaning on this link. Must be ignored.
    Unknown(u8),
    /// An empty message. Must be ignored.
    Empty,
}

/// Why a message could not be read. The sender is always responsible.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The envelope of a gossip message is malformed.
    #[error("bad envelope of a gossip message: {0}")]
    Envelope(#[from] gob::Error),
    /// An overlay control message is too short for an index and a tag.
    #[error("overlay control message of {0} bytes, at least 2 wanted")]
    OverlayTooShort(usize),
    /// An overlay control message has an index beyond the common overlays.
    #[error("overlay control message for overlay {index}, but there are {common}")]
    OverlayIndex {
        /// The index.
        index: u8,
        /// How many overlays both ends know.
        common: u16,
    },
}

/// How the overlays of a link are controlled, as agreed by the features of both ends.
///
/// Rule: `docs/protocol/sleeve.md#1-1-agreement`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// Legacy mode: sleeve only, with its messages as they are.
    Legacy,
    /// Switched mode: an index for each overlay that both ends offer.
    Switched {
        /// Number of common overlays; at most [`OVERLAYS_MAX`].
        common: u16,
    },
}

impl OverlayMode {
    /// Returns the index of the overlay at `place` among the common overlays, or `None` if there is
    /// no such overlay.
    ///
    /// Rule: `docs/protocol/sleeve.md#1-2-control-messages`.
    pub fn index(self, place: usize) -> Option<OverlayIndex> {
        match self {
            OverlayMode::Switched { common } if place < usize::from(common) => {
                u8::try_from(place).ok().map(OverlayIndex)
            }
            _ => None,
        }
    }

    /// Returns the message that controls the overlay at `place` (0 for the only one of a legacy
    /// link), or `None` if there is no such overlay or a legacy link cannot carry the tag.
    ///
    /// Format: `docs/protocol/sleeve.md#1-2-control-messages`.
    pub fn control(self, place: usize, tag: u8, body: &[u8]) -> Option<Message<'_>> {
        match self {
            OverlayMode::Legacy if place == 0 => {
                LegacyTag::new(tag).map(|tag| Message::Legacy { tag, body })
            }
            OverlayMode::Legacy => None,
            OverlayMode::Switched { .. } => {
                self.index(place)
                    .map(|index| Message::Overlay { index, tag, body })
            }
        }
    }
}

/// Index of an overlay among the common overlays of a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayIndex(u8);

impl OverlayIndex {
    /// Returns the place, counted from 0.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// Tag of a control message on a legacy link, which is also the tag of the whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegacyTag(u8);

impl LegacyTag {
    /// Returns the tag with this number, or `None` if it is not 1, 2 or 3.
    const fn new(tag: u8) -> Option<LegacyTag> {
        match tag {
            TAG_LEGACY_FIRST..=TAG_LEGACY_LAST => Some(LegacyTag(tag)),
            _ => None,
        }
    }

    /// Returns the number, 1 to 3.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl<'a> Message<'a> {
    /// Reads a message from a link whose overlays are controlled as `mode` says.
    ///
    /// Bytes after the last item of a gossip envelope are ignored, and so is everything after the
    /// tag of a heartbeat.
    ///
    /// Format: `docs/protocol/mesh.md#5-2-tags`.
    pub fn decode(message: &'a [u8], mode: OverlayMode) -> Result<Message<'a>, MessageError> {
        let Some((&tag, body)) = message.split_first() else {
            return Ok(Message::Empty);
        };
        match (tag, mode) {
            (TAG_HEARTBEAT, _) => Ok(Message::Heartbeat),
            (TAG_GOSSIP | TAG_UNICAST | TAG_BROADCAST, _) => Ok(read_envelope(tag, body)?),
            (TAG_OVERLAY, OverlayMode::Switched { common }) => read_control(body, common),
            (TAG_OWN, OverlayMode::Switched { .. }) => Ok(match body.split_first() {
                Some((&kind, body)) => Message::Own { kind, body },
                None => Message::Unknown(tag),
            }),
            (_, OverlayMode::Legacy) => Ok(LegacyTag::new(tag)
                .map_or(Message::Unknown(tag), |tag| Message::Legacy { tag, body })),
            (_, OverlayMode::Switched { .. }) => Ok(Message::Unknown(tag)),
        }
    }

    /// Encodes the message. A [`Message::Unknown`] consists of its tag only.
    ///
    /// Format: `docs/protocol/mesh.md#5-2-tags`.
    pub fn encode(&self) -> Vec<u8> {
        match *self {
            Message::Empty => Vec::new(),
            Message::Heartbeat => vec![TAG_HEARTBEAT],
            Message::Unknown(tag) => vec![tag],
            Message::Legacy { tag, body } => [&[tag.get()], body].concat(),
            Message::Own { kind, body } => [&[TAG_OWN, kind], body].concat(),
            Message::Overlay { index, tag, body } => {
                [&[TAG_OVERLAY, index.get(), tag], body].concat()
            }
            Message::Gossip {
                channel,
                sender,
                payload,
            } => write_envelope(TAG_GOSSIP, channel, &[sender], payload),
            Message::Unicast {
                channel,
                source,
                dest,
                payload,
            } => write_envelope(TAG_UNICAST, channel, &[source, dest], payload),
            Message::Broadcast {
                channel,
                source,
                payload,
            } => write_envelope(TAG_BROADCAST, channel, &[source], payload),
        }
    }
}

/// Format: `docs/protocol/sleeve.md#1-2-control-messages`.
fn read_control(body: &[u8], common: u16) -> Result<Message<'_>, MessageError> {
    let &[index, tag, ref body @ ..] = body else {
        return Err(MessageError::OverlayTooShort(body.len()));
    };
    let mode = OverlayMode::Switched { common };
    let index = mode
        .index(usize::from(index))
        .ok_or(MessageError::OverlayIndex { index, common })?;
    Ok(Message::Overlay { index, tag, body })
}

/// Format: `docs/protocol/mesh.md#5-2-tags`.
fn read_envelope(tag: u8, body: &[u8]) -> Result<Message<'_>, gob::Error> {
    let mut decoder = Decoder::new(body);
    let channel = decoder.value()?.string()?;
    if channel.len() > CHANNEL_BYTES_MAX {
        return Err(gob::Error::Invalid("channel: its name is too long"));
    }
    let channel = std::str::from_utf8(channel)
        .map_err(|_| gob::Error::Invalid("channel: its name is not UTF-8"))?;
    let source = read_name(&mut decoder)?;
    Ok(match tag {
        TAG_UNICAST => Message::Unicast {
            channel,
            source,
            dest: read_name(&mut decoder)?,
            payload: decoder.value()?.bytes()?,
        },
        TAG_BROADCAST => Message::Broadcast {
            channel,
            source,
            payload: decoder.value()?.bytes()?,
        },
        _ => Message::Gossip {
            channel,
            sender: source,
            payload: decoder.value()?.bytes()?,
        },
    })
}

fn read_name(decoder: &mut Decoder<'_>) -> Result<PeerName, gob::Error> {
    PeerName::from_u64(decoder.value()?.uint()?)
        .ok_or(gob::Error::Invalid("peer name: more than 48 bits"))
}

/// Format: `docs/protocol/mesh.md#5-2-tags`.
fn write_envelope(tag: u8, channel: &str, names: &[PeerName], payload: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.value(Type::String, |w| w.bytes(channel.as_bytes()));
    for name in names {
        encoder.value(Type::Uint, |w| w.uint(name.as_u64()));
    }
    encoder.value(Type::Bytes, |w| w.bytes(payload));
    let mut out = vec![tag];
    out.append(&mut encoder.finish());
    out
}

const TAG_HEARTBEAT: u8 = 0;
const TAG_LEGACY_FIRST: u8 = 1;
const TAG_LEGACY_LAST: u8 = 3;
const TAG_GOSSIP: u8 = 4;
const TAG_UNICAST: u8 = 5;
const TAG_BROADCAST: u8 = 6;
const TAG_OVERLAY: u8 = 7;
const TAG_OWN: u8 = 8;

#[cfg(test)]
mod tests;
