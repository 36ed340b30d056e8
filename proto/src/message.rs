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
//! The original dies of an overlay control message without an index and a tag, of one whose
//! index is out of range, and of the old kind on a link of the new. Values of [`OverlayIndex`]
//! and [`LegacyTag`] are made for one link, in range, so no such message can be built.

use crate::gob::{self, Decoder, Encoder, Type};
use crate::types::PeerName;

/// Longest name of a gossip channel in bytes; a message with a longer one is refused.
pub const CHANNEL_BYTES_MAX: usize = 255;
/// Most overlays that two ends can have in common.
pub const OVERLAYS_MAX: usize = 256;

/// A message, its bodies borrowed from where it was received or will be sent from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Message<'a> {
    /// A sign of life.
    Heartbeat,
    /// Control of the only overlay of a link that is controlled the old way.
    Legacy {
        /// What it means to the overlay.
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
    /// Gossip for one peer, however far.
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
        /// What it means to the overlay.
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
    /// A message of a kind that means nothing on this link; to be ignored.
    Unknown(u8),
    /// A message without even a tag; to be ignored.
    Empty,
}

/// Why a message could not be read. The sender's fault, always.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The envelope of a gossip message is broken.
    #[error("bad envelope of a gossip message: {0}")]
    Envelope(#[from] gob::Error),
    /// An overlay control message has no room for an index and a tag.
    #[error("overlay control message of {0} bytes, at least 2 wanted")]
    OverlayTooShort(usize),
    /// An overlay control message for an overlay that is not there.
    #[error("overlay control message for overlay {index}, but there are {common}")]
    OverlayIndex {
        /// The index.
        index: u8,
        /// How many overlays both ends know.
        common: u16,
    },
}

/// How the overlays of a link are controlled, as both ends' features decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverlayMode {
    /// The old way: sleeve alone, its messages as they are.
    Legacy,
    /// With an index for each of the overlays that both ends know.
    Switched {
        /// How many these are; at most [`OVERLAYS_MAX`].
        common: u16,
    },
}

impl OverlayMode {
    /// The overlay in this place among those that both ends know, if a message can name it.
    pub fn index(self, place: usize) -> Option<OverlayIndex> {
        match self {
            OverlayMode::Switched { common } if place < usize::from(common) => {
                u8::try_from(place).ok().map(OverlayIndex)
            }
            _ => None,
        }
    }

    /// The message that controls the overlay in this place (0 for the only one of a legacy
    /// link); `None` if there is no such overlay, or if a legacy link cannot carry the tag.
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

/// The place of an overlay among those that both ends of a link know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OverlayIndex(u8);

impl OverlayIndex {
    /// The place, counted from 0.
    pub const fn get(self) -> u8 {
        self.0
    }
}

/// What a control message says to the only overlay of a legacy link; it doubles as the tag of
/// the whole message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LegacyTag(u8);

impl LegacyTag {
    /// The tag of this number, if it is one of the three.
    const fn new(tag: u8) -> Option<LegacyTag> {
        match tag {
            TAG_LEGACY_FIRST..=TAG_LEGACY_LAST => Some(LegacyTag(tag)),
            _ => None,
        }
    }

    /// The number, 1 to 3.
    pub const fn get(self) -> u8 {
        self.0
    }
}

impl<'a> Message<'a> {
    /// Reads a message of a link whose overlays are controlled as `mode` says.
    ///
    /// Bytes after the last item of a gossip envelope are not looked at, and neither is what
    /// follows the tag of a heartbeat.
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

    /// The bytes of the message. An [`Message::Unknown`] is its tag alone.
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
