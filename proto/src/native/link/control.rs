//! Control messages between the two ends of a native link, over the mesh connection.

use crate::native::session_config::ControlError;

/// A control message between the two ends of a native link, sent over TCP.
///
/// Format: `docs/native.md#keys`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Control {
    /// Tag 1: key agreement. The content is a [`Hello`](crate::native::keys::Hello).
    Hello(Vec<u8>),
    /// Tag 2: asks the end that dialled to begin another epoch.
    RekeyPlease,
}

impl Control {
    /// Decodes the message with this tag and content.
    pub fn decode(tag: u8, content: &[u8]) -> Result<Control, ControlError> {
        match tag {
            1 => Ok(Control::Hello(content.to_vec())),
            2 => Ok(Control::RekeyPlease),
            _ => Err(ControlError::UnknownTag(tag)),
        }
    }

    /// Returns the tag of the message.
    pub const fn tag(&self) -> u8 {
        match self {
            Control::Hello(_) => 1,
            Control::RekeyPlease => 2,
        }
    }

    /// Returns the content of the message.
    pub fn content(&self) -> &[u8] {
        match self {
            Control::Hello(content) => content,
            Control::RekeyPlease => &[],
        }
    }
}
